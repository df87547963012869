"""Columns: the order that agno's rows have by any of them, as its SQLite database has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from agno_clouddb.integrations.agno.pages import numbered
from agno_clouddb.integrations.agno.shapes import moment

__all__ = ["cut", "in_order", "placed"]

T = TypeVar("T")

_RECENT = 5  # seconds


def placed(second: int) -> datetime:
    """A moment in a second that agno names: the later in it the later it is called, so that what comes later is later.

    agno knows moments to the second, and lists what it is not told to sort in the order in which it was written.

    Args:
        second: since the epoch. One up to five seconds ago has passed between agno's making a row and writing it.
    """
    start = moment(second)
    assert start is not None
    late = datetime.now(start.tzinfo) - start
    if not timedelta() <= late < timedelta(seconds=_RECENT):
        return start
    return start + late / (_RECENT + 1)  # which is within the second, also when it is rounded


def in_order(
    rows: Sequence[T], value: Callable[[T], Any], *, ascending: bool, as_json: bool = False, none_first: bool = False
) -> list[T]:
    """Rows by a column; those with the same value stay in the order in which they are.

    Args:
        rows: what to order.
        value: the value of the column.
        ascending: the least first; or else the greatest.
        as_json: the column is compared as JSON text, which None too is then.
        none_first: None comes first either way; else it is the least.
    """

    def key(row: T) -> tuple[bool, Any]:
        found = json.dumps(value(row)) if as_json else value(row)
        none_is_greatest = none_first and not ascending
        return (found is None) is none_is_greatest, found

    return sorted(rows, key=key, reverse=not ascending)


def cut(rows: Sequence[T], limit: int | None, page: int | None) -> list[T]:
    """The rows of one page; all of them without a limit."""
    limit, page = numbered(limit, page)
    start = (limit or 0) * (page - 1)
    return list(rows[start : None if limit is None else start + limit])
