"""A store that was down is brought what hints say that it has missed, and nothing that is out of date."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agno_clouddb import RecordTooLarge, StoreUnavailable
from agno_clouddb.fanout import replay
from agno_clouddb.fanout.hints import Hint
from agno_clouddb.fanout.lag import Lag
from agno_clouddb.fanout.tombstones import TOMBSTONE_SECONDS
from agno_clouddb.stores.base import Condition, Item, Key, Put, Refused
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing.faults import Call, Fault
from tests.unit.fanouts import KEY, Node, World, hints, records, virtual

OTHER = Key("sessions", "s2")


async def caught_up(node: Node, how: str) -> None:
    """Replay the hints, in the background or by a reconciliation."""
    if how == "background":
        await asyncio.sleep(20)
    else:
        await node.fanout.reconcile()


both_ways = pytest.mark.parametrize("how", ["background", "reconcile"])


def lives(memory: MemoryStore) -> bool:
    """Whether a store holds the record, and not only a tombstone."""
    item = memory.items.get(KEY)
    return item is not None and not item.deleted


@both_ways
@pytest.mark.parametrize("place", [0, 1])
@virtual
async def test_what_a_store_missed_is_brought_to_it_and_its_hints_are_removed(how: str, place: int) -> None:
    world = World()
    async with world.node() as node:
        await node.put("old", key=OTHER)
        with node.down(place):
            put = await node.put("new")
            await node.put("child", key=Key("runs", "r1", "s1"))
            await node.delete(OTHER)
            await node.put("brief", key=Key("sessions", "s3"), expires_at=int(world.wall()) + 3600)
        assert len(hints(world.memories[1 - place])) == 4
        await node.back(place)
        await caught_up(node, how)
        assert records(world.memories[0]) == records(world.memories[1])
        assert records(world.memories[place])[KEY] == put
        assert records(world.memories[place])[OTHER].deleted
        assert [hints(each) for each in world.memories] == [[], []]
        assert (await node.fanout.health()).replayed == 4


@virtual
async def test_after_an_outage_that_opened_the_circuit_all_is_brought_in_the_background() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        for number in range(250):
            await node.put(key=Key("sessions", f"s{number}"))
        await asyncio.sleep(600)
        node.links[1].up()
        await asyncio.sleep(200)
        assert records(world.memories[0]) == records(world.memories[1])
        assert hints(world.memories[0]) == []


@virtual
async def test_hints_that_another_process_left_are_replayed_by_reconcile_alone() -> None:
    world = World()
    async with world.node() as left, world.node() as node:
        await left.lose(1)
        item = await left.put()
        await asyncio.sleep(60)
        assert not lives(world.memories[1])
        report = await node.fanout.reconcile()
        assert report.replayed == 1
        assert world.memories[1].items[KEY] == item


@both_ways
@virtual
async def test_a_later_write_in_between_is_not_lost(how: str) -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            await node.put("missed")
        later = node.item("later")

        def just_before(call: Call, mutations: int) -> None:
            """Somebody who reaches this store alone writes when the replay is about to."""
            if call == "write" and world.memories[1].items.get(KEY) != later:
                world.memories[1].items[KEY] = later

        node.links[1].plan = just_before
        await caught_up(node, how)
        assert world.memories[1].items[KEY] == later
        assert await node.read() == "later"


@virtual
async def test_a_hint_replaced_during_the_replay_stays_until_the_later_write_is_there_too() -> None:
    world = World()
    async with world.node() as node, world.node() as other:
        with node.down(1):
            await node.put("one")
        other.links[1].down()
        written: list[Item] = []

        async def meanwhile() -> None:
            written.append(await other.put("two"))

        tasks: list[asyncio.Task[None]] = []

        def plan(call: Call, mutations: int) -> Fault | None:
            if call == "write" and not tasks:
                tasks.append(asyncio.ensure_future(meanwhile()))
                return Fault(delay=1)
            return None

        node.links[1].plan = plan
        await asyncio.sleep(4)
        await tasks[0]
        two = written[0]
        assert [each.version for each in hints(world.memories[0])] == [two.version]
        other.links[1].up()
        await asyncio.sleep(60)
        assert world.memories[1].items[KEY] == two
        assert hints(world.memories[0]) == []


@virtual
async def test_hints_stay_while_the_store_does_not_take_what_it_missed() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            item = await node.put()
        node.links[1].plan = lambda call, mutations: Fault("refused") if call == "write" else None
        await asyncio.sleep(30)
        assert [each.version for each in hints(world.memories[0])] == [item.version]
        node.links[1].plan = None
        await asyncio.sleep(120)
        assert hints(world.memories[0]) == []
        assert world.memories[1].items[KEY] == item


@virtual
async def test_health_tells_why_a_store_does_not_take_what_it_missed() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            await node.put()
        world.memories[1].limits = replace(world.memories[1].limits, payload_bytes=-1)
        await asyncio.sleep(30)
        health = await node.fanout.health()
        assert health.stores[1].hints == 1
        assert isinstance(health.background_error, RecordTooLarge)
        assert (health.background_error.store, health.background_error.key) == ("memory://b", KEY)


@virtual
async def test_a_hint_that_cannot_be_removed_is_replayed_once_more_and_does_no_harm() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            item = await node.put()
        node.links[0].plan = lambda call, mutations: Fault("refused") if call == "write" else None
        await asyncio.sleep(5)
        assert world.memories[1].items[KEY] == item
        assert len(hints(world.memories[0])) == 1
        node.links[0].plan = None
        await node.fanout.reconcile()
        assert hints(world.memories[0]) == []
        assert world.memories[1].items[KEY] == item


@virtual
async def test_reconcile_raises_when_the_store_that_keeps_hints_does_not_answer() -> None:
    world = World()
    async with world.node() as node:
        with node.down(1):
            await node.put()
        node.links[0].down()
        with pytest.raises(StoreUnavailable, match="memory://a"):
            await node.fanout.reconcile()
        assert len(hints(world.memories[0])) == 1


@virtual
async def test_a_hint_that_is_confirmed_after_its_replay_does_not_stay() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        writes = 0

        def slow_second(call: Call, mutations: int) -> Fault | None:
            nonlocal writes
            writes += call == "write"
            return Fault(delay=5) if call == "write" and writes == 2 else None

        node.links[0].plan = slow_second
        item = await node.put()
        await node.back(1)
        await asyncio.sleep(4)
        assert world.memories[1].items[KEY] == item
        await asyncio.sleep(120)
        assert hints(world.memories[0]) == []


# Longer than a tombstone is kept


async def long_outage(world: World, node: Node, removal: str) -> Item:
    """A removal that the second store has missed, and of which the hint is all that is left. Returns its old copy."""
    old = await node.put("old")
    await node.lose(1)
    if removal == "deleted":
        await node.delete()
    else:
        await node.put("brief", expires_at=int(world.wall()) + 3600)
    world.later(TOMBSTONE_SECONDS + 1)
    assert not lives(world.memories[0])
    assert world.memories[1].items[KEY] == old
    return old


removals = pytest.mark.parametrize("removal", ["deleted", "expired"])


@both_ways
@removals
@virtual
async def test_what_was_removed_during_a_long_outage_is_removed_from_the_store_that_missed_it(
    how: str, removal: str
) -> None:
    world = World()
    async with world.node() as node:
        await long_outage(world, node, removal)
        await node.back(1)
        await caught_up(node, how)
        assert not lives(world.memories[1])
        assert hints(world.memories[0]) == []
        assert await node.read() is None
        await node.fanout.reconcile(full=True)
        assert not any(map(lives, world.memories))


@both_ways
@removals
@virtual
async def test_what_was_written_after_the_removal_on_the_store_that_missed_it_stays(how: str, removal: str) -> None:
    world = World()
    async with world.node() as node:
        old = await long_outage(world, node, removal)
        newer = replace(old, version=node.clock.stamp(), data="newer")
        world.memories[1].items[KEY] = newer
        await node.back(1)
        await caught_up(node, how)
        assert [records(each).get(KEY) for each in world.memories] == [newer, newer]
        assert hints(world.memories[0]) == []


@both_ways
@removals
@virtual
async def test_what_was_written_again_after_the_removal_is_brought(how: str, removal: str) -> None:
    world = World()
    async with world.node() as node:
        await long_outage(world, node, removal)
        anew = await node.put("anew")
        await node.back(1)
        await caught_up(node, how)
        assert world.memories[1].items[KEY] == anew
        assert hints(world.memories[0]) == []


@removals
@virtual
async def test_with_three_stores_the_hint_for_the_one_that_stays_down_is_kept(removal: str) -> None:
    world = World(3)
    async with world.node() as node:
        old = await node.put("old")
        await node.lose(1)
        await node.lose(2)
        if removal == "deleted":
            await node.delete()
        else:
            await node.put("brief", expires_at=int(world.wall()) + 3600)
        world.later(TOMBSTONE_SECONDS + 1)
        await node.back(1)
        await asyncio.sleep(120)
        assert not lives(world.memories[1])
        assert [each.target for each in hints(world.memories[0])] == ["memory://c"]
        assert world.memories[2].items[KEY] == old
        assert await node.read() is None
        await node.back(2)
        await asyncio.sleep(240)
        assert not any(map(lives, world.memories))
        assert hints(world.memories[0]) == []


@virtual
async def test_while_one_of_three_is_down_a_hint_of_which_nothing_is_left_is_kept() -> None:
    world = World(3)
    async with world.node() as node:
        await node.lose(1)
        await node.put("brief", expires_at=int(world.wall()) + 3600)
        (hint,) = hints(world.memories[0])
        await node.lose(2)
        world.later(3601)
        await node.back(1)
        await asyncio.sleep(120)
        # The third has it still, or something newer: nobody can tell.
        assert hints(world.memories[0]) == [hint]
        await node.back(2)
        await asyncio.sleep(240)
        assert hints(world.memories[0]) == []


@virtual
async def test_a_removal_is_not_undone_by_a_read_or_a_write_of_something_else_before_the_replay() -> None:
    world = World()
    async with world.node() as node:
        await long_outage(world, node, "deleted")
        await node.back(1)
        assert await node.read() is None
        assert await node.listed() == []
        await asyncio.sleep(0.9)
        assert not lives(world.memories[0])
        await asyncio.sleep(20)
        assert not any(map(lives, world.memories))


@virtual
async def test_a_hint_that_reaches_its_store_after_all_others_were_replayed_is_replayed_as_well() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        await node.put("one")
        await node.back(1)
        await asyncio.sleep(5)
        assert hints(world.memories[0]) == []
        late = node.item(key=OTHER)
        hint = Hint.of("memory://b", Put(late))
        await world.memories[0].write([Put(late), Put(hint.to_item())])
        await asyncio.sleep(100)
        assert records(world.memories[1])[OTHER] == late
        assert hints(world.memories[0]) == []


@virtual
async def test_more_hints_of_refused_puts_than_are_remembered_go_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "_MAX_UNPROVEN", 2)
    world, keys = World(), [Key("sessions", f"s{number}") for number in range(5)]
    async with world.node() as node:
        for key in keys:
            await node.put("ann's", key=key, user="ann")
        await node.lose(1)
        for key in keys:
            put = Put(node.item("bob's", key=key, user="bob"), Condition(owner="bob"))
            (outcome,) = await node.fanout.write([put])
            assert isinstance(outcome, Refused)
        assert len(hints(world.memories[0])) == 5
        await node.back(1)
        await asyncio.sleep(1800)
        assert hints(world.memories[0]) == []


@virtual
async def test_hints_of_a_coordinator_that_has_died_are_replayed_once_health_was_asked_for() -> None:
    world = World()
    async with world.node() as node:
        item = node.item()
        await world.memories[0].write([Put(item), Put(Hint.of("memory://b", Put(item)).to_item())])
        await asyncio.sleep(100)
        assert records(world.memories[1]) == {}
        assert (await node.fanout.health()).stores[1].hints == 1
        await asyncio.sleep(5)
        assert records(world.memories[1])[KEY] == item
        assert (await node.fanout.health()).stores[1].hints == 0


def test_what_is_noted_as_missed_while_hints_are_replayed_is_not_forgotten_with_them() -> None:
    lag = Lag(["a", "b"])
    hint = Hint("b", KEY, "1")
    lag.add([hint])
    marks = lag.marks("b")
    lag.remove([hint])
    lag.add([hint])  # its certain hint, which takes the place of the one that was replayed
    lag.forget("b", marks)
    assert lag.has_missed("b")
    lag.forget("b", lag.marks("b"))
    assert not lag.has_missed("b")
