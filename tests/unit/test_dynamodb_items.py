"""Items as attributes of DynamoDB, and their sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_clouddb.stores.base import MAX_ID_BYTES, Item, Key, Payload
from agno_clouddb.stores.dynamodb.items import (
    CHUNK_BYTES,
    INLINE_BYTES,
    chunk_items,
    chunk_keys,
    composite,
    data_attribute,
    row_of,
    shard_of,
    size_of,
    to_attributes,
)
from agno_clouddb.stores.dynamodb.tables import layouts
from agno_clouddb.stores.schema import COLLECTIONS, DECLARED

VERSION = "00000000000a-0000-000000000000"
LAYOUTS = layouts("agno_")
ITEM_BYTES = 409_600  # the service's limit
SORT_KEY_BYTES = 1024

characters = st.characters(exclude_categories=("Cc", "Cs"))
ids = st.text(characters, min_size=1, max_size=6) | st.sampled_from(
    ["x" * MAX_ID_BYTES, "x" * (MAX_ID_BYTES - 1), "é" * (MAX_ID_BYTES // 2), "x" * (MAX_ID_BYTES - 4) + "😀"]
)


@given(st.tuples(ids, ids), st.tuples(ids, ids))
def test_places_are_ordered_by_the_bytes_of_value_and_id(one: tuple[str, str], other: tuple[str, str]) -> None:
    by_parts = [each.encode() for each in one] < [each.encode() for each in other]
    assert (composite(*one).encode() < composite(*other).encode()) == by_parts


@given(ids, ids)
def test_a_place_fits_into_a_sort_key(value: str, id: str) -> None:
    assert len(composite(value, id).encode()) <= SORT_KEY_BYTES


@given(ids, ids, ids)
def test_a_place_is_above_a_value_exactly_when_its_own_value_is_not_below(value: str, id: str, bound: str) -> None:
    assert (composite(value, id).encode() > bound.encode()) == (value.encode() >= bound.encode())


@given(
    st.sampled_from(sorted(DECLARED)),
    ids,
    ids,
    st.lists(ids, min_size=12, max_size=12),
    st.text(max_size=5) | st.binary(max_size=5),
    st.none() | st.integers(1, 2**40),
    st.booleans(),
)
def test_an_item_comes_back_from_its_attributes(
    name: str, id: str, parent: str, values: list[str], data: Payload, expires_at: int | None, deleted: bool
) -> None:
    layout = LAYOUTS[name]
    key = Key(name, id, parent if layout.collection.parent_field else None)
    item = Item(key, VERSION, dict(zip(layout.collection.fields, values, strict=False)), data, expires_at, deleted)
    row = row_of({**to_attributes(item, layout, 4), **data_attribute(data)}, layout)
    assert (row.item, row.chunks) == (item, 0)
    assert type(row.item.data) is type(data)


def test_a_tombstone_is_in_no_index_but_that_by_version() -> None:
    for name, layout in LAYOUTS.items():
        key = Key(name, "a", "p" if layout.collection.parent_field else None)
        attributes = to_attributes(Item(key, VERSION, deleted=True, expires_at=5), layout, 1)
        assert attributes.keys() == {*layout.table.keys, "shard", "version", "expires_at", "deleted"}
        table = layout.replicated()
        in_them = [each.name for each in (*table.local, *table.global_) if {each.partition, each.sort} <= {*attributes}]
        assert in_them == (["shard-version-index"] if name in COLLECTIONS else [])


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_every_item_has_a_shard_by_its_own_id(name: str) -> None:
    layout = LAYOUTS[name]
    parent = "p" if layout.collection.parent_field else None
    for each in ("a", "b", "c", "d"):
        attributes = to_attributes(Item(Key(name, each, parent), VERSION), layout, 3)
        assert attributes["shard"] == {"S": shard_of(each, 3)}


def test_chunk_keys_of_different_items_and_versions_differ() -> None:
    keys = [Key("runs", "b", "a/b"), Key("runs", "b/b", "a"), Key("sessions", "a/b"), Key("sessions", "runs")]
    made = [str(each) for key in keys for version in ("1", "2") for each in chunk_keys(key, version, 3)]
    assert len(set(made)) == len(made) == len(keys) * 2 * 3


def test_chunks_sort_in_their_order_and_expire_with_their_item() -> None:
    item = Item(Key("sessions", "a"), VERSION, expires_at=7)
    made = list(chunk_items(item, [b"%d" % n for n in range(12)]))
    assert sorted(made, key=lambda each: str(each["part"]["S"])) == made
    assert all(each["expires_at"] == {"N": "7"} for each in made)


def test_size_counts_names_and_values_in_bytes() -> None:
    assert size_of({"ab": {"S": "é"}, "c": {"B": b"123"}, "d": {"BOOL": True}, "e": {"N": "5"}}) == 4 + 4 + 22 + 22


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_the_largest_inline_item_leaves_room_for_its_entries_in_local_indexes(name: str) -> None:
    layout = LAYOUTS[name]
    entries = sum(len(index.partition) + len(index.sort) + 2 * SORT_KEY_BYTES for index in layout.table.local)
    keys = sum(len(each) + MAX_ID_BYTES for each in layout.table.keys)
    assert INLINE_BYTES + entries + keys + 100 <= ITEM_BYTES


def test_the_largest_chunk_fits_with_the_longest_keys() -> None:
    longest = Key("sessions", "x" * MAX_ID_BYTES, "y" * MAX_ID_BYTES)
    item = Item(longest, VERSION, expires_at=2**40)
    (chunk,) = chunk_items(item, [b"x" * CHUNK_BYTES])
    assert size_of(chunk) <= ITEM_BYTES


def test_items_are_spread_over_all_shards_and_each_stays_in_its_own() -> None:
    shards = [shard_of(f"id-{n}", 4) for n in range(100)]
    assert set(shards) == {"0", "1", "2", "3"}
    assert shards == [shard_of(f"id-{n}", 4) for n in range(100)]
    assert {shard_of(f"id-{n}", 1) for n in range(10)} == {"0"}
