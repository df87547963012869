"""DynamoDBStore: items in Amazon DynamoDB, a table a collection."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

import anyio

from agno_clouddb.errors import ConfigurationError, LifecycleError
from agno_clouddb.stores.base import (
    Batch,
    Consistency,
    Cursor,
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
    check_scan,
    check_write,
    chosen,
)
from agno_clouddb.stores.clock import epoch_seconds
from agno_clouddb.stores.dynamodb.calls import Call
from agno_clouddb.stores.dynamodb.lists import Lister, plan
from agno_clouddb.stores.dynamodb.reads import Reader
from agno_clouddb.stores.dynamodb.scans import scan_of
from agno_clouddb.stores.dynamodb.tables import chunk_table, layouts
from agno_clouddb.stores.dynamodb.writes import TRANSACTION_ACTIONS, Writer
from agno_clouddb.stores.usage import Usage

if TYPE_CHECKING:
    import aioboto3

    from agno_clouddb.stores.dynamodb.client import Client

__all__ = ["DRIVERS", "Driver", "DynamoDBStore"]

Driver = Literal["slim", "aioboto3"]

DRIVERS: tuple[Driver, ...] = ("slim", "aioboto3")
"""What can send the requests that read and write items."""

T = TypeVar("T")

# A transaction holds 4 MB; read as 4,000,000 bytes, that leaves 100 KB for keys, fields and the chunks' own keys.
_PAYLOAD_BYTES = 3_900_000

_LOCAL_REGION = "us-east-1"  # what an emulator is told that takes any


@dataclass(frozen=True, slots=True)
class _Opened:
    loop: asyncio.AbstractEventLoop
    client: Client
    reader: Reader
    writer: Writer
    lister: Lister


class DynamoDBStore(Store):
    """Keeps items in DynamoDB tables named by ``prefix`` and collection, and the chunks of large payloads in one more.

    A write is one conditional request, with no read before; a get is one request for up to 100 keys; a list is one
    index query and, but for children by their parent, one batch of reads. Reads by key and lists of children are
    strongly consistent, unless eventual consistency is asked for. Other lists are read from global indexes, which lag
    by moments, but each listed item is read from its table.

    Payloads that do not fit into an item of 400 KB are written as chunks in the same transaction as their item.

    Args:
        region: the AWS region; by default AWS_REGION's, or the profile's.
        endpoint_url: another address than the region's own. On loopback, where an emulator listens, region and
            credentials may be missing.
        prefix: precedes the names of tables.
        session: the session to take credentials and region from, instead of the environment's.
        driver: what sends the requests that read and write items: ``slim``, which signs them with the session's
            credentials and sends them itself, for a fraction of the processor time; or ``aioboto3``, for those who
            need its event hooks around them. All other requests go through aioboto3.
        deadline: seconds within which every call but ``provision`` ends.
        shards: over how many index partitions a whole collection is spread, for those who write over 1,000 items a
            second. May be raised later, never lowered: items of higher shards would not be listed.
        report_capacity: ask the service for the units that each request has used, which ``usage`` adds up.

    Attributes:
        usage: requests sent, and units used where they are reported.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    limits = Limits(payload_bytes=_PAYLOAD_BYTES, atomic_items=TRANSACTION_ACTIONS, atomic_bytes=_PAYLOAD_BYTES)

    def __init__(
        self,
        region: str | None = None,
        *,
        endpoint_url: str | None = None,
        prefix: str = "agno_",
        session: aioboto3.Session | None = None,
        driver: Driver = "slim",
        deadline: float = 10.0,
        shards: int = 1,
        report_capacity: bool = False,
    ) -> None:
        self._local = _is_loopback(endpoint_url)
        named = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if named is None and self._local:
            named = region = _LOCAL_REGION
        self.name = f"dynamodb://{named or ''}" + (f"?endpoint_url={endpoint_url}" if endpoint_url is not None else "")
        if shards < 1 or deadline <= 0:
            raise ConfigurationError(
                f"shards is {shards} and deadline {deadline}", store=self.name, remedy="Both must be over 0"
            )
        if driver not in DRIVERS:
            raise ConfigurationError(
                f"there is no driver {driver!r}", store=self.name, remedy=f"Use one of {', '.join(DRIVERS)}"
            )
        self._region = region
        self._endpoint_url = endpoint_url
        self._session = session
        self._driver = driver
        self._deadline = deadline
        self._shards = shards
        self._report_capacity = report_capacity
        self.usage = Usage()
        self.prefix = prefix
        self._layouts = layouts(prefix)
        self._chunks = chunk_table(prefix)
        self._opened: _Opened | None = None

    async def open(self) -> None:
        if self._opened is not None:
            return
        # Importing the driver takes up to seconds, in which the event loop would stand still.
        await asyncio.to_thread(import_module, "agno_clouddb.stores.dynamodb.client")
        from agno_clouddb.stores.dynamodb.client import Client

        client = await Client.open(
            self.name,
            region=self._region,
            endpoint_url=self._endpoint_url,
            local=self._local,
            session=self._session,
            slim=self._driver == "slim",
            deadline=self._deadline,
            usage=self.usage,
            report_capacity=self._report_capacity,
        )
        reader = Reader(client, self._layouts, self._chunks, self.name)
        writer = Writer(
            client,
            self._layouts,
            self._chunks,
            shards=self._shards,
            store=self.name,
            payload_limit=self.limits.payload_bytes,
            now=epoch_seconds,
        )
        self._opened = _Opened(asyncio.get_running_loop(), client, reader, writer, Lister(client, reader))

    async def aclose(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.client.aclose()

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Create the tables and indexes that are missing, and wait until they can be used. Safe to call always.

        Tables are made with on-demand billing; expired items are removed by the service (TTL). Indexes are added to
        existing tables one after another, as the service demands, which on large tables takes minutes: the deadline
        holds for each request, not for the whole, which ends after half an hour.

        Args:
            collections: only the tables of these, and that of chunks, which all share; None: all.
            replicated: also the table ``replication``, and on each of the others the index ``shard-version-index``,
                which costs up to two write units for each write. Neither is ever taken away.
            wait_for_indexes: makes no difference, since indexes are made here and always waited for.
            progress: is told, table by table, what is done and what is waited for.

        Raises:
            InvalidRecord: there is no such collection.
            ConfigurationError: a table of the same name has other keys, or the credentials do not allow it.
            StoreUnavailable: the service does not answer, or takes over half an hour.
        """
        from agno_clouddb.stores.dynamodb.provision import provision

        known = [self._layouts[name] for name in chosen(collections, replicated=replicated)]
        tables = [each.replicated() if replicated else each.table for each in known]
        await provision(self._require_open().client, [*tables, self._chunks], self.name, self._deadline, progress)

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        for key in keys:
            key.check()
        opened = self._require_open()
        if not keys:
            return Batch(())
        call = self._call(keys[0].collection, keys[0] if len(keys) == 1 else None)
        now = epoch_seconds()
        found = await self._within(call, partial(opened.reader.items, keys, consistency == "strong", now, call))
        items = (found.get(key) for key in keys)
        return Batch(tuple(item if item is not None and (dead or item.live(now)) else None for item in items))

    def check(self, mutations: Sequence[Mutation], *, atomic: bool) -> tuple[Outcome | None, ...]:
        """As the port says; an atomic write is planned for it, since its chunks count as actions of a transaction."""
        checked = check_write(self, mutations, atomic)
        return checked if not atomic or any(checked) else self._require_open().writer.check(mutations)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        checked = check_write(self, mutations, atomic)
        opened = self._require_open()
        return await opened.writer.write(mutations, checked, atomic, anyio.current_time() + self._deadline)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        query.check(limit)
        opened = self._require_open()
        planned = plan(query, cursor, self._layouts[query.collection], self._shards)
        call = self._call(query.collection)
        now = epoch_seconds()
        work = partial(opened.lister.page, planned, query, limit, consistency == "strong", now, call)
        return await self._within(call, work)

    async def count(self, query: Query) -> int:
        query.check()
        opened = self._require_open()
        planned = plan(query, None, self._layouts[query.collection], self._shards)
        call = self._call(query.collection)
        return await self._within(call, partial(opened.lister.count, planned, query, epoch_seconds(), call))

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        """How many items ``query`` lists for each value of a field, with the least and greatest sort value of each.

        Where the query's index has all that it asks for, the index alone is read: entries that lag, and items that
        have expired and are not removed yet, are counted as they stand there. Otherwise the items are listed, each
        page within a deadline of its own.
        """
        query.check_field(by)
        opened = self._require_open()
        planned = plan(query, None, self._layouts[query.collection], self._shards)
        if not planned.tells(by):
            return await super().tally(query, by)
        call = self._call(query.collection)
        return await self._within(call, partial(opened.lister.tally, planned, by, call))

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        """As the port says: everything is read from the table, strongly consistent, at the price of whole items.

        What is since a version is read from the index by version, which lags by moments and costs next to nothing.
        """
        check_scan(collection, limit, since)
        planned = scan_of(self._layouts[collection], since, cursor, self._shards)
        call = self._call(collection)
        return await self._within(call, partial(planned.run, self._require_open().client, limit, call))

    def _call(self, collection: str, key: Key | None = None) -> Call:
        return Call(anyio.current_time() + self._deadline, collection, key)

    async def _within(self, call: Call, work: Callable[[], Awaitable[T]]) -> T:
        with anyio.CancelScope(deadline=call.deadline):
            return await work()
        raise self._require_open().client.late(call)

    def _require_open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")
        if opened.loop is not asyncio.get_running_loop():
            raise LifecycleError(
                "the store was opened in another event loop", store=self.name, remedy="Open one store an event loop"
            )
        return opened


def _is_loopback(url: str | None) -> bool:
    """Whether a URL names this machine, where only an emulator listens."""
    host = urlsplit(url).hostname if url else None
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
