"""Changes: writes before they are stamped, each of which can adapt itself to what a store refuses it for.

A repository makes changes; ``Repository`` carries them out: one by itself, many in batches, or several all at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import anyio

from agno_clouddb.concurrency import full_jitter
from agno_clouddb.errors import CloudDBError, ConflictError, NotOwner, RecordNotFound, StoreUnavailable
from agno_clouddb.records.base import Record
from agno_clouddb.stores.base import Condition, Delete, Key, Mutation, Put, Refused

__all__ = [
    "MAX_STAMPS",
    "Change",
    "Creation",
    "Removal",
    "Upsert",
    "make_way",
    "touched",
    "unbelievable",
    "uncertain",
]

T = TypeVar("T")
R = TypeVar("R", bound=Record)

MAX_STAMPS = 100
"""How often a change is stamped, and sent, while others write the same in between."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5  # seconds


class Change(ABC, Generic[T]):
    """One write that is to be made.

    Attributes:
        key: what it writes.
        expected: the version that the caller expects to be stored; None: any, or none.
        accepts: the refusals that are no failure: there is nothing to be done.
    """

    key: Key
    expected: str | None = None
    accepts: frozenset[str] = frozenset()

    @abstractmethod
    def mutation(self, version: str) -> Mutation:
        """The write with a version.

        Raises:
            InvalidRecord: a value that no store can hold.
        """

    def adapt(self, refused: Refused) -> bool:
        """Become another write after a refusal; False when there is nothing else to try."""
        return False

    def suspect(self) -> None:
        """Learn, before ``mutation``, that a store of a fan-out is known not to answer."""

    def doubt(self) -> bool:
        """Become another write after one that some stores had no say in; False when that makes no difference."""
        return False

    def error(self, refused: Refused, store: str) -> CloudDBError:
        """What a refusal by a store means to the caller."""
        if refused.reason == "owner":
            return NotOwner("the record belongs to another user", store=store, key=self.key)
        if refused.reason == "absent" and self.expected is None:
            return RecordNotFound("there is no such record", store=store, key=self.key)
        found = refused.version if refused.reason != "absent" else None  # that of a tombstone, or expired
        return ConflictError(self.expected, found, store=store, key=self.key)

    @abstractmethod
    def result(self, version: str) -> T:
        """What is stored by the mutation of that version."""


class Upsert(Change[R]):
    """Write a record over what is stored, or over nothing.

    An object that the library has read or returned is written as it is. One made anew is written over nothing at
    first; when a record is there, what that record keeps is taken over, and it is replaced. With an expected version
    that first write can only be refused, by what is there or because nothing is.

    Args:
        key: where the record is stored.
        record: what to write.
        owner: the user that a stored record must belong to; None: anybody.
        expected: the version that must be stored, or an older one; None: any.
        keep_updated_at: an ``updated_at`` that the record names stays, also of one that is stored.
    """

    def __init__(
        self,
        key: Key,
        record: R,
        *,
        owner: str | None = None,
        expected: str | None = None,
        keep_updated_at: bool = False,
    ) -> None:
        self.key = key
        self.expected = expected
        self._owner = owner
        self._creating = not record.is_stored
        self._suspected = False
        self._record = touched(record, keep=self._creating or keep_updated_at)
        self.written = self._record
        """What the last mutation writes, or after a refusal the next one."""

    def mutation(self, version: str) -> Mutation:
        condition = Condition(absent=self._creating, expected=self.expected, owner=self._owner)
        self.written = self._record.first_written(version) if self._creating else self._record
        if self._creating and self._suspected:
            self.written = self.written.unconfirmed() or self.written
        return Put(self.written.to_item(self.key, version), condition)

    def adapt(self, refused: Refused) -> bool:
        if not (self._creating and refused.reason == "exists"):
            return False
        self._creating = False
        self._record = self.written = self._record.model_copy(update=self._record.kept(refused.fields))
        return True

    def suspect(self) -> None:
        self._suspected = True

    def doubt(self) -> bool:
        doubted = self.written.unconfirmed() if self._creating and not self._suspected else None
        if doubted is None:
            return False
        self._creating = False
        self._record = self.written = doubted
        return True

    def result(self, version: str) -> R:
        return self.written.model_copy(update={"version": version})


class Creation(Change[R]):
    """Write a record where nothing is stored, and nowhere else.

    Args:
        key: where the record is stored.
        record: what to write.
    """

    def __init__(self, key: Key, record: R) -> None:
        self.key = key
        self.written = touched(record, keep=True)
        """What the last mutation writes."""

    def mutation(self, version: str) -> Mutation:
        self.written = self.written.first_written(version)
        return Put(self.written.to_item(self.key, version), Condition(absent=True, exclusive=True))

    def error(self, refused: Refused, store: str) -> CloudDBError:
        if refused.reason != "exists":
            return super().error(refused, store)
        problem = "there is a record of this id already"
        return ConflictError(None, refused.version, problem=problem, store=store, key=self.key)

    def result(self, version: str) -> R:
        return self.written.model_copy(update={"version": version})


class Removal(Change[None]):
    """Delete what is stored.

    Args:
        key: what to delete.
        owner: the user that it must belong to; None: anybody, or nobody.
        expected: the version that must be stored, or an older one; None: any.
    """

    accepts = frozenset({"absent", "owner"})

    def __init__(self, key: Key, *, owner: str | None = None, expected: str | None = None) -> None:
        self.key = key
        self.expected = expected
        self._owner = owner

    def mutation(self, version: str) -> Mutation:
        return Delete(self.key, version, Condition(owner=self._owner, expected=self.expected))

    def result(self, version: str) -> None:
        return None


async def make_way(stamps: int) -> None:
    """Pause before a change is stamped again, longer each time and at random, so that those who compete part.

    Not before it is stamped for the second time: most often nobody competes, and what was refused was only older.

    Args:
        stamps: how often it was stamped.
    """
    if stamps > 1:
        await anyio.sleep(full_jitter(stamps - 2, _FIRST_PAUSE, _LONGEST_PAUSE))


def uncertain(store: str, key: Key) -> CloudDBError:
    """The error for a change that is refused, after an attempt at it that may come to stand."""
    return StoreUnavailable(
        "the write is refused, and an earlier attempt at it may stand on a store that has not answered",
        store=store,
        key=key,
        remedy="Read the record to see what is stored, and try again when all stores answer",
    )


def unbelievable(version: str | None, store: str, key: Key) -> CloudDBError:
    """The error for a stored version which is too far in the future to be stamped past."""
    return CloudDBError(
        f"the stored version {version} is too far in the future to be written over",
        store=store,
        key=key,
        remedy="Check the clocks of all writers; delete the record from the store itself",
    )


def touched(record: R, *, keep: bool = False) -> R:
    """A record as it is written now: created now unless it says when, and updated now.

    Args:
        record: what is to be written.
        keep: an ``updated_at`` that the record names stays.
    """
    now = datetime.now(UTC)
    values = record.__dict__
    update: dict[str, Any] = {}
    if values.get("created_at", now) is None:
        update["created_at"] = now
    if "updated_at" in values and not (keep and values["updated_at"] is not None):
        update["updated_at"] = now
    return record.model_copy(update=update)
