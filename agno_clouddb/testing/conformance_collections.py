"""Conformance: every collection of the schema, provisioned alone or with others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agno_clouddb.errors import InvalidRecord, NotProvisioned
from agno_clouddb.stores.base import Condition, Delete, Item, Key, Put, Query, Range, Store, Stored, Tally
from agno_clouddb.stores.query import order_of
from agno_clouddb.stores.schema import COLLECTIONS, DECLARED, RUNS, SESSIONS, Collection
from agno_clouddb.testing.conformance_base import (
    LONG_PAST,
    ConformanceBase,
    Samples,
    expect,
    fill,
    ids,
    plain,
    plain_outcome,
    stamp,
    walk,
)
from agno_clouddb.testing.conformance_queries import index_query, indexed

__all__ = ["CollectionCases", "ProvisionCases"]

OTHERS = [each for each in DECLARED.values() if each not in (SESSIONS, RUNS)]
VALUES = ("1", "1#", "B", "a", "é", "😀")


def whole(samples: Samples, declared: Collection, version: int) -> Item:
    """An item with every field of its collection."""
    parent = samples.token if declared.parent_field is not None else None
    fields = {name: f"{samples.token} {name} {version}" for name in declared.fields}
    return Item(Key(declared.name, samples.token, parent), stamp(version), fields, f"{declared.name} {version}")


def metric(samples: Samples, date: str, period: str, bucket: str = "all", version: int = 1) -> Item:
    """A metrics record; dates and buckets are this test's own."""
    fields = {"date": samples.token + date, "aggregation_period": period, "bucket": samples.token + bucket}
    if bucket != "all":
        fields["user_id"] = bucket
    return Item(Key("metrics", f"{samples.token}{date} {period} {bucket}"), stamp(version), fields, f"{version}")


class CollectionCases(ConformanceBase):
    """Every collection keeps items, and every index of it lists them."""

    async def test_items_of_every_collection_come_back_are_replaced_and_deleted(
        self, full: Store, samples: Samples
    ) -> None:
        old, new = ([whole(samples, each, version) for each in DECLARED.values()] for version in (1, 2))
        await fill(full, old)
        await expect(full, {item.key: item for item in old})
        puts = [Put(item, Condition(expected=stamp(1))) for item in new]
        assert await full.write(puts) == (Stored(stamp(2)),) * len(new)
        await expect(full, {item.key: item for item in new})
        await full.write([Delete(item.key, stamp(3)) for item in new[::2]])
        await expect(full, {item.key: None if n % 2 == 0 else item for n, item in enumerate(new)})

    async def test_one_id_in_every_collection_is_as_many_items(self, full: Store, samples: Samples) -> None:
        items = [replace(whole(samples, each, 1), data=each.name) for each in DECLARED.values()]
        assert await full.write([Put(item) for item in items], atomic=True) == (Stored(stamp(1)),) * len(items)
        await expect(full, {item.key: item for item in items})

    @pytest.mark.parametrize("declared", OTHERS, ids=[each.name for each in OTHERS])
    async def test_every_index_of_a_collection_lists_its_live_items_in_order(
        self, full: Store, declared: Collection
    ) -> None:
        def place(item: Item) -> tuple[bytes, bytes]:
            return order_of(query.place(item))

        for index in declared.indexes:
            samples = Samples()
            items = [indexed(samples, declared, index, f"{value}{n}", value) for n in range(2) for value in VALUES]
            others = [indexed(samples, declared, index, "unsorted", None)]
            if index_query(samples, declared, index).ranges == ():
                others.append(indexed(samples, declared, index, "elsewhere", "a", part="x"))
            await fill(full, [*items[::2], *others, *items[1::2]])
            query = index_query(samples, declared, index)
            assert await full.count(query) == len(items), index
            dead = [indexed(samples, declared, index, f"dead {value}", value) for value in VALUES]
            await fill(full, [replace(item, deleted=True) for item in dead[::2]])
            await fill(full, [replace(item, expires_at=LONG_PAST) for item in dead[1::2]])
            for descending in (False, True):
                listed = await walk(full, replace(query, descending=descending), 5)
                ordered = sorted(items, key=place, reverse=descending)
                assert [plain(item) for item in listed] == [plain(item) for item in ordered], index

    async def test_a_field_is_the_partition_of_one_index_and_the_sort_of_others(
        self, full: Store, samples: Samples
    ) -> None:
        token = samples.token
        items = [
            metric(samples, f"2026-01-0{day}", period, bucket)
            for day in range(1, 5)
            for period in ("daily", "hourly")
            for bucket in ("all", "ann")
        ]
        await fill(full, items)
        names = {item.key: item.key.id.removeprefix(token + "2026-01-0") for item in items}

        async def listed(query: Query) -> list[str]:
            found = await walk(full, query, 3)
            assert await full.count(query) == len(found)
            return [names[item.key] for item in found]

        of_a_day = Query("metrics", "aggregation_period", equals={"date": token + "2026-01-02"})
        assert await listed(of_a_day) == ["2 daily all", "2 daily ann", "2 hourly all", "2 hourly ann"]
        of_two_days = Query(
            "metrics", "aggregation_period", True, any_of={"date": (token + "2026-01-03", token + "2026-01-01")}
        )
        assert await listed(replace(of_two_days, equals={"bucket": token + "ann"})) == [
            *("3 hourly ann", "1 hourly ann", "3 daily ann", "1 daily ann"),
        ]
        of_a_bucket = Query("metrics", "date", True, equals={"bucket": token + "ann"})
        assert (await listed(of_a_bucket))[:3] == ["4 hourly ann", "4 daily ann", "3 hourly ann"]
        days = (Range("date", token + "2026-01-02", token + "2026-01-04"),)
        of_all = Query("metrics", "date", ranges=days, equals={"aggregation_period": "daily"})
        assert await listed(of_all) == ["2 daily all", "2 daily ann", "3 daily all", "3 daily ann"]
        assert await full.tally(of_all, "date") == {
            token + f"2026-01-0{day}": Tally(2, token + f"2026-01-0{day}", token + f"2026-01-0{day}") for day in (2, 3)
        }
        await fill(full, [metric(samples, "2026-01-02", "daily", version=2)])
        assert len(await listed(of_a_day)) == 4

    async def test_spans_are_listed_under_their_own_trace(self, full: Store, samples: Samples) -> None:
        def span(name: str, trace: str, start: str) -> Item:
            return Item(Key("spans", name, samples.token + trace), stamp(1), {"start_time": start}, name)

        trace = Item(Key("traces", samples.token), stamp(1), {"start_time": samples.token, "status": "OK"})
        spans = [span("b", "", "2"), span("a", "", "2"), span("c", "", "1"), span("a", "x", "1")]
        assert await full.write([Put(each) for each in (trace, *spans)], atomic=True) == (Stored(stamp(1)),) * 5
        query = Query("spans", "start_time", parent=samples.token)
        assert ids(await walk(full, query, 2)) == ["c", "a", "b"]
        assert ids(await walk(full, replace(query, descending=True), 2)) == ["b", "a", "c"]
        assert await full.count(query) == 3
        assert await full.write([Delete(trace.key, stamp(2))]) == (Stored(stamp(2)),)
        await expect(full, {trace.key: None, spans[0].key: spans[0]})


class ProvisionCases(ConformanceBase):
    """A part of the collections can be provisioned, and others later."""

    async def test_only_the_collections_asked_for_are_provisioned_and_others_can_follow(self, samples: Samples) -> None:
        memory, knowledge = whole(samples, COLLECTIONS["memories"], 1), whole(samples, COLLECTIONS["knowledge"], 1)
        query = Query("knowledge", "created_at")
        async with await self.make_store() as store:
            await store.provision(["memories"])
            await fill(store, [memory])
            if self.needs_provision:
                for call in (
                    store.get([memory.key, knowledge.key]),
                    store.query(query, limit=1),
                    store.count(query),
                    store.tally(query, "type"),
                ):
                    with pytest.raises(NotProvisioned):
                        await call
                outcomes = await store.write([Put(replace(memory, version=stamp(2))), Put(knowledge)])
                assert [plain_outcome(each) for each in outcomes] == [
                    ("stored", stamp(2)),
                    ("failed", "NotProvisioned", False),
                ]
            told: list[str] = []
            await store.provision({"knowledge", "memories"}, progress=told.append)
            await fill(store, [knowledge])
            assert ids(await walk(store, query, 5)) == [knowledge.key.id]
            assert await store.count(Query("memories", "updated_at")) == 1

    async def test_an_unknown_collection_is_invalid(self) -> None:
        async with await self.make_store() as store:
            with pytest.raises(InvalidRecord, match="nowhere") as caught:
                await store.provision(["sessions", "nowhere"])
            assert caught.value.path == "collections"
