"""Bulk writes: any number of changes, in batches several of which are under way at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from agno_clouddb.concurrency import full_jitter, task_group
from agno_clouddb.errors import (
    BulkWriteError,
    CloudDBError,
    ConfigurationError,
    InvalidRecord,
    NotProvisioned,
    PartialWrite,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.repositories.changes import MAX_STAMPS, Change, make_way, unbelievable, uncertain
from agno_clouddb.stores.base import Failed, Key, Mutation, Outcome, Store, Stored, settled
from agno_clouddb.stores.clock import HybridClock

__all__ = ["Bulk", "BulkResult", "each_of"]

T = TypeVar("T")

_BATCH = 250
_BATCHES_AT_ONCE = 4
_ATTEMPTS = 10  # how often in a row what the store failed to do is sent without any of it being stored
_SETUP = (ConfigurationError, NotProvisioned)  # no record can be stored: raised as it is
_PASSING = (Throttled, StoreUnavailable, PartialWrite)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0  # seconds


@dataclass(slots=True)
class BulkResult:
    """What a bulk write came to.

    Args:
        stored: how many records are stored.
        versions: the version of each record, in their order; None where it is not stored.
        failed: the error of each record that is not stored, by its position, counted from 0.
    """

    stored: int = 0
    versions: list[str | None] = field(default_factory=list)
    failed: dict[int, CloudDBError] = field(default_factory=dict)

    def raise_failed(self, store: str, collection: str) -> None:
        """Raise BulkWriteError when a record is not stored."""
        if self.failed:
            failed = dict(sorted(self.failed.items()))
            error = BulkWriteError(self.stored, failed, self.versions, store=store, collection=collection)
            raise error from next(iter(failed.values()))


@dataclass(slots=True)
class _Job:
    """One change under way.

    Args:
        position: its place among those given.
        change: what is to be written.
        mutation: what was sent and may have been applied, to be sent again as it is; None: to be stamped.
        lost: whether it was sent without an answer, so that it may have been applied.
        stamps: how often it was stamped.
        applied: whether an earlier mutation may come to stand, though it was refused.
    """

    position: int
    change: Change[Any]
    mutation: Mutation | None = None
    lost: bool = False
    stamps: int = 0
    applied: bool = False


class Bulk:
    """Carries changes out, one call of ``run`` an object.

    Args:
        store: where to.
        clock: stamps them.
        progress: is told after each batch how many are stored.
    """

    def __init__(self, store: Store, clock: HybridClock, progress: Callable[[int], None] | None = None) -> None:
        self._store = store
        self._clock = clock
        self._progress = progress
        self._result = BulkResult()
        self._slots = anyio.Semaphore(_BATCHES_AT_ONCE)
        self._under_way: set[Key] = set()
        self._given_up = False  # of a whole batch nothing was stored: others are tried once, until one is

    async def run(self, records: Iterable[T] | AsyncIterable[T], change: Callable[[T], Change[Any]]) -> BulkResult:
        """Write what ``change`` makes of each record; one that it raises a CloudDBError for has failed.

        Missing tables or credentials are raised at once, as no record can be stored; those of one store of a fan-out
        as the PartialWrite of a record, which like others of its batch stands on the stores that have it.
        What the iterable raises is raised when the batches under way have come to their end, with a note when
        records are not stored. An asynchronous generator is closed in any case.
        """
        stopped: BaseException | None = None
        async with aclosing(each_of(records)) as each, task_group() as group:
            batch: list[_Job] = []
            try:
                async for record in each:
                    job = self._job(record, change)
                    if job is None:
                        continue
                    if job.change.key in self._under_way:
                        # The same key again: the earlier write must have come to its end, for the later one to stand.
                        await self._send(group, batch)
                        batch = []
                        await self._idle()
                    self._under_way.add(job.change.key)
                    batch.append(job)
                    if len(batch) == _BATCH:
                        await self._send(group, batch)
                        batch = []
            except Exception as error:
                stopped = error
            await self._send(group, batch)
        if stopped is not None:
            if failed := self._result.failed:
                position = min(failed)
                stopped.add_note(f"{len(failed)} records are not stored; the first is {position}: {failed[position]}")
            raise stopped
        return self._result

    def _job(self, record: T, change: Callable[[T], Change[Any]]) -> _Job | None:
        position = len(self._result.versions)
        self._result.versions.append(None)
        try:
            return _Job(position, change(record))
        except CloudDBError as error:
            self._result.failed[position] = error
            return None

    async def _send(self, group: TaskGroup, batch: list[_Job]) -> None:
        if batch:
            await self._slots.acquire()
            group.start_soon(self._carry_out, batch)

    async def _idle(self) -> None:
        for _ in range(_BATCHES_AT_ONCE):
            await self._slots.acquire()
        for _ in range(_BATCHES_AT_ONCE):
            self._slots.release()

    async def _carry_out(self, jobs: list[_Job]) -> None:
        keys = {job.change.key for job in jobs}
        failures, answers = 0, False
        try:
            while jobs:
                stamped = self._stamped(jobs)
                outcomes = await self._write([mutation for _, mutation in stamped])
                failed = any(isinstance(outcome, Failed) for outcome in outcomes)
                stored = any(isinstance(outcome, Stored) for outcome in outcomes)
                failures = failed if stored else failures + failed
                answers = answers or not all(isinstance(outcome, Failed) for outcome in outcomes)
                if answers:
                    self._given_up = False
                elif failures >= _ATTEMPTS:
                    self._given_up = True
                jobs = [
                    job
                    for (job, _), outcome in zip(stamped, outcomes, strict=True)
                    if not self._settled(job, outcome, last=failures >= (1 if self._given_up else _ATTEMPTS))
                ]
                if jobs and failed:
                    await anyio.sleep(full_jitter(failures, _FIRST_PAUSE, _LONGEST_PAUSE))
                elif jobs:
                    await make_way(max(job.stamps for job in jobs))
            self._tell()
        finally:
            self._under_way -= keys
            self._slots.release()

    def _tell(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            progress(self._result.stored)
            self._progress = progress  # unless it has raised, which stops the other batches too

    def _stamped(self, jobs: Sequence[_Job]) -> list[tuple[_Job, Mutation]]:
        stamped = []
        for job in jobs:
            if job.mutation is None:
                job.stamps += 1
                if self._store.incomplete:
                    job.change.suspect()
                try:
                    job.mutation = job.change.mutation(self._clock.stamp())
                except CloudDBError as error:
                    self._result.failed[job.position] = error
                    continue
            stamped.append((job, job.mutation))
        return stamped

    async def _write(self, mutations: list[Mutation]) -> Sequence[Outcome]:
        if not mutations:
            return ()
        try:
            return await self._store.write(mutations)
        except CloudDBError as error:
            return [Failed(error, applied=not isinstance(error, InvalidRecord))] * len(mutations)

    def _settled(self, job: _Job, outcome: Outcome, *, last: bool) -> bool:
        """Note what a job has come to; False when it is to be tried again."""
        if isinstance(outcome, Failed):
            job.lost = job.lost or outcome.applied
            # A store that is known to be down takes the write later, by its hint: trying again does not hurry it.
            missed = isinstance(outcome.error, PartialWrite) and self._store.incomplete
            if _is_of_setup(outcome.error):
                raise outcome.error
            if isinstance(outcome.error, _PASSING) and not last and not missed:
                return False
            self._result.failed[job.position] = outcome.error
            return True
        if job.lost and job.mutation is not None:
            certain = settled(job.mutation, outcome, self._store.name)
            if isinstance(certain, Failed):
                self._result.failed[job.position] = certain.error
                return True
            outcome = certain
        known = outcome.version is None or self._clock.observe(outcome.version)
        if isinstance(outcome, Stored):
            if outcome.partial and job.change.doubt():
                job.mutation, job.lost = None, False
                return False
            self._result.stored += 1
            self._result.versions[job.position] = outcome.version
            return True
        if outcome.reason == "older" and not known:
            self._result.failed[job.position] = unbelievable(outcome.version, self._store.name, job.change.key)
            return True
        job.applied = job.applied or outcome.applied
        again = outcome.reason == "older" or job.change.adapt(outcome)
        if again and job.stamps < MAX_STAMPS:
            job.mutation, job.lost = None, False
            return False
        if outcome.reason not in job.change.accepts:
            refusal = job.change.error(outcome, self._store.name)
            self._result.failed[job.position] = uncertain(self._store.name, job.change.key) if job.applied else refusal
        return True


def _is_of_setup(error: CloudDBError) -> bool:
    """Whether a write has failed, be it on one store of several, for what trying again does not change."""
    reasons = (*error.failed.values(), *error.unhinted.values()) if isinstance(error, PartialWrite) else (error,)
    return any(isinstance(each, _SETUP) for each in reasons)


async def each_of(records: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    """The records of either kind of iterable; an asynchronous generator is closed at the end."""
    if not isinstance(records, AsyncIterable):
        for record in records:
            yield record
        return
    try:
        async for record in records:
            yield record
    finally:
        # Nobody else can close a generator that was made for this call alone.
        if isinstance(records, AsyncGenerator):
            await records.aclose()
