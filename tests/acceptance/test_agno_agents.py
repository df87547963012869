"""agno's agents, teams and workflows run on AsyncCloudDb, with a scripted model, and what they leave is there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from agno.agent import Agent
from agno.approval import approval
from agno.db.base import SessionType
from agno.eval.accuracy import AccuracyEval
from agno.eval.agent_as_judge import AgentAsJudgeEval
from agno.eval.reliability import ReliabilityEval
from agno.memory import MemoryManager
from agno.run import RunContext
from agno.run.base import RunStatus
from agno.session import AgentSession, TeamSession, WorkflowSession
from agno.session.summary import SessionSummaryManager
from agno.team import Team
from agno.tools import tool
from agno.tracing.exporter import DatabaseSpanExporter
from agno.workflow import Step, Workflow
from openinference.instrumentation.agno import AgnoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.testing.scripted import ScriptedModel, ToolUse, said
from tests.acceptance.scripted import answering, remembering, summing_up, using

Main = Callable[[], Awaitable[None]]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncCloudDb]:
    db = AsyncCloudDb(url, provision=True)
    try:
        yield db
    finally:
        await db.close()


async def stored(db: AsyncCloudDb, session_id: str) -> Any:
    """A session as another process sees it, which has read or written nothing before."""
    other = AsyncCloudDb(database=await db.database())
    session = await other.get_session(session_id)
    assert isinstance(session, AgentSession | TeamSession | WorkflowSession)
    return session


async def said_in_stream(agent: Agent | Team, message: str, **arguments: Any) -> str:
    own = "TeamRunContent" if isinstance(agent, Team) else "RunContent"
    events: AsyncIterator[Any] = agent.arun(message, stream=True, **arguments)
    return "".join([str(event.content) async for event in events if getattr(event, "event", "") == own])


def count_up(run_context: RunContext, by: int) -> str:
    """Counts in the session's state."""
    state = run_context.session_state
    assert state is not None
    state["count"] = state.get("count", 0) + by
    return f"{state['count']} in all"


async def test_an_agent_keeps_history_state_summary_and_memories(backend: str) -> None:
    async with opened(backend) as db:

        def agent(**values: Any) -> Agent:
            # A new one for each turn, as in a service.
            return Agent(
                id="talker",
                db=db,
                tools=[count_up],
                session_state={"count": 0},
                add_history_to_context=True,
                num_history_runs=2,
                memory_manager=MemoryManager(model=remembering(), db=db),
                update_memory_on_run=True,
                session_summary_manager=SessionSummaryManager(model=summing_up()),
                enable_session_summaries=True,
                **values,
            )

        asked: dict[str, Any] = {"session_id": "s1", "user_id": "ann"}
        first = await agent(model=ScriptedModel()).arun("one", **asked)
        second = await said_in_stream(agent(model=ScriptedModel()), "two", **asked)
        third = await agent(model=using(ToolUse("count_up", {"by": 3}))).arun("three", **asked)
        fourth = await said_in_stream(agent(model=using(ToolUse("count_up", {"by": 4}))), "four", **asked)
        fifth = await agent(model=ScriptedModel()).arun("five", **asked)
        answers = [first.content, second, third.content, fourth, fifth.content]
        assert answers == [
            "You say: one (0 before)",
            "You say: two (1 before)",
            "So: 3 in all",
            "So: 7 in all",
            "You say: five (2 before)",
        ]

        session = await stored(db, "s1")
        assert [run.input.input_content for run in session.runs] == ["one", "two", "three", "four", "five"]
        assert [run.content for run in session.runs] == answers
        assert {run.status for run in session.runs} == {RunStatus.completed}
        assert [each.tool_args for each in session.runs[2].tools] == [{"by": 3}]
        assert session.session_data["session_state"]["count"] == 7
        assert session.summary.summary == "The user has spoken 5 times."
        assert session.user_id == "ann"
        memories = await db.get_user_memories(user_id="ann")
        assert sorted(each.memory for each in memories) == sorted(  # type: ignore[union-attr]
            f"Has said: {each}" for each in ("one", "two", "three", "four", "five")
        )
        assert await agent(model=ScriptedModel()).aget_session_state(session_id="s1") == {"count": 7}
        assert await db.get_session("s1", user_id="bob") is None


async def test_a_team_and_its_members_are_kept(backend: str) -> None:
    async with opened(backend) as db:

        def team() -> Team:
            members: list[Agent | Team] = [
                Agent(id=each, name=each, role=f"Knows {each}.", model=answering(f"All about {each}."))
                for each in ("trains", "planes")
            ]
            uses = [ToolUse("delegate_task_to_member", {"member_id": each.id, "task": "Tell."}) for each in members]
            return Team(id="travel", name="travel", members=members, db=db, model=using(*uses))

        answer = await team().arun("How do I travel?", session_id="t1", user_id="ann")
        assert answer.content == "So: All about planes."
        assert await said_in_stream(team(), "And how else?", session_id="t1", user_id="ann") == "So: All about planes."

        session = await stored(db, "t1")
        assert isinstance(session, TeamSession)
        assert (session.team_id, session.user_id) == ("travel", "ann")
        runs = session.runs or []
        own = [run for run in runs if run.parent_run_id is None]
        assert [run.content for run in own] == ["So: All about planes."] * 2
        for run in own:
            of_members = [each for each in runs if each.parent_run_id == run.run_id]
            assert sorted(str(each.content) for each in of_members) == ["All about planes.", "All about trains."]
        rows: Any
        rows, total = await db.get_sessions(session_type=SessionType.TEAM, component_id="travel", deserialize=False)
        assert total == len(rows) == 1


async def test_a_workflow_and_its_steps_are_kept(backend: str) -> None:
    async with opened(backend) as db:
        workflow = Workflow(
            id="report",
            name="report",
            db=db,
            session_state={"drafts": 0},
            steps=[
                Step(name="draft", agent=Agent(name="drafter", model=ScriptedModel())),
                Step(name="edit", agent=Agent(name="editor", model=ScriptedModel())),
            ],
        )
        expected = "You say: You say: flights (0 before) (0 before)"
        answer = await workflow.arun("flights", session_id="w1", user_id="ann")
        assert answer.content == expected
        async for _ in workflow.arun("hotels", session_id="w1", user_id="ann", stream=True):
            pass

        session = await stored(db, "w1")
        assert isinstance(session, WorkflowSession)
        runs: Any = session.runs
        first, second = runs
        assert (first.content, second.content) == (expected, expected.replace("flights", "hotels"))
        assert [each.step_name for each in first.step_results] == ["draft", "edit"]
        assert [each.status for each in (first, second)] == [RunStatus.completed] * 2


async def test_a_paused_run_goes_on_elsewhere_when_it_is_confirmed(backend: str) -> None:
    booked: list[str] = []

    @approval(type="required")
    @tool(requires_confirmation=True)
    def book(flight: str) -> str:
        """Books a flight."""
        booked.append(flight)
        return f"{flight} is booked"

    def agent(db: AsyncCloudDb) -> Agent:
        return Agent(id="booker", db=db, tools=[book], model=using(ToolUse("book", {"flight": "BA1"})))

    async with opened(backend) as db:
        paused = await agent(db).arun("Book BA1", session_id="s1", user_id="ann")
        assert paused.status == RunStatus.paused
        assert booked == []
        assert [run.status for run in (await stored(db, "s1")).runs] == [RunStatus.paused]
        (pending,), _ = await db.get_approvals(run_id=paused.run_id)
        assert pending["status"] == "pending"

        # Another process, which knows the ids alone.
        other = AsyncCloudDb(database=await db.database())
        approved = await other.update_approval(pending["id"], expected_status="pending", status="approved")
        assert approved is not None
        run = await other.get_run(str(paused.run_id))
        requirements = run.requirements  # type: ignore[union-attr]
        assert requirements is not None
        for each in requirements:
            each.confirm()
        done = await agent(other).acontinue_run(
            run_id=paused.run_id, requirements=requirements, session_id="s1", user_id="ann"
        )
        assert (done.status, done.content, booked) == (RunStatus.completed, "So: BA1 is booked", ["BA1"])
        (left,) = (await stored(db, "s1")).runs
        assert (left.run_id, left.status) == (paused.run_id, RunStatus.completed)
        (noted,), _ = await db.get_approvals(run_id=paused.run_id)
        assert noted["run_status"] == "COMPLETED"


async def test_a_cancelled_run_is_kept_as_such_and_left_out_of_the_history(backend: str) -> None:
    working = asyncio.Event()

    async def work() -> str:
        """Works until it is cancelled."""
        working.set()
        await asyncio.Event().wait()
        return "never"

    async def cancelling(run_id: str) -> str:
        """Cancels the run that it is called by."""
        await Agent.acancel_run(run_id)
        return "cancelled"

    async with opened(backend) as db:
        asked: dict[str, Any] = {"session_id": "s1", "user_id": "ann"}
        uses = ToolUse("cancelling", {"run_id": "run-2"})
        await Agent(id="a", db=db, model=ScriptedModel()).arun("one", **asked)
        cancelled = await Agent(id="a", db=db, tools=[cancelling], model=using(uses)).arun(
            "two", run_id="run-2", **asked
        )
        assert cancelled.status == RunStatus.cancelled

        # What a client that has gone does: its task is cancelled.
        task = asyncio.create_task(
            Agent(id="a", db=db, tools=[work], model=using(ToolUse("work"))).arun("three", **asked)
        )
        await working.wait()
        task.cancel()
        ended = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError) or ended[0].status == RunStatus.cancelled  # type: ignore[union-attr]

        last = Agent(id="a", db=db, model=ScriptedModel(), add_history_to_context=True, num_history_runs=3)
        assert (await last.arun("four", **asked)).content == "You say: four (1 before)"
        statuses = {run.input.input_content: run.status for run in (await stored(db, "s1")).runs}
        assert statuses["two"] == RunStatus.cancelled
        assert statuses["four"] == statuses["one"] == RunStatus.completed


async def test_50_sessions_are_talked_in_at_once(backend: str) -> None:
    async with opened(backend) as db:
        agent = Agent(id="a", db=db, model=ScriptedModel(), add_history_to_context=True, num_history_runs=3)

        async def talk(n: int) -> list[str]:
            asked: dict[str, Any] = {"session_id": f"s{n}", "user_id": f"u{n % 7}"}
            first = await agent.arun(f"{n}, one", **asked)
            second = await said_in_stream(agent, f"{n}, two", **asked)
            third = await agent.arun(f"{n}, three", **asked)
            return [str(first.content), second, str(third.content)]

        answers = await asyncio.gather(*(talk(n) for n in range(50)))
        for n, of_session in enumerate(answers):
            assert of_session == [
                f"You say: {n}, {each} ({k} before)" for k, each in enumerate(["one", "two", "three"])
            ]
            session = await stored(db, f"s{n}")
            assert [run.content for run in session.runs] == of_session
        _, total = await db.get_sessions(user_id="u3", deserialize=False, limit=1, page=1)
        assert total == 7


async def test_evaluations_are_kept() -> None:
    async with opened("memory://") as db:
        tested = Agent(id="sums", model=answering("4"))
        score = '{"accuracy_score": 9, "accuracy_reason": "It is 4."}'
        accuracy = AccuracyEval(
            db=db, name="sum", input="2 + 2", expected_output="4", agent=tested, model=answering(score), telemetry=False
        )
        assert (await accuracy.arun(print_results=False, print_summary=False)).avg_score == 9  # type: ignore[union-attr]

        def add(a: int, b: int) -> str:
            """Adds."""
            return str(a + b)

        done = await Agent(tools=[add], model=using(ToolUse("add", {"a": 2, "b": 2}))).arun("2 + 2")
        reliability = ReliabilityEval(
            db=db, name="tools", agent_response=done, expected_tool_calls=["add"], telemetry=False
        )
        result: Any = await reliability.arun()
        assert result is not None
        result.assert_passed()
        judged = AgentAsJudgeEval(
            db=db,
            name="manners",
            criteria="Is polite",
            scoring_strategy="binary",
            model=answering('{"passed": true, "reason": "It is."}'),
            telemetry=False,
        )
        await judged.arun(input="2 + 2", output="4, please")
        rows: Any
        rows, total = await db.get_eval_runs(deserialize=False)
        assert total == 3
        assert {(row["name"], row["eval_type"]) for row in rows} == {
            ("sum", "accuracy"),
            ("tools", "reliability"),
            ("manners", "agent_as_judge"),
        }


async def test_the_spans_of_a_run_are_kept_by_agnos_exporter(backend: str) -> None:
    provider = TracerProvider()
    async with opened(backend) as db:
        provider.add_span_processor(SimpleSpanProcessor(DatabaseSpanExporter(db)))
        instrumentor = AgnoInstrumentor()
        instrumentor.instrument(tracer_provider=provider)
        try:
            before = asyncio.all_tasks()
            agent = Agent(id="a", name="adder", db=db, tools=[count_up], model=using(ToolUse("count_up", {"by": 1})))
            done = await agent.arun("count", session_id="s1", user_id="ann")
            # The exporter writes in tasks of its own.
            await asyncio.gather(*(each for each in asyncio.all_tasks() - before if "export" in repr(each)))
        finally:
            instrumentor.uninstrument()
        trace = await db.get_trace(run_id=done.run_id)
        assert (trace.name, trace.session_id, trace.user_id, trace.status) == ("adder.arun", "s1", "ann", "OK")  # type: ignore[union-attr]
        spans = await db.get_spans(trace_id=trace.trace_id)  # type: ignore[union-attr]
        assert trace.total_spans == len(spans) == 2  # type: ignore[union-attr]
        assert {each.name for each in spans} == {"adder.arun", "count_up"}
        traces, total = await db.get_traces(session_id="s1")
        assert (total, [each.trace_id for each in traces]) == (1, [trace.trace_id])  # type: ignore[union-attr]


def by_asyncio_run(main: Main) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


def by_a_thread(main: Main) -> None:
    thread = threading.Thread(target=by_asyncio_run, args=(main,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("run", [by_asyncio_run, by_a_thread])
def test_one_object_serves_one_event_loop_after_the_other(backend: str, run: Callable[[Main], None]) -> None:
    agent = Agent(
        db=AsyncCloudDb(backend, provision=True), model=ScriptedModel(), add_history_to_context=True, session_id="s1"
    )
    answers: list[Any] = []

    async def main() -> None:
        answers.append((await agent.arun("Hello")).content)

    for _ in range(3):
        run(main)
    assert answers == [f"You say: Hello ({n} before)" for n in range(3)]


def test_a_response_is_printed_by_the_asynchronous_call_alone(capsys: pytest.CaptureFixture[str]) -> None:
    agent = Agent(db=AsyncCloudDb("memory://", provision=True), model=ScriptedModel(), session_id="s1")
    # It is agno that refuses, for each of its asynchronous databases.
    with pytest.raises(Exception, match="not supported with an async DB"):
        agent.print_response("Hello")
    for _ in range(2):
        asyncio.run(agent.aprint_response("Hello"))
    assert capsys.readouterr().out.count("You say: Hello") == 2


async def test_what_a_user_has_said_is_given_to_the_model_in_order() -> None:
    given: list[list[str]] = []

    def script(messages: Any) -> str:
        given.append(said(messages))
        return "Yes"

    async with opened("memory://") as db:
        agent = Agent(db=db, model=ScriptedModel(script=script), add_history_to_context=True, num_history_runs=3)
        for n in range(6):
            await agent.arun(f"m{n}", session_id="s1")
    assert given[-1] == ["m2", "m3", "m4", "m5"]
