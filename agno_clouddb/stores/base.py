"""The port between repositories and clouds: a Store keeps Items in Collections.

A repository never knows which cloud it is on, a store never knows what a session is, and the fan-out coordinator is a
store like any other. The port is narrow on purpose: there are no partial updates and no increments, so that every
store and every replica always sees whole items with versions.

The rule that makes retries, replays and reordering harmless: *a store applies a write only when its version is newer
than the version it holds*. Conditions come on top of that rule, never instead of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from agno_clouddb.errors import CloudDBError, InvalidRecord, RecordTooLarge
from agno_clouddb.stores.schema import COLLECTIONS, OWNER, Index, collection

__all__ = [
    "MAX_ID_BYTES",
    "Batch",
    "Condition",
    "Consistency",
    "Cursor",
    "Delete",
    "Failed",
    "Item",
    "Key",
    "Limits",
    "Mutation",
    "Outcome",
    "Page",
    "Payload",
    "Put",
    "Query",
    "Range",
    "Refused",
    "Store",
    "Stored",
    "decide",
]

Consistency = Literal["strong", "eventual"]
"""``strong``: a read sees every write acknowledged before it began. ``eventual``: it may lag, and costs less."""

Payload = str | bytes
"""JSON as text, or the same compressed; see ``stores/codec.py``."""

MAX_ID_BYTES = 512
"""The longest id, in bytes of UTF-8. Sort keys of DynamoDB hold 1,024 bytes and must fit a sort value and an id;
document ids of Firestore hold 1,500 and escaping may double an id's length."""

_CONTROL = re.compile("[\x00-\x1f\x7f]")


def is_encodable(text: str) -> bool:
    """Whether text has an encoding in UTF-8, as it has unless it contains lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_id(path: str, value: object, collection_name: str) -> None:
    if not isinstance(value, str):
        raise InvalidRecord(path, f"must be text, not {type(value).__name__}", collection=collection_name)
    if not value:
        raise InvalidRecord(path, "must not be empty", collection=collection_name)
    if _CONTROL.search(value):
        raise InvalidRecord(path, "must not contain control characters", collection=collection_name)
    if not is_encodable(value):
        raise InvalidRecord(path, "must not contain lone surrogates", collection=collection_name)
    size = len(value.encode())
    if size > MAX_ID_BYTES:
        raise InvalidRecord(path, f"is {size} bytes long, over the limit of {MAX_ID_BYTES}", collection=collection_name)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Where an item lives.

    Args:
        collection: a name in ``schema.COLLECTIONS``.
        id: unique in the collection or, for children, under their parent. Any text without control characters, of
            1 to 512 bytes in UTF-8.
        parent: the parent's id, for collections that have a parent; None for others. As limited as ``id``.
    """

    collection: str
    id: str
    parent: str | None = None

    def __str__(self) -> str:
        return f"{self.collection}/{self.id}" if self.parent is None else f"{self.collection}/{self.parent}/{self.id}"

    def check(self) -> None:
        """Raise InvalidRecord, naming the field, unless every store can hold this key."""
        if self.collection not in COLLECTIONS:
            raise InvalidRecord("collection", f"{self.collection!r} is not one of {sorted(COLLECTIONS)}")
        declared = collection(self.collection)
        _check_id(declared.id_field, self.id, self.collection)
        if declared.parent_field is not None:
            _check_id(declared.parent_field, self.parent, self.collection)
        elif self.parent is not None:
            raise InvalidRecord("parent", f"{self.collection} have no parent", collection=self.collection)


@dataclass(frozen=True, slots=True)
class Item:
    """A record as a store sees it.

    Args:
        key: where it lives.
        version: a stamp of ``stores/clock.py``; a later write has a greater one.
        fields: what an index or a filter needs, as text; names are those declared in the schema.
        data: the payload, opaque to stores.
        expires_at: seconds since the epoch from which the item counts as absent; None: never.
        deleted: a tombstone, which counts as absent: a fan-out keeps it so that the deleted item does not come back.
    """

    key: Key
    version: str
    fields: Mapping[str, str] = field(default_factory=dict)
    data: Payload = ""
    expires_at: int | None = None
    deleted: bool = False

    @property
    def owner(self) -> str | None:
        """The user whom the item belongs to."""
        return self.fields.get(OWNER)

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return len(self.data) if isinstance(self.data, bytes) or self.data.isascii() else len(self.data.encode())

    def live(self, now: int) -> bool:
        """Whether the item counts as present at ``now``, in seconds since the epoch."""
        return not self.deleted and (self.expires_at is None or self.expires_at > now)

    def check(self) -> None:
        """Raise InvalidRecord, naming the field, unless every store can hold this item's key and fields."""
        self.key.check()
        declared = collection(self.key.collection)
        for name, value in self.fields.items():
            if name not in declared.fields:
                raise InvalidRecord(name, f"is not a field of {declared.name}", collection=declared.name)
            if any(name in (index.partition, index.sort) for index in declared.indexes):
                _check_id(name, value, declared.name)
            elif not isinstance(value, str) or not is_encodable(value):
                raise InvalidRecord(name, "must be text without lone surrogates", collection=declared.name)


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of the stored item, beyond being older than the write.

    Args:
        absent: nothing is stored; a tombstone or an expired item counts as nothing.
        expected: an item is stored, and its version is this one or an older one (a replica that lags is no conflict).
        owner: the stored item, if any, belongs to this user. A put may also claim an item without an owner; a delete
            may not.
    """

    absent: bool = False
    expected: str | None = None
    owner: str | None = None


NEWER = Condition()
"""No condition but the rule of every write: newer than what is stored."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write the whole item, replacing what is stored under its key."""

    item: Item
    condition: Condition = NEWER

    @property
    def key(self) -> Key:
        return self.item.key

    @property
    def version(self) -> str:
        return self.item.version


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the item for good; refused as ``absent`` when nothing is stored.

    Args:
        key: the item's key.
        version: the stamp of the deletion; what is stored is removed only when it is older.
        condition: what must hold besides.
    """

    key: Key
    version: str
    condition: Condition = NEWER


Mutation = Put | Delete


@dataclass(frozen=True, slots=True)
class Stored:
    """The mutation stands: it was applied now, or this very version had been applied before."""

    version: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The condition did not hold and nothing was changed.

    Args:
        reason: ``older``: the stored version is newer than the write's. ``exists``: the item was to be absent.
            ``absent``: there is nothing to delete or to replace. ``version``: the stored version is newer than the
            expected one. ``owner``: the item belongs to another user. ``atomic``: another mutation of the same atomic
            write was refused or failed.
        version: the version found; None when nothing is stored.
        fields: the fields found.
    """

    reason: Literal["older", "exists", "absent", "version", "owner", "atomic"]
    version: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str | None:
        """The owner found."""
        return self.fields.get(OWNER)


@dataclass(frozen=True, slots=True)
class Failed:
    """The store did not carry the mutation out, or did not say that it did.

    Args:
        error: why.
        applied: True when it may have been applied all the same, as after a time-out; False when it surely was not.
    """

    error: CloudDBError
    applied: bool = False


Outcome = Stored | Refused | Failed


def decide(mutation: Mutation, found: Item | None, now: int) -> Stored | Refused | None:
    """What a mutation comes to against the item found under its key; None when it is to be applied.

    The one statement of the rules of this port: stores that can look at the stored item call it, and a store that
    sends a condition expression instead calls it to explain a refusal.

    Args:
        mutation: the write.
        found: what is stored under its key, be it expired or a tombstone; its payload is not looked at.
        now: seconds since the epoch, to tell what has expired.
    """
    live = found if found is not None and found.live(now) else None
    condition = mutation.condition
    if found is not None and found.version == mutation.version:
        return Stored(found.version)
    version, fields = (found.version, found.fields) if found is not None else (None, {})
    if live is not None and condition.owner not in (None, live.owner):
        claims = live.owner is None and isinstance(mutation, Put)
        if not claims:
            return Refused("owner", version, fields)
    if condition.absent and live is not None:
        return Refused("exists", version, fields)
    if live is None and (condition.expected is not None or isinstance(mutation, Delete)):
        return Refused("absent", version)
    if live is not None and condition.expected is not None and live.version > condition.expected:
        return Refused("version", version, fields)
    if version is not None and version > mutation.version:
        return Refused("older", version, fields)
    return None


@dataclass(frozen=True, slots=True)
class Batch:
    """The answer to ``get``.

    Args:
        items: in the order of the keys; None where nothing live is stored.
        degraded: True when a store of a fan-out did not answer, so that something newer may be missing.
    """

    items: tuple[Item | None, ...]
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an ordered list: after the item with this sort value and id. It means the same on every store."""

    value: str
    id: str

    def encode(self, query: Query) -> str:
        """An opaque text for callers, which also remembers what was listed and in which order."""
        text = json.dumps([query.scope, self.value, self.id], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, query: Query) -> Cursor:
        """The cursor in an opaque text.

        Raises:
            InvalidRecord: it was not made by ``encode``, or for another query.
        """
        try:
            scope, value, name = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, TypeError, binascii.Error):
            scope = value = name = None
        if not (isinstance(value, str) and isinstance(name, str)):
            raise InvalidRecord("cursor", "is not one that a page of this library carried", collection=query.collection)
        if scope != query.scope:
            raise InvalidRecord(
                "cursor",
                f"belongs to a list of {scope}, not of {query.scope}",
                collection=query.collection,
                remedy="Go on with the same filters and sort as on the page that the cursor came from",
            )
        return cls(value, name)


@dataclass(frozen=True, slots=True)
class Range:
    """Values of a field from ``low`` (inclusive) to ``high`` (exclusive); None leaves that side open."""

    field: str
    low: str | None = None
    high: str | None = None

    def matches(self, value: str | None) -> bool:
        if value is None:
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value < self.high)


@dataclass(frozen=True, slots=True)
class Query:
    """A list of live items of one collection, in order of (sort value, id), both the same way.

    Text is ordered by its UTF-8 bytes on every store.

    Args:
        collection: a name in ``schema.COLLECTIONS``.
        sort: the field that orders; items without it are not listed.
        descending: from the greatest to the least.
        parent: the parent's id; required where the collection has parents.
        equals: fields and the values that they must have.
        ranges: what fields must lie between.
        contains: fields and a text that they must contain, whatever its case (compared by ``str.casefold``).
    """

    collection: str
    sort: str
    descending: bool = False
    parent: str | None = None
    equals: Mapping[str, str] = field(default_factory=dict)
    ranges: tuple[Range, ...] = ()
    contains: Mapping[str, str] = field(default_factory=dict)

    @property
    def index(self) -> Index:
        """The index that serves this query.

        Raises:
            QueryNotIndexed: there is none.
        """
        return collection(self.collection).index_for(self.equals.keys(), self.sort)

    @property
    def sort_range(self) -> Range:
        """What the sort field must lie between: a part of the index query on every store."""
        lows = [each.low for each in self.ranges if each.field == self.sort and each.low is not None]
        highs = [each.high for each in self.ranges if each.field == self.sort and each.high is not None]
        return Range(self.sort, max(lows, default=None), min(highs, default=None))

    @property
    def scope(self) -> str:
        """What is listed, in words; a cursor is good only for the scope that it was made in."""
        parts = [self.collection] + ([self.parent] if self.parent is not None else [])
        parts += [f"{name}={value}" for name, value in sorted(self.equals.items())]
        parts += [f"{name}~{text}" for name, text in sorted(self.contains.items())]
        parts += [f"{each.low}<={each.field}<{each.high}" for each in sorted(self.ranges, key=lambda r: r.field)]
        return " ".join(parts) + f" by {'-' if self.descending else ''}{self.sort}"

    def check(self) -> None:
        """Raise InvalidRecord or QueryNotIndexed unless every store can answer this query."""
        if self.collection not in COLLECTIONS:
            raise InvalidRecord("collection", f"{self.collection!r} is not one of {sorted(COLLECTIONS)}")
        declared = collection(self.collection)
        if declared.parent_field is not None:
            _check_id(declared.parent_field, self.parent, self.collection)
        for name in (*self.equals, *self.contains, *(each.field for each in self.ranges)):
            if name not in declared.fields:
                raise InvalidRecord(name, f"is not a field of {declared.name}", collection=declared.name)
        for name, value in self.equals.items():
            _check_id(name, value, declared.name)
        _ = self.index

    def matches(self, item: Item, now: int) -> bool:
        """Whether the query lists this item, apart from its place in the order."""
        fields = item.fields
        return (
            item.live(now)
            and self.sort in fields
            and (self.parent is None or item.key.parent == self.parent)
            and all(fields.get(name) == value for name, value in self.equals.items())
            and all(each.matches(fields.get(each.field)) for each in self.ranges)
            and all(text.casefold() in fields.get(name, "").casefold() for name, text in self.contains.items())
        )

    def place(self, item: Item) -> Cursor:
        """The place of an item in this list."""
        return Cursor(item.fields[self.sort], item.key.id)

    def after(self, item: Item, cursor: Cursor | None) -> bool:
        """Whether an item comes after ``cursor`` in this list."""
        if cursor is None:
            return True
        place, limit = order_of(self.place(item)), order_of(cursor)
        return place < limit if self.descending else place > limit


def order_of(place: Cursor) -> tuple[bytes, bytes]:
    """What places are compared by, so that all stores agree: the bytes in UTF-8."""
    return place.value.encode(), place.id.encode()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Args:
        items: at most as many as were asked for, and as many as that while there are more.
        cursor: where the list goes on; None at its end. A store that cannot know the end without reading one item
            more than was asked for may give a cursor that leads to an empty page.
        degraded: True when a store of a fan-out did not answer, so that something may be missing.
    """

    items: tuple[Item, ...]
    cursor: Cursor | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What one store can take at once.

    Args:
        payload_bytes: the largest payload of one item, chunks included.
        atomic_items: the most mutations in one atomic write.
        atomic_bytes: the most bytes of payload in one atomic write.
    """

    payload_bytes: int
    atomic_items: int
    atomic_bytes: int


class Store(ABC):
    """Keeps items. One instance serves any number of concurrent tasks of the event loop that opened it.

    Nothing touches the network before ``open``. Methods raise only errors of ``agno_clouddb.errors``, with the
    driver's exception as the cause, and end within the store's deadline. A cancelled call leaves no task behind and
    the connections usable.
    """

    name: str
    """Says in error messages which store it is, such as ``dynamodb://eu-west-1``."""

    limits: Limits

    @abstractmethod
    async def open(self) -> None:
        """Connect.

        Raises:
            ConfigurationError: region, project or credentials are missing or malformed.
            StoreUnavailable: the embedded file cannot be opened. A service that does not answer is found by the
                first call, not here.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Give back connections and threads. Closing twice is harmless."""

    @abstractmethod
    async def provision(self) -> None:
        """Create the tables and indexes that are missing, and wait until they can be used. Safe to call always."""

    @abstractmethod
    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        """The items under ``keys``, in their order; None where nothing live is stored.

        Args:
            keys: any number; the store splits them into requests. Duplicates are allowed.
            consistency: ``strong`` by default.
            dead: also give tombstones and expired items that are still stored, by whose versions a coordinator tells
                what is newest. Nothing is promised of their payloads.

        Raises:
            InvalidRecord: a key no store can hold.
            NotProvisioned: a table is missing.
            Throttled, StoreUnavailable: not all keys were answered within the deadline; never a short success.
        """

    @abstractmethod
    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        """Carry mutations out and say what each came to, in their order. Strongly consistent.

        Args:
            mutations: each key at most once. Every mutation is carried out on its own, in no order, unless atomic.
            atomic: all or none; when one is refused or fails, the others answer ``Refused("atomic")``.

        Returns:
            One outcome a mutation. What the service refuses or fails to do is an outcome, not an exception: a
            missing table is ``Failed(NotProvisioned)``, a payload over the limit ``Failed(RecordTooLarge)`` with
            nothing written, a time-out ``Failed(StoreUnavailable, applied=True)``.

        Raises:
            InvalidRecord: a key or field no store can hold, a key given twice, or more in one atomic write than
                ``limits`` allows. Nothing was written.
        """

    @abstractmethod
    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        """One page of a list. Full while there is more; what is listed is as stored, never a stale copy.

        On DynamoDB an item may be missing from a list by another index than its own partition's for the moments that
        the service's index lags, whatever the consistency.

        Args:
            query: what to list and in which order.
            limit: the most items, at least 1.
            cursor: go on after this place.
            consistency: ``strong`` by default.

        Raises:
            InvalidRecord, QueryNotIndexed: the query names unknown fields, or no index serves it.
            NotProvisioned, Throttled, StoreUnavailable: as in ``get``.
        """

    @abstractmethod
    async def count(self, query: Query) -> int:
        """How many items ``query`` lists.

        Counted by the service where it can, so that items past their expiry but not yet removed by the service may
        be included. Raises what ``query`` raises.
        """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def check_write(store: Store, mutations: Sequence[Mutation], atomic: bool) -> tuple[Outcome | None, ...]:
    """Check a write before anything is sent: for use at the top of every ``Store.write``.

    Returns:
        For each mutation ``Failed(RecordTooLarge)`` when its payload is over the store's limit, else None. With
        ``atomic``, the others are ``Refused("atomic")`` as soon as one is too large.

    Raises:
        InvalidRecord: as ``Store.write`` does.
    """
    seen: set[Key] = set()
    outcomes: list[Outcome | None] = []
    total = 0
    for mutation in mutations:
        if mutation.key in seen:
            raise InvalidRecord(str(mutation.key), "is in one write twice", collection=mutation.key.collection)
        seen.add(mutation.key)
        if isinstance(mutation, Delete):
            mutation.key.check()
            outcomes.append(None)
            continue
        mutation.item.check()
        size, limit = mutation.item.size, store.limits.payload_bytes
        total += size
        too_large = size > limit
        outcomes.append(Failed(RecordTooLarge(size, limit, store=store.name, key=mutation.key)) if too_large else None)
    if atomic:
        if any(outcomes):
            return tuple(each or Refused("atomic") for each in outcomes)
        if len(mutations) > store.limits.atomic_items:
            raise InvalidRecord(
                "mutations", f"{len(mutations)} in one atomic write, over the limit of {store.limits.atomic_items}"
            )
        if total > store.limits.atomic_bytes:
            raise InvalidRecord(
                "mutations", f"{total} bytes in one atomic write, over the limit of {store.limits.atomic_bytes}"
            )
    return tuple(outcomes)
