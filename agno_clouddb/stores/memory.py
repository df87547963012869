"""MemoryStore: items in a dictionary, the reference model that every other store is held against."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence

from agno_clouddb.errors import LifecycleError, NotProvisioned
from agno_clouddb.stores.base import (
    Batch,
    Consistency,
    Cursor,
    Failed,
    Item,
    Key,
    Limits,
    Mutation,
    Outcome,
    Page,
    Progress,
    Put,
    Query,
    Refused,
    Scan,
    Store,
    Stored,
    Tally,
    check_scan,
    check_write,
    chosen,
    decide,
)
from agno_clouddb.stores.clock import epoch_seconds
from agno_clouddb.stores.query import add_tally, order_of
from agno_clouddb.stores.scans import decode_cursor, encode_cursor
from agno_clouddb.stores.schema import COLLECTIONS

__all__ = ["MemoryStore"]

_MIB = 1024 * 1024


class MemoryStore(Store):
    """Keeps items in this process, for tests and simulations. What it holds is gone with the object.

    Args:
        name: says in error messages which store it is.
        now: the wall clock in seconds since the epoch; replaced in simulations.
        limits: what it takes at once, so that a test can give it the limits of a cloud.
    """

    def __init__(
        self,
        name: str = "memory://",
        *,
        now: Callable[[], int] = epoch_seconds,
        limits: Limits = Limits(payload_bytes=16 * _MIB, atomic_items=500, atomic_bytes=64 * _MIB),
    ) -> None:
        self.name = name
        self.limits = limits
        self.items: dict[Key, Item] = {}
        self._now = now
        self._open = False
        self._provisioned: set[str] = set()
        self._by_version: set[str] = set()

    async def open(self) -> None:
        self._open = True

    async def aclose(self) -> None:
        self._open = False

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._require_open()
        names = chosen(collections, replicated=replicated)
        self._provisioned.update(names)
        if replicated:
            self._by_version.update(name for name in names if name in COLLECTIONS)

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        for key in keys:
            key.check()
        for key in keys:
            self._require_provisioned(key.collection)
        now = self._now()
        found = (self.items.get(key) for key in keys)
        return Batch(tuple(item if item is not None and (dead or item.live(now)) else None for item in found))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        checked = check_write(self, mutations, atomic)
        self._require_open()
        now = self._now()
        outcomes = [
            early or self._missing(mutation.key.collection) or decide(mutation, self.items.get(mutation.key), now)
            for early, mutation in zip(checked, mutations, strict=True)
        ]
        if atomic and any(isinstance(each, Refused | Failed) for each in outcomes):
            return tuple(each if isinstance(each, Refused | Failed) else Refused("atomic") for each in outcomes)
        for outcome, mutation in zip(outcomes, mutations, strict=True):
            if outcome is not None:
                continue
            if isinstance(mutation, Put):
                self.items[mutation.key] = mutation.item
            else:
                del self.items[mutation.key]
        return tuple(outcome or Stored(mutation.version) for outcome, mutation in zip(outcomes, mutations, strict=True))

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        query.check(limit)
        matching = (item for item in self._matching(query) if query.after(item, cursor))
        first = heapq.nlargest if query.descending else heapq.nsmallest
        items = first(limit + 1, matching, key=lambda item: order_of(query.place(item)))
        return Page(tuple(items[:limit]), query.place(items[limit - 1]) if len(items) > limit else None)

    async def count(self, query: Query) -> int:
        return len(self._matching(query))

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        query.check_field(by)
        tallies: dict[str, Tally] = {}
        for item in self._matching(query):
            if (value := item.fields.get(by)) is not None:
                place = item.fields[query.sort]
                add_tally(tallies, value, Tally(1, place, place))
        return tallies

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        check_scan(collection, limit, since)
        parts = 2 if since is None else 3
        after = (since or "", "", "")[-parts:]  # less than any place: no id is empty
        if cursor is not None:
            after = decode_cursor(cursor, collection, since, parts)
        self._require_provisioned(collection)
        if since is not None and collection not in self._by_version:
            raise NotProvisioned(f"{collection} have no index by version", store=self.name, collection=collection)
        places = (
            ((item.version, key.parent or "", key.id)[-parts:], key, item.version)
            for key, item in self.items.items()
            if key.collection == collection
        )
        found = heapq.nsmallest(limit + 1, (each for each in places if each[0] > after))
        entries = tuple((key, version) for _, key, version in found[:limit])
        return Scan(entries, encode_cursor(collection, since, found[limit - 1][0]) if len(found) > limit else None)

    def _matching(self, query: Query) -> list[Item]:
        query.check()
        self._require_provisioned(query.collection)
        now = self._now()
        collection, parent = query.collection, query.parent
        return [
            item
            for key, item in self.items.items()
            if key.collection == collection and key.parent == parent and query.matches(item, now)
        ]

    def _require_open(self) -> None:
        if not self._open:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")

    def _require_provisioned(self, collection: str) -> None:
        self._require_open()
        if (missing := self._missing(collection)) is not None:
            raise missing.error

    def _missing(self, collection: str) -> Failed | None:
        if collection in self._provisioned:
            return None
        return Failed(NotProvisioned(f"{collection} are not provisioned", store=self.name, collection=collection))
