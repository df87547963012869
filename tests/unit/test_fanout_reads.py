"""Which stores a fan-out reads by which policy, and what says that one was missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from agno_clouddb import PartialWrite, Session, StoreUnavailable
from agno_clouddb.errors import IndexNotReady
from agno_clouddb.fanout.policy import ReadPolicy
from agno_clouddb.stores.base import Failed, Item, Key, Page, Put, Query
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing.faults import Fault, script
from tests.unit.fanouts import (
    BY_CREATION,
    KEY,
    Node,
    World,
    asked,
    between_rounds,
    elapsed,
    hanging,
    hints,
    ready,
    virtual,
)

OTHER = Key("sessions", "s2")
LATER = 5.0
"""Seconds in which work in the background is done."""


# Reads of one store


@virtual
async def test_the_primary_alone_is_read_when_it_has_missed_nothing() -> None:
    world = World()
    async with world.node(reads="primary") as node:
        await node.put("x")
        await ready(node)
        assert await node.read() == "x"
        assert await node.listed() == ["s1"]
        assert await node.fanout.count(BY_CREATION) == 1
        assert await node.fanout.tally(BY_CREATION, "user_id") == {}
        assert asked(node) == [4, 0]


@virtual
async def test_the_stores_are_read_alone_also_when_they_are_provisioned_after_opening() -> None:
    world = World()
    async with world.node(provision=False, reads="primary") as node:
        await asyncio.sleep(LATER)
        await node.db.provision()
        await ready(node)
        await node.read()
        assert asked(node) == [1, 0]


@virtual
async def test_the_fastest_store_is_read_and_the_other_only_when_that_takes_long() -> None:
    world = World()
    async with world.node(reads="fastest") as node:
        await node.put("x")
        await node.fanout.reconcile()
        node.links[0].plan = lambda call, mutations: Fault(delay=0.2)
        node.links[1].plan = lambda call, mutations: Fault(delay=0.02)
        await asyncio.sleep(1000)
        await between_rounds(node)
        node.links[1].plan = lambda call, mutations: Fault(delay=0.01)
        for _ in range(3):
            with elapsed(0.009, 0.011):
                assert await node.read() == "x"
        assert asked(node) == [0, 3]
        node.links[1].plan = lambda call, mutations: Fault(delay=5)
        with elapsed(0.2, 0.5):
            assert await node.read() == "x"
        assert asked(node) == [1, 4]


@virtual
async def test_a_store_that_was_fast_once_is_asked_second_before_long() -> None:
    world = World()
    async with world.node(reads="fastest") as node:
        await node.put("x")
        await ready(node)
        node.links[0].plan = lambda call, mutations: Fault(delay=1)
        draw = random.Random(1)
        node.links[1].plan = lambda call, mutations: Fault(delay=draw.uniform(0.02, 0.03))
        node.circuit(0).latencies.extend([0.01] * 128)
        node.circuit(1).latencies.extend([0.02, 0.03] * 64)
        both = 0
        for _ in range(500):
            before = asked(node)
            assert await node.read() == "x"
            both += all(now > then for now, then in zip(asked(node), before, strict=True))
        # 65 of 128 until the slower median is known, and of the others one in twenty.
        assert both <= 65 + 0.1 * 435


@virtual
async def test_a_store_that_was_asked_too_late_to_be_first_does_not_count_as_fast() -> None:
    world = World()
    async with world.node(reads="fastest") as node:
        await node.put("x")
        await ready(node)
        node.circuit(0).latencies.extend([0.2] * 128)
        node.circuit(1).latencies.extend([0.25] * 128)
        node.links[0].plan = lambda call, mutations: Fault(delay=0.21)
        node.links[1].plan = lambda call, mutations: Fault(delay=0.25)
        before = asked(node)[1]
        assert await node.read() == "x"
        assert asked(node)[1] == before + 1
        assert set(node.circuit(1).latencies) == {0.25}


@virtual
async def test_a_read_that_its_caller_cancels_says_nothing_of_the_stores() -> None:
    world = World()
    async with world.node(reads="fastest") as node:
        await node.put("x")
        await ready(node)
        for place in (0, 1):
            node.circuit(place).latencies.extend([0.01] * 128)
            node.links[place].plan = hanging
        reading = asyncio.ensure_future(node.read())
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.wait([reading])
        assert [set(node.circuit(place).latencies) for place in (0, 1)] == [{0.01}, {0.01}]


@pytest.mark.parametrize("reads", ["primary", "fastest"])
@virtual
async def test_a_store_that_fails_is_read_around_and_the_read_is_degraded(reads: ReadPolicy) -> None:
    world = World()
    async with world.node(reads=reads) as node:
        await node.put("x")
        await ready(node)
        node.links[0].down()
        batch = await node.fanout.get([KEY])
        assert [item.data for item in batch.items if item is not None] == ["x"]
        page = await node.fanout.query(BY_CREATION, limit=5)
        assert len(page.items) == 1
        assert await node.fanout.count(BY_CREATION) == 1
        # The fastest policy reads a store that may be read alone; nothing is missing from that.
        assert (batch.degraded, page.degraded) == ((True, True) if reads == "primary" else (False, False))
        node.links[1].down()
        with pytest.raises(StoreUnavailable):
            await node.fanout.get([KEY])


@virtual
async def test_a_key_with_an_outstanding_hint_is_read_from_all_stores_and_others_are_not() -> None:
    world = World()
    async with world.node(reads="primary") as node:
        await node.put("old")
        await node.put("other", key=OTHER)
        await ready(node)
        with node.down(0):
            await node.put("new")
        node.clear()
        assert await node.read() == "new"
        assert asked(node) == [1, 1]
        node.clear()
        assert await node.read(OTHER) == "other"
        assert await node.read(Key("sessions", "s3")) is None
        assert asked(node) == [2, 0]
        node.clear()
        assert await node.listed() == ["s1", "s2"]
        assert asked(node) == [1, 1]
        await asyncio.sleep(0.8 * LATER)
        assert hints(world.memories[1]) == []
        node.clear()
        assert await node.read() == "new"
        assert asked(node) == [1, 0]


@virtual
async def test_a_store_is_not_read_alone_for_a_write_of_which_no_hint_could_be_kept() -> None:
    world = World()
    async with world.node(reads="primary") as node:
        await node.put("old")
        await ready(node)
        node.links[0].plan = script(Fault("refused"), on=["write"])
        node.links[1].plan = script(None, Fault("refused"), on=["write"])
        (outcome,) = await node.fanout.write([Put(node.item("new"))])
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PartialWrite)
        assert await node.read() == "new"


@virtual
async def test_the_fastest_store_is_not_read_for_what_it_has_missed() -> None:
    world = World()
    async with world.node(reads="fastest") as node:
        await node.put("old")
        await ready(node)
        with node.down(0):
            await node.put("new")
        node.clear()
        for _ in range(10):
            assert await node.read() == "new"
            assert await node.listed() == ["s1"]
        assert asked(node)[0] == 0


@virtual
async def test_what_another_process_has_written_without_the_primary_is_read_after_the_watch() -> None:
    world = World()
    async with world.node(reads="primary") as node, world.node() as other:
        await node.put("old")
        await ready(node)
        await other.lose(0)
        await other.put("new")
        await asyncio.sleep(LATER + 0.1)
        assert await node.read() == "new"


async def unknown_to_the_primary(world: World, node: Node) -> Item:
    """An item that a store holds which was there before the primary."""
    item = node.item("there before")
    world.memories[1].items[KEY] = item
    return item


@virtual
async def test_a_store_that_was_never_compared_is_not_read_alone() -> None:
    world = World()
    async with world.node(reads="primary") as node:
        await unknown_to_the_primary(world, node)
        for _ in range(30):
            await asyncio.sleep(0.7)
            assert await node.fanout.count(BY_CREATION) == 1
            node.clear()
            assert (await node.fanout.get([OTHER])).items == (None,)
            assert min(asked(node)) == 1


@virtual
async def test_a_store_that_was_never_compared_is_not_read_alone_after_a_write_either() -> None:
    world = World()
    async with world.node(reads="primary") as node:
        await unknown_to_the_primary(world, node)
        for number in range(30):
            await node.put(key=Key("sessions", f"w{number}"))
            await asyncio.sleep(0.7)
            node.clear()
            await node.fanout.get([OTHER])
            assert min(asked(node)) == 1


class Unlisted(MemoryStore):
    """A store whose index of hints has been dropped, once a test says so."""

    dropped = False

    async def query(self, query: Query, **options: Any) -> Page:
        if self.dropped and query.collection == "replication":
            raise IndexNotReady("still being built", index="i", store=self.name, collection=query.collection)
        return await super().query(query, **options)


@virtual
async def test_a_store_that_could_not_be_brought_what_it_missed_is_not_read_alone_for_that() -> None:
    world = World()
    unlisted = Unlisted("memory://unlisted")
    async with world.node(stores=[world.memories[0], unlisted], reads="primary") as node:
        await node.put("old")
        await ready(node)
        unlisted.dropped = True
        with node.down(0):
            await node.put("new")
        await asyncio.sleep(1.5)  # by now it was tried
        assert await node.read() == "new"


def unbuilt(node: Node, place: int) -> None:
    """Let a store have no index for lists of sessions."""
    inner = node.links[place].inner

    async def query(*_: object, **__: object) -> Page:
        raise IndexNotReady("still being built", index="i", store=inner.name, collection="sessions")

    node.counts[place].query = query  # type: ignore[method-assign]


@virtual
async def test_a_primary_whose_index_is_not_built_is_read_around() -> None:
    world = World()
    async with world.node(reads="primary") as node:
        await node.put("x")
        await ready(node)
        unbuilt(node, 0)
        page = await node.fanout.query(BY_CREATION, limit=5)
        assert [item.key for item in page.items] == [KEY]
        assert page.degraded


# What says that a read was degraded


@virtual
async def test_a_watch_tells_what_was_read_without_a_store_where_the_result_cannot() -> None:
    world = World()
    async with world.node() as node:
        await node.db.sessions.upsert(Session(session_id="s1"))
        calls: Sequence[tuple[str, object]] = (
            ("get", lambda: node.db.sessions.get("not there")),
            ("list", lambda: node.db.sessions.list()),
            ("count", lambda: node.db.sessions.count()),
            ("stats", lambda: node.db.memories.stats()),
        )
        for name, call in calls:
            with node.db.watch_reads() as reads:
                await call()  # type: ignore[operator]
            assert not reads.degraded, name
        with node.down(1):
            for name, call in calls:
                with node.db.watch_reads() as outer:
                    with node.db.watch_reads() as reads:
                        await call()  # type: ignore[operator]
                    assert reads.degraded, name
                assert outer.degraded
            session, page = await node.db.sessions.get("s1"), await node.db.sessions.list()
            assert session is not None
            assert (session.degraded, page.degraded) == (True, True)
        session, page = await node.db.sessions.get("s1"), await node.db.sessions.list()
        assert session is not None
        assert (session.degraded, page.degraded) == (False, False)


@virtual
async def test_a_watch_does_not_see_the_reads_of_other_tasks_but_those_of_its_own() -> None:
    world = World()
    async with world.node() as node:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def elsewhere() -> None:
            await begun.wait()
            await node.db.sessions.get("s1")
            ended.set()

        task = asyncio.ensure_future(elsewhere())
        with node.down(1):
            with node.db.watch_reads() as reads:
                begun.set()
                await ended.wait()
            assert not reads.degraded
            with node.db.watch_reads() as reads:
                await asyncio.gather(node.db.sessions.get("s1"))
            assert reads.degraded
        await task


@virtual
async def test_writes_made_at_once_without_a_store_do_not_count_as_degraded_reads() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            await node.fanout.write([Put(node.item())])
        assert node.fanout.degraded_reads == 0
