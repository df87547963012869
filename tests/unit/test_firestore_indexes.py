"""Every query that the library can make is served by the generated indexes, by the rules that Firestore documents.

https://firebase.google.com/docs/firestore/query-data/index-overview: a query without equality filters that is ordered
by one field is served by that field's automatic index; one with equality filters by composite indexes that have some of
these fields each, all of them together, and all end in the query's order. A filter IN is as many queries by equality,
which need the same indexes. Ranges must be on the field ordered by.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import pytest

from agno_clouddb.errors import QueryNotIndexed
from agno_clouddb.stores.base import Cursor, Query, Range
from agno_clouddb.stores.firestore.documents import RESERVED
from agno_clouddb.stores.firestore.indexes import firestore_indexes, indexes_for
from agno_clouddb.stores.firestore.names import Layout
from agno_clouddb.stores.firestore.queries import exact, structured
from agno_clouddb.stores.schema import DECLARED, Collection

PREFIX = "x_"
BY_START = Query("spans", "start_time", parent="t1")
LAYOUT = Layout("projects/p/databases/d/documents", PREFIX)
EQUAL, IN, ASCENDING = 5, 8, 1


def queries(declared: Collection) -> Iterator[Query]:
    """Every shape of query by up to three fields, each of them with one value or with several."""
    sorts = {index.sort for index in declared.indexes}
    fields = declared.fields
    largest = min(len(fields), 3)
    subsets = [each for n in range(largest + 1) for each in combinations(fields, n)]
    splits = [(subset[:n], subset[n:]) for subset in subsets for n in range(len(subset) + 1)]
    ranged = [None, *fields] if len(fields) <= 7 else [None, *sorts, fields[-1]]
    for (equals, several), sort, descending, field in product(splits, sorts, (False, True), ranged):
        query = Query(
            declared.name,
            sort,
            descending,
            "parent" if declared.parent else None,
            equals=dict.fromkeys(equals, "value"),
            any_of=dict.fromkeys(several, ("value", "other", "value")),
            ranges=() if field is None else (Range(field, "a", "b"),),
        )
        try:
            query.check()
        except QueryNotIndexed:
            continue
        yield query


def filters(message: Any) -> list[tuple[str, int]]:
    return [
        (each.field_filter.field.field_path, each.field_filter.op) for each in message.where.composite_filter.filters
    ]


def served(message: Any, generated: dict[str, Any]) -> bool:
    group = message.from_[0].collection_id
    orders = [(each.field.field_path, each.direction) for each in message.order_by]
    (sort, direction), (last, last_direction) = orders
    exempt = {each["fieldPath"] for each in generated["fieldOverrides"] if each["collectionGroup"] == group}
    if last != "__name__" or last_direction != direction or sort in exempt:
        return False
    equal = {name for name, operator in filters(message) if operator in (EQUAL, IN)}
    if any(name != sort for name, operator in filters(message) if operator not in (EQUAL, IN)):
        return False
    order = {"fieldPath": sort, "order": "ASCENDING" if direction == ASCENDING else "DESCENDING"}
    merged: set[str] = set()
    for index in generated["indexes"]:
        *prefix, end = index["fields"]
        names = {each["fieldPath"] for each in prefix}
        if index["collectionGroup"] == group and index["queryScope"] == "COLLECTION" and end == order:
            merged |= names if names <= equal else set()
    return equal <= merged


@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
def test_every_query_is_served(declared: Collection) -> None:
    generated = firestore_indexes(PREFIX)
    checked = 0
    for query in queries(declared):
        message = structured(query, LAYOUT, limit=20, cursor=Cursor("value", "id"))
        assert served(message, generated), query
        checked += 1
    assert checked > len(declared.indexes)


def test_each_composite_index_is_needed() -> None:
    generated = firestore_indexes(PREFIX)
    for declared in DECLARED.values():
        group = LAYOUT.collection_id(declared.name)
        indexes = [each for each in generated["indexes"] if each["collectionGroup"] == group]
        messages = [structured(query, LAYOUT) for query in queries(declared) if len(query.equals) == 1]
        for index in indexes:
            without = {**generated, "indexes": [each for each in indexes if each is not index]}
            assert not all(served(message, without) for message in messages), index


def test_a_filter_of_an_indexed_pair_is_applied_by_firestore() -> None:
    query = Query("sessions", "updated_at", equals={"user_id": "ann", "component_id": "support"})
    assert filters(structured(query, LAYOUT)) == [("user_id", EQUAL), ("component_id", EQUAL)]
    assert exact(query)


@pytest.mark.parametrize(
    "query",
    [
        Query("sessions", "created_at", equals={"user_id": "ann", "session_name": "chat"}),
        Query("sessions", "created_at", ranges=(Range("updated_at", "a"),)),
        Query("sessions", "created_at", contains={"session_name": "chat"}),
    ],
)
def test_other_filters_are_left_to_the_store(query: Query) -> None:
    assert not exact(query)
    assert {name for name, _ in filters(structured(query, LAYOUT))} <= {"user_id"}


def values_of(query: Query) -> dict[str, list[str]]:
    """The values that Firestore is asked for in filters by equality and IN."""
    found = {}
    for each in structured(query, LAYOUT).where.composite_filter.filters:
        value = each.field_filter.value
        if each.field_filter.op == EQUAL:
            found[each.field_filter.field.field_path] = [value.string_value]
        elif each.field_filter.op == IN:
            found[each.field_filter.field.field_path] = [one.string_value for one in value.array_value.values]
    return found


def test_several_values_of_an_indexed_pair_are_a_filter_in_and_one_is_a_filter_by_equality() -> None:
    query = Query("memories", "updated_at", any_of={"user_id": ("b", "a", "b"), "agent_id": ("x", "x")})
    assert sorted(filters(structured(query, LAYOUT))) == [("agent_id", EQUAL), ("user_id", IN)]
    assert values_of(query) == {"agent_id": ["x"], "user_id": ["b", "a"]}
    assert exact(query)


def numbered(count: int) -> tuple[str, ...]:
    return tuple(f"{n:02}" for n in range(count))


@pytest.mark.parametrize(
    ("query", "native", "all_native"),
    [
        # As many disjunctions as there may be, and one more.
        (Query("memories", "updated_at", any_of={"user_id": numbered(30)}), {"user_id"}, True),
        (
            Query("memories", "updated_at", any_of={"user_id": numbered(10), "agent_id": numbered(3)}),
            {"user_id", "agent_id"},
            True,
        ),
        (
            Query("memories", "updated_at", any_of={"user_id": numbered(16), "agent_id": numbered(2)}),
            {"user_id"},
            False,
        ),
        # 24 disjunctions of four filters, the sort orders and the path of a parent are 99.
        (
            Query(
                "memories",
                "updated_at",
                equals={"agent_id": "a"},
                any_of={"user_id": numbered(24)},
                ranges=(Range("updated_at", "a", "b"),),
            ),
            {"agent_id", "user_id"},
            True,
        ),
        (
            Query(
                "memories",
                "updated_at",
                equals={"agent_id": "a"},
                any_of={"user_id": numbered(25)},
                ranges=(Range("updated_at", "a", "b"),),
            ),
            {"agent_id"},
            False,
        ),
        # What the field must be by equality decides.
        (Query("memories", "updated_at", equals={"user_id": "a"}, any_of={"user_id": ("a", "b")}), {"user_id"}, True),
        (Query("memories", "updated_at", equals={"user_id": "a"}, any_of={"user_id": ("b", "c")}), {"user_id"}, False),
        # Fields without an index with the order.
        (Query("knowledge", "created_at", any_of={"updated_at": ("a", "b")}), set(), False),
    ],
)
def test_filters_that_would_be_over_the_limits_are_left_to_the_store(
    query: Query, native: set[str], all_native: bool
) -> None:
    query.check()
    assert values_of(query).keys() == native
    assert exact(query) is all_native


@pytest.mark.parametrize(("values", "alone"), [(("2026-01-02",), True), (("2026-01-03", "2026-01-02"), False)])
def test_several_values_of_the_sort_field_are_a_range(values: tuple[str, ...], alone: bool) -> None:
    query = Query("metrics", "date", any_of={"date": values})
    message = structured(query, LAYOUT)
    bounds = [each.field_filter.value.string_value for each in message.where.composite_filter.filters]
    assert [name for name, _ in filters(message)] == ["date", "date"]
    assert values_of(query) == {}
    assert bounds == [min(values), max(values)]
    assert exact(query) is alone


def test_the_indexes_that_a_query_needs_are_named_as_they_are_deployed() -> None:
    one = Query("memories", "updated_at", descending=True, any_of={"user_id": ("a", "b")})
    assert list(map(str, indexes_for(one, "agno_"))) == ["agno_memories (user_id, updated_at DESCENDING)"]
    two = Query("sessions", "created_at", equals={"user_id": "a", "component_id": "c", "session_name": "n"})
    deployed = firestore_indexes(PREFIX)["indexes"]
    assert all(each.as_json() in deployed for each in indexes_for(two, PREFIX))
    assert [each.field for each in indexes_for(two, PREFIX)] == ["component_id", "user_id"]
    assert list(map(str, indexes_for(BY_START, "agno_"))) == ["spans (start_time ASCENDING)"]


def test_payloads_are_exempt_and_time_to_live_is_on_in_every_collection() -> None:
    overrides = firestore_indexes(PREFIX)["fieldOverrides"]
    groups = [LAYOUT.collection_id(name) for name in DECLARED]
    assert {"x_sessions", "runs", "spans", "x_traces"} <= set(groups)
    for group in (*groups, "chunks"):
        assert {"collectionGroup": group, "fieldPath": "data", "indexes": []} in overrides
        assert {"collectionGroup": group, "fieldPath": "expires_at", "indexes": [], "ttl": True} in overrides


def test_the_indexes_are_fewer_than_a_database_may_have() -> None:
    # https://firebase.google.com/docs/firestore/quotas#indexes: 200 without billing.
    assert len(firestore_indexes(PREFIX)["indexes"]) <= 200


@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
def test_no_field_has_a_name_that_documents_use_themselves(declared: Collection) -> None:
    assert RESERVED.isdisjoint(declared.fields)
