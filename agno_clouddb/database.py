"""Database: one or more stores, and the repositories over them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Self

from agno_clouddb.errors import ConfigurationError
from agno_clouddb.fanout.policy import Acks
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.repositories.base import Connection
from agno_clouddb.repositories.evals import Evals
from agno_clouddb.repositories.expiry import ttls
from agno_clouddb.repositories.knowledge import Knowledge
from agno_clouddb.repositories.learnings import Learnings
from agno_clouddb.repositories.memories import Memories
from agno_clouddb.repositories.metrics import DailyMetrics
from agno_clouddb.repositories.sessions import Sessions
from agno_clouddb.repositories.traces import Traces
from agno_clouddb.repositories.transactions import Transaction
from agno_clouddb.stores.base import Consistency, Progress, Store
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.urls import StoreOptions, store_from_url

__all__ = ["Database", "connect"]


class Database:
    """The repositories over a store. Serves any number of concurrent tasks of the event loop that opened it.

    Nothing touches the network before ``open``, which ``async with`` calls.

    Args:
        store: where everything is kept; a FanOutStore for several.
        consistency: what reads give unless a call says otherwise: ``strong`` sees every write acknowledged before
            the call, ``eventual`` may lag and costs half the read units on DynamoDB.
        clock: makes the version stamps.
        ttl: see ``connect``.
    """

    def __init__(
        self,
        store: Store,
        *,
        consistency: Consistency = "strong",
        clock: HybridClock | None = None,
        ttl: Mapping[str, float | timedelta] = MappingProxyType({}),
    ) -> None:
        if consistency not in ("strong", "eventual"):
            raise ConfigurationError(f"consistency is {consistency!r}, neither strong nor eventual")
        self.store = store
        self._connection = Connection(store, consistency, clock or HybridClock(), ttls(ttl))
        self.sessions = Sessions(self._connection)
        self.memories = Memories(self._connection)
        self.metrics = DailyMetrics(self._connection)
        self.evals = Evals(self._connection)
        self.knowledge = Knowledge(self._connection)
        self.traces = Traces(self._connection)
        self.learnings = Learnings(self._connection)

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
        )
        named = {each.lists.record.collection.name: each for each in repositories}
        return Transaction(self._connection, named, self.traces)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def connect(
    *stores: str | Store,
    prefix: str = "agno_",
    deadline: float = 10.0,
    consistency: Consistency = "strong",
    acks: Acks = 1,
    ttl: Mapping[str, float | timedelta] = MappingProxyType({}),
) -> Database:
    """A Database over one store, or over several at once. It is opened by ``async with``, or by ``open``.

    Args:
        *stores: URLs (``dynamodb://REGION[?endpoint_url=…]``, ``firestore://PROJECT[/DATABASE]``,
            ``sqlite:///FILE``, ``memory://``) or Stores made with a client of your own. Several make a fan-out: the
            first is the primary. URL parameters such as ``prefix=`` go before the arguments here. The Database opens
            and closes the stores that it is given.
        prefix: goes before the names of tables and collections, for stores named by URL.
        deadline: seconds within which a call of a store ends, for stores named by URL.
        consistency: what reads give unless a call says otherwise.
        acks: with several stores: 1 to succeed when one has acknowledged a write, ``"all"`` to raise PartialWrite
            unless all have.
        ttl: how long records are kept from their last write, by collection: days, or a timedelta, such as
            ``{"sessions": 90, "traces": 7}``. Runs are kept as long as sessions, spans as long as traces, each from its
            own last write, unless they are named too. A record with a later expiry of its own keeps that.

    Raises:
        ConfigurationError: no store, an unknown scheme or parameter, or a value out of its range.
    """
    if not stores:
        raise ConfigurationError("connect needs at least one URL or Store")
    if not isinstance(deadline, int | float) or not 0 < deadline < float("inf"):
        raise ConfigurationError(f"deadline is {deadline!r}, not a number of seconds over 0")
    if acks not in (1, "all"):
        raise ConfigurationError(f'acks is {acks!r}, neither 1 nor "all"')
    options = StoreOptions(prefix, deadline)
    opened = [store_from_url(each, options) if isinstance(each, str) else each for each in stores]
    clock = HybridClock()
    store = opened[0] if len(opened) == 1 else FanOutStore(opened, acks=acks, clock=clock)
    return Database(store, consistency=consistency, clock=clock, ttl=ttl)
