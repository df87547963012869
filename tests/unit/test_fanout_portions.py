"""How much is held in memory while stores are made alike: a portion of the keys, by what is under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agno_clouddb import StoreUnavailable
from agno_clouddb.fanout.circuit import CircuitStore
from agno_clouddb.fanout.portions import Portions
from agno_clouddb.fanout.replicas import Replicas
from agno_clouddb.stores.base import Batch, Consistency, Key
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.wrapper import WrapperStore
from tests.unit.fanouts import EPOCH, KEY, Node, World, records, virtual

MIB = 1024 * 1024
LARGE = b"x" * (4 * MIB)
MOST = 16 * MIB


class Measured(WrapperStore):
    """Notes how many keys are read in each call, and how many bytes they have."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.keys: list[int] = []
        self.bytes: list[int] = []

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        batch = await super().get(keys, consistency=consistency, dead=dead)
        if keys[0].collection == KEY.collection:
            self.keys.append(len(keys))
            self.bytes.append(sum(item.size for item in batch.items if item is not None))
        return batch


def fill_with(world: World, node: Node, number: int, data: bytes, *places: int) -> None:
    """Items of a size that some stores hold."""
    for n in range(number):
        item = node.item(key=Key(KEY.collection, f"{len(data):08}-{n:03}"))
        for place in places:
            world.memories[place].items[item.key] = replace(item, data=data)


async def measured(world: World, node: Node, number: int, data: bytes) -> Measured:
    """What is read of the first store to look keys up that it alone has."""
    fill_with(world, node, number, data, 0)
    first = Measured(world.memories[0])
    circuits = {each.name: CircuitStore(each, deadline=10) for each in (first, world.memories[1])}
    portions = Portions(Replicas(circuits, lambda: EPOCH, grace=60))
    keys = sorted(records(world.memories[0]), key=lambda key: key.id)
    mended = await portions.mend(keys)
    assert [each.key for each in mended] == keys
    assert all(each.missing == ["memory://b"] and not each.failed for each in mended)
    assert records(world.memories[1]) == records(world.memories[0])
    return first


@virtual
async def test_small_items_are_looked_up_many_at_a_time() -> None:
    world = World()
    async with world.node() as node:
        first = await measured(world, node, 100, b"x")
        assert list(dict.fromkeys(first.keys)) == [5, 10, 20, 25, 15]


@virtual
async def test_large_items_are_looked_up_few_at_a_time() -> None:
    world = World()
    async with world.node() as node:
        first = await measured(world, node, 40, LARGE)
        assert first.keys[0] == 5
        assert max(first.bytes) <= 5 * len(LARGE)
        assert max(first.bytes[2:]) <= MOST


@virtual
async def test_what_cannot_be_read_is_tried_with_half_as_many() -> None:
    world = World()
    async with world.node() as node:
        fill_with(world, node, 30, b"x", 0, 1)
        sizes: list[int] = []

        class Silent(MemoryStore):
            async def get(
                self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False
            ) -> Batch:
                sizes.append(len(keys))
                raise StoreUnavailable("too much at once", store=self.name)

        stores = {each.name: CircuitStore(each, deadline=10) for each in (Silent("memory://c"), Silent("memory://d"))}
        portions = Portions(Replicas(stores, lambda: EPOCH, grace=60))
        for _ in range(4):
            with pytest.raises(StoreUnavailable):
                await portions.mend(list(records(world.memories[0])))
        assert sizes[::2] == [5, 2, 1, 1]


@pytest.mark.parametrize("by", ["replay", "comparison"])
@virtual
async def test_replays_and_comparisons_hold_no_more_than_a_portion_of_large_items(by: str) -> None:
    world = World()
    async with world.node() as node:
        if by == "replay":
            with node.down(1):
                for n in range(40):
                    await node.put(key=Key(KEY.collection, f"large-{n:03}"))
            for key, item in records(world.memories[0]).items():
                world.memories[0].items[key] = replace(item, data=LARGE)
        else:
            fill_with(world, node, 40, LARGE, 0)
        read: list[int] = []
        real = world.memories[0].get

        async def get(keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
            batch = await real(keys, consistency=consistency, dead=dead)
            read.append(sum(item.size for item in batch.items if item is not None and item.data == LARGE))
            return batch

        world.memories[0].get = get  # type: ignore[method-assign]
        await node.fanout.reconcile()
        assert len(records(world.memories[1])) == 40
        assert 0 < max(read) <= 5 * len(LARGE)
