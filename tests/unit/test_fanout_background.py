"""Work in the background goes on after an error that no store should raise, and says that there was one."""

from __future__ import annotations

import asyncio
import logging

import pytest

from agno_clouddb.errors import CloudDBError
from agno_clouddb.stores.base import Key
from agno_clouddb.testing.faults import Fault, Plan
from tests.unit.fanouts import KEY, DriverError, Node, World, hints, ready, records, virtual

OTHER = Key("sessions", "s2")


def broken(call: str, mutations: int) -> Fault:
    """A plan of a store whose driver has a mistake."""
    raise DriverError(f"cannot {call}")


def broken_after(calls: int) -> Plan:
    """A plan of a store whose driver shows its mistake after some calls."""
    left = iter(range(calls))

    def plan(call: str, mutations: int) -> Fault | None:
        return None if next(left, None) is not None else broken(call, mutations)

    return plan


async def noted(node: Node, name: str) -> None:
    """Check that health tells of the mistake, and in which work it was met."""
    error = (await node.fanout.health()).background_error
    assert type(error) is CloudDBError
    assert isinstance(error.__cause__, DriverError)
    assert error.message.startswith(f"{name} has met an error that no store should raise: DriverError: cannot ")


@virtual
async def test_probes_go_on_and_find_that_the_store_answers_again() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        await node.put("missed")
        node.links[1].up()
        node.links[1].plan = broken
        await asyncio.sleep(60)
        node.links[1].plan = None
        await noted(node, "probe memory://b")
        assert node.circuit(1).state == "open"
        await asyncio.sleep(120)
        assert node.circuit(1).state == "closed"
        assert records(world.memories[0]) == records(world.memories[1])
        assert hints(world.memories[0]) == []


@virtual
async def test_a_replay_goes_on() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            await node.put("missed")
        node.links[1].plan = broken
        await asyncio.sleep(60)
        node.links[1].plan = None
        await noted(node, "replay memory://b")
        await asyncio.sleep(60)
        assert records(world.memories[0]) == records(world.memories[1])
        assert hints(world.memories[0]) == []


@virtual
async def test_hints_are_confirmed_later() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        node.links[0].plan = broken_after(1)
        await node.put("missed")
        await asyncio.sleep(4)
        node.links[0].plan = None
        await noted(node, "confirm")
        assert [hint.certain for hint in hints(world.memories[0])] == [False]
        await asyncio.sleep(10)
        assert [hint.certain for hint in hints(world.memories[0])] == [True]


@virtual
async def test_repairs_go_on() -> None:
    world = World()
    async with world.node() as node:
        await node.put("x")
        await node.put("y", key=OTHER)
        del world.memories[1].items[KEY]
        await node.read()
        node.links[1].plan = broken
        await asyncio.sleep(1)
        node.links[1].plan = None
        await noted(node, "repair")
        del world.memories[1].items[OTHER]
        await node.read(OTHER)
        await node.read()
        await asyncio.sleep(10)
        assert records(world.memories[0]) == records(world.memories[1])


@virtual
async def test_the_watch_goes_on_and_meanwhile_no_store_is_read_alone() -> None:
    world = World()
    async with world.node(reads="primary") as node, world.node() as another:
        await node.put("old")
        await ready(node)
        node.links[1].plan = broken
        await asyncio.sleep(10)
        node.links[1].plan = None
        await noted(node, "watch")
        with another.down(0):
            await another.put("new")
            assert await node.read() == "new"
            await asyncio.sleep(10)
        await asyncio.sleep(120)
        assert records(world.memories[0])[KEY].data == "new"
        node.clear()
        assert await node.read() == "new"
        assert node.counts[1].calls == {}


@virtual
async def test_reconciling_now_and_then_goes_on() -> None:
    world = World()
    async with world.node(reconcile_every=600) as node:
        await node.put("x")
        node.links[1].plan = broken
        await asyncio.sleep(650)
        node.links[1].plan = None
        await noted(node, "reconcile")
        await asyncio.sleep(120)
        assert (await node.fanout.health()).reconciled_at is not None


@virtual
async def test_it_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "agno_clouddb.fanout.background")
    world = World()
    async with world.node() as node:
        with node.down(1):
            await node.put("missed")
        node.links[1].plan = broken
        await asyncio.sleep(60)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], DriverError)


@virtual
async def test_closing_ends_all_work_although_the_last_hints_cannot_be_confirmed() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        node.links[0].plan = broken_after(1)
        await node.put("missed")
        await node.db.aclose()
        assert len(asyncio.all_tasks()) == 1
