"""AgentOS, agno's FastAPI runtime, starts on AsyncCloudDb, and its routes answer as they do on agno's AsyncSqliteDb."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from agno.agent import Agent
from agno.db.base import AsyncBaseDb
from agno.db.schemas.evals import EvalRunRecord, EvalType
from agno.db.schemas.knowledge import KnowledgeRow
from agno.db.schemas.memory import UserMemory
from agno.db.sqlite import AsyncSqliteDb
from agno.knowledge import Knowledge
from agno.memory import MemoryManager
from agno.os import AgentOS
from agno.os.settings import AgnoAPISettings
from agno.team import Team
from agno.tracing.schemas import Span, Trace
from agno.workflow import Step, Workflow

from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.testing.scripted import ScriptedModel, ToolUse
from tests.acceptance.scripted import answering, remembering, using
from tests.integration.agno.differential import normalised

# agno's SQLite looks for text in columns of JSON.
pytestmark = pytest.mark.filterwarnings("ignore:Type object .*JSON.*:sqlalchemy.exc.SADeprecationWarning")

START = datetime(2024, 5, 1, tzinfo=UTC)


@asynccontextmanager
async def served(db: AsyncBaseDb) -> AsyncIterator[httpx.AsyncClient]:
    """AgentOS over a database, started and stopped as a server does it, without a network."""
    agent = Agent(
        id="talker",
        name="Talker",
        db=db,
        model=ScriptedModel(),
        add_history_to_context=True,
        memory_manager=MemoryManager(model=remembering(), db=db),
        update_memory_on_run=True,
    )
    member = Agent(id="member", name="Member", model=answering("I know."))
    delegation = ToolUse("delegate_task_to_member", {"member_id": "member", "task": "Tell."})
    team = Team(id="crew", name="Crew", db=db, members=[member], model=using(delegation))
    step = Step(name="say", agent=Agent(id="stepper", name="Stepper", model=ScriptedModel()))
    workflow = Workflow(id="flow", name="Flow", db=db, steps=[step])
    system = AgentOS(
        id="os",
        agents=[agent],
        teams=[team],
        workflows=[workflow],
        knowledge=[Knowledge(name="Library", contents_db=db)],
        settings=AgnoAPISettings(),
        telemetry=False,
    )
    app = system.get_app()
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://os") as client:
            yield client


async def fill(db: AsyncBaseDb) -> None:
    """What no route writes by itself: evaluations, contents of knowledge, traces."""
    for number in range(3):
        await db.create_eval_run(
            EvalRunRecord(
                run_id=f"e{number}",
                eval_type=EvalType.ACCURACY if number else EvalType.RELIABILITY,
                eval_data={"score": number},
                eval_input={"input": "2 + 2"},
                name=f"eval {number}",
                agent_id="talker",
                model_id="scripted",
            )
        )
        await db.upsert_knowledge_content(
            KnowledgeRow(
                id=f"k{number}",
                name=f"file{number}.txt",
                description="A file",
                metadata={"n": number},
                type="text/plain",
                size=number,
                status="completed",
                linked_to="Library",
                created_at=int(START.timestamp()) + number,
                updated_at=int(START.timestamp()) + number,
            )
        )
        begin = START + timedelta(hours=number)
        moments: dict[str, Any] = {"start_time": begin, "end_time": begin + timedelta(seconds=1), "duration_ms": 1000}
        scope: dict[str, Any] = {"run_id": f"r{number}", "session_id": "s1", "user_id": "ann", "agent_id": "talker"}
        await db.upsert_trace(
            Trace(
                trace_id=f"t{number}",
                name="Talker.arun",
                status="OK",
                total_spans=1,
                error_count=0,
                team_id=None,
                workflow_id=None,
                created_at=begin,
                **moments,
                **scope,
            )
        )
        await db.create_spans(
            [
                Span(
                    span_id=f"t{number}-root",
                    trace_id=f"t{number}",
                    parent_span_id=None,
                    name="Talker.arun",
                    span_kind="INTERNAL",
                    status_code="OK",
                    status_message=None,
                    attributes={"openinference.span.kind": "AGENT", "input.value": "hello"},
                    created_at=begin,
                    **moments,
                )
            ]
        )
        await db.upsert_user_memory(
            UserMemory(
                memory_id=f"m{number}",
                memory=f"Likes tea {number}",
                topics=["tea", "drinks"],
                user_id="bob",
                created_at=int(START.timestamp()) + number,
                updated_at=int(START.timestamp()) + number,
            )
        )


def run_of(kind: str, id: str, message: str, session: str, **others: str) -> tuple[str, str, dict[str, Any]]:
    form = {"message": message, "session_id": session, "user_id": "ann", "stream": "false", **others}
    return "POST", f"/{kind}/{id}/runs", {"data": form}


Asked = tuple[str, str, dict[str, Any]]

WRITTEN: list[Asked] = [
    run_of("agents", "talker", "one", "s1"),
    run_of("agents", "talker", "two", "s1"),
    run_of("teams", "crew", "what?", "s2"),
    run_of("workflows", "flow", "go", "s3"),
    ("POST", "/sessions?type=agent", {"json": {"session_id": "s4", "session_name": "Made", "agent_id": "talker"}}),
    ("POST", "/sessions/s1/rename?type=agent", {"json": {"session_name": "Talk"}}),
    ("PATCH", "/sessions/s4?type=agent", {"json": {"session_state": {"n": 1}, "metadata": {"tag": "x"}}}),
    ("POST", "/memories", {"json": {"memory": "Is tall", "topics": ["looks"], "user_id": "eve"}}),
    ("PATCH", "/memories/m1?user_id=bob", {"json": {"memory": "Likes coffee", "topics": ["coffee"], "user_id": "bob"}}),
    ("PATCH", "/eval-runs/e1", {"json": {"name": "renamed"}}),
    ("PATCH", "/knowledge/content/k1", {"data": {"name": "renamed.txt", "description": "Changed"}}),
    ("POST", "/metrics/refresh", {}),
]

STRANGE = ("a%0Ab", "x" * 600)
"""What is no id, in a path."""

READ: list[Asked] = [
    ("GET", path, {})
    for path in (
        "/config",
        "/sessions?type=agent",
        "/sessions?type=agent&limit=1&page=2&sort_by=session_id&sort_order=asc",
        "/sessions?type=agent&user_id=ann",
        "/sessions?type=agent&component_id=talker&session_name=talk",
        "/sessions?type=team",
        "/sessions?type=workflow",
        "/sessions/s1?type=agent",
        "/sessions/s1?type=agent&user_id=bob",
        "/sessions/s2?type=team",
        "/sessions/s3?type=workflow",
        "/sessions/none?type=agent",
        "/sessions/s1/runs?type=agent",
        "/sessions/s2/runs?type=team",
        "/sessions/s3/runs?type=workflow",
        "/sessions/s1/run-previews?type=agent",
        "/sessions/s1/runs/none?type=agent",
        "/memories?user_id=bob",
        "/memories?user_id=bob&topics=tea&limit=1&page=1&sort_by=updated_at&sort_order=desc",
        "/memories?user_id=bob&search_content=coffee",
        "/memories?user_id=ann",
        "/memories/m1?user_id=bob",
        "/memories/m1?user_id=ann",
        "/memories/none",
        "/memory_topics",
        "/user_memory_stats",
        "/metrics",
        "/metrics/refresh/status",
        "/eval-runs",
        "/eval-runs?limit=1&page=2&sort_by=name&sort_order=desc",
        "/eval-runs?eval_types=accuracy&agent_id=talker",
        "/eval-runs/e1",
        "/eval-runs/none",
        "/knowledge/content",
        "/knowledge/content?limit=1&page=2&sort_by=created_at&sort_order=desc",
        "/knowledge/content/k1",
        "/knowledge/content/k1/status",
        "/knowledge/content/none",
        "/knowledge/config",
        "/traces",
        "/traces?session_id=s1&limit=2&page=1",
        "/traces?user_id=bob",
        "/traces?run_id=r1",
        "/traces/t1",
        "/traces/t1?span_id=t1-root",
        "/traces/none",
        "/traces/filter-schema",
        "/trace_session_stats?user_id=ann",
        # What no record can have, and a form that was left empty.
        *(f"/sessions/{each}?type=agent" for each in STRANGE),
        *(
            f"{path}/{each}"
            for path in ("/memories", "/eval-runs", "/knowledge/content", "/traces")
            for each in STRANGE
        ),
        *(f"/sessions?type=agent&{name}=" for name in ("component_id", "user_id")),
        *(f"/memories?{name}=" for name in ("agent_id", "team_id", "user_id")),
        *(f"/eval-runs?{name}=" for name in ("agent_id", "team_id", "workflow_id", "model_id", "user_id")),
        "/memory_topics?user_id=",
        "/user_memory_stats?user_id=",
        "/traces?agent_id=%01",
    )
] + [
    ("POST", "/traces/search", {"json": {"filter": {"op": "EQ", "key": "run_id", "value": "r1"}, "limit": 10}}),
]

DELETED: list[Asked] = [
    ("DELETE", "/memories/m0?user_id=bob", {}),
    ("DELETE", "/memories", {"json": {"memory_ids": ["m1", "none", ""], "user_id": "bob"}}),
    ("DELETE", "/eval-runs", {"json": {"eval_run_ids": ["e0", "none", ""]}}),
    ("DELETE", "/knowledge/content/k0", {}),
    ("DELETE", "/sessions/s4?type=agent", {}),
    ("DELETE", "/sessions/a%0Ab?type=agent", {}),
    ("DELETE", "/sessions", {"json": {"session_ids": ["s2", "none"], "session_types": ["team", "agent"]}}),
]

_TAKEN = re.compile(r"duration|time_to_first_token|_seconds$|^time$|^search_time_ms$")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")

# agno leaves the order open: topics are a set there, and the others may be of one second, which is its unit.
_UNORDERED = (
    "/memory_topics",
    "/memories?user_id=ann",
    "/sessions?type=agent",
    "/user_memory_stats",
    "/eval-runs",
    "/eval-runs?eval_types=accuracy&agent_id=talker",
)


async def answer(client: httpx.AsyncClient, asked: Asked) -> Any:
    method, path, arguments = asked
    response = await client.request(method, path, **arguments)
    body = comparable(normalised(response.json() if response.content else None))
    if method == "GET" and path in _UNORDERED:
        of_body = body if isinstance(body, list) else body["data"]
        of_body.sort(key=repr)
    return response.status_code, body


def comparable(value: Any) -> Any:
    """Without what each run takes anew, beside what ``normalised`` has taken out: how long things took."""
    if isinstance(value, dict):
        return {name: "taken" if _TAKEN.search(str(name)) else comparable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(each) for each in value]
    if isinstance(value, str) and (moment := _MOMENT.fullmatch(value)):
        at = datetime.fromisoformat(f"{moment[1]}+00:00")
        return "now" if abs(datetime.now(UTC) - at) < timedelta(minutes=10) else value
    return value


async def test_the_routes_answer_as_on_agnos_async_sqlite(backend: str, tmp_path: Path) -> None:
    theirs = AsyncSqliteDb(db_file=str(tmp_path / "agno.sqlite"), id="db")
    ours = AsyncCloudDb(backend, provision=True, id="db")
    different: list[str] = []
    refused: set[str] = set()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(served(each)) for each in (theirs, ours)]
        for each in (theirs, ours):
            await fill(each)
        for asked in [*WRITTEN, *READ, *DELETED, *READ]:
            expected, found = await asyncio.gather(*(answer(client, asked) for client in clients))
            if expected != found:
                different.append(f"{asked[0]} {asked[1]}\n  agno {expected}\n  ours {found}")
            refused |= {f"{asked[0]} {asked[1]}"} if expected[0] >= 400 else set()
    assert not different, "\n".join(different)
    gone = ("/none", "/runs/none", "user_id=bob", "/memories/m1", "/sessions/s2", *(f"/{each}" for each in STRANGE))
    assert [each for each in refused if not (each.startswith("GET") and any(part in each for part in gone))] == []


async def test_a_run_is_streamed_by_agentos(backend: str) -> None:
    async with served(AsyncCloudDb(backend, provision=True)) as client:
        form = {"message": "one", "session_id": "s1", "user_id": "ann", "stream": "true"}
        async with client.stream("POST", "/agents/talker/runs", data=form) as response:
            events = [line.removeprefix("event: ") async for line in response.aiter_lines() if line.startswith("event")]
        assert events[0] == "RunStarted"
        assert events[-1] == "RunCompleted"
        assert events.count("RunContent") > 1
        runs = (await client.get("/sessions/s1/runs?type=agent")).json()
        assert [run["content"] for run in runs] == ["You say: one (0 before)"]
