"""Tables and index queries as derived from the schema."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.base import Cursor, Item, Key, Query, Range
from agno_clouddb.stores.dynamodb.expressions import Attribute, text
from agno_clouddb.stores.dynamodb.items import composite, row_of, to_attributes
from agno_clouddb.stores.dynamodb.lists import Plan, plan
from agno_clouddb.stores.dynamodb.tables import TableIndex, chunk_table, layouts
from agno_clouddb.stores.schema import COLLECTIONS, RUNS, SESSIONS, SHARD, Collection, Index

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


@pytest.mark.parametrize("name", sorted(COLLECTIONS))
def test_a_store_of_a_fan_out_has_an_index_by_version_on_each_table_and_no_other_store_has(name: str) -> None:
    table, replicated = LAYOUTS[name].table, LAYOUTS[name].replicated()
    index = {
        "IndexName": "shard-version-index",
        "KeySchema": [
            {"AttributeName": "shard", "KeyType": "HASH"},
            {"AttributeName": "version", "KeyType": "RANGE"},
        ],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }
    before = table.create_request().get("GlobalSecondaryIndexes", [])
    assert index not in before
    assert replicated.create_request()["GlobalSecondaryIndexes"] == [*before, index]
    assert {each["AttributeName"] for each in replicated.create_request()["AttributeDefinitions"]} == {
        *(each["AttributeName"] for each in table.create_request()["AttributeDefinitions"]),
        "shard",
        "version",
    }


def test_what_a_fan_out_keeps_for_itself_has_an_ordinary_table_without_an_index_by_version() -> None:
    request = LAYOUTS["replication"].replicated().create_request()
    assert request["TableName"] == "agno_replication"
    assert [each["AttributeName"] for each in request["KeySchema"]] == ["id"]
    assert [each["IndexName"] for each in request["GlobalSecondaryIndexes"]] == ["target-missed-index"]


@pytest.mark.parametrize(
    "declared",
    [
        Collection("things", "id", ("a", "b", "b_sort"), (Index("a", "b"), Index("b", "a"))),
        Collection("things", "b_sort", ("a", "b"), (Index("a", "b"), Index("b", "a"))),
        Collection("things", "id", ("version",), ()),
        Collection("things", "id", ("id",), ()),
        Collection("things", "id", ("p",), (), parent_field="p"),
        Collection("things", "id", ("a",), (Index("a", "id"),)),
    ],
)
def test_an_attribute_cannot_serve_in_two_ways(declared: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agno_clouddb.stores.dynamodb.tables.DECLARED", {"things": declared})
    with pytest.raises(ValueError, match="things"):
        layouts("")


@pytest.mark.parametrize(
    "indexes", [(Index("a", "b"), Index("b", "a")), (Index("b", "b"),), (Index("a", "b", include=("b",)),)]
)
def test_a_field_that_selects_and_orders_is_two_attributes(
    indexes: tuple[Index, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = Collection("things", "id", ("a", "b"), indexes)
    monkeypatch.setattr("agno_clouddb.stores.dynamodb.tables.DECLARED", {"things": declared})
    layout = layouts("")["things"]
    assert layout.composites["b"] == "b_sort"
    assert layout.table.global_[0] == TableIndex(
        indexes[0].name, indexes[0].partition, layout.sort_attribute(indexes[0]), indexes[0].include
    )
    item = Item(Key("things", "i"), "v", {"a": "1", "b": "2"})
    attributes = to_attributes(item, layout, 1)
    assert (attributes["b"], attributes["b_sort"]) == ({"S": "2"}, {"S": "2\x1fi"})
    assert row_of(attributes, layout).item.fields == item.fields


def test_a_field_that_selects_or_orders_only_is_one_attribute() -> None:
    for name in (SESSIONS.name, RUNS.name):
        layout = LAYOUTS[name]
        assert all(name == attribute for name, attribute in layout.composites.items())
        for index, kept in zip(layout.collection.indexes, (*layout.table.local, *layout.table.global_), strict=True):
            assert (kept.name, kept.partition, kept.sort) == (index.name, index.partition, index.sort)


def test_metrics_are_listed_by_their_date_and_in_order_of_it() -> None:
    by_date = Query("metrics", "aggregation_period", equals={"date": "2025-01-01"})
    in_order = Query("metrics", "date", equals={"bucket": "ann"}, ranges=(Range("date", "2025-01-01"),))
    assert key_condition(planned(by_date)) == "date = 2025-01-01"
    assert key_condition(planned(in_order)) == "bucket = ann AND date_sort > 2025-01-01"
    assert [planned(each).request("x")["IndexName"] for each in (by_date, in_order)] == [
        "date-aggregation_period-index",
        "bucket-date-index",
    ]


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
    assert (made.index, made.filter, made.exact) == (
        Index(SHARD, "updated_at", made.index.include),
        Attribute("user_id").equals(text("ann")),
        False,
    )
    assert planned(replace(BY_UPDATE, equals={"user_id": "ann", "session_type": "agent"})).exact
    assert not planned(replace(BY_USER, equals={"user_id": "ann", "session_type": "agent"})).exact
    assert not planned(replace(BY_USER, contains={"session_name": "x"})).exact
    assert not planned(replace(BY_USER, ranges=(Range("updated_at", "a"),))).exact
    assert planned(replace(BY_USER, ranges=(Range("created_at", "a"),))).exact


def test_each_of_several_values_of_the_partition_is_read_once() -> None:
    made = planned(Query("evals", "created_at", any_of={"eval_type": ("b", "a", "b")}), shards=3)
    assert (made.partitions, made.filter, made.exact) == (("b", "a"), None, True)


def test_several_values_of_a_field_that_the_index_projects_are_filtered_by_the_service() -> None:
    made = planned(replace(BY_UPDATE, any_of={"user_id": ("ann", "bob", "ann")}))
    assert (made.filter, made.exact) == (Attribute("user_id").is_in([text("ann"), text("bob")]), True)


def test_several_values_of_another_field_are_left_to_the_items() -> None:
    made = planned(Query("evals", "created_at", equals={"user_id": "ann"}, any_of={"model_id": ("m", "n")}))
    assert (made.partitions, made.filter, made.exact) == (("ann",), None, False)


@pytest.mark.parametrize(
    ("equals", "any_of", "partitions"),
    [
        ({"eval_type": "a"}, {"eval_type": ("a", "b")}, ("a",)),
        ({"eval_type": "c"}, {"eval_type": ("a", "b")}, ()),
        ({"eval_type": "a", "model_id": "m"}, {"model_id": ("n",)}, ()),
    ],
)
def test_a_value_and_several_values_of_one_field_must_both_hold(
    equals: dict[str, str], any_of: dict[str, tuple[str, ...]], partitions: tuple[str, ...]
) -> None:
    made = planned(Query("evals", "created_at", equals=equals, any_of=any_of))
    assert (made.partitions, made.empty) == (partitions, not partitions)


def test_an_index_tells_its_own_fields_of_what_it_alone_lists() -> None:
    every, one = Query("sessions", "updated_at"), Query("evals", "created_at", equals={"eval_type": "a"})
    assert all(planned(every).tells(name) for name in ("user_id", "component_id", "updated_at"))
    assert planned(one).tells("eval_type")
    assert not planned(every).tells("session_name")
    assert not planned(one).tells("model_id")
    assert not planned(replace(one, equals={"eval_type": "a", "model_id": "m"})).tells("eval_type")


def test_a_list_of_all_items_reads_every_shard() -> None:
    assert planned(BY_UPDATE, shards=3).partitions == ("0", "1", "2")
    assert planned(BY_USER, shards=3).partitions == ("ann",)
    assert planned(Query("runs", "run_index", parent="s"), shards=3).partitions == ("s",)


def test_a_place_reads_as_value_and_id() -> None:
    assert composite("2025", "a#b") == "2025\x1fa#b"
