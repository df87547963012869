"""Tables and index queries as derived from the schema."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.base import Cursor, Query, Range
from agno_clouddb.stores.dynamodb.items import composite
from agno_clouddb.stores.dynamodb.lists import Plan, plan
from agno_clouddb.stores.dynamodb.tables import chunk_table, layouts
from agno_clouddb.stores.schema import RUNS, SESSIONS, SHARD, Collection, Index

LAYOUTS = layouts("agno_")
BY_USER = Query("sessions", "created_at", equals={"user_id": "ann"})
BY_UPDATE = Query("sessions", "updated_at")


def planned(query: Query, cursor: Cursor | None = None, shards: int = 1) -> Plan:
    return plan(query, cursor, LAYOUTS[query.collection], shards)


def key_condition(made: Plan) -> str:
    """The key condition with its placeholders filled in."""
    request = made.request(made.partitions[0])
    said: str = request["KeyConditionExpression"]
    for name, attribute in request["ExpressionAttributeNames"].items():
        said = said.replace(name, attribute)
    for name, value in request["ExpressionAttributeValues"].items():
        said = said.replace(name, value["S"])
    return said.replace("\x1f", "|")


def test_children_are_kept_under_their_parent_with_a_local_index() -> None:
    request = LAYOUTS[RUNS.name].table.create_request()
    assert request["TableName"] == "agno_runs"
    assert [each["AttributeName"] for each in request["KeySchema"]] == ["session_id", "run_id"]
    (index,) = request["LocalSecondaryIndexes"]
    assert index["IndexName"] == "session_id-run_index-index"
    assert index["Projection"] == {"ProjectionType": "KEYS_ONLY"}
    assert "GlobalSecondaryIndexes" not in request


def test_other_indexes_are_global_and_project_what_is_declared() -> None:
    request = LAYOUTS[SESSIONS.name].table.create_request()
    assert [each["AttributeName"] for each in request["KeySchema"]] == ["session_id"]
    projected = {each["IndexName"]: each["Projection"] for each in request["GlobalSecondaryIndexes"]}
    assert projected["user_id-created_at-index"] == {"ProjectionType": "KEYS_ONLY"}
    assert projected["shard-updated_at-index"]["NonKeyAttributes"] == ["user_id", "component_id", "session_type"]
    assert len(projected) == len(SESSIONS.indexes)


def test_exactly_the_key_attributes_are_defined() -> None:
    for table in (*(layout.table for layout in LAYOUTS.values()), chunk_table("agno_")):
        request = table.create_request()
        schemas = [request["KeySchema"]]
        for kind in ("LocalSecondaryIndexes", "GlobalSecondaryIndexes"):
            schemas += [index["KeySchema"] for index in request.get(kind, ())]
        used = {each["AttributeName"] for schema in schemas for each in schema}
        assert {each["AttributeName"] for each in request["AttributeDefinitions"]} == used


@pytest.mark.parametrize(
    "declared",
    [
        Collection("things", "id", ("a", "b"), (Index("a", "b"), Index("b", "a"))),
        Collection("things", "id", ("a", "b"), (Index("a", "b", include=("b",)),)),
        Collection("things", "id", ("version",), ()),
        Collection("things", "id", ("id",), ()),
        Collection("things", "id", ("p",), (), parent_field="p"),
        Collection("things", "id", ("a",), (Index("a", "id"),)),
    ],
)
def test_a_field_cannot_serve_in_two_ways(declared: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agno_clouddb.stores.dynamodb.tables.COLLECTIONS", {"things": declared})
    with pytest.raises(ValueError, match="things"):
        layouts("")


@pytest.mark.parametrize(
    ("limits", "cursor", "ascending", "descending"),
    [
        ((None, None), None, "", ""),
        (("b", None), None, " AND created_at > b", " AND created_at > b"),
        ((None, "d"), None, " AND created_at < d", " AND created_at < d"),
        (("b", "d"), None, " AND created_at BETWEEN b AND d", " AND created_at BETWEEN b AND d"),
        ((None, None), Cursor("c", "i"), " AND created_at > c|i", " AND created_at < c|i"),
        (
            ("b", "d"),
            Cursor("c", "i"),
            " AND created_at BETWEEN c|i AND d",
            " AND created_at BETWEEN b AND c|i",
        ),
        # A cursor from before or after the range, as of a page of another store, widens nothing.
        (("b", None), Cursor("a", "i"), " AND created_at > b", " AND created_at BETWEEN b AND a|i"),
        ((None, "b"), Cursor("c", "i"), " AND created_at BETWEEN c|i AND b", " AND created_at < b"),
    ],
)
def test_range_and_cursor_become_one_condition_on_the_sort_key(
    limits: tuple[str | None, str | None], cursor: Cursor | None, ascending: str, descending: str
) -> None:
    query = replace(BY_USER, ranges=(Range("created_at", *limits),))
    assert key_condition(planned(query, cursor)) == "user_id = ann" + ascending
    assert key_condition(planned(replace(query, descending=True), cursor)) == "user_id = ann" + descending


@pytest.mark.parametrize(
    ("limits", "cursor", "empty"),
    [
        (("b", "b"), None, True),
        (("c", "b"), None, True),
        ((None, ""), None, True),
        (("", None), None, False),
        ((None, "b"), Cursor("b", "i"), True),
        ((None, "b"), Cursor("a", "i"), False),
    ],
)
def test_bounds_that_exclude_each_other_need_no_request(
    limits: tuple[str | None, str | None], cursor: Cursor | None, empty: bool
) -> None:
    assert planned(replace(BY_USER, ranges=(Range("created_at", *limits),)), cursor).empty is empty


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor("a\x01", "i"),
        Cursor("x" * 513, "i"),
        Cursor("a", "i" * 513),
        Cursor("\ud800", "i"),
        Cursor("a", "\ud800"),
    ],
)
def test_a_cursor_that_no_item_can_have_is_invalid(cursor: Cursor) -> None:
    with pytest.raises(InvalidRecord, match="cursor"):
        planned(BY_USER, cursor)


def test_a_range_that_no_value_can_have_is_invalid() -> None:
    for value in ("a\n", "x" * 513, "\ud800"):
        for limits in (Range("created_at", value), Range("created_at", None, value)):
            with pytest.raises(InvalidRecord, match="created_at"):
                planned(replace(BY_USER, ranges=(limits,)))


def test_fields_that_the_index_projects_are_filtered_by_the_service() -> None:
    made = planned(replace(BY_UPDATE, equals={"user_id": "ann", "session_name": "x"}))
    assert (made.index, made.filters, made.exact) == (
        Index(SHARD, "updated_at", made.index.include),
        (("user_id", "ann"),),
        False,
    )
    assert planned(replace(BY_UPDATE, equals={"user_id": "ann", "session_type": "agent"})).exact
    assert not planned(replace(BY_USER, equals={"user_id": "ann", "session_type": "agent"})).exact
    assert not planned(replace(BY_USER, contains={"session_name": "x"})).exact
    assert not planned(replace(BY_USER, ranges=(Range("updated_at", "a"),))).exact
    assert planned(replace(BY_USER, ranges=(Range("created_at", "a"),))).exact


def test_a_list_of_all_items_reads_every_shard() -> None:
    assert planned(BY_UPDATE, shards=3).partitions == ("0", "1", "2")
    assert planned(BY_USER, shards=3).partitions == ("ann",)
    assert planned(Query("runs", "run_index", parent="s"), shards=3).partitions == ("s",)


def test_a_place_reads_as_value_and_id() -> None:
    assert composite("2025", "a#b") == "2025\x1fa#b"
