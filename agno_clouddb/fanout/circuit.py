"""CircuitStore: a store that is left alone once it has failed, until a probe finds that it answers again.

A circuit breaker (M. Nygard, "Release It!", 2007). Closed, calls go through. Open, they fail at once, so that a dead
cloud costs its callers nothing. Half-open, one probe in the background is under way, for which no caller waits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import anyio

from agno_clouddb.errors import CloudDBError, StoreUnavailable
from agno_clouddb.fanout.failures import OUTAGES
from agno_clouddb.fanout.health import CircuitState
from agno_clouddb.fanout.hints import LAST_VERSION
from agno_clouddb.stores.base import (
    Batch,
    Consistency,
    Cursor,
    Delete,
    Failed,
    Key,
    Mutation,
    Outcome,
    Page,
    Query,
    Scan,
    Store,
    Tally,
)
from agno_clouddb.stores.schema import REPLICATION
from agno_clouddb.stores.wrapper import WrapperStore

__all__ = ["PROBE", "CircuitStore", "insisting"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_FAILURES, _SPAN = 3, 1.0  # in a row, and the seconds between the first and the last, after which the circuit opens
_SLOW = 0.5  # of the deadline: a call that takes longer counts as a failure, and one that fails so opens the circuit
_LATENCIES = 128  # how many of the last calls are remembered

PROBE = Key(REPLICATION.name, "probe")
"""A key under which nothing is stored, to see whether a store answers."""


_insisted: ContextVar[bool] = ContextVar("agno_clouddb_insisted", default=False)


@contextmanager
def insisting() -> Iterator[None]:
    """Let the calls in a block through open circuits: for when no other store has answered."""
    token = _insisted.set(True)
    try:
        yield
    finally:
        _insisted.reset(token)


class CircuitStore(WrapperStore):
    """Lets calls of a store through while it carries them out, each for at most a deadline.

    Args:
        inner: the store.
        deadline: seconds after which a call that has not ended is given up.
    """

    def __init__(self, inner: Store, *, deadline: float) -> None:
        super().__init__(inner)
        self.opened: Callable[[CircuitStore], None] = _nothing
        """Is told when the circuit opens, and is to see to it that it is probed."""
        self.last_resort: Callable[[], bool] = _never
        """Whether calls go through all the same, as when no store has a closed circuit."""
        self.state: CircuitState = "closed"
        self.failure: CloudDBError | None = None
        """Why the last call failed that did; None when a call has succeeded since."""
        self.last_error: CloudDBError | None = None
        """The last failure, also when the store has answered since."""
        self.latencies: deque[float] = deque(maxlen=_LATENCIES)
        """How long the last calls took that the store carried out, in seconds; and of those which another store was
        faster than, how long they were waited for."""
        self._deadline = deadline
        self._failures = 0
        self._failing_since = 0.0
        self._failed_writing = False

    @property
    def available(self) -> bool:
        """Whether a call made now goes to the store."""
        return self.state == "closed" or _insisted.get() or self.last_resort()

    def refusal(self) -> StoreUnavailable:
        """What a call is answered while the circuit is open."""
        reason = self.failure.message if self.failure is not None else "it has failed"
        return StoreUnavailable(
            f"the store is left alone for now: {reason}",
            store=self.name,
            remedy="A probe in the background finds when it answers again",
        )

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

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        return await self._read(lambda: self.inner.scan(collection, limit=limit, since=since, cursor=cursor))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        if not self.available:
            return (Failed(self.refusal()),) * len(mutations)
        began = anyio.current_time()
        try:
            outcomes = await self._within(lambda: self.inner.write(mutations, atomic=atomic))
        except StoreUnavailable as error:
            self._failed_writing = True
            self._ended(began, error)
            return (Failed(error, applied=True),) * len(mutations)
        failed = [each.error for each in outcomes if isinstance(each, Failed)]
        outage = next((error for error in failed if isinstance(error, OUTAGES)), None)
        refused_all = outage is not None and len(failed) == len(outcomes)
        self._failed_writing = self._failed_writing or refused_all
        self._ended(began, outage if refused_all else None)
        return outcomes

    async def probe(self) -> bool:
        """Ask the store whether it answers again; when it does, the circuit is closed."""
        if self.state == "open":
            self.state = "half-open"
        try:
            await self._within(self._probe_write if self._failed_writing else lambda: self.inner.get([PROBE]))
        except OUTAGES as error:
            self.failure = self.last_error = error
        except CloudDBError:
            self._close()  # an answer, if no good one: callers are to see it
        else:
            self._close()
        finally:
            if self.state == "half-open":
                self.state = "open"
        return self.state == "closed"

    async def _probe_write(self) -> None:
        """Write as callers do whose writes have failed, where there is nothing to delete."""
        (outcome,) = await self.inner.write([Delete(PROBE, LAST_VERSION)])
        if isinstance(outcome, Failed):
            raise outcome.error

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T:
        if not self.available:
            raise self.refusal()
        began = anyio.current_time()
        try:
            answer = await self._within(call)
        except OUTAGES as error:
            self._ended(began, error)
            raise
        self._ended(began, None)
        return answer

    async def _within(self, call: Callable[[], Awaitable[T]]) -> T:
        with anyio.move_on_after(self._deadline):
            return await call()
        raise StoreUnavailable(
            f"no answer within {self._deadline:g} seconds",
            store=self.name,
            remedy="Try again, or give `connect` a longer deadline",
        )

    def _ended(self, began: float, failure: CloudDBError | None) -> None:
        """Remember how a call has ended that began at a time of the event loop's clock."""
        took = anyio.current_time() - began
        slow = took >= _SLOW * self._deadline
        if failure is None:
            self.latencies.append(took)
            if not slow:
                self._close()
                return
        else:
            self.failure = self.last_error = failure
        self._failures += 1
        if self._failures == 1:
            self._failing_since = anyio.current_time()
        lasting = self._failures >= _FAILURES and anyio.current_time() - self._failing_since >= _SPAN
        if self.state == "closed" and (lasting or (slow and failure is not None)):
            self.state = "open"
            if self.failure is None:
                self.failure = StoreUnavailable(f"its calls take over {took:.1f} seconds", store=self.name)
            _log.warning("going on without %s: %s", self.name, self.failure)
            self.opened(self)

    def _close(self) -> None:
        if self.state != "closed":
            _log.warning("%s answers again", self.name)
        self.state, self.failure, self._failures = "closed", None, 0
        self._failed_writing = False


def _nothing(circuit: CircuitStore) -> None:
    """Tell nobody."""


def _never() -> bool:
    return False
