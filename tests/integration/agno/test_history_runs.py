"""Sessions that are read with their newest runs alone: agents, teams and workflows go on as with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from agno.agent import Agent
from agno.db.base import SessionType
from agno.models.message import Message
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.session import AgentSession
from agno.team import Team
from agno.tools import tool
from agno.workflow import Step, Workflow

from agno_clouddb import ConfigurationError, Database, connect
from agno_clouddb.integrations.agno import AsyncCloudDb, AsyncDynamoDb
from agno_clouddb.testing import CountingStore, MemoryStore
from agno_clouddb.testing.scripted import ScriptedModel, ToolUse, said
from tests.integration.agno.competing import all_at_once, databases

__all__ = ["databases"]

TURNS = 8


def history(messages: Sequence[Message]) -> str:
    """What the model has been told, so that an answer shows the history."""
    return " ".join(said(messages))


def agent(db: AsyncCloudDb, **options: Any) -> Agent:
    return Agent(
        id="a",
        model=ScriptedModel(script=history),
        db=db,
        session_id="s",
        add_history_to_context=True,
        num_history_runs=3,
        **options,
    )


async def rows(database: Database) -> list[dict[str, Any]]:
    """All runs of the session, as agno orders them."""
    runs: Any = await AsyncCloudDb(database=database).get_runs("s", deserialize=False)
    return list(runs[0])


async def test_a_conversation_on_bounded_reads_is_the_one_on_whole_ones(databases: list[Database]) -> None:
    await databases[0].provision()
    # Two processes take turns, and each has its own idea of the session.
    agents = [agent(AsyncCloudDb(database=each, history_runs=3)) for each in databases[:2]]
    for turn in range(TURNS):
        answer = await agents[turn % 2].arun(f"m{turn}")
        assert answer.content == " ".join(f"m{n}" for n in range(max(0, turn - 3), turn + 1))
    stored = await rows(databases[2])
    assert [row["run_index"] for row in stored] == list(range(TURNS))
    assert [row["run_data"]["content"].split()[-1] for row in stored] == [f"m{n}" for n in range(TURNS)]
    whole = await AsyncCloudDb(database=databases[3]).get_session("s", SessionType.AGENT)
    assert isinstance(whole, AgentSession)
    assert [run.run_id for run in whole.runs or []] == [row["run_id"] for row in stored]


async def test_what_is_no_turn_sees_all_runs() -> None:
    async with connect("memory://") as database:
        await database.provision()
        db = AsyncCloudDb(database=database, history_runs=2)
        talking = agent(db)
        for turn in range(TURNS):
            await talking.arun(f"m{turn}")
        read: Any = partial(db.get_session, "s")
        assert len((await read(SessionType.AGENT)).runs) == 2
        assert len((await read(SessionType.AGENT, runs_limit=5)).runs) == 5
        assert len((await read(SessionType.AGENT, deserialize=False))["runs"]) == TURNS  # as AgentOS lists runs
        assert len((await read()).runs) == TURNS  # as agno looks for media to delete
        listed: Any = await db.get_sessions()
        assert [len(each.runs) for each in listed] == [TURNS]
        # What docs/agno.md says that agno sees no more: whatever it takes from the session of a turn.
        assert len(await talking.aget_session_messages(last_n_runs=5)) == 10
        assert len(await talking.aget_session_messages()) == 4


def delegating(messages: Sequence[Message]) -> str | Sequence[ToolUse]:
    if messages[-1].role == "tool":
        return history(messages)
    return [ToolUse("delegate_task_to_member", {"member_id": each, "task": "Go"}) for each in ("b", "c")]


@pytest.mark.parametrize("bound", [1, 3])
async def test_the_runs_of_a_team_and_its_members_keep_their_order(bound: int) -> None:
    names: list[list[tuple[Any, ...]]] = []
    for history_runs in (None, bound):
        async with connect("memory://") as database:
            await database.provision()
            members: list[Agent | Team] = [Agent(id=each, name=each, model=ScriptedModel()) for each in ("b", "c")]
            team = Team(
                id="t",
                name="t",
                session_id="s",
                model=ScriptedModel(script=delegating),
                members=members,
                db=AsyncCloudDb(database=database, history_runs=history_runs),
                add_history_to_context=True,
                num_history_runs=1,
            )
            for turn in range(4):
                await team.arun(f"m{turn}")
            found = await rows(database)
            turns = [row["run_id"] for row in found if row["parent_run_id"] is None]
            of = [turns.index(row["parent_run_id"] or row["run_id"]) for row in found]
            names.append([(row["run_index"], row["agent_id"], turn) for row, turn in zip(found, of, strict=True)])
            assert len(found) == 12
    assert names[0] == names[1]


async def test_a_workflow_goes_on_with_the_runs_that_it_is_given() -> None:
    async with connect("memory://") as database:
        await database.provision()
        step = Step(name="say", agent=Agent(id="a", model=ScriptedModel()))
        flow = Workflow(id="w", session_id="s", steps=[step], db=AsyncCloudDb(database=database, history_runs=1))
        for turn in range(4):
            await flow.arun(f"m{turn}")
        assert [row["run_index"] for row in await rows(database)] == [0, 1, 2, 3]


@tool(requires_confirmation=True)
def pay(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


def paying(messages: Sequence[Message]) -> str | Sequence[ToolUse]:
    if messages[-1].role == "tool":
        return f"So: {messages[-1].content}"
    now = said(messages)[-1]
    return [ToolUse("pay", {"amount": 5})] if now == "pay" else f"heard {now}"


async def test_a_paused_run_among_the_newest_is_continued_in_another_process_and_keeps_its_place() -> None:
    async with connect("memory://") as database:
        await database.provision()

        def talking() -> Agent:
            db = AsyncCloudDb(database=database, history_runs=2)
            return Agent(id="a", model=ScriptedModel(script=paying), db=db, session_id="s", tools=[pay])

        for message in ("m0", "m1", "m2", "m3"):
            await talking().arun(message)
        paused = await talking().arun("pay")
        assert paused.is_paused
        await talking().arun("m5")
        for requirement in paused.active_requirements:
            requirement.confirm()  # type: ignore[no-untyped-call]
        done = await talking().acontinue_run(
            run_id=paused.run_id, session_id="s", requirements=list(paused.requirements or [])
        )
        assert done.content == "So: paid 5"
        stored = await rows(database)
        assert [row["run_index"] for row in stored] == list(range(6))
        assert (stored[4]["run_id"], stored[4]["status"]) == (paused.run_id, "COMPLETED")


async def test_an_old_run_that_was_not_read_keeps_its_place_when_it_is_written_again(
    databases: list[Database],
) -> None:
    await databases[0].provision()
    first = agent(AsyncCloudDb(database=databases[0], history_runs=3))
    for turn in range(TURNS):
        await first.arun(f"m{turn}")
    old = (await rows(databases[0]))[1]
    other = AsyncCloudDb(database=databases[1], history_runs=3)
    read = await other.get_session("s", SessionType.AGENT)
    assert isinstance(read, AgentSession)
    assert len(read.runs or []) == 3
    again = RunOutput.from_dict({**old["run_data"], "content": "again"})
    read.upsert_run(again)
    await other.upsert_run(again, "s", run_index=3)  # where agno finds it in the session that it was given
    # And a process that has never read the session.
    await AsyncCloudDb(database=databases[2], history_runs=3).upsert_run(
        RunOutput(run_id="new", agent_id="a", session_id="s", created_at=old["created_at"]), "s", run_index=0
    )
    stored = await rows(databases[3])
    assert [row["run_index"] for row in stored] == list(range(TURNS + 1))
    assert (stored[1]["run_id"], stored[1]["run_data"]["content"]) == (old["run_id"], "again")
    assert stored[TURNS]["run_id"] == "new"


async def test_turns_at_once_lose_no_run_and_come_after_what_they_have_read(databases: list[Database]) -> None:
    await databases[0].provision()
    agents = [agent(AsyncCloudDb(database=each, history_runs=2)) for each in databases]
    for turn in range(4):
        await agents[0].arun(f"m{turn}")
    await all_at_once([partial(each.arun, f"at once {n}") for n, each in enumerate(agents * 2)])
    await agents[1].arun("last")
    said_in = [row["run_data"]["input"]["input_content"] for row in await rows(databases[0])]
    assert said_in[:4] == ["m0", "m1", "m2", "m3"]
    assert sorted(said_in[4:-1]) == [f"at once {n}" for n in range(8)]
    assert said_in[-1] == "last"


async def test_who_was_given_fewer_runs_before_writes_after_them_all_the_same() -> None:
    async with connect("memory://") as database:
        await database.provision()
        db = AsyncCloudDb(database=database, history_runs=1)
        for turn in range(6):
            await agent(db).arun(f"m{turn}")
        slow = await db.get_session("s", SessionType.AGENT)
        paused = RunOutput(run_id="paused", agent_id="a", session_id="s", status=RunStatus.paused)
        await db.upsert_run(paused, "s", run_index=1)
        fast = await db.get_session("s", SessionType.AGENT)
        assert isinstance(slow, AgentSession)
        assert isinstance(fast, AgentSession)
        assert (len(slow.runs or []), len(fast.runs or [])) == (1, 4)
        await db.upsert_run(RunOutput(run_id="slow", agent_id="a", session_id="s"), "s", run_index=1)
        assert [row["run_index"] for row in await rows(database)] == [0, 1, 2, 3, 4, 5, 6, 6]


async def test_a_session_that_is_deleted_begins_anew() -> None:
    async with connect("memory://") as database:
        await database.provision()
        db = AsyncCloudDb(database=database, history_runs=2)
        for turn in range(4):
            await agent(db).arun(f"m{turn}")
        await db.delete_session("s")
        for turn in range(3):
            await agent(db).arun(f"n{turn}")
        assert [(row["run_index"], row["run_data"]["content"][-2:]) for row in await rows(database)] == [
            (0, "n0"),
            (1, "n1"),
            (2, "n2"),
        ]


async def test_a_turn_makes_the_same_requests_as_with_all_runs() -> None:
    costs = []
    for history_runs in (None, 3):
        store = CountingStore(MemoryStore())
        async with Database(store) as database:
            await database.provision()
            talking = agent(AsyncCloudDb(database=database, history_runs=history_runs))
            for turn in range(6):
                await talking.arun(f"m{turn}")
            before = store.calls.copy()
            await talking.arun("one more")
            costs.append(store.calls - before)
    assert costs[0] == costs[1]


@pytest.mark.parametrize("given", [0, -1, True, 2.5, "3"])
def test_what_is_no_number_of_runs_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="history_runs"):
        AsyncCloudDb("memory://", history_runs=given)
    with pytest.raises(ConfigurationError, match="history_runs"):
        AsyncDynamoDb(region_name="eu-west-1", history_runs=given)
