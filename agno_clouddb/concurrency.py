"""Running several calls at once, with none left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import anyio
from anyio.abc import TaskGroup

from agno_clouddb.errors import CloudDBError

__all__ = ["full_jitter", "gather", "gather_outcomes", "task_group", "uninterrupted"]

T = TypeVar("T")

_CANCELLED = object()


async def gather(calls: Sequence[Callable[[], Awaitable[T]]], *, limit: int | None = None) -> list[T]:
    """Run calls at once and return their results in order.

    When one raises, the others are cancelled, waited for, and its error is raised as it is.

    Args:
        calls: functions that make the awaitables, so that none is made and never awaited.
        limit: how many run at a time; None: all.
    """
    if len(calls) == 1:
        return [await calls[0]()]
    results: list[Any] = [_CANCELLED] * len(calls)
    slots = anyio.Semaphore(limit) if limit is not None else None

    async def run(position: int, call: Callable[[], Awaitable[T]]) -> None:
        if slots is None:
            results[position] = await call()
        else:
            async with slots:
                results[position] = await call()

    async with task_group() as group:
        for position, call in enumerate(calls):
            group.start_soon(run, position, call)
    if any(each is _CANCELLED for each in results):
        # The group takes a task that ends as cancelled for one that it has cancelled itself.
        raise CloudDBError("a call was cancelled from below", remedy="Try again")
    return cast("list[T]", results)


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A group of tasks that ends with all of them; the error of one is raised as it is, not in a group of errors."""
    first: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        first = _first(errors)
    if first is not None:
        # Raised here and not `from None` above, which would take away the cause that the error was raised with.
        raise first


def full_jitter(attempt: int, first: float, longest: float) -> float:
    """Seconds to wait before retry number ``attempt``, counted from 0: exponential, with full jitter.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        attempt: how many retries there were.
        first: the longest first pause in seconds; it doubles with every attempt.
        longest: the longest pause in seconds.
    """
    return random.uniform(0, min(longest, first * 2.0 ** min(attempt, 30)))


async def gather_outcomes(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T | CloudDBError]:
    """Run calls at once; what one raises as a CloudDBError stands in its place, and the others go on."""

    def outcome(call: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T | CloudDBError]]:
        async def run() -> T | CloudDBError:
            try:
                return await call()
            except CloudDBError as error:
                return error

        return run

    return await gather([outcome(call) for call in calls])


async def uninterrupted(call: Callable[[], Awaitable[T]]) -> T:
    """Run a call to its end even when the caller is cancelled meanwhile; the cancellation goes on after it.

    A shielded scope holds off a cancelled scope around the caller, but not a cancelled task: hence a task of its own.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        task = asyncio.ensure_future(call())
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # marked as seen: the cancellation takes precedence
        raise cancelled
    return task.result()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the errors in a group; an unexpected one before the library's own, so that a bug does not hide."""
    leaves = [_first(error) if isinstance(error, BaseExceptionGroup) else error for error in errors.exceptions]
    return next((error for error in leaves if not isinstance(error, CloudDBError)), leaves[0])
