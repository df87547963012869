"""Writes with conditions are decided by the newest that any store holds, whichever store has missed what."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from agno_clouddb import BulkWriteError, ConflictError, PartialWrite, StoreUnavailable, UserMemory
from agno_clouddb.fanout.hints import Hint
from agno_clouddb.fanout.tombstones import tombstone
from agno_clouddb.stores.base import (
    Condition,
    Delete,
    Failed,
    Item,
    Key,
    Mutation,
    Outcome,
    Put,
    Refused,
    Stored,
    decide,
)
from agno_clouddb.testing.faults import Fault, script
from tests.unit.fanouts import KEY, Node, World, hints, records, virtual

STATES = ("nothing", "t1", "v1", "t2", "v2", "t3", "v3", "t4")
"""What a store may hold, in the order of the versions: tombstones and items."""

KINDS = ("put expecting v2", "delete expecting v2", "delete", "create")


def history(node: Node, world: World) -> dict[str, Item | None]:
    """What the states are, with versions in their order."""
    states: dict[str, Item | None] = {"nothing": None}
    for name in STATES[1:]:
        item = node.item(name)
        states[name] = item if name.startswith("v") else tombstone(KEY, item.version, int(world.wall()))
    return states


def mutation(kind: str, node: Node, expected: str) -> Mutation:
    """The write of a kind, with a stamp after all states."""
    if kind == "put expecting v2":
        return Put(node.item("mine"), Condition(expected=expected))
    if kind == "create":
        return Put(node.item("mine"), Condition(absent=True, exclusive=True))
    return Delete(KEY, node.clock.stamp(), Condition(expected=expected if "expecting" in kind else None))


def newest(*items: Item | None) -> Item | None:
    return max((each for each in items if each is not None), key=lambda each: each.version, default=None)


def data(item: Item | None) -> str | None:
    """The payload that is read from what is stored."""
    return None if item is None or item.deleted else str(item.data)


async def write(node: Node, *mutations: Mutation, atomic: bool = False) -> Outcome:
    return (await node.fanout.write(mutations, atomic=atomic))[0]


def begin(world: World, *items: Item | None, hinted: bool = False) -> None:
    """Let stores hold items, and the one that holds the newest a hint for the other where that has missed it."""
    for memory, item in zip(world.memories, items, strict=True):
        memory.items = {KEY: item} if item is not None else {}
    first, second = (item.version if item is not None else "" for item in items)
    true = newest(*items)
    if hinted and true is not None and first != second:
        keeper, target = world.memories if first > second else world.memories[::-1]
        kept = Hint(target.name, KEY, true.version).to_item()
        keeper.items[kept.key] = kept


def held(world: World) -> list[str | None]:
    """What is read from each store alone."""
    return [data(each.items.get(KEY)) for each in world.memories]


@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("primary", STATES)
@virtual
async def test_the_newest_on_both_stores_decides(primary: str, kind: str, atomic: bool, hinted: bool) -> None:
    world = World()
    async with world.node() as node:
        for other in STATES:
            states = history(node, world)
            begin(world, states[primary], states[other], hinted=hinted)
            true, v2 = newest(states[primary], states[other]), states["v2"]
            assert v2 is not None
            if true is not None and true.version < v2.version and "expecting" in kind:
                continue  # nobody can have read that version
            if kind == "delete" and not atomic:
                continue  # it is made also where a store that has missed an earlier one holds the record still
            asked = mutation(kind, node, v2.version)
            right = decide(asked, true, int(world.wall()))
            outcome = await write(node, asked, atomic=atomic)
            where = f"the primary holds {primary}, the other {other}: {outcome}"
            if right is None:
                assert isinstance(outcome, Stored), where
                expected = "mine" if isinstance(asked, Put) else None
                assert held(world) == [expected, expected], where
            else:
                assert isinstance(right, Refused)
                assert isinstance(outcome, Refused), where
                conflict = "expecting" in kind and outcome.reason in ("version", "absent")
                assert conflict or outcome.reason == right.reason, where
                expected = data(true)
                assert "mine" not in held(world), where
            assert await node.read() == expected, where
            await node.fanout.idle()
            assert held(world) == [expected, expected], where


@pytest.mark.parametrize("other", ["v3", "t3"])
@pytest.mark.parametrize("primary", ["v1", "v2"])
@virtual
async def test_a_conflict_that_the_primary_has_missed_leaves_what_was_there_on_both_stores(
    primary: str, other: str
) -> None:
    world = World()
    async with world.node() as node:
        states = history(node, world)
        begin(world, states[primary], states[other])
        v2 = states["v2"]
        assert v2 is not None
        outcome = await write(node, mutation("put expecting v2", node, v2.version))
        assert isinstance(outcome, Refused)
        assert outcome.reason == ("version" if other == "v3" else "absent")
        expected = data(states[other])
        assert held(world) == [expected, expected]
        assert len({each.items[KEY].version for each in world.memories}) == 1


@virtual
async def test_a_record_changed_while_the_primary_was_away_is_a_conflict_for_who_read_it_before() -> None:
    world = World()
    async with world.node() as node:
        read = await node.db.memories.upsert(UserMemory(memory_id="m", memory="one", user_id="ann"))
        with node.down(0):
            await node.db.memories.upsert(UserMemory(memory_id="m", memory="two", user_id="ann"))
        with pytest.raises(ConflictError):
            await node.db.memories.upsert(replace_memory(read, "mine"), expected_version=read.version)
        now = await node.db.memories.get("m")
        assert now is not None
        assert now.memory == "two"
        stored = await node.db.memories.upsert(replace_memory(now, "three"), expected_version=now.version)
        for memory in world.memories:
            assert memory.items[Key("memories", "m")].version == stored.version


def replace_memory(memory: UserMemory, text: str) -> UserMemory:
    return memory.model_copy(update={"memory": text})


# The primary is down


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("kind", ["put expecting v2", "delete expecting v2"])
@virtual
async def test_without_failover_nothing_is_decided_while_the_primary_is_down(kind: str, atomic: bool) -> None:
    world = World()
    async with world.node() as node:
        v2 = await node.put("v2")
        for alone in (False, True):
            if alone:
                await node.lose(0)
            node.links[0].down()
            outcome = await write(node, mutation(kind, node, v2.version), atomic=atomic)
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, StoreUnavailable)
            assert outcome.error.store == "memory://a"
            assert not outcome.applied
            assert records(world.memories[1]) == {KEY: v2}
            assert hints(world.memories[1]) == []


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", STATES)
@virtual
async def test_with_failover_the_next_store_decides_while_the_primary_is_down(
    other: str, kind: str, atomic: bool, alone: bool
) -> None:
    world = World()
    async with world.node(failover=True) as node:
        states = history(node, world)
        begin(world, None, states[other])
        if alone:
            await node.lose(0)
        node.links[0].down()
        v2 = states["v2"]
        assert v2 is not None
        asked = mutation(kind, node, v2.version)
        right = decide(asked, states[other], int(world.wall()))
        outcome = await write(node, asked, atomic=atomic)
        if right is None:
            assert isinstance(outcome, Stored)
            assert [each.target for each in hints(world.memories[1])] == ["memory://a"]
            assert held(world)[1] == ("mine" if isinstance(asked, Put) else None)
            await node.back(0)
            await asyncio.sleep(60)
            assert records(world.memories[0]) == records(world.memories[1])
            assert hints(world.memories[1]) == []
        elif isinstance(asked, Delete) and right.version == getattr(states[other], "version", None) != v2.version:
            # The primary may hold what is to be deleted, so a deletion of what is not there is kept as well.
            assert isinstance(outcome, Refused | Stored)
            assert held(world)[1] == data(states[other])
        else:
            assert isinstance(outcome, Refused)
            assert held(world)[1] == data(states[other])


@pytest.mark.parametrize("failover", [False, True])
@virtual
async def test_a_creation_is_decided_by_the_next_store_while_the_primary_is_down(failover: bool) -> None:
    world = World()
    async with world.node(failover=failover) as one, world.node(failover=failover) as two:
        for node in (one, two):
            node.links[0].down()
            node.links[1].plan = lambda call, mutations: Fault(delay=random.uniform(0.0, 0.1))
        for number in range(10):
            key = Key("sessions", f"s{number}")
            puts = [
                Put(node.item(node.clock.writer, key=key), Condition(absent=True, exclusive=True))
                for node in (one, two)
            ]
            outcomes = await asyncio.gather(write(one, puts[0]), write(two, puts[1]))
            won = [put for put, outcome in zip(puts, outcomes, strict=True) if isinstance(outcome, Stored)]
            assert len(won) == 1
            assert {type(each) for each in outcomes} == {Stored, Refused}
            assert records(world.memories[1])[key] == won[0].item
        for node in (one, two):
            node.links[1].plan = None
            await node.back(0)
        await one.fanout.reconcile()
        assert records(world.memories[0]) == records(world.memories[1])


@pytest.mark.parametrize("kind", ["put expecting v2", "create"])
@virtual
async def test_of_writers_who_ask_at_once_in_several_processes_one_succeeds(kind: str) -> None:
    world = World()
    async with world.node() as one, world.node() as two, world.node() as three:
        nodes = (one, two, three)
        draw = random.Random(1)
        for number in range(20):
            key = Key("sessions", f"s{number}")
            before = await one.put("before", key=key) if kind != "create" else None
            for node in nodes:
                for link in node.links:
                    link.plan = lambda call, mutations: Fault(delay=draw.uniform(0.0, 0.05))
            condition = Condition(expected=before.version) if before else Condition(absent=True, exclusive=True)
            puts = [Put(node.item(node.clock.writer, key=key), condition) for node in nodes]
            outcomes = await asyncio.gather(*(write(node, put) for node, put in zip(nodes, puts, strict=True)))
            won = [put.item for put, outcome in zip(puts, outcomes, strict=True) if isinstance(outcome, Stored)]
            assert len(won) == 1, outcomes
            assert [str(memory.items[key].data) for memory in world.memories] == [won[0].data, won[0].data]
            for node in nodes:
                for link in node.links:
                    link.plan = None


# A refusal by one store, and an answer that is lost by another


CONDITIONS = {
    "owner": Condition(owner="bob"),
    "absent": Condition(absent=True),
    "create": Condition(absent=True, exclusive=True),
    "expected": Condition(expected="000000000001-0000-000000000000"),
}


@pytest.mark.parametrize("kind", ["request lost", "response lost"])
@pytest.mark.parametrize("holder", [0, 1])
@pytest.mark.parametrize("name", list(CONDITIONS))
@pytest.mark.parametrize("failover", [False, True])
@virtual
async def test_a_refused_write_does_not_show_where_its_answer_was_lost(
    name: str, holder: int, kind: str, failover: bool
) -> None:
    world = World()
    async with world.node(failover=failover) as node:
        anns = node.item("ann's", user="ann")
        kept = Hint(world.memories[1 - holder].name, KEY, anns.version).to_item()
        world.memories[holder].items |= {KEY: anns, kept.key: kept}
        if name == "expected":
            for memory in world.memories:  # older than what is expected, so that no store but the holder forbids it
                memory.items.setdefault(KEY, replace(anns, version="000000000000-0001-000000000000", data="first"))
        node.links[1 - holder].plan = script(Fault(kind), on=["write"])  # type: ignore[arg-type]
        outcome = await write(node, Put(node.item("bob's", user="bob"), CONDITIONS[name]))
        if isinstance(outcome, Failed):
            # The primary, which was to decide, has not answered.
            assert (holder, name) in ((1, "create"), (1, "expected"))
            assert outcome.applied
            return
        assert isinstance(outcome, Refused)
        node.links[1 - holder].plan = None
        assert await node.read() == "ann's"
        await node.fanout.idle()
        await node.fanout.reconcile(full=True)
        assert held(world) == ["ann's", "ann's"]


def lost_and_gone(node: Node, place: int) -> None:
    """Let a store lose the answer to the next write, and answer no write after it."""
    link = node.links[place]

    def plan(call: str, mutations: int) -> Fault | None:
        if call != "write":
            return None
        link.plan = lambda call, mutations: Fault("refused") if call == "write" else None
        return Fault("response lost")

    link.plan = plan


@pytest.mark.parametrize("holder", [0, 1])
@virtual
async def test_a_write_is_not_reported_as_refused_while_it_may_stand_on_a_store_that_went_down(holder: int) -> None:
    world = World()
    async with world.node() as node:
        world.memories[holder].items[KEY] = node.item("ann's", user="ann")
        lost_and_gone(node, 1 - holder)
        outcome = await write(node, Put(node.item("bob's", user="bob"), CONDITIONS["owner"]))
        assert isinstance(outcome, Failed)
        assert outcome.applied


@pytest.mark.parametrize("holder", [0, 1])
@virtual
async def test_a_record_is_not_taken_over_by_a_write_that_was_answered_by_no_store_but_its_holder(holder: int) -> None:
    world = World()
    async with world.node() as node:
        with node.down(1 - holder):
            await node.db.memories.upsert(UserMemory(memory_id="m", memory="ann's", user_id="ann"))
        lost_and_gone(node, 1 - holder)
        with pytest.raises((PartialWrite, StoreUnavailable)):
            await node.db.memories.upsert(UserMemory(memory_id="m", memory="bob's", user_id="bob"))
        node.links[1 - holder].plan = None
        await asyncio.sleep(60)
        await node.fanout.reconcile(full=True)
        read = await node.db.memories.get("m")
        assert read is not None
        assert read.memory == "ann's"


@pytest.mark.parametrize("holder", [0, 1])
@virtual
async def test_users_go_on_writing_their_records_in_an_outage_of_a_pair_that_was_never_compared(holder: int) -> None:
    world = World()
    async with world.node(reads="primary") as node:
        await node.db.memories.upsert(UserMemory(memory_id="m", memory="before", user_id="ann"))
        node.links[1 - holder].down()
        await node.db.memories.upsert(UserMemory(memory_id="m", memory="meanwhile", user_id="ann"))
        read = await node.db.memories.get("m")
        assert read is not None
        assert read.memory == "meanwhile"


@virtual
async def test_with_failover_a_write_that_the_primary_may_have_stored_is_not_reported_as_refused() -> None:
    world = World()
    async with world.node(failover=True) as node:
        states = history(node, world)
        begin(world, states["v2"], states["v3"], hinted=True)
        node.links[0].plan = script(Fault("response lost"), on=["write"])
        v2 = states["v2"]
        assert v2 is not None
        outcome = await write(node, mutation("put expecting v2", node, v2.version))
        assert isinstance(outcome, Failed)
        assert outcome.applied


@virtual
async def test_with_failover_no_store_decides_otherwise_than_a_primary_that_may_have_stored_an_atomic_write() -> None:
    world = World()
    async with world.node(failover=True) as node:
        v2 = await node.put("v2")
        node.links[0].plan = script(Fault("response lost"), on=["write"])
        outcome = await write(node, mutation("put expecting v2", node, v2.version), atomic=True)
        assert isinstance(outcome, Failed)
        assert outcome.applied
        assert held(world) == ["mine", "v2"]


@pytest.mark.parametrize("many", [False, True])
@virtual
async def test_a_write_that_is_refused_after_an_attempt_which_may_arrive_late_says_so(many: bool) -> None:
    world = World()
    async with world.node() as node:
        stored = await node.db.memories.upsert(UserMemory(memory_id="m", memory="his", user_id="bob"))
        key, other = stored.key, world.memories[1]
        theirs = replace(other.items[key], fields={**other.items[key].fields, "user_id": "ann"})
        world.memories[0].items.clear()
        writes = 0

        def taken_over(call: str, mutations: int) -> Fault | None:
            nonlocal writes
            writes += call == "write"
            if writes == 2:
                other.items[key] = replace(theirs, version=node.clock.stamp())
            return None

        # The first attempt is on its way to a store that does not answer any more, and the second does not go out.
        node.links[0].plan = script(Fault("request lost"), *[Fault("refused")] * 9, on=["write"])
        node.links[1].plan = taken_over
        his = UserMemory(memory_id="m", memory="his, too", user_id="bob")
        with pytest.raises(BulkWriteError if many else StoreUnavailable, match="an earlier attempt at it may stand"):
            await (node.db.memories.upsert_many([his]) if many else node.db.memories.upsert(his, user_id="bob"))


@virtual
async def test_what_was_brought_where_it_was_refused_is_brought_to_all_stores() -> None:
    world = World(3)
    async with world.node(acks="all") as node:
        older = node.item("older", user="ann")
        first, second, third = world.memories
        first.items[KEY] = third.items[KEY] = older
        put = Put(node.item("mine", user="bob"), Condition(owner="bob"))

        def compared(call: str, mutations: int) -> Fault | None:
            # Somebody brings it to the store that has refused it, and has not come to the third yet.
            if call == "get" and second.items.get(KEY) == put.item:
                first.items[KEY] = put.item
            return None

        node.links[0].plan = compared
        outcome = await write(node, put)
        assert isinstance(outcome, Stored)
        assert [each.items[KEY] for each in world.memories] == [put.item] * 3


@pytest.mark.parametrize("missed", ["the deletion before", "what forbids it", "what nobody can tell"])
@virtual
async def test_of_two_users_who_create_at_once_the_one_on_the_primary_wins_whatever_that_had_missed_before(
    missed: str,
) -> None:
    world = World()
    async with world.node() as node:
        first, second = world.memories
        deleted = node.clock.stamp()
        hers = node.item("hers", user="ann")
        second.items[KEY] = hers
        kept = Hint(first.name, KEY, hers.version if missed == "what forbids it" else deleted).to_item()
        second.items[kept.key] = kept
        if missed == "what nobody can tell":
            node.links[1].plan = script(Fault("refused"), on=["get"])
        outcome = await write(node, Put(node.item("his", user="bob"), Condition(owner="bob")))
        expected: dict[str, tuple[type[Outcome], list[str]]] = {
            "the deletion before": (Stored, ["his", "his"]),
            "what forbids it": (Refused, ["hers", "hers"]),
            "what nobody can tell": (Failed, ["his", "hers"]),
        }
        assert (type(outcome), held(world)) == expected[missed]


@virtual
async def test_a_takeover_that_the_one_it_is_undone_for_has_put_back_is_not_reported_as_refused() -> None:
    world = World()
    async with world.node() as node:
        first, second = world.memories
        hers = node.item("hers", user="ann")
        second.items[KEY] = hers
        kept = Hint(first.name, KEY, hers.version).to_item()
        second.items[kept.key] = kept
        his = node.item("his", user="bob")
        writes = 0

        def put_back(call: str, mutations: int) -> Fault | None:
            # Her next write was refused by the store that had let his through, and so she has put that back.
            nonlocal writes
            writes += call == "write"
            if writes == 2:
                first.items[KEY] = second.items[KEY] = replace(his, version=node.clock.stamp())
            return None

        node.links[0].plan = put_back
        outcome = await write(node, Put(his, Condition(owner="bob")))
        assert held(world) == ["his", "his"]
        assert isinstance(outcome, Failed)
        assert outcome.applied
