"""Running several calls at once, with none left behind."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from agno_clouddb.errors import CloudDBError

__all__ = ["full_jitter", "gather", "gather_outcomes", "load_backend", "task_group", "uninterrupted"]

T = TypeVar("T")

_BACKEND = "anyio._backends._asyncio"


async def load_backend() -> None:
    """Import what anyio runs on in a thread: at its first use anyio would import it on the event loop, in 30 ms."""
    if _BACKEND not in sys.modules:
        with suppress(ImportError):  # where a later anyio keeps it is its own affair
            await asyncio.to_thread(import_module, _BACKEND)


async def gather(calls: Sequence[Callable[[], Awaitable[T]]], *, limit: int | None = None) -> list[T]:
    """Run calls at once and return their results in order.

    When one raises, the others are cancelled, waited for, and its error is raised as it is. When the caller is
    cancelled, so are they, and waited for. Tasks of the event loop do it, as a task group takes three times as long.

    Args:
        calls: functions that make the awaitables, so that none is made and never awaited.
        limit: how many run at a time; None: all.
    """
    if len(calls) == 1:
        return [await calls[0]()]
    if not calls:
        return []
    if limit is not None and limit < len(calls):
        slots = anyio.Semaphore(limit)
        calls = [partial(_in_turn, slots, call) for call in calls]
    # Called within its task: one that raises before there is anything to await leaves the others to nobody else.
    tasks = [asyncio.ensure_future(_called(call)) for call in calls]
    try:
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    except asyncio.CancelledError:
        await _ended(tasks)
        raise
    if pending:
        await _ended(pending)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        raise _worst(errors)
    if any(task.cancelled() for task in tasks):
        raise CloudDBError("a call was cancelled from below", remedy="Try again")
    return [task.result() for task in tasks]


async def _called(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


async def _in_turn(slots: anyio.Semaphore, call: Callable[[], Awaitable[T]]) -> T:
    async with slots:
        return await call()


async def _ended(tasks: Iterable[asyncio.Future[T]]) -> None:
    """Cancel tasks and wait until they have ended, even when cancelled meanwhile; the cancellation goes on after it."""
    for task in tasks:
        task.cancel()
    await uninterrupted(partial(_waited, tasks))


async def _waited(tasks: Iterable[asyncio.Future[T]]) -> None:
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marked as seen


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A group of tasks that ends with all of them; the error of one is raised as it is, not in a group of errors."""
    first: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        first = _worst(_leaves(errors))
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


def _worst(errors: Sequence[BaseException]) -> BaseException:
    """One of several errors; an unexpected one before the library's own, so that a bug does not hide."""
    return next((error for error in errors if not isinstance(error, CloudDBError)), errors[0])


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors in a group, and in the groups inside it."""
    nested = [_leaves(each) if isinstance(each, BaseExceptionGroup) else [each] for each in errors.exceptions]
    return [leaf for leaves in nested for leaf in leaves]
