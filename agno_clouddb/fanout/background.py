"""Background: the tasks that belong to a fan-out, and end with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, copy_context
from typing import Any

import anyio

from agno_clouddb.errors import CloudDBError

__all__ = ["Background"]

_log = logging.getLogger(__name__)

_PAUSE = 5.0  # seconds after which work goes on that was ended by an error which is none of the library's own


class Background:
    """Runs calls in tasks of their own, each name at most once at a time.

    They run in the context in which all was opened, not in that of the call which happens to start them: what is set
    there, such as a trace, is the caller's alone.
    """

    def __init__(self) -> None:
        self.last_error: CloudDBError | None = None
        """What the last task that failed has failed with; it is logged as well."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = True
        self._context = Context()

    def open(self) -> None:
        """From now on tasks may be started."""
        self._closed = False
        self._context = copy_context()

    def start(self, name: str, call: Callable[[], Coroutine[Any, Any, None]], *, pause: float = _PAUSE) -> None:
        """Run a call, unless one of this name runs already, or all is closed.

        A CloudDBError ends it. It is called again after any other error, such as a mistake in a driver, since there is
        nobody else who would see to the work.

        Args:
            name: what is done.
            call: does it; what is left of it when it has raised is for the next call to find.
            pause: seconds before it is called again.
        """
        if self._closed or (name in self._tasks and not self._tasks[name].done()):
            return
        task = asyncio.get_running_loop().create_task(
            self._run(name, call, pause), name=f"agno_clouddb {name}", context=self._context.copy()
        )
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._forget(name, done))

    async def attempt(self, name: str, call: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run a call, and note what it fails with; False when that is no CloudDBError."""
        try:
            await call()
        except CloudDBError as error:
            # Whoever started it has gone on; `health` tells what went wrong.
            self.note(error)
        except Exception as error:
            self.note(_wrapped(name, error), unexpected=error)
            return False
        return True

    def note(self, error: CloudDBError, *, unexpected: Exception | None = None) -> None:
        """Note what work that goes on has failed with; the same is logged once.

        Args:
            error: it.
            unexpected: the error in it that is none of the library's own; logged with its traceback.
        """
        if str(error) != str(self.last_error):
            _log.warning("work in the background has failed: %s", error, exc_info=unexpected)
        self.last_error = error

    def note_mistake(self, errors: Iterable[CloudDBError | None]) -> None:
        """Note the first error of what work on many records has failed with; None: it has not, on one of them."""
        error = next((each for each in errors if each is not None), None)
        if error is not None:
            self.note(error)

    async def aclose(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def idle(self) -> None:
        """Wait until no task runs: for tests."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]

    async def _run(self, name: str, call: Callable[[], Coroutine[Any, Any, None]], pause: float) -> None:
        while not await self.attempt(name, call):  # noqa: ASYNC110
            await anyio.sleep(pause)


def _wrapped(name: str, cause: Exception) -> CloudDBError:
    """What is noted of an error that is none of the library's own."""
    error = CloudDBError(
        f"{name} has met an error that no store should raise: {type(cause).__name__}: {cause}",
        remedy="It is tried again; the log has the traceback",
    )
    error.__cause__ = cause
    return error
