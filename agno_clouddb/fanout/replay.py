"""Replay: bringing a store what hints say that it has missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio

from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout import hints
from agno_clouddb.fanout.background import Background
from agno_clouddb.fanout.failures import OUTAGES
from agno_clouddb.fanout.hints import Hint
from agno_clouddb.fanout.lag import Lag
from agno_clouddb.fanout.portions import Portions
from agno_clouddb.fanout.replicas import Mended, Replicas

__all__ = ["Replay"]

_PAGE = 100
_MAX_UNPROVEN = 10_000
_FORGOTTEN = 10  # times the grace, after which a hint that was seen would have been seen again
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts


class Replay:
    """Replays hints: those that reads or writes here have left, in the background, and all when asked to.

    Args:
        replicas: the stores.
        lag: which stores have missed something.
        background: runs the work.
    """

    def __init__(self, replicas: Replicas, lag: Lag, background: Background) -> None:
        self.replayed = 0
        """How many hints were replayed."""
        self._replicas = replicas
        self._portions = Portions(replicas)
        self._lag = lag
        self._background = background
        self._unproven: dict[tuple[str, Hint], float] = {}
        self._caught_up: dict[str, float] = {}

    def catch_up(self) -> None:
        """See to it that the stores that are known to have missed something are brought it."""
        for target in self._lag.targets():
            self._background.start(f"replay {target}", partial(self._until_done, target))

    async def run(self, target: str, spend: Callable[[int], Awaitable[None]] | None = None) -> int:
        """Replay what all other stores keep for one.

        Args:
            target: the name of the store.
            spend: is told, before the next page is read, how many items were read and written.

        Returns:
            How many hints are left, since they could not be replayed.

        Raises:
            CloudDBError: a store does not answer.
        """
        left = 0
        for source, store in self._replicas.stores.items():
            cursor = None
            while source != target:
                page = await hints.listed(store, target, limit=_PAGE, cursor=cursor)
                left += await self._replayed(source, target, page.hints)
                if spend is not None:
                    await spend(len(page.hints) * (len(self._replicas.stores) + 1))
                cursor = page.cursor
                if cursor is None:
                    break
        return left

    async def _run_marked(self, target: str) -> int:
        """Replay the hints that are known of, but not listed: an index may lag. Gives how many are left."""
        left, keys = 0, list(self._lag.marks(target))
        for first in range(0, len(keys), _PAGE):
            part = keys[first : first + _PAGE]
            kept = [hints.hint_key(target, key, certain=certain) for key in part for certain in (True, False)]
            for source, store in self._replicas.stores.items():
                if source != target:
                    found = [item for item in (await store.get(kept)).items if item is not None]
                    left += await self._replayed(source, target, [Hint.from_item(item) for item in found])
        return left

    async def _replayed(self, source: str, target: str, found: Sequence[Hint]) -> int:
        """Replay hints that a store keeps for another, and give back how many are left."""
        keys = list(dict.fromkeys(hint.key for hint in found))
        mended = {each.key: each for each in await self._portions.mend(keys)}
        self._background.note_mistake(each.mistake for each in mended.values())
        done = [each for each in found if self._is_done(source, each, mended[each.key])]
        failed = await hints.remove(self._replicas.stores[source], done)
        done = [each for each in done if each not in failed]
        for each in done:
            self._unproven.pop((source, each), None)
        self._lag.remove(done)
        self.replayed += len(done)
        return len(found) - len(done)

    def _is_done(self, source: str, hint: Hint, mended: Mended) -> bool:
        """Whether a hint tells of nothing any more."""
        if not mended.brought(hint.target, hint.version):
            return False
        return hint.certain or mended.version >= hint.version or self._has_waited(source, hint)

    def _has_waited(self, source: str, hint: Hint) -> bool:
        """Whether a hint was seen so long ago that its write, which was refused or lost, is not on its way any more."""
        now, seen = anyio.current_time(), (source, hint)
        if seen not in self._unproven and len(self._unproven) >= _MAX_UNPROVEN:
            first = next(iter(self._unproven))
            if now - self._unproven[first] < _FORGOTTEN * self._replicas.grace:
                return False  # its turn comes when others are done
            del self._unproven[first]  # somebody else has removed it
        return now - self._unproven.setdefault(seen, now) >= self._replicas.grace

    async def _until_done(self, target: str) -> None:
        pause = _FIRST_PAUSE
        while self._lag.has_missed(target):
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if not self._replicas.stores[target].available:
                pause = _FIRST_PAUSE
                continue
            marks = self._lag.marks(target)
            try:
                left = await self.run(target) + await self._run_marked(target)
            except OUTAGES:
                continue  # the circuit has seen it, and the hints stay
            except CloudDBError as error:
                self._background.note(error)
                continue
            if not left:
                self._lag.set_behind(target, behind=False)
                self._lag.forget(target, marks)
        self._caught_up[target] = anyio.current_time()
        self._background.start(f"late hints for {target}", partial(self._look_again, target))

    async def _look_again(self, target: str) -> None:
        """Have hints replayed that have arrived late.

        One that was given up for want of an answer, be it with its write, may reach its store after all others were
        replayed; nothing else would tell of it before the next reconciliation.
        """
        # Counted anew whenever it has caught up once more meanwhile.
        while (seconds := self._caught_up[target] + self._replicas.grace - anyio.current_time()) > 0:  # noqa: ASYNC110
            await anyio.sleep(seconds)
        others = [store for name, store in self._replicas.stores.items() if name != target]
        try:
            behind = any([(await hints.listed(store, target, limit=1)).hints for store in others])
        except OUTAGES:
            behind = True  # as far as is known
        if behind:
            self._lag.set_behind(target, behind=True)
            self.catch_up()
