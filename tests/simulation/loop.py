"""A virtual-time event loop: when nothing is left to run, its clock goes on to the next timer.

Of its own rather than the package looptime, which also enlists in pytest, rounds time to steps and keeps hash order:
here the order in which tasks are cancelled must be the same in every process, and a schedule must take milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Generator, Mapping
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Self

import anyio._backends._asyncio as backend

if TYPE_CHECKING:
    from tests.simulation.processes import Process

__all__ = ["PROCESS", "SerialScope", "Stuck", "VirtualLoop"]

PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""The simulated process that code runs in."""

_MOST_STANDING = 20_000  # rounds of the loop at one moment, after which it is stuck


class Stuck(Exception):
    """Nothing can happen any more, or the same goes on for ever without time going by."""


class _Clock(selectors.BaseSelector):
    """Waits for nothing: a timeout is added to the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._standing = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("every task waits for what nobody will do")
        if timeout > 0:
            self.now += timeout
            self._standing = 0
        else:
            self._standing += 1
            if self._standing > _MOST_STANDING:
                raise Stuck("tasks run for ever at one moment")
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class SerialTask(asyncio.Task[Any]):
    """A task that is hashed by its number, so that a set of tasks has the same order in every process."""

    serial = 0

    def __hash__(self) -> int:
        return self.serial


class SerialScope(backend.CancelScope):
    """A cancel scope that is hashed by its number: it cancels those within it in the same order in every process."""

    made = 0
    serial: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        scope = object.__new__(cls)
        SerialScope.made += 1
        scope.serial = SerialScope.made
        return scope

    def __hash__(self) -> int:
        return self.serial


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop without real time; tasks are entered in the simulated process that starts them."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)
        self._tasks = 0
        self.unhandled: list[str] = []
        self.set_task_factory(self._task)
        self.set_exception_handler(self._unhandled)

    def time(self) -> float:
        return self._clock.now

    def _task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> SerialTask:
        context: Context | None = options.get("context")
        process = PROCESS.get() if context is None else context.get(PROCESS)
        task = SerialTask(coroutine, loop=loop, **options)
        self._tasks += 1
        task.serial = self._tasks
        if process is not None:
            process.tasks.append(task)
        return task

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(f"{context.get('message')}: {context.get('exception')!r}")
