"""Conformance: ids and field values of every kind, and the refusal of what no store can hold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from agno_clouddb.errors import InvalidRecord, QueryNotIndexed
from agno_clouddb.stores.base import MAX_ID_BYTES, Delete, Item, Key, Put, Query, Range, Store
from agno_clouddb.testing.conformance_base import ConformanceBase, Samples, expect, fill, ids, stamp, walk

__all__ = ["HOSTILE", "IdCases", "InvalidCases"]

HOSTILE = (
    *("a/b", "a.b", "a.1b", "a%2Fb", "a%2fb", "a_b", "a b", "a#b", "a:b", "a|b", "a\\b", "a~b", "ab", "aB", "A/B"),
    *(".", "..", "...", "/", "//", "#", "##", "%", "%25", "%2", "_", "__", "__x__", "__id1__", "-", "~", "*", "?"),
    *(" ", "  ", " a", "a ", "'", '"', "'; DROP TABLE x; --", "`", "$", "${a}", "[0]", "{}", "(", "<a>", "&", "+", "="),
    *("é", "e\u0301", "ü", "日本語", "😀", "👩‍👩‍👧", "\ufffd", "\U0010ffff", "\u00a0", "\u200b", "\u2028", "\ufeff"),
    *("0", "00", "1e1", "null", "None", "true", "a" * MAX_ID_BYTES, "é" * (MAX_ID_BYTES // 2), "/" * MAX_ID_BYTES),
)
"""Ids that have broken path escaping, composite keys, collation or normalisation somewhere. All are distinct."""

PAIRS = (
    *(("a", "b/c"), ("a/b", "c"), ("a", "b#c"), ("a#b", "c"), ("a", "b.c"), ("a.b", "c"), ("a", "b_c"), ("a_b", "c")),
    *(
        ("a", "b|c"),
        ("a|b", "c"),
        ("a", "b:c"),
        ("a:b", "c"),
        ("a/", "b"),
        ("a", "/b"),
        ("/", "/"),
        (".", ".."),
        ("..", "."),
    ),
    *(("a/runs", "b"), ("a", "runs/b"), ("é", "😀"), ("x" * MAX_ID_BYTES, "y" * MAX_ID_BYTES)),
)
"""Parents and ids which a careless join makes the same."""

INVALID_IDS = {
    "empty": "",
    "over-long": "a" * (MAX_ID_BYTES + 1),
    "over-long in bytes": "é" * (MAX_ID_BYTES // 2) + "x",
    "control character": "a\x00b",
    "line break": "a\n",
    "delete character": "\x7f",
    "lone surrogate": "a\ud800",
}


class IdCases(ConformanceBase):
    """Ids are opaque text: each names its own item and comes back as it is."""

    async def test_hostile_ids_are_distinct_and_come_back(self, fresh: Store) -> None:
        items = {
            Key("sessions", name): Item(
                Key("sessions", name), stamp(1), {"created_at": "1", "session_type": "agent"}, f"{place}"
            )
            for place, name in enumerate(HOSTILE)
        }
        assert len(items) == len(HOSTILE)
        await fill(fresh, items.values())
        await expect(fresh, dict(items))
        listed = await walk(fresh, Query("sessions", "created_at"), 7)
        assert ids(listed) == sorted(HOSTILE, key=str.encode)
        deleted = [Delete(key, stamp(2)) for key in list(items)[::2]]
        await fresh.write(deleted)
        await expect(fresh, {key: None if place % 2 == 0 else item for place, (key, item) in enumerate(items.items())})

    async def test_hostile_ids_of_children_are_distinct_and_listed_in_order(
        self, store: Store, samples: Samples
    ) -> None:
        await fill(store, [samples.run(name, 1, data=f"{place}") for place, name in enumerate(HOSTILE)])
        await expect(store, {samples.child(name): samples.run(name, 1, data=f"{n}") for n, name in enumerate(HOSTILE)})
        assert ids(await walk(store, samples.runs(), 9)) == sorted(HOSTILE, key=str.encode)

    async def test_parents_and_ids_do_not_run_together(self, fresh: Store) -> None:
        items = {
            key: Item(key, stamp(1), {"run_index": "00000001"}, f"{place}")
            for place, key in enumerate(Key("runs", name, parent) for parent, name in PAIRS)
        }
        await fill(fresh, items.values())
        await expect(fresh, dict(items))
        for parent in {parent for parent, _ in PAIRS}:
            wanted = sorted((name for other, name in PAIRS if other == parent), key=str.encode)
            assert ids(await walk(fresh, Query("runs", "run_index", parent=parent), 10)) == wanted

    async def test_hostile_field_values_come_back_and_are_found(self, store: Store, samples: Samples) -> None:
        values = [value for value in HOSTILE if len(value.encode()) <= MAX_ID_BYTES - len(samples.token)]
        await fill(
            store,
            [
                samples.item(f"{place}", session_type=samples.token + value, session_name=value)
                for place, value in enumerate(values)
            ],
        )
        for place, value in enumerate(values):
            query = Query("sessions", "created_at", equals={"session_type": samples.token + value})
            (found,) = (await store.query(query, limit=10)).items
            assert (found.key, found.fields["session_name"]) == (samples.key(f"{place}"), value)

    async def test_the_longest_sort_value_fits_with_the_longest_id(self, store: Store, samples: Samples) -> None:
        names = ["x" * (MAX_ID_BYTES - 1) + end for end in "ab"]
        longest = samples.token + "s" * (MAX_ID_BYTES - len(samples.token))
        runs = [Item(samples.child(name), stamp(1), {"run_index": longest}, "{}") for name in names]
        sessions = [
            Item(Key("sessions", samples.token + name[10:]), stamp(1), {"created_at": longest, "component_id": longest})
            for name in names
        ]
        await fill(store, [*runs, *sessions])
        assert ids(await walk(store, samples.runs(), 1)) == names
        query = Query("sessions", "created_at", equals={"component_id": longest})
        assert ids(await walk(store, query, 1)) == [item.key.id for item in sessions]


class InvalidCases(ConformanceBase):
    """What no store can hold is InvalidRecord on every store, before anything is written."""

    @pytest.mark.parametrize("problem", INVALID_IDS)
    async def test_an_invalid_id_names_its_field(self, store: Store, samples: Samples, problem: str) -> None:
        name = INVALID_IDS[problem]
        for key, field in [
            (Key("sessions", name), "session_id"),
            (Key("runs", name, samples.token), "run_id"),
            (Key("runs", "r", name), "session_id"),
        ]:
            with pytest.raises(InvalidRecord) as caught:
                await store.get([samples.key(), key])
            assert caught.value.path == field
            for mutation in (Put(Item(key, stamp(1))), Delete(key, stamp(1))):
                with pytest.raises(InvalidRecord) as caught:
                    await store.write([Put(samples.item()), mutation])
                assert caught.value.path == field
        await expect(store, {samples.key(): None})

    @pytest.mark.parametrize("problem", INVALID_IDS)
    async def test_an_invalid_value_of_an_indexed_field_names_the_field(
        self, store: Store, samples: Samples, problem: str
    ) -> None:
        item = samples.item()
        for field in ("session_type", "created_at", "user_id"):
            invalid = replace(item, fields={**item.fields, field: INVALID_IDS[problem]})
            with pytest.raises(InvalidRecord) as caught:
                await store.write([Put(samples.item("ok")), Put(invalid)])
            assert caught.value.path == field
        await expect(store, {samples.key(): None, samples.key("ok"): None})

    async def test_a_lone_surrogate_in_any_field_is_invalid(self, store: Store, samples: Samples) -> None:
        with pytest.raises(InvalidRecord) as caught:
            await store.write([Put(samples.item("ok")), Put(samples.item(session_name="a\ud800"))])
        assert caught.value.path == "session_name"
        await expect(store, {samples.key(): None, samples.key("ok"): None})

    async def test_an_unknown_collection_or_field_is_invalid(self, store: Store, samples: Samples) -> None:
        stray = Key("nowhere", "a")
        for call in (
            partial(store.get, [stray]),
            partial(store.write, [Put(Item(stray, stamp(1)))]),
            partial(store.write, [Delete(stray, stamp(1))]),
            partial(store.query, Query("nowhere", "created_at"), limit=1),
            partial(store.count, Query("nowhere", "created_at")),
            partial(store.tally, Query("nowhere", "created_at"), "user_id"),
        ):
            with pytest.raises(InvalidRecord, match="nowhere"):
                await call()
        with pytest.raises(InvalidRecord) as caught:
            await store.write([Put(samples.item()), Put(samples.item("a", colour="red"))])
        assert caught.value.path == "colour"
        await expect(store, {samples.key(): None, samples.key("a"): None})

    async def test_a_child_needs_a_parent_and_others_have_none(self, store: Store, samples: Samples) -> None:
        for key, field in [(Key("runs", "r"), "session_id"), (Key("sessions", "s", "p"), "parent")]:
            with pytest.raises(InvalidRecord) as caught:
                await store.get([key])
            assert caught.value.path == field
        with pytest.raises(InvalidRecord) as caught:
            await store.query(Query("runs", "run_index"), limit=1)
        assert caught.value.path == "session_id"

    @pytest.mark.parametrize("part", ["equals", "any_of", "ranges", "contains"])
    async def test_a_query_by_an_unknown_field_is_invalid(self, store: Store, samples: Samples, part: str) -> None:
        query = {
            "equals": Query("sessions", "created_at", equals={"colour": "red"}),
            "any_of": Query("sessions", "created_at", any_of={"colour": ("red", "blue")}),
            "ranges": Query("sessions", "created_at", ranges=(Range("colour", "a"),)),
            "contains": Query("sessions", "created_at", contains={"colour": "red"}),
        }[part]
        for call in (partial(store.query, query, limit=1), partial(store.count, query)):
            with pytest.raises(InvalidRecord) as caught:
                await call()
            assert caught.value.path == "colour"

    async def test_a_query_that_no_index_serves_is_refused(self, store: Store, samples: Samples) -> None:
        for query in (
            Query("sessions", "session_name", equals={"user_id": "ann"}),
            Query("runs", "generation", parent=samples.token),
        ):
            for call in (partial(store.query, query, limit=1), partial(store.count, query)):
                with pytest.raises(QueryNotIndexed):
                    await call()
