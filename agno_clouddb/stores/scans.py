"""Cursors of scans: a place in a collection as text, which goes on in another process too."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.items import is_encodable

__all__ = ["decode_cursor", "encode_cursor"]


def encode_cursor(collection: str, since: str | None, place: Sequence[str]) -> str:
    """The cursor of a scan that has come to a place.

    Args:
        collection: what is scanned.
        since: the version that the scan begins at, None for everything.
        place: of the last entry, in the terms of the store.
    """
    return json.dumps([collection, since, *place], separators=(",", ":"))


def decode_cursor(cursor: str, collection: str, since: str | None, parts: int) -> tuple[str, ...]:
    """The place in a cursor of the same scan.

    Args:
        cursor: the text.
        collection: what is scanned now.
        since: the version that the scan begins at, None for everything.
        parts: how many texts a place has.

    Raises:
        InvalidRecord: ``encode_cursor`` did not make it, or for another scan.
    """
    try:
        made = json.loads(cursor)
    except (ValueError, TypeError, RecursionError):
        made = None
    place = tuple(made[2:]) if isinstance(made, list) and made[:2] == [collection, since] else ()
    if len(place) != parts or not all(isinstance(each, str) and is_encodable(each) for each in place):
        raise InvalidRecord("cursor", "is not one of a scan like this, of this store", collection=collection)
    return place
