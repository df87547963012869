"""The port between repositories and clouds: a Store keeps Items in Collections.

A repository never knows which cloud it is on, a store never knows what a session is, and the fan-out coordinator is a
store like any other. The port is narrow on purpose: there are no partial updates and no increments, so that every
store and every replica always sees whole items with versions.

The rule that makes retries, replays and reordering harmless: *a store applies a write only when its version is newer
than the version it holds*. Conditions come on top of that rule, never instead of it.

The port's values are here by name; they live in ``items.py``, ``writes.py`` and ``query.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from agno_clouddb.errors import InvalidRecord, RecordTooLarge
from agno_clouddb.stores.clock import is_version
from agno_clouddb.stores.items import MAX_ID_BYTES, Item, Key, Payload
from agno_clouddb.stores.query import MAX_ANY_OF, Cursor, Page, Query, Range, Tally, add_tally
from agno_clouddb.stores.schema import COLLECTIONS, DECLARED, REPLICATION
from agno_clouddb.stores.writes import (
    NEWER,
    Condition,
    Delete,
    Failed,
    Mutation,
    Outcome,
    Put,
    Refused,
    Stored,
    decide,
    settled,
)

__all__ = [
    "MAX_ANY_OF",
    "MAX_ID_BYTES",
    "NEWER",
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
    "Progress",
    "Put",
    "Query",
    "Range",
    "Refused",
    "Scan",
    "Store",
    "Stored",
    "Tally",
    "check_scan",
    "check_write",
    "chosen",
    "decide",
    "settled",
]

Consistency = Literal["strong", "eventual"]
"""``strong``: a read sees every write acknowledged before it began. ``eventual``: it may lag, and costs less."""


Progress = Callable[[str], None]
"""Is told, in a line of text, how far long work has come."""

_TALLY_PAGE = 500


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
class Scan:
    """A part of what is stored in a collection.

    Args:
        entries: keys with their versions.
        cursor: where the scan goes on, as text that only this store understands; None at the end. A part may be short,
            or empty, while there is more.
    """

    entries: tuple[tuple[Key, str], ...]
    cursor: str | None = None


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

    prefix: str = ""
    """What precedes the names of its tables or collections."""

    @property
    def incomplete(self) -> bool:
        """Whether a store of a fan-out is known not to answer, so that what is not found may be there."""
        return False

    @abstractmethod
    async def open(self) -> None:
        """Connect. Opening an open store is harmless.

        Raises:
            ConfigurationError: region, project or credentials are missing or malformed.
            StoreUnavailable: the embedded file cannot be opened. A service that does not answer is found by the
                first call, not here.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Give back connections and threads. Closing twice is harmless."""

    @abstractmethod
    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        replicated: bool = False,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Create the tables and indexes that are missing, and wait until they can be used. Safe to call always.

        Args:
            collections: only these, by name; None: all.
            replicated: also what a store of a fan-out needs: the collection ``replication``, and an index by version on
                each collection of records. What is added to a table that is in use is built meanwhile.
            wait_for_indexes: where indexes are deployed by other means, as on Firestore, wait for them too.
            progress: is told what is being waited for.

        Raises:
            InvalidRecord: there is no such collection.
            ConfigurationError: credentials do not allow it, or something of the same name is of another kind.
            IndexNotReady: an index that is to be waited for is not deployed.
            StoreUnavailable, Throttled: the service does not answer.
        """

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

    def check(self, mutations: Sequence[Mutation], *, atomic: bool) -> tuple[Outcome | None, ...]:
        """What is known of a write before anything is sent; by it a fan-out learns of the limits of all its stores.

        A store whose service has limits of its own for transactions, beside ``limits``, checks them here. A write that
        is let through may still be over them, when it replaces what takes more to replace.

        Args:
            mutations: the write, as for ``write``.
            atomic: as for ``write``.

        Returns:
            For each mutation what ``write`` would answer without asking the service, such as
            ``Failed(RecordTooLarge)``; None when it would be sent.

        Raises:
            InvalidRecord: ``write`` would refuse it before it is sent.
            LifecycleError: the store is not open.
        """
        return check_write(self, mutations, atomic)

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
            InvalidRecord, QueryNotIndexed: the query names unknown fields, a value or the limit is out of its range,
                or no index serves it.
            NotProvisioned, Throttled, StoreUnavailable: as in ``get``.
        """

    @abstractmethod
    async def count(self, query: Query) -> int:
        """How many items ``query`` lists.

        Counted by the service where it can, so that items past their expiry but not yet removed by the service may
        be included. Raises what ``query`` raises.
        """

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        """How many items ``query`` lists for each value of a field, with the least and greatest sort value of each.

        Items without the field are left out. Counted by the service, or from an index, where it can; then what has
        expired and is not removed yet may be included. Raises what ``query`` raises.

        Args:
            query: what to count.
            by: a field of the collection.
        """
        query.check_field(by)
        tallies: dict[str, Tally] = {}
        cursor: Cursor | None = None
        while True:
            page = await self.query(query, limit=_TALLY_PAGE, cursor=cursor)
            for item in page.items:
                if (value := item.fields.get(by)) is not None:
                    place = item.fields[query.sort]
                    add_tally(tallies, value, Tally(1, place, place))
            cursor = page.cursor
            if cursor is None:
                return tallies

    @abstractmethod
    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        """The keys and versions of everything that is stored, tombstones and expired items too: for a coordinator.

        Args:
            collection: which one; the children of all parents.
            limit: the most entries, at least 1.
            since: None: everything, read from the data itself, in an order of the store's own that does not change
                while nothing is written. A version: only what has this version or a greater one, in order of version,
                by the index that ``provision(replicated=True)`` makes for collections of records; on DynamoDB it may
                lag.
            cursor: go on where an earlier scan with the same collection and ``since`` has ended, also in another
                process; what is written meanwhile may or may not be met.

        Raises:
            InvalidRecord: there is no such collection, the limit is less than 1, or the cursor is none of this store.
            NotProvisioned, IndexNotReady: the table or the index is missing.
            Throttled, StoreUnavailable: the store does not answer in time.
        """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def check_scan(collection: str, limit: int, since: str | None) -> None:
    """Raise InvalidRecord unless a collection can be scanned so: for use at the top of every ``Store.scan``."""
    if collection not in DECLARED:
        raise InvalidRecord("collection", f"{collection!r} is not one of {sorted(DECLARED)}")
    if limit < 1:
        raise InvalidRecord("limit", f"is {limit}, less than 1", collection=collection)
    if since is not None and not is_version(since):
        raise InvalidRecord("since", f"{since!r} is not a version of this library", collection=collection)


def chosen(collections: Collection[str] | None, *, replicated: bool = False) -> tuple[str, ...]:
    """The names of the collections to provision, a parent before its children.

    Args:
        collections: those asked for; None: all collections of records.
        replicated: also the collection that a fan-out keeps for itself.

    Raises:
        InvalidRecord: there is no such collection.
    """
    own = (REPLICATION.name,) if replicated else ()
    if collections is None:
        return (*COLLECTIONS, *own)
    names = [collections] if isinstance(collections, str) or not isinstance(collections, Iterable) else collections
    if unknown := [repr(name) for name in names if name not in tuple(COLLECTIONS)]:
        raise InvalidRecord("collections", f"{', '.join(unknown)} are not among {', '.join(COLLECTIONS)}")
    return (*(name for name in COLLECTIONS if name in names), *own)


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
