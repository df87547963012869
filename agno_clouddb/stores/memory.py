"""MemoryStore: items in a dictionary, the reference model that every other store is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    Put,
    Query,
    Refused,
    Store,
    Stored,
    check_write,
    decide,
)
from agno_clouddb.stores.clock import epoch_seconds
from agno_clouddb.stores.query import order_of

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
        self._provisioned = False

    async def open(self) -> None:
        self._open = True

    async def aclose(self) -> None:
        self._open = False

    async def provision(self) -> None:
        self._require_open()
        self._provisioned = True

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        for key in keys:
            key.check()
        self._require_provisioned()
        now = self._now()
        found = (self.items.get(key) for key in keys)
        return Batch(tuple(item if item is not None and (dead or item.live(now)) else None for item in found))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        checked = check_write(self, mutations, atomic)
        self._require_open()
        if not self._provisioned:
            return tuple(Failed(NotProvisioned("nothing is provisioned", store=self.name)) for _ in mutations)
        now = self._now()
        outcomes = [
            early or decide(mutation, self.items.get(mutation.key), now)
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
        matching = [item for item in self._matching(query) if query.after(item, cursor)]
        matching.sort(key=lambda item: order_of(query.place(item)), reverse=query.descending)
        items = tuple(matching[:limit])
        return Page(items, query.place(items[-1]) if len(matching) > limit else None)

    async def count(self, query: Query) -> int:
        return len(self._matching(query))

    def _matching(self, query: Query) -> list[Item]:
        query.check()
        self._require_provisioned()
        now = self._now()
        return [
            item for item in self.items.values() if item.key.collection == query.collection and query.matches(item, now)
        ]

    def _require_open(self) -> None:
        if not self._open:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")

    def _require_provisioned(self) -> None:
        self._require_open()
        if not self._provisioned:
            raise NotProvisioned("nothing is provisioned", store=self.name)
