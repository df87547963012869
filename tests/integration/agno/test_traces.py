"""agno's calls about traces and spans, on every store and in fan-outs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from agno.tracing.schemas import Span, Trace

from agno_clouddb import Database, connect
from agno_clouddb.integrations.agno.traces import TraceCalls
from agno_clouddb.repositories import spans as repository
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import CountingStore
from tests.integration.agno.competing import WORKERS, all_at_once, alone, databases

__all__ = ["databases"]

COLLECTIONS = ("traces", "spans")

START = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NOBODY = dict.fromkeys(("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id"))


def trace(trace_id: str = "t1", start: float = 0, end: float = 10, **values: Any) -> Trace:
    fixed = {
        "trace_id": trace_id,
        "name": "Agent.run",
        "status": "OK",
        "start_time": START + start * SECOND,
        "end_time": START + end * SECOND,
        "duration_ms": int(1_000 * (end - start)),
        "total_spans": 7,
        "error_count": 7,
        "created_at": START + end * SECOND,
    }
    return Trace(**{**NOBODY, **fixed, **values})


def span(span_id: str = "s1", trace_id: str = "t1", start: float = 0, **values: Any) -> Span:
    fixed = {
        "span_id": span_id,
        "trace_id": trace_id,
        "parent_span_id": None,
        "name": "step",
        "span_kind": "INTERNAL",
        "status_code": "OK",
        "status_message": None,
        "start_time": START + start * SECOND,
        "end_time": START + (start + 1) * SECOND,
        "duration_ms": 1_000,
        "attributes": {"openinference.span.kind": "LLM", "deep": [1, None, {"x": 2.5}]},
        "created_at": START + start * SECOND,
    }
    return Span(**{**fixed, **values})


async def test_of_parts_that_16_write_at_once_none_is_missing_and_spans_count_once(databases: list[Database]) -> None:
    await databases[0].provision(COLLECTIONS)
    agnos = [alone(TraceCalls, databases[n % len(databases)]) for n in range(WORKERS)]

    async def export(worker: int) -> None:
        # A part of its own, one span of its own, and one that two workers have.
        await agnos[worker].upsert_trace(trace(start=-worker, end=10 + worker, run_id="r1" if worker == 7 else None))
        shared = span(f"shared{worker // 2}", status_code="ERROR")
        await agnos[worker].create_spans([span(f"own{worker}", start=worker), shared])

    assert await all_at_once([partial(export, worker) for worker in range(WORKERS)]) == [None] * WORKERS
    for agno in agnos:
        found = await agno.get_trace("t1")
        assert found is not None
        assert (found.start_time, found.end_time) == (START - 15 * SECOND, START + 25 * SECOND)
        assert (found.duration_ms, found.run_id) == (40_000, "r1")
        assert (found.total_spans, found.error_count) == (WORKERS + WORKERS // 2, WORKERS // 2)


async def test_a_trace_and_its_spans_come_back_as_they_were(db: Database) -> None:
    agno = alone(TraceCalls, db)
    written = trace(user_id="ann", session_id="x", run_id="r", start_time=START + timedelta(microseconds=1))
    spans = [span("b", start=1, attributes=None), span("a", start=2, status_code="ERROR", parent_span_id="b")]
    await agno.upsert_trace(written)
    await agno.create_spans(spans)
    found = await agno.get_trace(run_id="r")
    assert found == Trace(**{**vars(written), "total_spans": 2, "error_count": 1})
    assert await agno.get_spans("t1") == spans
    assert await agno.get_spans(parent_span_id="b") == spans[1:]
    assert await agno.get_spans("t1", limit=1) == spans[:1]
    await agno.create_span(span("a", name="another"))
    assert await agno.get_span("a") == spans[1]


async def test_a_span_is_found_by_its_id_alone_also_by_a_process_that_has_not_seen_its_trace(db: Database) -> None:
    writer = alone(TraceCalls, db)
    for number in range(3):
        await writer.upsert_trace(trace(f"t{number}", start=number))
        await writer.create_span(span(f"s{number}", f"t{number}"))
    reader = alone(TraceCalls, db)
    for number in (0, 2, 1):
        assert await reader.get_span(f"s{number}") == span(f"s{number}", f"t{number}")
    assert await reader.get_span("none") is None


async def test_traces_are_listed_in_pages_with_their_number_and_narrowed_by_expressions(db: Database) -> None:
    agno = alone(TraceCalls, db)
    for number in range(7):
        values: dict[str, Any] = {"user_id": "ann" if number % 2 else None, "status": "ERROR" if number == 3 else "OK"}
        await agno.upsert_trace(trace(f"t{number}", start=number, name=f"Agent{number}.run", **values))
    pages = [[each.trace_id for each in (await agno.get_traces(limit=3, page=n))[0]] for n in (1, 2, 3, 4)]
    assert pages == [["t6", "t5", "t4"], ["t3", "t2", "t1"], ["t0"], []]
    assert (await agno.get_traces(limit=1))[1] == 7
    failed = {"op": "NOT", "condition": {"op": "EQ", "key": "status", "value": "OK"}}
    anns = {"op": "EQ", "key": "user_id", "value": "ann"}
    either = {"op": "OR", "conditions": [failed, {"op": "CONTAINS", "key": "name", "value": "AGENT5"}]}
    found, total = await agno.get_traces(limit=1, page=2, filter_expr={"op": "AND", "conditions": [anns, either]})
    assert ([each.trace_id for each in found], total) == (["t3"], 2)


@pytest.mark.parametrize("value", ["x" * 513, "x" * 1_025, "a\x01b", "\ud800", "", 7])
@pytest.mark.parametrize("key", ["user_id", "status"])
async def test_an_expression_with_what_no_store_can_hold_matches_nothing(key: str, value: object) -> None:
    async with connect("memory://") as db:
        await db.provision(COLLECTIONS)
        agno = alone(TraceCalls, db)
        await agno.upsert_trace(trace(user_id="ann"))
        given = {"op": "EQ", "key": key, "value": value}
        assert await agno.get_traces(filter_expr=given) == ([], 0)
        assert await agno.get_trace_stats(filter_expr=given) == ([], 0)


def nested(depth: int) -> dict[str, Any]:
    return {"op": "NOT", "condition": nested(depth - 1)} if depth else {"op": "EQ", "key": "name", "value": "x"}


@pytest.mark.parametrize(
    "given",
    [
        {"op": "EQ", "key": "secret", "value": "x"},
        {"op": "EQ", "key": "name"},
        {"op": "EQ", "key": ["name"], "value": "x"},
        {"op": ["EQ"], "key": "name", "value": "x"},
        {"op": "LIKE", "key": "name", "value": "x"},
        {"op": "IN", "key": "name", "values": 7},
        {"op": "AND", "conditions": []},
        {"op": "OR", "conditions": 7},
        {"op": "NOT"},
        {"key": "name"},
        nested(11),
    ],
)
async def test_what_is_no_filter_expression_is_a_value_error(given: dict[str, Any]) -> None:
    async with connect("memory://") as db:
        await db.provision(COLLECTIONS)
        agno = alone(TraceCalls, db)
        with pytest.raises(ValueError, match=r"[Ff]ilter"):
            await agno.get_traces(filter_expr=given)
        with pytest.raises(ValueError, match=r"[Ff]ilter"):
            await agno.get_trace_stats(filter_expr=given)
        assert await agno.get_traces(filter_expr=nested(10)) == ([], 0)


async def test_traces_and_spans_are_counted_by_session_component_and_name(db: Database) -> None:
    agno = alone(TraceCalls, db)
    await agno.upsert_trace(trace("t0", end=1, session_id="x", user_id="ann", agent_id="a1"))
    await agno.upsert_trace(trace("t1", end=4, session_id="x", user_id="bob", agent_id="a1", status="ERROR"))
    await agno.upsert_trace(trace("t2", end=2, session_id="y", agent_id="a2"))
    await agno.upsert_trace(trace("t3", end=3, name="POST /runs"))
    sessions, total = await agno.get_trace_stats()
    assert ([each["session_id"] for each in sessions], total) == (["x", "y"], 2)
    assert (sessions[0]["user_id"], sessions[0]["total_traces"]) == ("bob", 2)
    agents, _ = await agno.get_trace_stats(group_by="agent", limit=1)
    assert agents == [
        {
            "agent_id": "a1",
            "total_traces": 2,
            "total_sessions": 1,
            "avg_duration_ms": 2_500.0,
            "p95_duration_ms": None,
            "max_duration_ms": 4_000,
            "error_traces": 1,
            "first_trace_at": START + SECOND,
            "last_trace_at": START + 4 * SECOND,
        }
    ]
    endpoints, _ = await agno.get_trace_stats(group_by="endpoint", start_time=START + 3 * SECOND)
    assert [(each["name"], each["total_traces"]) for each in endpoints] == [("POST /runs", 1)]
    await agno.create_spans([span(f"s{n}", f"t{n % 4}", start=n / 10, duration_ms=n) for n in range(6)])
    stats, total = await agno.get_span_stats(agent_id="a1", sort_by="last_called_at")
    assert total == 1
    assert [(each["span_type"], each["total_calls"], each["avg_duration_ms"]) for each in stats] == [("LLM", 4, 2.5)]
    assert await agno.get_span_stats(start_time=START + SECOND) == ([], 0)


async def test_a_span_of_a_trace_that_was_just_read_is_found_in_one_request() -> None:
    store = CountingStore(MemoryStore())
    async with connect(store) as db:
        await db.provision(COLLECTIONS)
        writer = alone(TraceCalls, db)
        for number in range(150):
            await writer.upsert_trace(trace(f"t{number}", start=number, end=number + 1))
        await writer.create_span(span("old", "t0"))
        reader = alone(TraceCalls, db)
        assert await reader.get_trace("t0") is not None
        before = store.calls.total()
        assert await reader.get_span("old") is not None
        assert store.calls.total() - before == 1
        before = store.calls.total()
        assert await alone(TraceCalls, db).get_span("none") is None
        assert store.calls.total() - before == 2 * -(-150 // repository._TRACES)
