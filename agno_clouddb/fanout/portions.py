"""Portions: mending many keys, so many at a time that what the stores hold under them fits in memory."""

from __future__ import annotations

from collections.abc import Sequence

from agno_clouddb.fanout.replicas import Copies, Mended, Replicas
from agno_clouddb.stores.base import Key

__all__ = ["Portions"]

_FIRST_KEYS, _MOST_KEYS = 5, 25
_BYTES = 16 * 1024 * 1024  # of payloads, in the copies of all stores together


class Portions:
    """Mends keys a portion at a time: as many as had room in some megabytes, had all been as large as the last ones.

    How large an item is nobody knows before it is read. So a portion begins small and is at most twice the one before,
    and one of larger items than those before it takes more room than it is meant to, once. After one that could not be
    read the next is half as large.

    Args:
        replicas: mends each portion.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._number = _FIRST_KEYS

    async def mend(self, keys: Sequence[Key], *, needed: int = 1, dry_run: bool = False) -> list[Mended]:
        """Make all stores that answer hold the newest version that any of them has, or nothing where it was removed.

        What has expired is not copied, but what is older than it is deleted. A store applies what is newer than what
        it holds and nothing else, so that a write that comes in between is not lost.

        Args:
            keys: each once.
            needed: how many stores must answer.
            dry_run: only say what would be done.

        Raises:
            CloudDBError: fewer stores answer.
        """
        mended: list[Mended] = []
        while len(mended) < len(keys):
            mended += await self._next(keys[len(mended) : len(mended) + self._number], needed, dry_run)
        return mended

    async def _next(self, keys: Sequence[Key], needed: int, dry_run: bool) -> list[Mended]:
        before, self._number = self._number, max(1, self._number // 2)  # should it fail, as when that takes too long
        found = await self._replicas.copies(keys, needed=needed)
        self._number = max(1, min(2 * before, _MOST_KEYS, _fitting(found)))
        return await self._replicas.settle(found, dry_run=dry_run)


def _fitting(found: Sequence[Copies]) -> int:
    """How many keys have room, if what is under them is as large as what was found."""
    size = sum(item.size for each in found for item in each.held.values() if item is not None)
    return len(found) * _BYTES // max(size, 1)
