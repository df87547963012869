"""Entries: what an agent runtime keeps beside its records."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from agno_clouddb.records.base import Record
from agno_clouddb.stores.schema import ENTRIES, Collection

__all__ = ["Entry"]


class Entry(Record):
    """One of the small things that an agent runtime keeps, such as a schedule, an approval or a service account.

    Args:
        id: unique in the database; begins with the kind.
        kind: what it is, such as ``schedule``.
        group: what it belongs to, such as the schedule of a scheduled run; begins with the kind.
        state: what state it is in; begins with the kind.
        due: what entries of its kind are ordered by when it is asked what is to be done; text whose order is that of
            the moments, such as seconds since the epoch in twelve digits.
        data: all else, any JSON object.
        created_at: when it was first written; set by the library when None.
        updated_at: when it was last written; set by the library.
    """

    collection: ClassVar[Collection] = ENTRIES

    id: str
    kind: str
    group: str | None = None
    state: str | None = None
    due: str | None = None
    data: dict[str, Any]
    created_at: datetime | None = None
    updated_at: datetime | None = None
