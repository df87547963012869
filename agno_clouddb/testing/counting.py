"""CountingStore: counts the calls that reach a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from agno_clouddb.stores.base import (
    Batch,
    Consistency,
    Cursor,
    Key,
    Mutation,
    Outcome,
    Page,
    Progress,
    Query,
    Scan,
    Store,
    Tally,
)
from agno_clouddb.stores.wrapper import WrapperStore

__all__ = ["CountingStore"]


class CountingStore(WrapperStore):
    """Passes every call on, and counts it when it is made, whatever comes of it.

    Args:
        inner: the store to wrap; it is opened and closed with the wrapper.

    Attributes:
        calls: how often ``get``, ``write``, ``query``, ``count``, ``tally``, ``scan`` and ``provision`` were called, by
            these names; may be cleared at any time.
        items: how many keys ``get`` was asked for, mutations ``write`` was given, and items that ``query`` and
            ``scan`` returned.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.items: Counter[str] = Counter()

    def clear(self) -> None:
        """Begin again from nothing."""
        self.calls.clear()
        self.items.clear()

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.calls["provision"] += 1
        await super().provision(
            collections, replicated=replicated, wait_for_indexes=wait_for_indexes, progress=progress
        )

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        self.calls["get"] += 1
        self.items["get"] += len(keys)
        return await super().get(keys, consistency=consistency, dead=dead)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        self.calls["write"] += 1
        self.items["write"] += len(mutations)
        return await super().write(mutations, atomic=atomic)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        self.calls["query"] += 1
        page = await super().query(query, limit=limit, cursor=cursor, consistency=consistency)
        self.items["query"] += len(page.items)
        return page

    async def count(self, query: Query) -> int:
        self.calls["count"] += 1
        return await super().count(query)

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        self.calls["tally"] += 1
        return await super().tally(query, by)

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        self.calls["scan"] += 1
        scan = await super().scan(collection, limit=limit, since=since, cursor=cursor)
        self.items["scan"] += len(scan.entries)
        return scan
