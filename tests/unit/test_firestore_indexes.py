"""Every query that the library can make is served by the generated indexes, by the rules that Firestore documents.

https://firebase.google.com/docs/firestore/query-data/index-overview: a query without equality filters that is ordered
by one field is served by that field's automatic index; one with equality filters by composite indexes that have some of
these fields each, all of them together, and all end in the query's order. Ranges must be on the field ordered by.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import pytest

from agno_clouddb.errors import QueryNotIndexed
from agno_clouddb.stores.base import Cursor, Query, Range
from agno_clouddb.stores.firestore.documents import RESERVED
from agno_clouddb.stores.firestore.indexes import firestore_indexes
from agno_clouddb.stores.firestore.names import Layout
from agno_clouddb.stores.firestore.queries import exact, structured
from agno_clouddb.stores.schema import COLLECTIONS, Collection

PREFIX = "x_"
LAYOUT = Layout("projects/p/databases/d/documents", PREFIX)
EQUAL, ASCENDING = 5, 1


def queries(declared: Collection) -> Iterator[Query]:
    sorts = {index.sort for index in declared.indexes}
    subsets = [each for n in range(len(declared.fields) + 1) for each in combinations(declared.fields, n)]
    ranged: list[str | None] = [None, *declared.fields]
    for equals, sort, descending, field in product(subsets, sorts, (False, True), ranged):
        query = Query(
            declared.name,
            sort,
            descending,
            "parent" if declared.parent else None,
            dict.fromkeys(equals, "value"),
            () if field is None else (Range(field, "a", "b"),),
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
    equal = {name for name, operator in filters(message) if operator == EQUAL}
    if any(name != sort for name, operator in filters(message) if operator != EQUAL):
        return False
    order = {"fieldPath": sort, "order": "ASCENDING" if direction == ASCENDING else "DESCENDING"}
    merged: set[str] = set()
    for index in generated["indexes"]:
        *prefix, end = index["fields"]
        names = {each["fieldPath"] for each in prefix}
        if index["collectionGroup"] == group and index["queryScope"] == "COLLECTION" and end == order:
            merged |= names if names <= equal else set()
    return equal <= merged


@pytest.mark.parametrize("declared", COLLECTIONS.values(), ids=COLLECTIONS)
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
    messages = [structured(query, LAYOUT) for declared in COLLECTIONS.values() for query in queries(declared)]
    for index in generated["indexes"]:
        without = {**generated, "indexes": [each for each in generated["indexes"] if each is not index]}
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


def test_payloads_are_exempt_and_time_to_live_is_on_in_every_collection() -> None:
    overrides = firestore_indexes(PREFIX)["fieldOverrides"]
    for group in ("x_sessions", "runs", "chunks"):
        assert {"collectionGroup": group, "fieldPath": "data", "indexes": []} in overrides
        assert {"collectionGroup": group, "fieldPath": "expires_at", "indexes": [], "ttl": True} in overrides


@pytest.mark.parametrize("declared", COLLECTIONS.values(), ids=COLLECTIONS)
def test_no_field_has_a_name_that_documents_use_themselves(declared: Collection) -> None:
    assert RESERVED.isdisjoint(declared.fields)
