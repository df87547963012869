"""Reads: documents by key, pages of lists, counts, and payloads out of chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError
from agno_clouddb.stores import codec
from agno_clouddb.stores.base import Cursor, Item, Key, Page, Query, Tally
from agno_clouddb.stores.firestore.client import Answers, Connection
from agno_clouddb.stores.firestore.documents import head_fields, snapshot_of
from agno_clouddb.stores.firestore.faults import Fault
from agno_clouddb.stores.firestore.indexes import indexes_for
from agno_clouddb.stores.firestore.names import Layout
from agno_clouddb.stores.firestore.queries import exact, structured
from agno_clouddb.stores.firestore.tokens import Snapshot, Tokens
from agno_clouddb.stores.query import add_tally

__all__ = ["Reader"]

T = TypeVar("T")

_KEYS_PER_REQUEST = 300
_CHUNKS_PER_REQUEST = 32
_CONCURRENT_REQUESTS = 8
_LARGEST_STEP = 300  # documents in one request of a list that is filtered here
_SCAN_STEP = 1000  # documents without payloads in one request


class Reader:
    """Reads items, and remembers the token of every document that it has seen.

    Args:
        connection: where requests go.
        layout: where the documents are.
        tokens: what was last seen of each document.
        name: the store's name, for errors.
        now: the wall clock in seconds since the epoch.
    """

    def __init__(
        self, connection: Connection, layout: Layout, tokens: Tokens, *, name: str, now: Callable[[], int]
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._tokens = tokens
        self._name = name
        self._now = now

    async def get(self, keys: Iterable[Key], until: float, *, dead: bool = False) -> dict[Key, Item]:
        """The live items under ``keys``, each with its payload; those not there are left out.

        Args:
            keys: each at least once.
            until: the deadline, in seconds of the event loop's clock.
            dead: also give tombstones and expired items, without what they have in chunks, which may expire first.
        """
        return await _untorn(lambda: self._get(list(dict.fromkeys(keys)), until, dead))

    async def _get(self, unique: list[Key], until: float, dead: bool) -> dict[Key, Item]:
        items: dict[Key, Item] = {}
        if len(unique) == 1:
            snapshot = await self._get_one(unique[0], until)
            if snapshot is None or not (dead or snapshot.item.live(self._now())):
                return items
            if not snapshot.chunks:
                return {unique[0]: snapshot.item}
            # Chunks need the moment of reading, which only the request for several documents tells.
        for some in await self._in_batches(unique, lambda keys: self._get_batch(keys, until, dead)):
            items |= some
        return items

    async def _get_batch(self, keys: Sequence[Key], until: float, dead: bool) -> dict[Key, Item]:
        try:
            snapshots, answers = await self._snapshots(keys, until)
        except Fault as fault:
            key = keys[0] if len(keys) == 1 else None
            raise fault.error(self._name, collection=keys[0].collection, key=key) from fault.cause
        now = self._now()
        live = [each for each in snapshots if each.item.live(now)]
        items = {each.item.key: each.item for each in snapshots} if dead else {}
        return items | {item.key: item for item in await self._with_payloads(live, answers, until)}

    async def _get_one(self, key: Key, until: float) -> Snapshot | None:
        try:
            document = await self._connection.get(self._layout.document(key), until)
        except Fault as fault:
            raise fault.error(self._name, key=key) from fault.cause
        if document is None:
            self._tokens.forget(key)
            return None
        return self._seen(document, key)

    async def heads(self, keys: Iterable[Key], until: float) -> dict[Key, Snapshot]:
        """What is stored under ``keys``, be it expired or a tombstone, without payloads.

        Raises:
            Fault: as it is, for a writer who knows what else has been met.
        """
        heads: dict[Key, Snapshot] = {}
        for some in await self._in_batches(list(keys), lambda batch: self._heads(batch, until)):
            heads |= some
        return heads

    async def _heads(self, keys: Sequence[Key], until: float) -> dict[Key, Snapshot]:
        mask = sorted({field for name in {key.collection for key in keys} for field in head_fields(name)})
        snapshots, _ = await self._snapshots(keys, until, mask=mask)
        return {each.item.key: each for each in snapshots}

    @staticmethod
    async def _in_batches(keys: Sequence[Key], read: Callable[[Sequence[Key]], Awaitable[T]]) -> list[T]:
        """What ``read`` gives for some hundreds of the keys at a time, several requests at once."""
        batches = [keys[start : start + _KEYS_PER_REQUEST] for start in range(0, len(keys), _KEYS_PER_REQUEST)]
        return await gather([partial(read, batch) for batch in batches], limit=_CONCURRENT_REQUESTS)

    async def _snapshots(
        self, keys: Sequence[Key], until: float, *, mask: Sequence[str] = ()
    ) -> tuple[list[Snapshot], Answers]:
        wanted = {self._layout.document(key): key for key in keys}
        answers = await self._connection.batch_get(list(wanted), until, mask=mask)
        snapshots = [self._seen(document, wanted[document.name]) for document in answers.documents]
        self._forget_missing(keys, snapshots)
        return snapshots, answers

    async def page(self, query: Query, limit: int, cursor: Cursor | None, until: float) -> Page:
        """One page of a list: one request when no filter is left to apply here, as many as it takes otherwise."""
        return await _untorn(lambda: self._page(query, limit, cursor, until))

    async def _page(self, query: Query, limit: int, cursor: Cursor | None, until: float) -> Page:
        items: list[Item] = []
        step, largest = limit, limit if exact(query) else max(limit, _LARGEST_STEP)
        while True:
            answers = await self._documents(query, step, cursor, until)
            snapshots = [self._seen(each, self._key(each, query)) for each in answers.documents]
            now = self._now()
            matching = [each for each in snapshots if query.matches(each.item, now)]
            taken = matching[: limit - len(items)]
            items += await self._with_payloads(taken, answers, until)
            if len(taken) < len(matching):
                return Page(tuple(items), query.place(items[-1]))
            if len(snapshots) < step:
                return Page(tuple(items))
            if len(items) == limit:
                return Page(tuple(items), query.place(items[-1]))
            cursor = query.place(snapshots[-1].item)
            step = min(step * 2, largest)

    async def count(self, query: Query, until: float) -> int:
        """How many items a query lists: counted by Firestore where it applies all filters, else here."""
        if not exact(query):
            return sum([len(items) async for items in self._scan(query, _fields_of(query), lambda: until)])
        parent = self._layout.parent(query.collection, query.parent)
        try:
            return await self._connection.count(parent, structured(query, self._layout), until)
        except Fault as fault:
            raise self._refused(query, fault) from fault.cause

    async def tally(self, query: Query, by: str, until: Callable[[], float]) -> dict[str, Tally]:
        """How many items a query lists for each value of ``by``, from the fields of its documents.

        Args:
            query: what to count.
            by: a field of the collection.
            until: the deadline of a request that is sent now.
        """
        tallies: dict[str, Tally] = {}
        async for items in self._scan(query, {by, *_fields_of(query)}, until):
            for item in items:
                if (value := item.fields.get(by)) is not None:
                    place = item.fields[query.sort]
                    add_tally(tallies, value, Tally(1, place, place))
        return tallies

    async def _scan(self, query: Query, fields: Iterable[str], until: Callable[[], float]) -> AsyncIterator[list[Item]]:
        """All items that a query lists, with these fields alone and without payloads, in lists of some hundreds."""
        mask = ["version", "expires_at", "deleted", *sorted(fields)]
        cursor: Cursor | None = None
        while True:
            answers = await self._documents(query, _SCAN_STEP, cursor, until(), mask=mask)
            items = [snapshot_of(each, self._key(each, query)).item for each in answers.documents]
            now = self._now()
            yield [item for item in items if query.matches(item, now)]
            if len(items) < _SCAN_STEP:
                return
            cursor = query.place(items[-1])

    async def _documents(
        self, query: Query, limit: int, cursor: Cursor | None, until: float, *, mask: Sequence[str] = ()
    ) -> Answers:
        parent = self._layout.parent(query.collection, query.parent)
        message = structured(query, self._layout, limit=limit, cursor=cursor, mask=mask)
        try:
            return await self._connection.run_query(parent, message, until)
        except Fault as fault:
            raise self._refused(query, fault) from fault.cause

    def _refused(self, query: Query, fault: Fault) -> CloudDBError:
        needed = " and ".join(map(str, indexes_for(query, self._layout.prefix)))
        return fault.error(self._name, collection=query.collection, index=needed)

    async def _with_payloads(self, snapshots: Sequence[Snapshot], answers: Answers, until: float) -> list[Item]:
        """The items of ``snapshots``, with the payloads that are in chunks.

        Chunks are read as of the moment at which their documents were, so that a write in between does not show. One at
        that very moment may: then the chunks are missing, and the read is torn.

        Raises:
            _Torn: not all chunks of a payload are there.
        """
        names = [
            self._layout.chunk(self._layout.document(each.item.key), each.item.version, number)
            for each in snapshots
            for number in range(each.chunks)
        ]
        chunks: dict[str, bytes] = {}
        for start in range(0, len(names), _CHUNKS_PER_REQUEST):
            chunks |= await self._chunks(names[start : start + _CHUNKS_PER_REQUEST], answers.read_time, until)
        return [self._with_payload(each, chunks) if each.chunks else each.item for each in snapshots]

    async def _chunks(self, names: list[str], read_time: Any, until: float) -> dict[str, bytes]:
        try:
            answers = await self._connection.batch_get(names, until, read_time=read_time)
        except Fault as fault:
            raise fault.error(self._name) from fault.cause
        return {each.name: each.fields["data"].bytes_value for each in answers.documents}

    def _with_payload(self, snapshot: Snapshot, chunks: dict[str, bytes]) -> Item:
        item = snapshot.item
        name = self._layout.document(item.key)
        parts = [chunks.get(self._layout.chunk(name, item.version, number)) for number in range(snapshot.chunks)]
        present = [each for each in parts if each is not None]
        if len(present) < len(parts):
            raise _Torn(
                f"{len(parts) - len(present)} of {len(parts)} chunks of version {item.version} are missing",
                store=self._name,
                key=item.key,
                remedy="Another program has deleted documents in the subcollection `chunks`; write the record anew",
            )
        return replace(item, data=codec.join(present))

    def _key(self, document: Any, query: Query) -> Key:
        return self._layout.key(document.name, query.collection, query.parent)

    def _seen(self, document: Any, key: Key) -> Snapshot:
        snapshot = snapshot_of(document, key)
        self._tokens.keep(snapshot)
        return snapshot

    def _forget_missing(self, keys: Iterable[Key], snapshots: Sequence[Snapshot]) -> None:
        found = {each.item.key for each in snapshots}
        for key in keys:
            if key not in found:
                self._tokens.forget(key)


class _Torn(CloudDBError):
    """Chunks are missing: those of a version that was replaced while it was read, or for good."""


async def _untorn(read: Callable[[], Awaitable[T]]) -> T:
    """Read again while what was read is torn, unless the same chunks are missing twice."""
    missing: str | None = None
    while True:
        try:
            return await read()
        except _Torn as torn:
            if str(torn) == missing:
                raise
            missing = str(torn)


def _fields_of(query: Query) -> set[str]:
    """The fields that a query looks at."""
    ranged = (each.field for each in query.ranges)
    return {query.sort, *query.equals, *query.any_of, *query.contains, *ranged}
