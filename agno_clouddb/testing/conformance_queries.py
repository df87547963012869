"""Conformance: lists by the indexes of sessions and runs, ordered, paged and counted."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agno_clouddb.stores.base import Delete, Item, Key, Query, Range, Store, Stored
from agno_clouddb.stores.query import order_of
from agno_clouddb.stores.schema import RUNS, SESSIONS, SHARD, Collection, Index
from agno_clouddb.testing.conformance_base import (
    FAR_FUTURE,
    LONG_PAST,
    ConformanceBase,
    Samples,
    fill,
    ids,
    plain,
    stamp,
    walk,
)

__all__ = ["IndexCases", "PageCases", "index_query", "indexed"]

# Other collections have the same kinds of indexes; conformance_collections.py goes over them with fewer items.
INDEXES = [(declared, index) for declared in (SESSIONS, RUNS) for index in declared.indexes]

# Ordered by UTF-8 bytes: values and ids that are a beginning of another, that a separator would put elsewhere, and
# that UTF-16 puts in another order.
ORDERED = (
    *("", "!", "#", "#a", "$", "-", "-1", "/", "0", "00", "01", "1", "A", "a", "a!", "a#", "a-", "aa", "b"),
    *("é", "日", "\ufffd", "😀", "\U0010ffff"),
)


def indexed(samples: Samples, declared: Collection, index: Index, name: str, value: str | None, part: str = "") -> Item:
    """An item of any collection which an index lists, unless ``value`` is None."""
    token = samples.token
    parent = token + part if declared.parent_field is not None else None
    fields = {index.sort: token + value} if value is not None else {}
    if index.partition not in (SHARD, declared.parent_field):
        fields[index.partition] = token + part
    return Item(Key(declared.name, token + name, parent), stamp(1), fields, f'"{name}"')


def index_query(samples: Samples, declared: Collection, index: Index, descending: bool = False) -> Query:
    """The list that an index serves, kept to the items of this test."""
    token = samples.token
    if index.partition == SHARD:
        # All items of the store: only their sort values tell those of this test.
        return Query(declared.name, index.sort, descending, ranges=(Range(index.sort, token, token + "\U0010ffff~"),))
    if index.partition == declared.parent_field:
        return Query(declared.name, index.sort, descending, parent=token)
    return Query(declared.name, index.sort, descending, equals={index.partition: token})


class IndexCases(ConformanceBase):
    """Every index lists what it should, in the order of the UTF-8 bytes of sort value and id."""

    @pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
    @pytest.mark.parametrize(("declared", "index"), INDEXES, ids=[f"{c.name}-{i.name}" for c, i in INDEXES])
    async def test_an_index_lists_its_live_items_in_order(
        self, store: Store, samples: Samples, declared: Collection, index: Index, descending: bool
    ) -> None:
        items = [indexed(samples, declared, index, f"{value}{n}", value) for n in range(2) for value in ORDERED]
        others = [indexed(samples, declared, index, "unsorted", None)]
        if index.partition != SHARD:
            others.append(indexed(samples, declared, index, "elsewhere", "a", part="x"))
        await fill(store, [*items[::2], *others, *items[1::2]])
        query = index_query(samples, declared, index, descending)
        assert await store.count(query) == len(items)
        dead = [indexed(samples, declared, index, f"dead {value}", value) for value in ORDERED]
        await fill(store, [replace(item, deleted=True) for item in dead[::2]])
        await fill(store, [replace(item, expires_at=LONG_PAST) for item in dead[1::2]])

        listed = await walk(store, query, 7)

        items.sort(key=lambda item: order_of(query.place(item)), reverse=descending)
        assert ids(listed) == ids(items)
        assert [plain(item) for item in listed] == [plain(item) for item in items]

    async def test_the_whole_collection_is_listed_without_any_filter(self, fresh: Store, samples: Samples) -> None:
        items = [samples.item(f"{n:02d}", created=f"{n % 5}", updated_at=f"{n:02d}") for n in range(23)]
        await fill(fresh, [*items, samples.run("r", 1)])
        assert ids(await walk(fresh, Query("sessions", "updated_at", True), 10)) == ids(items[::-1])
        by_created = sorted(items, key=lambda item: (item.fields["created_at"], item.key.id))
        assert ids(await walk(fresh, Query("sessions", "created_at"), 10)) == ids(by_created)
        assert await fresh.count(Query("sessions", "created_at")) == 23

    async def test_order_is_by_sort_value_first_and_by_id_among_equals(self, store: Store, samples: Samples) -> None:
        pairs = [(value, name) for value in ORDERED for name in ("z", "a", "a#", "é", "😀", "\ufffd")]
        await fill(store, [samples.item(f"{name}/{value}", created=value) for value, name in reversed(pairs)])
        wanted = sorted(
            ((samples.token + value).encode(), (samples.token + f"{name}/{value}").encode()) for value, name in pairs
        )
        assert [name.encode() for name in ids(await walk(store, samples.query(), 20))] == [name for _, name in wanted]
        backwards = replace(samples.query(), descending=True)
        assert [name.encode() for name in ids(await walk(store, backwards, 20))] == [name for _, name in wanted[::-1]]

    async def test_children_are_listed_under_their_own_parent_only(self, store: Store, samples: Samples) -> None:
        for parent in ("a", "ab", "a/b", "a#"):
            await fill(store, [samples.run(f"{parent}{n}", n, parent=parent) for n in range(3)])
        for parent in ("a", "ab", "a/b", "a#"):
            assert ids(await walk(store, samples.runs(parent), 2)) == [f"{parent}{n}" for n in range(3)]
            assert await store.count(samples.runs(parent)) == 3
        assert await walk(store, samples.runs("b"), 2) == []

    async def test_tombstones_are_not_counted(self, store: Store, samples: Samples) -> None:
        await fill(store, [*(samples.item(name) for name in "abc"), *(samples.run(name, 1) for name in "abc")])
        await fill(
            store,
            [
                Item(key, stamp(2), expires_at=FAR_FUTURE, deleted=True)
                for key in (samples.key("a"), samples.child("a"))
            ],
        )
        for query in (samples.query(), samples.runs()):
            assert await store.count(query) == 2

    async def test_a_list_shows_each_change_at_once(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item(name, 1, created=name) for name in "abc"])
        query = samples.query()
        await fill(store, [samples.item("a", 2, created="d")])
        assert ids(await walk(store, query, 2)) == [samples.key(name).id for name in "bca"]
        moved = samples.item("b", 2, created="b", component_id=samples.token + "other")
        await fill(store, [moved])
        assert ids(await walk(store, query, 2)) == [samples.key(name).id for name in "ca"]
        without = samples.item("c", 2)
        await fill(store, [replace(without, fields={"component_id": samples.token})])
        assert ids(await walk(store, query, 2)) == [samples.key("a").id]
        assert await store.count(query) == 1

    async def test_a_list_carries_the_items_as_they_are_stored(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item("a", 1, data="old", owner="ann")])
        newest = samples.item("a", 2, data=b"new", owner="ann", session_name="n", generation="7")
        await fill(store, [newest])
        (found,) = (await store.query(samples.query(), limit=5)).items
        assert plain(found) == plain(newest)


class PageCases(ConformanceBase):
    """Pages are full while there is more, and a cursor means the same on every store."""

    @pytest.mark.parametrize("limit", [1, 3, 4, 9, 12, 13, 100])
    @pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
    async def test_pages_of_any_size_list_each_item_once(
        self, store: Store, samples: Samples, limit: int, descending: bool
    ) -> None:
        items = [samples.item(f"{n:02d}", created=f"{n // 3}") for n in range(12)]
        runs = [samples.run(f"{n:02d}", n // 3) for n in range(12)]
        await fill(store, [*items, *runs])
        for query, stored in ((samples.query(), items), (samples.runs(), runs)):
            listed = await walk(store, replace(query, descending=descending), limit)
            assert ids(listed) == ids(stored[::-1] if descending else stored)

    async def test_an_empty_list_is_an_empty_page_without_a_cursor(self, store: Store, samples: Samples) -> None:
        for query in (samples.query(), samples.runs()):
            page = await store.query(query, limit=5)
            assert (page.items, page.cursor, page.degraded) == ((), None, False)
            assert await store.count(query) == 0

    async def test_pages_are_full_with_a_sparse_filter(self, store: Store, samples: Samples) -> None:
        owner = samples.token + "ann"
        items = [
            samples.item(
                f"{n:03d}", created=f"{n:03d}", owner=owner, session_name="needle" if n % 13 == 5 else f"hay {n}"
            )
            for n in range(120)
        ]
        await fill(store, items)
        wanted = ids(items)[5::13]
        for query in (
            Query("sessions", "created_at", equals={"user_id": owner}, contains={"session_name": "NEEDLE"}),
            Query("sessions", "created_at", equals={"user_id": owner, "session_name": "needle"}),
        ):
            page = await store.query(query, limit=3)
            assert ids(page.items) == wanted[:3]
            assert ids(await walk(store, query, 3)) == wanted
            assert await store.count(query) == len(wanted)

    async def test_a_cursor_goes_on_after_its_item_was_deleted_or_moved(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item(name, 1, created=name) for name in "abcdef"])
        page = await store.query(samples.query(), limit=2)
        assert page.cursor is not None
        assert await store.write([Delete(samples.key("b"), stamp(2))]) == (Stored(stamp(2)),)
        assert ids(await walk(store, samples.query(), 2, page.cursor)) == [samples.key(name).id for name in "cdef"]
        await fill(store, [samples.item("c", 2, created="z")])
        assert ids(await walk(store, samples.query(), 2, page.cursor)) == [samples.key(name).id for name in "defc"]

    async def test_an_item_put_behind_the_cursor_is_not_listed_and_one_before_it_is(
        self, store: Store, samples: Samples
    ) -> None:
        await fill(store, [samples.item(name, created=name) for name in "bdf"])
        page = await store.query(samples.query(), limit=2)
        assert page.cursor is not None
        await fill(store, [samples.item(name, created=name) for name in "ace"])
        assert ids(await walk(store, samples.query(), 2, page.cursor)) == [samples.key(name).id for name in "ef"]

    @pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
    async def test_a_cursor_goes_on_upon_another_store(
        self, store: Store, model: Store, samples: Samples, descending: bool
    ) -> None:
        items = [samples.item(f"{value}{n}", created=value) for value in ORDERED for n in range(3)]
        runs = [samples.run(f"{value}{n}", n) for value in ORDERED for n in range(3)]
        for query, stored in ((samples.query(), items), (samples.runs(), runs)):
            query = replace(query, descending=descending)
            await fill(store, stored)
            await fill(model, stored)
            wanted = ids(await walk(model, query, 100))
            listed: list[str] = []
            cursor, sides = None, [store, model]
            while len(listed) < len(wanted):
                page = await sides[0].query(query, limit=5, cursor=cursor)
                listed += ids(page.items)
                assert page.items
                cursor = page.cursor
                sides.reverse()
            assert listed == wanted

    async def test_a_range_and_a_cursor_hold_together(self, store: Store, samples: Samples) -> None:
        token = samples.token
        await fill(store, [samples.item(f"{n:02d}", created=f"{n:02d}") for n in range(20)])
        for descending in (False, True):
            query = replace(
                samples.query(),
                descending=descending,
                ranges=(Range("created_at", token + "04", token + "15"),),
            )
            wanted = [samples.key(f"{n:02d}").id for n in range(4, 15)]
            assert ids(await walk(store, query, 4)) == (wanted[::-1] if descending else wanted)

    async def test_an_eventual_list_becomes_complete(self, store: Store, samples: Samples) -> None:
        items = [samples.item(name, created=name) for name in "abc"]
        await fill(store, items)
        listed: list[Item] = []
        async with asyncio.timeout(30):
            while len(listed) < len(items):
                listed = await walk(store, samples.query(), 2, consistency="eventual")
                assert set(ids(listed)) <= set(ids(items))
        assert [plain(item) for item in listed] == [plain(item) for item in items]
