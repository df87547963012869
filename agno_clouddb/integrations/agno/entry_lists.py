"""Lists of entries in pages by number, as agno's SQL has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, Unpack

from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.base import Page
from agno_clouddb.repositories.entries import EntryFilters, Sort

__all__ = ["EntryLists", "cut"]

T = TypeVar("T")


class EntryLists(Family):
    """A family of calls whose rows are kept as entries."""

    _entry_writes = 0
    """How many were made by this database: the place of a page is not remembered over one."""

    async def _entry_page(
        self, limit: int | None, page: int | None, *, sort: Sort = "-created_at", **filters: Unpack[EntryFilters]
    ) -> list[Entry]:
        """One page of a list of entries that an index serves; arguments are those of agno's lists."""
        entries = await self._entries()

        async def listed(size: int, cursor: str | None) -> Page[Entry]:
            return await entries.list(sort=sort, limit=size, cursor=cursor, **filters)

        limit, page = _numbered(limit, page)
        of = ("entries", sort, *sorted(filters.items()), self._entry_writes)
        return await self._bookmarks.page(listed, of=of, limit=limit, page=page)


def _numbered(limit: int | None, page: int | None) -> tuple[int | None, int]:
    """A limit and a page as SQLite takes them: below zero there is no limit, and before the first page is the first."""
    return (None if limit is None or limit < 0 else limit), max(page or 1, 1)


def cut(rows: Sequence[T], limit: int | None, page: int | None) -> list[T]:
    """One page of rows that were read whole."""
    limit, page = _numbered(limit, page)
    start = (limit or 0) * (page - 1)
    return list(rows[start : None if limit is None else start + limit])
