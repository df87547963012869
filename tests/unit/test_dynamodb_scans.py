"""Scans: their requests, and cursors that were not made by them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.dynamodb.scans import SinceVersion, WholeTable, scan_of
from agno_clouddb.stores.dynamodb.tables import layouts
from agno_clouddb.stores.scans import encode_cursor

LAYOUTS = layouts("agno_")
SINCE = "00000000000a-0000-000000000000"
LATER = "00000000000b-0000-000000000000"
RUN = {"session_id": "s", "run_id": "r"}


def since_cursor(starts: Any) -> str:
    return encode_cursor("runs", SINCE, [json.dumps(starts)])


def test_everything_is_read_from_the_table_with_strong_consistency_and_without_payloads() -> None:
    made = scan_of(LAYOUTS["runs"], None, None, 1)
    assert isinstance(made, WholeTable)
    assert made.request(7) == {
        "TableName": "agno_runs",
        "ProjectionExpression": "#0, #1, #2",
        "ExpressionAttributeNames": {"#0": "session_id", "#1": "run_id", "#2": "version"},
        "ConsistentRead": True,
        "Limit": 7,
    }


def test_what_is_since_a_version_is_read_from_each_partition_of_the_index_by_version() -> None:
    made = scan_of(LAYOUTS["runs"], SINCE, None, 2)
    assert isinstance(made, SinceVersion)
    assert made.starts == ({}, {})
    assert made.request(1, {}, 7) == {
        "TableName": "agno_runs",
        "IndexName": "shard-version-index",
        "KeyConditionExpression": "#0 = :0 AND #1 >= :1",
        "ExpressionAttributeNames": {"#0": "shard", "#1": "version"},
        "ExpressionAttributeValues": {":0": {"S": "1"}, ":1": {"S": SINCE}},
        "Limit": 7,
    }
    start = {**RUN, "version": LATER}
    assert made.request(1, start, 7)["ExclusiveStartKey"] == {
        "shard": {"S": "1"},
        "session_id": {"S": "s"},
        "run_id": {"S": "r"},
        "version": {"S": LATER},
    }


def test_a_cursor_is_taken_up_also_after_the_number_of_partitions_was_raised() -> None:
    whole = scan_of(LAYOUTS["runs"], None, encode_cursor("runs", None, ["s", "r"]), 1)
    assert whole == WholeTable(LAYOUTS["runs"], RUN)
    starts: list[Any] = [None, {**RUN, "version": LATER}, {}]
    assert scan_of(LAYOUTS["runs"], SINCE, since_cursor(starts), 4) == SinceVersion(
        LAYOUTS["runs"], SINCE, (*starts, {})
    )


@pytest.mark.parametrize(
    ("since", "cursor"),
    [
        *((since, text) for since in (None, SINCE) for text in ("", "no JSON", "[" * 100_000, "null", "7", "[]", "{}")),
        (None, encode_cursor("runs", None, ["s"])),
        (None, encode_cursor("runs", None, ["s", "r", "x"])),
        (None, encode_cursor("runs", None, ["s", ""])),
        (None, encode_cursor("runs", None, ["s", "x" * 513])),
        (None, encode_cursor("runs", None, ["s", "\x1f"])),
        (None, encode_cursor("spans", None, ["s", "r"])),
        (None, encode_cursor("runs", SINCE, ["s", "r"])),
        (SINCE, encode_cursor("runs", None, ["[{}, {}]"])),
        (SINCE, encode_cursor("runs", LATER, ["[{}, {}]"])),
        (SINCE, encode_cursor("spans", SINCE, ["[{}, {}]"])),
        (SINCE, encode_cursor("runs", SINCE, ["no JSON"])),
        (SINCE, encode_cursor("runs", SINCE, ["[" * 100_000])),
        (SINCE, since_cursor("s")),
        (SINCE, since_cursor({})),
        (SINCE, since_cursor([0])),
        (SINCE, since_cursor([[]])),
        (SINCE, since_cursor([RUN])),
        (SINCE, since_cursor([{**RUN, "version": 1}])),
        (SINCE, since_cursor([{**RUN, "version": "\ud800"}])),
        (SINCE, since_cursor([{**RUN, "version": LATER, "more": "x"}])),
        (SINCE, since_cursor([{**RUN, "version": SINCE[:-1]}])),
        (SINCE, since_cursor([{}, {}, {}])),
    ],
)
def test_a_cursor_that_no_such_scan_has_made_is_invalid(since: str | None, cursor: str) -> None:
    with pytest.raises(InvalidRecord, match="cursor") as raised:
        scan_of(LAYOUTS["runs"], since, cursor, 2)
    assert (raised.value.path, raised.value.collection) == ("cursor", "runs")
