"""What a Database tells of its stores."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from agno_clouddb import LifecycleError, StoreUnavailable, connect
from agno_clouddb.fanout.health import StoreHealth
from agno_clouddb.stores.base import Key
from agno_clouddb.testing.faults import Fault
from tests.unit.fanouts import World, elapsed, hanging, virtual


@virtual
async def test_stores_that_agree_and_were_compared_are_well() -> None:
    world = World()
    async with world.node() as node:
        await node.put()
        health = await node.db.health()
        assert [each.name for each in health.stores] == ["memory://a", "memory://b"]
        assert [(each.state, each.last_error, each.hints, each.replication_lag) for each in health.stores] == [
            ("closed", None, 0, 0.0)
        ] * 2
        assert (health.ok, health.reconciled_at, health.compared, health.background_error) == (False, None, None, None)
        began = world.wall()
        await node.db.reconcile()
        health = await node.db.health()
        assert health.ok
        assert health.reconciled_at == datetime.fromtimestamp(int(began), UTC)


@virtual
async def test_a_store_that_missed_writes_has_as_many_hints_and_lags_since_the_oldest() -> None:
    world = World()
    async with world.node() as node:
        await node.db.reconcile()
        node.links[1].down()
        for number in range(3):
            await node.put(key=Key("sessions", f"s{number}"))
            await asyncio.sleep(20)
        await node.back(1)
        primary, other = (await node.db.health()).stores
        assert (primary.hints, primary.replication_lag) == (0, 0.0)
        assert other.hints == 3
        assert other.replication_lag is not None
        assert 59 <= other.replication_lag <= 61
        assert isinstance(other.last_error, StoreUnavailable)
        assert not (await node.db.health()).ok
        await asyncio.sleep(200)
        health = await node.db.health()
        assert (health.stores[1].hints, health.stores[1].replication_lag, health.replayed) == (0, 0.0, 3)
        assert health.ok
        # What it failed with is told also when it answers again.
        assert isinstance(health.stores[1].last_error, StoreUnavailable)


@virtual
async def test_hints_that_another_process_left_are_counted_too() -> None:
    world = World(3)
    async with world.node() as node, world.node() as other:
        with other.down(1, 2):
            await other.put()
        with other.down(0, 1):
            await other.put(key=Key("sessions", "s2"))
        assert [each.hints for each in (await node.db.health()).stores] == [1, 2, 1]
        with other.down(1):
            await other.put(key=Key("sessions", "s3"))
        assert [each.hints for each in (await node.db.health()).stores] == [1, 4, 1]  # kept by both of the others


@virtual
async def test_a_store_that_is_left_alone_is_open_and_half_open_while_it_is_probed() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        health = await node.db.health()
        assert [each.state for each in health.stores] == ["closed", "open"]
        assert health.stores[0].hints is None  # nobody can tell
        assert not health.ok
        assert [each.answers for each in health.stores] == [True, False]
        node.links[1].up()
        node.links[1].plan = lambda call, mutations: Fault(delay=2)
        probing = asyncio.ensure_future(node.fanout.probe())
        await asyncio.sleep(1)
        assert (await node.db.health()).stores[1].state == "half-open"
        await probing
        assert (await node.db.health()).stores[1].state == "closed"


@virtual
async def test_health_never_raises_for_stores_that_do_not_answer() -> None:
    world = World()
    async with world.node() as node:
        node.links[0].down()
        node.links[1].down()
        health = await node.db.health()
        assert [(each.hints, each.answers) for each in health.stores] == [(None, False)] * 2
        assert all(isinstance(each.last_error, StoreUnavailable) for each in health.stores)
        assert not health.ok


@virtual
async def test_health_of_a_store_that_hangs_takes_a_few_deadlines_once() -> None:
    world = World()
    async with world.node(deadline=4.0) as node:
        node.links[1].plan = hanging
        with elapsed(4, 12):
            assert (await node.db.health()).stores[1].state == "open"
        with elapsed(0, 0):
            await node.db.health()


@virtual
async def test_health_of_stores_that_are_not_provisioned_does_not_raise() -> None:
    world = World()
    async with world.node(provision=False) as node:
        health = await node.db.health()
        assert [(each.hints, each.answers) for each in health.stores] == [(None, True)] * 2
        assert not health.ok


@virtual
async def test_a_store_that_went_down_since_the_last_call_is_not_taken_to_be_well() -> None:
    world = World()
    async with world.node() as node:
        await node.db.reconcile()
        assert (await node.db.health()).ok
        node.links[0].down()
        health = await node.db.health()
        assert [each.answers for each in health.stores] == [False, True]
        assert not health.ok


@virtual
async def test_latency_is_the_median_of_the_last_calls_that_the_store_carried_out() -> None:
    world = World()
    async with world.node() as node:
        node.links[1].plan = lambda call, mutations: Fault(delay=0.25)
        for _ in range(20):
            await node.read()
        first, second = (await node.db.health()).stores
        assert first.latency == 0.0
        assert second.latency == pytest.approx(0.25)


@virtual
async def test_reads_made_without_a_store_are_counted() -> None:
    world = World()
    async with world.node() as node:
        await node.read()
        with node.down(1):
            await node.read()
            await node.listed()
        assert (await node.db.health()).degraded_reads == 2


@virtual
async def test_a_full_comparison_under_way_tells_how_far_it_is() -> None:
    world = World()
    async with world.node() as node, world.node() as other:
        for number in range(300):
            await node.put(key=Key("sessions", f"s{number:03}"))
        task = asyncio.ensure_future(node.db.reconcile(rate=100))
        await asyncio.sleep(7)
        assert (await other.db.health()).compared == 300
        await task
        assert (await other.db.health()).compared is None


@virtual
async def test_one_store_alone_is_well_while_it_answers() -> None:
    async with connect("memory://") as db:
        await db.provision()
        health = await db.health()
        assert health.stores == (StoreHealth("memory://"),)
        assert health.ok


@virtual
async def test_health_of_a_fanout_that_is_not_open_is_the_callers_mistake() -> None:
    with pytest.raises(LifecycleError):
        await connect("memory://", "memory://").health()
