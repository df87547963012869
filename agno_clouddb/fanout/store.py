"""FanOutStore: the coordinator, a Store over several Stores.

A write goes to all stores in parallel with one version; a read goes to all in parallel and is merged. When some do not
answer, writes are acknowledged by those that do, which keep a hint of what the others have missed (or PartialWrite is
raised with ``acks="all"``), and reads give what those hold and say that they are degraded. In the background hints are
replayed when a store is back, and what a read has found different is mended; ``reconcile`` finds the rest.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar, cast

import anyio

from agno_clouddb.concurrency import gather_outcomes, uninterrupted
from agno_clouddb.durations import seconds_between
from agno_clouddb.errors import CloudDBError, ConfigurationError, LifecycleError
from agno_clouddb.fanout import merge
from agno_clouddb.fanout.circuit import CircuitStore
from agno_clouddb.fanout.degraded import note_degraded
from agno_clouddb.fanout.flow import as_put
from agno_clouddb.fanout.health import Health
from agno_clouddb.fanout.hedge import first_answer
from agno_clouddb.fanout.lag import Lag
from agno_clouddb.fanout.names import names_of
from agno_clouddb.fanout.notes import Notes
from agno_clouddb.fanout.policy import Acks, ReadPolicy, check_options
from agno_clouddb.fanout.reconcile import Reconciliation
from agno_clouddb.fanout.replicas import Copies, Replicas
from agno_clouddb.fanout.sending import WriteOptions
from agno_clouddb.fanout.tombstones import RETENTIONS, TOMBSTONE_SECONDS
from agno_clouddb.fanout.upkeep import Upkeep
from agno_clouddb.fanout.writer import Writer, Writing
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
    Query,
    Scan,
    Store,
    Tally,
    chosen,
)
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.query import order_of

__all__ = ["FanOutStore"]

T = TypeVar("T")

_COUNT_PAGE = 500
_STEPS = 4  # of a write, each of which may take the whole deadline


class FanOutStore(Store):
    """Writes to all of its stores, reads from all of them and merges.

    Args:
        stores: two or more; the first is the primary, which decides atomic writes, exclusive ones, and those that
            expect a version.
        acks: 1: a write counts as stored when one store has it, and keeps a hint of what the others have missed;
            ``"all"``: only when all have it.
        reads: ``"merge"``: all stores are read. ``"primary"``: the primary, and the others when it fails.
            ``"fastest"``: the store that has answered fastest of late, and one more when that takes longer than most
            of its calls. A store that is known to have missed writes is not read alone.
        failover: while the primary is down, let the next store decide what the primary is to decide. Two coordinators
            of which one reaches the primary and the other does not may then both succeed in what one only should.
        deadline: seconds after which a call of a store is given up, whatever the store's own deadline is.
        overlap: seconds that an incremental reconciliation goes back behind the last one: at least what the clocks of
            two writers differ by.
        reconcile_every: seconds between reconciliations in the background, one process at a time; None: none.
        tombstone_retention: how long what a delete leaves is kept: seconds, or a timedelta; see ``connect``.
        clock: stamps what the coordinator itself writes; share the one that stamps the callers' writes.
        now: the wall clock in seconds since the epoch; replaced in simulations.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        acks: Acks = 1,
        reads: ReadPolicy = "merge",
        failover: bool = False,
        deadline: float = 15.0,
        overlap: float = 900.0,
        reconcile_every: float | None = None,
        tombstone_retention: float | timedelta = TOMBSTONE_SECONDS,
        clock: HybridClock | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if len(stores) < 2:
            raise ConfigurationError(f"a fan-out is over two or more stores, not {len(stores)}")
        check_options(acks, reads, failover, reconcile_every)
        kept = int(seconds_between("tombstone_retention", tombstone_retention, *RETENTIONS))
        self.stores = tuple(stores)
        names = names_of(stores)
        self.name = " + ".join(names)
        self.limits = _least([store.limits for store in stores])
        self.degraded_reads = 0
        self._reads = reads
        self._is_open = False
        self._lag = Lag(names)
        clock = clock or HybridClock()
        circuits = {name: CircuitStore(store, deadline=deadline) for name, store in zip(names, stores, strict=True)}
        self._replicas = Replicas(circuits, now, grace=_STEPS * deadline, retention=kept)
        self._writing = Writing()
        self._upkeep = Upkeep(
            self._replicas,
            self._lag,
            Notes(self._replicas, clock),
            self._writing,
            overlap=overlap,
            reconcile_every=reconcile_every,
            watch=reads != "merge",
        )
        options = WriteOptions(acks, failover, self._lag, self._upkeep.unconfirmed)
        self._writer = Writer(self._replicas, options, self._writing)

    @property
    def incomplete(self) -> bool:
        return any(store.state != "closed" for store in self._replicas.stores.values())

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
        self._upkeep.open()

    async def aclose(self) -> None:
        """Give back connections, once the writes under way have come to their end, or a few deadlines have passed."""
        self._is_open = False
        try:
            with anyio.move_on_after(self._replicas.grace):
                await self._writing.done()
            await self._upkeep.aclose()
        finally:
            errors = await gather_outcomes([store.aclose for store in self.stores])
        for error in errors:
            if isinstance(error, CloudDBError):
                raise error

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Provision all stores at once; the error of one is raised when the others have come to their end."""
        names = chosen(collections)
        self._require_open()
        calls = [
            partial(store.provision, names, replicated=True, wait_for_indexes=wait_for_indexes, progress=progress)
            for store in self.stores
        ]
        for answer in await gather_outcomes(calls):
            if isinstance(answer, CloudDBError):
                raise answer

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        """The newest of what all stores hold under each key; stores that hold something else are mended later."""
        self._require_open()
        alone = await self._alone(lambda store: store.get(keys, consistency=consistency, dead=dead), keys)
        if alone is not None:
            return alone
        found = await self._replicas.copies(keys, consistency=consistency)
        if consistency == "strong":
            self._repair(found)
        now = self._replicas.now
        newest = [each.newest for each in found]
        items = tuple(item if item is not None and (dead or item.live(now)) else None for item in newest)
        return Batch(items, self._degraded(complete=all(each.complete for each in found)))

    def check(self, mutations: Sequence[Mutation], *, atomic: bool) -> tuple[Outcome | None, ...]:
        """What all of the stores know of a write before anything is sent, a delete being the tombstone it becomes."""
        puts = [as_put(each, self._replicas) for each in mutations]
        by_store = [store.check(puts, atomic=atomic) for store in self.stores]
        return tuple(_first_known(each) for each in zip(*by_store, strict=True))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        """Carry mutations out on all stores.

        A cancelled call finishes its writes, and the hints of what was missed, for at most the stores' deadlines,
        before the cancellation goes on: so a write is never on one store only because its caller went away.

        An atomic write costs one read more than on a single store: first it is decided against the newest version of
        each key on any store, so that what the primary has missed forbids it too; a store that does not answer that
        read has no say. Then it is decided by the primary, like a write that expects a version, and copied, atomically
        on each store. A read that no store answers fails it, and so does a primary that does not answer.

        Raises:
            InvalidRecord: as the port says, and by the limits of every one of the stores. Nothing was written.
        """
        self._require_open()
        checked = self.check(mutations, atomic=atomic)
        try:
            return await uninterrupted(lambda: self._writer.write(mutations, checked, atomic=atomic))
        finally:
            self._upkeep.catch_up()

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        """One page of the merged list.

        All stores list in parallel. Up to where the shortest of their pages ends, a key that not every store shows is
        looked up on those that do not: the newest version decides whether it is listed, and only at that version's
        own place. So neither a missed delete, nor a changed field, nor an old sort value shows through.
        """
        self._require_open()
        call = partial(_query, query=query, limit=limit, cursor=cursor, consistency=consistency)
        alone = await self._alone(call)
        if alone is not None:
            return alone
        items: list[Item] = []
        complete = True
        while True:
            call = partial(_query, query=query, limit=limit, cursor=cursor, consistency=consistency)
            pages = await self._replicas.ask(call)
            end = merge.horizon(query, pages.values())
            winners, all_seen = await self._winners(query, pages, cursor, end, consistency)
            complete = complete and all_seen and len(pages) == len(self.stores)
            room = limit - len(items)
            items += winners[:room]
            if len(winners) > room or (end is not None and len(winners) == room):
                return Page(tuple(items), query.place(items[-1]), self._degraded(complete=complete))
            if end is None:
                return Page(tuple(items), None, self._degraded(complete=complete))
            cursor = end

    async def count(self, query: Query) -> int:
        """How many items the merged list has: what the stores say when they agree, else counted one by one.

        Stores which missed different writes may agree on the number by chance; the merged list is right all the same.
        """
        counts = await self._each(lambda store: store.count(query))
        if len(set(counts)) == 1:
            return counts[0]
        total, cursor = 0, None
        while True:
            page = await self.query(query, limit=_COUNT_PAGE, cursor=cursor)
            total, cursor = total + len(page.items), page.cursor
            if cursor is None:
                return total

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        """The tally of the merged list: what the stores say when they agree, else taken from the list item by item.

        Stores which missed different writes may agree by chance.
        """
        query.check_field(by)
        first, *others = await self._each(lambda store: store.tally(query, by))
        return first if all(each == first for each in others) else await super().tally(query, by)

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        """Not offered: a coordinator scans its stores, and is not one of them.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError("a fan-out cannot be a store of another", remedy="Give all stores to one `connect`")

    async def reconcile(
        self,
        *,
        full: bool = False,
        dry_run: bool = False,
        rate: float | None = None,
        progress: Callable[[Reconciliation], None] | None = None,
    ) -> Reconciliation:
        """Make all stores hold the same; see ``Database.reconcile``."""
        self._require_open()
        return await self._upkeep.reconcile(full=full, dry_run=dry_run, rate=rate, progress=progress)

    async def health(self) -> Health:
        """What is known of the stores; see ``Database.health``."""
        self._require_open()
        return await self._upkeep.health(self.degraded_reads)

    async def probe(self) -> None:
        """Ask the stores that are left alone whether they answer again, now and not at the next time."""
        self._require_open()
        await self._upkeep.probe()

    async def idle(self) -> None:
        """Wait until what is under way in the background has come to its end: for tests."""
        await self._upkeep.idle()

    async def _each(self, call: Callable[[Store], Awaitable[T]]) -> list[T]:
        """What one store answers that is read alone, or else all that answer."""
        self._require_open()
        alone = await self._alone(call)
        if alone is not None:
            return [alone]
        answers = await self._replicas.ask(call)
        self._degraded(complete=len(answers) == len(self.stores))
        return list(answers.values())

    async def _alone(self, call: Callable[[Store], Awaitable[T]], keys: Sequence[Key] | None = None) -> T | None:
        """What one store answers; None when none may be read alone, or none of them answers."""
        if self._reads == "merge":
            return None
        stores = self._replicas.stores
        names = [name for name, store in stores.items() if store.available and not self._lag.lacks(name, keys)]
        if self._reads == "primary":
            names = [name for name in names if name == next(iter(stores))]
        return cast("T | None", await first_answer([stores[name] for name in names], call)) if names else None

    def _repair(self, found: Sequence[Copies]) -> None:
        differing = [each.key for each in found if self._replicas.needs_mending(each)]
        if differing:
            self._upkeep.repair(differing)

    def _require_open(self) -> None:
        if not self._is_open:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")

    def _degraded(self, *, complete: bool) -> bool:
        """Whether a result may lack something since a store has not answered, which is counted and noted."""
        if not complete:
            self.degraded_reads += 1
            note_degraded()
        return not complete

    async def _winners(
        self,
        query: Query,
        pages: Mapping[str, Page],
        after: Cursor | None,
        end: Cursor | None,
        consistency: Consistency,
    ) -> tuple[list[Item], bool]:
        """What the merged list has from ``after`` to ``end``, in order, and whether every look-up was answered."""
        shown = merge.shown(query, tuple(pages.values()), end)
        found = {key: Copies(key, dict(zip(pages, items, strict=True))) for key, items in shown.items()}
        asked = {name: merge.undecided(shown, position) for position, name in enumerate(pages)}
        calls = {name: keys for name, keys in asked.items() if keys}
        answers = await gather_outcomes(
            [partial(self._replicas.stores[name].get, keys, dead=True) for name, keys in calls.items()]
        )
        for (name, keys), answer in zip(calls.items(), answers, strict=True):
            for place, key in enumerate(keys):
                if isinstance(answer, CloudDBError):
                    del found[key].held[name]
                    found[key].complete = False
                else:
                    found[key].held[name] = answer.items[place]
        await self._replicas.trace_removals(found.values())
        if consistency == "strong":
            self._repair(list(found.values()))
        now = self._replicas.now
        newest = [each.newest for each in found.values()]
        winners = [item for item in newest if item is not None and query.matches(item, now)]
        placed = [item for item in winners if query.after(item, after) and (end is None or not query.after(item, end))]
        placed.sort(key=lambda item: order_of(query.place(item)), reverse=query.descending)
        return placed, all(each.complete for each in found.values())


async def _query(store: Store, *, query: Query, limit: int, cursor: Cursor | None, consistency: Consistency) -> Page:
    return await store.query(query, limit=limit, cursor=cursor, consistency=consistency)


def _least(limits: Sequence[Limits]) -> Limits:
    """What every one of several stores takes."""
    return Limits(
        payload_bytes=min(each.payload_bytes for each in limits),
        atomic_items=min(each.atomic_items for each in limits),
        atomic_bytes=min(each.atomic_bytes for each in limits),
    )


def _first_known(outcomes: Sequence[Outcome | None]) -> Outcome | None:
    """What is known of one mutation from several stores; of an atomic write, a failure before what comes of it."""
    known = [each for each in outcomes if each is not None]
    return next((each for each in known if isinstance(each, Failed)), known[0] if known else None)
