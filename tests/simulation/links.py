"""Link: the way from one simulated process to one shared store, on which everything can go wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

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
    Put,
    Query,
    Scan,
    Stored,
    Tally,
    check_scan,
)
from agno_clouddb.stores.schema import REPLICATION
from agno_clouddb.stores.wrapper import WrapperStore
from tests.simulation import rules
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.operations import Operation
    from tests.simulation.processes import Process

__all__ = ["OPERATION", "Link"]

OPERATION: ContextVar[Operation | None] = ContextVar("OPERATION", default=None)
"""The operation in whose course code runs."""

T = TypeVar("T")


@dataclass(slots=True)
class _Course:
    """What becomes of one call.

    Args:
        before: seconds until it takes effect or fails.
        after: seconds from there until it is answered.
        fails: ``no``; ``before`` or ``after`` it takes effect.
        throttled: the kind of the failure.
        vague: a write that fails before it takes effect does not say that it surely has not.
        lags: a write that is given up before it takes effect does so after so many seconds more; None: never.
        only: of a write, the share of the mutations that fail.
    """

    before: float
    after: float
    fails: Literal["no", "before", "after"] = "no"
    throttled: bool = False
    vague: bool = False
    only: float = 1.0
    lags: float | None = None


class Link(WrapperStore):
    """Lets calls of a shared store through, late, in part or not at all.

    Args:
        world: what is out of order, and where what happens is noted.
        process: whose link it is.
        store: the number of the store.
    """

    def __init__(self, world: World, process: Process, store: int) -> None:
        super().__init__(world.stores[store])
        self.number = store
        self._world = world
        self._process = process
        self._loop = world.loop
        self._memory = world.stores[store]

    async def open(self) -> None:
        """Connect to nothing: the store is open."""

    async def aclose(self) -> None:
        """Leave the store open for others."""

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is missing."""

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        operation = self._operation()
        batch = await self._read(operation, lambda: self._memory.get(keys, consistency=consistency, dead=dead))
        if operation is not None and operation.ended is None:
            operation.heard.setdefault(self.number, set()).update(keys)
        return batch

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        operation = self._operation()
        call = lambda: self._memory.query(query, limit=limit, cursor=cursor, consistency=consistency)  # noqa: E731
        page = await self._read(operation, call)
        if operation is not None and operation.ended is None:
            operation.listed[self.number] += 1
        return page

    async def count(self, query: Query) -> int:
        return await self._read(self._operation(), lambda: self._memory.count(query))

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        return await self._read(self._operation(), lambda: self._memory.tally(query, by))

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        check_scan(collection, limit, since)
        call = lambda: self._memory.scan(collection, limit=limit, since=since, cursor=cursor)  # noqa: E731
        return await self._read(self._operation(), call)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        operation = self._operation()
        self._memory.check(mutations, atomic=atomic)
        draw = operation.draw if operation is not None else self._process.draw
        course = self._course(draw)
        failing = range(len(mutations))
        if course.only < 1 and not atomic and len(mutations) > 1:
            failing = range(int(len(mutations) * course.only) or 1)
        try:
            outcomes = await self._write(operation, mutations, atomic, course, failing)
        except asyncio.CancelledError:
            self._failed(operation)
            raise
        if any(isinstance(each, Failed) for each in outcomes):
            self._failed(operation)
        if operation is not None and operation.ended is None:
            operation.stored.update(
                (self.number, mutation.key)
                for mutation, each in zip(mutations, outcomes, strict=True)
                if isinstance(each, Stored)
            )
        return outcomes

    # What happens to a call

    def _operation(self) -> Operation | None:
        operation = OPERATION.get()
        return operation if operation is not None and operation.ended is None else None

    async def _read(self, operation: Operation | None, call: Callable[[], Awaitable[T]]) -> T:
        course = self._course(operation.draw if operation is not None else self._process.draw)
        try:
            if not await self._pass(course, course.before) or course.fails != "no":
                raise self._error(course)
            answer = await call()
            if not await self._pass(course, course.after):
                raise self._error(course)
        except (CloudDBError, asyncio.CancelledError):
            self._failed(operation)
            raise
        return answer

    async def _write(
        self,
        operation: Operation | None,
        mutations: Sequence[Mutation],
        atomic: bool,
        course: _Course,
        failing: range,
    ) -> tuple[Outcome, ...]:
        failed = Failed(self._error(course), applied=course.vague)
        call = _InFlight(self, operation, mutations, atomic)
        self._process.in_flight[call] = None
        try:
            if not await self._pass(course, course.before):
                return (failed,) * len(mutations)
            lost = set(failing) if course.fails == "before" else set[int]()
            if self._hints_full(mutations):
                lost = {n for n, each in enumerate(mutations) if atomic or each.key.collection == REPLICATION.name}
                failed = Failed(self._error(course), applied=False)
            sent = [each for n, each in enumerate(mutations) if n not in lost]
            applied = iter(await call.apply(sent) if sent else ())
            outcomes = [failed if n in lost else next(applied) for n in range(len(mutations))]
        except asyncio.CancelledError:
            if course.lags is not None and not self._process.dead:
                self._world.arrives(call.arrive, course.lags)
            raise
        finally:
            del self._process.in_flight[call]
        answered = await self._pass(course, course.after)
        unheard = Failed(self._error(course), applied=True)
        if not answered:
            return (unheard,) * len(mutations)
        if course.fails == "after":
            return tuple(unheard if n in failing else each for n, each in enumerate(outcomes))
        return tuple(outcomes)

    def _hints_full(self, mutations: Sequence[Mutation]) -> bool:
        return self.number in self._world.hints_full and any(
            each.key.collection == REPLICATION.name and isinstance(each, Put) for each in mutations
        )

    def _course(self, draw: random.Random) -> _Course:
        before, after = draw.uniform(0.001, 0.02), draw.uniform(0.001, 0.02)
        if self._world.calm:
            return _Course(before, after)
        chance = draw.random()
        if chance < 0.03:
            before += draw.uniform(0.1, 1.5) if chance < 0.02 else draw.uniform(1, 2) * self._world.deadline
        elif chance > 0.98:
            after += draw.uniform(0.1, 1.5) if chance < 0.995 else draw.uniform(1, 2) * self._world.deadline
        before += self._world.slow.get(self.number, 0.0) * draw.random()
        if before + after > 0.4 * self._world.deadline:
            self._process.troubled = self._loop.time() + before + after
        course = _Course(before, after, throttled=draw.random() < 0.25, vague=draw.random() < 0.6)
        if draw.random() < 0.5:
            course.lags = draw.uniform(0.0, 2.0) * self._world.deadline
        if draw.random() < self._world.rate:
            course.fails = "before" if draw.random() < 0.5 else "after"
            course.only = draw.choice((0.5, 1.0))
        return course

    async def _pass(self, course: _Course, seconds: float) -> bool:
        """Be on the way for a while; whether the other side is reached."""
        await asyncio.sleep(seconds)
        while self._process.dead:
            await self._loop.create_future()  # none of a dead process's code runs on
        if self._world.reaches(self._process.slot, self.number):
            return True
        if course.vague:
            await asyncio.sleep(self._world.deadline * 1.2)
        while self._process.dead:
            await self._loop.create_future()
        return False

    def _error(self, course: _Course) -> StoreUnavailable | Throttled:
        kind = Throttled if course.throttled else StoreUnavailable
        return kind("the simulated store did not answer", store=self.name)

    def _failed(self, operation: Operation | None) -> None:
        self._process.troubled = self._loop.time()
        if operation is not None and operation.ended is None:
            operation.failed.add(self.number)

    async def take_effect(
        self, operation: Operation | None, mutations: Sequence[Mutation], atomic: bool
    ) -> list[Outcome]:
        """Write to the shared store, and note what it has applied."""
        items = self._memory.items
        held = [items.get(each.key) for each in mutations]
        outcomes = await self._memory.write(mutations, atomic=atomic)
        for mutation, before in zip(mutations, held, strict=True):
            after = items.get(mutation.key)
            if after is not before and mutation.key.collection != REPLICATION.name:
                if after is not None:
                    rules.check_copied(self._world, after)
                    self._world.applied(self.number, after, operation)
                if operation is not None:
                    operation.wrote_item(mutation.key, after)
        return list(outcomes)


class _InFlight:
    """A write that has not reached its store yet."""

    __slots__ = ("_atomic", "_link", "_mutations", "_operation")

    def __init__(self, link: Link, operation: Operation | None, mutations: Sequence[Mutation], atomic: bool) -> None:
        self._link = link
        self._operation = operation
        self._mutations = mutations
        self._atomic = atomic

    async def apply(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        return await self._link.take_effect(self._operation, mutations, self._atomic)

    async def arrive(self) -> None:
        """Reach the store after all, though the process is dead."""
        if self._link._world.reaches(self._link._process.slot, self._link.number):
            await self._link.take_effect(self._operation, self._mutations, self._atomic)
