"""FanOutStore: the coordinator, a Store over several Stores.

A write goes to all stores in parallel with one version; a read goes to all in parallel and is merged. When some do not
answer, writes are acknowledged by those that do (or raise PartialWrite with ``acks="all"``), and reads give what those
hold and say that they are degraded.

Not here yet: durable hints of the writes that a store missed (their place is in ``writer.py``), repair of stale copies
(``get`` and ``_winners``, which see every version), and reconciliation. Until then a store that missed writes catches
up only as its keys are written again; merged reads are right in the meantime, as long as the store that has the write
can be reached.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from agno_clouddb.concurrency import gather_outcomes, uninterrupted
from agno_clouddb.errors import CloudDBError, ConfigurationError, LifecycleError, NotProvisioned
from agno_clouddb.fanout import merge
from agno_clouddb.fanout.circuit import CALLERS_FAULT, CircuitStore
from agno_clouddb.fanout.policy import Acks
from agno_clouddb.fanout.writer import Writer, tombstone
from agno_clouddb.stores.base import (
    Batch,
    Consistency,
    Cursor,
    Delete,
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
    Store,
    Tally,
    chosen,
)
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.query import order_of

__all__ = ["FanOutStore", "distinct_names"]

T = TypeVar("T")

_COUNT_PAGE = 500


class FanOutStore(Store):
    """Writes to all of its stores, reads from all of them and merges.

    Args:
        stores: two or more; the first is the primary, which decides atomic writes, exclusive ones, and those that
            expect a version.
        acks: 1: a write counts as stored when one store has it; ``"all"``: only when all have it.
        clock: stamps what the coordinator itself writes; share the one that stamps the callers' writes.
        now: the wall clock in seconds since the epoch; replaced in simulations.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        acks: Acks = 1,
        clock: HybridClock | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if len(stores) < 2:
            raise ConfigurationError(f"a fan-out is over two or more stores, not {len(stores)}")
        if acks not in (1, "all"):
            raise ConfigurationError(f'acks is {acks!r}, neither 1 nor "all"')
        self.stores = tuple(stores)
        names = distinct_names([store.name for store in stores])
        self._circuits = {name: CircuitStore(store) for name, store in zip(names, stores, strict=True)}
        self.name = " + ".join(names)
        self.limits = Limits(
            payload_bytes=min(store.limits.payload_bytes for store in stores),
            atomic_items=min(store.limits.atomic_items for store in stores),
            atomic_bytes=min(store.limits.atomic_bytes for store in stores),
        )
        self.degraded_reads = 0
        self._now = now
        self._is_open = False
        newest = partial(self.get, dead=True)
        self._writer = Writer(self._circuits, newest, acks=acks, clock=clock or HybridClock(), now=now)

    async def open(self) -> None:
        opened: list[Store] = []
        try:
            for store in self.stores:
                await store.open()
                opened.append(store)
        except BaseException:
            await uninterrupted(partial(gather_outcomes, [store.aclose for store in opened]))
            raise
        self._is_open = True

    async def aclose(self) -> None:
        self._is_open = False
        errors = await gather_outcomes([store.aclose for store in self.stores])
        for error in errors:
            if isinstance(error, CloudDBError):
                raise error

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Provision all stores at once; the error of one is raised when the others have come to their end."""
        names = chosen(collections)
        await self._ask(
            lambda store: store.provision(names, wait_for_indexes=wait_for_indexes, progress=progress),
            needed=len(self.stores),
        )

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        batches = await self._ask(lambda store: store.get(keys, consistency=consistency, dead=True))
        now = int(self._now())
        found = (merge.newest(each) for each in zip(*(batch.items for batch in batches.values()), strict=True))
        items = tuple(item if item is not None and (dead or item.live(now)) else None for item in found)
        return Batch(items, self._degraded(batches) or any(batch.degraded for batch in batches.values()))

    def check(self, mutations: Sequence[Mutation], *, atomic: bool) -> tuple[Outcome | None, ...]:
        """What all of the stores know of a write before anything is sent, a delete being the tombstone it becomes."""
        now = int(self._now())
        puts = [
            Put(tombstone(each.key, each.version, now), each.condition) if isinstance(each, Delete) else each
            for each in mutations
        ]
        by_store = [store.check(puts, atomic=atomic) for store in self.stores]
        return tuple(_first_known(each) for each in zip(*by_store, strict=True))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        """Carry mutations out on all stores.

        A cancelled call finishes its writes, for at most the stores' deadlines, before the cancellation goes on: so a
        write is never on one store only because its caller went away.

        An atomic write costs one read more than on a single store: first it is decided against the newest version of
        each key on any store, so that what the primary has missed forbids it too; a store that does not answer that
        read has no say. Then it is decided by the primary, like a write that expects a version, and copied, atomically
        on each store. A read that no store answers fails it, and so does a primary that does not answer.

        Raises:
            InvalidRecord: as the port says, and by the limits of every one of the stores. Nothing was written.
        """
        self._require_open()
        checked = self.check(mutations, atomic=atomic)
        return await uninterrupted(lambda: self._writer.write(mutations, checked, atomic=atomic))

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        """One page of the merged list.

        All stores list in parallel. Up to where the shortest of their pages ends, a key that not every store shows is
        looked up on those that do not: the newest version decides whether it is listed, and only at that version's
        own place. So neither a missed delete, nor a changed field, nor an old sort value shows through.
        """
        items: list[Item] = []
        degraded = False
        while True:
            pages = await self._ask(partial(_query, query=query, limit=limit, cursor=cursor, consistency=consistency))
            degraded = self._degraded(pages) or degraded or any(page.degraded for page in pages.values())
            end = merge.horizon(query, pages.values())
            winners, complete = await self._winners(query, pages, cursor, end)
            degraded = degraded or not complete
            room = limit - len(items)
            items += winners[:room]
            if len(winners) > room or (end is not None and len(winners) == room):
                return Page(tuple(items), query.place(items[-1]), degraded)
            if end is None:
                return Page(tuple(items), None, degraded)
            cursor = end

    async def count(self, query: Query) -> int:
        """How many items the merged list has: what the stores say when they agree, else counted one by one.

        A count made without one of the stores cannot say so; ``degraded_reads`` counts it.
        Stores which missed different writes may agree on the number by chance; the merged list is right all the same.
        """
        counts = await self._ask(lambda store: store.count(query))
        self._degraded(counts)
        if len(set(counts.values())) == 1:
            return next(iter(counts.values()))
        total, cursor = 0, None
        while True:
            page = await self.query(query, limit=_COUNT_PAGE, cursor=cursor)
            total, cursor = total + len(page.items), page.cursor
            if cursor is None:
                return total

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        """The tally of the merged list: what the stores say when they agree, else taken from the list item by item.

        As with ``count``, ``degraded_reads`` counts a tally made without one of the stores, and stores which missed
        different writes may agree by chance.
        """
        query.check_field(by)
        tallies = await self._ask(lambda store: store.tally(query, by))
        self._degraded(tallies)
        first, *others = tallies.values()
        return first if all(each == first for each in others) else await super().tally(query, by)

    async def _ask(self, call: Callable[[Store], Awaitable[T]], *, needed: int = 1) -> dict[str, T]:
        """What the stores answer, by name, without those that fail; an error when fewer than ``needed`` answer."""
        self._require_open()
        answers = await gather_outcomes([partial(call, store) for store in self._circuits.values()])
        errors = [each for each in answers if isinstance(each, CloudDBError)]
        for error in errors:
            if isinstance(error, (*CALLERS_FAULT, NotProvisioned)):
                raise error
        if len(answers) - len(errors) < needed:
            raise errors[0]
        return {
            name: each for name, each in zip(self._circuits, answers, strict=True) if not isinstance(each, CloudDBError)
        }

    def _require_open(self) -> None:
        if not self._is_open:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")

    def _degraded(self, answers: Mapping[str, object]) -> bool:
        """Whether not all stores have answered, which is counted."""
        degraded = len(answers) < len(self.stores)
        self.degraded_reads += degraded
        return degraded

    async def _winners(
        self, query: Query, pages: Mapping[str, Page], after: Cursor | None, end: Cursor | None
    ) -> tuple[list[Item], bool]:
        """What the merged list has from ``after`` to ``end``, in order, and whether every look-up was answered."""
        found = merge.shown(query, tuple(pages.values()), end)
        asked = {name: merge.undecided(found, position) for position, name in enumerate(pages)}
        stores = {name: store for name, store in self._circuits.items() if asked.get(name)}
        answers = await gather_outcomes([partial(store.get, asked[name], dead=True) for name, store in stores.items()])
        complete = True
        for name, answer in zip(stores, answers, strict=True):
            if isinstance(answer, CloudDBError):
                complete = False
                continue
            for key, item in zip(asked[name], answer.items, strict=True):
                found[key].append(item)
        now = int(self._now())
        winners = [item for item in map(merge.newest, found.values()) if item is not None and query.matches(item, now)]
        placed = [item for item in winners if query.after(item, after) and (end is None or not query.after(item, end))]
        placed.sort(key=lambda item: order_of(query.place(item)), reverse=query.descending)
        return placed, complete


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names that tell the stores apart, also where two have the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: position + 1].count(name)})"
        for position, name in enumerate(names)
    ]


async def _query(store: Store, *, query: Query, limit: int, cursor: Cursor | None, consistency: Consistency) -> Page:
    return await store.query(query, limit=limit, cursor=cursor, consistency=consistency)


def _first_known(outcomes: Sequence[Outcome | None]) -> Outcome | None:
    """What is known of one mutation from several stores; of an atomic write, a failure before what comes of it."""
    known = [each for each in outcomes if each is not None]
    return next((each for each in known if isinstance(each, Failed)), known[0] if known else None)
