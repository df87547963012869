"""Tables and collections as agno's own DynamoDb and FirestoreDb write them, to be imported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from agno.db.base import BaseDb
from agno.db.dynamo import DynamoDb
from agno.db.dynamo.utils import prepare_session_data, serialize_to_dynamo_item
from agno.db.firestore import FirestoreDb
from agno.db.schemas.evals import EvalRunRecord, EvalType
from agno.db.schemas.knowledge import KnowledgeRow
from agno.db.schemas.memory import UserMemory
from agno.models.message import Message
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.run.team import TeamRunOutput
from agno.session import AgentSession, TeamSession, WorkflowSession
from agno.tracing.schemas import Span, Trace
from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore import Client

from agno_clouddb.integrations.agno.importing.sources import TABLES

__all__ = ["CREATED", "RUNS", "AgnoSource", "dynamodb_source", "every", "firestore_source", "write"]

T = TypeVar("T")

CREATED = 1_700_000_000
RUNS = 3
_AT_ONCE = 8
_ARGUMENTS = {"memories": "memory", "sessions": "session", "evals": "eval"}


@dataclass(frozen=True)
class AgnoSource:
    """What agno has written.

    Args:
        db: agno's own database over it.
        url: of the source.
        tables: by kind, the names of its tables.
        everything: reads all of it, to see that it stays as it is.
        write_old: writes a session as agno 2 did, with its runs inside.
    """

    db: Any
    url: str
    tables: Mapping[str, str]
    everything: Callable[[], dict[str, Any]]
    write_old: Callable[[Any], None]


@contextmanager
def dynamodb_source(
    url: str, prefix: str, *, named: Mapping[str, str] = {}, key: str = "local"
) -> Iterator[AgnoSource]:
    """Tables of DynamoDB Local, under a prefix, or as they are named; each access key has tables of its own."""
    region, endpoint = urlsplit(url).netloc, url.partition("endpoint_url=")[2]
    names = {kind: f"{prefix}src_{kind}" for kind in TABLES} | dict(named)
    client = boto3.client(
        "dynamodb",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=key,
    )
    db = DynamoDb(client, **{f"{_ARGUMENTS.get(kind, kind)}_table": name for kind, name in names.items()})

    def everything() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in names.values():
            pages = client.get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
            items = [json.dumps(item, sort_keys=True) for page in pages for item in page["Items"]]
            found[name] = sorted(items)
        return found

    def write_old(session: Any) -> None:
        values = {**prepare_session_data(session, include_runs=True), "updated_at": session.created_at}
        client.put_item(TableName=names["sessions"], Item=serialize_to_dynamo_item(values))

    for kind in TABLES:
        db._get_table(kind)
    db.table_exists = lambda table_name: True  # type: ignore[method-assign]  # which agno asks before every call
    try:
        yield AgnoSource(db, f"dynamodb://{region}?endpoint_url={endpoint}", names, everything, write_old)
    finally:
        client.close()


@contextmanager
def firestore_source(url: str, prefix: str, *, named: Mapping[str, str] = {}) -> Iterator[AgnoSource]:
    """Collections of the Firestore emulator, under a prefix, or as they are named."""
    project, host = url.removeprefix("firestore://").split("?emulator_host=")
    names = {kind: f"{prefix}src_{kind}" for kind in TABLES} | dict(named)
    before = os.environ.get("FIRESTORE_EMULATOR_HOST")
    os.environ["FIRESTORE_EMULATOR_HOST"] = host
    try:
        client = Client(project=project, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    finally:
        if before is None:
            del os.environ["FIRESTORE_EMULATOR_HOST"]
        else:
            os.environ["FIRESTORE_EMULATOR_HOST"] = before
    db = FirestoreDb(client, **{f"{_ARGUMENTS.get(kind, kind)}_collection": name for kind, name in names.items()})
    for name in names.values():
        # There are no indexes on the emulator, and to ask for them agno looks for credentials.
        setattr(db, f"_{name}_initialized", True)

    def everything() -> dict[str, Any]:
        return {
            name: {each.id: (each.update_time, each.to_dict()) for each in client.collection(name).stream()}
            for name in names.values()
        }

    def write_old(session: Any) -> None:
        kind = type(session).__name__.removesuffix("Session").lower()
        values = {**session.to_dict(), "session_type": kind, "updated_at": session.created_at}
        client.collection(names["sessions"]).add(values)

    try:
        yield AgnoSource(db, url, names, everything, write_old)
    finally:
        client.close()  # type: ignore[no-untyped-call]


def write(source: AgnoSource, sessions: int) -> dict[str, int]:
    """Write so many sessions with their runs, and a fifth as many memories, evaluations and contents.

    Every tenth session is as agno 2 has kept it, with its runs inside.

    Returns:
        How many there are, by kind.
    """
    db: BaseDb = source.db
    others = sessions // 5
    every(_session_writer(source), range(sessions))
    every(lambda number: db.upsert_user_memory(_memory(number)), range(others))
    every(lambda number: db.create_eval_run(_evaluation(number)), range(others))
    every(lambda number: db.upsert_knowledge_content(_content(number)), range(others))
    traces = sessions // 20
    every(lambda number: _trace(db, number), range(traces))
    metrics = db.calculate_metrics() or []
    return {
        "sessions": sessions,
        "runs": RUNS * sessions,
        "memories": others,
        "evals": others,
        "knowledge": others,
        "traces": traces,
        "spans": 2 * traces,
        "metrics": len(metrics),
    }


def every(call: Callable[[int], T], numbers: Sequence[int]) -> list[T]:
    """Make a call for each number, several at once."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(call, numbers))


def _session_writer(source: AgnoSource) -> Callable[[int], None]:
    def write_session(number: int) -> None:
        session = _session(number)
        if number % 10 == 9:
            source.write_old(session)
            return
        source.db.upsert_session(session)
        # Not in their order: the position counts.
        for place in (1, 0, 2):
            source.db.upsert_run(session.runs[place], session.session_id, session.user_id, place)

    return write_session


def _session(number: int) -> Any:
    session_id = f"session-{number:05}"
    kind = ("agent", "team", "workflow")[number % 3] if number % 10 != 9 else "agent"
    runs = [_run(number, place, session_id, team=kind == "team") for place in range(RUNS)]
    values: dict[str, Any] = {
        "session_id": session_id,
        f"{kind}_id": f"{kind}-{number % 7}",
        "user_id": f"user-{number % 50}" if number % 13 else None,
        "session_data": {"session_name": f"Talk № {number}", "session_state": {"n": number, "deep": [1.5, None, "ü"]}},
        "metadata": {"number": number},
        "created_at": int(datetime.now(UTC).timestamp()) - 3 * 86_400 + number,
        "runs": runs,
    }
    return {"agent": AgentSession, "team": TeamSession, "workflow": WorkflowSession}[kind](**values)


def _run(number: int, place: int, session_id: str, *, team: bool) -> RunOutput | TeamRunOutput:
    values: dict[str, Any] = {
        "run_id": f"run-{number:05}-{place}",
        "session_id": session_id,
        "status": RunStatus.paused if place == 1 and number % 5 == 0 else RunStatus.completed,
        "content": f"answer {place} of {number}: " + "words " * (number % 40),
        "messages": [
            Message(role="user", content=f"question {place}", id=f"m{number}-{place}-0", created_at=CREATED),
            Message(role="assistant", content='{"looks": "like JSON"}', id=f"m{number}-{place}-1", created_at=CREATED),
        ],
        "created_at": CREATED + number + place // 2,  # the first two in the same second
    }
    return TeamRunOutput(team_id="team-1", **values) if team else RunOutput(agent_id="agent-1", **values)


def _memory(number: int) -> UserMemory:
    return UserMemory(
        memory='["text that looks like JSON"]' if number == 7 else f"likes {number}",
        memory_id=f"memory-{number:05}",
        topics=[f"topic-{number % 5}", "food"],
        user_id=f"user-{number % 50}",
        agent_id="agent-1" if number % 2 else None,
        input="said so",
        created_at=CREATED + number,
    )


def _evaluation(number: int) -> EvalRunRecord:
    return EvalRunRecord(
        run_id=f"eval-{number:05}",
        eval_type=list(EvalType)[number % 4],
        eval_data={"score": number / 7, "passed": number % 2 == 0, "results": [{"n": number}]},
        name=f"evaluation {number}",
        agent_id="agent-1",
        model_id="scripted",
    )


def _content(number: int) -> KnowledgeRow:
    return KnowledgeRow(
        id=f"content-{number:05}",
        name=f"document {number}",
        description="what it is",
        metadata={"pages": number, "tags": ["a", "b"]},
        type="pdf",
        size=1000 + number,
        linked_to="base",
        access_count=number,
        status="completed",
        user_id=f"user-{number % 50}" if number % 3 else None,
        created_at=CREATED + number,
        updated_at=CREATED + number + 60,
    )


def _trace(db: BaseDb, number: int) -> None:
    start = datetime.fromtimestamp(CREATED + number, UTC)
    trace_id = f"{number:032x}"
    db.upsert_trace(
        Trace(
            trace_id=trace_id,
            name="Agent.run",
            status="OK",
            start_time=start,
            end_time=start + timedelta(milliseconds=250),
            duration_ms=250,
            total_spans=0,
            error_count=0,
            run_id=f"run-{number:05}-0",
            session_id=f"session-{number:05}",
            user_id=f"user-{number % 50}",
            agent_id="agent-1",
            team_id=None,
            workflow_id=None,
            created_at=start,
        )
    )
    db.create_spans([_span(trace_id, number, place, start) for place in range(2)])


def _span(trace_id: str, number: int, place: int, start: datetime) -> Span:
    return Span(
        span_id=f"{number:08x}{place:08x}",
        trace_id=trace_id,
        parent_span_id=f"{number:08x}{0:08x}" if place else None,
        name=("Agent.run", "invoke")[place],
        span_kind="INTERNAL",
        status_code=("OK", "ERROR")[place],
        status_message=None,
        start_time=start,
        end_time=start + timedelta(milliseconds=250 - place),
        duration_ms=250 - place,
        attributes={"n": number, "tokens": [1, 2]},
        created_at=start,
    )
