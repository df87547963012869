"""agno's calls about sessions and runs: what many workers do at once, and what they cost."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.run.status_persist import RunPersistOutcome
from agno.session import AgentSession

from agno_clouddb import ConflictError, Database, InvalidRecord, RecordNotFound, Run, Session, StoreUnavailable, connect
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.sessions import SessionCalls
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import CountingStore, Fault, FaultyStore, script
from tests.integration.agno.competing import WORKERS, all_at_once, alone, databases

__all__ = ["databases"]

SESSION: dict[str, Any] = {"session_id": "s", "agent_id": "a", "user_id": "ann", "created_at": 1_700_000_000}


def run(key: str, status: RunStatus = RunStatus.completed, **values: Any) -> RunOutput:
    return RunOutput(run_id=key, agent_id="a", session_id="s", status=status, created_at=1_700_000_000, **values)


async def begun(databases: list[Database]) -> list[SessionCalls]:
    """Workers over a session that is there."""
    await databases[0].provision()
    workers = [alone(SessionCalls, databases[n % len(databases)]) for n in range(WORKERS)]
    await workers[0].upsert_session(AgentSession(**SESSION))
    return workers


async def test_a_pending_run_is_cancelled_by_one_of_16_workers(databases: list[Database]) -> None:
    workers = await begun(databases)
    await workers[0].upsert_run(run("r", RunStatus.pending), "s", user_id="ann", run_index=0)
    calls = [
        partial(each.cancel_pending_run, "r", session_id="s", reason=f"by {n}", user_id="ann")
        for n, each in enumerate(workers)
    ]
    answers = await all_at_once(calls)
    assert answers.count(True) == 1
    row = await workers[0].get_run("r", deserialize=False)
    assert isinstance(row, dict)
    assert (row["status"], row["run_data"]["status"]) == ("CANCELLED", "CANCELLED")
    assert row["run_data"]["content"] == f"by {answers.index(True)}"


async def test_a_session_and_a_run_that_16_workers_insert_are_inserted_by_one(databases: list[Database]) -> None:
    workers = await begun(databases)
    new = [partial(each.insert_session_if_absent, AgentSession(**{**SESSION, "session_id": "new"})) for each in workers]
    assert sorted(map(str, await all_at_once(new))) == ["False"] * (WORKERS - 1) + ["True"]
    runs = [
        partial(each.append_run_to_session_if_absent, "new", {"run_id": "r", "agent_id": "a", "by": n})
        for n, each in enumerate(workers)
    ]
    answers = await all_at_once(runs)
    assert answers.count(True) == 1
    row = await workers[0].get_run("r", deserialize=False)
    assert isinstance(row, dict)
    assert row["run_data"]["by"] == answers.index(True)


APPENDS: dict[str, Any] = {
    "upsert_run": lambda db, run: db.upsert_run(run, "s"),
    "append_run_to_session_if_absent": lambda db, run: db.append_run_to_session_if_absent("s", run),
}
"""Ways to write a run without saying where in its session it goes."""


async def places(db: SessionCalls) -> list[int]:
    rows, _ = cast("tuple[list[Any], int]", await db.get_runs(session_id="s", deserialize=False))
    return [row["run_index"] for row in rows]


@pytest.mark.parametrize("how", APPENDS)
async def test_runs_that_are_written_at_once_without_a_place_get_one_after_the_other(how: str, backend: str) -> None:
    async with connect(backend) as database:
        (db, *_) = await begun([database])
        for start in (0, 24):
            runs = [{"run_id": f"r{start + n}", "agent_id": "a"} for n in range(24)]
            await asyncio.gather(*(APPENDS[how](db, each) for each in runs))
            assert await places(db) == list(range(start + 24))


async def test_a_run_that_is_written_several_times_at_once_keeps_the_place_that_it_gets(backend: str) -> None:
    async with connect(backend) as database:
        (db, *_) = await begun([database])
        await asyncio.gather(*(db.upsert_run({"run_id": f"r{n % 6}"}, "s") for n in range(24)))
        assert await places(db) == list(range(6))


def test_runs_that_are_written_at_once_from_several_event_loops_get_one_place_each(tmp_path: Path) -> None:
    db = AsyncCloudDb(f"sqlite:///{tmp_path}/x.sqlite", provision=True)
    asyncio.run(db.upsert_session(AgentSession(**SESSION)))
    together = threading.Barrier(4)

    async def write(loop: int) -> None:
        await db.get_run("none")  # so that the database is open
        together.wait()
        how = [*APPENDS.values()][loop % 2]
        await asyncio.gather(*(how(db, {"run_id": f"r{loop}-{n}"}) for n in range(6)))

    threads = [threading.Thread(target=lambda loop=loop: asyncio.run(write(loop))) for loop in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert asyncio.run(places(db)) == list(range(24))


async def test_runs_that_have_got_one_place_are_in_the_order_of_their_writes_for_all_readers(
    databases: list[Database],
) -> None:
    first, second, *_ = await begun(databases)
    for number, key in enumerate(("z", "a", "m")):
        db = (first, second)[number % 2]
        await db.get_session("s")  # so that it comes after what the other has written, whatever their clocks say
        await db.upsert_run(run(key), "s", run_index=0)
    for db in (first, second):
        session = await db.get_session("s")
        assert isinstance(session, AgentSession)
        assert [each.run_id for each in session.runs or []] == ["z", "a", "m"]
        assert [each.run_id for each in cast("list[RunOutput]", await db.get_runs("s"))] == ["z", "a", "m"]


async def test_a_run_stays_its_agents_whatever_is_written_over_it() -> None:
    async with connect("memory://") as database:
        first, second, *_ = await begun([database])
        written: dict[str, Any] = {"run_id": "r", "agent_id": "a", "team_id": "t"}
        await first.upsert_run(written, "s")
        await first.upsert_run({**written, "agent_id": "b", "team_id": None, "workflow_id": "w"}, "s", run_index=0)
        await second.upsert_run({**written, "agent_id": "c"}, "s")
        assert await first.update_run_in_session("s", "r", {"agent_id": "d"}) is RunPersistOutcome.UPDATED
        row = await second.get_run("r", deserialize=False)
        assert isinstance(row, dict)
        assert (row["agent_id"], row["team_id"], row["workflow_id"]) == ("a", "t", None)
        assert (row["run_data"]["agent_id"], row["run_data"]["team_id"]) == ("d", "t")
        for agent, found in (("a", 1), ("d", 0)):
            assert len(await second.get_runs(agent_id=agent)) == found


async def test_of_what_16_workers_patch_in_one_run_nothing_is_lost(databases: list[Database]) -> None:
    workers = await begun(databases)
    await workers[0].upsert_run(run("r", RunStatus.running), "s", user_id="ann", run_index=0)
    calls = [
        partial(each.update_run_in_session, "s", "r", {f"field{n}": n}, user_id="ann") for n, each in enumerate(workers)
    ]
    assert await all_at_once(calls) == [RunPersistOutcome.UPDATED] * WORKERS
    row = await workers[0].get_run("r", deserialize=False)
    assert isinstance(row, dict)
    assert {name: value for name, value in row["run_data"].items() if name.startswith("field")} == {
        f"field{n}": n for n in range(WORKERS)
    }


async def test_of_what_16_workers_write_to_a_run_and_its_session_both_are_of_one_worker(
    databases: list[Database],
) -> None:
    workers = await begun(databases)
    await workers[0].upsert_run(run("r", RunStatus.running), "s", user_id="ann", run_index=0)
    calls = [
        partial(each.update_run_in_session, "s", "r", {"by": n}, user_id="ann", session_data={"by": n})
        for n, each in enumerate(workers)
    ]
    assert await all_at_once(calls) == [RunPersistOutcome.UPDATED] * WORKERS
    by_run, by_session = await written_by(workers[0])
    assert by_run == by_session is not None


async def written_by(db: SessionCalls) -> tuple[Any, Any]:
    """Who has written the run last, and who its session."""
    session = await db.get_session("s", deserialize=False)
    assert isinstance(session, dict)
    return session["runs"][0].get("by"), (session["session_data"] or {}).get("by")


@pytest.mark.parametrize("kind", ["refused", "request lost", "response lost"])
@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_a_writer_that_dies_leaves_a_run_and_its_session_both_changed_or_neither(
    failing: int, kind: Literal["refused", "request lost", "response lost"]
) -> None:
    store = FaultyStore(MemoryStore())
    async with Database(store) as database:
        (db, *_) = await begun([database])
        await db.upsert_run(run("r", RunStatus.running), "s", user_id="ann", run_index=0)
        store.plan = script(*[None] * failing, *[Fault(kind)] * 9, on=("write",))
        died = False
        try:
            await db.update_run_in_session("s", "r", {"by": 7}, user_id="ann", session_data={"by": 7})
        except StoreUnavailable:
            died = True
        assert died is (failing == 0)
        store.plan = None
        changed = not died or kind == "response lost"
        assert await written_by(db) == ((7, 7) if changed else (None, None))


async def test_a_run_stays_as_it_is_when_its_session_is_anothers() -> None:
    async with connect("memory://") as database:
        (db, *_) = await begun([database])
        await db.upsert_run(run("r", RunStatus.running), "s", run_index=0)
        with pytest.raises(RuntimeError, match="another user"):
            await db.update_run_in_session("s", "r", {"by": 7}, user_id="bob", session_data={"by": 7})
        assert await written_by(db) == (None, None)


async def test_a_run_that_has_ended_or_belongs_to_a_later_attempt_is_not_patched() -> None:
    async with connect("memory://") as database:
        (db, *_) = await begun([database])
        await db.upsert_run(run("r", RunStatus.running), "s", user_id="ann", run_index=0)
        patch = partial(db.update_run_in_session, "s", "r", user_id="ann")
        assert await patch({"status": "running"}, expected_attempt=2) is RunPersistOutcome.UPDATED
        assert await patch({"status": "error"}, expected_attempt=1) is RunPersistOutcome.STALE_ATTEMPT
        assert await patch({"status": "completed"}, content_if_absent="said") is RunPersistOutcome.UPDATED
        assert await patch({"status": "error"}) is RunPersistOutcome.TERMINAL_REFUSED
        assert await db.update_run_in_session("s", "r", {}, user_id="bob") is RunPersistOutcome.MISSING
        assert await db.update_run_in_session("s", "none", {}) is RunPersistOutcome.MISSING
        assert await db.update_run_in_session("none", "r", {}) is RunPersistOutcome.MISSING
        assert await patch({}, session_data={"session_state": 1}) is RunPersistOutcome.UPDATED
        row = await db.get_run("r", deserialize=False)
        assert isinstance(row, dict)
        assert (row["status"], row["run_data"]["content"], row["run_data"]["queue_attempt"]) == ("COMPLETED", "said", 2)
        session = await db.get_session("s")
        assert isinstance(session, AgentSession)
        assert session.session_data == {"session_state": 1}


async def test_what_is_anothers_or_has_come_to_be_so_is_not_written_over() -> None:
    async with connect("memory://") as database:
        first, second, *_ = await begun([database])
        assert await second.get_session("s", user_id="bob") is None
        assert await second.upsert_session(AgentSession(**{**SESSION, "user_id": "bob"})) is None
        assert await second.upsert_session(AgentSession(**{**SESSION, "user_id": None})) is None
        assert await first.reassign_session_owner("s", previous_user_id="ann", user_id="bob")
        # It was read before by the second, which must not rely on what it remembers.
        assert await second.upsert_session(AgentSession(**SESSION)) is None
        assert not await second.delete_session("s", user_id="ann")
        assert await second.delete_session("s", user_id="bob")


async def test_a_session_is_given_away_by_its_owner_alone_and_stays_where_it_is_in_lists() -> None:
    async with connect("memory://") as database:
        first, *_ = await begun([database])
        before = await first.get_session("s", deserialize=False)
        assert isinstance(before, dict)
        for other in (None, "bob", ""):
            assert not await first.reassign_session_owner("s", previous_user_id=cast(str, other), user_id="eve")
        assert await first.reassign_session_owner("s", previous_user_id="ann", user_id=None)
        assert not await first.reassign_session_owner("s", previous_user_id="ann", user_id="eve")
        assert await first.reassign_session_owner("s", previous_user_id=cast(str, None), user_id="bob")
        assert await first.get_session("s", deserialize=False) == before | {"user_id": "bob"}


async def test_what_no_cloud_can_hold_is_replaced_and_the_rest_of_it_kept(caplog: pytest.LogCaptureFixture) -> None:
    async with connect("memory://") as database:
        first, *_ = await begun([database])
        state = {"session_state": {"mean": float("nan"), "most": float("inf"), "said": "a\ud83db", "n": 1}}
        await first.upsert_session(AgentSession(**SESSION, session_data=state, metadata={"\ud83d\ude00": 1}))
        await first.upsert_run(
            run("r", content="\ud83d\ude00 \ud83d", metadata={"least": float("-inf")}), "s", run_index=0
        )
        session = await first.get_session("s")
        assert isinstance(session, AgentSession)
        assert session.session_data == {"session_state": {"mean": None, "most": None, "said": "a\ufffdb", "n": 1}}
        assert session.metadata == {"\U0001f600": 1}
        assert session.runs is not None
        assert session.runs[0].content == "\U0001f600 \ufffd"
        assert session.runs[0].metadata == {"least": None}
    assert "U+FFFD" in caplog.text
    assert "NaN, which JSON has not" in caplog.text


async def test_seconds_beyond_all_years_are_refused_by_name_and_bound_a_list() -> None:
    async with connect("memory://") as database:
        first, *_ = await begun([database])
        with pytest.raises(InvalidRecord, match="created_at: is 1700000000000"):
            await first.upsert_session(AgentSession(**{**SESSION, "session_id": "ms", "created_at": 1_700_000_000_000}))
        assert await first.get_sessions(start_timestamp=1_700_000_000_000) == []
        assert len(await first.get_sessions(end_timestamp=1_700_000_000_000)) == 1
        assert len(await first.get_sessions(start_timestamp=-(10**15))) == 1
        assert await first.get_sessions(end_timestamp=-(10**15)) == []


async def test_a_session_that_was_deleted_elsewhere_and_begun_anew_shows_its_new_runs_alone() -> None:
    async with connect("memory://") as database:
        await database.provision()
        first, second = (alone(SessionCalls, database) for _ in range(2))
        await first.upsert_session(AgentSession(**SESSION))
        await first.upsert_run(run("old"), "s", run_index=0)
        assert await second.get_session("s") is not None
        assert await first.delete_session("s")
        await first.upsert_session(AgentSession(**SESSION))
        await first.upsert_run(run("new"), "s", run_index=0)
        session = await second.get_session("s")
        assert isinstance(session, AgentSession)
        assert [each.run_id for each in session.runs or []] == ["new"]


async def test_a_turn_is_four_calls_of_the_store(backend: str) -> None:
    async with connect(backend) as own:
        counting = CountingStore(own.store)
        async with Database(counting) as database:
            await database.provision(["sessions", "runs"])
            db = alone(SessionCalls, database)
            await db.upsert_session(AgentSession(**SESSION))
            for turn in range(4):
                await db.upsert_run(run(f"r{turn}"), "s", user_id="ann", run_index=turn)
            counting.clear()
            session = await db.get_session("s", user_id="ann", runs_limit=3)
            assert isinstance(session, AgentSession)
            await db.upsert_run(run("r4"), "s", user_id="ann", run_index=4)
            await db.upsert_session(session)
            assert dict(counting.calls) == {"get": 1, "query": 1, "write": 2}


async def test_a_list_of_sessions_costs_a_query_a_session_and_none_without_runs(backend: str) -> None:
    async with connect(backend) as own:
        counting = CountingStore(own.store)
        async with Database(counting) as database:
            await database.provision(["sessions", "runs"])
            db = alone(SessionCalls, database)
            for number in range(3):
                await db.upsert_session(AgentSession(**{**SESSION, "session_id": f"s{number}"}))
                for turn in range(2):
                    await db.upsert_run(run(f"r{number}{turn}"), f"s{number}", user_id="ann", run_index=turn)
            counting.clear()
            listed: Any = await db.get_sessions(user_id="ann", limit=20, sort_by="session_id", sort_order="asc")
            assert [[each.run_id for each in session.runs] for session in listed] == [
                ["r00", "r01"],
                ["r10", "r11"],
                ["r20", "r21"],
            ]
            assert dict(counting.calls) == {"query": 1 + 3}
            counting.clear()
            rows, total = cast("tuple[list[Any], int]", await db.get_runs(deserialize=False))
            assert (sorted(each["run_id"] for each in rows), total) == (["r00", "r01", "r10", "r11", "r20", "r21"], 6)
            assert dict(counting.calls) == {"query": 1 + 3}
            counting.clear()
            await db.get_sessions(user_id="ann", limit=20, deserialize=False, include_runs=False)
            assert dict(counting.calls) == {"query": 1, "count": 1}
            counting.clear()
            await db.rename_session("s1", None, "named")
            assert dict(counting.calls) == {"get": 1, "write": 1, "query": 1}


async def test_sessions_of_a_list_get_the_runs_of_their_own_generation(backend: str) -> None:
    async with connect(backend) as db:
        await db.provision(["sessions", "runs"])
        for name in ("kept", "gone", "anew"):
            await db.sessions.upsert(Session(session_id=name))
            for number in range(2):
                await db.sessions.append_run(name, Run(run_id=f"{name}{number}"))
        listed = (await db.sessions.list(sort="created_at")).items
        await db.sessions.delete("gone")
        await db.sessions.delete("anew")
        await db.sessions.upsert(Session(session_id="anew"))
        await db.sessions.append_run("anew", Run(run_id="later"))
        await db.sessions.append_run("kept", Run(run_id="kept2"))
        filled = await db.sessions.with_runs(listed)
        found = {session.session_id: [each.run_id for each in session.runs] for session in filled}
        assert found == {"kept": ["kept0", "kept1", "kept2"], "gone": [], "anew": []}
        assert [each.model_copy(update={"runs": []}) for each in filled] == listed
        assert await db.sessions.with_runs([]) == []


async def test_a_run_is_found_in_whatever_session_and_changed_in_place(backend: str) -> None:
    async with connect(backend) as db:
        await db.provision(["sessions", "runs"])
        for n in range(5):
            await db.sessions.upsert(Session(session_id=f"s{n}"))
            await db.sessions.append_run(f"s{n}", Run(run_id=f"r{n}", status="running"))
            await db.sessions.append_run(f"s{n}", Run(run_id=f"last{n}", status="running"))
        found = await db.sessions.find_run("r2")
        assert found is not None
        assert found.session_id == "s2"
        assert await db.sessions.find_run("none") is None

        def completed(run: Run) -> Run:
            return run.model_copy(update={"status": "completed"})

        changed = await db.sessions.update_run("s2", "r2", completed)
        assert (changed.status, changed.run_index) == ("completed", found.run_index)
        runs = [each async for each in db.sessions.list_runs("s2")]
        assert [(each.run_id, each.status) for each in runs] == [("last2", "running"), ("r2", "completed")]
        with pytest.raises(RecordNotFound):
            await db.sessions.update_run("s2", "none", completed)
        with pytest.raises(ConflictError):
            await db.sessions.create_run("s2", Run(run_id="r2"))
        with pytest.raises(ConflictError):
            await db.sessions.create(Session(session_id="s2"))
        assert await db.sessions.delete_run("s2", "r2")
        assert not await db.sessions.delete_run("s2", "r2")
        assert await db.sessions.find_run("r2") is None
