"""Exclusive creations in a fan-out: the primary decides, and what is out of date on any store forbids nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agno_clouddb import ConflictError
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.fanout.tombstones import tombstone
from agno_clouddb.stores.base import Condition, Failed, Item, Key, Put, Refused, Stored
from agno_clouddb.stores.clock import HybridClock, epoch_seconds, wall_clock_millis
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import CountingStore, FaultyStore
from agno_clouddb.testing.faults import Fault, script

CLOCK = HybridClock()
KEY = Key("sessions", "s1")


def live(user: str = "ann") -> Item:
    return Item(KEY, CLOCK.stamp(), {"user_id": user, "created_at": "2026"})


def dead() -> Item:
    return tombstone(KEY, CLOCK.stamp(), epoch_seconds())


class Trio:
    """A primary, two more stores, and the fan-out over them."""

    def __init__(self) -> None:
        self.memories = [MemoryStore(f"memory://{name}") for name in "abc"]
        self.stores = [FaultyStore(each) for each in self.memories]
        self.fanout = FanOutStore(self.stores, clock=CLOCK)

    def begin(self, *items: Item | None) -> None:
        for memory, item in zip(self.memories, items, strict=True):
            memory.items = {KEY: item} if item is not None else {}

    def held(self) -> list[Item | None]:
        return [memory.items.get(KEY) for memory in self.memories]

    async def create(self, *, atomic: bool = False) -> tuple[Item, object]:
        item = live("bob")
        (outcome,) = await self.fanout.write([Put(item, Condition(absent=True, exclusive=True))], atomic=atomic)
        return item, outcome


@pytest.fixture
async def trio() -> AsyncIterator[Trio]:
    made = Trio()
    async with made.fanout:
        await made.fanout.provision()
        yield made


EITHER = pytest.mark.parametrize("atomic", [False, True])


@EITHER
async def test_a_record_whose_deletion_any_store_knows_of_can_be_created(trio: Trio, atomic: bool) -> None:
    old, gone = live(), dead()
    for beginning in (
        (gone, gone, gone),
        (old, gone, gone),
        (gone, old, gone),
        (old, old, gone),
        (gone, None, None),
        (None, gone, old),
        (old, None, gone),
    ):
        trio.begin(*beginning)
        created, outcome = await trio.create(atomic=atomic)
        assert outcome == Stored(created.version), beginning
        assert trio.held() == [created] * 3


@EITHER
async def test_a_record_that_lives_on_any_store_cannot_be_created(trio: Trio, atomic: bool) -> None:
    gone, new = dead(), live()
    for beginning in ((new, gone, None), (gone, new, gone), (None, None, new), (new, new, new)):
        trio.begin(*beginning)
        _, outcome = await trio.create(atomic=atomic)
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.owner) == ("exists", "ann")
        (read,) = (await trio.fanout.get([KEY])).items
        assert read is not None
        assert read.owner == "ann"


async def test_what_the_primary_holds_is_not_written_over_when_the_primary_cannot_be_read(trio: Trio) -> None:
    for others in ((None, None), (dead(), None)):
        mine = live()
        trio.begin(mine, *others)
        trio.stores[0].plan = script(Fault("refused"), on=["get"])
        _, outcome = await trio.create()
        assert isinstance(outcome, Refused)
        assert outcome.version == mine.version
        assert trio.held() == [mine, *others]


async def test_what_lives_on_a_store_that_was_not_read_is_put_back_on_the_others(trio: Trio) -> None:
    old, gone, new = live("cat"), dead(), live("ann")
    trio.begin(old, gone, new)
    trio.stores[2].plan = script(Fault("refused"), on=["get"])
    _, outcome = await trio.create()
    assert outcome == Refused("exists", new.version, new.fields)
    assert [each.owner for each in trio.held() if each is not None] == ["ann"] * 3


@EITHER
async def test_what_is_created_while_a_deletion_is_looked_up_stands(trio: Trio, atomic: bool) -> None:
    for primary in (dead(), live()):
        trio.begin(primary, dead(), None)
        theirs = live("eve")
        reads = 0

        def create_first(call: str, mutations: int, theirs: Item = theirs) -> None:
            # Called before the read of another store: the creation below has yet to write to the primary.
            nonlocal reads
            reads += call == "get"
            if reads == 1 and call == "get":
                trio.memories[0].items[KEY] = theirs

        trio.stores[2].plan = create_first
        _, outcome = await trio.create(atomic=atomic)
        assert reads
        assert outcome == Refused("exists", theirs.version, theirs.fields)
        assert trio.held()[0] == theirs


async def test_a_creation_that_others_keep_changing_the_record_of_ends_as_a_conflict(trio: Trio) -> None:
    trio.begin(live(), dead(), None)

    def interfere(call: str, mutations: int) -> None:
        # Just before each write to the primary: a newer copy there, and a newer deletion that it has missed.
        if call == "write":
            trio.memories[0].items[KEY] = live()
            trio.memories[1].items[KEY] = dead()

    trio.stores[0].plan = interfere
    ahead = HybridClock(now=lambda: wall_clock_millis() + 600_000)
    created = replace(live(), version=ahead.stamp())
    (outcome,) = await trio.fanout.write([Put(created, Condition(absent=True, exclusive=True))])
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ConflictError)
    assert created not in trio.held()


async def test_a_creation_over_nothing_costs_no_read_and_one_write_on_each_store() -> None:
    stores = [CountingStore(MemoryStore(f"memory://{name}")) for name in "ab"]
    async with FanOutStore(stores) as fanout:
        await fanout.provision()
        created = live()
        assert await fanout.write([Put(created, Condition(absent=True, exclusive=True))]) == (Stored(created.version),)
        assert [(store.calls["get"], store.calls["write"]) for store in stores] == [(0, 1), (0, 1)]
