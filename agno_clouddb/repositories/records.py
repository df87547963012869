"""Records: what every repository of independent records does, written once over changes and lists."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError, InvalidRecord, StoreUnavailable
from agno_clouddb.records.base import NOBODY, Record
from agno_clouddb.repositories.base import (
    check_version,
    require,
)
from agno_clouddb.repositories.bulk import Bulk, BulkResult
from agno_clouddb.repositories.changes import Change, Creation, Removal, Upsert
from agno_clouddb.repositories.reads import LARGEST_STEP, Reads
from agno_clouddb.stores.base import Cursor, Key, Query, Refused
from agno_clouddb.stores.schema import OWNER

__all__ = ["Records"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_DELETES_AT_ONCE = 16


class Records(Reads[R]):
    """A repository of one kind of record. Reads are strongly consistent unless the call or the Database says otherwise.

    Where a call takes ``user_id``, a record of another user is neither seen, changed nor deleted, and the store checks
    that as a part of the write itself.
    """

    async def upsert(
        self,
        record: R,
        *,
        user_id: str | None = None,
        expected_version: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> R:
        """Write a record over what is stored under its id, or over nothing.

        The newest write wins unless ``expected_version`` is given. One request for a new record and for one that was
        read before; two for an object made anew over a stored one, whose ``created_at`` is then kept, and its owner
        where the object names none.

        Args:
            record: what to write. ``updated_at`` becomes now, unless the object was never stored and names one.
            user_id: the user on whose behalf; by default the record's own. A record that belongs to another user is
                not changed; one that belongs to nobody is claimed. ``NOBODY``: one that belongs to anybody is not
                changed.
            expected_version: the version of this record that was read; write only when nothing newer is stored.
            expires_in: seconds, or a timedelta, after which the record counts as absent.
            expires_at: the same as a moment. Without either, the object's own ``expires_at`` holds, and at least the
                time that the Database's ``ttl`` gives, from now.

        Returns:
            What is stored, with its version.

        Raises:
            InvalidRecord: a value that no store can hold, with its path.
            RecordTooLarge: over what the store holds in one record; nothing was written.
            ConflictError: the stored version is another one than ``expected_version``.
            NotOwner: the record belongs to another user.
            PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        check_version(expected_version)
        return await self._apply(self._upsert(record, user_id, expires_in, expires_at, expected_version))

    async def upsert_many(
        self,
        records: Iterable[R] | AsyncIterable[R],
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> BulkResult:
        """Write any number of records, in batches several of which are under way at once.

        Each record is written as by ``upsert``, on its own: there is no order among them, save that of two records with
        one id the later one stands. What the store leaves unprocessed is sent again, with growing pauses. Only the
        batches under way are held in memory.

        Args:
            records: an iterable or asynchronous iterable.
            user_id: as in ``upsert``, for every record.
            expires_in: as in ``upsert``, for every record.
            expires_at: as in ``upsert``, for every record.
            progress: is told after each batch how many records are stored.

        Returns:
            How many are stored, and their versions.

        Raises:
            BulkWriteError: some are not stored; says which, and why. The others are.
            NotProvisioned, ConfigurationError: tables or credentials are missing; what was stored before stays.
            PartialWrite: the same of one store of a fan-out; the others have the batches under way, or part of them.
            LifecycleError: the database is not open.
        """
        return await self._write_many(
            records, lambda record: self._upsert(record, user_id, expires_in, expires_at), progress
        )

    async def update(
        self,
        id: str,
        function: Callable[[R], R | None],
        *,
        user_id: str | None = None,
        keep_updated_at: bool = False,
    ) -> R:
        """Read a record, change it and write it; begin anew when somebody else has written in between.

        Args:
            id: which record.
            function: gets the record and returns the changed one, or changes it in place and returns None. It may be
                called several times and must not wait for anything.
            user_id: only when it belongs to this user.
            keep_updated_at: ``updated_at`` stays as the function leaves it; else it becomes now.

        Returns:
            What is stored; ``degraded`` when it was read without one of the stores of a fan-out, so that a change which
            that store alone has may be overwritten.

        Raises:
            RecordNotFound: there is no such record.
            NotOwner: it belongs to another user.
            ConflictError: others kept writing in between, for a hundred attempts.
            InvalidRecord, RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        return await self._update(self._key(id), function, user_id, keep_updated_at)

    async def delete(self, id: str, *, user_id: str | None = None) -> bool:
        """Delete a record.

        Args:
            id: which record.
            user_id: only when it belongs to this user; then one that belongs to nobody is not deleted either.

        Returns:
            Whether it was there, and this user's; also True where it may be on a store of a fan-out that does not
            answer.

        Raises:
            InvalidRecord, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        return not isinstance(await self._attempt(Removal(self._key(id), owner=user_id)), Refused)

    async def delete_many(
        self, ids: Iterable[str], *, user_id: str | None = None, progress: Callable[[int], None] | None = None
    ) -> int:
        """Delete records, in batches several of which are under way at once.

        Args:
            ids: which records.
            user_id: only those that belong to this user.
            progress: is told after each batch how many records are deleted.

        Returns:
            How many were there, and this user's.

        Raises:
            InvalidRecord: one is no valid id; nothing is deleted.
            BulkWriteError: some could not be deleted; says which, and why. The others are.
        """
        return await self._delete_keys([self._key(each) for each in checked_ids(ids)], user_id, progress)

    # What the repositories are made of

    def _owned(self, record: R, user_id: str | None) -> tuple[R, str | None]:
        """A record checked and with its owner, and the user that a stored one must belong to."""
        require(self._record, record, self._record.__name__.lower())
        record.check_types()
        if OWNER not in self._declared.fields:
            return record, None
        own: str | None = getattr(record, OWNER)
        if user_id is None or (user_id == NOBODY and own is None):
            return record, own if user_id is None else NOBODY
        if own not in (None, user_id):
            raise InvalidRecord(OWNER, f"is {own!r} but the call is made for {user_id!r}")
        return record.model_copy(update={OWNER: user_id}), user_id

    def _upsert(
        self,
        record: R,
        user_id: str | None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
        expected: str | None = None,
    ) -> Upsert[R]:
        owned, owner = self._owned(record, user_id)
        owned = self._expiring(owned, expires_in, expires_at)
        return Upsert(owned.key, owned, owner=owner, expected=expected)

    def _creation(
        self,
        record: R,
        user_id: str | None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> Creation[R]:
        owned, _ = self._owned(record, user_id)
        owned = self._expiring(owned, expires_in, expires_at)
        return Creation(owned.key, owned)

    async def _update(
        self, key: Key, function: Callable[[R], R | None], user_id: str | None, keep_updated_at: bool = False
    ) -> R:
        async for attempt in self._attempts():
            with attempt:
                batch = await self._store.get([key])
                item = batch.items[0]
                if item is None:
                    raise self._not_found(key, batch)
                if user_id is not None and item.owner != user_id:
                    raise self._not_owner(key)
                changed = self._changed(self._read(item), function)
                change = Upsert(key, changed, owner=user_id, expected=item.version, keep_updated_at=keep_updated_at)
                stored = await self._apply(change)
                return stored.model_copy(update={"degraded": batch.degraded})
        raise AssertionError("attempts end with a result or an error")

    def _changed(self, record: R, function: Callable[[R], R | None]) -> R:
        """What a function makes of a stored record, with what must not change."""
        key = record.key
        kept: dict[str, Any] = {name: getattr(record, name) for name in record.lasting}
        changed = function(record)
        changed = record if changed is None else changed
        if inspect.iscoroutine(changed):
            changed.close()
        require(self._record, changed, "function")
        if changed.key != key:
            field = self._declared.id_field if changed.key.id != key.id else str(self._declared.parent_field)
            raise InvalidRecord(field, "must not be changed by the function", collection=self._declared.name)
        if changed.__dict__.get("created_at") is not None:
            del kept["created_at"]
        return self._expiring(changed.model_copy(update=kept))

    async def _write_many(
        self,
        records: Iterable[T] | AsyncIterable[T],
        change: Callable[[T], Change[Any]],
        progress: Callable[[int], None] | None,
    ) -> BulkResult:
        store = self._store
        check_iterable(records)
        result = await Bulk(store, self._clock, progress).run(records, change)
        result.raise_failed(store.name, self._declared.name)
        return result

    async def _delete_keys(
        self, keys: Iterable[Key], user_id: str | None, progress: Callable[[int], None] | None = None
    ) -> int:
        result = await self._write_many(keys, lambda key: Removal(key, owner=user_id), progress)
        return result.stored

    async def _delete_each(
        self, ids: Iterable[str], user_id: str | None, progress: Callable[[int], None] | None
    ) -> int:
        """Delete records by ``delete``, several at a time, and say how many were there.

        Raises:
            BulkWriteError: some could not be deleted.
        """
        result = BulkResult()

        async def delete(position: int, id: str) -> None:
            try:
                there = await self.delete(id, user_id=user_id)
                result.stored += there
            except CloudDBError as error:
                result.failed[position] = error
            if progress is not None:
                progress(result.stored)

        unique = {self._key(each): (position, each) for position, each in enumerate(checked_ids(ids))}
        await gather([partial(delete, *each) for each in unique.values()], limit=_DELETES_AT_ONCE)
        result.raise_failed(self._store.name, self._declared.name)
        return result.stored

    async def _clear(self, query: Query, user_id: str | None, progress: Callable[[int], None] | None) -> int:
        """Delete what a query lists, page by page.

        Raises:
            StoreUnavailable: a store of a fan-out did not answer, so that more may be there; the rest is deleted.
        """
        total, degraded = 0, False
        cursor: Cursor | None = None
        while True:
            page = await self._store.query(query, limit=LARGEST_STEP, cursor=cursor)
            degraded = degraded or page.degraded
            for item in page.items:
                self._clock.observe(item.version)
            before = total
            told = (lambda done, before=before: progress(before + done)) if progress is not None else None
            total += await self._delete_keys([item.key for item in page.items], user_id, told)
            cursor = page.cursor
            if cursor is None:
                break
        if degraded:
            raise StoreUnavailable(
                f"{total} were deleted, and a store that did not answer may have more",
                store=self._store.name,
                collection=self._declared.name,
                remedy="Repeat the call when all stores answer",
            )
        return total


def check_iterable(records: object) -> None:
    """Raise InvalidRecord unless these are several records: one alone would be taken for its attributes."""
    if isinstance(records, str | bytes | Mapping | Record) or not isinstance(records, Iterable | AsyncIterable):
        raise InvalidRecord("records", f"is of type {type(records).__name__}, not an iterable of records")


def checked_ids(ids: Iterable[str]) -> list[str]:
    """Ids, given as an iterable. Raises InvalidRecord for one id alone, whose letters would be taken for ids."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidRecord("ids", f"is of type {type(ids).__name__}, not a list of ids")
    return list(ids)
