"""Reconciliation finds what stores do not hold alike, mends it, and says what it has found."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agno_clouddb import RecordTooLarge
from agno_clouddb.fanout.reconcile import Compared, Reconciliation
from agno_clouddb.fanout.tombstones import tombstone
from agno_clouddb.stores.base import Item, Key
from agno_clouddb.stores.schema import COLLECTIONS
from tests.unit.fanouts import KEY, Node, World, fill, records, virtual


def keys() -> list[Key]:
    """A key of each collection."""
    return [Key(name, "x", "p" if each.parent is not None else None) for name, each in COLLECTIONS.items()]


def plain(node: Node, key: Key, data: str = "") -> Item:
    return Item(key, node.clock.stamp(), {}, data)


# What is found


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("place", [0, 1])
@virtual
async def test_what_differs_is_mended_in_every_collection(place: int, full: bool) -> None:
    world = World()
    async with world.node() as node:
        if not full:
            await node.fanout.reconcile()
        here, there = world.memories[place].items, world.memories[1 - place].items
        for key in keys():
            missing, stale = replace(key, id="missing"), replace(key, id="stale")
            deleted, same = replace(key, id="deleted"), replace(key, id="same")
            there[missing] = plain(node, missing)
            here[stale] = plain(node, stale, "old")
            there[stale] = plain(node, stale, "new")
            here[deleted] = plain(node, deleted, "old")
            there[deleted] = tombstone(deleted, node.clock.stamp(), int(world.wall()))
            here[same] = there[same] = plain(node, same)
        expected = dict(records(world.memories[1 - place]))
        report = await node.fanout.reconcile(full=full)
        assert [records(each) for each in world.memories] == [expected, expected]
        assert report.kind == ("full" if full else "incremental")
        assert report.done
        for name in COLLECTIONS:
            counts = report.collections[name]
            assert (counts.missing, counts.stale, counts.mended, counts.failed) == (1, 2, 3, 0), name
            assert counts.compared >= 4
        total = report.total
        number = len(COLLECTIONS)
        assert (total.missing, total.stale, total.mended) == (number, 2 * number, 3 * number)
        assert total.compared == sum(each.compared for each in report.collections.values())
        again = await node.fanout.reconcile(full=True)
        assert (again.total.missing, again.total.stale, again.total.mended) == (0, 0, 0)
        assert again.total.compared == 4 * len(COLLECTIONS)


@virtual
async def test_a_full_comparison_counts_each_record_once() -> None:
    world = World(3)
    async with world.node() as node:
        fill(node, world, 3, 0, 1, 2)
        fill(node, world, 1, 1, prefix="lone")
        counts = (await node.fanout.reconcile()).total
        assert counts == Compared(compared=4, missing=1, mended=1)


@pytest.mark.parametrize("number", [2, 3])
@virtual
async def test_a_dry_run_counts_what_differs_once_and_changes_nothing(number: int) -> None:
    world = World(number)
    async with world.node() as node:
        with node.down(1):
            await node.put("missed")
        old, new = node.item("old", key=Key("sessions", "s2")), node.item("new", key=Key("sessions", "s2"))
        for memory in world.memories:
            memory.items[old.key] = old
        world.memories[0].items[old.key] = new
        before = [dict(each.items) for each in world.memories]
        report = await node.fanout.reconcile(dry_run=True)
        assert [each.items for each in world.memories] == before
        assert (report.dry_run, report.done, report.replayed, report.kind) == (True, True, 0, "full")
        assert report.total == Compared(compared=2, missing=1, stale=1)
        assert (await node.fanout.health()).reconciled_at is None


@virtual
async def test_a_dry_run_that_is_incremental_changes_nothing() -> None:
    world = World()
    async with world.node() as node:
        await node.fanout.reconcile()
        world.memories[0].items[KEY] = node.item()
        before = [dict(each.items) for each in world.memories]
        report = await node.fanout.reconcile(dry_run=True)
        assert (report.kind, report.total.missing, report.total.mended) == ("incremental", 1, 0)
        assert [each.items for each in world.memories] == before


@virtual
async def test_what_a_store_does_not_take_is_counted_once_as_failed_and_found_again() -> None:
    world = World()
    async with world.node() as node:
        await node.fanout.reconcile()
        await asyncio.sleep(10)
        world.memories[0].items[KEY] = node.item()
        limits = world.memories[1].limits
        world.memories[1].limits = replace(limits, payload_bytes=-1)
        for full in (False, True):
            report = await node.fanout.reconcile(full=full)
            assert report.total == Compared(compared=1, missing=1, failed=1)
            assert isinstance(report.error, RecordTooLarge)
            assert (report.error.store, report.error.key) == ("memory://b", KEY)
        assert (await node.fanout.reconcile(dry_run=True)).error is None
        world.memories[1].limits = limits
        report = await node.fanout.reconcile(full=True)
        assert (report.total.mended, report.total.failed, report.error) == (1, 0, None)


@virtual
async def test_what_has_expired_is_counted_as_compared_and_not_copied() -> None:
    world = World()
    async with world.node() as node:
        for place in (0, 1):
            item = node.item(key=Key("sessions", f"s{place}"), expires_at=1)
            world.memories[place].items[item.key] = item
        before = [records(each) for each in world.memories]
        report = await node.fanout.reconcile()
        assert [records(each) for each in world.memories] == before
        assert report.total == Compared(compared=2)


# Full first, then what has changed


@virtual
async def test_the_first_is_full_and_later_ones_compare_what_was_written_since() -> None:
    world = World()
    async with world.node() as node:
        fill(node, world, 50, 0, 1)
        await asyncio.sleep(10_000)
        assert (await node.fanout.reconcile()).kind == "full"
        fill(node, world, 3, 0, 1, prefix="late")
        report = await node.fanout.reconcile()
        assert (report.kind, report.total.compared) == ("incremental", 3)
        assert (await node.fanout.reconcile(full=True)).total.compared == 53


@pytest.mark.parametrize(("age", "found"), [(899, 1), (902, 0)])
@virtual
async def test_an_incremental_one_goes_back_by_the_overlap_behind_the_last(age: int, found: int) -> None:
    world = World()
    async with world.node(overlap=900.0) as node:
        await asyncio.sleep(2000)
        await node.fanout.reconcile()
        # By a writer whose clock is slow, after the last comparison.
        version = f"{int((world.wall() - age) * 1000):012x}-0000-{'a' * 12}"
        world.memories[0].items[KEY] = replace(node.item(), version=version)
        assert (await node.fanout.reconcile()).total.missing == found


@virtual
async def test_stores_in_another_order_or_another_process_share_the_checkpoint_and_other_stores_do_not() -> None:
    world = World(3)
    for memory in world.memories:
        await memory.open()
        await memory.provision(replicated=True)
    pair = world.memories[:2]
    async with world.node(stores=pair) as node:
        await node.fanout.reconcile()
    async with world.node(stores=pair[::-1]) as node:
        assert (await node.fanout.reconcile()).kind == "incremental"
    async with world.node() as node:
        assert (await node.fanout.reconcile()).kind == "full"


@virtual
async def test_long_lists_by_version_are_compared_page_by_page() -> None:
    world = World()
    async with world.node() as node:
        await node.fanout.reconcile()
        fill(node, world, 700, 0, prefix="a")
        fill(node, world, 1200, 0, 1, prefix="b")
        fill(node, world, 800, 1, prefix="c")
        report = await node.fanout.reconcile()
        assert report.total == Compared(compared=2700, missing=1500, mended=1500)
        assert records(world.memories[0]) == records(world.memories[1])


def test_the_total_is_the_sum_over_all_collections() -> None:
    report = Reconciliation("full")
    assert report.total == Compared()
    report.of("sessions").compared = 2
    report.of("sessions").stale = 1
    report.collections["runs"] = Compared(5, 4, 3, 2, 1)
    assert report.total == Compared(7, 4, 4, 2, 1)
