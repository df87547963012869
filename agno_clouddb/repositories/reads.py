"""Reading records: by id, and as lists in pages, written once for every repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from agno_clouddb.records.base import Record, plain
from agno_clouddb.repositories.base import Page, Repository, check_consistency, check_limit
from agno_clouddb.repositories.listing import Listing, Lists
from agno_clouddb.stores.base import Consistency, Cursor, Item, Key
from agno_clouddb.stores.schema import OWNER, Collection

__all__ = ["LARGEST_STEP", "Reads", "UserStats"]

R = TypeVar("R", bound=Record)

LARGEST_STEP = 500
"""The most records read at a time for a list that only the records themselves can narrow."""


@dataclass(frozen=True, slots=True)
class UserStats:
    """How much there is of one user.

    Args:
        user_id: the user.
        count: how many records belong to the user.
        last_updated_at: when the last of them was written.
    """

    user_id: str
    count: int
    last_updated_at: datetime


class Reads(Repository, Generic[R]):
    """What a repository reads."""

    lists: ClassVar[Lists[Any]]

    @property
    def _record(self) -> type[R]:
        record: type[R] = self.lists.record
        return record

    @property
    def _declared(self) -> Collection:
        return self._record.collection

    async def get(self, id: str, *, user_id: str | None = None, consistency: Consistency | None = None) -> R | None:
        """The record, in one request.

        Args:
            id: which record.
            user_id: only when it belongs to this user.
            consistency: ``strong`` sees every write acknowledged before the call; None: what the Database was made
                with.

        Returns:
            None when there is no such record, or it belongs to another user (or to nobody, with ``user_id`` given).

        Raises:
            InvalidRecord: ``id`` is no valid id.
            NotProvisioned, Throttled, StoreUnavailable: the store does not answer.
        """
        return await self._get(self._key(id), user_id, consistency)

    # What the repositories are made of

    def _key(self, id: str) -> Key:
        key = Key(self._declared.name, plain(id))
        key.check()
        return key

    def _read(self, item: Item, degraded: bool = False) -> R:
        """The record in an item that was read."""
        self._clock.observe(item.version)
        record = self._record.from_item(item)
        record.degraded = degraded
        return record

    async def _get(self, key: Key, user_id: str | None, consistency: Consistency | None) -> R | None:
        consistency = check_consistency(consistency, self._connection.consistency)
        batch = await self._store.get([key], consistency=consistency)
        item = batch.items[0]
        if item is None or (user_id is not None and item.owner != user_id):
            return None
        return self._read(item, batch.degraded)

    async def _page(self, listing: Listing, limit: int, cursor: str | None, consistency: Consistency | None) -> Page[R]:
        """One page of a list, full while there is more also where only the records show what is listed."""
        check_limit(limit)
        query, also = listing.query, listing.also
        place = Cursor.decode(cursor, query, also) if cursor is not None else None
        consistency = check_consistency(consistency, self._connection.consistency)
        found: list[tuple[Item, R]] = []
        degraded, size = False, limit
        while True:
            page = await self._store.query(query, limit=size, cursor=place, consistency=consistency)
            degraded = degraded or page.degraded
            for item in page.items:
                record = self._read(item)
                if all(test(record) for test in listing.tests):
                    found.append((item, record))
            if len(found) >= limit or page.cursor is None:
                break
            place, size = page.cursor, max(limit, min(2 * size, LARGEST_STEP))
        more = len(found) > limit or page.cursor is not None
        found = found[:limit]
        for _, record in found:
            record.degraded = degraded
        end = query.place(found[-1][0]).encode(query, also) if more and found else None
        return Page([record for _, record in found], end, degraded)

    async def _iterate(
        self, listing: Listing, page_size: int, consistency: Consistency | None = None
    ) -> AsyncIterator[R]:
        cursor: str | None = None
        while True:
            page = await self._page(listing, page_size, cursor, consistency)
            for record in page.items:
                yield record
            cursor = page.cursor
            if cursor is None:
                return

    async def _count(self, filters: Mapping[str, Any]) -> int:
        listing = self.lists.listing(filters, self.lists.count_order(filters))
        if not listing.tests:
            return await self._store.count(listing.query)
        total = 0
        async for _ in self._iterate(listing, LARGEST_STEP):
            total += 1
        return total

    async def _user_stats(self, filters: Mapping[str, Any]) -> tuple[UserStats, ...]:
        """What each user has of a list that is ordered by the last write, the user of the last written first."""
        tallies = await self._store.tally(self.lists.listing(filters, "updated_at").query, OWNER)
        stats = [UserStats(user, each.count, datetime.fromisoformat(each.last)) for user, each in tallies.items()]
        return tuple(sorted(stats, key=lambda each: (each.last_updated_at, each.user_id), reverse=True))
