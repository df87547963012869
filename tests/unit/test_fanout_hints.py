"""A write that a store has missed leaves a hint in a store that has it, before the call returns."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agno_clouddb import InvalidRecord, PartialWrite, Run, Session, StoreUnavailable
from agno_clouddb.fanout.hints import Hint
from agno_clouddb.stores.base import Condition, Delete, Failed, Item, Key, Put, Refused, Stored
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing.faults import Call, Fault, script
from tests.unit.fanouts import KEY, Node, World, elapsed, hints, records, virtual

NAMES = ["memory://a", "memory://b", "memory://c"]


async def write(node: Node, *puts: Put | Delete, atomic: bool = False) -> tuple[object, ...]:
    return await node.fanout.write(puts, atomic=atomic)


@pytest.mark.parametrize("place", [0, 1])
@virtual
async def test_each_key_that_a_store_missed_has_one_hint_in_the_other_when_the_call_returns(place: int) -> None:
    world = World()
    async with world.node() as node:
        items = [node.item(key=Key("sessions", f"s{n}")) for n in range(3)]
        with node.down(place):
            outcomes = await write(node, *map(Put, items))
        assert all(isinstance(each, Stored) for each in outcomes)
        assert hints(world.memories[1 - place]) == [Hint(NAMES[place], each.key, each.version) for each in items]
        assert node.counts[1 - place].calls["write"] == 2
        assert hints(world.memories[place]) == []


@virtual
async def test_the_hint_of_a_later_write_of_the_same_key_replaces_the_earlier() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            await node.put("one")
            latest = await node.put("two")
        assert [(each.key, each.version) for each in hints(world.memories[0])] == [(KEY, latest.version)]


@virtual
async def test_children_and_their_parents_have_hints_of_their_own() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            await node.db.sessions.upsert(Session(session_id="s1", runs=[Run(run_id="s1")]))
        assert {each.key for each in hints(world.memories[0])} == {KEY, Key("runs", "s1", "s1")}


@virtual
async def test_the_hint_of_a_key_is_of_its_last_write_whatever_was_written() -> None:
    world = World()
    async with world.node() as node:
        await node.put("old")
        with node.down(1):
            for write_one in (
                node.delete,
                lambda: node.put("anew"),
                lambda: node.put("brief", expires_at=int(world.wall()) + 3600),
            ):
                await write_one()
                version = world.memories[0].items[KEY].version
                assert hints(world.memories[0]) == [Hint("memory://b", KEY, version)]


@virtual
async def test_a_healthy_fanout_keeps_no_hints_and_writes_once() -> None:
    world = World()
    async with world.node() as node:
        node.clear()
        await node.put()
        await node.put(expires_at=int(world.wall()) + 3600)
        await node.delete()
        assert node.calls() == [{"write": 3}, {"write": 3}]
        assert [hints(each) for each in world.memories] == [[], []]


@pytest.mark.parametrize("kind", ["request lost", "response lost"])
@virtual
async def test_a_write_whose_outcome_is_unknown_leaves_a_hint(kind: str) -> None:
    world = World()
    async with world.node() as node:
        node.links[1].plan = script(Fault(kind), on=["write"])  # type: ignore[arg-type]
        item = await node.put()
        assert hints(world.memories[0]) == [Hint("memory://b", KEY, item.version)]
        assert (KEY in world.memories[1].items) is (kind == "response lost")


@virtual
async def test_a_store_that_hangs_past_the_deadline_has_missed_the_write_too() -> None:
    world = World()
    async with world.node(deadline=2.0) as node:
        node.links[1].plan = script(Fault(delay=60), on=["write"])
        await node.put()
        assert [each.target for each in hints(world.memories[0])] == ["memory://b"]


@virtual
async def test_a_hint_that_cannot_be_kept_makes_the_write_partial() -> None:
    world = World()
    async with world.node() as node:
        node.links[0].plan = script(None, Fault("refused"), on=["write"])
        node.links[1].down()
        item = node.item()
        (outcome,) = await write(node, Put(item))
        assert isinstance(outcome, Failed)
        assert outcome.applied
        assert isinstance(outcome.error, PartialWrite)
        assert (outcome.error.acked, list(outcome.error.failed)) == (("memory://a",), ["memory://b"])
        assert outcome.error.key == KEY
        assert "is down" in str(outcome.error.failed["memory://b"])
        assert "made to fail" in str(outcome.error.unhinted["memory://b"])
        assert world.memories[0].items == {KEY: item}


@virtual
async def test_a_hint_is_kept_in_the_next_store_that_has_the_write_when_the_first_does_not_take_it() -> None:
    world = World(3)
    async with world.node() as node:
        node.links[0].plan = script(None, Fault("refused"), on=["write"])
        node.links[2].down()
        await node.put()
        assert [[each.target for each in hints(memory)] for memory in world.memories] == [[], ["memory://c"], []]


@virtual
async def test_of_two_stores_down_each_has_a_hint_in_the_third() -> None:
    world = World(3)
    async with world.node() as node:
        with node.down(0, 2):
            await node.put()
        assert sorted(each.target for each in hints(world.memories[1])) == ["memory://a", "memory://c"]


@virtual
async def test_asked_for_all_acknowledgements_the_write_is_partial_and_the_hint_is_kept() -> None:
    world = World()
    async with world.node(acks="all") as node:
        with node.down(1):
            item = node.item()
            (outcome,) = await write(node, Put(item))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PartialWrite)
        assert list(outcome.error.failed) == ["memory://b"]
        assert isinstance(outcome.error.failed["memory://b"], StoreUnavailable)
        assert hints(world.memories[0]) == [Hint("memory://b", KEY, item.version)]
        await node.back(1)
        await asyncio.sleep(10)
        assert records(world.memories[1]) == {KEY: item}


@pytest.mark.parametrize("place", [0, 1])
@virtual
async def test_with_a_store_left_alone_the_hint_of_a_put_goes_out_with_the_put(place: int) -> None:
    world = World()
    async with world.node() as node:
        await node.lose(place)
        writes: list[int] = []

        def noted(call: Call, mutations: int) -> Fault | None:
            writes.append(mutations)
            return Fault(delay=1)

        node.links[1 - place].plan = noted
        with elapsed(1, 1):
            item = await node.put()
        assert writes[0] == 2
        sent = Hint(NAMES[place], KEY, item.version, certain=False)
        assert hints(world.memories[1 - place]) == [sent]
        node.links[1 - place].plan = None
        await asyncio.sleep(10)
        assert hints(world.memories[1 - place]) == [replace(sent, certain=True)]
        await node.back(place)
        await asyncio.sleep(20)
        assert hints(world.memories[1 - place]) == []
        assert world.memories[place].items[KEY] == item


@virtual
async def test_the_hint_of_a_put_that_was_refused_is_never_certain_and_goes_with_the_replay() -> None:
    world = World()
    async with world.node() as node:
        held = await node.put("ann's", user="ann")
        await node.lose(1)
        (outcome,) = await write(node, Put(node.item("bob's", user="bob"), Condition(owner="bob")))
        assert isinstance(outcome, Refused)
        await asyncio.sleep(10)
        assert not any(each.certain for each in hints(world.memories[0]))
        await node.back(1)
        await asyncio.sleep(20)
        await node.fanout.reconcile()
        assert [hints(each) for each in world.memories] == [[], []]
        assert [records(each) for each in world.memories] == [{KEY: held}, {KEY: held}]


@virtual
async def test_with_a_store_left_alone_a_deletion_and_its_hint_are_stored_both_or_none() -> None:
    world = World()
    async with world.node() as node:
        await node.put()
        await node.lose(1)
        for call in (
            node.delete,
            lambda: node.put(key=Key("sessions", "s2"), expires_at=int(world.wall()) + 3600),
        ):
            node.clear()
            await call()
            assert dict(node.counts[0].calls) == {"write": 1}
        assert [each.certain for each in hints(world.memories[0])] == [True, True]


@virtual
async def test_a_deletion_of_nothing_is_kept_only_while_a_store_that_may_hold_it_is_down() -> None:
    world = World()
    async with world.node() as node:
        assert isinstance(await node.delete(), Refused)
        assert [each.items for each in world.memories] == [{}, {}]
        await node.lose(1)
        await node.delete()
        assert records(world.memories[0])[KEY].deleted
        assert [each.certain for each in hints(world.memories[0])] == [True]


@virtual
async def test_a_hint_sent_with_a_put_that_does_not_arrive_is_sent_again() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        node.links[0].plan = script(Fault("refused", positions=frozenset({1})), on=["write"])
        item = await node.put()
        assert [each.version for each in hints(world.memories[0])] == [item.version]
        node.links[0].plan = script(Fault("refused", positions=frozenset({1})), Fault("refused"), on=["write"])
        (outcome,) = await write(node, Put(node.item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PartialWrite)


@virtual
async def test_a_write_that_no_store_has_leaves_no_hint() -> None:
    world = World()
    async with world.node() as node:
        with node.down(0, 1):
            (outcome,) = await write(node, Put(node.item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, StoreUnavailable)
        assert [each.items for each in world.memories] == [{}, {}]


@pytest.mark.parametrize(
    "condition", [Condition(absent=True, exclusive=True), Condition(absent=True), Condition(owner="ann")]
)
@virtual
async def test_creations_and_writes_of_an_owner_leave_hints_as_well(condition: Condition) -> None:
    world = World()
    async with world.node() as node:
        for place in (0, 1):
            key = Key("sessions", f"s{place}")
            with node.down(place):
                (outcome,) = await write(node, Put(node.item(key=key, user="ann"), condition))
            assert isinstance(outcome, Stored)
            assert [(each.target, each.key) for each in hints(world.memories[1 - place])] == [(NAMES[place], key)]


@virtual
async def test_a_write_that_expects_a_version_and_an_atomic_one_leave_hints_as_well() -> None:
    world = World()
    async with world.node() as node:
        first, other = await node.put("one"), Key("sessions", "s2")
        with node.down(1):
            expecting = Put(node.item("two"), Condition(expected=first.version))
            assert isinstance((await write(node, expecting))[0], Stored)
            assert [each.version for each in hints(world.memories[0])] == [expecting.version]
            outcomes = await write(node, Put(node.item("three")), Put(node.item(key=other)), atomic=True)
            assert all(isinstance(each, Stored) for each in outcomes)
        assert [each.key for each in hints(world.memories[0])] == [KEY, other]


@virtual
async def test_a_cancelled_call_finishes_the_write_and_its_hint() -> None:
    world = World()
    async with world.node() as node:
        begun = asyncio.Event()

        def slow(call: Call, mutations: int) -> Fault | None:
            begun.set()
            return Fault("refused", delay=2)

        node.links[1].plan = slow
        item = node.item()
        call = asyncio.ensure_future(write(node, Put(item)))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert records(world.memories[0]) == {KEY: item}
        assert [each.version for each in hints(world.memories[0])] == [item.version]


@virtual
async def test_hints_name_a_store_whatever_its_name_and_the_ids_have_in_them() -> None:
    odd = 'memory:// "#|/é'
    stores = [MemoryStore("memory://a"), MemoryStore(odd)]
    async with World().node(stores=stores) as node:
        keys = [Key("runs", "r#1/é", "s|#"), Key("runs", "é", 'r#1/"'), Key("sessions", "x" * 512)]
        with node.down(1):
            await write(node, *(Put(Item(key, node.clock.stamp(), {})) for key in keys))
        kept = hints(stores[0])
        assert [each.key for each in kept] == keys
        assert {each.target for each in kept} == {odd}
        await asyncio.sleep(10)
        assert records(stores[0]) == records(stores[1])


@virtual
async def test_what_is_kept_for_a_store_that_was_removed_can_be_discarded() -> None:
    world = World(3)
    async with world.node() as node:
        with node.down(1, 2):
            for number in range(150):
                await node.put(key=Key("sessions", f"s{number}"))
        told: list[int] = []
        async with world.node(stores=world.memories[:2]) as left:
            assert len(hints(world.memories[0])) == 300
            for name in ("memory://a", "memory://b"):
                with pytest.raises(InvalidRecord, match="is a store of this database"):
                    await left.db.forget_store(name)
            assert await left.db.forget_store("memory://c", progress=told.append) == 150
            assert await left.db.forget_store("memory://c") == 0
        assert {each.target for each in hints(world.memories[0])} == {"memory://b"}
        assert len(hints(world.memories[0])) == 150
        assert told[-1] == 150
        assert told == sorted(told)
