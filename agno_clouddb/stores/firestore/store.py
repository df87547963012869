"""FirestoreStore: items as documents of Google Cloud Firestore."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

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
from agno_clouddb.stores.firestore.indexes import composite_indexes, group_indexes
from agno_clouddb.stores.firestore.names import Layout
from agno_clouddb.stores.firestore.tokens import Tokens
from agno_clouddb.stores.usage import Usage

if TYPE_CHECKING:
    from google.cloud.firestore_v1.async_client import AsyncClient

    from agno_clouddb.stores.firestore.client import Connection
    from agno_clouddb.stores.firestore.reader import Reader
    from agno_clouddb.stores.firestore.scans import Scanner
    from agno_clouddb.stores.firestore.writer import Writer

__all__ = ["FirestoreStore"]

_MIB = 1024 * 1024
_SERVICE_REQUEST_BYTES = 10 * _MIB
_EMULATOR_REQUEST_BYTES = 4 * _MIB
_ENVELOPE_BYTES = 128 * 1024  # what a request has besides a payload: names of the document and its chunks, and fields
_EMULATOR_PROJECT = "google-cloud-firestore-emulator"  # what the client assumes where none is named


@dataclass(frozen=True, slots=True)
class _Opened:
    loop: asyncio.AbstractEventLoop
    connection: Connection
    reader: Reader
    scanner: Scanner
    writer: Writer


class FirestoreStore(Store):
    """Keeps items in a Firestore database in native mode, a document each.

    A write is one request as long as the document is as this store last saw it; otherwise the document is read and the
    write decided again. A read is strongly consistent, also where ``eventual`` is asked for: Firestore charges and
    serves both alike. Payloads over the 1 MiB of a document are kept in documents beneath it, written in the same
    commit and read as of the same moment.

    Limits: https://firebase.google.com/docs/firestore/quotas. A request is at most 10 MiB, on the emulator 4 MiB, so
    that a payload is at most 9.875 MiB, on the emulator 3.875 MiB.

    Args:
        project: the project's id; by default that of the client, or of the environment's credentials.
        database: the database's id.
        prefix: precedes the names of collections.
        client: a ready client, used instead of one of the store's own and left open; its project and database hold.
        emulator_host: ``HOST:PORT`` of an emulator, which needs no credentials; by default the environment variable
            FIRESTORE_EMULATOR_HOST.
        deadline: seconds within which every call ends.
        max_tokens: of how many documents the store remembers what it last saw.

    Attributes:
        usage: requests sent, and documents read and written.

    Raises:
        ConfigurationError: the prefix cannot begin the name of a collection, or a client is given together with
            settings that it has of its own.
    """

    def __init__(
        self,
        project: str | None = None,
        database: str = "(default)",
        *,
        prefix: str = "agno_",
        client: AsyncClient | None = None,
        emulator_host: str | None = None,
        deadline: float = 10.0,
        max_tokens: int = 10_000,
    ) -> None:
        Layout.check(prefix)
        if client is not None:
            if emulator_host is not None or project not in (None, client.project):
                raise ConfigurationError(
                    "a client is given together with another project or an emulator",
                    store=f"firestore://{client.project}",
                    remedy="Set project and emulator on the client",
                )
            project, database = client.project, client._database
            self._emulator_host = client._emulator_host
        else:
            self._emulator_host = emulator_host or os.environ.get("FIRESTORE_EMULATOR_HOST")
        named = project or os.environ.get("GOOGLE_CLOUD_PROJECT") or os.environ.get("GCLOUD_PROJECT")
        self._project = named or (_EMULATOR_PROJECT if self._emulator_host else None)
        self._database = database
        self._given = client
        self.prefix = prefix
        self._deadline = deadline
        self._request_bytes = _EMULATOR_REQUEST_BYTES if self._emulator_host else _SERVICE_REQUEST_BYTES
        payload_bytes = self._request_bytes - _ENVELOPE_BYTES
        self.limits = Limits(payload_bytes=payload_bytes, atomic_items=500, atomic_bytes=payload_bytes)
        self.usage = Usage()
        self._tokens = Tokens(max_tokens)
        self._opened: _Opened | None = None
        self.name = self._describe()

    async def open(self) -> None:
        """Connect; the project and credentials are looked for here, where they are not given.

        Raises:
            ConfigurationError: there is no project, or there are no credentials.
        """
        if self._opened is not None:
            return
        # Importing the client and looking for credentials block for up to seconds.
        client = await asyncio.to_thread(self._client)
        self._project = client.project
        self.name = self._describe()
        from agno_clouddb.stores.firestore.client import Connection
        from agno_clouddb.stores.firestore.reader import Reader
        from agno_clouddb.stores.firestore.scans import Scanner
        from agno_clouddb.stores.firestore.writer import Writer

        connection = Connection(client, owned=self._given is None, name=self.name, usage=self.usage)
        layout = Layout(connection.root, self.prefix)
        reader = Reader(connection, layout, self._tokens, name=self.name, now=epoch_seconds)
        writer = Writer(
            connection,
            reader,
            layout,
            self._tokens,
            name=self.name,
            request_bytes=self._request_bytes,
            now=epoch_seconds,
        )
        scanner = Scanner(connection, layout, name=self.name)
        self._opened = _Opened(asyncio.get_running_loop(), connection, reader, scanner, writer)

    async def aclose(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.connection.aclose()

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Check that the database is there and can be read.

        Firestore makes collections with their first document, so that there is nothing to create. Indexes are deployed
        with its command-line tools, from what ``agno-clouddb schema firestore`` prints.

        Args:
            collections: whose indexes to wait for, by name; None: all.
            replicated: wait also for the indexes of the collection ``replication``, and for those by version that are
                not automatic: of children, whatever their parents.
            wait_for_indexes: wait until the indexes are built, for at most half an hour. An emulator has none.
            progress: is told of every index how far it is.

        Raises:
            InvalidRecord: there is no such collection.
            NotProvisioned: the project has no such database.
            ConfigurationError: the credentials do not give access to it, or not to the list of its indexes.
            IndexNotReady: an index is not deployed, or not built in time.
            Throttled, StoreUnavailable: it does not answer.
        """
        names = chosen(collections, replicated=replicated)
        opened = self._require_open()
        await opened.reader.get([Key("sessions", "provision")], self._until())
        if not wait_for_indexes:
            return
        if self._emulator_host:
            if progress is not None:
                progress(f"{self.name}: an emulator needs no indexes")
            return
        admin = await asyncio.to_thread(_import_admin)
        service = admin.IndexService(opened.connection, self.name, self._deadline)
        wanted = composite_indexes(names, self.prefix)
        if replicated:
            wanted += group_indexes(names, self.prefix)
        await admin.await_indexes(partial(service.states, wanted), wanted, self.name, progress)

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        for key in keys:
            key.check()
        items = await self._require_open().reader.get(keys, self._until(), dead=dead)
        return Batch(tuple(items.get(key) for key in keys))

    def check(self, mutations: Sequence[Mutation], *, atomic: bool) -> tuple[Outcome | None, ...]:
        """As the port says; of an atomic write, the commit as it would be sent first is measured too."""
        checked = check_write(self, mutations, atomic)
        if atomic and not any(checked):
            self._require_open().writer.check(mutations)
        return checked

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        checked = check_write(self, mutations, atomic)
        writer = self._require_open().writer
        if all(checked):
            return tuple(each for each in checked if each is not None)
        sound = [each for each, early in zip(mutations, checked, strict=True) if early is None]
        outcomes = iter(await writer.write(sound, self._until(), atomic=atomic))
        return tuple(early or next(outcomes) for early in checked)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        """One page of a list, as the port says: one request that reads at most ``limit`` documents.

        Whether more follow a page that is exactly full is not asked, because that would read another document; the
        page after it may then be empty. Filters that no index serves (``contains``, ranges of other fields than the
        sort field) are applied here, which may take more requests.
        """
        query.check(limit)
        return await self._require_open().reader.page(query, limit, cursor, self._until())

    async def count(self, query: Query) -> int:
        query.check()
        return await self._require_open().reader.count(query, self._until())

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        """As the port says, from the fields of all documents that the query lists: one read for each.

        What has expired is left out. The deadline holds for each request, of which there is one for 1,000 documents.
        """
        query.check_field(by)
        return await self._require_open().reader.tally(query, by, self._until)

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        """As the port says: one request, which reads at most ``limit`` documents, and no more than 1,000.

        The order without ``since`` is that of the documents' names, by parents for children. With ``since``, children
        are found in a collection group, which has those of all prefixes in the database: these are read, and charged,
        and left out. Where several stores share a database, each finds the others' changes so.
        """
        check_scan(collection, limit, since)
        return await self._require_open().scanner.scan(collection, limit, since, cursor, self._until())

    def _client(self) -> AsyncClient:
        for part in ("reader", "scans", "writer"):  # what works with it, imported in the same thread
            import_module(f"agno_clouddb.stores.firestore.{part}")
        if self._given is not None:
            return self._given
        from agno_clouddb.stores.firestore.client import create_client

        return create_client(self._project, self._database, self._emulator_host)

    def _describe(self) -> str:
        database = "" if self._database == "(default)" else f"/{self._database}"
        return f"firestore://{self._project or ''}{database}"

    def _until(self) -> float:
        return asyncio.get_running_loop().time() + self._deadline

    def _require_open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")
        if opened.loop is not asyncio.get_running_loop():
            raise LifecycleError(
                "the store was opened in another event loop",
                store=self.name,
                remedy="Use one store in each event loop",
            )
        return opened


def _import_admin() -> ModuleType:
    return import_module("agno_clouddb.stores.firestore.admin")
