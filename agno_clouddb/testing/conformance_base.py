"""What the cases of the conformance suite share: the factory of stores, items that keep apart, and comparisons."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import ClassVar

import pytest
import pytest_asyncio

from agno_clouddb.stores.base import (
    Consistency,
    Cursor,
    Delete,
    Item,
    Key,
    Mutation,
    Outcome,
    Page,
    Payload,
    Put,
    Query,
    Refused,
    Store,
    Stored,
    Tally,
)
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.schema import OWNER

__all__ = ["FAR_FUTURE", "LONG_PAST", "ConformanceBase", "Samples", "stamp"]

LONG_PAST = 1
"""An expiry, in seconds since the epoch, that has passed on any machine."""

FAR_FUTURE = 4_102_444_800
"""An expiry in the year 2100."""


def stamp(number: int, writer: str = "0000000000aa") -> str:
    """A version stamp; a greater number is newer."""
    return f"{number:012x}-0000-{writer}"


class Samples:
    """Makes keys and items of one test, which no other test on the same store meets."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(5)

    def key(self, name: str = "") -> Key:
        """The key of a session."""
        return Key("sessions", self.token + name)

    def child(self, name: str, parent: str = "") -> Key:
        """The key of a run."""
        return Key("runs", name, self.token + parent)

    def item(
        self,
        name: str = "",
        version: int = 1,
        *,
        data: Payload = '{"x":1}',
        owner: str | None = None,
        created: str = "2024",
        expires_at: int | None = None,
        deleted: bool = False,
        **fields: str,
    ) -> Item:
        """A session. The values of ``component_id`` and ``created_at`` are this test's own."""
        given = {"session_type": "agent", "component_id": self.token, "created_at": self.token + created, **fields}
        if owner is not None:
            given[OWNER] = owner
        return Item(self.key(name), stamp(version), given, data, expires_at, deleted)

    def run(self, name: str, index: int, version: int = 1, *, parent: str = "", data: Payload = "{}") -> Item:
        """A run."""
        return Item(self.child(name, parent), stamp(version), {"run_index": f"{index:08d}"}, data)

    def query(self, **equals: str) -> Query:
        """This test's sessions in order of ``created_at``."""
        return Query("sessions", "created_at", equals={"component_id": self.token, **equals})

    def runs(self, parent: str = "") -> Query:
        """The runs of one parent, in order."""
        return Query("runs", "run_index", parent=self.token + parent)


def plain(item: Item | None) -> tuple[object, ...] | None:
    """An item as values that compare equal, and print short, whatever types a store made it of."""
    if item is None:
        return None
    data: object = item.data
    if item.size > 200:
        raw = item.data.encode() if isinstance(item.data, str) else item.data
        data = (type(item.data).__name__, len(raw), hashlib.sha256(raw).hexdigest())
    return item.key, item.version, dict(item.fields), data, item.expires_at, item.deleted


def plain_outcome(outcome: Outcome) -> tuple[object, ...]:
    """An outcome as values that compare equal; what was found beside an ``atomic`` refusal is left out."""
    if isinstance(outcome, Stored):
        return "stored", outcome.version
    if isinstance(outcome, Refused):
        found = () if outcome.reason == "atomic" else (outcome.version, dict(outcome.fields))
        return ("refused", outcome.reason, *found)
    return "failed", type(outcome.error).__name__, outcome.applied


async def one(store: Store, key: Key) -> Item | None:
    """The item under one key."""
    batch = await store.get([key])
    assert len(batch.items) == 1
    return batch.items[0]


async def only(store: Store, mutation: Mutation, *, atomic: bool = False) -> Outcome:
    """The outcome of one mutation."""
    outcomes = await store.write([mutation], atomic=atomic)
    assert len(outcomes) == 1
    return outcomes[0]


async def fill(store: Store, items: Iterable[Item]) -> None:
    """Put items, all of which must be stored."""
    puts = [Put(item) for item in items]
    assert list(await store.write(puts)) == [Stored(put.version) for put in puts]


async def expect(store: Store, items: Mapping[Key, Item | None], *, dead: bool = False) -> None:
    """Hold what is stored under some keys against what should be, with ``dead`` also what counts as absent."""
    batch = await store.get(list(items), dead=dead)
    assert not batch.degraded
    assert [plain(item) for item in batch.items] == [plain(item) for item in items.values()]


async def stored_version(store: Store, key: Key) -> str | None:
    """The version stored under a key, be it expired or a tombstone: a probe that bypasses reading.

    A put older than everything is refused with the version found. Where nothing is stored, it is stored and removed.
    """
    outcome = await only(store, Put(Item(key, stamp(0))))
    if isinstance(outcome, Refused):
        assert outcome.reason == "older"
        return outcome.version
    assert outcome == Stored(stamp(0))
    assert await only(store, Delete(key, stamp(1))) == Stored(stamp(1))
    return None


async def walk(
    store: Store, query: Query, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
) -> list[Item]:
    """All items of a list, page by page. A page that is not full must be the last with items.

    A store that cannot know whether it is at the end may answer a cursor that leads to one empty page.
    """
    listed: list[Item] = []
    seen: set[Key] = set()
    while True:
        page = await store.query(query, limit=limit, cursor=cursor, consistency=consistency)
        check_page(page, query, limit, cursor)
        keys = {item.key for item in page.items}
        assert len(keys) == len(page.items), "an item is twice on one page"
        assert not keys & seen, "an item is on two pages"
        seen |= keys
        listed += page.items
        if page.cursor is None:
            return listed
        assert page.items, "an empty page carries a cursor"
        if len(page.items) < limit:
            rest = await store.query(query, limit=limit, cursor=page.cursor, consistency=consistency)
            assert not rest.items, "a page was not full although there was more"
            return listed
        cursor = page.cursor


def check_page(page: Page, query: Query, limit: int, cursor: Cursor | None) -> None:
    """What holds of every page."""
    assert len(page.items) <= limit
    assert not page.degraded
    assert all(query.after(item, cursor) for item in page.items), "an item is from before the cursor"
    if page.cursor is not None and page.items:
        assert page.cursor == query.place(page.items[-1])


def tally_of(items: Iterable[Item], query: Query, by: str) -> dict[str, Tally]:
    """What a tally of these items is, all of which the query lists."""
    places: dict[str, list[str]] = {}
    for item in items:
        if by in item.fields:
            places.setdefault(item.fields[by], []).append(item.fields[query.sort])
    return {value: Tally(len(each), min(each), max(each)) for value, each in places.items()}


def check_tally(found: Mapping[str, Tally], live: Mapping[str, Tally], expired: Mapping[str, Tally]) -> None:
    """A tally must have what is live, and may have what has expired and is not removed yet."""
    assert live.keys() <= found.keys() <= live.keys() | expired.keys()
    for value, each in found.items():
        parts = [part[value] for part in (live, expired) if value in part]
        most = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        least = live.get(value)
        assert each.count <= most.count, value
        assert most.first <= each.first <= each.last <= most.last, value
        if least is not None:
            assert least.count <= each.count, value
            assert each.first <= least.first <= least.last <= each.last, value


def ids(items: Sequence[Item]) -> list[str]:
    """The ids of items, in their order."""
    return [item.key.id for item in items]


class ConformanceBase:
    """The factory of stores and the fixtures of the suite."""

    pytestmark = pytest.mark.asyncio(loop_scope="class")

    collections: ClassVar[Collection[str]] = ("sessions", "runs")
    """What the stores of most cases have provisioned."""

    needs_provision: ClassVar[bool] = True
    """Whether a call before ``provision`` is to fail with NotProvisioned; False where the store has no such notion."""

    async def make_store(self) -> Store:
        """A new store, neither open nor provisioned, in a namespace which holds nothing and which no other store has.

        Called in the event loop that the store is used in.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement make_store")

    async def reopen(self, store: Store) -> Store | None:
        """Another store object, not open, over the namespace of ``store``; None where nothing outlives the object."""
        return None

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def store(cls) -> AsyncIterator[Store]:
        """A store with ``collections`` provisioned, which the cases share; ``samples`` keep them apart."""
        async with await cls().make_store() as store:
            await store.provision(cls.collections)
            yield store

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def full(cls, store: Store) -> Store:
        """The same store with every collection provisioned, also that of a fan-out."""
        await store.provision(replicated=True)
        return store

    @pytest_asyncio.fixture(loop_scope="class")
    async def fresh(self) -> AsyncIterator[Store]:
        """A store of one case alone with ``collections`` provisioned, which holds nothing."""
        async with await self.make_store() as store:
            await store.provision(self.collections)
            yield store

    @pytest_asyncio.fixture(loop_scope="class")
    async def model(self) -> AsyncIterator[Store]:
        """The reference model, provisioned and empty."""
        async with MemoryStore() as store:
            await store.provision()
            yield store

    @pytest.fixture
    def samples(self) -> Samples:
        return Samples()
