"""What stores hold differently is read as the newest of it, and mended after the read."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import replace

import pytest

from agno_clouddb import RecordTooLarge
from agno_clouddb.fanout.tombstones import TOMBSTONE_SECONDS, tombstone
from agno_clouddb.stores.base import Key
from agno_clouddb.testing.faults import Call, Fault
from tests.unit.fanouts import (
    BY_CREATION,
    KEY,
    Node,
    World,
    records,
    virtual,
)

OTHER = Key("sessions", "s2")
LATER = 5.0
"""Seconds in which work in the background is done."""


# What a removal of long ago leaves


async def removed_long_ago(world: World, node: Node) -> None:
    """A deletion that the second store has missed, and whose tombstone is gone from the first."""
    await node.put("old")
    await node.lose(1)
    await node.delete()
    world.later(TOMBSTONE_SECONDS + 1)
    assert KEY not in world.memories[0].items
    assert KEY in world.memories[1].items
    await node.back(1)


@virtual
async def test_what_a_hint_alone_tells_to_be_deleted_is_neither_read_nor_listed_nor_counted() -> None:
    world = World()
    async with world.node() as node:
        await removed_long_ago(world, node)
        assert await node.read() is None
        assert await node.listed() == []
        assert await node.fanout.count(BY_CREATION) == 0
        assert await node.fanout.tally(BY_CREATION, "user_id") == {}
        assert await node.db.sessions.get("s1") is None
        assert (await node.fanout.query(BY_CREATION, limit=1)).degraded is False


@virtual
async def test_what_was_written_after_the_deletion_that_a_hint_tells_of_is_read() -> None:
    world = World()
    async with world.node() as node:
        await removed_long_ago(world, node)
        anew = node.item("anew")
        world.memories[1].items[KEY] = anew
        assert await node.read() == "anew"
        assert await node.listed() == ["s1"]


@virtual
async def test_an_expiring_write_that_one_store_missed_and_that_is_gone_hides_what_it_replaced() -> None:
    world = World()
    async with world.node() as node:
        await node.put("old")
        await node.lose(1)
        await node.put("for an hour", expires_at=int(world.wall()) + 3600)
        world.later(3601)
        await node.back(1)
        assert await node.read() is None
        assert await node.listed() == []


@virtual
async def test_a_read_whose_hints_cannot_be_looked_up_is_degraded() -> None:
    world = World()
    async with world.node() as node:
        await removed_long_ago(world, node)
        gets = 0

        def second_get(call: Call, mutations: int) -> Fault | None:
            nonlocal gets
            gets += call == "get"
            return Fault("refused") if call == "get" and gets % 2 == 0 else None

        node.links[0].plan = second_get
        assert (await node.fanout.get([KEY])).degraded


# Repair


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("lacks", ["missing", "stale"])
@pytest.mark.parametrize("found_by", ["get", "query"])
@virtual
async def test_a_missing_or_stale_copy_that_a_read_finds_is_mended_soon(place: int, lacks: str, found_by: str) -> None:
    world = World()
    async with world.node() as node:
        old, new = node.item("old"), node.item("new")
        world.memories[1 - place].items[KEY] = new
        if lacks == "stale":
            world.memories[place].items[KEY] = old
        if found_by == "get":
            assert await node.read() == "new"
        else:
            assert await node.listed() == ["s1"]
        assert world.memories[place].items.get(KEY) == (old if lacks == "stale" else None)
        await node.fanout.idle()
        assert world.memories[place].items[KEY] == new
        assert (await node.fanout.health()).repaired == 1


@virtual
async def test_a_tombstone_that_one_store_missed_is_mended_and_one_past_its_time_is_not_copied() -> None:
    world = World()
    async with world.node() as node:
        old = node.item("old")
        fresh = tombstone(KEY, node.clock.stamp(), int(world.wall()))
        stale = tombstone(OTHER, node.clock.stamp(), int(world.wall()) - TOMBSTONE_SECONDS)
        world.memories[0].items = {KEY: fresh, OTHER: stale}
        world.memories[1].items = {KEY: old}
        assert await node.read() is None
        assert await node.read(OTHER) is None
        await node.fanout.idle()
        assert world.memories[1].items == {KEY: fresh}


@virtual
async def test_what_has_expired_is_not_copied_but_removes_what_is_older() -> None:
    world = World()
    async with world.node() as node:
        expired, lone = node.item(expires_at=int(world.wall()) - 1), node.item(key=OTHER, expires_at=1)
        world.memories[0].items = {KEY: expired, OTHER: lone}
        world.memories[1].items = {KEY: replace(expired, version="0" * 12 + expired.version[12:], expires_at=None)}
        assert await node.read() is None
        assert await node.read(OTHER) is None
        await node.fanout.idle()
        assert [item.deleted for item in world.memories[1].items.values()] == [True]


@virtual
async def test_a_repair_does_not_undo_what_is_written_meanwhile() -> None:
    world = World()
    async with world.node() as node:
        world.memories[0].items[KEY] = node.item("found")
        await node.read()
        later = await node.put("later")
        await node.fanout.idle()
        assert [records(each)[KEY] for each in world.memories] == [later, later]


@virtual
async def test_a_key_that_is_being_written_here_is_not_mended() -> None:
    world = World()
    async with world.node() as node:
        node.links[1].plan = lambda call, mutations: Fault(delay=2) if call == "write" else None
        writing = asyncio.ensure_future(node.put("new"))
        await asyncio.sleep(0.5)
        assert await node.read() == "new"  # the first store has it, the second does not yet
        await node.fanout.idle()
        assert node.counts[1].calls["write"] == 1
        await writing
        assert (await node.fanout.health()).repaired == 0


@virtual
async def test_what_a_caller_has_set_for_its_own_course_does_not_hold_for_the_mending_of_what_it_reads() -> None:
    traced: ContextVar[str] = ContextVar("traced", default="nobody")
    seen: dict[str, set[str]] = {}
    world = World()
    async with world.node() as node:
        world.memories[0].items[KEY] = node.item("x")

        def note(call: str, mutations: int) -> None:
            seen.setdefault(call, set()).add(traced.get())

        node.links[1].plan = note
        traced.set("ann")
        await node.read()
        await node.fanout.idle()
        assert KEY in world.memories[1].items
    assert "ann" in seen["get"]
    assert seen["write"] == {"nobody"}


@virtual
async def test_an_eventual_read_mends_nothing() -> None:
    world = World()
    async with world.node() as node:
        world.memories[0].items[KEY] = node.item("x")
        await node.fanout.get([KEY], consistency="eventual")
        await node.fanout.query(BY_CREATION, limit=5, consistency="eventual")
        await node.fanout.idle()
        assert records(world.memories[1]) == {}


@virtual
async def test_what_a_store_does_not_take_in_a_repair_is_found_again_by_the_next_read() -> None:
    world = World()
    async with world.node() as node:
        new = world.memories[0].items[KEY] = node.item("new")
        node.links[1].plan = lambda call, mutations: Fault("refused") if call == "write" else None
        await node.read()
        await node.fanout.idle()
        assert (await node.fanout.health()).repaired == 0
        node.links[1].plan = None
        await node.read()
        await node.fanout.idle()
        assert world.memories[1].items[KEY] == new


@virtual
async def test_health_tells_why_a_repair_has_failed_that_no_outage_keeps_from_it() -> None:
    world = World()
    async with world.node() as node:
        world.memories[0].items[KEY] = node.item("new")
        world.memories[1].limits = replace(world.memories[1].limits, payload_bytes=-1)
        await node.read()
        await node.fanout.idle()
        error = (await node.fanout.health()).background_error
        assert isinstance(error, RecordTooLarge)
        assert (error.store, error.key) == ("memory://b", KEY)


@virtual
async def test_a_read_of_stores_that_hold_the_same_begins_no_work() -> None:
    world = World()
    async with world.node() as node:
        await node.put("x")
        await node.delete(OTHER)
        node.clear()
        await node.read()
        await node.read(OTHER)
        await node.listed()
        before = node.calls()
        await asyncio.sleep(LATER)
        assert node.calls() == before


@virtual
async def test_an_expired_item_that_one_service_has_removed_is_not_looked_at_again_by_every_read() -> None:
    world = World()
    async with world.node() as node:
        world.memories[0].items[KEY] = node.item(expires_at=int(world.wall()) - 1)
        node.clear()
        assert await node.read() is None
        await asyncio.sleep(LATER)
        assert node.calls() == [{"get": 1}, {"get": 1}]
