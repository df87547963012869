"""db.entries: what an agent runtime keeps beside its records."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterable
from typing import Literal, TypedDict, Unpack

from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.base import Page, check_consistency
from agno_clouddb.repositories.listing import Filter, Lists
from agno_clouddb.repositories.records import Records, checked_ids
from agno_clouddb.stores.base import Consistency

__all__ = ["Entries", "EntryFilters"]

Sort = Literal["created_at", "-created_at", "due", "-due"]


class EntryFilters(TypedDict, total=False):
    """What a list of entries is narrowed by; by kind, group or state at least."""

    kind: str | None
    """Only entries of this kind."""
    group: str | None
    """Only entries of this group."""
    state: str | None
    """Only entries in this state."""
    due_to: str | None
    """Only entries that are due before this, as text."""


class Entries(Records[Entry]):
    """What an agent runtime keeps beside its records. Reads are strongly consistent unless the call says otherwise."""

    lists = Lists(
        Entry,
        filters={
            "kind": Filter("equal", "kind"),
            "group": Filter("equal", "group"),
            "state": Filter("equal", "state"),
            "due_to": Filter("to", "due", text=True),
        },
        sorts=("created_at", "due"),
    )

    async def create(self, record: Entry) -> Entry:
        """Write an entry that is not stored yet, in one request.

        Returns:
            What is stored, with its version.

        Raises:
            ConflictError: there is an entry of this id.
            InvalidRecord, RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        return await self._apply(self._creation(record, None))

    async def get_many(
        self, ids: Iterable[str], *, consistency: Consistency | None = None
    ) -> builtins.list[Entry | None]:
        """Several entries, in one request for each hundred.

        Args:
            ids: which ones.
            consistency: as in ``get``.

        Returns:
            In the order of the ids; None for one that is not there.

        Raises:
            InvalidRecord, NotProvisioned, Throttled, StoreUnavailable: as in ``get``.
        """
        consistency = check_consistency(consistency, self._connection.consistency)
        keys = [self._key(each) for each in checked_ids(ids)]
        if not keys:
            return []
        batch = await self._store.get(keys, consistency=consistency)
        return [None if item is None else self._read(item, batch.degraded) for item in batch.items]

    async def list(
        self,
        *,
        sort: Sort = "-created_at",
        limit: int = 20,
        cursor: str | None = None,
        consistency: Consistency | None = None,
        **filters: Unpack[EntryFilters],
    ) -> Page[Entry]:
        """One page of entries, the same on every store.

        Args:
            sort: ``-created_at`` for the latest first, ``created_at``, or by ``due``, which lists only what is due.
            limit: how many, 1 to 1,000. The page is full while there is more.
            cursor: go on after the page that carried it, with the same filters and sort.
            consistency: as in ``get``.
            **filters: what to list, see ``EntryFilters``; all of them must hold.

        Raises:
            InvalidRecord: an argument is unknown or out of its range, or the cursor is of another list.
            QueryNotIndexed: neither kind, group nor state is given, or a list by due has no kind.
            IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        return await self._page(self.lists.listing(filters, sort), limit, cursor, consistency)

    async def iterate(
        self,
        *,
        sort: Sort = "-created_at",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[EntryFilters],
    ) -> AsyncIterator[Entry]:
        """All entries that ``list`` would list, holding one page of ``page_size`` at a time."""
        async for record in self._iterate(self.lists.listing(filters, sort), page_size, consistency):
            yield record

    async def count(self, **filters: Unpack[EntryFilters]) -> int:
        """How many entries ``list`` would list. Arguments and errors are those of ``list``."""
        return await self._count(filters)
