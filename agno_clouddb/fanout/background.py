"""Background: the tasks that belong to a fan-out, and end with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, copy_context
from typing import Any

from agno_clouddb.errors import CloudDBError

__all__ = ["Background"]

_log = logging.getLogger(__name__)


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

    def start(self, name: str, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a call, unless one of this name runs already, or all is closed."""
        if self._closed or (name in self._tasks and not self._tasks[name].done()):
            return
        task = asyncio.get_running_loop().create_task(
            self._run(call), name=f"agno_clouddb {name}", context=self._context.copy()
        )
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._forget(name, done))

    def note(self, error: CloudDBError) -> None:
        """Note what work that goes on has failed with; the same is logged once."""
        if str(error) != str(self.last_error):
            _log.warning("work in the background has failed: %s", error)
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

    async def _run(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await call()
        except CloudDBError as error:
            # Whoever started it has gone on; `health` tells what went wrong.
            self.note(error)
