"""A reconciliation can be stopped and goes on, keeps its pace, and runs in the background and while others write."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agno_clouddb import InvalidRecord, RecordTooLarge, StoreUnavailable, connect
from agno_clouddb.errors import ConfigurationError, NotProvisioned
from agno_clouddb.fanout.reconcile import Compared, Reconciliation
from agno_clouddb.stores.base import Item, Key, Stored
from agno_clouddb.stores.schema import COLLECTIONS
from agno_clouddb.testing.faults import Call, Fault
from tests.unit.fanouts import KEY, Node, World, elapsed, fill, records, virtual

# Stopped, and gone on


def break_after(node: Node, place: int, scans: int) -> None:
    """Let a store fail for good after some scans."""
    seen = 0

    def plan(call: Call, mutations: int) -> Fault | None:
        nonlocal seen
        seen += call == "scan"
        return Fault("refused") if call == "scan" and seen > scans else None

    node.links[place].plan = plan


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("call", ["get", "scan"])
@pytest.mark.parametrize("full", [True, False])
@virtual
async def test_a_store_that_fails_on_the_way_raises_and_the_checkpoint_stays(place: int, call: str, full: bool) -> None:
    world = World()
    async with world.node() as node:
        await node.fanout.reconcile()
        checkpoint = (await node.fanout.health()).reconciled_at
        await asyncio.sleep(10)
        fill(node, world, 20, 0)
        seen = 0

        def plan(asked: Call, mutations: int) -> Fault | None:
            nonlocal seen
            seen += asked == call
            return Fault("refused") if asked == call and seen == (3 if call == "get" else 2) else None

        node.links[place].plan = plan
        if call == "get":
            seen = 1
        with pytest.raises(StoreUnavailable, match=f"memory://{'ab'[place]}"):
            await node.fanout.reconcile(full=full)
        assert (await node.fanout.health()).reconciled_at == checkpoint
        node.links[place].plan = None
        await node.fanout.reconcile()
        assert records(world.memories[0]) == records(world.memories[1])


@pytest.mark.parametrize("same_process", [True, False])
@virtual
async def test_a_full_one_that_was_stopped_goes_on_where_it_was(same_process: bool) -> None:
    world = World()
    async with world.node() as node, world.node() as other:
        fill(node, world, 1000, 0)
        await asyncio.sleep(2000)  # so that what is looked at again when it goes on is none of these
        scans = -(-1000 // 100)
        break_after(node, 0, 6)
        with pytest.raises(StoreUnavailable):
            await node.fanout.reconcile()
        assert len(records(world.memories[1])) == 600
        assert (await node.fanout.health()).compared == 600
        assert (await node.fanout.health()).reconciled_at is None
        went_on = node if same_process else other
        went_on.links[0].plan = None
        await asyncio.sleep(100)
        went_on.clear()
        report = await went_on.fanout.reconcile()
        assert report.kind == "full"
        assert report.total == Compared(compared=1000, missing=1000, mended=1000)
        assert records(world.memories[0]) == records(world.memories[1])
        # Of the other collections a page each, and of all what has changed since it was begun.
        others = len(COLLECTIONS) - 1 + len(COLLECTIONS)
        assert went_on.counts[0].calls["scan"] == scans - 6 + others
        assert went_on.counts[1].calls["scan"] == scans + others
        health = await went_on.fanout.health()
        assert health.compared is None
        assert health.reconciled_at is not None
        # What was written since it was begun is compared next, not only what was since it went on.
        assert world.wall() - health.reconciled_at.timestamp() >= 100
        assert (await went_on.fanout.reconcile()).kind == "incremental"


@virtual
async def test_a_full_one_that_was_cancelled_goes_on_where_it_was() -> None:
    world = World()
    async with world.node() as node:
        fill(node, world, 1000, 0)
        await asyncio.sleep(2000)
        task = asyncio.ensure_future(node.fanout.reconcile(rate=100))
        await asyncio.sleep(10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done = len(records(world.memories[1]))
        assert 0 < done < 1000
        node.clear()
        assert (await node.fanout.reconcile()).total.missing == 1000
        assert node.counts[0].items["scan"] <= 1000 - done + 100


@virtual
async def test_a_full_one_that_was_stopped_begins_again_when_the_stores_are_named_in_another_order() -> None:
    world = World()
    async with world.node() as node:
        fill(node, world, 300, 0)
        fill(node, world, 300, 1, prefix="g")
        await asyncio.sleep(2000)
        break_after(node, 0, 2)
        with pytest.raises(StoreUnavailable):
            await node.fanout.reconcile()
    async with world.node(stores=world.memories[::-1]) as node:
        report = await node.fanout.reconcile()
        assert report.done
        assert records(world.memories[0]) == records(world.memories[1])
        assert report.total.compared == 600


@virtual
async def test_what_a_store_has_lost_of_that_which_a_stopped_one_had_passed_is_found_by_the_second() -> None:
    world = World()
    async with world.node() as node:
        fill(node, world, 300, 0, 1)
        await node.fanout.reconcile()
        world.later(3600)
        break_after(node, 0, 2)
        with pytest.raises(StoreUnavailable):
            await node.fanout.reconcile(full=True)
        node.links[0].plan = None
        assert (await node.db.health()).compared == 200
        for key in records(world.memories[1]):
            del world.memories[1].items[key]
        mended = [(await node.fanout.reconcile(full=True)).total.mended for _ in range(2)]
        assert mended == [100, 200]
        assert records(world.memories[0]) == records(world.memories[1])


@virtual
async def test_a_store_without_an_index_by_version_is_not_compared() -> None:
    world = World()
    for memory in world.memories:
        await memory.open()
    await world.memories[0].provision(replicated=True)
    await world.memories[1].provision()
    async with world.node(provision=False) as node:
        with pytest.raises(NotProvisioned, match="memory://b"):
            await node.fanout.reconcile()


# Pace and progress


@virtual
async def test_a_rate_is_kept_and_without_one_it_waits_for_nothing() -> None:
    world = World()
    async with world.node() as node:
        fill(node, world, 1000, 0, 1)
        with elapsed(0, 0):
            await node.fanout.reconcile(full=True)
        # Scanned on both stores and looked up on both: six items for each record.
        with elapsed(60, 61):
            await node.fanout.reconcile(full=True, rate=100)
        with elapsed(0, 60):
            await node.fanout.reconcile(rate=100)


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan")])
@virtual
async def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    async with World().node() as node:
        with pytest.raises(InvalidRecord, match="rate"):
            await node.db.reconcile(rate=rate)


@pytest.mark.parametrize("full", [True, False])
@virtual
async def test_progress_is_told_as_it_goes_and_at_the_end(full: bool) -> None:
    world = World()
    async with world.node() as node:
        await node.fanout.reconcile()
        fill(node, world, 1200, 0)
        told: list[tuple[int, bool]] = []

        def tell(report: Reconciliation) -> None:
            told.append((report.total.mended, report.done))

        await node.db.reconcile(full=full, progress=tell)
        assert told == sorted(told)
        assert told[0] == (0, False)
        assert told[-1] == (1200, True)
        assert [done for _, done in told].count(True) == 1
        assert len({mended for mended, _ in told}) > 2


@virtual
async def test_one_store_alone_has_nothing_to_be_compared_with() -> None:
    async with connect("memory://") as db:
        with pytest.raises(ConfigurationError, match="one store"):
            await db.reconcile()


# While others write


@virtual
async def test_what_is_written_while_it_runs_is_not_lost() -> None:
    world = World()
    async with world.node() as node, world.node() as writer:
        fill(node, world, 300, 0)
        fill(node, world, 300, 1, prefix="g")
        newest: dict[Key, Item] = {}
        await asyncio.sleep(1)

        async def write() -> None:
            for number in range(300):
                key = Key("sessions", f"{'fg'[number % 2]}{number}")
                if number % 5:
                    newest[key] = await writer.put("written meanwhile", key=key)
                else:
                    assert isinstance(await writer.delete(key), Stored)
                await asyncio.sleep(0.05)

        task = asyncio.ensure_future(write())
        await node.fanout.reconcile(rate=100)
        await task
        for key, item in newest.items():
            assert [memory.items[key] for memory in world.memories] == [item, item]
        await node.fanout.reconcile()
        assert records(world.memories[0]) == records(world.memories[1])
        for number in range(0, 300, 5):
            assert await node.read(Key("sessions", f"{'fg'[number % 2]}{number}")) is None


# In the background


@virtual
async def test_of_two_coordinators_that_reconcile_now_and_then_one_works() -> None:
    world = World()
    async with world.node(reconcile_every=60) as one, world.node(reconcile_every=60) as other:
        await one.fanout.reconcile()
        for each in (one, other):
            each.clear()
        await asyncio.sleep(10 * 60 + 30)
        scans = sorted(sum(count.calls["scan"] for count in each.counts) for each in (one, other))
        assert scans == [0, 11 * 2 * len(COLLECTIONS)]  # one at the beginning, and one a minute


@virtual
async def test_when_the_one_that_works_is_gone_the_other_takes_over() -> None:
    world = World()
    async with world.node(reconcile_every=60) as one, world.node(reconcile_every=60) as other:
        await asyncio.sleep(90)
        working, waiting = (one, other) if one.counts[0].calls["scan"] else (other, one)
        assert waiting.counts[0].calls["scan"] == 0
        await working.db.aclose()
        await asyncio.sleep(4 * 60)
        assert waiting.counts[0].calls["scan"] > 0


@virtual
async def test_reconciling_now_and_then_goes_on_after_an_outage() -> None:
    world = World()
    async with world.node(reconcile_every=60) as node:
        node.links[1].down()
        await asyncio.sleep(90)
        assert isinstance((await node.fanout.health()).background_error, StoreUnavailable)
        node.links[1].up()
        world.memories[0].items[KEY] = item = node.item()
        await asyncio.sleep(180)
        assert world.memories[1].items.get(KEY) == item


@virtual
async def test_reconciling_now_and_then_goes_on_once_the_stores_are_provisioned() -> None:
    world = World()
    async with world.node(provision=False, reconcile_every=60) as node:
        await asyncio.sleep(90)
        await node.db.provision()
        world.memories[0].items[KEY] = item = node.item()
        await asyncio.sleep(180)
        assert world.memories[1].items.get(KEY) == item


@virtual
async def test_one_that_takes_longer_than_a_lease_is_left_to_one_process() -> None:
    world = World()
    async with world.node(reconcile_every=30) as one, world.node(reconcile_every=30) as other:
        fill(one, world, 3000, 0, 1)
        for each in (one, other):
            each.clear()
            for link in each.links:
                link.plan = slow_scans
        await asyncio.sleep(200)
        scans = sorted(sum(count.calls["scan"] for count in each.counts) for each in (one, other))
        assert scans[0] == 0
        assert scans[1] >= 30


def slow_scans(call: Call, mutations: int) -> Fault:
    """A plan of a store that lists its items slowly."""
    return Fault(delay=4.0 if call == "scan" else 0.0)


@virtual
async def test_a_lease_that_somebody_else_holds_is_asked_for_once_a_minute() -> None:
    world = World()
    async with world.node(reconcile_every=3600) as before:
        await asyncio.sleep(10)
        assert before.counts[0].calls["scan"]
    async with world.node(reconcile_every=3600) as after:
        after.clear()
        await asyncio.sleep(2 * 3600 + 300)
        assert after.counts[0].calls["scan"]
        assert after.counts[0].calls["write"] < 100


@virtual
async def test_what_a_store_does_not_take_is_told_and_tried_again_when_the_next_one_is_due() -> None:
    world = World()
    async with world.node(reconcile_every=3600) as node:
        world.memories[0].items[KEY] = node.item()
        world.memories[1].limits = replace(world.memories[1].limits, payload_bytes=-1)
        node.clear()
        await asyncio.sleep(5000)
        assert node.counts[0].calls["scan"] == 2 * len(COLLECTIONS)
        error = (await node.fanout.health()).background_error
        assert isinstance(error, RecordTooLarge)
        assert (error.store, error.key) == ("memory://b", KEY)
