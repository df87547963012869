"""A fan-out that is closed leaves nothing running, and can be opened again; a store that has left is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from agno_clouddb import ConfigurationError, InvalidRecord, LifecycleError, NotProvisioned, connect
from agno_clouddb.stores.base import Key, Put, Stored
from agno_clouddb.stores.memory import MemoryStore
from tests.unit.fanouts import KEY, World, elapsed, hanging, hints, records, until, virtual


def background() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("agno_clouddb ")}


@virtual
async def test_closing_ends_every_kind_of_work_in_the_background() -> None:
    world = World()
    async with world.node(reads="fastest", reconcile_every=60) as node:
        old = await node.put("old")
        await node.put("new")
        await node.lose(1)
        await node.put("while it is down", key=Key("sessions", "s2"))
        await node.back(1)
        world.memories[0].items[KEY] = old
        await node.read()
        names = background()
    kinds = {name.removeprefix("agno_clouddb ") for name in names}
    assert {"watch", "reconcile", "repair", "probe memory://b", "replay memory://b"} <= kinds
    assert background() == set()


@virtual
async def test_closing_ends_work_of_which_a_store_does_not_answer() -> None:
    world = World()
    async with world.node(reads="primary") as node:
        with node.down(1):
            await node.put()
        node.links[1].plan = hanging
        await asyncio.sleep(3)
        assert background()
        with elapsed(0, 0.001):
            await node.db.aclose()
        assert background() == set()


@virtual
async def test_a_closed_fanout_starts_nothing_and_says_so() -> None:
    world = World()
    async with world.node() as node:
        await node.db.aclose()
        for call in (
            lambda: node.fanout.get([KEY]),
            lambda: node.fanout.write([Put(node.item())]),
            lambda: node.fanout.reconcile(),
            lambda: node.fanout.health(),
            lambda: node.fanout.probe(),
        ):
            with pytest.raises(LifecycleError):
                await call()
        assert background() == set()


@virtual
async def test_opened_again_it_works_and_brings_what_was_missed_before() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            item = await node.put()
        await node.db.aclose()
        await node.db.open()
        assert (await node.fanout.get([KEY])).items == (item,)
        await node.put(key=Key("sessions", "s2"))
        await asyncio.sleep(5)
        assert records(world.memories[1])[KEY] == item
        assert hints(world.memories[0]) == []


@pytest.mark.parametrize("moment", ["between probes", "in a probe"])
@virtual
async def test_opened_again_a_store_that_was_left_alone_is_probed(moment: str) -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        if moment == "in a probe":
            node.links[1].up()
            node.links[1].plan = hanging
            await until(lambda: node.circuit(1).state == "half-open")
        await node.db.aclose()
        await node.db.open()
        node.links[1].up()
        node.links[1].plan = None
        await asyncio.sleep(120)
        assert node.circuit(1).state == "closed"
        (outcome,) = await node.fanout.write([Put(node.item())])
        assert isinstance(outcome, Stored)
        assert KEY in world.memories[1].items


@virtual
async def test_forgetting_a_name_for_which_nothing_is_kept_names_those_for_which_hints_are() -> None:
    world = World(3)
    async with world.node() as node:
        with node.down(1, 2):
            await node.put()
    before = [dict(each.items) for each in world.memories]
    async with connect(world.memories[0]) as left:
        with pytest.raises(ConfigurationError, match=r"nothing is kept for typo.*for memory://b, memory://c\. Name"):
            await left.forget_store("typo")
        assert [each.items for each in world.memories] == before
        assert await left.forget_store("memory://c") == 1
        with pytest.raises(ConfigurationError, match=r"hints are kept for memory://b\. "):
            await left.forget_store("typo")
        assert await left.forget_store("memory://b") == 1
        with pytest.raises(ConfigurationError, match="no hints are kept for any store that has left"):
            await left.forget_store("typo")
        for name in ("memory://b", "memory://c"):
            assert await left.forget_store(name) == 0


@virtual
async def test_a_store_that_missed_nothing_is_forgotten_once_it_was_compared() -> None:
    world = World()
    async with world.node() as node:
        await node.fanout.reconcile()
    async with connect(world.memories[0]) as left:
        assert [await left.forget_store("memory://b") for _ in range(2)] == [0, 0]


async def test_a_store_that_was_never_one_of_several_has_nothing_to_forget_and_says_so() -> None:
    async with connect("memory://a") as db:
        await db.provision()
        with pytest.raises(ConfigurationError, match="was never one of several") as caught:
            await db.forget_store("memory://b")
        assert "provision" not in caught.value.remedy


async def test_forgetting_where_one_store_of_several_lacks_its_table_asks_to_provision() -> None:
    first = MemoryStore("memory://a")
    async with connect(first, MemoryStore("memory://b")) as db:
        await first.provision(replicated=True)
        with pytest.raises(NotProvisioned, match=r"memory://b.*provision\(\)"):
            await db.forget_store("memory://c")


async def test_a_progress_that_cannot_be_called_is_refused() -> None:
    async with connect("memory://a", "memory://b") as db:
        await db.provision()
        for call in (
            lambda: db.reconcile(progress=3),  # type: ignore[arg-type]
            lambda: db.forget_store("memory://c", progress=3),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidRecord, match="progress: is 3, not a function"):
                await call()
