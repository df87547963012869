"""What is measured, each with a meter: the library over one cloud or both, and agno's adapters over theirs."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from agno.db.base import AsyncBaseDb, BaseDb

from agno_clouddb import Database
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.stores.base import Consistency
from agno_clouddb.stores.dynamodb.store import DynamoDBStore
from agno_clouddb.stores.firestore.store import FirestoreStore
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.testing import dynamodb_local, firestore_emulator
from benchmarks.counting import Meter, RoundTrips, Source
from benchmarks.relay import Relay, relayed
from benchmarks.replayed import HISTORY
from benchmarks.rivals import agno_dynamodb, agno_firestore, in_threads

__all__ = ["Agno", "Engines", "Ours", "agno", "engines", "ours"]

_THREADS = 8

Engines = Mapping[str, Relay]
"""A relay to each engine, by cloud."""


@contextmanager
def engines() -> Iterator[Engines]:
    """DynamoDB Local and the Firestore emulator, each behind a relay; they end with the block."""
    with ExitStack() as stack:
        urls = {
            "dynamodb": stack.enter_context(dynamodb_local()),
            "firestore": stack.enter_context(firestore_emulator()),
        }
        yield {cloud: stack.enter_context(relayed(url)) for cloud, url in urls.items()}


@dataclass(frozen=True, slots=True)
class Ours:
    """The library.

    Args:
        database: open and provisioned.
        agno: the same for agno's agents, which read as many runs as they are given.
        meter: of each of its clouds.
        stores: by cloud.
    """

    database: Database
    agno: AsyncCloudDb
    meter: Meter
    stores: Mapping[str, DynamoDBStore | FirestoreStore]


@asynccontextmanager
async def ours(
    urls: Mapping[str, str],
    *,
    relays: Engines | None = None,
    count: bool = True,
    consistency: Consistency = "strong",
) -> AsyncIterator[Ours]:
    """The library over the clouds that are given, several of them as a fan-out, with tables of its own.

    Args:
        urls: by cloud.
        relays: whose bytes are counted.
        count: ask DynamoDB for the units that each request uses.
        consistency: of reads.
    """
    options = StoreOptions(prefix=f"b{secrets.token_hex(4)}_", deadline=60)
    stores: dict[str, DynamoDBStore | FirestoreStore] = {}
    for cloud, url in urls.items():
        store = store_from_url(f"{url}&report_capacity=true" if count and cloud == "dynamodb" else url, options)
        assert isinstance(store, DynamoDBStore | FirestoreStore)
        stores[cloud] = store
    wrapped = {cloud: RoundTrips(store) for cloud, store in stores.items()} if count else stores
    whole = FanOutStore(list(wrapped.values())) if len(wrapped) > 1 else next(iter(wrapped.values()))
    async with Database(whole, consistency=consistency) as database:
        await database.provision()
        meter = Meter({cloud: _source(stores[cloud], wrapped[cloud], (relays or {}).get(cloud)) for cloud in stores})
        yield Ours(database, AsyncCloudDb(database=database, history_runs=HISTORY), meter, stores)


def _source(store: DynamoDBStore | FirestoreStore, wrapped: object, relay: Relay | None) -> Source:
    trips = (lambda: wrapped.sequential) if isinstance(wrapped, RoundTrips) else (lambda: 0)
    return Source(store.usage, trips, relay)


@dataclass(frozen=True, slots=True)
class Agno:
    """agno's own adapter.

    Args:
        name: of its class.
        db: as agno ships it: synchronous.
        threaded: the same in a pool of threads.
        meter: of its cloud.
    """

    name: str
    db: BaseDb
    threaded: AsyncBaseDb
    meter: Meter

    @contextmanager
    def unasked(self) -> Iterator[None]:
        """Do not ask before every call whether the tables exist: for calls that are not measured."""
        self.db.table_exists = lambda table_name: True  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.db.table_exists


@contextmanager
def agno(
    cloud: str, url: str, *, relay: Relay | None = None, count: bool = True, threads: int = _THREADS
) -> Iterator[Agno]:
    """agno's adapter of a cloud, with tables or collections of its own.

    Args:
        cloud: ``dynamodb`` or ``firestore``.
        url: of the engine or the relay.
        relay: whose bytes are counted.
        count: ask DynamoDB for the units that each request uses.
        threads: in the pool, and connections of the client.
    """
    prefix = f"a{secrets.token_hex(4)}_"
    with ExitStack() as stack:
        if cloud == "dynamodb":
            name = "DynamoDb"
            made = stack.enter_context(agno_dynamodb(url, prefix, connections=max(10, threads), count=count))
        else:
            name = "FirestoreDb"
            made = stack.enter_context(agno_firestore(url, prefix))
        db, usage = made
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        yield Agno(name, db, in_threads(db, pool), Meter({cloud: Source.blocking(usage, relay)}))
