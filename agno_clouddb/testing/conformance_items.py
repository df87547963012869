"""Conformance: getting, putting and deleting items, one by one, in bulk and all or none."""

from __future__ import annotations

import asyncio

import pytest

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.base import Condition, Delete, Item, Key, Mutation, Put, Refused, Store, Stored
from agno_clouddb.testing.conformance_base import (
    FAR_FUTURE,
    LONG_PAST,
    ConformanceBase,
    Samples,
    expect,
    fill,
    ids,
    one,
    only,
    plain,
    plain_outcome,
    stamp,
    stored_version,
    walk,
)

__all__ = ["AtomicCases", "BulkCases", "ItemCases"]


class ItemCases(ConformanceBase):
    """Items come back as they were put, and every mutation has its own outcome."""

    async def test_get_of_nothing_is_an_empty_batch(self, store: Store) -> None:
        assert (await store.get([])).items == ()

    async def test_get_answers_in_the_order_of_the_keys_with_duplicates_and_gaps(
        self, store: Store, samples: Samples
    ) -> None:
        a, b, run = samples.item("a"), samples.item("b", owner="ann"), samples.run("a", 1)
        await fill(store, [a, b, run])
        keys = [b.key, samples.key("missing"), run.key, a.key, b.key, samples.key("missing"), b.key]
        batch = await store.get(keys)
        assert [plain(item) for item in batch.items] == [plain(item) for item in (b, None, run, a, b, None, b)]
        assert batch.degraded is False

    async def test_get_splits_many_keys_into_requests(self, store: Store, samples: Samples) -> None:
        items = [samples.item(f"{number:03d}", data=f"{number}") for number in range(0, 250, 2)]
        await fill(store, items)
        keys = [samples.key(f"{number:03d}") for number in range(250)]
        batch = await store.get(keys)
        stored = {item.key: item for item in items}
        assert [plain(item) for item in batch.items] == [plain(stored.get(key)) for key in keys]

    async def test_an_eventual_get_becomes_complete(self, store: Store, samples: Samples) -> None:
        item = samples.item()
        await fill(store, [item])
        found: Item | None = None
        async with asyncio.timeout(30):
            while found is None:
                (found,) = (await store.get([item.key], consistency="eventual")).items
        assert plain(found) == plain(item)

    async def test_every_part_of_an_item_comes_back(self, store: Store, samples: Samples) -> None:
        full = samples.item(
            "full", 7, data=b"\x00\xff", owner="ann", expires_at=FAR_FUTURE, session_name="Ünïcode 😀 'q' \"d\" # / %"
        )
        bare = Item(samples.key("bare"), stamp(1))
        await fill(store, [full, bare])
        await expect(store, {full.key: full, bare.key: bare})

    async def test_a_put_replaces_the_whole_item(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item("a", 1, owner="ann", expires_at=FAR_FUTURE, session_name="old")])
        new = Item(samples.key("a"), stamp(2), {"session_type": "team"}, "new")
        assert await only(store, Put(new)) == Stored(new.version)
        await expect(store, {new.key: new})

    async def test_an_older_put_changes_nothing(self, store: Store, samples: Samples) -> None:
        newer = samples.item("a", 9, data="newer", owner="ann")
        await fill(store, [newer])
        outcome = await only(store, Put(samples.item("a", 8, data="older", owner="bob")))
        assert outcome == Refused("older", newer.version, dict(newer.fields))
        await expect(store, {newer.key: newer})

    async def test_a_repeated_put_is_stored_once_more_whatever_its_condition(
        self, store: Store, samples: Samples
    ) -> None:
        put = Put(samples.item("a", 3, owner="ann"), Condition(absent=True))
        assert [await only(store, put) for _ in range(3)] == [Stored(put.version)] * 3
        await expect(store, {put.key: put.item})

    async def test_versions_differing_by_writer_alone_are_ordered(self, store: Store, samples: Samples) -> None:
        low, high = stamp(5, "00000000000a"), stamp(5, "00000000000b")
        await fill(store, [Item(samples.key(), high, {}, "high")])
        assert await only(store, Put(Item(samples.key(), low, {}, "low"))) == Refused("older", high, {})
        found = await one(store, samples.key())
        assert found is not None
        assert found.data == "high"

    async def test_a_deleted_item_is_gone_for_good(self, store: Store, samples: Samples) -> None:
        item = samples.item("a", 5, owner="ann")
        await fill(store, [item])
        assert await only(store, Delete(item.key, stamp(6))) == Stored(stamp(6))
        await expect(store, {item.key: None}, dead=True)
        assert await walk(store, samples.query(), 10) == []
        assert await only(store, Delete(item.key, stamp(7))) == Refused("absent", None, {})
        assert await stored_version(store, item.key) is None

    async def test_what_was_deleted_can_be_put_again(self, store: Store, samples: Samples) -> None:
        item = samples.item("a", 5)
        await fill(store, [item])
        await only(store, Delete(item.key, stamp(6)))
        again = samples.item("a", 2, data="again")
        assert await only(store, Put(again, Condition(absent=True))) == Stored(again.version)
        await expect(store, {again.key: again})

    async def test_deleting_a_parent_leaves_its_children(self, store: Store, samples: Samples) -> None:
        session, run = samples.item("p", 1), samples.run("r", 1, parent="p")
        await fill(store, [session, run])
        assert await only(store, Delete(session.key, stamp(2))) == Stored(stamp(2))
        await expect(store, {session.key: None, run.key: run})
        assert ids(await walk(store, samples.runs("p"), 10)) == ["r"]

    @pytest.mark.parametrize("dead", ["tombstone", "expired"])
    async def test_what_is_dead_counts_as_absent(self, store: Store, samples: Samples, dead: str) -> None:
        live = samples.item("live", 1, created="1")
        await fill(store, [live, samples.item("a", 2, created="2")])
        died = samples.item(
            "a", 3, created="2", deleted=dead == "tombstone", expires_at=LONG_PAST if dead == "expired" else None
        )
        assert await only(store, Put(died)) == Stored(died.version)
        assert await one(store, died.key) is None
        assert ids(await walk(store, samples.query(), 10)) == [live.key.id]
        assert await stored_version(store, died.key) == died.version
        await expect(store, {died.key: died, live.key: live}, dead=True)

    async def test_a_tombstone_without_payload_and_fields_is_kept(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item("a", 1, owner="ann")])
        tombstone = Item(samples.key("a"), stamp(2), expires_at=FAR_FUTURE, deleted=True)
        assert await only(store, Put(tombstone)) == Stored(tombstone.version)
        assert await only(store, Put(samples.item("a", 1, owner="ann"))) == Refused("older", tombstone.version, {})
        await expect(store, {tombstone.key: None})
        await expect(store, {tombstone.key: tombstone}, dead=True)

    async def test_a_future_expiry_is_live_and_can_be_taken_back(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item("a", 1, expires_at=FAR_FUTURE)])
        assert ids(await walk(store, samples.query(), 10)) == [samples.key("a").id]
        forever = samples.item("a", 2)
        await fill(store, [forever])
        await expect(store, {forever.key: forever})


class BulkCases(ConformanceBase):
    """Many mutations at once."""

    async def test_a_write_of_nothing_has_no_outcomes(self, store: Store) -> None:
        assert await store.write([]) == ()
        assert await store.write([], atomic=True) == ()

    async def test_bulk_outcomes_are_in_the_order_of_the_mutations(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item(f"{n:02d}", 5, owner="bob", data="old") for n in range(60) if n % 6])
        mutations: list[Mutation] = []
        wanted: list[tuple[object, ...]] = []
        left: dict[Key, Item | None] = {}
        for number in range(60):
            old = samples.item(f"{number:02d}", 5, owner="bob", data="old")
            new = samples.item(f"{number:02d}", 10, owner="ann", data="new")
            fields = dict(old.fields)
            cases: list[tuple[Mutation, tuple[object, ...], Item | None]] = [
                (Put(new), ("stored", new.version), new),
                (Put(samples.item(f"{number:02d}", 4)), ("refused", "older", old.version, fields), old),
                (Put(new, Condition(owner="ann")), ("refused", "owner", old.version, fields), old),
                (Delete(new.key, new.version), ("stored", new.version), None),
                (Put(new, Condition(absent=True)), ("refused", "exists", old.version, fields), old),
                (Put(new, Condition(expected=stamp(4))), ("refused", "version", old.version, fields), old),
            ]
            mutation, outcome, item = cases[number % 6]
            mutations.append(mutation)
            wanted.append(outcome)
            left[mutation.key] = item
        outcomes = await store.write(mutations)
        assert [plain_outcome(each) for each in outcomes] == wanted
        await expect(store, left)

    async def test_a_key_given_twice_is_invalid_and_nothing_is_written(self, store: Store, samples: Samples) -> None:
        twice: list[Mutation] = [
            Put(samples.item("b", 1)),
            Put(samples.item("a", 1)),
            Delete(samples.key("a"), stamp(2)),
        ]
        for atomic in (False, True):
            with pytest.raises(InvalidRecord):
                await store.write(twice, atomic=atomic)
        await expect(store, {samples.key("a"): None, samples.key("b"): None})


class AtomicCases(ConformanceBase):
    """All mutations or none."""

    async def test_an_atomic_write_across_collections_is_carried_out(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item("s", 1), samples.run("gone", 1, parent="s")])
        session, run = samples.item("s", 2, data="2"), samples.run("new", 2, 2, parent="s")
        outcomes = await store.write(
            [
                Put(session, Condition(expected=stamp(1))),
                Put(run, Condition(absent=True)),
                Delete(samples.child("gone", "s"), stamp(2)),
            ],
            atomic=True,
        )
        assert outcomes == (Stored(stamp(2)), Stored(stamp(2)), Stored(stamp(2)))
        await expect(store, {session.key: session, run.key: run, samples.child("gone", "s"): None})

    @pytest.mark.parametrize("refused_at", [0, 1, 2])
    async def test_one_refusal_leaves_nothing_written(self, store: Store, samples: Samples, refused_at: int) -> None:
        old = samples.item("taken", 1, owner="bob")
        await fill(store, [old, samples.item("doomed", 1)])
        mutations: list[Mutation] = [Put(samples.item("new", 2)), Delete(samples.key("doomed"), stamp(2))]
        mutations.insert(refused_at, Put(samples.item("taken", 2), Condition(owner="ann")))
        outcomes = await store.write(mutations, atomic=True)
        wanted = ["atomic", "atomic"]
        wanted.insert(refused_at, "owner")
        assert [each.reason for each in outcomes if isinstance(each, Refused)] == wanted
        assert outcomes[refused_at] == Refused("owner", old.version, dict(old.fields))
        await expect(store, {old.key: old, samples.key("new"): None, samples.key("doomed"): samples.item("doomed", 1)})

    async def test_several_refusals_are_each_explained(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item("a", 9), samples.item("b", 1)])
        outcomes = await store.write(
            [
                Put(samples.item("a", 2)),
                Put(samples.item("b", 2), Condition(absent=True)),
                Put(samples.item("c", 2), Condition(expected=stamp(1))),
                Put(samples.item("d", 2)),
            ],
            atomic=True,
        )
        assert [each.reason for each in outcomes if isinstance(each, Refused)] == [
            "older",
            "exists",
            "absent",
            "atomic",
        ]
        assert await stored_version(store, samples.key("d")) is None

    async def test_an_atomic_write_can_be_repeated(self, store: Store, samples: Samples) -> None:
        puts = [Put(samples.item("a", 2, data="2"), Condition(absent=True)), Put(samples.item("b", 2, data="2"))]
        first = await store.write(puts, atomic=True)
        assert await store.write(puts, atomic=True) == first == (Stored(stamp(2)), Stored(stamp(2)))
        await expect(store, {put.key: put.item for put in puts})

    async def test_what_stands_already_does_not_hold_up_the_rest(self, store: Store, samples: Samples) -> None:
        standing, new = samples.item("a", 2, data="2"), samples.item("b", 2, data="2")
        await fill(store, [standing])
        assert await store.write([Put(standing), Put(new)], atomic=True) == (Stored(stamp(2)), Stored(stamp(2)))
        await expect(store, {standing.key: standing, new.key: new})

    async def test_as_many_mutations_as_the_limit_says_are_written(self, fresh: Store, samples: Samples) -> None:
        count = fresh.limits.atomic_items
        if count > 1000:
            pytest.skip(f"{count} mutations are too many for a test")
        puts = [Put(samples.item(f"{number}")) for number in range(count)]
        assert set(await fresh.write(puts, atomic=True)) == {Stored(stamp(1))}
        assert [plain(item) for item in (await fresh.get([put.key for put in puts])).items] == [
            plain(put.item) for put in puts
        ]
        newer = [Put(samples.item(f"{number}", 2)) for number in range(count + 1)]
        with pytest.raises(InvalidRecord, match=str(count)):
            await fresh.write(newer, atomic=True)
        assert await stored_version(fresh, samples.key("0")) == stamp(1)

    async def test_one_payload_over_the_limit_leaves_nothing_written(self, store: Store, samples: Samples) -> None:
        if store.limits.payload_bytes > 64 * 1024 * 1024:
            pytest.skip("the limit is too large for a test")
        large = samples.item("large", data="x" * (store.limits.payload_bytes + 1))
        outcomes = await store.write([Put(samples.item("small")), Put(large)], atomic=True)
        assert [plain_outcome(each) for each in outcomes] == [
            ("refused", "atomic"),
            ("failed", "RecordTooLarge", False),
        ]
        await expect(store, {samples.key("small"): None, large.key: None})
