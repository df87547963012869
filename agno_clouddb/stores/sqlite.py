"""SQLiteStore: items in one file, the embedded default; several tasks and several processes may use it at once.

The driver runs each connection's statements in a thread, in the order in which they were sent, and goes on with them
when the task that waits is cancelled. A call therefore holds its connection alone, and one that fails, is cancelled or
late sends a rollback after its last statement before it gives the connection back: no transaction stays open.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from agno_clouddb.concurrency import uninterrupted
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
from agno_clouddb.stores.scans import decode_cursor, encode_cursor
from agno_clouddb.stores.schema import COLLECTIONS, DECLARED
from agno_clouddb.stores.sqlite_tables import Table, add_functions
from agno_clouddb.stores.sqlite_writes import PendingWrite, WriteQueue

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["SQLiteStore"]

T = TypeVar("T")

_MIB = 1024 * 1024
_EXPIRED_KEPT = 86_400  # seconds; the clouds too remove what has expired within days, not at once
_BUSY_WAIT = 0.1  # seconds that SQLite waits for a lock by itself, and so that a cancelled call may take to end
_STEPS = 20_000  # instructions of SQLite's virtual machine, about a millisecond, between two looks at ``stopped``
_BACKSTOP = 2.0  # seconds after the deadline until a call no longer waits for a disk that does not answer
_KEYS = 450  # keys in one statement, two parameters each; SQLite before 3.32 takes 999 parameters
_MISSING = re.compile(r"no such (table|column|index)|no query solution")


class _Connection:
    """A connection to the file, for the one call that has the lock."""

    def __init__(self, raw: aiosqlite.Connection) -> None:
        self.raw = raw
        self.lock = asyncio.Lock()
        self.stopped = False  # looked at by the driver's thread in the middle of a long statement

    async def undo(self) -> None:
        """Stop the statement that runs, if one does, and roll back what is not committed.

        Neither a commit nor the rollback itself is stopped: they take a few of SQLite's instructions.
        """
        self.stopped = True
        # When the disk does not answer, the rollback stays in the driver's queue, before whatever is sent next.
        with anyio.move_on_after(_BACKSTOP):
            await self.raw.rollback()
        self.stopped = False

    async def aclose(self) -> None:
        """Close once the calls under way are done."""
        async with self.lock:
            await self.raw.close()


class SQLiteStore(Store):
    """Keeps items in an SQLite file in WAL mode, so that readers and a writer do not wait for each other.

    A write is on the disk when it is acknowledged (``synchronous=FULL``): with ``NORMAL``, WAL mode may lose the last
    commits in a power cut, and an acknowledged write is never lost. Writes that wait for the file share a commit. All
    reads are strongly consistent. The file must be
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
        prefix: str = "agno_",
        deadline: float = 10.0,
        now: Callable[[], int] = epoch_seconds,
    ) -> None:
        self._path = os.fspath(path)
        self.name = f"sqlite:///{self._path}"
        self.prefix = prefix
        self._deadline = deadline
        self._now = now
        self._tables = {name: Table(declared, prefix) for name, declared in DECLARED.items()}
        self._queue = WriteQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: _Connection | None = None
        self._reader: _Connection | None = None

    async def open(self) -> None:
        if self._loop is not None:
            self._open()
            return
        if self._path in ("", ":memory:"):
            raise ConfigurationError("SQLiteStore needs a file", store=self.name, remedy="Use memory:// instead")
        if self.prefix.lower().startswith("sqlite_"):
            raise ConfigurationError(f"SQLite keeps names like {self.prefix!r} for itself", store=self.name)
        self._loop = asyncio.get_running_loop()
        try:
            self._writer = await self._connect()
            self._reader = await self._connect()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        connections = [each for each in (self._reader, self._writer) if each is not None]
        self._loop = self._reader = self._writer = None

        async def close() -> None:
            for each in connections:
                await each.aclose()

        await uninterrupted(close)

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        names = chosen(collections, replicated=replicated)
        async with self._hold(self._open()[1]) as raw:
            await self._execute(raw, "BEGIN IMMEDIATE")
            for name in names:
                by_version = replicated and name in COLLECTIONS
                await self._tables[name].provision(raw, self._now() - _EXPIRED_KEPT, replicated=by_version)
            await self._execute(raw, "COMMIT")

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        for key in keys:
            key.check()
        found: dict[Key, Item] = {}
        async with self._hold(self._open()[0]) as raw:
            for collection, among in _by_collection(keys).items():
                found |= await self._find(raw, collection, among)
        now = self._now()
        items = (found.get(key) for key in keys)
        return Batch(tuple(item if item is not None and (dead or item.live(now)) else None for item in items))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        checked = check_write(self, mutations, atomic)
        self._open()
        if all(checked):
            return tuple(each for each in checked if each is not None)
        pending = PendingWrite(mutations, checked, atomic)
        try:
            async with self._in_time():
                with self._queue.joined(pending):
                    while pending.outcomes is None:
                        await self._write(self._open()[1], pending)
        except CloudDBError as error:
            pending.fail(error)
        assert pending.outcomes is not None
        return pending.outcomes

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        query.check(limit)
        table = self._tables[query.collection]
        statement, parameters = table.page(query, self._now(), cursor, limit + 1)
        async with self._hold(self._open()[0]) as raw:
            rows = await self._execute(raw, statement, parameters, query.collection)
        items = tuple(table.item(row) for row in rows[:limit])
        return Page(items, query.place(items[-1]) if len(rows) > limit else None)

    async def count(self, query: Query) -> int:
        query.check()
        statement, parameters = self._tables[query.collection].count(query, self._now())
        async with self._hold(self._open()[0]) as raw:
            ((number,),) = await self._execute(raw, statement, parameters, query.collection)
        return int(number)

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        query.check_field(by)
        statement, parameters = self._tables[query.collection].tally(query, self._now(), by)
        async with self._hold(self._open()[0]) as raw:
            rows = await self._execute(raw, statement, parameters, query.collection)
        return {value: Tally(number, first, last) for value, number, first, last in rows}

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        check_scan(collection, limit, since)
        parts = 2 if since is None else 3
        after = decode_cursor(cursor, collection, since, parts) if cursor is not None else None
        table = self._tables[collection]
        statement, parameters = table.scan(since, after, limit + 1)
        async with self._hold(self._open()[0]) as raw:
            rows = await self._execute(raw, statement, parameters, collection)
        entries = tuple(map(table.entry, rows[:limit]))
        # A row is the version, the parent and the id: as it is a place by version, and without the version one by key.
        return Scan(entries, encode_cursor(collection, since, rows[limit - 1][-parts:]) if len(rows) > limit else None)

    async def _write(self, writer: _Connection, pending: PendingWrite) -> None:
        """Have the connection, and carry out what waits in one transaction, unless another call has taken this along.

        Returns without outcomes when the transaction has failed, maybe for the sake of another call in it.
        """
        shared = not pending.alone
        try:
            async with self._hold(writer) as raw:
                if pending.outcomes is not None:
                    return
                if pending.taken:
                    raise StoreUnavailable("a commit is not answered", store=self.name, remedy="Look at the disk")
                await self._execute(raw, "BEGIN IMMEDIATE")
                with self._queue.taken(pending) as group:
                    await self._carry_out(writer, group)
                commit = asyncio.ensure_future(self._commit(raw))
                commit.add_done_callback(partial(self._queue.settle, group))
                await asyncio.shield(commit)
        except Exception:
            if not (shared and pending.alone):
                raise  # else this call is tried again by itself, and has the error if it is its own

    async def _commit(self, raw: aiosqlite.Connection) -> None:
        async with self._in_time():
            await self._execute(raw, "COMMIT")

    async def _carry_out(self, writer: _Connection, group: Sequence[PendingWrite]) -> None:
        """Decide and apply calls, whose keys all differ, in a transaction that has begun."""
        found: dict[Key, Item] = {}
        missing: dict[str, Failed] = {}
        for collection, keys in _by_collection(each.key for call in group for each in call.mutations).items():
            try:
                found |= await self._find(writer.raw, collection, keys, head=True)
            except NotProvisioned as error:
                missing[collection] = Failed(error)
        now = self._now()
        await self._apply(writer, [mutation for call in group for mutation in call.decide(found, missing, now)])

    async def _find(
        self, raw: aiosqlite.Connection, collection: str, keys: Sequence[Key], *, head: bool = False
    ) -> dict[Key, Item]:
        table = self._tables[collection]
        found: dict[Key, Item] = {}
        for start in range(0, len(keys), _KEYS):
            statement, parameters = table.find(keys[start : start + _KEYS], head=head)
            for row in await self._execute(raw, statement, parameters, collection):
                item = table.item(row)
                found[item.key] = item
        return found

    async def _apply(self, writer: _Connection, mutations: Sequence[Mutation]) -> None:
        """Apply mutations in as many hops to the driver's thread as there are statements, not mutations."""
        changes: dict[str, list[Sequence[object]]] = {}
        for mutation in mutations:
            statement, parameters = self._tables[mutation.key.collection].change(mutation)
            changes.setdefault(statement, []).append(parameters)
        for statement, rows in changes.items():
            # The rows are taken in the driver's thread. The statement of each is too short to be stopped itself.
            going_on = takewhile(lambda _: not writer.stopped, rows)
            async with writer.raw.executemany(statement, going_on):
                pass

    async def _execute(
        self,
        raw: aiosqlite.Connection,
        statement: str,
        parameters: Sequence[object] = (),
        collection: str | None = None,
    ) -> list[Sequence[Any]]:
        """Run a statement, again and again while other programs keep the file locked; the deadline ends it."""
        while True:
            try:
                return list(await raw.execute_fetchall(statement, parameters))
            except sqlite3.OperationalError as error:
                if _MISSING.search(str(error)):
                    raise NotProvisioned(str(error), store=self.name, collection=collection) from error
                if _code(error) != sqlite3.SQLITE_BUSY:
                    raise

    def _open(self) -> tuple[_Connection, _Connection]:
        """The reading and the writing connection: a read does not queue behind a write that waits for a lock."""
        if self._reader is None or self._writer is None:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")
        if self._loop is not asyncio.get_running_loop():
            raise LifecycleError("the store was opened in another event loop", store=self.name)
        return self._reader, self._writer

    async def _connect(self) -> _Connection:
        import aiosqlite

        async with self._in_time():
            # Tried first, as the driver's thread would outlive a connection that cannot be made, and maybe the loop.
            await asyncio.to_thread(lambda: sqlite3.connect(self._path).close())
            raw = _in_a_daemon(lambda: aiosqlite.connect(self._path, timeout=_BUSY_WAIT, isolation_level=None))
            try:
                await uninterrupted(lambda: raw)
                ((encoding,),) = await self._execute(raw, "PRAGMA encoding")
                if encoding != "UTF-8":
                    raise ConfigurationError(f"the file orders text as {encoding} and not as UTF-8", store=self.name)
                await self._execute(raw, "PRAGMA journal_mode = WAL")
                await self._execute(raw, "PRAGMA synchronous = FULL")
                await add_functions(raw)
                connection = _Connection(raw)
                await raw.set_progress_handler(lambda: connection.stopped, _STEPS)
            except BaseException:
                await uninterrupted(raw.close)
                raise
            return connection

    @asynccontextmanager
    async def _hold(self, connection: _Connection) -> AsyncIterator[aiosqlite.Connection]:
        """Have a connection alone, at most until the deadline; what is not committed at an error is rolled back."""
        async with self._in_time(), connection.lock:
            try:
                yield connection.raw
            except BaseException:
                await uninterrupted(connection.undo)
                raise

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Set the deadline, and raise the driver's errors as the library's own."""
        try:
            async with asyncio.timeout(self._deadline):
                yield
        except TimeoutError as error:
            raise StoreUnavailable(
                f"not done within {self._deadline} seconds",
                store=self.name,
                remedy="Look for a program that keeps the file locked, or allow a longer `deadline`",
            ) from error
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_NOTADB:
                raise ConfigurationError("the file is not an SQLite database", store=self.name) from error
            raise StoreUnavailable(f"SQLite says: {error}", store=self.name) from error


def _in_a_daemon(make: Callable[[], T]) -> T:
    """What ``make`` returns, quickly, in a daemon thread: the threads that it makes are daemons by inheritance.

    The driver's threads are not otherwise, and a store that is never closed would keep its process from ending.
    """
    made: list[T] = []
    thread = threading.Thread(target=lambda: made.append(make()), daemon=True)
    thread.start()
    thread.join()
    return made[0]


def _by_collection(keys: Iterable[Key]) -> dict[str, list[Key]]:
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key.collection, []).append(key)
    return groups


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, without what extended codes add (https://www.sqlite.org/rescode.html)."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
