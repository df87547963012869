"""Database: one or more stores, and the repositories over them.

The fan-out, a third of the package, is loaded by ``connect`` to several stores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from agno_clouddb.durations import seconds_between
from agno_clouddb.errors import ConfigurationError, InvalidRecord
from agno_clouddb.fanout.degraded import Reads, watched_reads
from agno_clouddb.fanout.health import Health, health_of_one
from agno_clouddb.fanout.names import identity, names_of
from agno_clouddb.fanout.policy import Acks, ReadPolicy, check_options
from agno_clouddb.fanout.tombstones import RETENTIONS, TOMBSTONE_SECONDS
from agno_clouddb.repositories.base import Connection
from agno_clouddb.repositories.entries import Entries
from agno_clouddb.repositories.evals import Evals
from agno_clouddb.repositories.expiry import ttls
from agno_clouddb.repositories.imports import Imports
from agno_clouddb.repositories.knowledge import Knowledge
from agno_clouddb.repositories.learnings import Learnings
from agno_clouddb.repositories.memories import Memories
from agno_clouddb.repositories.metrics import DailyMetrics
from agno_clouddb.repositories.sessions import Sessions
from agno_clouddb.repositories.traces import Traces
from agno_clouddb.repositories.transactions import Transaction
from agno_clouddb.stores.base import Consistency, Progress, Store
from agno_clouddb.stores.cache import CacheStats, CachingStore, ReadCache
from agno_clouddb.stores.clock import DRIFTS, MAX_DRIFT_MILLIS, HybridClock
from agno_clouddb.stores.urls import StoreOptions, store_from_url

if TYPE_CHECKING:
    from agno_clouddb.fanout.reconcile import Reconciliation
    from agno_clouddb.fanout.store import FanOutStore

__all__ = ["Database", "connect"]

_PATIENCE = 1.5  # of the stores' own deadline, after which a fan-out gives up a call that has not kept to it


class Database:
    """The repositories over a store. Serves any number of concurrent tasks of the event loop that opened it.

    Nothing touches the network before ``open``, which ``async with`` calls.

    Args:
        store: where everything is kept; a FanOutStore for several.
        consistency: what reads give unless a call says otherwise: ``strong`` sees every write acknowledged before
            the call, ``eventual`` may lag and costs half the read units on DynamoDB.
        clock: makes the version stamps.
        ttl: see ``connect``.
        cache: see ``connect``.
    """

    def __init__(
        self,
        store: Store,
        *,
        consistency: Consistency = "strong",
        clock: HybridClock | None = None,
        ttl: Mapping[str, float | timedelta] = MappingProxyType({}),
        cache: ReadCache | None = None,
    ) -> None:
        if consistency not in ("strong", "eventual"):
            raise ConfigurationError(f"consistency is {consistency!r}, neither strong nor eventual")
        if cache is not None and not isinstance(cache, ReadCache):
            raise ConfigurationError(
                f"cache is {cache!r}, not a ReadCache", remedy="Give ReadCache(seconds=5), or None"
            )
        self.store = store
        self._cache = CachingStore(store, cache) if cache is not None else None
        self._connection = Connection(self._cache or store, consistency, clock or HybridClock(), ttls(ttl))
        self.sessions = Sessions(self._connection)
        self.memories = Memories(self._connection)
        self.metrics = DailyMetrics(self._connection)
        self.evals = Evals(self._connection)
        self.knowledge = Knowledge(self._connection)
        self.traces = Traces(self._connection)
        self.learnings = Learnings(self._connection)
        self.entries = Entries(self._connection)
        self.imports = Imports(self._connection)

    @property
    def cache_stats(self) -> CacheStats | None:
        """What the read cache has done, and what it holds; None without one."""
        return self._cache.stats if self._cache is not None else None

    async def open(self) -> None:
        """Connect the store to the running event loop. Opening twice in one loop is harmless.

        Raises:
            ConfigurationError: region, project or credentials are missing or malformed.
            StoreUnavailable: a SQLite file cannot be opened.
            LifecycleError: it is open in another event loop.
        """
        await self._connection.open()

    async def aclose(self) -> None:
        """Give back all connections. Closing twice is harmless; a closed Database can be opened again."""
        await self._connection.aclose()

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Create the tables and indexes that are missing, and wait until they can be used. Safe to call always.

        Args:
            collections: only these, by name, such as ``["sessions", "runs"]``; None: all.
            wait_for_indexes: where indexes are deployed by other means, as on Firestore, wait for them too.
            progress: is told what is being waited for, a line of text at a time.

        Raises:
            InvalidRecord: there is no such collection.
            ConfigurationError: credentials do not allow it, or a table of the same name has another key.
            IndexNotReady: an index that is to be waited for is not deployed.
            StoreUnavailable, Throttled: the service does not answer.
        """
        await self._connection.store.provision(collections, wait_for_indexes=wait_for_indexes, progress=progress)

    async def reconcile(
        self,
        *,
        full: bool = False,
        dry_run: bool = False,
        rate: float | None = None,
        progress: Callable[[Reconciliation], None] | None = None,
    ) -> Reconciliation:
        """Make all stores hold the same: bring them what they are known to have missed, then compare them.

        Without ``full`` only what was written since the last reconciliation is compared. The first one of these stores
        is always full, which fills a store that was added; and one that was stopped goes on where it was. It may run
        while others write. All stores must answer.

        Args:
            full: compare everything. Each item is read from each store, and looked up on the others. What one that was
                stopped has passed is not looked at again: when a store has lost data since, call it once more.
            dry_run: only report; nothing is written, and hints are not replayed.
            rate: items read and written a second, over all stores, at most; None: as fast as they go. An item is one
                document on Firestore, and on DynamoDB about a unit for each 4 KB read and 1 KB written.
            progress: is told how far it has come, after each page.

        Returns:
            What was compared, found and mended, by collection.

        Raises:
            InvalidRecord: ``rate`` is no number over 0, or ``progress`` cannot be called.
            ConfigurationError: there is one store only.
            NotProvisioned, IndexNotReady: a store lacks what a fan-out needs; call ``provision``.
            Throttled, StoreUnavailable: a store does not answer. What was mended stays, and a full comparison goes on
                from there with the next call.
        """
        if rate is not None and not _is_positive(rate):
            raise InvalidRecord("rate", f"is {rate!r}, not a number of items a second over 0")
        _check_progress(progress)
        store = self._fanout()
        return await store.reconcile(full=full, dry_run=dry_run, rate=rate, progress=progress)

    async def health(self) -> Health:
        """How the stores are: state, last error, what each has missed and since when.

        Asks the stores: of several each one whether it answers, for two notes, and for the number and the oldest of the
        hints that it keeps for each of the others; a single one by one eventually consistent read. Never raises for a
        store that does not answer, or refuses.

        Raises:
            LifecycleError: the Database is not open.
        """
        store = self._opened()
        several = _fanout_of(store)
        return await (several.health() if several is not None else health_of_one(store))

    async def forget_store(self, name: str, *, progress: Callable[[int], None] | None = None) -> int:
        """Discard what is kept for a store that was removed for good: the hints of what it has missed.

        Connected again later, that store counts as never compared. Empty it before: what was deleted in between is
        deleted in the other stores only, and would come back.

        A call that failed on its way is repeated to discard the rest; one that is repeated after it has succeeded
        discards nothing, and is no error.

        Args:
            name: the store's name, as ``health`` gave it while it was one of several, such as ``dynamodb://eu-west-1``.
            progress: is told after each page how many hints were discarded.

        Returns:
            How many hints were discarded; 0 when it had missed nothing, or was forgotten before.

        Raises:
            InvalidRecord: the store is one of this Database's, or ``progress`` cannot be called.
            ConfigurationError: nothing was ever kept for a store of this name, as when it is misspelt, or the store
                that stays was never one of several; says for which stores hints are kept.
            NotProvisioned, IndexNotReady, Throttled, StoreUnavailable: as the stores say.
        """
        if not isinstance(name, str):
            raise InvalidRecord("name", f"is of type {type(name).__name__}, not the name of a store")
        _check_progress(progress)
        store = self._opened()
        several = _fanout_of(store)
        stores = several.stores if several is not None else (store,)
        named = dict(zip(names_of(stores), stores, strict=True))
        if name in named:
            raise InvalidRecord("name", f"{name} is a store of this database", remedy="Connect without it first")
        from agno_clouddb.fanout.leaving import forget

        return await forget(named, name, self._connection.clock, progress)

    def watch_reads(self) -> AbstractContextManager[Reads]:
        """Watch the reads in a ``with`` block: whether one was made without a store that did not answer.

        Records and pages say so themselves; a count, a statistic or None for a record that is not there cannot.

        Returns:
            A context manager that gives an object with the attribute ``degraded``.
        """
        return watched_reads()

    def _opened(self) -> Store:
        """The store as it was given, past the cache, for a call that is made now. Raises LifecycleError."""
        _ = self._connection.store
        return self.store

    def _fanout(self) -> FanOutStore:
        store = self._opened()
        several = _fanout_of(store)
        if several is None:
            raise ConfigurationError("there is one store, and nothing to compare it with", store=store.name)
        return several

    def transaction(self) -> Transaction:
        """Writes of several records, stored all or none at the end of an ``async with`` block; see Transaction."""
        repositories = (
            self.sessions,
            self.memories,
            self.metrics,
            self.evals,
            self.knowledge,
            self.traces,
            self.learnings,
            self.entries,
        )
        named = {each.lists.record.collection.name: each for each in repositories}
        return Transaction(self._connection, named, self.traces)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _fanout_of(store: Store) -> FanOutStore | None:
    """The store as a fan-out, if it is one; while the module is not loaded, none is."""
    module = sys.modules.get("agno_clouddb.fanout.store")
    return store if module is not None and isinstance(store, module.FanOutStore) else None


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _check_progress(progress: object) -> None:
    if progress is not None and not callable(progress):
        raise InvalidRecord("progress", f"is {progress!r}, not a function")


def connect(
    *stores: str | Store,
    prefix: str = "agno_",
    deadline: float = 10.0,
    consistency: Consistency = "strong",
    acks: Acks = 1,
    reads: ReadPolicy = "merge",
    failover: bool = False,
    reconcile_every: float | None = None,
    tombstone_retention: float | timedelta = TOMBSTONE_SECONDS,
    max_drift: float | timedelta = MAX_DRIFT_MILLIS / 1000,
    ttl: Mapping[str, float | timedelta] = MappingProxyType({}),
    cache: ReadCache | None = None,
) -> Database:
    """A Database over one store, or over several at once. It is opened by ``async with``, or by ``open``.

    Args:
        *stores: URLs (``dynamodb://REGION[?endpoint_url=…]``, ``firestore://PROJECT[/DATABASE]``,
            ``sqlite:///FILE``, ``memory://``) or Stores made with a client of your own. Several make a fan-out: the
            first is the primary. URL parameters such as ``prefix=`` go before the arguments here. The Database opens
            and closes the stores that it is given. Each is given once: two of a kind differ in region, file or prefix.
        prefix: goes before the names of tables and collections, for stores named by URL.
        deadline: seconds within which a call of a store ends, for stores named by URL.
        consistency: what reads give unless a call says otherwise.
        acks: with several stores: 1 to succeed when one has acknowledged a write, and keeps a hint of what the others
            have missed; ``"all"`` to raise PartialWrite unless all have.
        reads: with several stores: ``"merge"`` reads all and gives the newest; ``"primary"`` the first, and the others
            when it fails; ``"fastest"`` the one that answers first. The last two cost less, and may miss for up to five
            seconds what another process has written while that store did not answer.
        failover: with several stores: while the first is down, the next decides writes that expect a version, and
            transactions. By default these fail then. Processes of which some reach the first store and some do not may
            both succeed in what only one should.
        reconcile_every: with several stores: seconds between reconciliations in the background, by one process at a
            time; None: none.
        tombstone_retention: with several stores: how long what a delete leaves is kept, so that an older copy does not
            come back: seconds, or a timedelta; an hour at least, and 7 days by default. Compare the stores more often
            than that: a delete of which there is no hint, as when its process was killed, is known by it alone.
        max_drift: how far ahead of the wall clock the version of a stored record may be to be written over, so that
            one broken clock does not carry all others away: seconds, or a timedelta; a second at least, a year at most,
            and an hour by default.
        ttl: how long records are kept from their last write, by collection: days, or a timedelta, such as
            ``{"sessions": 90, "traces": 7}``. Runs are kept as long as sessions, spans as long as traces, each from its
            own last write, unless they are named too. A record with a later expiry of its own keeps that.
        cache: keeps what was read, for reads with ``consistency="eventual"`` alone, such as ``ReadCache(seconds=5)``;
            docs/read-cache.md says what they may miss. None: every read asks the store.

    Raises:
        ConfigurationError: no store, one given twice, an unknown scheme or parameter, or a value out of its range.
    """
    if not isinstance(prefix, str):
        raise ConfigurationError(f"prefix is {prefix!r}, not text")
    if not _is_positive(deadline):
        raise ConfigurationError(f"deadline is {deadline!r}, not a number of seconds over 0")
    check_options(acks, reads, failover, reconcile_every)
    seconds_between("tombstone_retention", tombstone_retention, *RETENTIONS)
    drift = seconds_between("max_drift", max_drift, *DRIFTS)
    opened = _distinct_stores(stores, StoreOptions(prefix, deadline))
    clock = HybridClock(max_drift=int(drift * 1000))
    if len(opened) == 1:
        return Database(opened[0], consistency=consistency, clock=clock, ttl=ttl, cache=cache)
    from agno_clouddb.fanout.store import FanOutStore

    store = FanOutStore(
        opened,
        acks=acks,
        reads=reads,
        failover=failover,
        deadline=_PATIENCE * deadline,
        reconcile_every=reconcile_every,
        tombstone_retention=tombstone_retention,
        clock=clock,
    )
    return Database(store, consistency=consistency, clock=clock, ttl=ttl, cache=cache)


def _distinct_stores(given: Sequence[str | Store], options: StoreOptions) -> list[Store]:
    """The stores that are given, by URL or as they are. Raises ConfigurationError for none, or for one given twice."""
    if not given:
        raise ConfigurationError("connect needs at least one URL or Store")
    stores: dict[Hashable, Store] = {}
    for each in given:
        if not isinstance(each, str | Store):
            raise ConfigurationError(f"{each!r} is neither a URL nor a Store")
        store = store_from_url(each, options) if isinstance(each, str) else each
        place = identity(store, each if isinstance(each, str) else None)
        if place in stores:
            raise ConfigurationError(
                f"{store.name} is given twice",
                remedy="Give each store once; two of a kind differ in region, file or prefix",
            )
        stores[place] = store
    return list(stores.values())
