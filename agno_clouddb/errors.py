"""Every error that the library raises.

    CloudDBError
    ├── InvalidRecord         a value cannot be stored as it is; names the path of the value
    ├── RecordTooLarge        the payload is over what the store holds in one record
    ├── RecordNotFound        the record that the call needs is not there
    │   └── NotOwner          not for this user: it belongs to another one
    ├── ConflictError         somebody else has written in between
    ├── QueryNotIndexed       the query could only be answered by a scan
    ├── IndexNotReady         an index is missing in the service, or still being built
    ├── NotProvisioned        a table, collection or index is missing
    ├── Throttled             the service kept refusing for load until the deadline
    ├── StoreUnavailable      the service did not answer, or not in time
    ├── PartialWrite          some stores of a fan-out have the write and some do not
    ├── BulkWriteError        some records of a bulk write are stored and some are not
    ├── ConfigurationError    an option, URL, region or credential is wrong
    └── LifecycleError        used before open, after close, or from another event loop

A driver's exception never reaches a caller bare: it is the ``__cause__`` of one of these. Each error says which
store, collection and key it is about, what happened, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agno_clouddb.stores.base import Key

__all__ = [
    "BulkWriteError",
    "CloudDBError",
    "ConfigurationError",
    "ConflictError",
    "IndexNotReady",
    "InvalidRecord",
    "LifecycleError",
    "NotOwner",
    "NotProvisioned",
    "PartialWrite",
    "QueryNotIndexed",
    "RecordNotFound",
    "RecordTooLarge",
    "StoreUnavailable",
    "Throttled",
]


class CloudDBError(Exception):
    """Something went wrong in agno_clouddb; the base of all its errors.

    Args:
        message: what happened, in one sentence.
        store: the name of the store, such as ``dynamodb://eu-west-1``, where one is to blame.
        collection: the collection, such as ``sessions``; taken from ``key`` when that is given.
        key: the key of the record.
        remedy: what the caller can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        store: str | None = None,
        collection: str | None = None,
        key: Key | None = None,
        remedy: str = "",
    ) -> None:
        self.message = message
        self.store = store
        self.collection = collection if collection is not None else (key.collection if key is not None else None)
        self.key = key
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        where = [f"store {self.store}"] if self.store else []
        if self.key is not None:
            where.append(f"key {self.key}")
        elif self.collection:
            where.append(f"collection {self.collection}")
        text = f"{self.message} ({', '.join(where)})" if where else self.message
        return f"{text}. {self.remedy}" if self.remedy else text


class InvalidRecord(CloudDBError):
    """A value cannot be stored as it is, on any store.

    Args:
        path: where the value is, such as ``session_data.scores[3]`` or ``session_id``.
        problem: what is wrong with it, naming the limit where there is one.
    """

    def __init__(self, path: str, problem: str, *, collection: str | None = None, remedy: str = "") -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}", collection=collection, remedy=remedy)


class RecordTooLarge(CloudDBError):
    """The payload is larger than the store can hold in one record; nothing was written.

    Args:
        size: bytes of the encoded payload.
        limit: bytes that the store holds in one record.
    """

    def __init__(self, size: int, limit: int, *, store: str | None = None, key: Key | None = None) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"the encoded payload is {size} bytes and the limit is {limit}",
            store=store,
            key=key,
            remedy="Keep large media in object storage and a reference in the record",
        )


class RecordNotFound(CloudDBError):
    """The record that the call needs is not there."""


class ConflictError(CloudDBError):
    """The record has changed since the version that the caller named, or kept changing during retries.

    Args:
        expected: the version that the caller named, or that the call had read before; None when there is none, as when
            the record was expected to be absent.
        found: the version that is stored; None when nothing is stored.
        problem: what is in the way beside the version, such as a status.
    """

    def __init__(
        self,
        expected: str | None,
        found: str | None,
        *,
        problem: str = "",
        store: str | None = None,
        key: Key | None = None,
    ) -> None:
        self.expected = expected
        self.found = found
        versions = f"expected version {expected or 'none'} but found {found or 'none'}"
        if problem and expected is None:
            versions = f"found version {found or 'none'}"
        super().__init__(
            f"{problem}; {versions}" if problem else versions,
            store=store,
            key=key,
            remedy="Read the record again and repeat the change, or use update(), which does both",
        )


class NotOwner(RecordNotFound):
    """The record belongs to another user than the one that the call was made for; nothing was changed."""


class QueryNotIndexed(CloudDBError):
    """No index serves the query, so that it could only scan the whole collection."""


class IndexNotReady(CloudDBError):
    """An index that the query needs is missing in the service, or still being built; other calls are not affected.

    Args:
        index: the index, such as ``agno_memories (user_id, updated_at DESCENDING)``.
        link: where the service lets it be created or watched; empty where it names no such place.
    """

    def __init__(
        self, message: str, *, index: str, link: str = "", store: str | None = None, collection: str | None = None
    ) -> None:
        self.index = index
        self.link = link
        remedy = "Deploy the indexes that `agno-clouddb schema` prints, and wait until they are built"
        super().__init__(message, store=store, collection=collection, remedy=f"{remedy}: {link}" if link else remedy)


class NotProvisioned(CloudDBError):
    """A table, collection or index that the call needs does not exist."""

    def __init__(
        self,
        message: str,
        *,
        store: str | None = None,
        collection: str | None = None,
        remedy: str = "Call `await db.provision()` once, or check region, project and prefix",
    ) -> None:
        super().__init__(message, store=store, collection=collection, remedy=remedy)


class Throttled(CloudDBError):
    """The service kept refusing the call for load until the deadline."""


class StoreUnavailable(CloudDBError):
    """The service did not answer, answered with a fault of its own, or not within the deadline."""


class PartialWrite(CloudDBError):
    """A write that was to reach all stores of a fan-out has reached some of them only.

    Args:
        acked: names of the stores that have the write.
        failed: the error of each store that does not, or may not, have it, by store name.
        unhinted: of the stores in ``failed`` for which no store that has the write keeps a hint of it: why that could
            not be kept, by the name of the store that lacks the write.
    """

    def __init__(
        self,
        acked: tuple[str, ...],
        failed: Mapping[str, CloudDBError],
        *,
        unhinted: Mapping[str, CloudDBError] = MappingProxyType({}),
        key: Key | None = None,
    ) -> None:
        self.acked = acked
        self.failed = dict(failed)
        self.unhinted = dict(unhinted)
        lacking = [f"{name}: {error}" for name, error in self.failed.items()]
        without = [f"no hint could be kept for {name}: {error}" for name, error in self.unhinted.items()]
        reasons = "; ".join([*lacking, *without])
        super().__init__(
            f"written to {', '.join(acked)} but not to {', '.join(self.failed)} ({reasons})",
            key=key,
            remedy="The write stands on the stores that have it; repeat it when the others answer again",
        )


class BulkWriteError(CloudDBError):
    """Some records of a bulk write are not stored; the others are.

    Args:
        stored: how many records are stored.
        failed: the error of each record that is not, by its position among those given, counted from 0.
        versions: what is stored: the version of each record, in their order; None where it failed.
    """

    def __init__(
        self,
        stored: int,
        failed: Mapping[int, CloudDBError],
        versions: Sequence[str | None],
        *,
        store: str | None = None,
        collection: str | None = None,
    ) -> None:
        self.stored = stored
        self.failed = dict(failed)
        self.versions = list(versions)
        position, first = next(iter(self.failed.items()))
        super().__init__(
            f"{len(self.failed)} of {stored + len(self.failed)} records are not stored, the first of them "
            f"record {position}: {first}",
            store=store,
            collection=collection,
            remedy="Mend those in `failed` and write them again; the others stand",
        )


class ConfigurationError(CloudDBError):
    """An option, URL, region, project or credential is wrong or missing."""


class LifecycleError(CloudDBError):
    """A Database or Store is used before open, after close, or from another event loop than it was opened in."""
