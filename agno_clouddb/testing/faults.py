"""FaultyStore: a store that fails on purpose, in a way that can be run again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from agno_clouddb.errors import CloudDBError, StoreUnavailable, Throttled
from agno_clouddb.stores.base import (
    Batch,
    Consistency,
    Cursor,
    Failed,
    Key,
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
from agno_clouddb.stores.wrapper import WrapperStore

__all__ = ["Call", "Fault", "FaultyStore", "Plan", "RandomFaults", "Unprocessed", "script"]

Call = Literal["provision", "get", "write", "query", "count", "tally", "scan"]
"""The calls that can fail."""

CALLS: tuple[Call, ...] = ("provision", "get", "write", "query", "count", "tally", "scan")

_BEFORE = ("refused", "request lost")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call.

    Args:
        kind: ``refused``: the call fails before it takes effect, and the failure says so, as when no connection is
            made. ``request lost``: it fails before it takes effect, and the caller cannot know that, as in a
            time-out. ``response lost``: it takes effect, and the caller gets a failure. ``none``: it succeeds, after
            the delay.
        delay: seconds that the call waits before it takes effect or fails, by the clock of the event loop.
        error: the kind of the failure.
        positions: the mutations of a write which is not atomic that this happens to, by their place in it; the
            others go through. None: all.
    """

    kind: Literal["none", "refused", "request lost", "response lost"] = "none"
    delay: float = 0.0
    error: type[StoreUnavailable | Throttled] = StoreUnavailable
    positions: frozenset[int] | None = None


Plan = Callable[[Call, int], Fault | None]
"""Asked once a call, in the order of the calls: the call's name, and how many mutations can fail alone: all of a write,
1 where it is atomic, and 0 of other calls."""


def script(*faults: Fault | None, on: Sequence[Call] = CALLS) -> Plan:
    """A plan that lets the next calls fail as listed, one each, and all later ones succeed.

    Args:
        faults: in the order of the calls; None lets a call through.
        on: the calls that count; others are let through.
    """
    rest = iter(faults)

    def plan(call: Call, mutations: int) -> Fault | None:
        return next(rest, None) if call in on else None

    return plan


class RandomFaults:
    """A plan that draws faults from a seed: the same calls in the same order meet the same faults.

    Args:
        seed: where the draws begin.
        rate: how probable it is that a call fails, 0 to 1.
        delay: the longest delay of a call, in seconds; each is drawn evenly between 0 and this.
        kinds: what the failures are drawn from.
    """

    def __init__(
        self,
        seed: int,
        *,
        rate: float = 0.1,
        delay: float = 0.0,
        kinds: Sequence[Literal["refused", "request lost", "response lost"]] = (
            "refused",
            "request lost",
            "response lost",
        ),
    ) -> None:
        self.seed = seed
        self._draw = random.Random(seed)
        self._rate = rate
        self._delay = delay
        self._kinds = tuple(kinds)

    def __call__(self, call: Call, mutations: int) -> Fault | None:
        draw = self._draw
        delay = draw.uniform(0, self._delay) if self._delay else 0.0
        if draw.random() >= self._rate:
            return Fault(delay=delay) if delay else None
        error: type[StoreUnavailable | Throttled] = Throttled if draw.random() < 0.25 else StoreUnavailable
        fault = Fault(draw.choice(self._kinds), delay, error)
        if mutations > 1 and draw.random() < 0.5:
            hit = frozenset(place for place in range(mutations) if draw.random() < 0.5)
            fault = replace(fault, positions=hit or frozenset({0}))
        return fault


class Unprocessed:
    """A plan for bulk writes: single mutations are refused for load, and whole writes meet a connection reset.

    Each mutation is refused alone, as an item in ``UnprocessedItems`` is on DynamoDB: Throttled, surely not applied. A
    connection reset is StoreUnavailable for every mutation of the write, before or after it took effect. Other calls
    succeed. Drawn from a seed: the same writes in the same order meet the same faults.

    Args:
        seed: where the draws begin.
        items: how probable it is that a mutation is refused, 0 to 1; an atomic write counts as one mutation.
        resets: how probable it is that a write meets a connection reset, 0 to 1.
    """

    def __init__(self, seed: int, *, items: float = 0.05, resets: float = 0.0) -> None:
        self.seed = seed
        self._draw = random.Random(seed)
        self._items = items
        self._resets = resets

    def __call__(self, call: Call, mutations: int) -> Fault | None:
        if call != "write":
            return None
        draw = self._draw
        if draw.random() < self._resets:
            return Fault("request lost" if draw.random() < 0.5 else "response lost")
        refused = frozenset(place for place in range(mutations) if draw.random() < self._items)
        return Fault("refused", error=Throttled, positions=refused) if refused else None


class FaultyStore(WrapperStore):
    """Lets calls of a store fail before or after they take effect, delays them, goes down and comes back.

    What fails, fails as the port says: reads raise, mutations answer ``Failed``, and ``Failed.applied`` is True
    wherever a caller could not tell. An argument that no store takes raises InvalidRecord before any fault.

    Args:
        inner: the store to wrap; it is opened and closed with the wrapper.
        plan: what happens to each call: a ``script``, RandomFaults, Unprocessed, or a function. May be replaced at
            any time.
    """

    def __init__(self, inner: Store, plan: Plan | None = None) -> None:
        super().__init__(inner)
        self.plan = plan
        self._down = False

    @property
    def is_down(self) -> bool:
        """Whether calls fail because of ``down``."""
        return self._down

    def down(self) -> None:
        """From now on every call fails; calls that the inner store is carrying out lose their response."""
        self._down = True

    def up(self) -> None:
        """Come back: calls reach the inner store again."""
        self._down = False

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        chosen(collections)
        await self._read(
            "provision",
            lambda: self.inner.provision(
                collections, replicated=replicated, wait_for_indexes=wait_for_indexes, progress=progress
            ),
        )

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        for key in keys:
            key.check()
        return await self._read("get", lambda: self.inner.get(keys, consistency=consistency, dead=dead))

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        query.check()
        return await self._read(
            "query",
            lambda: self.inner.query(query, limit=limit, cursor=cursor, consistency=consistency),
            query.collection,
        )

    async def count(self, query: Query) -> int:
        query.check()
        return await self._read("count", lambda: self.inner.count(query), query.collection)

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        query.check_field(by)
        return await self._read("tally", lambda: self.inner.tally(query, by), query.collection)

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        check_scan(collection, limit, since)
        return await self._read(
            "scan",
            lambda: self.inner.scan(collection, limit=limit, since=since, cursor=cursor),
            collection,
        )

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        check_write(self, mutations, atomic)
        fault = await self._next("write", min(len(mutations), 1) if atomic else len(mutations))
        everything = frozenset(range(len(mutations)))
        hit = everything if atomic or fault.positions is None else fault.positions & everything
        hit = hit if fault.kind != "none" else frozenset()
        stopped = hit if fault.kind in _BEFORE else frozenset()
        sent = [mutation for place, mutation in enumerate(mutations) if place not in stopped]
        answers = iter(await self.inner.write(sent, atomic=atomic) if sent else ())
        hit = everything if self._down else hit
        outcomes: list[Outcome] = []
        for place, mutation in enumerate(mutations):
            answer = next(answers) if place not in stopped else None
            if answer is None or place in hit:
                certain = answer is None and fault.kind == "refused"
                answer = Failed(self._error(fault, "write", mutation.key), applied=not certain)
            outcomes.append(answer)
        return tuple(outcomes)

    async def _read(self, call: Call, send: Callable[[], Awaitable[T]], collection: str | None = None) -> T:
        fault = await self._next(call, 0)
        if fault.kind in _BEFORE:
            raise self._error(fault, call, collection=collection)
        answer = await send()
        if fault.kind == "response lost" or self._down:
            raise self._error(fault, call, collection=collection)
        return answer

    async def _next(self, call: Call, mutations: int) -> Fault:
        fault = (self.plan(call, mutations) if self.plan is not None else None) or Fault()
        if fault.delay:
            await asyncio.sleep(fault.delay)
        return Fault("refused") if self._down else fault

    def _error(self, fault: Fault, call: Call, key: Key | None = None, collection: str | None = None) -> CloudDBError:
        reason = "the store is down" if self._down else f"the {call} was made to fail ({fault.kind})"
        return fault.error(reason, store=self.name, key=key, collection=collection)
