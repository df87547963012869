"""What all repositories share: the connection to a store, and changes carried out on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import tenacity

from agno_clouddb.concurrency import load_backend, uninterrupted
from agno_clouddb.errors import (
    CloudDBError,
    ConflictError,
    InvalidRecord,
    LifecycleError,
    NotOwner,
    RecordNotFound,
    StoreUnavailable,
)
from agno_clouddb.records.base import Record
from agno_clouddb.repositories.changes import MAX_STAMPS, Change, make_way, unbelievable, uncertain
from agno_clouddb.repositories.expiry import expiring
from agno_clouddb.stores.base import Batch, Consistency, Failed, Key, Mutation, Outcome, Refused, Store, Stored
from agno_clouddb.stores.clock import HybridClock, is_version

__all__ = [
    "MAX_PAGE",
    "Connection",
    "Page",
    "Repository",
    "check_consistency",
    "check_limit",
    "check_version",
    "require",
]

T = TypeVar("T")
R = TypeVar("R", bound=Record)

MAX_PAGE = 1_000
"""The most records in one page."""

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
        ttl: how long records of a collection are kept from their last write, unless a call says otherwise.
    """

    def __init__(
        self,
        store: Store,
        consistency: Consistency,
        clock: HybridClock,
        ttl: Mapping[str, timedelta] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._opening = asyncio.Lock()
        self.consistency = consistency
        self.clock = clock
        self.ttl = ttl

    async def open(self) -> None:
        """Open the store for the running event loop. Opening twice in one loop is harmless."""
        async with self._opening:
            if self._loop is None or self._closed:
                await load_backend()
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

    async def _apply(self, change: Change[T], *, applied: bool = False) -> T:
        """Carry a change out; a refusal which it neither adapts to nor accepts is raised as the error that says it."""
        outcome = await self._attempt(change, applied=applied)
        if isinstance(outcome, Stored):
            return change.result(outcome.version)
        if outcome.reason in change.accepts:
            return change.result("")
        raise change.error(outcome, self._store.name)

    async def _attempt(self, change: Change[Any], *, applied: bool = False) -> Stored | Refused:
        """Stamp a change and write it; refused as older, stamp it past what was found and write it again.

        Args:
            change: what to write.
            applied: an earlier attempt may come to stand.

        Raises:
            ConflictError: it kept being refused as older, a hundred times.
            StoreUnavailable: it is refused, and an earlier attempt may come to stand.
            CloudDBError: the store failed.
        """
        self._observe_expected(change)
        if self._store.incomplete:
            change.suspect()
        for attempt in range(MAX_STAMPS):
            await make_way(attempt)
            mutation = change.mutation(self._clock.stamp())
            (outcome,) = await self._store.write([mutation])
            answer = self._seen(outcome)
            if attempt and mutation.removes and isinstance(answer, Refused) and answer.reason == "absent":
                return Stored(mutation.version)  # an earlier attempt may have removed it from some stores of a fan-out
            if isinstance(answer, Stored):
                if not (answer.partial and change.doubt()):
                    return answer
                continue
            applied = applied or answer.applied
            if self._restamps(mutation, answer) or change.adapt(answer):
                continue
            if applied:
                raise uncertain(self._store.name, change.key)
            return answer
        if applied:
            raise uncertain(self._store.name, change.key)
        raise ConflictError(mutation.version, answer.version, store=self._store.name, key=change.key)

    async def _apply_each(self, changes: Sequence[Change[T]]) -> list[T]:
        """Carry changes out, each on its own, in one request of the store where that suffices.

        Raises what ``_apply`` raises, for the first that fails; others may stand.
        """
        if not changes:
            return []
        if self._store.incomplete:
            for change in changes:
                change.suspect()
        mutations = [change.mutation(self._clock.stamp()) for change in changes]
        results: list[T] = []
        for change, mutation, outcome in zip(changes, mutations, await self._store.write(mutations), strict=True):
            answer = self._seen(outcome)
            if isinstance(answer, Stored) and not (answer.partial and change.doubt()):
                results.append(change.result(answer.version))
            elif isinstance(answer, Stored) or self._restamps(mutation, answer) or change.adapt(answer):
                results.append(await self._apply(change, applied=isinstance(answer, Refused) and answer.applied))
            elif answer.reason in change.accepts:
                results.append(change.result(""))
            else:
                raise change.error(answer, self._store.name)
        return results

    async def _apply_at_once(self, changes: Sequence[Change[Any]]) -> list[Any]:
        """Carry changes out all or none.

        Raises:
            ConflictError, RecordNotFound, NotOwner: one of them was refused, and so none is stored.
            InvalidRecord: more than the store takes in one atomic write; nothing was sent.
            CloudDBError: the store failed.
        """
        for change in changes:
            self._observe_expected(change)
        for attempt in range(MAX_STAMPS):
            await make_way(attempt)
            mutations = [change.mutation(self._clock.stamp()) for change in changes]
            answers = [self._seen(outcome) for outcome in await self._store.write(mutations, atomic=True)]
            if all(isinstance(answer, Stored) for answer in answers):
                return [change.result(each.version) for change, each in zip(changes, mutations, strict=True)]
            for change, mutation, answer in zip(changes, mutations, answers, strict=True):
                if isinstance(answer, Stored) or answer.reason == "atomic":
                    continue
                if not (self._restamps(mutation, answer) or change.adapt(answer)):
                    raise change.error(answer, self._store.name)
        raise ConflictError(None, None, store=self._store.name, key=changes[0].key)

    def _observe_expected(self, change: Change[Any]) -> None:
        # Else a fan-out whose primary lags would store what is older than what it replaces on the others.
        if change.expected is not None:
            self._clock.observe(change.expected)

    def _restamps(self, mutation: Mutation, refused: Refused) -> bool:
        """Whether a write was refused only because what is stored is newer, and can be stamped past it.

        Raises:
            CloudDBError: what is stored is too far in the future.
        """
        if refused.reason != "older":
            return False
        if refused.version is not None and not self._clock.observe(refused.version):
            raise unbelievable(refused.version, self._store.name, mutation.key)
        return True

    def _seen(self, outcome: Outcome) -> Stored | Refused:
        """Advance the clock past what an outcome shows; raise the error of a failed one."""
        if isinstance(outcome, Failed):
            raise outcome.error
        if outcome.version is not None:
            self._clock.observe(outcome.version)
        return outcome

    def _expiring(
        self, record: R, expires_in: float | timedelta | None = None, expires_at: datetime | None = None
    ) -> R:
        """A record with the expiry that the call, the record or the Database gives it. Raises InvalidRecord."""
        return expiring(record, self._connection.ttl.get(record.collection.name), expires_in, expires_at)

    def _not_found(self, key: Key, batch: Batch) -> CloudDBError:
        """The error that a record is not in what was read; or that it may be in a store that did not answer."""
        if not batch.degraded:
            return RecordNotFound("there is no such record", store=self._store.name, key=key)
        return StoreUnavailable(
            "the record is in none of the stores that answer, and may be in another",
            store=self._store.name,
            key=key,
            remedy="Try again when all stores answer",
        )

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


def check_version(version: str | None) -> None:
    """Raise InvalidRecord unless ``version`` is a stamp of this library, or None."""
    if version is not None and not is_version(version):
        raise InvalidRecord("expected_version", f"{version!r} is not a version of this library")
