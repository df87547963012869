"""Pages by number, which agno asks for, over lists that go on from cursors.

The start of each page that was served is remembered, so that the page after it costs one page. A page that nobody came
to from the one before is reached by reading the list up to it, in the largest steps that there are.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeVar

from agno_clouddb.repositories.base import MAX_PAGE, Page

__all__ = ["Bookmarks", "numbered"]

T = TypeVar("T")

_REMEMBERED = 1_000
_SECONDS = 60.0


def numbered(limit: int | None, page: int | None) -> tuple[int | None, int]:
    """A limit and a page as SQLite takes them: below zero there is no limit, and before the first page is the first."""
    return (None if limit is None or limit < 0 else limit), max(page or 1, 1)


@dataclass(frozen=True, slots=True)
class _Bookmark:
    cursor: str | None
    until: float  # by the monotonic clock, in seconds


class Bookmarks:
    """Where pages begin, for lists that were read before."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[Hashable, int], _Bookmark] = OrderedDict()

    async def page(
        self,
        call: Callable[[int, str | None], Awaitable[Page[T]]],
        *,
        of: Hashable,
        limit: int | None,
        page: int | None,
    ) -> list[T]:
        """The records of one page.

        Args:
            call: lists so many records, 1 to 1,000, from a cursor on.
            of: what is listed: the same for the same list.
            limit: how many records a page has; None or less than 0: all there are.
            page: which one, from 1 on; None or less: the first.
        """
        limit, page = numbered(limit, page)
        start = 0 if limit is None else limit * (page - 1)
        end = None if limit is None else start + limit
        if end == start:
            return []
        offset, cursor = self._nearest(of, start) if start else (0, None)
        found: list[T] = []
        while end is None or offset < end:
            size = MAX_PAGE if end is None else min(MAX_PAGE, (start if offset < start else end) - offset)
            answer = await call(size, cursor)
            if offset >= start:
                found += answer.items
            offset, cursor = offset + len(answer.items), answer.cursor
            if cursor is None:
                break
            if offset == end:
                self._remember((of, offset), cursor)
        return found

    def _nearest(self, of: Hashable, start: int) -> tuple[int, str | None]:
        """The last known place at or before a start."""
        now = time.monotonic()
        known = [
            (offset, place.cursor)
            for (listed, offset), place in self._places.items()
            if offset <= start and place.until > now and listed == of
        ]
        return max(known, default=(0, None), key=itemgetter(0))

    def _remember(self, place: tuple[Hashable, int], cursor: str) -> None:
        self._places[place] = _Bookmark(cursor, time.monotonic() + _SECONDS)
        self._places.move_to_end(place)
        if len(self._places) > _REMEMBERED:
            self._places.popitem(last=False)
