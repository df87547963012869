"""The examples for agno run on every engine, twice over the same stores; and what agno's cookbook shows for its own
DynamoDb and FirestoreDb runs with their asynchronous replacements.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from agno.agent import Agent
from agno.db.sqlite import AsyncSqliteDb
from agno.models.message import Message
from agno.team import Team
from agno.workflow import Step, Workflow
from pydantic import BaseModel

from agno_clouddb.integrations.agno import AsyncCloudDb, AsyncDynamoDb, AsyncFirestoreDb
from agno_clouddb.testing.scripted import ScriptedModel, ToolUse, said
from examples import agno_agent, agno_both_clouds, agno_team, agno_workflow
from tests.acceptance.scripted import answering
from tests.acceptance.test_examples import start

RUNS_AFTER = "alone: {'example-agent': 3, 'example-crew': 6, 'example-flow': 3}\n"


async def test_the_agent_runs_on_every_engine(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        await agno_agent.main(backend)
        assert_agent_shown(capsys.readouterr().out)


async def test_the_team_runs_on_every_engine(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        await agno_team.main(backend)
        assert capsys.readouterr().out.endswith("Planes take 1 hour.\nruns: 2, of members: 4\n")


async def test_the_workflow_runs_on_every_engine(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        await agno_workflow.main(backend)
        output = capsys.readouterr().out
        assert "draft: A text about tea., count: 4 words\n" in output
        assert output.endswith("draft: A text about cups and saucers., count: 6 words\n")


async def test_all_of_them_run_on_both_clouds_through_an_outage(
    dynamodb_local_url: str, firestore_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = f"&prefix=t{re.sub('[^a-z0-9]', '_', tmp_path.name)}_"
    await agno_both_clouds.main(dynamodb_local_url + prefix, firestore_url + prefix)
    assert_outage_survived(capsys.readouterr().out)


def test_they_run_without_arguments_on_sqlite_files(tmp_path: Path) -> None:
    assert_agent_shown(start("agno_agent", folder=tmp_path))
    assert "of members: 4" in start("agno_team", folder=tmp_path)
    assert "count: 6 words" in start("agno_workflow", folder=tmp_path)
    assert_outage_survived(start("agno_both_clouds", folder=tmp_path))
    assert {each.name for each in tmp_path.glob("*.sqlite")} == {"example.sqlite", "first.sqlite", "second.sqlite"}


def assert_agent_shown(output: str) -> None:
    assert "Buy a cup: Done: 2 in the cart.\nstreamed: You have said 3 things before.\n" in output
    assert "the cart: ['tea', 'a cup']\nremembered: ['Likes tea']\nseen by another user: None\n" in output


def assert_outage_survived(output: str) -> None:
    assert output.count("COMPLETED") == 9
    assert "reconciled: 0 failed\n" in output
    assert output.count(RUNS_AFTER) == 2


class Article(BaseModel):
    """What the team writes."""

    title: str
    links: list[str]


def editor(messages: Sequence[Message]) -> str | Sequence[ToolUse]:
    if messages[-1].role == "tool":
        return json.dumps({"title": "Two stories", "links": ["a", "b"]})
    return [ToolUse("delegate_task_to_member", {"member_id": each, "task": "Go"}) for each in ("reader", "searcher")]


def researching_team(db: AsyncCloudDb) -> Team:
    """A team as the cookbook has it: two members, who find things out, and an answer of a given form."""
    return Team(
        name="News Team",
        session_id="news",
        model=ScriptedModel(script=editor),
        members=[
            Agent(name="Reader", role="Reads the news.", model=answering("Two stories.")),
            Agent(name="Searcher", role="Searches.", model=answering("Found."), add_datetime_to_context=True),
        ],
        db=db,
        instructions=["First ask the reader.", "Then ask the searcher."],
        output_schema=Article,
        markdown=True,
        show_members_responses=True,
    )


def asked_before(messages: Sequence[Message]) -> str:
    return f"after {said(messages)[:-1]}"


@pytest.fixture
def replacements(dynamodb_local_url: str, firestore_url: str, prefix: str) -> list[AsyncCloudDb]:
    """Made as agno's own adapters are made, with the address of an engine beside."""
    (endpoint,) = parse_qs(urlsplit(dynamodb_local_url).query)["endpoint_url"]
    firestore = urlsplit(firestore_url)
    (host,) = parse_qs(firestore.query)["emulator_host"]
    return [
        AsyncDynamoDb(region_name="us-east-1", endpoint_url=endpoint, prefix=prefix),
        AsyncFirestoreDb(project_id=firestore.netloc, emulator_host=host, prefix=prefix),
    ]


def test_what_the_cookbook_shows_runs_on_the_replacements(
    replacements: list[AsyncCloudDb], capsys: pytest.CaptureFixture[str]
) -> None:
    for db in replacements:
        agent = Agent(db=db, model=ScriptedModel(script=asked_before), add_history_to_context=True, session_id="facts")
        # Scripts call this of an agent without an event loop of their own, once for each question.
        asyncio.run(agent.aprint_response("How many people live there?"))
        asyncio.run(agent.aprint_response("What do they sing?"))
        asyncio.run(researching_team(db).aprint_response("Write about two stories"))
        output = capsys.readouterr().out
        assert "after []" in output
        assert "after ['How many people live there?']" in output
        assert "Two stories" in output
        assert asyncio.run(kept(db)) == {"facts": 2, "news": 3}


@pytest.mark.parametrize("call", ["run", "print_response"])
def test_agno_refuses_synchronous_calls_on_whatever_asynchronous_database(call: str, tmp_path: Path) -> None:
    model = ScriptedModel()
    ours = AsyncCloudDb("memory://", provision=True)
    for db in (ours, AsyncSqliteDb(db_file=str(tmp_path / "x.db"))):
        flow = Workflow(db=db, steps=[Step(name="step", agent=Agent(model=model))])
        for runner in (Agent(db=db, model=model), Team(db=db, model=model, members=[Agent(model=model)]), flow):
            with pytest.raises(Exception, match="not supported with an async"):
                getattr(runner, call)("Hello")
    agent = Agent(db=ours, model=model, session_id="s")
    for _ in range(2):  # what docs/agno.md says to write instead
        asyncio.run(agent.aprint_response("Hello"))
    assert asyncio.run(kept(ours)) == {"s": 2}


async def kept(db: AsyncCloudDb) -> dict[str, int]:
    rows: Any
    rows, _ = await db.get_sessions(deserialize=False)
    return {row["session_id"]: len(row["runs"]) for row in rows}
