"""Replicas: what each store of a fan-out holds under a key, and making them hold the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import anyio

from agno_clouddb.concurrency import gather_outcomes
from agno_clouddb.errors import CloudDBError, NotProvisioned, StoreUnavailable
from agno_clouddb.fanout.circuit import CircuitStore, insisting
from agno_clouddb.fanout.failures import CALLERS_FAULT, OUTAGES
from agno_clouddb.fanout.hints import hint_key
from agno_clouddb.fanout.merge import newest
from agno_clouddb.fanout.tombstones import TOMBSTONE_SECONDS, tombstone
from agno_clouddb.stores.base import Consistency, Failed, Item, Key, Mutation, Put, Store
from agno_clouddb.stores.clock import just_after

__all__ = ["Copies", "Mended", "Replicas"]

T = TypeVar("T")

_MAX_RIVALRIES = 100_000

_Asked = dict[str, list[tuple["Copies", Key]]]


@dataclass(slots=True)
class Copies:
    """What the stores hold under one key.

    Args:
        key: the key.
        held: what each store holds that has answered, be it dead, by its name.
        removed: the version of a write that a hint tells of after which nothing was left; empty: there is none.
        complete: all stores have answered, and all hints that could tell of a removal were read.
        unread: why such a hint could not be read; None: all were.
    """

    key: Key
    held: dict[str, Item | None]
    removed: str = ""
    complete: bool = True
    unread: CloudDBError | None = None

    @property
    def newest(self) -> Item | None:
        """The item of the greatest version; where that was removed, a tombstone that has expired."""
        return self.newest_but("")

    def newest_but(self, version: str) -> Item | None:
        """The same, as if nobody held a version."""
        removed = Item(self.key, self.removed, expires_at=0, deleted=True) if self.removed else None
        held = (item for item in self.held.values() if item is not None and item.version != version)
        return newest((*held, removed))


@dataclass(slots=True)
class Mended:
    """What was found under one key, and done.

    Args:
        key: the key.
        missing: the stores that lacked what they are to hold.
        stale: the stores that held an older version, or what was to be removed.
        failed: the errors of the stores that could not be mended, by name.
        complete: all stores have answered, so that nothing newer is elsewhere.
        version: the newest version found, which all of ``answered`` hold now but those that have failed.
        answered: the stores that have answered.
        holders: those of them that held something, be it dead.
        deferred: a writer may be at it still; it is to be looked at again after ``Replicas.grace`` seconds.
    """

    key: Key
    missing: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    failed: dict[str, CloudDBError] = field(default_factory=dict)
    complete: bool = True
    version: str = ""
    answered: frozenset[str] = frozenset()
    holders: tuple[str, ...] = ()
    deferred: bool = False

    @property
    def mistake(self) -> CloudDBError | None:
        """What a store has failed with that is no outage, and is not gone when it is tried again; None: nothing."""
        return next((error for error in self.failed.values() if not isinstance(error, OUTAGES)), None)

    @property
    def differed(self) -> bool:
        """Whether the stores did not all hold what they are to hold."""
        return bool(self.missing or self.stale)

    def brought(self, name: str, version: str) -> bool:
        """Whether a store is sure to lack nothing of this key up to a version."""
        caught_up = self.complete or self.version >= version
        return name in self.answered and name not in self.failed and caught_up


class Replicas:
    """The stores of a fan-out, read and mended key by key.

    Args:
        stores: by name; the first is the primary.
        now: the wall clock in seconds since the epoch.
        grace: seconds after which no writer is at what it had begun before.
        retention: seconds that a tombstone is kept.
    """

    def __init__(
        self,
        stores: Mapping[str, CircuitStore],
        now: Callable[[], float],
        *,
        grace: float,
        retention: int = TOMBSTONE_SECONDS,
    ) -> None:
        self.stores = dict(stores)
        self.grace = grace
        """Seconds after which no writer is at what it had begun before."""
        self._now = now
        self._retention = retention
        self._rivalries: dict[Key, tuple[tuple[str, ...], float]] = {}

    @property
    def now(self) -> int:
        """Seconds since the epoch."""
        return int(self._now())

    def tombstone(self, key: Key, version: str) -> Item:
        """What a deletion of this version leaves that is made now."""
        return tombstone(key, version, self.now, self._retention)

    async def ask(
        self, call: Callable[[Store], Awaitable[T]], names: Collection[str] | None = None, *, needed: int = 1
    ) -> dict[str, T]:
        """What stores answer, by name, without those that fail.

        Args:
            call: what to ask a store.
            names: which stores; None: all.
            needed: how many must answer.

        Raises:
            CloudDBError: fewer answer: what the first of the others has failed with; or one has failed for the
                caller's mistake, or for want of a table.
        """
        asked = list(self.stores if names is None else names)
        answers = await self.gather(call, asked)
        alone = [name for name in asked if not self.stores[name].available]
        if names is None and alone and all(isinstance(each, CloudDBError) for each in answers.values()):
            with insisting():
                answers |= await self.gather(call, alone)
        errors = [each for each in answers.values() if isinstance(each, CloudDBError)]
        for error in errors:
            if isinstance(error, (*CALLERS_FAULT, NotProvisioned)):
                raise error
        if len(answers) - len(errors) < needed:
            raise errors[0]
        return {name: each for name, each in answers.items() if not isinstance(each, CloudDBError)}

    async def gather(
        self, call: Callable[[Store], Awaitable[T]], names: Collection[str]
    ) -> dict[str, T | CloudDBError]:
        """What stores answer to the same call, by name; what one raises stands in the place of its answer."""
        answers = await gather_outcomes([partial(call, self.stores[name]) for name in names])
        return dict(zip(names, answers, strict=True))

    async def copies(
        self,
        keys: Sequence[Key],
        *,
        consistency: Consistency = "strong",
        needed: int = 1,
    ) -> list[Copies]:
        """What stores hold under each key, in the order of the keys.

        Args:
            keys: which keys.
            consistency: as for ``Store.get``.
            needed: how many stores must answer.

        Raises:
            CloudDBError: fewer answer.
        """
        batches = await self.ask(lambda store: store.get(keys, consistency=consistency, dead=True), needed=needed)
        complete = len(batches) == len(self.stores)
        found = [
            Copies(key, {name: batch.items[place] for name, batch in batches.items()}, complete=complete)
            for place, key in enumerate(keys)
        ]
        await self.trace_removals(found)
        return found

    async def trace_removals(self, found: Iterable[Copies]) -> None:
        """Find out by hints whether what one store holds, and another one lacks, was removed there.

        A store that has nothing under a key may have missed its creation; or its tombstone has been removed when its
        time had come, and the other has missed the deletion.
        """
        now, asked, suspects = self.now, _Asked(), list[tuple[Copies, list[str]]]()
        for each in found:
            lacking = [name for name, item in each.held.items() if item is None]
            holders = [name for name, item in each.held.items() if item is not None and item.live(now)]
            if lacking and holders:
                suspects.append((each, holders))
            for store in lacking if holders else ():
                asked.setdefault(store, []).extend(
                    (each, hint_key(holder, each.key, certain=True)) for holder in holders
                )
        told: dict[Key, dict[str, str]] = {}
        async for each, name, hint in self._read(asked):
            if hint is not None:
                versions = told.setdefault(each.key, {})
                versions[name] = max(hint.version, versions.get(name, ""))
        # Both may have changed since they were read: a hint is kept after its write was stored, and removed once the
        # other store has caught up. So the one is looked at again where there is a hint, and the other where not.
        again = _Asked()
        for each, holders in suspects:
            for name in () if each.unread is not None else (told.get(each.key) or holders):
                again.setdefault(name, []).append((each, each.key))
        async for each, name, item in self._read(again):
            each.held[name] = item
            if item is None and name in told.get(each.key, {}):
                each.removed = max(each.removed, told[each.key][name])

    async def _read(self, asked: _Asked) -> AsyncIterator[tuple[Copies, str, Item | None]]:
        """What stores hold under the keys that each of them is asked for; what is not answered is noted."""
        calls = [partial(self.stores[name].get, [key for _, key in keys], dead=True) for name, keys in asked.items()]
        for (name, keys), answer in zip(asked.items(), await gather_outcomes(calls), strict=True):
            for place, (each, _) in enumerate(keys):
                if isinstance(answer, CloudDBError):
                    each.complete, each.unread = False, answer
                else:
                    yield each, name, answer.items[place]

    async def settle(self, found: Sequence[Copies], *, dry_run: bool = False) -> list[Mended]:
        """Make the stores that were read hold the newest of what was found; see ``Portions.mend``.

        Args:
            found: what they hold, each key once.
            dry_run: only say what would be done.
        """
        mended = [Mended(each.key, complete=each.complete) for each in found]
        writes: dict[str, list[tuple[Mended, Mutation]]] = {}
        taken_over = await self._taken_over(found)
        for each, result in zip(found, mended, strict=True):
            top, result.answered = self._lasting(each), frozenset(each.held)
            result.holders = tuple(name for name, item in each.held.items() if item is not None)
            if top is None:
                continue
            result.version = top.version
            counts = taken_over.get(each.key)
            result.deferred = each.key in taken_over and counts is None
            back = self._put_back(counts, top) if counts is not None else {}
            for name, item in each.held.items():
                mutation = back[name] if back else _correction(top, item)
                if mutation is None:
                    continue
                (result.missing if item is None else result.stale).append(name)
                if each.unread is not None or result.deferred:
                    # What looks like the newest may have been removed, or may be about to be.
                    result.failed[name] = each.unread or StoreUnavailable("it is being written", key=each.key)
                else:
                    writes.setdefault(name, []).append((result, mutation))
        if not dry_run:
            await self._write(writes)
        return mended

    async def _taken_over(self, found: Sequence[Copies]) -> dict[Key, Item | None]:
        """The keys whose newest copy should not be, since it belongs to another user than what it replaces.

        A store that has missed a record lets another user take its id, where the stores that have it forbid it. The
        writer undoes that; whoever compares the stores must not spread it meanwhile, and undoes it when the writer has
        died. It is told from a record that was deleted and made anew by another user, which the store with the older
        copy has missed, by the hint of what was missed.

        Returns:
            What counts of each of them; None while a writer may be at it still.
        """
        rivals = {each.key: rivals for each in found if (rivals := self._rivals(each))}
        asked = _Asked()
        for each in found:
            for holder in rivals.get(each.key, ()):
                hints = [(each, hint_key(holder, each.key, certain=certain)) for certain in (True, False)]
                for name in (name for name in each.held if name not in rivals[each.key]):
                    asked.setdefault(name, []).extend(hints)
        late: dict[Key, str] = {}
        async for each, _, hint in self._read(dict(sorted(asked.items()))):
            if hint is not None:
                late[each.key] = max(hint.version, late.get(each.key, ""))
        taken_over: dict[Key, Item | None] = {}
        for each in found:
            item = newest(rivals.get(each.key, {}).values())
            if item is None or item.version < late.get(each.key, ""):
                self._rivalries.pop(each.key, None)
            else:
                taken_over[each.key] = item if self._lasts(each) else None
        return taken_over

    def _rivals(self, copies: Copies) -> dict[str, Item]:
        """What stores hold that belongs to another user than the newest copy."""
        top = copies.newest
        if top is None or top.owner is None or not top.live(self.now):
            return {}
        live = {name: item for name, item in copies.held.items() if item is not None and item.live(self.now)}
        return {name: item for name, item in live.items() if item.owner not in (None, top.owner)}

    def _lasts(self, copies: Copies) -> bool:
        """Whether stores have differed for so long that no writer is at it any more."""
        versions = tuple(item.version if item is not None else "" for item in copies.held.values())
        seen, since = self._rivalries.get(copies.key, ((), 0.0))
        if seen != versions:
            if len(self._rivalries) >= _MAX_RIVALRIES:
                del self._rivalries[next(iter(self._rivalries))]
            self._rivalries[copies.key] = (versions, anyio.current_time())
            return False
        return anyio.current_time() - since >= self.grace

    def _put_back(self, item: Item, top: Item) -> dict[str, Mutation]:
        """What puts an item back on all stores, over a newer copy that should not be."""
        back = replace(item, version=just_after(top.version, item.version))
        return {name: Put(back) for name in self.stores}

    def needs_mending(self, copies: Copies) -> bool:
        """Whether ``settle`` would write anything."""
        top = self._lasting(copies)
        return top is not None and any(_correction(top, item) is not None for item in copies.held.values())

    def _lasting(self, copies: Copies) -> Item | None:
        """What all stores are to hold; None: what they do.

        Where the newest was removed or has expired, and a store holds an older copy still, that is a tombstone: so that
        an even older copy that is on its way to a store does not come back either.
        """
        top = copies.newest
        if top is None or top.live(self.now) or (top.deleted and (top.expires_at or 0) > self.now):
            return top
        held = copies.held.values()
        left = any(item is not None and item.live(self.now) and item.version < top.version for item in held)
        return self.tombstone(top.key, top.version) if left else None

    async def _write(self, writes: Mapping[str, Sequence[tuple[Mended, Mutation]]]) -> None:
        calls = [partial(self.stores[name].write, [each for _, each in pairs]) for name, pairs in writes.items()]
        for (name, pairs), answer in zip(writes.items(), await gather_outcomes(calls), strict=True):
            for place, (result, _) in enumerate(pairs):
                outcome = Failed(answer) if isinstance(answer, CloudDBError) else answer[place]
                if isinstance(outcome, Failed):
                    result.failed[name] = outcome.error


def _correction(top: Item, item: Item | None) -> Mutation | None:
    """What makes a store right that holds ``item`` when ``top`` is what it is to hold; None when it does."""
    return Put(top) if item is None or item.version < top.version else None
