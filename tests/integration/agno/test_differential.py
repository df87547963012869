"""Random calls of AsyncCloudDb answer as those of agno's AsyncSqliteDb do, on every engine.

``--sequences 2000`` makes so many sequences of calls on each engine, in place of the few of a run of all tests.
"""

from __future__ import annotations

import asyncio
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from agno.db.sqlite import AsyncSqliteDb
from agno.session import AgentSession
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.tool_results import TOOL_RESULTS
from agno_clouddb.stores.dynamodb.driver import LOCAL_CREDENTIAL
from tests.integration.agno import (
    calls_accounts,
    calls_approvals,
    calls_evals,
    calls_knowledge,
    calls_learnings,
    calls_memories,
    calls_metrics,
    calls_schedules,
    calls_sessions,
    calls_tokens,
    calls_tool_results,
    calls_traces,
    calls_transcripts,
    calls_versions,
)
from tests.integration.agno.days import wait_for_midnight
from tests.integration.agno.differential import Call, compare, strayed

FAMILIES = (
    calls_sessions,
    calls_memories,
    calls_knowledge,
    calls_evals,
    calls_metrics,
    calls_traces,
    calls_learnings,
    calls_schedules,
    calls_approvals,
    calls_tool_results,
    calls_transcripts,
    calls_accounts,
    calls_tokens,
    calls_versions,
)

# What agno does with SQLAlchemy and is warned for would be an error here, and agno's answer.
pytestmark = pytest.mark.filterwarnings("ignore")

MAX_CALLS = 15
SEQUENCES = {"memory": 150, "sqlite": 50, "dynamodb_local": 15, "firestore": 15}
"""How many sequences a run of all tests makes on each engine."""
DEADLINE = 60.0
"""Seconds for each call: an emulator on a busy machine may take long, and that is no difference."""


def sequences(*families: Any) -> st.SearchStrategy[list[Call]]:
    """Sequences of calls of some families, after those that come first in each."""
    first: list[Call] = [call for family in families for call in getattr(family, "FIRST", ())]
    calls = strayed(st.one_of([call for family in families for call in family.CALLS]))
    return st.lists(calls, min_size=1, max_size=MAX_CALLS).map(lambda drawn: [*first, *drawn])


# Most sequences are of one family, whose calls then meet; some are of all.
ONE = [sequences(family) for family in FAMILIES]
ALL = sequences(*FAMILIES)


async def both(calls: Sequence[Call], folder: str, ours: AsyncCloudDb) -> None:
    """Make calls of a new database of agno's in a folder, and of ours."""
    theirs = AsyncSqliteDb(db_file=str(Path(folder) / "agno.sqlite"))
    try:
        await theirs._create_all_tables()  # type: ignore[no-untyped-call]
        await compare(calls, theirs, ours)
    finally:
        await theirs.close()
        await ours.close()


def check(engine: str, number: int, fresh: Callable[[str], AsyncCloudDb]) -> None:
    """Make so many sequences of calls of both; each of a database without records.

    Args:
        engine: what it is called in the tests' output.
        number: how many.
        fresh: makes ours, given a folder that is there for one sequence.
    """
    made = 0

    @settings(max_examples=number, database=None, print_blob=True, suppress_health_check=[*HealthCheck])
    @given(st.one_of([*ONE, ALL]))
    def sequence(calls: Sequence[Call]) -> None:
        nonlocal made
        made += 1
        wait_for_midnight()
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(both(calls, folder, fresh(folder)))

    sequence()
    print(f"{made} sequences of calls on {engine} without a difference")


@pytest.fixture
def number(request: pytest.FixtureRequest) -> Callable[[str], int]:
    """How many sequences to make on an engine."""
    asked: int | None = request.config.getoption("--sequences")
    return lambda engine: asked or SEQUENCES[engine]


@pytest.mark.memory
def test_in_memory(number: Callable[[str], int]) -> None:
    check("memory", number("memory"), lambda folder: AsyncCloudDb("memory://", provision=True))


@pytest.mark.sqlite
def test_on_sqlite(number: Callable[[str], int]) -> None:
    check("sqlite", number("sqlite"), lambda folder: AsyncCloudDb(f"sqlite:///{folder}/ours.sqlite", provision=True))


def test_a_page_after_a_write_is_compared_as_agno_counts_it() -> None:
    def session(id: str, created_at: int) -> Call:
        made = partial(AgentSession, session_id=id, created_at=created_at)
        return Call("upsert_session", {"session": made, "deserialize": False})

    def page(number: int) -> Call:
        return Call("get_sessions", {"limit": 1, "page": number, "sort_by": "created_at", "deserialize": False})

    calls = [session("a", 10), session("b", 20), page(1), session("c", 30), page(2)]
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(both(calls, folder, AsyncCloudDb("memory://", provision=True)))


def test_what_is_left_of_sessions_that_are_gone_is_deleted_as_agno_does() -> None:
    row: dict[str, Any] = {**dict.fromkeys(TOOL_RESULTS.columns, "x"), "result_id": "r", "session_id": "gone"}
    row |= {"user_id": "ann", "size_bytes": 1, "line_count": 1, "created_at": 10, "expires_at": None}
    transcript: dict[str, Any] = {"framework": "f", "project_key": "p", "session_id": "c"}
    append = {**transcript, "entries": [{"n": 1}], "agno_session_id": "gone"}
    calls = [Call("upsert_tool_result", {"row": row}), Call("append_transcript_entries", append)]
    for user_id in ("ann", None):
        calls.append(Call("delete_sessions", {"session_ids": ["gone"], "user_id": user_id}))
        calls.append(Call("get_tool_result", {"result_id": "r"}))
        calls.append(Call("get_transcript_entries", transcript))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(both(calls, folder, AsyncCloudDb("memory://", provision=True)))


def test_on_dynamodb_local(number: Callable[[str], int], dynamodb_local_url: str, prefix: str) -> None:
    made = partial(AsyncCloudDb, dynamodb_local_url, prefix=prefix, deadline=DEADLINE)
    asyncio.run(_provisioned(made(provision=True)))
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=dynamodb_local_url.partition("endpoint_url=")[2],
        # DynamoDB Local keeps the tables of each access key apart.
        aws_access_key_id=LOCAL_CREDENTIAL,
        aws_secret_access_key=LOCAL_CREDENTIAL,
    )
    with closing(client):
        # The engine may have more tables than one page lists: those of other tests, too.
        pages = client.get_paginator("list_tables").paginate()
        tables = [name for page in pages for name in page["TableNames"] if name.startswith(prefix)]

        def fresh(folder: str) -> AsyncCloudDb:
            for name in tables:
                _empty(client, name)
            return made()

        check("dynamodb_local", number("dynamodb_local"), fresh)


def test_on_firestore(number: Callable[[str], int], firestore_url: str, prefix: str) -> None:
    host = firestore_url.partition("emulator_host=")[2].partition("&")[0]
    project = f"differential-{prefix.strip('_')}"  # whose documents are all this test's
    documents = f"http://{host}/emulator/v1/projects/{project}/databases/(default)/documents"

    def fresh(folder: str) -> AsyncCloudDb:
        urllib.request.urlopen(urllib.request.Request(documents, method="DELETE")).close()
        return AsyncCloudDb(f"firestore://{project}?emulator_host={host}", deadline=DEADLINE)

    check("firestore", number("firestore"), fresh)


async def _provisioned(db: AsyncCloudDb) -> None:
    await db.database()
    await db.close()


def _empty(client: Any, name: str) -> None:
    """Delete the items of a table."""
    keys = [each["AttributeName"] for each in client.describe_table(TableName=name)["Table"]["KeySchema"]]
    scanned = client.get_paginator("scan").paginate(TableName=name)
    for item in [item for page in scanned for item in page["Items"]]:
        client.delete_item(TableName=name, Key={key: item[key] for key in keys})
