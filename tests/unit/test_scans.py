"""Cursors of scans: a place as text, for the scan that it was made in and no other."""

from __future__ import annotations

import json

import pytest

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.scans import decode_cursor, encode_cursor

SINCE = "000000000001-0000-0000000000aa"


@pytest.mark.parametrize("since", [None, SINCE])
@pytest.mark.parametrize("place", [("a/b", "é"), ("", '"\\', "\U0010ffff")])
def test_a_place_comes_back(since: str | None, place: tuple[str, ...]) -> None:
    cursor = encode_cursor("runs", since, place)
    assert cursor.isascii()
    assert decode_cursor(cursor, "runs", since, len(place)) == place


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "null", "0", "{}", "[]", '"runs"', '["runs"]', "[" * 100_000),
        json.dumps(["runs", None, "a"]),
        json.dumps(["runs", None, "a", "b", "c"]),
        json.dumps(["runs", None, "a", 1]),
        json.dumps(["runs", None, "a", "\ud800"]),
        json.dumps(["sessions", None, "a", "b"]),
        json.dumps(["runs", SINCE, "a", "b"]),
        encode_cursor("runs", None, ("a", "b"))[:-1],
    ],
)
def test_what_is_no_cursor_of_the_same_scan_is_invalid(cursor: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        decode_cursor(cursor, "runs", None, 2)
    assert (caught.value.path, caught.value.collection) == ("cursor", "runs")
