"""Lists of entries in pages by number, as agno's SQL has them."""

from __future__ import annotations

from typing import Unpack

from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.base import Page
from agno_clouddb.repositories.entries import EntryFilters, Sort

__all__ = ["EntryLists"]


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

        of = ("entries", sort, *sorted(filters.items()), self._entry_writes)
        return await self._bookmarks.page(listed, of=of, limit=limit, page=page)
