"""Bulk writes under faults, refusals, cancellation and errors of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from agno_clouddb import (
    BulkWriteError,
    CloudDBError,
    ConflictError,
    Database,
    InvalidRecord,
    LifecycleError,
    NotOwner,
    NotProvisioned,
    PartialWrite,
    StoreUnavailable,
    Throttled,
    UserMemory,
    connect,
)
from agno_clouddb.repositories import bulk, changes
from agno_clouddb.stores.base import Failed, Key, Mutation, Outcome, Put, Refused, Store
from agno_clouddb.stores.clock import HybridClock, wall_clock_millis
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing import CountingStore, Fault, FaultyStore, RandomFaults, Unprocessed, script
from agno_clouddb.testing.faults import Plan

BATCH = bulk._BATCH


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries go on at once; a loop that never ends still yields, so that a time-out ends it."""
    for module in (bulk, changes):
        monkeypatch.setattr(module, "_FIRST_PAUSE", 0.0)


@pytest.fixture
def store() -> MemoryStore:
    """What the databases of a test are over, beneath whatever goes wrong."""
    return MemoryStore()


def memory(memory_id: str, text: str = "likes tea", **values: Any) -> UserMemory:
    return UserMemory(memory=text, memory_id=memory_id, **values)


def some(count: int, **values: Any) -> Iterator[UserMemory]:
    return (memory(f"m{number:05}", text=str(number), **values) for number in range(count))


async def ready(store: Store, **options: Any) -> Database:
    """A database that is open and provisioned; nothing here needs to be closed."""
    db = Database(store, **options)
    await db.open()
    await db.provision(["memories"])
    return db


async def ids(db: Database) -> list[str]:
    return [each.memory_id async for each in db.memories.iterate()]


def text_of(store: MemoryStore, memory_id: str) -> str:
    return UserMemory.from_item(store.items[Key("memories", memory_id)]).memory


class Gate(WrapperStore):
    """Holds every write until it is opened, and remembers how many were held at once."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.opened = asyncio.Event()
        self.held = self.most = 0

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        self.held += 1
        self.most = max(self.most, self.held)
        try:
            await self.opened.wait()
            return await super().write(mutations, atomic=atomic)
        finally:
            self.held -= 1


class Answers(WrapperStore):
    """Lets a function see every write, and make its answer from what the store would do."""

    def __init__(
        self, inner: Store, answer: Callable[[Sequence[Mutation], int], tuple[Outcome, ...] | CloudDBError | None]
    ) -> None:
        super().__init__(inner)
        self.answer = answer
        self.writes = 0

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        self.writes += 1
        answer = self.answer(mutations, self.writes)
        if isinstance(answer, CloudDBError):
            raise answer
        return answer if answer is not None else await super().write(mutations, atomic=atomic)


async def test_every_record_gets_its_version_in_the_order_given(store: MemoryStore) -> None:
    counting = CountingStore(store)
    db = await ready(counting)
    result = await db.memories.upsert_many(some(1_100))
    assert result.stored == 1_100
    assert result.failed == {}
    assert result.versions == [store.items[Key("memories", f"m{number:05}")].version for number in range(1_100)]
    assert result.versions == sorted(set(result.versions), key=str)
    assert counting.calls["write"] == -(-1_100 // BATCH)


@pytest.mark.parametrize("between", [0, 1, BATCH - 1, BATCH, 3 * BATCH])
async def test_of_two_records_with_one_id_the_later_stands(store: MemoryStore, between: int) -> None:
    # Writes that end in the reverse of the order in which they began.
    class Reversed(WrapperStore):
        held = 0

        async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
            self.held += 1
            for _ in range(10 - self.held):
                await asyncio.sleep(0)
            return await super().write(mutations, atomic=atomic)

    db = await ready(Reversed(store))
    records = [memory("twice", "earlier"), *some(between), memory("twice", "later")]
    result = await db.memories.upsert_many(records)
    assert result.stored == between + 2
    assert text_of(store, "twice") == "later"
    assert store.items[Key("memories", "twice")].version == result.versions[-1]
    assert len(await ids(db)) == between + 1


async def test_records_with_one_id_follow_each_other_also_where_the_earlier_is_sent_again(store: MemoryStore) -> None:
    db = await ready(FaultyStore(store, script(Fault("refused"), Fault("response lost"), on=["write"])))
    result = await db.memories.upsert_many([memory("m", str(number)) for number in range(5)])
    assert result.stored == 5
    assert text_of(store, "m") == "4"
    assert result.versions == sorted(set(result.versions), key=str)


async def test_records_whose_ids_were_written_before_go_in_whole_batches_again(store: MemoryStore) -> None:
    counting = CountingStore(store)
    db = await ready(counting)
    result = await db.memories.upsert_many([*some(BATCH), *some(BATCH), *some(BATCH)])
    assert result.stored == 3 * BATCH
    # Each record made anew is sent once more when it is there already.
    assert counting.calls["write"] == 5


async def test_what_an_iterator_gave_before_it_raised_is_written(store: MemoryStore) -> None:
    async def asynchronous() -> AsyncIterator[UserMemory]:
        for each in some(BATCH + 7):
            yield each
        yield memory("bad", x=float("nan"))
        raise LookupError("the source is gone")

    def plain() -> Iterator[UserMemory]:
        yield from some(BATCH + 7)
        raise LookupError("the source is gone")

    db = await ready(store)
    before = asyncio.all_tasks()
    with pytest.raises(LookupError, match="the source is gone") as caught:
        await db.memories.upsert_many(asynchronous())
    assert len(store.items) == BATCH + 7
    (note,) = caught.value.__notes__
    assert note.startswith(f"1 records are not stored; the first is {BATCH + 7}: x: ")
    assert asyncio.all_tasks() == before
    store.items.clear()
    with pytest.raises(LookupError, match="the source is gone") as caught:
        await db.memories.upsert_many(plain())
    assert len(store.items) == BATCH + 7
    assert not hasattr(caught.value, "__notes__")


async def test_an_endless_source_is_read_only_as_fast_as_it_is_written(store: MemoryStore) -> None:
    taken, closed = 0, False

    async def endless() -> AsyncIterator[UserMemory]:
        nonlocal taken, closed
        try:
            while True:
                taken += 1
                yield memory(f"m{taken}")
        finally:
            closed = True

    gate = Gate(store)
    db = await ready(gate)
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(db.memories.upsert_many(endless()))
    await anyio.wait_all_tasks_blocked()
    assert gate.held == bulk._BATCHES_AT_ONCE
    assert taken == (bulk._BATCHES_AT_ONCE + 1) * BATCH
    assert not closed
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed
    assert gate.held == 0
    assert store.items == {}
    assert asyncio.all_tasks() == before
    gate.opened.set()
    assert (await db.memories.upsert_many(some(10_000))).stored == 10_000
    assert gate.most == bulk._BATCHES_AT_ONCE


async def test_a_time_out_of_the_caller_ends_pauses_too(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "full_jitter", lambda *_: 3_600.0)
    faulty = FaultyStore(store)
    db = await ready(faulty)
    faulty.down()
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await db.memories.upsert_many(some(3 * BATCH))
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_left_unprocessed_or_lost_is_sent_again(store: MemoryStore, seed: int) -> None:
    db = await ready(FaultyStore(store))
    assert isinstance(db.store, FaultyStore)
    plans: list[Plan] = [Unprocessed(seed, items=0.2, resets=0.1), RandomFaults(seed, rate=0.2)]
    for number, plan in enumerate(plans):
        db.store.plan = plan
        result = await db.memories.upsert_many(some(1_000, n=number))
        assert result.stored == 1_000
        assert result.versions == [store.items[Key("memories", f"m{n:05}")].version for n in range(1_000)]
    db.store.plan = Unprocessed(seed, items=0.2, resets=0.2)
    assert await db.memories.delete_many([f"m{number:05}" for number in range(0, 1_000, 2)]) == 500
    db.store.plan = None
    assert await ids(db) == [f"m{number:05}" for number in range(999, 0, -2)]


async def test_half_of_a_batch_that_stays_unprocessed_is_reported_and_the_other_half_is_stored(
    store: MemoryStore,
) -> None:
    sent: list[int] = []

    class Halves(WrapperStore):
        async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
            sent.append(len(mutations))
            even = [each for each in mutations if int(each.key.id[1:]) % 2 == 0]
            answers = dict(zip((each.key for each in even), await self.inner.write(even), strict=True))
            return tuple(answers.get(each.key, Failed(Throttled("no", key=each.key))) for each in mutations)

    db = await ready(Halves(store))
    told: list[int] = []
    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many(some(100), progress=told.append)
    error = caught.value
    assert error.stored == 50
    assert list(error.failed) == list(range(1, 100, 2))
    assert all(isinstance(each, Throttled) for each in error.failed.values())
    assert error.__cause__ is error.failed[1]
    assert [version is None for version in error.versions] == [False, True] * 50
    assert error.collection == "memories"
    assert await ids(db) == [f"m{number:05}" for number in range(98, -1, -2)]
    assert sent == [100] + [50] * (bulk._ATTEMPTS - 1)
    assert told == [50]
    for fragment in ("50 of 100", "record 1:", "store memory://"):
        assert fragment in str(error)


async def test_a_store_that_stays_down_is_asked_so_often_and_no_more(store: MemoryStore) -> None:
    faulty = FaultyStore(store)
    counting = CountingStore(faulty)
    db = await ready(counting)
    faulty.down()
    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many(some(3))
    assert counting.calls["write"] == bulk._ATTEMPTS
    assert (caught.value.stored, set(caught.value.failed)) == (0, {0, 1, 2})
    assert isinstance(caught.value.failed[0], StoreUnavailable)


async def test_a_store_that_stays_down_is_not_waited_for_by_every_batch(store: MemoryStore) -> None:
    faulty = FaultyStore(store)
    counting = CountingStore(faulty)
    db = await ready(counting)
    faulty.down()
    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many(some(20 * BATCH))
    assert len(caught.value.failed) == 20 * BATCH
    assert counting.calls["write"] <= bulk._BATCHES_AT_ONCE * bulk._ATTEMPTS + 16

    def back_again(done: int) -> Iterator[UserMemory]:
        for each in some(8 * BATCH):
            if each.memory_id == f"m{done:05}":
                faulty.up()
            yield each

    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many(back_again(6 * BATCH))
    assert caught.value.stored >= BATCH


async def test_a_store_that_stores_little_at_a_time_is_not_given_up(store: MemoryStore) -> None:
    class Slow(WrapperStore):
        async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
            first = await super().write(mutations[:1], atomic=atomic)
            return (*first, *(Failed(Throttled("no", key=each.key)) for each in mutations[1:]))

    db = await ready(Slow(store))
    assert (await db.memories.upsert_many(some(5 * bulk._ATTEMPTS))).stored == 5 * bulk._ATTEMPTS


async def test_a_record_that_is_made_anew_at_the_last_attempt_ends_too(store: MemoryStore) -> None:
    first = await ready(store)
    await first.memories.upsert(memory("stored"))

    def answer(mutations: Sequence[Mutation], number: int) -> tuple[Outcome, ...] | None:
        if number == bulk._ATTEMPTS:  # the new one fails, and the stored one is refused
            found = store.items[mutations[1].key]
            return (Failed(Throttled("no")), Refused("exists", found.version, found.fields))
        return tuple(Failed(Throttled("no")) for _ in mutations)

    answers = Answers(store, answer)
    db = await ready(answers)
    async with asyncio.timeout(10):
        with pytest.raises(BulkWriteError) as caught:
            await db.memories.upsert_many([memory("new"), memory("stored")])
    assert set(caught.value.failed) == {0, 1}
    assert answers.writes == bulk._ATTEMPTS + 1


async def test_an_error_that_does_not_pass_is_not_tried_again(store: MemoryStore) -> None:
    counting = CountingStore(store)
    db = Database(counting)
    await db.open()
    taken = 0

    def endless() -> Iterator[UserMemory]:
        nonlocal taken
        for each in some(100 * BATCH):
            taken += 1
            yield each

    with pytest.raises(NotProvisioned):
        await db.memories.upsert_many(endless())
    assert counting.calls["write"] <= bulk._BATCHES_AT_ONCE
    assert taken <= 2 * bulk._BATCHES_AT_ONCE * BATCH
    raising = Answers(store, lambda mutations, number: InvalidRecord("x", "is odd"))
    db = await ready(raising)
    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many(some(3))
    assert raising.writes == 1
    assert [type(each) for each in caught.value.failed.values()] == [InvalidRecord] * 3


async def test_an_error_that_a_store_raises_is_tried_again_where_it_may_pass(store: MemoryStore) -> None:
    raising = Answers(store, lambda mutations, number: StoreUnavailable("gone") if number < 4 else None)
    db = await ready(raising)
    assert (await db.memories.upsert_many(some(3))).stored == 3
    assert raising.writes == 4


async def test_invalid_and_foreign_records_do_not_keep_the_others_from_being_stored(store: MemoryStore) -> None:
    db = await ready(store)
    await db.memories.upsert_many([memory("bobs", "old", user_id="bob"), memory("anns", "old", user_id="ann")])
    records: list[Any] = [
        memory("a"),
        memory("", "empty id"),
        memory("b", x=float("nan")),
        "no memory",
        memory("bobs", "taken"),
        memory("anns", "new"),
        memory("c", user_id="bob"),
        memory("d", expires_at=datetime(2020, 1, 1, tzinfo=UTC)),
        memory("e").model_copy(update={"topics": 5}),
        memory("f"),
    ]
    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many(iter(records), user_id="ann")
    error = caught.value
    paths = {n: each.path for n, each in error.failed.items() if isinstance(each, InvalidRecord)}
    assert paths == {1: "memory_id", 2: "x", 3: "usermemory", 6: "user_id", 7: "expires_at", 8: "topics"}
    assert isinstance(error.failed[4], NotOwner)
    assert list(error.failed) == [1, 2, 3, 4, 6, 7, 8]
    assert error.stored == 3
    assert {key.id for key in store.items} == {"a", "anns", "bobs", "f"}
    assert (text_of(store, "bobs"), text_of(store, "anns")) == ("old", "new")


async def test_what_a_clock_ahead_has_stamped_is_written_over(store: MemoryStore) -> None:
    ahead = await ready(store, clock=HybridClock(now=lambda: wall_clock_millis() + 300_000))
    read = [await ahead.memories.upsert(each) for each in some(3)]
    behind = await ready(store)
    counting = CountingStore(store)
    db = await ready(counting)
    # As they were read, and made anew.
    result = await behind.memories.upsert_many(each.model_copy(update={"memory": "changed"}) for each in read)
    assert result.stored == 3
    assert [text_of(store, each.memory_id) for each in read] == ["changed"] * 3
    assert (await db.memories.upsert_many(some(3, agent_id="a"))).stored == 3
    assert counting.calls["write"] == 2
    assert await db.memories.count(agent_id="a") == 3
    after = await ready(store)
    assert await after.memories.delete_many([each.memory_id for each in read]) == 3


async def test_a_write_that_surely_was_not_applied_is_stamped_past_what_others_wrote_since(store: MemoryStore) -> None:
    ahead = await ready(store, clock=HybridClock(now=lambda: wall_clock_millis() + 300_000))
    await ahead.memories.upsert(memory("m", "theirs"))
    db = await ready(FaultyStore(store, script(Fault("refused"), on=["write"])))
    assert (await db.memories.upsert_many([memory("m", "ours")])).stored == 1
    assert text_of(store, "m") == "ours"


async def test_what_a_broken_clock_has_stamped_is_reported(store: MemoryStore) -> None:
    broken = await ready(store, clock=HybridClock(now=lambda: wall_clock_millis() + 100_000_000))
    read = await broken.memories.upsert(memory("broken"))
    db = await ready(store)
    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many([read, memory("m")])
    assert set(caught.value.failed) == {0}
    assert isinstance(caught.value.failed[0], CloudDBError)
    assert sorted(await ids(db)) == ["broken", "m"]
    assert (await db.memories.upsert_many([memory("after")])).stored == 1


async def test_a_write_whose_answer_was_lost_is_not_repeated_over_what_others_wrote_since(store: MemoryStore) -> None:
    other = await ready(store)

    class Overtaken(WrapperStore):
        writes = 0

        async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
            self.writes += 1
            outcomes = await super().write(mutations, atomic=atomic)
            if self.writes > 1:
                return outcomes
            await other.memories.update("m", lambda found: found.model_copy(update={"memory": found.memory + ", then"}))
            return tuple(Failed(StoreUnavailable("no answer"), applied=True) for _ in mutations)

    db = await ready(Overtaken(store))
    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many([memory("m", "first"), memory("n")])
    assert set(caught.value.failed) == {0}
    assert isinstance(caught.value.failed[0], StoreUnavailable)
    assert text_of(store, "m") == "first, then"


async def test_a_deletion_whose_answer_was_lost_is_counted(store: MemoryStore) -> None:
    db = await ready(FaultyStore(store))
    await db.memories.upsert_many(some(10))
    assert isinstance(db.store, FaultyStore)
    db.store.plan = script(Fault("response lost"), on=["write"])
    assert await db.memories.delete_many([*(f"m{number:05}" for number in range(10)), "none"]) == 10 + 1
    assert store.items == {}


async def test_what_a_cancelled_call_was_writing_leaves_nothing_pending(store: MemoryStore) -> None:
    gate = Gate(store)
    db = await ready(gate)
    before = asyncio.all_tasks()
    for count in (1, BATCH, 3 * BATCH + 1, 20 * BATCH):
        task = asyncio.ensure_future(db.memories.upsert_many(some(count)))
        await anyio.wait_all_tasks_blocked()
        assert gate.held > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == before
    with anyio.move_on_after(0) as scope:
        await db.memories.upsert_many(some(3 * BATCH))
    assert scope.cancelled_caught
    assert asyncio.all_tasks() == before
    gate.opened.set()
    assert (await db.memories.upsert_many(some(10))).stored == 10


async def test_progress_is_told_after_each_batch_and_what_it_raises_stops_the_call(store: MemoryStore) -> None:
    told: list[int] = []
    closed = False

    async def endless() -> AsyncIterator[UserMemory]:
        nonlocal closed
        try:
            for number in range(10**9):
                yield memory(f"m{number}")
        finally:
            closed = True

    def progress(stored: int) -> None:
        told.append(stored)
        if stored >= 4 * BATCH:
            raise KeyError("enough")

    db = await ready(store)
    before = asyncio.all_tasks()
    with pytest.raises(KeyError, match="enough"):
        await db.memories.upsert_many(endless(), progress=progress)
    assert told == [BATCH, 2 * BATCH, 3 * BATCH, 4 * BATCH]
    assert len(store.items) >= 4 * BATCH
    assert closed
    assert asyncio.all_tasks() == before
    told.clear()
    assert (await db.memories.upsert_many(some(2 * BATCH + 1), progress=told.append)).stored == told[-1] == 501


async def test_a_database_that_is_not_open_takes_nothing_from_the_source(store: MemoryStore) -> None:
    source = some(3)
    db = connect(store)
    with pytest.raises(LifecycleError, match="not open"):
        await db.memories.upsert_many(source)
    assert next(source).memory_id == "m00000"
    async with db:
        await db.provision(["memories"])
    with pytest.raises(LifecycleError, match="closed"):
        await db.memories.upsert_many(source)
    with pytest.raises(LifecycleError, match="closed"):
        await db.memories.delete_many(["m"])
    assert next(source).memory_id == "m00001"


async def test_a_database_that_is_closed_meanwhile_says_what_is_not_stored(store: MemoryStore) -> None:
    gate = Gate(store)
    db = await ready(gate)
    task = asyncio.ensure_future(db.memories.upsert_many(some(2 * BATCH)))
    await anyio.wait_all_tasks_blocked()
    await db.aclose()
    gate.opened.set()
    with pytest.raises(BulkWriteError) as caught:
        await task
    assert len(caught.value.failed) == 2 * BATCH
    assert {type(each) for each in caught.value.failed.values()} == {LifecycleError}


@pytest.mark.parametrize("seed", range(4))
async def test_with_acks_all_every_store_has_every_record_though_one_fails_at_times(seed: int) -> None:
    stores = MemoryStore("memory://0"), MemoryStore("memory://1")
    faulty = FaultyStore(stores[1])
    db = connect(stores[0], faulty, acks="all")
    async with db:
        await db.provision(["memories"])
        for number in range(2):
            faulty.plan = Unprocessed(seed, items=0.1, resets=0.2)
            result = await db.memories.upsert_many(some(1_000, n=number))
            assert result.stored == 1_000
            for each in stores:
                assert [each.items[Key("memories", f"m{n:05}")].version for n in range(1_000)] == result.versions
        faulty.plan = Unprocessed(seed, items=0.1, resets=0.2)
        assert await db.memories.delete_many([f"m{n:05}" for n in range(1_000)]) == 1_000
        for each in stores:
            records = [item for key, item in each.items.items() if key.collection == "memories"]
            assert len(records) == 1_000
            assert all(item.deleted for item in records)


async def test_with_acks_1_every_record_is_listed_though_both_stores_fail_at_times() -> None:
    inner = MemoryStore("memory://0"), MemoryStore("memory://1")
    faulty = [FaultyStore(each, Unprocessed(seed, items=0.2)) for seed, each in enumerate(inner)]
    async with connect(*faulty) as db:
        await db.provision(["memories"])
        assert (await db.memories.upsert_many(some(1_000))).stored == 1_000
        assert any(len(each.items) < 1_000 for each in inner)
        assert await ids(db) == [f"m{n:05}" for n in range(999, -1, -1)]


async def test_with_acks_all_a_store_that_stays_down_is_named_for_every_record() -> None:
    faulty = FaultyStore(MemoryStore("memory://1"))
    async with connect(MemoryStore("memory://0"), faulty, acks="all") as db:
        await db.provision(["memories"])
        faulty.down()
        with pytest.raises(BulkWriteError) as caught:
            await db.memories.upsert_many(some(3))
        assert caught.value.stored == 0
        for each in caught.value.failed.values():
            assert isinstance(each, PartialWrite)
            assert each.acked == ("memory://0",)
            assert set(each.failed) == {"memory://1"}
        faulty.up()
        assert (await db.memories.upsert_many(some(3))).stored == 3


async def test_a_record_that_keeps_being_written_by_others_is_given_up(store: MemoryStore) -> None:
    other = await ready(store)
    read = await other.memories.upsert(memory("m"))

    class Contended(WrapperStore):
        async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
            (mutation,) = mutations
            assert isinstance(mutation, Put)
            clock = HybridClock()
            clock.observe(mutation.version)
            item = store.items[mutation.key]
            await self.inner.write([Put(memory("m", "theirs").to_item(item.key, clock.stamp()))])
            return await super().write(mutations, atomic=atomic)

    db = await ready(Contended(store))
    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many([read.model_copy(update={"memory": "ours"})])
    assert isinstance(caught.value.failed[0], ConflictError)
    assert text_of(store, "m") == "theirs"
