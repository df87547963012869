"""CircuitStore: a store that is waited for only a moment once it has failed, until it answers again.

A circuit breaker (M. Nygard, "Release It!", 2007) that goes on asking: a store which is back is used at once, and one
which is not costs a call a moment instead of its whole deadline. Now and then a call waits for the whole deadline, so
that a store which is slow rather than down is not left out for good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import anyio

from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    InvalidRecord,
    LifecycleError,
    NotProvisioned,
    QueryNotIndexed,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.stores.base import (
    Batch,
    Consistency,
    Cursor,
    Failed,
    Key,
    Mutation,
    Outcome,
    Page,
    Query,
    Store,
    Tally,
)
from agno_clouddb.stores.wrapper import WrapperStore

__all__ = ["CALLERS_FAULT", "CircuitStore"]

CALLERS_FAULT = (InvalidRecord, QueryNotIndexed, LifecycleError)
"""Errors that say nothing of the store: every store would raise them."""

T = TypeVar("T")

_STORES_FAULT = (StoreUnavailable, Throttled, NotProvisioned, ConfigurationError)

_log = logging.getLogger(__name__)

_IMPATIENT = 0.5  # seconds that a store which has failed is waited for
_TRIAL_EVERY = 10.0  # seconds after which such a store is waited for until its own deadline


class CircuitStore(WrapperStore):
    """Lets calls of a store through, and remembers whether it carries them out; a change of that is logged.

    Args:
        inner: the store.
        now: a clock in seconds; replaced in tests.
    """

    def __init__(self, inner: Store, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(inner)
        self.failure: CloudDBError | None = None
        """Why the store did not carry out the last call; None when it did."""
        self._first = StoreUnavailable("")
        self._now = now
        self._trial_at = 0.0

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        return await self._read(lambda: self.inner.get(keys, consistency=consistency, dead=dead))

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        return await self._read(lambda: self.inner.query(query, limit=limit, cursor=cursor, consistency=consistency))

    async def count(self, query: Query) -> int:
        return await self._read(lambda: self.inner.count(query))

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        return await self._read(lambda: self.inner.tally(query, by))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        try:
            outcomes = await self._within(lambda: self.inner.write(mutations, atomic=atomic))
        except StoreUnavailable as error:
            self._answered(error)
            return (Failed(error, applied=True),) * len(mutations)
        errors = (each.error for each in outcomes if isinstance(each, Failed))
        self._answered(next((each for each in errors if isinstance(each, _STORES_FAULT)), None))
        return outcomes

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await self._within(call)
        except _STORES_FAULT as error:
            self._answered(error)
            raise
        self._answered(None)
        return answer

    async def _within(self, call: Callable[[], Awaitable[T]]) -> T:
        if not isinstance(self.failure, StoreUnavailable) or self._now() >= self._trial_at:
            self._trial_at = self._now() + _TRIAL_EVERY
            return await call()
        with anyio.move_on_after(_IMPATIENT):
            return await call()
        raise StoreUnavailable(
            f"no answer within {_IMPATIENT} seconds, after an earlier failure: {self._first.message}",
            store=self.name,
            remedy="The store is asked again with every call",
        ) from self._first

    def _answered(self, failure: CloudDBError | None) -> None:
        if failure is not None and type(failure) is not type(self.failure):
            _log.warning("going on without %s: %s", self.name, failure)
        elif failure is None and self.failure is not None:
            _log.warning("%s answers again", self.name)
        if not isinstance(self.failure, StoreUnavailable) and isinstance(failure, StoreUnavailable):
            self._first = failure
        self.failure = failure
