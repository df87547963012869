"""WrapperStore: the base of every store that wraps a store."""

from __future__ import annotations

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

__all__ = ["WrapperStore"]


class WrapperStore(Store):
    """Passes every call on to ``inner``. Override what a cross-cutting behaviour needs: faults, counting, tracing.

    Args:
        inner: the store to wrap; it is opened and closed with the wrapper.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.name = inner.name
        self.limits = inner.limits
        self.prefix = inner.prefix

    @property
    def incomplete(self) -> bool:
        return self.inner.incomplete

    async def open(self) -> None:
        await self.inner.open()

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        await self.inner.provision(
            collections, replicated=replicated, wait_for_indexes=wait_for_indexes, progress=progress
        )

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        return await self.inner.get(keys, consistency=consistency, dead=dead)

    def check(self, mutations: Sequence[Mutation], *, atomic: bool) -> tuple[Outcome | None, ...]:
        return self.inner.check(mutations, atomic=atomic)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        return await self.inner.write(mutations, atomic=atomic)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        return await self.inner.query(query, limit=limit, cursor=cursor, consistency=consistency)

    async def count(self, query: Query) -> int:
        return await self.inner.count(query)

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        return await self.inner.tally(query, by)

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        return await self.inner.scan(collection, limit=limit, since=since, cursor=cursor)
