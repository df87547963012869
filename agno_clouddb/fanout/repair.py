"""Repair: keys that a read has found different on some stores are mended in the background.

Source: read repair in G. DeCandia et al., "Dynamo: Amazon's Highly Available Key-value Store", SOSP 2007, 5.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import anyio

from agno_clouddb.fanout.background import Background
from agno_clouddb.fanout.portions import Portions
from agno_clouddb.fanout.replicas import Replicas
from agno_clouddb.stores.base import Key

__all__ = ["Repairs"]

_PAUSE = 0.2  # seconds in which a write that is under way elsewhere may come to its end
_BATCH = 50
_MAX_WAITING = 1_000


class Repairs:
    """The keys that wait to be mended. What finds no room is left to the next read, or to ``reconcile``.

    Args:
        replicas: mends them.
        background: runs the work, one batch after the other.
        writing: the keys that are being written here, and so differ for the moment only.
    """

    def __init__(self, replicas: Replicas, background: Background, writing: Container[Key]) -> None:
        self.mended = 0
        """How many keys were mended."""
        self._portions = Portions(replicas)
        self._background = background
        self._writing = writing
        self._waiting: dict[Key, None] = {}

    def add(self, keys: Iterable[Key]) -> None:
        """Have keys mended that were found to differ."""
        for key in keys:
            if key not in self._writing and len(self._waiting) < _MAX_WAITING:
                self._waiting[key] = None
        if self._waiting:
            self._background.start("repair", self._run)

    async def _run(self) -> None:
        while self._waiting:
            await anyio.sleep(_PAUSE)
            batch = [key for key in list(self._waiting)[:_BATCH] if key not in self._writing]
            for key in list(self._waiting)[:_BATCH]:
                del self._waiting[key]
            mended = await self._portions.mend(batch)
            self._background.note_mistake(each.mistake for each in mended)
            self.mended += sum(1 for each in mended if each.differed and not each.failed)
