"""Atomic writes of a fan-out: what decides them, and what their copies come to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Literal, Self

import pytest

from agno_clouddb import (
    ConflictError,
    InvalidRecord,
    NotOwner,
    PartialWrite,
    RecordNotFound,
    StoreUnavailable,
    UserMemory,
    connect,
)
from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout.policy import Acks
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import (
    Condition,
    Delete,
    Failed,
    Item,
    Key,
    Limits,
    Mutation,
    Outcome,
    Put,
    Refused,
    Store,
    Stored,
)
from agno_clouddb.stores.clock import HybridClock, wall_clock_millis
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing import CountingStore, FaultyStore
from agno_clouddb.testing.faults import Fault

CLOCK = HybridClock()
EACH_ACKS = pytest.mark.parametrize("acks", [1, "all"])


def item(id: str, user: str | None = None, version: str | None = None, data: str = "") -> Item:
    fields = {"session_type": "agent", "created_at": "2026", "updated_at": "2026"} | ({"user_id": user} if user else {})
    return Item(Key("sessions", id), version or CLOCK.stamp(), fields, data)


class Refusing(WrapperStore):
    """A store that raises what a test says as soon as something is to be written."""

    error: CloudDBError | None = None

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        if self.error is not None:
            raise self.error
        return await super().write(mutations, atomic=atomic)


class Picky(WrapperStore):
    """A store with a limit of its own for transactions, as a cloud has beside its ``limits``."""

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        self.check(mutations, atomic=atomic)
        return await super().write(mutations, atomic=atomic)

    def check(self, mutations: Sequence[Mutation], *, atomic: bool) -> tuple[Outcome | None, ...]:
        chunks = sum(1 + len(each.item.data) // 10 for each in mutations if isinstance(each, Put))
        if atomic and chunks > 5:
            raise InvalidRecord("mutations", f"{chunks} actions")
        return super().check(mutations, atomic=atomic)


class Trio:
    """A primary, two more stores, and the fan-out over them."""

    def __init__(self, acks: Acks = 1) -> None:
        self.memories = [MemoryStore(f"memory://{name}") for name in "abc"]
        self.a, self.b, self.c = (FaultyStore(each) for each in self.memories)
        self.fanout = FanOutStore([self.a, self.b, self.c], acks=acks, clock=CLOCK)

    async def __aenter__(self) -> Self:
        await self.fanout.open()
        await self.fanout.provision()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fanout.aclose()

    def held(self, id: str) -> list[str | None]:
        found = [memory.items.get(Key("sessions", id)) for memory in self.memories]
        return [each.version if each is not None else None for each in found]


@pytest.fixture
async def trio() -> AsyncIterator[Trio]:
    async with Trio() as made:
        yield made


def reasons(outcomes: Sequence[Outcome]) -> list[str | None]:
    return [each.reason if isinstance(each, Refused) else None for each in outcomes]


async def test_an_atomic_write_is_all_or_none_on_each_store(trio: Trio) -> None:
    a, b, c = item("a"), item("b"), item("c")
    assert await trio.fanout.write([Put(a), Put(b)], atomic=True) == (Stored(a.version), Stored(b.version))
    older = Item(b.key, a.version, b.fields)
    assert reasons(await trio.fanout.write([Put(c), Put(older)], atomic=True)) == ["atomic", "older"]
    missing = Delete(Key("sessions", "missing"), CLOCK.stamp())
    assert reasons(await trio.fanout.write([Put(c), missing], atomic=True)) == ["atomic", "absent"]
    for memory in trio.memories:
        assert set(memory.items) == {a.key, b.key}
    deleted = await trio.fanout.write([Put(c), Delete(a.key, CLOCK.stamp())], atomic=True)
    assert all(isinstance(each, Stored) for each in deleted)
    assert (await trio.fanout.get([a.key, c.key])).items == (None, c)


@EACH_ACKS
@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (Condition(owner="bob"), "owner"),
        (Condition(absent=True), "exists"),
        (Condition(absent=True, exclusive=True), "exists"),
        (Condition(expected="old"), "version"),
    ],
)
async def test_what_the_primary_has_missed_forbids_an_atomic_write(
    acks: Acks, condition: Condition, reason: str
) -> None:
    async with Trio(acks) as trio:
        if condition.expected is not None:
            old = item("m", "ann")
            condition = Condition(expected=old.version)
            await trio.fanout.write([Put(old)])
        trio.a.down()
        anns = item("m", "ann")
        await trio.fanout.write([Put(anns)])
        trio.a.up()
        before = [dict(memory.items) for memory in trio.memories]
        outcomes = await trio.fanout.write([Put(item("other")), Put(item("m", "bob"), condition)], atomic=True)
        assert reasons(outcomes) == ["atomic", reason]
        refused = outcomes[1]
        assert isinstance(refused, Refused)
        assert (refused.version, refused.owner) == (anns.version, "ann")
        assert [memory.items for memory in trio.memories] == before


async def test_a_transaction_does_not_take_over_what_the_primary_has_missed() -> None:
    first, second = FaultyStore(MemoryStore("memory://first")), FaultyStore(MemoryStore("memory://second"))
    async with connect(first, second) as db:
        await db.provision()
        first.down()
        stored = await db.memories.upsert(UserMemory(memory_id="m", memory="ann's", user_id="ann"))
        first.up()
        with pytest.raises(NotOwner, match="memories/m"):
            async with db.transaction() as tx:
                tx.upsert(UserMemory(memory_id="m", memory="bob's", user_id="bob"), user_id="bob")
        with pytest.raises(ConflictError, match="memories/m"):
            async with db.transaction() as tx:
                tx.create(UserMemory(memory_id="m", memory="bob's", user_id="bob"))
        assert await db.memories.get("m") == stored


async def test_a_transaction_is_stamped_past_what_the_primary_has_missed() -> None:
    first, second = MemoryStore("memory://first"), MemoryStore("memory://second")
    async with connect(first, second) as db:
        await db.provision()
        await db.memories.upsert(UserMemory(memory_id="m", memory="old"))
        (held,) = second.items.values()
        ahead = HybridClock(now=lambda: wall_clock_millis() + 600_000)
        second.items[held.key] = replace(held, version=ahead.stamp())
        async with db.transaction() as tx:
            tx.upsert(UserMemory(memory_id="m", memory="newest"))
        read = await db.memories.get("m")
        assert read is not None
        assert (read.memory, read.version) == ("newest", tx.results[0].version)
        assert first.items == second.items


async def test_what_is_dead_on_any_store_is_as_nothing_to_an_atomic_write(trio: Trio) -> None:
    await trio.fanout.write([Put(item("m", "ann"))])
    await trio.fanout.write([Delete(Key("sessions", "m"), CLOCK.stamp())])
    anew = item("m", "bob")
    assert await trio.fanout.write([Put(anew, Condition(absent=True, owner="bob"))], atomic=True) == (
        Stored(anew.version),
    )
    assert trio.held("m") == [anew.version] * 3


async def test_an_atomic_write_that_cannot_be_read_for_fails(trio: Trio) -> None:
    for store in (trio.a, trio.b, trio.c):
        store.plan = lambda call, mutations: Fault("refused") if call == "get" else None
    outcomes = await trio.fanout.write([Put(item("x")), Delete(Key("sessions", "y"), CLOCK.stamp())], atomic=True)
    assert [isinstance(each, Failed) and isinstance(each.error, StoreUnavailable) for each in outcomes] == [True, True]
    assert [each.applied for each in outcomes if isinstance(each, Failed)] == [False, False]
    assert trio.held("x") == [None] * 3


async def test_an_atomic_write_needs_the_primary_and_no_other(trio: Trio) -> None:
    trio.a.down()
    outcomes = await trio.fanout.write([Put(item("x")), Put(item("y"))], atomic=True)
    assert all(isinstance(each, Failed) for each in outcomes)
    assert trio.held("x") == [None] * 3
    trio.a.up()
    trio.b.down()
    x, y = item("x"), item("y")
    assert await trio.fanout.write([Put(x), Put(y)], atomic=True) == (Stored(x.version), Stored(y.version))
    assert trio.held("x") == [x.version, None, x.version]


async def test_an_atomic_write_costs_one_read() -> None:
    counting = CountingStore(MemoryStore("memory://a"))
    async with FanOutStore([counting, MemoryStore("memory://b")], clock=CLOCK) as fanout:
        await fanout.provision()
        mutations = [Put(item("x")), Put(item("y"), Condition(absent=True))]
        await fanout.write(mutations, atomic=True)
        assert (counting.calls["get"], counting.calls["write"]) == (1, 1)


@EACH_ACKS
@pytest.mark.parametrize("overtaken", [["x"], ["x", "z"], ["x", "y", "z"]])
async def test_a_copy_that_something_newer_was_faster_than_does_not_keep_the_others_from_being_stored(
    acks: Acks, overtaken: list[str]
) -> None:
    async with Trio(acks) as trio:
        mine = [item(each) for each in "xyz"]
        theirs = {each: item(each) for each in overtaken}

        def others_write(call: str, mutations: int) -> None:
            # The read before has seen nothing: another writer reaches this store just before the copies do.
            if call == "write":
                trio.memories[1].items.update({each.key: each for each in theirs.values()})

        trio.b.plan = others_write
        outcomes = await trio.fanout.write([Put(each) for each in mine], atomic=True)
        assert outcomes == tuple(Stored(each.version) for each in mine)
        for each in mine:
            newest = theirs.get(each.key.id, each)
            assert trio.held(each.key.id) == [each.version, newest.version, each.version]


@pytest.mark.parametrize(("acks", "partial"), [(1, False), ("all", True)])
async def test_copies_that_a_store_does_not_answer_are_no_refusals(acks: Acks, partial: bool) -> None:
    async with Trio(acks) as trio:
        writes = 0

        def fail_the_second(call: str, mutations: int) -> Fault | None:
            nonlocal writes
            if call != "write":
                return None
            writes += 1
            if writes == 1:
                newer = item("x")
                trio.memories[1].items[newer.key] = newer
            return Fault("request lost") if writes == 2 else None

        trio.b.plan = fail_the_second
        x, y = item("x"), item("y")
        first, second = await trio.fanout.write([Put(x), Put(y)], atomic=True)
        assert first == Stored(x.version)
        if partial:
            assert isinstance(second, Failed)
            assert isinstance(second.error, PartialWrite)
            assert second.error.acked == ("memory://a", "memory://c")
        else:
            assert second == Stored(y.version)
        assert trio.held("y") == [y.version, None, y.version]


@EACH_ACKS
@pytest.mark.parametrize("answer", ["refused", "failed"])
async def test_a_copy_that_a_store_turns_down_without_a_newer_version_is_not_stored(
    acks: Acks, answer: Literal["refused", "failed"]
) -> None:
    class Odd(WrapperStore):
        async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
            first: Outcome = Refused("atomic") if answer == "refused" else Failed(CloudDBError("too much"))
            return (first, *(Refused("atomic") for _ in mutations[1:]))

    async with FanOutStore([MemoryStore("memory://a"), Odd(MemoryStore("memory://b"))], acks=acks) as fanout:
        await fanout.provision()
        outcomes = await fanout.write([Put(item("x")), Put(item("y"))], atomic=True)
        for each in outcomes:
            assert isinstance(each, Failed)
            assert isinstance(each.error, PartialWrite)
            assert "too much" in str(each.error) or answer == "refused"
            assert each.applied


@EACH_ACKS
async def test_a_limit_of_another_store_for_transactions_is_known_before_anything_is_sent(acks: Acks) -> None:
    first, second = CountingStore(MemoryStore("memory://a")), Picky(MemoryStore("memory://b"))
    async with FanOutStore([first, FaultyStore(second)], acks=acks) as fanout:
        await fanout.provision()
        large = [Put(item(each, data="x" * 35)) for each in "xy"]
        with pytest.raises(InvalidRecord, match="8 actions"):
            await fanout.write(large, atomic=True)
        assert (first.calls["get"], first.calls["write"]) == (0, 0)
        assert all(isinstance(each, Stored) for each in await fanout.write(large))
        # A deletion is counted as the tombstone that it writes.
        deletes = [Delete(Key("sessions", str(n)), CLOCK.stamp()) for n in range(6)]
        with pytest.raises(InvalidRecord, match="6 actions"):
            fanout.check(deletes, atomic=True)
        assert fanout.check(deletes[:5], atomic=True) == (None,) * 5


async def test_what_is_too_large_for_one_store_is_named_before_what_comes_of_it() -> None:
    small = MemoryStore("memory://small", limits=Limits(payload_bytes=10, atomic_items=5, atomic_bytes=100))
    middle = MemoryStore("memory://middle", limits=Limits(payload_bytes=20, atomic_items=5, atomic_bytes=100))
    async with FanOutStore([middle, small]) as fanout:
        await fanout.provision()
        puts = [Put(item("x", data="x")), Put(item("y", data="y" * 15)), Put(item("z", data="z" * 25))]
        first, second, third = await fanout.write(puts, atomic=True)
        assert first == Refused("atomic")
        assert isinstance(second, Failed)
        assert "limit is 10" in str(second.error)
        assert isinstance(third, Failed)
        assert small.items == middle.items == {}


@EACH_ACKS
@pytest.mark.parametrize("atomic", [True, False])
async def test_a_store_that_raises_after_another_one_has_the_write_makes_it_partial(acks: Acks, atomic: bool) -> None:
    first, second = MemoryStore("memory://a"), Refusing(MemoryStore("memory://b"))
    async with FanOutStore([first, second], acks=acks) as fanout:
        await fanout.provision()
        second.error = InvalidRecord("mutations", "too many")
        outcomes = await fanout.write([Put(item("x")), Put(item("y"))], atomic=atomic)
        for outcome in outcomes:
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, PartialWrite)
            assert outcome.applied
            assert outcome.error.acked == ("memory://a",)
            assert outcome.error.failed == {"memory://b": second.error}
        assert {Key("sessions", "x"), Key("sessions", "y")} <= first.items.keys()


async def test_a_wrapper_checks_as_the_store_does_that_it_wraps() -> None:
    stores: list[Store] = [Picky(MemoryStore()), WrapperStore(Picky(MemoryStore()))]
    for store in stores:
        assert store.check([Put(item("x"))], atomic=True) == (None,)
        with pytest.raises(InvalidRecord, match="actions"):
            store.check([Put(item("x", data="x" * 100))], atomic=True)
        assert store.check([Put(item("x", data="x" * 100))], atomic=False) == (None,)


@pytest.mark.parametrize("missed", [False, True])
async def test_of_several_transactions_that_delete_one_record_one_is_carried_out(missed: bool) -> None:
    stores = MemoryStore("memory://a"), MemoryStore("memory://b")
    async with connect(*stores) as db:
        await db.provision()
        await db.memories.upsert(UserMemory(memory_id="coupon", memory="10 %"))
        if missed:
            del stores[0].items[Key("memories", "coupon")]

        async def redeem(number: int) -> None:
            async with db.transaction() as tx:
                tx.delete(UserMemory, "coupon")
                tx.create(UserMemory(memory_id=f"credit{number}", memory="10"))

        results = await asyncio.gather(*(redeem(number) for number in range(8)), return_exceptions=True)
        assert [type(each) for each in results if each is not None] == [RecordNotFound] * 7
        assert await db.memories.count() == 1
