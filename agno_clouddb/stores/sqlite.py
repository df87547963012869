"""SQLiteStore: items in one file, the embedded default; several tasks and several processes may use it at once.

Every call is one function that runs from its first statement to its last in a connection's own thread. A call that is
cancelled can therefore not leave a transaction open: the function sees it and rolls back, or has committed already. (A
driver with an awaitable for each statement could be cancelled between any two of them.)
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agno_clouddb.errors import CloudDBError, ConfigurationError, LifecycleError, NotProvisioned, StoreUnavailable
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
from agno_clouddb.stores.memory import epoch_seconds
from agno_clouddb.stores.schema import COLLECTIONS
from agno_clouddb.stores.sqlite_tables import Table, add_functions

__all__ = ["SQLiteStore"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_MIB = 1024 * 1024
_EXPIRED_KEPT = 86_400  # seconds; the clouds too remove what has expired within days, not at once
_BUSY_WAIT = 0.1  # seconds that SQLite waits for a lock by itself before a call looks at its deadline
_STEPS = 20_000  # instructions of SQLite's virtual machine, about a millisecond, between two looks at the deadline
_BACKSTOP = 2.0  # seconds after the deadline until a call no longer waits for a disk that does not answer
_MISSING = re.compile(r"no such (table|column|index)|no query solution")


class _Connection:
    """A connection to the file and the one thread that uses it, one call after the other."""

    raw: sqlite3.Connection

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agno_clouddb-sqlite")

    def connect(self, path: str) -> sqlite3.Connection:
        """Connect; to be called in the thread, like all that touches ``raw``."""
        self.raw = sqlite3.connect(path, timeout=_BUSY_WAIT, isolation_level=None)
        return self.raw

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in the thread, after those that are to run already."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def aclose(self) -> None:
        """Close once the calls under way are done, even when the caller does not wait for it."""
        closing = self._thread.submit(self._close)
        try:
            await self.run(closing.result)
        finally:
            self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if hasattr(self, "raw"):
            self.raw.close()


class _Call:
    """One call, as it runs in a connection's thread.

    Args:
        deadline: seconds from now until it gives up.
    """

    def __init__(self, deadline: float) -> None:
        self.abandoned = False  # set by the caller's side, when nobody waits for the call any more
        self.committing = False
        self._until = time.monotonic() + deadline

    def repeat(self, connection: sqlite3.Connection, work: Work[T]) -> T:
        """Run ``work`` again and again while the database is locked."""
        while True:
            self._check()
            try:
                return work(connection)
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY:
                    raise
                self.committing = False
                if self._over():
                    raise

    def transaction(self, connection: sqlite3.Connection, begin: str, work: Work[T]) -> T:
        """Run ``work`` in a transaction, which is rolled back unless the caller waits for it to the end."""
        try:
            connection.set_progress_handler(self._over, _STEPS)
            connection.execute(begin)
            result = work(connection)
            # A commit that has begun is not interrupted: nobody could say what it came to.
            connection.set_progress_handler(None, 0)
            self._commit(connection)
            return result
        finally:
            connection.set_progress_handler(None, 0)
            if connection.in_transaction:
                connection.rollback()

    def _commit(self, connection: sqlite3.Connection) -> None:
        # In this order: a caller who finds False after abandoning the call knows that nothing is or will be committed.
        self.committing = True
        try:
            self._check()
        except TimeoutError:
            self.committing = False
            raise
        connection.execute("COMMIT")

    def _check(self) -> None:
        if self._over():
            raise TimeoutError

    def _over(self) -> bool:
        return self.abandoned or time.monotonic() >= self._until


class SQLiteStore(Store):
    """Keeps items in an SQLite file in WAL mode, so that readers and a writer do not wait for each other.

    A write is on the disk when it is acknowledged (``synchronous=FULL``): with ``NORMAL``, WAL mode may lose the last
    commits in a power cut, and an acknowledged write is never lost. All reads are strongly consistent. The file must be
    on a local disk, as WAL mode needs memory shared between the processes (https://www.sqlite.org/wal.html).

    Nothing removes expired items while the store is open; ``provision`` removes those expired for a day.

    Args:
        path: the file; created when missing, its folder is not.
        prefix: goes before the tables' names, whose case SQLite does not tell apart.
        deadline: seconds that a call may take, waiting for other calls and other processes' writes included.
        now: the wall clock in seconds since the epoch; replaced in tests.
    """

    limits = Limits(payload_bytes=16 * _MIB, atomic_items=500, atomic_bytes=64 * _MIB)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        prefix: str = "",
        deadline: float = 10.0,
        now: Callable[[], int] = epoch_seconds,
    ) -> None:
        self._path = os.fspath(path)
        self.name = f"sqlite:///{self._path}"
        self._prefix = prefix
        self._deadline = deadline
        self._now = now
        self._tables = {name: Table(declared, prefix) for name, declared in COLLECTIONS.items()}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: _Connection | None = None
        self._reader: _Connection | None = None

    async def open(self) -> None:
        if self._loop is not None:
            raise LifecycleError("the store is open already", store=self.name)
        if self._path in ("", ":memory:"):
            raise ConfigurationError("SQLiteStore needs a file", store=self.name, remedy="Use memory:// instead")
        if self._prefix.lower().startswith("sqlite_"):
            raise ConfigurationError(f"SQLite keeps names like {self._prefix!r} for itself", store=self.name)
        self._loop = asyncio.get_running_loop()
        self._writer, self._reader = _Connection(), _Connection()
        try:
            await self._prepare(self._writer)
            await self._prepare(self._reader)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        connections = (self._reader, self._writer)
        self._loop = self._reader = self._writer = None
        await asyncio.gather(*(each.aclose() for each in connections if each is not None))

    async def provision(self) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for table in self._tables.values():
                table.provision(connection, self._now() - _EXPIRED_KEPT)

        await self._run(self._open()[1], "BEGIN IMMEDIATE", work)

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        for key in keys:
            key.check()

        def work(connection: sqlite3.Connection) -> Batch:
            now = self._now()
            found = (self._find(connection, key, self._tables[key.collection].get) for key in keys)
            return Batch(tuple(item if item is not None and (dead or item.live(now)) else None for item in found))

        return await self._run(self._open()[0], "BEGIN", work)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        checked = check_write(self, mutations, atomic)
        writer = self._open()[1]
        if all(checked):
            return tuple(each for each in checked if each is not None)

        def work(connection: sqlite3.Connection) -> tuple[Outcome, ...]:
            now = self._now()
            outcomes = [
                early or self._decide(connection, mutation, now)
                for early, mutation in zip(checked, mutations, strict=True)
            ]
            if atomic and any(isinstance(each, Refused | Failed) for each in outcomes):
                return tuple(each if isinstance(each, Refused | Failed) else Refused("atomic") for each in outcomes)
            return tuple(
                outcome or self._apply(connection, mutation)
                for outcome, mutation in zip(outcomes, mutations, strict=True)
            )

        call = _Call(self._deadline)
        try:
            return await self._run(writer, "BEGIN IMMEDIATE", work, call)
        except CloudDBError as error:
            applied = call.committing
            return tuple(early or Failed(error, applied) for early in checked)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        query.check()
        table = self._tables[query.collection]
        statement, parameters = table.page(query, self._now(), cursor, limit + 1)

        def work(connection: sqlite3.Connection) -> list[Item]:
            return [table.item(row) for row in self._execute(connection, query.collection, statement, parameters)]

        found = await self._run(self._open()[0], "BEGIN", work)
        items = tuple(found[:limit])
        return Page(items, query.place(items[-1]) if len(found) > limit else None)

    async def count(self, query: Query) -> int:
        query.check()
        statement, parameters = self._tables[query.collection].count(query, self._now())

        def work(connection: sqlite3.Connection) -> int:
            number: int = self._execute(connection, query.collection, statement, parameters).fetchone()[0]
            return number

        return await self._run(self._open()[0], "BEGIN", work)

    def _find(self, connection: sqlite3.Connection, key: Key, statement: str) -> Item | None:
        table = self._tables[key.collection]
        row = self._execute(connection, key.collection, statement, table.key(key)).fetchone()
        return table.item(row) if row is not None else None

    def _execute(
        self, connection: sqlite3.Connection, collection: str, statement: str, parameters: Sequence[str | int]
    ) -> sqlite3.Cursor:
        try:
            return connection.execute(statement, parameters)
        except sqlite3.OperationalError as error:
            if not _MISSING.search(str(error)):
                raise
            raise NotProvisioned(str(error), store=self.name, collection=collection) from error

    def _decide(self, connection: sqlite3.Connection, mutation: Mutation, now: int) -> Outcome | None:
        try:
            found = self._find(connection, mutation.key, self._tables[mutation.key.collection].get_head)
        except NotProvisioned as error:
            return Failed(error)
        return decide(mutation, found, now)

    def _apply(self, connection: sqlite3.Connection, mutation: Mutation) -> Stored:
        table = self._tables[mutation.key.collection]
        if isinstance(mutation, Put):
            connection.execute(table.put, table.row(mutation.item))
        else:
            connection.execute(table.delete, table.key(mutation.key))
        return Stored(mutation.version)

    def _open(self) -> tuple[_Connection, _Connection]:
        """The reading and the writing connection: a read does not queue behind a write that waits for a lock."""
        if self._reader is None or self._writer is None:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")
        if self._loop is not asyncio.get_running_loop():
            raise LifecycleError("the store was opened in another event loop", store=self.name)
        return self._reader, self._writer

    async def _prepare(self, connection: _Connection) -> None:
        def work(raw: sqlite3.Connection) -> None:
            (encoding,) = raw.execute("PRAGMA encoding").fetchone()
            if encoding != "UTF-8":
                raise ConfigurationError(f"the file orders text as {encoding} and not as UTF-8", store=self.name)
            raw.execute("PRAGMA journal_mode = WAL")
            raw.execute("PRAGMA synchronous = FULL")
            add_functions(raw)

        call = _Call(self._deadline)
        await self._in_thread(connection, call, lambda: call.repeat(connection.connect(self._path), work))

    async def _run(self, connection: _Connection, begin: str, work: Work[T], call: _Call | None = None) -> T:
        running = call or _Call(self._deadline)

        def transaction(raw: sqlite3.Connection) -> T:
            return running.transaction(raw, begin, work)

        return await self._in_thread(connection, running, lambda: running.repeat(connection.raw, transaction))

    async def _in_thread(self, connection: _Connection, call: _Call, function: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._deadline + _BACKSTOP):
                return await connection.run(function)
        except TimeoutError as error:
            raise StoreUnavailable(f"not done within {self._deadline} seconds", store=self.name) from error
        except sqlite3.Error as error:
            raise self._problem(error) from error
        finally:
            call.abandoned = True

    def _problem(self, error: sqlite3.Error) -> CloudDBError:
        code = _code(error)
        if code == sqlite3.SQLITE_NOTADB:
            return ConfigurationError("the file is not an SQLite database", store=self.name)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            what = f"another program kept the file locked for {self._deadline} seconds"
        elif code == sqlite3.SQLITE_INTERRUPT:
            what = f"not done within {self._deadline} seconds"
        else:
            what = f"SQLite says: {error}"
        return StoreUnavailable(what, store=self.name)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, without what extended codes add (https://www.sqlite.org/rescode.html)."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
