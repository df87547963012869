"""Every query that a repository can make is served by an index that is declared, on DynamoDB and on Firestore.

No engine shows it: the emulator answers without composite indexes, and a query whose own index is missing is still
answered, by reading everything in its order. So what serves each list is said here once more, by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from agno_clouddb import Database, QueryNotIndexed
from agno_clouddb.records.metrics import DAILY
from agno_clouddb.repositories.metrics_reading import EARLIEST_SESSION, runs_since, sessions_since
from agno_clouddb.stores.base import Cursor, Query
from agno_clouddb.stores.dynamodb.lists import plan
from agno_clouddb.stores.dynamodb.tables import layouts
from agno_clouddb.stores.firestore.indexes import firestore_indexes
from agno_clouddb.stores.firestore.names import Layout
from agno_clouddb.stores.firestore.queries import structured
from agno_clouddb.stores.firestore.scans import scan_query
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.schema import DECLARED, Index

DB = Database(MemoryStore())
REPOSITORIES = {
    name: getattr(DB, name) for name in ("sessions", "memories", "evals", "knowledge", "traces", "learnings", "entries")
}
LAYOUT = Layout("projects/p/databases/d/documents", "agno_")
EQUAL, IN, ASCENDING = 5, 8, 1

SERVED = {
    "sessions": {
        "created_at": {
            "": "shard-created_at-index",
            "user_id": "user_id-created_at-index",
            "component_id": "component_id-created_at-index",
            "session_type": "session_type-created_at-index",
        },
        "updated_at": dict.fromkeys(("", "user_id", "component_id", "session_type"), "shard-updated_at-index"),
    },
    "memories": {
        "updated_at": {
            "user_id": "user_id-updated_at-index",
            **dict.fromkeys(("", "agent_id", "team_id"), "shard-updated_at-index"),
        },
    },
    "evals": {
        "created_at": {
            **{
                name: f"{name}-created_at-index"
                for name in ("user_id", "agent_id", "team_id", "workflow_id", "eval_type")
            },
            **dict.fromkeys(("", "model_id"), "shard-created_at-index"),
        },
    },
    "knowledge": {
        "created_at": {
            "": "shard-created_at-index",
            **{name: f"{name}-created_at-index" for name in ("type", "status", "linked_to", "user_id", "audience")},
        },
    },
    "traces": {
        "start_time": {
            "": "shard-start_time-index",
            **{
                name: f"{name}-start_time-index"
                for name in ("session_id", "user_id", "run_id", "agent_id", "team_id", "workflow_id", "status")
            },
        },
    },
    "learnings": {
        "updated_at": {
            **{name: f"{name}-updated_at-index" for name in ("learning_type", "user_id", "entity_id")},
            **dict.fromkeys(
                ("", "namespace", "agent_id", "team_id", "workflow_id", "session_id", "entity_type"),
                "shard-updated_at-index",
            ),
        },
    },
    "entries": {
        "created_at": {name: f"{name}-created_at-index" for name in ("group", "state", "kind")},
        "due": {"kind": "kind-due-index"},
    },
}
"""By repository, order and filter: the index that serves the list."""

NEEDED = {("entries", "created_at"): {"group", "state", "kind"}, ("entries", "due"): {"kind"}}
"""By collection and order: the filters without one of which nothing is listed."""

JANUARY = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]


def metrics() -> Iterator[tuple[Query, str, set[str]]]:
    """What the lists of metrics ask for, and what daily metrics are calculated from."""
    days = [each.date() for each in JANUARY]
    for start, end in product((None, *days[:2]), (None, *days[1:])):
        for user_id, sign in product((None, "", "ann"), ("", "-")):
            index = "shard-date-index" if user_id is None else "bucket-date-index"
            if start is not None and start == end and user_id is None:
                index = "date-aggregation_period-index"
            # Nearly all are daily, so that next to nothing is read in vain.
            yield DB.metrics._listing(start, end, user_id, DAILY, f"{sign}date").query, index, {"aggregation_period"}
    changed, created = sessions_since(*JANUARY[:2])
    yield changed, "shard-updated_at-index", set()
    for query in (created, EARLIEST_SESSION):
        yield query, "shard-created_at-index", set()
    yield runs_since("p", JANUARY[0]), "session_id-run_index-index", set()


OTHERS = [
    *(
        (replace(query, descending=descending), index, set())
        for query, index in (
            (Query("runs", "run_index", parent="p"), "session_id-run_index-index"),
            (Query("spans", "start_time", parent="p"), "trace_id-start_time-index"),
            # What a fan-out has to send to a store, in the order in which the store missed it.
            (Query("replication", "missed", equals={"target": "value"}), "target-missed-index"),
            (Query("replication", "missed", any_of={"target": ("value", "other")}), "target-missed-index"),
        )
        for descending in (False, True)
    ),
    *metrics(),
]
"""What is not asked for by filters: the index that serves it, and the fields that are filtered beside it."""


def expected() -> Iterator[tuple[Query, str, set[str]]]:
    for name, orders in SERVED.items():
        for sort, filters in orders.items():
            for field, index in filters.items():
                for sign in ("-", ""):
                    given = {field: "value"} if field else {}
                    yield REPOSITORIES[name].lists.listing(given, f"{sign}{sort}").query, index, set()
    yield from OTHERS


def possible() -> Iterator[Query]:
    """Every query of every list, by up to three filters by value."""
    for repository in REPOSITORIES.values():
        by_value = [name for name, each in repository.lists.filters.items() if each.kind in ("equal", "any")]
        for names in (subset for size in range(4) for subset in combinations(by_value, size)):
            for sort in repository.lists.orders:
                query = repository.lists.listing(dict.fromkeys(names, "value"), sort).query
                needed = NEEDED.get((query.collection, query.sort))
                if needed is None or needed & query.equals.keys():
                    yield query
    yield from (query for query, *_ in OTHERS)


def problems(composites: dict[str, Any]) -> Iterator[str]:
    """What is not served as it should be, by the query."""
    tables = layouts("agno_")
    for query, name, beside in expected():
        try:
            index = query.index
        except QueryNotIndexed as error:
            yield f"{query.scope}: {error}"
            continue
        declared = tables[query.collection].table
        fields = {*query.equals, *query.any_of} - {index.partition, *index.include}
        made = {each.name for each in (*declared.local, *declared.global_)}
        planned = plan(query, None, tables[query.collection], 1)
        if index.name != name or fields != beside or name not in made or planned.exact == bool(beside):
            yield f"DynamoDB: {query.scope}: {index.name} serves it, with {sorted(fields)} filtered, and not {name}"
        message = structured(query, LAYOUT, limit=20, cursor=Cursor("value", "id"))
        native = {each.field_filter.field.field_path for each in message.where.composite_filter.filters}
        if missing := {*query.equals, *query.any_of} - native - beside:
            yield f"Firestore: {query.scope}: {sorted(missing)} is not filtered by the service"
    for query in possible():
        try:
            query.check()
        except QueryNotIndexed as error:
            yield f"{query.scope}: {error}"
            continue
        if not covered(structured(query, LAYOUT, limit=20, cursor=Cursor("value", "id")), composites):
            yield f"Firestore: {query.scope}: no composite index"

    yield from problems_of_scans(composites)


def problems_of_scans(generated: dict[str, Any]) -> Iterator[str]:
    """What is not served as it should be of the scans of every collection, all of it and by version."""
    for name, parts in product(DECLARED, (("path",), ("version", "path"))):
        since = None if len(parts) == 1 else "version"
        for after in (None, parts):
            message = scan_query(name, LAYOUT, limit=20, since=since, after=after)
            if not covered_scan(message, generated):
                yield f"Firestore: scan of {name} since {since}: no index"


def covered_scan(message: Any, generated: dict[str, Any]) -> bool:
    """Whether a scan is served, by the rules that Firestore documents.

    https://firebase.google.com/docs/firestore/query-data/index-overview: documents are in the order of their names
    without an index. The order by one field is an automatic index of a collection, unless an override replaces it; that
    of a collection group is none, and there only where an override has it.
    """
    (source,) = message.from_
    orders = [(each.field.field_path, each.direction) for each in message.order_by]
    assert len(message.where.composite_filter.filters) == 0
    if orders == [("__name__", ASCENDING)]:
        return True
    overrides = [
        each["indexes"]
        for each in generated["fieldOverrides"]
        if (each["collectionGroup"], each["fieldPath"]) == (source.collection_id, "version")
    ]
    needed = {"order": "ASCENDING", "queryScope": "COLLECTION_GROUP" if source.all_descendants else "COLLECTION"}
    found = any(needed in each for each in overrides) or (not overrides and not source.all_descendants)
    return found and orders == [("version", ASCENDING), ("__name__", ASCENDING)]


def covered(message: Any, generated: dict[str, Any]) -> bool:
    """Whether composite indexes serve a query, by the rules that Firestore documents.

    https://firebase.google.com/docs/firestore/query-data/index-overview: indexes are merged that have some of the
    equality fields each, all of them together, and end in the query's order.
    """
    group = message.from_[0].collection_id
    (sort, direction), _ = [(each.field.field_path, each.direction) for each in message.order_by]
    filters = [each.field_filter for each in message.where.composite_filter.filters]
    equal = {each.field.field_path for each in filters if each.op in (EQUAL, IN)}
    order = {"fieldPath": sort, "order": "ASCENDING" if direction == ASCENDING else "DESCENDING"}
    merged: set[str] = set()
    for index in generated["indexes"]:
        *prefix, end = index["fields"]
        names = {each["fieldPath"] for each in prefix}
        if index["collectionGroup"] == group and end == order and names <= equal:
            merged |= names
    return equal <= merged and all(each.field.field_path == sort for each in filters if each.op not in (EQUAL, IN))


def test_every_query_is_served_by_the_index_that_is_meant_for_it() -> None:
    assert list(problems(firestore_indexes())) == []


def test_the_indexes_in_the_documents_serve_every_query() -> None:
    text = (Path(__file__).parents[2] / "docs" / "firestore.indexes.json").read_text(encoding="utf-8")
    assert list(problems(json.loads(text))) == []


def test_every_index_that_is_declared_is_expected_to_serve_a_list() -> None:
    used = {(query.collection, name) for query, name, _ in expected()}
    assert used == {(each.name, index.name) for each in DECLARED.values() for index in each.indexes}


@pytest.mark.parametrize(
    ("name", "index"),
    [
        pytest.param(each.name, index, id=f"{each.name}-{index.name}")
        for each in DECLARED.values()
        for index in each.indexes
    ],
)
def test_without_an_index_the_queries_that_need_it_are_named(
    name: str, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    needing = [query.scope for query, serving, _ in expected() if query.collection == name and serving == index.name]
    declared = DECLARED[name]
    without = replace(declared, indexes=tuple(each for each in declared.indexes if each is not index))
    monkeypatch.setitem(DECLARED, name, without)
    found = list(problems(firestore_indexes()))
    assert needing
    for scope in needing:
        assert any(scope in problem for problem in found), (scope, found)


def test_without_a_composite_index_the_queries_that_need_it_are_named() -> None:
    generated = firestore_indexes()
    for index in generated["indexes"]:
        without = {**generated, "indexes": [each for each in generated["indexes"] if each is not index]}
        group = index["collectionGroup"].removeprefix("agno_")
        assert any(group in problem and "no composite index" in problem for problem in problems(without)), index


def test_without_the_override_that_a_scan_needs_the_scan_is_named() -> None:
    generated = firestore_indexes()
    overrides = [each for each in generated["fieldOverrides"] if each["fieldPath"] == "version"]
    assert [each["collectionGroup"] for each in overrides] == ["runs", "spans"]
    for override in overrides:
        automatic = [each for each in override["indexes"] if each["queryScope"] == "COLLECTION"]
        assert {each["order"] for each in automatic} == {"ASCENDING", "DESCENDING"}
        others = [each for each in generated["fieldOverrides"] if each is not override]
        for left in ([], [{**override, "indexes": automatic}]):
            found = list(problems_of_scans({**generated, "fieldOverrides": [*others, *left]}))
            assert set(found) == {f"Firestore: scan of {override['collectionGroup']} since version: no index"}


def test_a_version_whose_automatic_index_is_switched_off_is_named() -> None:
    generated = firestore_indexes()
    off = {"collectionGroup": "agno_sessions", "fieldPath": "version", "indexes": []}
    found = list(problems_of_scans({**generated, "fieldOverrides": [*generated["fieldOverrides"], off]}))
    assert set(found) == {"Firestore: scan of sessions since version: no index"}
