"""Reconcile: finding what stores of a fan-out do not hold alike, and mending it.

Two comparisons. *Incremental*: what was written since the last one is listed by version on all stores, and what is not
on all of these lists is looked up and mended; so it reads index entries and little else. *Full*: everything that each
store holds is looked up on the others, in an order of the store's own, since DynamoDB keeps keys in none.

Source: anti-entropy in G. DeCandia et al., "Dynamo: Amazon's Highly Available Key-value Store", SOSP 2007, 4.7, with
an index by version in place of Merkle trees, which neither cloud keeps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import anyio

from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout.failures import OUTAGES
from agno_clouddb.fanout.notes import Notes
from agno_clouddb.fanout.portions import Portions
from agno_clouddb.fanout.replay import Replay
from agno_clouddb.fanout.replicas import Mended, Replicas
from agno_clouddb.stores.base import Key, Scan
from agno_clouddb.stores.schema import COLLECTIONS

__all__ = ["Compared", "Reconciler", "Reconciliation", "moment"]

_PAGE = 100
_INDEX_PAGE = 500
_ROUNDS = 3  # in which hints are replayed once more that could not be


@dataclass(slots=True)
class Compared:
    """What was found in one collection.

    Args:
        compared: how many records (tombstones too) were compared.
        missing: how many were lacking on a store.
        stale: how many were there in an older version, or still there though deleted.
        mended: how many of these are right now.
        failed: how many could not be mended, since a store did not take the write.
    """

    compared: int = 0
    missing: int = 0
    stale: int = 0
    mended: int = 0
    failed: int = 0

    def add(self, found: Mended, *, dry_run: bool) -> None:
        """Count one key that was looked up on all stores."""
        self.missing += bool(found.missing)
        self.stale += bool(found.stale) and not found.missing
        if found.differed and not dry_run:
            self.failed += bool(found.failed)
            self.mended += not found.failed


@dataclass(slots=True)
class Reconciliation:
    """What a reconciliation has done so far.

    Args:
        kind: ``incremental``: what was written since the last one; ``full``: everything.
        dry_run: nothing was changed.
        replayed: how many hints were replayed.
        collections: what was compared, by collection.
        error: what the last record that could not be mended has failed with; None: there was none in this call.
        done: it has come to its end.
    """

    kind: Literal["incremental", "full"]
    dry_run: bool = False
    replayed: int = 0
    collections: dict[str, Compared] = field(default_factory=dict)
    error: CloudDBError | None = None
    done: bool = False

    @property
    def total(self) -> Compared:
        """All collections together."""
        total = Compared()
        for each in self.collections.values():
            total.compared += each.compared
            total.missing += each.missing
            total.stale += each.stale
            total.mended += each.mended
            total.failed += each.failed
        return total

    def of(self, collection: str) -> Compared:
        """What was found in a collection so far."""
        return self.collections.setdefault(collection, Compared())

    def add(self, found: Mended) -> None:
        """Count one key that was looked up on all stores."""
        self.of(found.key.collection).add(found, dry_run=self.dry_run)
        if not self.dry_run:
            self.error = next(iter(found.failed.values()), self.error)


class Pace:
    """Spends units no faster than so many a second.

    Args:
        rate: units a second; None: without limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = 0.0

    async def spend(self, units: int) -> None:
        """Wait until units that were used before are paid for."""
        if self._rate is None or not units:
            return
        now = anyio.current_time()
        self._next = max(self._next, now) + units / self._rate
        await anyio.sleep(self._next - now)


class Reconciler:
    """Compares the stores of a fan-out.

    Args:
        replicas: the stores.
        replay: replays hints.
        notes: where checkpoints are kept.
        overlap: seconds that an incremental comparison goes back behind the last: at least what the clocks of two
            writers may differ by, and the deadline of a write.
    """

    def __init__(self, replicas: Replicas, replay: Replay, notes: Notes, *, overlap: float) -> None:
        self._replicas = replicas
        self._portions = Portions(replicas)
        self._replay = replay
        self._notes = notes
        self._overlap = overlap
        self._deferred: dict[Key, None] = {}

    async def run(
        self,
        *,
        full: bool = False,
        dry_run: bool = False,
        rate: float | None = None,
        progress: Callable[[Reconciliation], None] | None = None,
    ) -> Reconciliation:
        """Replay hints and compare; see ``Database.reconcile``."""
        checkpoint, stopped = await self._notes.read("checkpoint", "full")
        full = full or not checkpoint or bool(stopped)
        report = Reconciliation("full" if full else "incremental", dry_run)
        tell = progress if progress is not None else _quiet
        pace = Pace(rate)
        began = self._replicas.now
        left = 0 if dry_run else await self._replayed(report, pace, tell)
        tell(report)
        if full:
            stopped = {} if dry_run else stopped
            began = stopped.get("began", began)
            await self._everything_and_since(report, stopped, began, pace, tell)
        else:
            await self._changes(report, _version_at(checkpoint["at"] - self._overlap), pace, tell)
        await self._mend_deferred(report)
        for _ in range(_ROUNDS if left else 0):
            # Writers were at it, which are done after a while, or have died.
            await anyio.sleep(self._replicas.grace)
            left = await self._replayed(report, pace, tell)
            if not left:
                break
        report.done = True
        if not dry_run:
            await self._note_done(report, began)
        tell(report)
        return report

    async def _note_done(self, report: Reconciliation, began: float) -> None:
        """Note from when on the next incremental comparison is to compare."""
        if not report.total.failed:
            # Where a store cannot take a record, the stores do not count as compared: it is not to be read alone.
            await self._notes.save("checkpoint", {"at": began})
        if report.kind == "full":
            await self._notes.save("full", {})

    async def _replayed(self, report: Reconciliation, pace: Pace, tell: Callable[[Reconciliation], None]) -> int:
        """Replay the hints for all stores, and give back how many are left."""
        before = self._replay.replayed - report.replayed

        async def spend(units: int) -> None:
            report.replayed = self._replay.replayed - before
            tell(report)
            await pace.spend(units)

        return sum([await self._replay.run(name, spend) for name in self._replicas.stores])

    async def _changes(
        self, report: Reconciliation, since: str, pace: Pace, tell: Callable[[Reconciliation], None]
    ) -> None:
        for collection in COLLECTIONS:
            counts = report.of(collection)
            async for compared, differing in self._differing(collection, since):
                counts.compared += compared
                mended = await self._mend(report, differing)
                await pace.spend(compared + self._units(mended))
                tell(report)

    async def _differing(self, collection: str, since: str) -> AsyncIterator[tuple[int, list[Key]]]:
        """How many versions were compared, and the keys of those that not all stores list, a part at a time.

        All lists are in order of version, so that a part ends where the shortest of the pages read so far does.
        """
        streams = [_Stream(store.scan, collection, since) for store in self._replicas.stores.values()]
        while any(not each.ended or each.entries for each in streams):
            behind = min((each.last for each in streams if not each.ended), default=None)
            for each in streams:
                if not each.ended and each.last == behind:
                    await each.read()
            end = min((each.last for each in streams if not each.ended), default=None)
            parts = [each.take(end) for each in streams]
            everywhere = set.intersection(*map(set, parts))
            seen = dict.fromkeys(entry for part in parts for entry in part)
            differing = dict.fromkeys(key for key, version in seen if (key, version) not in everywhere)
            if seen:
                yield len(seen), list(differing)

    async def _everything_and_since(
        self,
        report: Reconciliation,
        stopped: Mapping[str, Any],
        began: int,
        pace: Pace,
        tell: Callable[[Reconciliation], None],
    ) -> None:
        """Compare everything; after one that was stopped also what has changed of what that had passed."""
        await self._everything(report, stopped, began, pace, tell)
        if stopped:
            before = {name: each.compared for name, each in report.collections.items()}
            await self._changes(report, _version_at(began - self._overlap), pace, tell)
            for name, compared in before.items():
                report.of(name).compared = compared  # each record counts once

    async def _everything(
        self,
        report: Reconciliation,
        stopped: Mapping[str, Any],
        began: int,
        pace: Pace,
        tell: Callable[[Reconciliation], None],
    ) -> None:
        """Look up on all stores what each holds; where it was stopped is noted after every page."""
        names = list(self._replicas.stores)
        if stopped.get("stores") != names:
            stopped = {}  # there is none, or its stores were named in another order
        for name, counted in stopped.get("collections", {}).items():
            report.collections[name] = Compared(**counted)
        places = [(collection, name) for collection in COLLECTIONS for name in names]
        first = int(stopped.get("place", 0))
        cursor: str | None = stopped.get("cursor")
        for place in range(first, len(places)):
            collection, name = places[place]
            counts = report.of(collection)
            while True:
                scan = await self._replicas.stores[name].scan(collection, limit=_PAGE, cursor=cursor)
                mended = await self._mend(report, [key for key, _ in scan.entries], found_on=name)
                counts.compared += sum(1 for each in mended if each.holders[:1] == (name,))
                cursor = scan.cursor
                if not report.dry_run:
                    await self._note(report, place if cursor is not None else place + 1, cursor, began)
                tell(report)
                await pace.spend(len(scan.entries) + self._units(mended))
                if cursor is None:
                    break

    async def _note(self, report: Reconciliation, place: int, cursor: str | None, began: int) -> None:
        note = {
            "place": place,
            "cursor": cursor,
            "began": began,
            "stores": list(self._replicas.stores),
            "collections": {name: asdict(each) for name, each in report.collections.items()},
        }
        await self._notes.save("full", note)

    async def _mend(
        self, report: Reconciliation, keys: Collection[Key], *, found_on: str | None = None
    ) -> list[Mended]:
        """Mend keys of one collection.

        Raises unless all stores answer, since what is elsewhere may be newer, and take the writes: so that what was
        stopped goes on here. A write that a store refuses to take for itself, such as one too large, is counted.

        Args:
            report: is told what was found; of keys that several stores hold, when they were found on the first of them.
            keys: the keys.
            found_on: the store that was scanned; None: all were.
        """
        mended = await self._portions.mend(list(keys), needed=len(self._replicas.stores), dry_run=report.dry_run)
        self._deferred.update((each.key, None) for each in mended if each.deferred)
        for each in mended:
            if each.deferred and not report.dry_run:
                continue
            if found_on is None or each.holders[:1] == (found_on,):
                report.add(each)
        _require_answers(mended)
        return mended

    async def _mend_deferred(self, report: Reconciliation) -> None:
        """Look again at what writers were at, once they are done, or have died."""
        keys = list(self._deferred)
        self._deferred.clear()
        if not keys or report.dry_run:
            return
        await anyio.sleep(self._replicas.grace)
        mended = await self._portions.mend(keys)
        for each in mended:
            report.add(each)
        _require_answers(mended)

    def _units(self, mended: Sequence[Mended]) -> int:
        """How many items were read and written to look keys up and to mend them."""
        written = sum(len(each.missing) + len(each.stale) for each in mended)
        return len(mended) * len(self._replicas.stores) + written


def _require_answers(mended: Sequence[Mended]) -> None:
    """Raise the error of a store that has not answered."""
    for each in mended:
        for error in () if each.deferred else each.failed.values():
            if isinstance(error, OUTAGES):
                raise error


class _Stream:
    """What one store lists by version, read page by page."""

    def __init__(self, scan: Callable[..., Any], collection: str, since: str) -> None:
        self._scan = scan
        self._collection = collection
        self._since = since
        self._cursor: str | None = None
        self.entries: list[tuple[Key, str]] = []
        self.ended = False
        self.last = ""
        """The last version read."""

    async def read(self) -> None:
        """Read the next page."""
        scan: Scan = await self._scan(self._collection, limit=_INDEX_PAGE, since=self._since, cursor=self._cursor)
        self.entries += scan.entries
        self._cursor, self.ended = scan.cursor, scan.cursor is None
        if scan.entries:
            self.last = scan.entries[-1][1]

    def take(self, before: str | None) -> list[tuple[Key, str]]:
        """Take what comes before a version; None: all."""
        taken = [each for each in self.entries if before is None or each[1] < before]
        self.entries = self.entries[len(taken) :]
        return taken


def _version_at(seconds: float) -> str:
    """The least version of a moment, given in seconds since the epoch."""
    return f"{max(int(seconds * 1000), 0):012x}-0000-000000000000"


def moment(note: Mapping[str, Any]) -> datetime | None:
    """When the stores of a checkpoint were compared."""
    return datetime.fromtimestamp(note["at"], UTC) if note else None


def _quiet(report: Reconciliation) -> None:
    """Tell nobody."""
