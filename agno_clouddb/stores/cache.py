"""CachingStore: answers reads that may lag from what was read a short while ago.

Only reads that ask for ``eventual`` are answered from memory. What a repository reads in order to write it asks for as
``strong``, and a fan-out's coordinator is below the cache: neither meets a cached answer. What is kept was read
strongly, since the answer of a replica that lags would hide the Database's own writes for as long as it is kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from sys import getsizeof

from agno_clouddb.errors import ConfigurationError
from agno_clouddb.stores.base import Batch, Consistency, Cursor, Item, Key, Mutation, Outcome, Page, Query, Store
from agno_clouddb.stores.clock import epoch_seconds
from agno_clouddb.stores.wrapper import WrapperStore

__all__ = ["CacheStats", "CachingStore", "ReadCache"]

# Bytes of the objects around texts and payloads, as tracemalloc shows them; tests/unit/test_cache.py holds them to it.
_ANSWER_BYTES = 350
_ITEM_BYTES = 500
_FIELD_BYTES = 60
_PAGE_BYTES = 1_000

_SETTLING = 2.0
"""Seconds after a write of this Database for which lists of its collection are not kept. The indexes of DynamoDB lag,
as a rule by less than a second, and what such a list misses would be missed for as long as it is kept."""


@dataclass(frozen=True, slots=True)
class ReadCache:
    """What is kept in memory of what was read, for reads with ``consistency="eventual"``; see docs/read-cache.md.

    Args:
        seconds: how old an answer may be, from the moment that it was asked for.
        max_bytes: the most memory that answers take. The one that was not used for the longest time goes first.

    Raises:
        ConfigurationError: a value is no number over 0.
    """

    seconds: float
    max_bytes: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        if not _is_positive(self.seconds):
            raise ConfigurationError(
                f"seconds of ReadCache is {self.seconds!r}, not a number of seconds over 0",
                remedy="Say how old an answer may be, such as ReadCache(seconds=5); without a cache, leave `cache` out",
            )
        if not (isinstance(self.max_bytes, int) and _is_positive(self.max_bytes)):
            raise ConfigurationError(
                f"max_bytes of ReadCache is {self.max_bytes!r}, not a whole number of bytes over 0",
                remedy="Say how much memory it may take, such as max_bytes=32 * 1024 * 1024",
            )


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a read cache has done since its Database was made, and what it holds.

    Args:
        hits: records and pages that were answered from memory.
        misses: records and pages that might have been, and were asked of the store.
        bytes: about how much memory the answers take.
        entries: how many answers there are.
    """

    hits: int
    misses: int
    bytes: int
    entries: int


class CachingStore(WrapperStore):
    """Keeps items by key, and pages of lists, for reads with ``consistency="eventual"``.

    A write through this store makes it forget what it wrote, and all pages of the collection, or of the parent of
    children; both before it is sent and after it has ended. A read that was on its way then is not kept. Neither is a
    degraded one. Counts, tallies and scans are asked of the store.

    Args:
        inner: the store to wrap; it is opened and closed with the wrapper.
        options: how long, and how much.
        now: the wall clock in seconds since the epoch, by which records expire.
    """

    def __init__(self, inner: Store, options: ReadCache, *, now: Callable[[], int] = epoch_seconds) -> None:
        super().__init__(inner)
        self._answers = _Answers(options)
        self._now = now
        self._flights: dict[Hashable, set[_Flight]] = {}
        self._written: dict[str, float] = {}
        self._hits = 0
        self._misses = 0

    @property
    def stats(self) -> CacheStats:
        """What it has done, and what it holds."""
        return CacheStats(self._hits, self._misses, self._answers.bytes, len(self._answers))

    async def aclose(self) -> None:
        self._answers.clear()
        await super().aclose()

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        if dead:
            return await super().get(keys, consistency=consistency, dead=True)
        for key in keys:
            key.check()
        lax = consistency == "eventual"
        found = self._kept_items(keys) if lax else {}
        asked = list(dict.fromkeys(key for key in keys if key not in found))
        if not asked and keys:
            return Batch(tuple(found[key] for key in keys))
        with self._flight(asked) as flight:
            batch = await super().get(asked)
        for key, item in zip(asked, batch.items, strict=True):
            found[key] = item
            if not batch.degraded and key not in flight.spoilt and (lax or key in self._answers):
                self._answers.keep(key, _Answer(item, _ANSWER_BYTES + _size_of(key, item), flight.began))
        return Batch(tuple(found[key] for key in keys), batch.degraded)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        query.check(limit)
        place = _Place.of(query, limit, cursor)
        lax = consistency == "eventual"
        if lax and (page := self._kept_page(place)) is not None:
            return page
        with self._flight([place.scope]) as flight:
            page = await super().query(query, limit=limit, cursor=cursor)
        settled = flight.began - self._written.get(query.collection, float("-inf")) >= _SETTLING
        if not page.degraded and settled and not flight.spoilt and (lax or place in self._answers):
            size = sum(_size_of(item.key, item) for item in page.items)
            asked = _PAGE_BYTES + 2 * getsizeof(query.scope)
            self._answers.keep(place, _Answer(page, _ANSWER_BYTES + asked + size, flight.began))
        return page

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        self._forget(mutations)
        try:
            return await super().write(mutations, atomic=atomic)
        finally:
            self._forget(mutations)

    def _kept_items(self, keys: Iterable[Key]) -> dict[Key, Item | None]:
        found: dict[Key, Item | None] = {}
        for key in dict.fromkeys(keys):
            answer = self._answers.find(key)
            if answer is not None and self._is_live(item := answer.item):
                found[key] = item
                self._hits += 1
            else:
                self._misses += 1
        return found

    def _kept_page(self, place: _Place) -> Page | None:
        answer = self._answers.find(place)
        if answer is not None and all(map(self._is_live, answer.page.items)):
            self._hits += 1
            return answer.page
        self._misses += 1
        return None

    def _is_live(self, item: Item | None) -> bool:
        return item is None or item.live(self._now())

    @contextmanager
    def _flight(self, places: Sequence[Hashable]) -> Iterator[_Flight]:
        """A block in which something is read, which learns what is written meanwhile."""
        flight = _Flight(_clock())
        for place in places:
            self._flights.setdefault(place, set()).add(flight)
        try:
            yield flight
        finally:
            for place in places:
                others = self._flights[place]
                others.discard(flight)
                if not others:
                    del self._flights[place]

    def _forget(self, mutations: Iterable[Mutation]) -> None:
        for mutation in mutations:
            key = mutation.key
            key.check()
            scope = (key.collection, key.parent)
            self._answers.drop(key)
            self._answers.drop_pages(scope)
            for place in (key, scope):
                for flight in self._flights.get(place, ()):
                    flight.spoilt.add(place)
            if key.parent is None:  # the lists of children are by their own partition, which does not lag
                self._written[key.collection] = _clock()


@dataclass(frozen=True, slots=True)
class _Place:
    """Which page of which list."""

    scope: tuple[str, str | None]
    rest: Hashable

    @classmethod
    def of(cls, query: Query, limit: int, cursor: Cursor | None) -> _Place:
        narrowed = tuple(tuple(sorted(each.items())) for each in (query.equals, query.any_of, query.contains))
        rest = (query.sort, query.descending, narrowed, query.ranges, limit, cursor)
        return cls((query.collection, query.parent), rest)


@dataclass(eq=False, slots=True)
class _Flight:
    """A read on its way: when it was begun, and which of what it reads has been written since."""

    began: float
    spoilt: set[Hashable] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a store has answered, about how much memory that takes, and when it was asked."""

    value: Item | Page | None
    size: int
    began: float

    @property
    def item(self) -> Item | None:
        assert not isinstance(self.value, Page)
        return self.value

    @property
    def page(self) -> Page:
        assert isinstance(self.value, Page)
        return self.value


class _Answers:
    """Answers by what was asked, of a limited age and in limited memory."""

    def __init__(self, options: ReadCache) -> None:
        self._options = options
        self._by_place: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._pages: dict[tuple[str, str | None], set[_Place]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_place)

    def __contains__(self, place: Hashable) -> bool:
        return place in self._by_place

    def find(self, place: Hashable) -> _Answer | None:
        """An answer that is not too old, which has been used by that."""
        answer = self._by_place.get(place)
        if answer is None:
            return None
        if _clock() - answer.began >= self._options.seconds:
            self.drop(place)
            return None
        self._by_place.move_to_end(place)
        return answer

    def keep(self, place: Hashable, answer: _Answer) -> None:
        """Keep an answer, unless one that was asked for later is there, or it would not fit."""
        before = self._by_place.get(place)
        if before is not None and before.began > answer.began:
            return
        self.drop(place)
        if answer.size > self._options.max_bytes:
            return
        self._by_place[place] = answer
        self.bytes += answer.size
        if isinstance(place, _Place):
            self._pages.setdefault(place.scope, set()).add(place)
        while self.bytes > self._options.max_bytes:
            self.drop(next(iter(self._by_place)))

    def drop(self, place: Hashable) -> None:
        """Forget one answer, if it is there."""
        answer = self._by_place.pop(place, None)
        if answer is None:
            return
        self.bytes -= answer.size
        if isinstance(place, _Place):
            pages = self._pages[place.scope]
            pages.discard(place)
            if not pages:
                del self._pages[place.scope]

    def drop_pages(self, scope: tuple[str, str | None]) -> None:
        """Forget all pages of a collection, or of the children of one parent."""
        for place in list(self._pages.get(scope, ())):
            self.drop(place)

    def clear(self) -> None:
        """Forget everything."""
        self._by_place.clear()
        self._pages.clear()
        self.bytes = 0


def _size_of(key: Key, item: Item | None) -> int:
    """About how much memory an item takes; texts take up to four bytes a character there."""
    size = getsizeof(key.id) + (getsizeof(key.parent) if key.parent is not None else 0)
    if item is None:
        return size
    fields = sum(_FIELD_BYTES + getsizeof(value) for value in item.fields.values())
    return size + _ITEM_BYTES + getsizeof(item.data) + fields


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _is_positive(value: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
