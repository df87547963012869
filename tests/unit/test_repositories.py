"""What the repositories do where a store, a user or a class is odd, on MemoryStore."""

from __future__ import annotations

import enum
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from agno_clouddb import (
    BulkWriteError,
    ConfigurationError,
    ConflictError,
    Database,
    EvalRun,
    InvalidRecord,
    KnowledgeContent,
    RecordNotFound,
    Run,
    Session,
    Span,
    StoreUnavailable,
    Trace,
    UserMemory,
    connect,
)
from agno_clouddb.stores.base import Key, Mutation, Outcome, Put, Refused, Store
from agno_clouddb.stores.clock import HybridClock, epoch_seconds
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing import FaultyStore
from agno_clouddb.testing.faults import Call, Fault
from tests.unit.fanouts import elapsed, virtual

START = datetime(2026, 3, 1, tzinfo=UTC)


class Name(enum.StrEnum):
    ANN = "ann"

    def __str__(self) -> str:
        return f"Name.{self.name}"

    def __format__(self, spec: str) -> str:
        return str(self)


async def test_a_member_of_an_enumeration_is_its_text_in_every_id_and_argument() -> None:
    async with connect("memory://") as db:
        await db.provision()
        memory = UserMemory(memory="tea").model_copy(update={"memory_id": Name.ANN, "user_id": Name.ANN})
        await db.memories.upsert(memory)
        assert await db.memories.get(Name.ANN, user_id=Name.ANN) == await db.memories.get("ann")
        assert [each.memory_id for each in (await db.memories.list(user_id=Name.ANN)).items] == ["ann"]
        session = await db.sessions.upsert(Session(session_id="s").model_copy(update={"session_id": Name.ANN}))
        await db.sessions.append_run(Name.ANN, Run(run_id="r").model_copy(update={"run_id": Name.ANN}))
        read = await db.sessions.get("ann")
        assert read is not None
        assert (read.generation, [run.run_id for run in read.runs]) == (session.generation, ["ann"])
        span = Span(span_id="s", trace_id="t", name="n", start_time=START, end_time=START)
        await db.traces.create_span(span.model_copy(update={"span_id": Name.ANN, "trace_id": Name.ANN}))
        assert [each.span_id for each in (await db.traces.list_spans(Name.ANN)).items] == ["ann"]
        assert await db.traces.get_span("ann", Name.ANN) is not None
        assert isinstance(db.store, MemoryStore)
        for key, item in db.store.items.items():
            assert {type(each) for each in (key.id, *item.fields.values())} == {str}


def _clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the wall clock of the store and of the memory of sessions go ahead, by seconds."""
    ahead = 0.0
    real, monotonic = epoch_seconds, time.monotonic

    def go(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr("agno_clouddb.repositories.runs.epoch_seconds", lambda: int(real() + ahead))
    monkeypatch.setattr("agno_clouddb.repositories.runs.time.monotonic", lambda: monotonic() + ahead)
    monkeypatch.setattr(MemoryStore, "_now_ahead", lambda: int(real() + ahead), raising=False)
    return go


async def test_no_run_is_appended_to_a_session_that_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    go = _clock(monkeypatch)
    store = MemoryStore(now=lambda: MemoryStore._now_ahead())  # type: ignore[attr-defined]
    async with Database(store) as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="s"), expires_in=5)
        await db.sessions.append_run("s", Run(run_id="r1"))
        go(10)
        with pytest.raises(RecordNotFound):
            await db.sessions.append_run("s", Run(run_id="r2"))


async def test_a_run_goes_to_the_session_that_a_bulk_write_or_a_transaction_has_begun_anew() -> None:
    store = MemoryStore()
    async with Database(store) as db:
        await db.provision()
        session = Session(session_id="s")

        async def in_bulk() -> None:
            await db.sessions.upsert_many([session])

        async def in_transaction() -> None:
            async with db.transaction() as tx:
                tx.create(session)

        for begin in (in_bulk, in_transaction):
            await db.sessions.upsert(session)
            del store.items[Key("sessions", "s")]  # as another process would
            await begin()
            await db.sessions.append_run("s", Run(run_id=begin.__name__))
            read = await db.sessions.get("s")
            assert read is not None
            assert [run.run_id for run in read.runs] == [begin.__name__]


async def test_deleting_many_with_their_children_says_which_are_left() -> None:
    writes = count(1)

    def plan(call: Call, mutations: int) -> Fault | None:
        return Fault("refused") if call == "write" and next(writes) % 4 == 0 else None

    store = FaultyStore(MemoryStore())
    async with Database(store) as db:
        await db.provision()
        ids = [f"s{n}" for n in range(20)]
        await db.sessions.upsert_many(Session(session_id=each) for each in ids)
        store.plan = plan
        with pytest.raises(BulkWriteError) as caught:
            await db.sessions.delete_many(ids)
        store.plan = None
        left = {each.session_id async for each in db.sessions.iterate()}
        assert {ids[position] for position in caught.value.failed} == left
        assert caught.value.stored == 20 - len(left)
        assert left
        assert await db.sessions.delete_many(ids) == len(left)


async def test_clearing_says_when_a_store_did_not_answer() -> None:
    down = FaultyStore(MemoryStore("memory://b"))
    async with connect("memory://a", down) as db:
        await db.provision()
        await db.memories.upsert_many(UserMemory(memory=str(n)) for n in range(10))
        down.down()
        with pytest.raises(StoreUnavailable, match="10 were deleted"):
            await db.memories.clear()
        down.up()
        assert await db.memories.clear() == 0
        assert await db.memories.count() == 0


@pytest.mark.parametrize("odd", ["m1", b"m1", None, 5, UserMemory(memory="x"), {"memory_id": "m1"}])
async def test_one_record_or_id_alone_is_no_list_of_them(odd: Any) -> None:
    async with connect("memory://") as db:
        await db.provision()
        await db.memories.upsert(UserMemory(memory_id="m", memory="tea"))
        with pytest.raises(InvalidRecord):
            await db.memories.upsert_many(odd)
        if not isinstance(odd, UserMemory | dict):
            with pytest.raises(InvalidRecord):
                await db.memories.delete_many(odd)
        for user_id in (None, "ann"):
            with pytest.raises(InvalidRecord):
                await db.traces.create_spans(odd, user_id=user_id)
        assert await db.memories.count() == 1


@pytest.mark.parametrize("ttl", [None, [], "sessions", {"session": 1}, {"sessions": 0}, {"sessions": "1"}])
def test_a_ttl_that_is_none_is_refused(ttl: Any) -> None:
    with pytest.raises(ConfigurationError, match="ttl"):
        connect("memory://", ttl=ttl)


async def test_a_changed_end_changes_the_duration() -> None:
    async with connect("memory://") as db:
        await db.provision()
        await db.traces.upsert(Trace(trace_id="t", name="n", start_time=START, end_time=START + timedelta(seconds=1)))
        longer = {"end_time": START + timedelta(seconds=5)}
        assert (await db.traces.update("t", lambda each: each.model_copy(update=longer))).duration_ms == 5_000
        named = {"name": "again", "duration_ms": 7}
        assert (await db.traces.update("t", lambda each: each.model_copy(update=named))).duration_ms == 7


async def test_a_transition_that_comes_late_says_what_it_found() -> None:
    async with connect("memory://") as db:
        await db.provision()
        content = await db.knowledge.upsert(KnowledgeContent(id="k", name="n", status="new"))
        moved = await db.knowledge.set_status("k", "done", expected="new")
        with pytest.raises(ConflictError, match=r"the status is 'done', not 'new'; expected version") as caught:
            await db.knowledge.set_status("k", "other", expected="new")
        assert (caught.value.expected, caught.value.found) == (content.version, moved.version)
        counted = await db.knowledge.count_access("k")
        assert counted == 1
        with pytest.raises(ConflictError) as caught:
            await db.knowledge.set_status("k", "other", expected="new")
        assert caught.value.expected == content.version
        assert caught.value.found is not None
        assert caught.value.found > (moved.version or "")
        with pytest.raises(ConflictError) as caught:
            await db.knowledge.set_status("k", "other", expected="new", expected_version=moved.version)
        assert caught.value.expected == moved.version
        await db.knowledge.upsert(KnowledgeContent(id="by hand", name="n", status="done"))
        with pytest.raises(ConflictError, match=r"the status is 'done', not 'new'; found version") as caught:
            await db.knowledge.set_status("by hand", "other", expected="new")
        assert caught.value.expected is None


async def test_an_expired_record_is_none_that_was_expected() -> None:
    store = MemoryStore()
    async with Database(store) as db:
        await db.provision()
        stored = await db.memories.upsert(UserMemory(memory_id="m", memory="tea"), expires_in=100)
        store._now = lambda: 10**10
        with pytest.raises(ConflictError, match="found none") as caught:
            await db.memories.upsert(stored.model_copy(update={"expires_at": None}), expected_version=stored.version)
        assert caught.value.found is None


async def test_an_update_that_leaves_runs_is_refused_and_not_cut_short() -> None:
    async with connect("memory://") as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="s", runs=[Run(run_id="r")]))
        with pytest.raises(InvalidRecord, match="append_run") as caught:
            await db.sessions.update("s", lambda session: session.runs.append(Run(run_id="lost")))
        assert caught.value.path == "runs"


async def test_a_creation_over_a_record_says_that_there_is_one() -> None:
    async with connect("memory://") as db:
        await db.provision()
        run = EvalRun(run_id="e", eval_type="accuracy", eval_data={})
        stored = await db.evals.create(run)
        with pytest.raises(ConflictError, match="there is a record of this id already") as caught:
            await db.evals.create(run)
        assert (caught.value.expected, caught.value.found) == (None, stored.version)


def test_a_number_of_acknowledgements_that_there_is_not_is_refused_for_one_store_too() -> None:
    with pytest.raises(ConfigurationError, match="acks"):
        connect("memory://", acks=2)  # type: ignore[arg-type]


async def test_a_span_of_an_impossible_trace_does_not_keep_the_others_from_being_stored() -> None:
    async with connect("memory://") as db:
        await db.provision()
        spans = [
            Span(span_id="s", trace_id=each, name="n", start_time=START, end_time=START) for each in ("a", "", "b")
        ]
        with pytest.raises(BulkWriteError) as caught:
            await db.traces.create_spans(spans, user_id="ann")
        assert (caught.value.stored, list(caught.value.failed)) == (2, [1])


async def test_no_run_is_appended_to_a_session_that_was_deleted_under_a_member_of_an_enumeration() -> None:
    async with connect("memory://") as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="ann"))
        await db.sessions.delete(Name.ANN)
        with pytest.raises(RecordNotFound):
            await db.sessions.append_run("ann", Run(run_id="r"))


class Resurrected(WrapperStore):
    """A store on which somebody else writes a session that they have read before, once it was deleted."""

    session: Session | None = None

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        outcomes = await super().write(mutations, atomic=atomic)
        if self.session is not None and any(each.removes for each in mutations):
            theirs, self.session = self.session, None
            clock = HybridClock()
            clock.observe(mutations[0].version)
            await self.inner.write([Put(theirs.to_item(mutations[0].key, clock.stamp()))])
        return outcomes


async def test_a_session_that_is_written_again_while_it_is_deleted_has_none_of_its_runs() -> None:
    store = Resurrected(MemoryStore())
    async with connect(store) as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="s", runs=[Run(run_id="r")]))
        store.session = await db.sessions.get("s", runs=0)
        assert await db.sessions.delete("s")
        session = await db.sessions.get("s")
        assert session is not None
        assert session.runs == []
        await db.sessions.append_run("s", Run(run_id="later"))
        session = await db.sessions.get("s")
        assert session is not None
        assert [run.run_id for run in session.runs] == ["later"]


class Unanswered(WrapperStore):
    """A store that refuses all writes as older, each of which may stand all the same."""

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        return tuple(Refused("older", each.version, applied=True) for each in mutations)


@virtual
async def test_a_write_that_is_given_up_and_may_stand_is_not_reported_as_a_conflict() -> None:
    async with connect(Unanswered(MemoryStore())) as db:
        await db.provision()
        with pytest.raises(StoreUnavailable, match="an earlier attempt at it may stand"):
            await db.memories.upsert(UserMemory(memory="tea"))


class Overtaken(WrapperStore):
    """A store on which others write the same record right before each of so many writes, stamped later."""

    def __init__(self, inner: Store, times: int) -> None:
        super().__init__(inner)
        self.times = times

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        if self.times:
            self.times -= 1
            clock = HybridClock()
            for mutation in mutations:
                clock.observe(mutation.version)
            theirs = [UserMemory(memory="theirs").to_item(each.key, clock.stamp()) for each in mutations]
            await self.inner.write([Put(each) for each in theirs])
        return await super().write(mutations, atomic=atomic)


async def _alone(db: Database, memory: UserMemory) -> None:
    await db.memories.upsert(memory)


async def _of_many(db: Database, memory: UserMemory) -> None:
    await db.memories.upsert_many([memory])


async def _in_a_transaction(db: Database, memory: UserMemory) -> None:
    async with db.transaction() as tx:
        tx.upsert(memory)


@pytest.mark.parametrize("write", [_alone, _of_many, _in_a_transaction])
@virtual
async def test_a_write_that_fifteen_others_overtake_one_after_another_is_stored(
    write: Callable[[Database, UserMemory], Awaitable[None]],
) -> None:
    store = Overtaken(MemoryStore(), 0)
    async with connect(store) as db:
        await db.provision()
        read = await db.memories.upsert(UserMemory(memory="old", memory_id="m"))
        store.times = 15
        with elapsed(0.01, 10):
            await write(db, read.model_copy(update={"memory": "ours"}))
        assert store.times == 0
        stored = await db.memories.get("m")
        assert stored is not None
        assert stored.memory == "ours"


@virtual
async def test_a_write_that_one_other_overtakes_is_repeated_at_once() -> None:
    store = Overtaken(MemoryStore(), 0)
    async with connect(store) as db:
        await db.provision()
        read = await db.memories.upsert(UserMemory(memory="old", memory_id="m"))
        store.times = 1
        with elapsed(0, 0):
            await db.memories.upsert(read.model_copy(update={"memory": "ours"}))


@virtual
async def test_a_write_that_others_keep_overtaking_is_given_up() -> None:
    store = Overtaken(MemoryStore(), 0)
    async with connect(store) as db:
        await db.provision()
        read = await db.memories.upsert(UserMemory(memory="old", memory_id="m"))
        store.times = 1_000
        with elapsed(10, 50), pytest.raises(ConflictError):
            await db.memories.upsert(read)
