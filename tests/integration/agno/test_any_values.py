"""Values that agno's databases take and a record has no room for, or that agno types otherwise than it takes them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from agno.db.schemas.evals import EvalRunRecord, EvalType
from agno.db.schemas.knowledge import KnowledgeRow
from agno.db.schemas.memory import UserMemory
from agno.db.sqlite import AsyncSqliteDb
from agno.session import AgentSession
from agno.tracing.exporter import DatabaseSpanExporter
from agno.tracing.schemas import Span, Trace

from agno_clouddb import BulkWriteError, InvalidRecord
from agno_clouddb.integrations.agno import AsyncCloudDb
from tests.integration.agno.differential import Call, compare
from tests.integration.agno.test_schedules import schedule

# What agno does with SQLAlchemy and is warned for would be an error here, and agno's answer.
pytestmark = pytest.mark.filterwarnings("ignore")

START = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LONG = timedelta(days=1) / 1024  # which agno's SQLite, that counts days as floats, knows exactly
CREATED = 1_700_000_000

ANY: tuple[Any, ...] = (None, True, 5, 1.5, "", "text", [], [1, "Tea", None], {}, {"content": "green Tea", "n": [1]})


def trace(key: str, **values: Any) -> Trace:
    context = dict.fromkeys(("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id"))
    times = {"start_time": START, "end_time": START + LONG, "created_at": START, "duration_ms": 84_375}
    counts = {"total_spans": 0, "error_count": 0}
    return Trace(**{"trace_id": key, "name": "POST /runs", "status": "OK", **context, **times, **counts, **values})


def span(key: str, trace_id: str = "t", **values: Any) -> Span:
    times = {"start_time": START, "end_time": START + SECOND, "created_at": START, "duration_ms": 1_000}
    kept: dict[str, Any] = {"parent_span_id": None, "status_message": None, "attributes": {}}
    named = {"name": "step", "span_kind": "INTERNAL", "status_code": "OK"}
    return Span(**{"span_id": key, "trace_id": trace_id, **named, **kept, **times, **values})


def content(key: str, **values: Any) -> KnowledgeRow:
    moments = {"created_at": CREATED, "updated_at": CREATED}
    return KnowledgeRow(**{"id": key, "name": "file", "description": "", **moments, **values})


def account(key: str, **values: Any) -> dict[str, Any]:
    return {
        "id": key,
        "name": key,
        "token_hash": key,
        "token_prefix": "p",
        "scopes": [],
        "created_at": CREATED,
        **values,
    }


def memories() -> list[Call]:
    made = [
        partial(UserMemory, memory=value, topics=value, memory_id=f"m{number}", created_at=CREATED + number)
        for number, value in enumerate(ANY)
    ]
    calls = [Call("upsert_user_memory", {"memory": each, "deserialize": False}) for each in made]
    calls += [Call("upsert_memories", {"memories": lambda: [None, made[0](), made[-1]()]}, ordered=False)]
    for deserialize in (True, False):
        calls += [
            Call("get_user_memory", {"memory_id": f"m{number}", "deserialize": deserialize})
            for number, _ in enumerate(ANY)
        ]
        calls += [
            Call("get_user_memories", {"search_content": text, "deserialize": deserialize})
            for text in ("GREEN tea", "content", "null", '"n": [1]')
        ]
        calls += [
            Call("get_user_memories", {"topics": [topic], "deserialize": deserialize})
            for topic in ("text", "content", "1", "Tea")
        ]
    return [*calls, Call("get_all_memory_topics", ordered=False)]


def learnings() -> list[Call]:
    calls: list[Call] = []
    for number, value in enumerate(ANY):
        key, kind = f"l{number}", f"type{number}"
        calls += [
            Call("upsert_learning", {"id": key, "learning_type": kind, "content": value, "metadata": value}),
            Call("get_learning_by_id", {"id": key}),
            Call("get_learning", {"learning_type": kind}),
            Call("update_learning", {"id": key, "content": ANY[-1 - number], "metadata": ANY[-1 - number]}),
            Call("get_learning_by_id", {"id": key}),
            Call("update_learning", {"id": key, "content": {"now": "an object"}}),
            Call("get_learning_by_id", {"id": key}),
        ]
    return [*calls, Call("list_learnings", {"sort_by": "learning_id"})]


def contents() -> list[Call]:
    lines = "a name\nof two lines " * 40
    columns = ("type", "status", "linked_to")
    calls: list[Call] = []
    for key, text in (("k0", ""), ("k1", "base"), ("k2", lines), ("k0", "base"), ("k0", None), ("k0", "")):
        row = partial(content, key, created_at=CREATED + int(key[1]), **dict.fromkeys(columns, text))
        calls += [Call("upsert_knowledge_content", {"knowledge_row": row}), Call("get_knowledge_content", {"id": key})]
        calls += [
            Call("get_knowledge_contents", {"linked_to": each, "sort_by": "created_at", "limit": 2, "page": page})
            for each in (None, "", "base", lines)
            for page in (1, 2)
        ]
    return calls


def traces() -> list[Call]:
    calls: list[Call] = []
    columns = ("status", "run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id")
    for number, name in enumerate(columns):
        made = {name: "", "created_at": START + number * SECOND, "start_time": START - number * SECOND}
        calls += [Call("upsert_trace", {"trace": partial(trace, f"t-{name}", **made)})]
    calls += [
        Call("upsert_trace", {"trace": partial(trace, "t-half", duration_ms=5.5, start_time=START - 9 * SECOND)}),
        Call("upsert_trace", {"trace": partial(trace, "t-parts", status="", agent_id="")}),
        Call("upsert_trace", {"trace": partial(trace, "t-parts", status="OK", agent_id="a", team_id="")}),
        Call("upsert_trace", {"trace": partial(trace, "t-parts", status="")}),
        Call("get_traces", {"limit": None}, ordered=False),
        Call("get_traces", {"status": "OK", "limit": 3}),
        Call("get_traces", {"filter_expr": {"op": "EQ", "key": "user_id", "value": ""}}),
        Call("get_traces", {"filter_expr": {"op": "EQ", "key": "duration_ms", "value": 5.5}}),
        *(Call("get_trace", {"trace_id": f"t-{name}"}) for name in (*columns, "half", "status")),
        *(Call("get_trace_stats", {"group_by": each}) for each in ("session", "agent", "team", "workflow", "endpoint")),
    ]
    kind = "openinference.span.kind"
    kinds: tuple[Any, ...] = ({kind: True}, {kind: ["LLM", {"ü": 1}]}, {kind: {"a": 1}}, ["LLM"], "LLM", None)
    for number, attributes in enumerate(kinds):
        made = {"attributes": attributes, "parent_span_id": "" if number % 2 else None, "duration_ms": number + 0.5}
        key = f"s{number}"
        calls += [
            Call("create_span", {"span": partial(span, key, "t-half", created_at=START + number * SECOND, **made)}),
            Call("get_span", {"span_id": key}),
        ]
    return [
        *calls,
        Call("get_spans", {"trace_id": "t-half"}),
        Call("get_span_stats"),
        Call("get_trace", {"run_id": ""}),
    ]


UNLIKE_JSON: Any = {1: "one", False: {2: None}, None: [(START, START.date())], "id": UUID(int=7)}


def sessions() -> list[Call]:
    calls: list[Call] = []
    for number, name in enumerate(("metadata", "session_data", "agent_data", "summary")):
        made = partial(AgentSession, f"s{number}", agent_id="a", created_at=CREATED + number)
        given = partial(made, **{name: UNLIKE_JSON}) if name != "summary" else partial(made, metadata={"at": START})
        calls += [
            Call("upsert_session", {"session": given, "deserialize": False}),
            Call("upsert_session", {"session": given}),
            Call("upsert_sessions", {"sessions": lambda given=given: [given()], "deserialize": False}),
            Call("get_session", {"session_id": f"s{number}", "deserialize": False}),
            Call("upsert_run", {"run": {"run_id": f"r{number}", "agent_id": "a"}, "session_id": f"s{number}"}),
        ]
    return [*calls, Call("get_runs", {"session_id": "s0"})]


def others() -> list[Call]:
    run = {"id": "r", "schedule_id": "s", "attempt": 1, "status": "running", "created_at": CREATED}
    result: dict[str, Any] = dict.fromkeys(
        ("namespace", "path", "session_id", "run_id", "tool_call_id", "tool_name"), "x"
    )
    result |= dict.fromkeys(("args_hash", "content_type", "preview"), "")
    result |= {"result_id": "r", "size_bytes": 1, "line_count": 1, "created_at": CREATED}
    evaluation = partial(EvalRunRecord, run_id="e", eval_type=EvalType.ACCURACY, eval_data={}, name="first")
    long = "a name\nof two lines " * 40
    return [
        Call("create_eval_run", {"eval_run": evaluation}),
        *(
            Call("rename_eval_run", {"eval_run_id": "e", "name": name, "deserialize": deserialize})
            for name in ("", None)
            for deserialize in (True, False)
        ),
        Call("create_schedule", {"schedule_data": schedule("s", payload=["any", 1])}),
        Call("create_schedule_run", {"run_data": {**run, "input": "any", "output": 5, "requirements": True}}),
        Call("update_schedule_run", {"schedule_run_id": "r"}),
        Call("get_schedule_run", {"run_id": "r"}),
        Call("create_service_account", {"account_data": account("a1", scopes=None)}),
        Call("create_service_account", {"account_data": account("a2", name=long, scopes={"any": 1})}),
        Call("create_service_account", {"account_data": account("a3", name=long)}),
        Call("get_service_account", {"service_account_id": "a1"}),
        *(Call("get_service_account_by_name", {"name": long, "include_revoked": revoked}) for revoked in (True, False)),
        Call("upsert_tool_result", {"row": {**result, "expires_at": CREATED + 0.5}}),
        Call("get_expired_tool_results", {"now": CREATED}),
        Call("get_expired_tool_results", {"now": CREATED + 1}),
        Call("upsert_auth_token", {"token": {"provider": "p", "service": "s", "token_data": None}}),
        Call("get_auth_token", {"provider": "p", "user_id": None, "service": "s"}),
        *(
            Call("get_metrics", {"starting_date": low, "ending_date": high})
            for low, high in ((START, None), (None, START), (START, START.date()), (START + SECOND, START))
        ),
    ]


@pytest.mark.parametrize(
    "calls", [sessions, memories, learnings, contents, traces, others], ids=lambda each: each.__name__
)
async def test_any_value_is_kept_and_given_back_as_by_agnos_own(calls: Any, tmp_path: Path) -> None:
    theirs, ours = AsyncSqliteDb(db_file=str(tmp_path / "agno.sqlite")), AsyncCloudDb("memory://", provision=True)
    try:
        await theirs._create_all_tables()  # type: ignore[no-untyped-call]
        await compare(calls(), theirs, ours)
    finally:
        await theirs.close()
        await ours.close()


async def test_a_session_that_is_inserted_is_kept_as_one_that_is_written() -> None:
    db = AsyncCloudDb("memory://", provision=True)
    kept = []
    for write in (db.insert_session_if_absent, db.upsert_session):
        values: Any = dict.fromkeys(("session_data", "metadata", "agent_data"), UNLIKE_JSON)
        session = AgentSession(write.__name__, agent_id="a", created_at=CREATED, **values)
        assert await write(session)
        row = await db.get_session(write.__name__, deserialize=False)
        assert isinstance(row, dict)
        kept.append([row[name] for name in values])
        assert not await db.insert_session_if_absent(session)
    assert kept[0] == kept[1]
    moments = [[START.isoformat(), "2024-01-01"]]
    assert kept[0][0] == {"1": "one", "false": {"2": None}, "null": moments, "id": str(UUID(int=7))}
    await db.close()


async def test_a_search_finds_the_texts_in_what_is_no_object() -> None:
    db = AsyncCloudDb("memory://", provision=True)
    for key, learned in (("l1", ["likes", "green tea"]), ("l2", "Green tea"), ("l3", None), ("l4", {"tea": "black"})):
        await db.upsert_learning(key, "x", learned)  # type: ignore[arg-type]
    assert [each["learning_id"] for each in await db.search_learnings("green tea")] == ["l2", "l1"]
    await db.close()


async def test_what_another_writer_has_changed_since_counts() -> None:
    db = AsyncCloudDb("memory://", provision=True)
    await db.upsert_user_memory(UserMemory(memory={"a": 1}, topics={"b": "c"}, memory_id="m"))  # type: ignore[arg-type]
    await db.upsert_knowledge_content(content("k", linked_to="", status=""))
    database = await db.database()
    memory = await database.memories.get("m")
    assert memory is not None
    assert (memory.memory, memory.topics) == ('{"a": 1}', ["b", "c"])
    await database.memories.update("m", lambda each: each.model_copy(update={"memory": "new"}))
    await database.knowledge.set_status("k", "completed", expected=None)
    row = await db.get_user_memory("m", deserialize=False)
    assert isinstance(row, dict)
    assert (row["memory"], row["topics"]) == ("new", {"b": "c"})
    found = await db.get_knowledge_content("k")
    assert found is not None
    assert (found.linked_to, found.status) == ("", "completed")
    await db.close()


async def test_what_ends_before_it_begins_is_kept_with_a_warning_and_so_is_all_that_comes_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    db = AsyncCloudDb("memory://", provision=True)
    exporter = DatabaseSpanExporter(db)
    back = {"end_time": START - SECOND, "duration_ms": -1_000}
    batches = {
        "t1": [span("s1", "t1", **back), span("s2", "t1", status_message="half a \ud83d")],
        "t2": [span("s3", "t2")],
    }
    await exporter._do_async_export(batches)
    found, total = await db.get_traces()
    assert (sorted(each.trace_id for each in found), total) == (["t1", "t2"], 2)
    kept = await db.get_span("s1")
    assert kept is not None
    assert (kept.start_time, kept.end_time, kept.duration_ms) == (START, START, -1_000)
    other = await db.get_span("s2")
    assert other is not None
    assert other.status_message == "half a \ufffd"
    await db.upsert_trace(trace("t3", **back))
    last = await db.get_trace("t3")
    assert last is not None
    assert (last.end_time, last.duration_ms) == (START, -1_000)
    assert "before it begins" in caplog.text
    assert [each.levelno for each in caplog.records if "begins" in each.message] == [logging.WARNING] * 2
    await db.close()


async def test_what_is_of_another_type_is_refused_by_name() -> None:
    db: Any = AsyncCloudDb("memory://", provision=True)
    await db.upsert_session(AgentSession(session_id="s", agent_id="a"))
    unchecked = EvalRunRecord.model_construct
    given: list[tuple[str, Any]] = [
        ("input", lambda: db.upsert_user_memory(UserMemory(memory="m", input={"a": 1}))),  # type: ignore[arg-type]
        ("namespace", lambda: db.upsert_learning("l", "x", {}, namespace=5)),
        ("name", lambda: db.upsert_trace(trace("t", name=5))),
        ("agent_id", lambda: db.upsert_trace(trace("t", agent_id=["a"]))),
        ("status_code", lambda: db.create_span(span("s", status_code=5))),
        ("eval_data", lambda: db.create_eval_run(unchecked(run_id="e", eval_type="accuracy", eval_data=[1]))),
        ("size", lambda: db.upsert_knowledge_content(content("k").model_copy(update={"size": "much"}))),
        ("user_id", lambda: db.upsert_session(AgentSession(session_id="s", agent_id="a", user_id=5))),  # type: ignore[arg-type]
        ("session_data", lambda: db.upsert_session(AgentSession(session_id="s", session_data=["a"]))),  # type: ignore[arg-type]
        ("status", lambda: db.upsert_run({"run_id": "r", "status": ["PAUSED"]}, "s")),
    ]
    for name, call in given:
        with pytest.raises((InvalidRecord, BulkWriteError)) as caught:
            await call()
        assert name in str(caught.value)
    await db.close()
