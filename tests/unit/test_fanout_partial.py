"""PartialWrite: what it tells of each store, and what is not tried again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agno_clouddb import (
    ConfigurationError,
    Database,
    NotProvisioned,
    PartialWrite,
    StoreUnavailable,
    UserMemory,
    connect,
)
from agno_clouddb.stores.base import Failed, Mutation, Outcome, Put
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing.faults import Fault, script
from tests.unit.fanouts import World, elapsed, virtual

MEMORIES = [UserMemory(memory=f"{n}", memory_id=f"m{n}") for n in range(3)]


class Locked(WrapperStore):
    """A store whose credentials do not allow to write."""

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        return (Failed(ConfigurationError("access denied", store=self.name)),) * len(mutations)


async def bulk_error(db: Database, tables: MemoryStore) -> PartialWrite:
    """What a bulk write is answered at once, which only the first store has."""
    with elapsed(0, 0), pytest.raises(PartialWrite) as caught:
        await db.memories.upsert_many(MEMORIES)
    assert caught.value.acked == (tables.name,)
    assert len(tables.items) >= len(MEMORIES)
    return caught.value


@virtual
async def test_a_bulk_write_to_a_store_without_tables_is_not_tried_again() -> None:
    first, second = MemoryStore("memory://a"), MemoryStore("memory://b")
    async with connect(first, second) as db:
        await first.provision(replicated=True)
        error = await bulk_error(db, first)
        assert isinstance(error.failed["memory://b"], NotProvisioned)


@virtual
async def test_a_bulk_write_to_a_store_with_wrong_credentials_is_not_tried_again() -> None:
    first, second = MemoryStore("memory://a"), Locked(MemoryStore("memory://b"))
    async with connect(first, second, acks="all") as db:
        await db.provision()
        error = await bulk_error(db, first)
        assert isinstance(error.failed["memory://b"], ConfigurationError)


@virtual
async def test_a_bulk_write_whose_hints_have_no_table_is_not_tried_again() -> None:
    world = World()
    async with world.node(provision=False) as node:
        await world.memories[0].provision()
        await world.memories[1].provision()
        node.links[1].down()
        error = await bulk_error(node.db, world.memories[0])
        assert isinstance(error.failed["memory://b"], StoreUnavailable)
        assert isinstance(error.unhinted["memory://b"], NotProvisioned)


async def test_each_store_is_named_with_its_own_reason_and_a_lost_hint_is_told_beside_it() -> None:
    first, second = MemoryStore("memory://a"), MemoryStore("memory://b")
    async with connect(first, second) as db:
        await first.provision()
        with pytest.raises(PartialWrite) as caught:
            await db.memories.upsert(MEMORIES[0])
    error = caught.value
    assert (error.acked, list(error.failed), list(error.unhinted)) == (("memory://a",), ["memory://b"], ["memory://b"])
    assert (error.failed["memory://b"].store, error.failed["memory://b"].collection) == ("memory://b", "memories")
    assert (error.unhinted["memory://b"].store, error.unhinted["memory://b"].collection) == (
        "memory://a",
        "replication",
    )
    own, hint = str(error).split("; no hint could be kept for memory://b: ")
    assert "not to memory://b (memory://b: " in own
    assert "memory://a" not in own.split("memory://b: ")[1]
    assert "memory://a" in hint


@virtual
async def test_with_acks_1_and_a_store_down_the_outage_is_named_beside_the_hint_that_was_lost() -> None:
    world = World(3)
    async with world.node() as node:
        for place in (0, 1):
            node.links[place].plan = script(None, Fault("refused"), on=["write"])
        node.links[2].down()
        (outcome,) = await node.fanout.write([Put(node.item())])
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PartialWrite)
        assert "is down" in str(outcome.error.failed["memory://c"])
        assert "made to fail" in str(outcome.error.unhinted["memory://c"])


@virtual
async def test_where_a_hint_is_kept_nothing_is_told_of_it() -> None:
    world = World()
    async with world.node(acks="all") as node:
        node.links[1].down()
        (outcome,) = await node.fanout.write([Put(node.item())])
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PartialWrite)
        assert outcome.error.unhinted == {}
        assert "hint" not in str(outcome.error)
