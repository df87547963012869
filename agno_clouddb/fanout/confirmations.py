"""Confirmations: hints that went out together with their writes are replaced by certain ones, in the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from agno_clouddb.fanout.background import Background
from agno_clouddb.fanout.hints import Hint, confirm
from agno_clouddb.fanout.lag import Lag
from agno_clouddb.fanout.replicas import Replicas
from agno_clouddb.stores.base import Key

__all__ = ["Confirmations"]

_BATCH = 100
_MAX_WAITING = 10_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two attempts


class Confirmations:
    """The hints that wait to be confirmed.

    Args:
        replicas: the stores that keep them.
        background: runs the work.
        lag: is told of what was confirmed.
        catch_up: sees to it that this is replayed.
    """

    def __init__(self, replicas: Replicas, background: Background, lag: Lag, catch_up: Callable[[], None]) -> None:
        self._replicas = replicas
        self._background = background
        self._lag = lag
        self._catch_up = catch_up
        self._waiting: dict[str, dict[tuple[str, Key], Hint]] = {}

    def add(self, name: str, hints: Sequence[Hint]) -> None:
        """Have hints confirmed that a store keeps; of several about one key the last one counts."""
        waiting = self._waiting.setdefault(name, {})
        for hint in hints:
            waiting[hint.target, hint.key] = hint
        while len(waiting) > _MAX_WAITING:
            del waiting[next(iter(waiting))]  # it stays as it was sent, and is replayed all the same
        if hints:
            self._background.start("confirm", self._until_done)

    async def run(self) -> None:
        """Confirm all that waits; what a store does not take goes on waiting."""
        for name, waiting in list(self._waiting.items()):
            places = list(waiting)
            for first in range(0, len(places), _BATCH):
                batch = [waiting.pop(place) for place in places[first : first + _BATCH] if place in waiting]
                failed = batch  # unless it is known to be done
                try:
                    failed = await confirm(self._replicas.stores[name], batch)
                finally:
                    for hint in failed:
                        waiting.setdefault((hint.target, hint.key), hint)
                # The store may have caught up meanwhile, so that nothing else would have these replayed.
                self._lag.add(hint for hint in batch if hint not in failed)
        self._catch_up()

    async def _until_done(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            # What comes in while a batch is on its way makes the next one.
            await self.run()
            if not any(self._waiting.values()):
                return
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
