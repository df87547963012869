"""What all repositories share: the connection to a store, stamped writes, optimistic updates, pages of records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import tenacity

from agno_clouddb.concurrency import uninterrupted
from agno_clouddb.errors import CloudDBError, ConflictError, InvalidRecord, LifecycleError, NotOwner, RecordNotFound
from agno_clouddb.stores.base import Consistency, Failed, Key, Mutation, Outcome, Refused, Store, Stored
from agno_clouddb.stores.clock import HybridClock

__all__ = ["MAX_PAGE", "Connection", "Page", "Repository"]

T = TypeVar("T")

MAX_PAGE = 1_000
"""The most records in one page."""

_MAX_STAMPS = 10
_MAX_UPDATES = 100


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Args:
        items: as many as were asked for, while there are more.
        cursor: give it to the same call to go on, on any store that holds the same data; None at the end.
        degraded: True when a store of a fan-out did not answer, so that something may be missing.
    """

    items: list[T]
    cursor: str | None = None
    degraded: bool = False


class Connection:
    """An open store in the event loop that opened it, and the clock that stamps what is written to it.

    Args:
        store: where everything is kept.
        consistency: what reads give unless a call says otherwise.
        clock: makes the version stamps.
    """

    def __init__(self, store: Store, consistency: Consistency, clock: HybridClock) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._opening = asyncio.Lock()
        self.consistency = consistency
        self.clock = clock

    async def open(self) -> None:
        """Open the store for the running event loop. Opening twice in one loop is harmless."""
        async with self._opening:
            if self._loop is None or self._closed:
                await self._store.open()
                self._loop, self._closed = asyncio.get_running_loop(), False
            else:
                _ = self.store

    async def aclose(self) -> None:
        """Close the store. Closing twice is harmless."""
        if self._loop is None or self._closed:
            return
        _ = self.store
        self._closed = True
        await uninterrupted(self._store.aclose)

    @property
    def store(self) -> Store:
        """The store, for a call that is made now.

        Raises:
            LifecycleError: it is not open, or was opened in another event loop.
        """
        if self._loop is None or self._closed:
            state = "closed" if self._closed else "not open yet"
            raise LifecycleError(
                f"the database is {state}",
                store=self._store.name,
                remedy="Use `async with connect(...) as db`, or `await db.open()` before the first call",
            )
        if asyncio.get_running_loop() is not self._loop:
            raise LifecycleError(
                "the database was opened in another event loop",
                store=self._store.name,
                remedy="Open a Database in each event loop that uses one",
            )
        return self._store


class Repository:
    """The base of all repositories.

    Args:
        connection: the open store that they share.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _store(self) -> Store:
        return self._connection.store

    @property
    def _clock(self) -> HybridClock:
        return self._connection.clock

    async def _write(self, make: Callable[[str], Mutation]) -> Stored | Refused:
        """Stamp a mutation and write it; refused as older, stamp it past what was found and write it again.

        Raises:
            ConflictError: it kept being refused as older.
            CloudDBError: the store failed.
        """
        for _ in range(_MAX_STAMPS):
            mutation = make(self._clock.stamp())
            (outcome,) = await self._store.write([mutation])
            refused = self._seen(outcome)
            if not (isinstance(refused, Refused) and refused.reason == "older"):
                return refused
            if refused.version is not None and not self._clock.observe(refused.version):
                raise CloudDBError(
                    f"the stored version {refused.version} is too far in the future to be written over",
                    store=self._store.name,
                    key=mutation.key,
                    remedy="Check the clocks of all writers; delete the record from the store itself",
                )
        raise ConflictError(mutation.version, refused.version, store=self._store.name, key=mutation.key)

    def _seen(self, outcome: Outcome) -> Stored | Refused:
        """Advance the clock past what an outcome shows; raise the error of a failed one."""
        if isinstance(outcome, Failed):
            raise outcome.error
        if outcome.version is not None:
            self._clock.observe(outcome.version)
        return outcome

    def _raise_refused(self, key: Key, refused: Refused, expected: str | None = None) -> NoReturn:
        """Turn a refusal into the error that says it."""
        if refused.reason == "owner":
            raise self._not_owner(key)
        if refused.reason == "absent" and expected is None:
            raise self._not_found(key)
        raise ConflictError(expected, refused.version, store=self._store.name, key=key)

    def _not_found(self, key: Key) -> RecordNotFound:
        return RecordNotFound("there is no such record", store=self._store.name, key=key)

    def _not_owner(self, key: Key) -> NotOwner:
        return NotOwner("the record belongs to another user", store=self._store.name, key=key)

    def _attempts(self) -> tenacity.AsyncRetrying:
        """Attempts at an optimistic change: each is made anew while somebody else writes in between."""
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(ConflictError),
            wait=tenacity.wait_random_exponential(multiplier=0.005, max=0.5),
            stop=tenacity.stop_after_attempt(_MAX_UPDATES),
            reraise=True,
        )


def require(kind: type[Any], value: object, path: str) -> None:
    """Raise InvalidRecord unless ``value`` is of a kind of record."""
    if not isinstance(value, kind):
        raise InvalidRecord(path, f"is of type {type(value).__name__}, not a {kind.__name__}")


def check_consistency(consistency: Consistency | None, default: Consistency) -> Consistency:
    """The consistency of a call. Raises InvalidRecord unless it is one of the two, or None for the default."""
    if consistency not in (None, "strong", "eventual"):
        raise InvalidRecord("consistency", f"is {consistency!r}, neither strong nor eventual")
    return consistency or default


def check_limit(limit: int) -> None:
    """Raise InvalidRecord unless ``limit`` is a number of records that one page may have."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise InvalidRecord("limit", f"is {limit!r}, not a number from 1 to {MAX_PAGE}")
