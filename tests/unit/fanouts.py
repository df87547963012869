"""Fan-outs over memory stores in virtual time, for tests of what happens in the background and after a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec
from unittest import mock

from agno_clouddb.database import Database
from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout.background import Background
from agno_clouddb.fanout.circuit import CircuitStore
from agno_clouddb.fanout.hints import Hint
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import Delete, Item, Key, Outcome, Put, Query, Stored
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.schema import REPLICATION
from agno_clouddb.testing import CountingStore, FaultyStore
from agno_clouddb.testing.faults import Fault
from tests.simulation.loop import VirtualLoop

__all__ = [
    "BY_CREATION",
    "KEY",
    "DriverError",
    "Node",
    "World",
    "asked",
    "between_rounds",
    "elapsed",
    "fill",
    "hanging",
    "hints",
    "ready",
    "records",
    "until",
    "virtual",
]

P = ParamSpec("P")

EPOCH = 1_760_000_000
KEY = Key("sessions", "s1")
BY_CREATION = Query("sessions", sort="created_at")


class DriverError(Exception):
    """What a driver raises by mistake, where a test wants it to."""


def virtual(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """A test that runs in virtual time, must leave no task behind, and meet no unexpected error in the background."""
    note = Background.note

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        loop = VirtualLoop()
        mistakes: list[Exception] = []

        def noted(background: Background, error: CloudDBError, *, unexpected: Exception | None = None) -> None:
            if unexpected is not None and not isinstance(unexpected, DriverError):
                mistakes.append(unexpected)
            note(background, error, unexpected=unexpected)

        asyncio.set_event_loop(loop)

        async def whole() -> None:
            await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left behind: {left}"

        try:
            with mock.patch.object(Background, "note", noted):
                loop.run_until_complete(whole())
            assert not loop.unhandled
            assert not mistakes
        finally:
            rest = asyncio.all_tasks(loop)
            for task in rest:
                task.cancel()
            if rest:
                loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()

    return run


class _Lasting(MemoryStore):
    """A store that outlives the coordinators that close it, as a cloud does."""

    async def aclose(self) -> None:
        pass


@dataclass
class Node:
    """One coordinator, as one process has it, and what lies between it and the stores.

    Args:
        db: the repositories over it.
        fanout: the coordinator.
        clock: stamps its writes.
        links: its way to each store, which can fail.
        counts: the calls that it makes of each store.
    """

    db: Database
    fanout: FanOutStore
    clock: HybridClock
    links: list[FaultyStore]
    counts: list[CountingStore]

    def clear(self) -> None:
        """Count calls from nothing."""
        for each in self.counts:
            each.clear()

    def calls(self) -> list[dict[str, int]]:
        """The calls made of each store since they were cleared."""
        return [dict(each.calls) for each in self.counts]

    @contextmanager
    def down(self, *places: int) -> Iterator[None]:
        """A block in which stores do not answer, and after which they do."""
        for place in places:
            self.links[place].down()
        yield
        for place in places:
            self.links[place].up()

    async def back(self, place: int) -> None:
        """A store answers again, and the coordinator knows."""
        self.links[place].up()
        await self.fanout.probe()

    async def lose(self, place: int) -> None:
        """A store is down, and the coordinator knows."""
        self.links[place].down()
        circuit = self.circuit(place)
        while circuit.state == "closed":
            (answer,) = await circuit.write([Delete(Key("sessions", "nothing"), self.clock.stamp())])
            assert not isinstance(answer, Stored)
            await asyncio.sleep(0.5)

    def circuit(self, place: int) -> CircuitStore:
        """The circuit of a store."""
        return list(self.fanout._replicas.stores.values())[place]

    async def put(
        self, data: str = "", *, key: Key = KEY, user: str | None = None, expires_at: int | None = None
    ) -> Item:
        """Put an item, which must succeed."""
        item = self.item(data, key=key, user=user, expires_at=expires_at)
        (outcome,) = await self.fanout.write([Put(item)])
        assert isinstance(outcome, Stored), outcome
        assert outcome.version == item.version
        return item

    def item(self, data: str = "", *, key: Key = KEY, user: str | None = None, expires_at: int | None = None) -> Item:
        """An item with a new stamp."""
        created = "2026-01-01T00:00:00.000000Z"
        fields = {"created_at": created, "updated_at": created} if key.collection == KEY.collection else {}
        if user is not None:
            fields["user_id"] = user
        return Item(key, self.clock.stamp(), fields, data, expires_at)

    async def delete(self, key: Key = KEY) -> Outcome:
        """Delete an item."""
        (outcome,) = await self.fanout.write([Delete(key, self.clock.stamp())])
        return outcome

    async def read(self, key: Key = KEY) -> str | None:
        """The payload of what is read under a key; None when nothing is."""
        (item,) = (await self.fanout.get([key])).items
        return None if item is None else str(item.data)

    async def listed(self) -> list[str]:
        """The ids of what is listed."""
        return [item.key.id for item in (await self.fanout.query(BY_CREATION, limit=100)).items]


class World:
    """Stores, and the time.

    Args:
        number: how many stores.
    """

    def __init__(self, number: int = 2) -> None:
        self.jumped = 0.0
        self.memories = [_Lasting(f"memory://{'abc'[n]}", now=lambda: int(self.wall())) for n in range(number)]

    def wall(self) -> float:
        """The wall clock, in seconds since the epoch."""
        return EPOCH + self.jumped + asyncio.get_running_loop().time()

    @asynccontextmanager
    async def node(
        self, *, provision: bool = True, skew: float = 0.0, stores: Sequence[MemoryStore] | None = None, **options: Any
    ) -> AsyncIterator[Node]:
        """A coordinator of these stores, with options of FanOutStore; its clock goes ahead by ``skew`` seconds."""
        clock = HybridClock(now=lambda: int((self.wall() + skew) * 1000))
        links = [FaultyStore(memory) for memory in (self.memories if stores is None else stores)]
        counts = [CountingStore(link) for link in links]
        fanout = FanOutStore(counts, clock=clock, now=lambda: self.wall() + skew, **options)
        async with Database(fanout, clock=clock) as db:
            if provision:
                await db.provision()
            yield Node(db, fanout, clock, links, counts)

    def later(self, seconds: float) -> None:
        """Put the wall clock on, and let the services remove what has expired by then."""
        self.jumped += seconds
        now = int(self.wall())
        for memory in self.memories:
            for key, item in list(memory.items.items()):
                if item.expires_at is not None and item.expires_at <= now:
                    del memory.items[key]


def hints(memory: MemoryStore) -> list[Hint]:
    """The hints that a store keeps, in the order of their versions."""
    kept = [item for key, item in memory.items.items() if key.collection == REPLICATION.name and key.id[:5] == "hint-"]
    return sorted(map(Hint.from_item, kept), key=lambda hint: hint.version)


def records(memory: MemoryStore) -> dict[Key, Item]:
    """What a store holds beside what coordinators keep for themselves."""
    return {key: item for key, item in memory.items.items() if key.collection != REPLICATION.name}


def hanging(call: str, mutations: int) -> Fault:
    """A plan of a store that does not answer for an hour."""
    return Fault(delay=3600)


async def until(true: Callable[[], bool]) -> None:
    """Wait until something holds, looking ten times a second."""
    while True:
        if true():
            return
        await asyncio.sleep(0.1)


@contextmanager
def elapsed(least: float, most: float) -> Iterator[None]:
    """A block that takes so many seconds of virtual time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    yield
    took = loop.time() - began
    assert least <= took <= most, f"{took} seconds"


def asked(node: Node) -> list[int]:
    """How many calls each store was asked since they were cleared."""
    return [sum(each.calls.values()) for each in node.counts]


async def between_rounds(node: Node) -> None:
    """Wait until the watch has just made its round, and count calls from then on."""
    node.clear()
    await until(lambda: asked(node) != [0, 0])
    while asked(node) != [0, 0]:
        node.clear()
        await asyncio.sleep(1)


async def ready(node: Node) -> None:
    """Compare the stores once, and let the coordinator see that they may be read alone."""
    await node.fanout.reconcile()
    await asyncio.sleep(10)
    await between_rounds(node)


def fill(node: Node, world: World, number: int, *places: int, prefix: str = "f") -> None:
    """Items that some stores hold."""
    for n in range(number):
        item = node.item(key=Key("sessions", f"{prefix}{n}"))
        for place in places:
            world.memories[place].items[item.key] = item
