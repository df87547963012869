"""db.metrics: what users and agents did, in numbers, day by day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from agno_clouddb.errors import ConflictError, InvalidRecord
from agno_clouddb.records.metrics import ALL_USERS, DAILY, Metrics, bucket_of, check_day, check_period, metrics_id
from agno_clouddb.repositories.base import Connection, Page
from agno_clouddb.repositories.bulk import Bulk
from agno_clouddb.repositories.changes import Change, Removal
from agno_clouddb.repositories.listing import Filter, Listing, Lists
from agno_clouddb.repositories.metrics_days import DAY, GRACE, check_window, end_of, last_day, start_of, utc_now
from agno_clouddb.repositories.metrics_reading import EARLIEST_SESSION, Reading
from agno_clouddb.repositories.metrics_sums import Sums
from agno_clouddb.repositories.records import Records
from agno_clouddb.stores.base import Consistency, Key, Progress

__all__ = ["DailyMetrics"]

_PAGE = 500
_FEW = 5
_OF_THE_RECORD = {"version", "expires_at", "degraded", "created_at", "updated_at"}
"""What a record has beside what is calculated."""


class DailyMetrics(Records[Metrics]):
    """Metrics of each user, and of all users together. Reads are strongly consistent unless the call or the Database
    says otherwise.

    ``calculate`` makes them from sessions and runs. Records made elsewhere are stored by ``upsert`` and
    ``upsert_many``; the id of a record, for ``update`` and ``delete_many``, is its ``id``. Where a call takes
    ``user_id``, the empty one stands for all users together: records about one user are then neither seen, changed nor
    deleted.

    Args:
        connection: the open store that the repositories share.
        now: the wall clock, which tells which days have ended.
    """

    lists = Lists(
        Metrics,
        filters={
            "bucket": Filter("equal", "bucket"),
            "date": Filter("equal", "date"),
            "aggregation_period": Filter("equal", "aggregation_period"),
            "date_from": Filter("from", "date"),
            "date_to": Filter("to", "date"),
        },
        sorts=("date", "aggregation_period"),
    )

    def __init__(self, connection: Connection, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__(connection)
        self._now = now

    async def get(
        self,
        id: str | date,
        *,
        user_id: str | None = None,
        period: str = DAILY,
        consistency: Consistency | None = None,
    ) -> Metrics | None:
        """The metrics of a day, in one request.

        Args:
            id: the day; or the id of a record, which must be about ``user_id`` then unless that is None.
            user_id: whose; empty: those about all users, as is None with a day.
            period: of how long a time.
            consistency: ``strong`` sees every write acknowledged before the call; None: what the Database was made
                with.

        Returns:
            None when there are none.

        Raises:
            InvalidRecord: an argument is out of its range.
            NotProvisioned, Throttled, StoreUnavailable: the store does not answer.
        """
        name = _id_of(id, user_id, period)
        return await super().get(name, user_id=_owner_of(name, user_id), consistency=consistency)

    async def delete(self, id: str | date, *, user_id: str | None = None, period: str = DAILY) -> bool:
        """Delete the metrics of a day. Arguments and errors are those of ``get``.

        Returns:
            Whether they were there; also True where they may be on a store of a fan-out that does not answer.
        """
        name = _id_of(id, user_id, period)
        return await super().delete(name, user_id=_owner_of(name, user_id))

    async def range(
        self,
        start: date | None = None,
        end: date | None = None,
        *,
        user_id: str | None = None,
        period: str = DAILY,
        descending: bool = False,
        consistency: Consistency | None = None,
    ) -> AsyncIterator[Metrics]:
        """Metrics in order of their dates, on one day those about all users first. Holds a page at a time.

        Args:
            start: the first day; None: from the earliest.
            end: the last day, inclusive; None: to the latest.
            user_id: only this user's; empty: only those about all users; None: both, of all users.
            period: of how long a time.
            descending: in the opposite order, the latest first.
            consistency: as in ``get``.

        Raises:
            InvalidRecord: an argument is out of its range.
            QueryNotIndexed, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        listing = self._listing(start, end, user_id, period, "-date" if descending else "date")
        async for record in self._iterate(listing, _PAGE, consistency):
            yield record

    async def latest(
        self, *, user_id: str = ALL_USERS, period: str = DAILY, consistency: Consistency | None = None
    ) -> Metrics | None:
        """The metrics with the latest date, in one query.

        Args:
            user_id: whose; empty: those about all users.
            period: of how long a time.
            consistency: as in ``get``.

        Returns:
            None when there are none.

        Raises:
            What ``range`` raises.
        """
        page = await self._page(self._listing(None, None, user_id, period, "-date"), 1, None, consistency)
        return page.items[0] if page.items else None

    async def calculate(
        self,
        *,
        until: datetime | date | None = None,
        since: date | None = None,
        progress: Progress | None = None,
    ) -> tuple[Metrics, ...]:
        """Calculate the metrics of each day that is not completed yet, from sessions and runs, and store them.

        Days are those of UTC. On a day count the sessions created on it, the runs created on it with their tokens and
        models, and the users of both. Each user with something on a day gets a record, and so do all users together,
        with what belongs to nobody; a day without anything gets none. A day is ``completed`` when the wall clock is an
        hour past its end, and is not calculated again; until then it is, by the next call. What is written later for a
        completed day, such as a run that took longer, or sessions that are imported, needs ``since``.

        Read are the sessions written from a day before the first of those days on, and their runs from an hour before
        it on, not those that did not change. So a run is missed when it is appended more than a day after its
        session's header was last written.

        Only what differs is written, each record on the condition that it is still what was read before, so that
        repeated and simultaneous calls do no harm: where somebody else has written in between, the day is calculated
        anew. Nothing is written of a completed day unless this call completes it too. The record of all users is
        written last, so that a call that was cancelled or has failed is made good by the next one.

        What was read without one of the stores of a fan-out may lack something. Then no day is completed, and nothing
        that is stored is replaced or deleted; written are only incomplete records where the other stores have none.

        Args:
            until: what was created before this moment counts; a date stands for its end. None, or what is in the
                future: now.
            since: calculate from this day on at the latest, and completed days too.
            progress: is told, in a line of text, of sessions read and of each day.

        Returns:
            What is stored of the days calculated, those that did not change included, in order of their dates, on one
            day those about all users first; ``degraded`` when anything was read without one of the stores of a
            fan-out. Without records nothing tells whether it was.

        Raises:
            InvalidRecord: an argument is of the wrong type, ``until`` has no zone, or ``since`` is not before it.
            ConflictError: others kept writing in between, for a hundred attempts.
            BulkWriteError, PartialWrite, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store
                says. Repeat the call.
        """
        check_window(since, until, self._now())
        first: date | None = None
        degraded = False
        standing: list[Metrics] = []
        async for attempt in self._attempts():
            with attempt:
                now = self._now()
                end = end_of(until, now)
                last = last_day(end)
                if first is None:
                    first, degraded = await self._first_day(since, last)
                if first is None or first > last:
                    break
                # Read before what they are made of: whoever has newer results has written since, and is noticed.
                stored, lacking = await self._stored(first, last)
                sums = await Reading(self._store, start_of(first), end, min(end, now - GRACE), progress).sums()
                sums.partial = sums.partial or degraded or lacking
                for day in sorted({*stored, *sums.days}):
                    standing += await self._write_day(day, stored.get(day, {}), sums, progress)
                    first = day + DAY
        return tuple(sorted(standing, key=lambda each: (each.date, each.id)))

    # How metrics are calculated

    async def _first_day(self, since: date | None, last: date) -> tuple[date | None, bool]:
        """The first day to calculate, None when there is nothing to calculate from; and whether it may be earlier,
        since a store of a fan-out did not answer."""
        completed, degraded = await self._first_of(self._listing(None, last, ALL_USERS, DAILY, "-date"), completed=True)
        candidates = [since] if since is not None else []
        if completed is not None:
            candidates.append(completed.date + DAY if completed.date < last else last + DAY)
        else:
            # An earlier call may have left a day incomplete on which there is no session any more.
            earliest, lacking = await self._first_of(self._listing(None, last, ALL_USERS, DAILY))
            candidates += [earliest.date] if earliest is not None else []
            page = await self._store.query(EARLIEST_SESSION, limit=1)
            candidates += [datetime.fromisoformat(item.fields["created_at"]).date() for item in page.items]
            degraded = degraded or lacking or page.degraded
        return min(candidates, default=None), degraded

    async def _first_of(self, listing: Listing, *, completed: bool = False) -> tuple[Metrics | None, bool]:
        """The first record of a list, or the first completed one; and whether a store did not answer."""
        degraded = False
        async for page in self._pages(listing, _FEW):
            degraded = degraded or page.degraded
            for record in page.items:
                if record.completed or not completed:
                    return record, degraded
        return None, degraded

    async def _stored(self, first: date, last: date) -> tuple[dict[date, dict[str, Metrics]], bool]:
        """What is stored of some days, by user; and whether a store did not answer."""
        found: dict[date, dict[str, Metrics]] = {}
        degraded = False
        async for page in self._pages(self._listing(first, last, None, DAILY), _PAGE):
            degraded = degraded or page.degraded
            for record in page.items:
                found.setdefault(record.date, {})[record.user_id] = record
        return found, degraded

    async def _pages(self, listing: Listing, size: int) -> AsyncIterator[Page[Metrics]]:
        cursor: str | None = None
        while True:
            page = await self._page(listing, size, cursor, None)
            yield page
            cursor = page.cursor
            if cursor is None:
                return

    async def _write_day(
        self, day: date, stored: Mapping[str, Metrics], sums: Sums, progress: Progress | None
    ) -> list[Metrics]:
        """Store what was calculated of a day where it differs, that of all users last, and give what is stored then.

        Raises:
            ConflictError: a record is not what was read before.
        """
        changes = self._changes(day, stored, sums)
        standing = {user_id: record for user_id, record in stored.items() if user_id not in changes}
        together = changes.pop(ALL_USERS, None)
        standing.update(await self._write_users(changes))
        if together is not None and (written := await self._apply(together)) is not None:
            standing[ALL_USERS] = written
        if progress is not None:
            progress(f"{day}: {len(standing)} records, {len(changes) + (together is not None)} written")
        degraded = {"degraded": True} if sums.partial else {}
        return [each.model_copy(update=degraded) for each in standing.values()]

    def _changes(self, day: date, stored: Mapping[str, Metrics], sums: Sums) -> dict[str, Change[Any]]:
        """What is to be written of a day, by user."""
        completes, together = sums.completes(day), stored.get(ALL_USERS)
        if together is not None and together.completed and not completes:
            return {}
        calculated = sums.records(day)
        changes: dict[str, Change[Any]] = {}
        for user_id in {**stored, **calculated}:
            old = stored.get(user_id)
            if old is not None and (sums.partial or (old.completed and not completes)):
                continue
            change = self._change(old, calculated.get(user_id))
            if change is not None:
                changes[user_id] = change
        return changes

    def _change(self, old: Metrics | None, new: Metrics | None) -> Change[Any] | None:
        """What is to be written over what is stored; None when they do not differ."""
        if old is None:
            return self._creation(new, None) if new is not None else None
        if new is None:
            return Removal(old.key, expected=old.version)
        values = new.model_dump(exclude=_OF_THE_RECORD)
        if all(getattr(old, name) == value for name, value in values.items()):
            return None
        return self._upsert(old.model_copy(update=values), None, expected=old.version)

    async def _write_users(self, changes: Mapping[str, Change[Any]]) -> dict[str, Metrics]:
        """Carry the changes to users' records out, and give those that are stored then."""
        result = await Bulk(self._store, self._clock).run(changes.values(), lambda change: change)
        for error in result.failed.values():
            if isinstance(error, ConflictError):
                raise error
        result.raise_failed(self._store.name, self._declared.name)
        written = zip(changes.items(), result.versions, strict=True)
        records = {user_id: change.result(version or "") for (user_id, change), version in written}
        return {user_id: record for user_id, record in records.items() if record is not None}

    def _listing(
        self, start: date | None, end: date | None, user_id: str | None, period: str, sort: str = "date"
    ) -> Listing:
        check_period("period", period)
        filters: dict[str, Any] = {"aggregation_period": period}
        if user_id is not None:
            filters["bucket"] = bucket_of(user_id)
        for path, day in (("start", start), ("end", end)):
            if day is not None:
                check_day(path, day)
        if start is not None and end is not None and start > end:
            raise InvalidRecord("end", f"is {end}, before the start {start}", collection=self._declared.name)
        if start is not None and start == end and user_id is None:
            return self.lists.listing(
                {**filters, "date": start.isoformat()}, sort.replace("date", "aggregation_period")
            )
        filters["date_from"] = start
        filters["date_to"] = end + DAY if end is not None and end < date.max else None
        return self.lists.listing(filters, sort)

    def _owned(self, record: Metrics, user_id: str | None) -> tuple[Metrics, str | None]:
        owned, owner = super()._owned(record, user_id)
        return owned, owner or None  # metrics of all users belong to nobody

    async def _update(
        self,
        key: Key,
        function: Callable[[Metrics], Metrics | None],
        user_id: str | None,
        keep_updated_at: bool = False,
    ) -> Metrics:
        return await super()._update(key, function, _owner_of(key.id, user_id), keep_updated_at)

    async def _delete_keys(
        self, keys: Iterable[Key], user_id: str | None, progress: Callable[[int], None] | None = None
    ) -> int:
        result = await self._write_many(keys, lambda key: Removal(key, owner=_owner_of(key.id, user_id)), progress)
        return result.stored


def _id_of(id: str | date, user_id: str | None, period: str) -> str:
    if isinstance(id, str):
        return id
    check_period("period", period)
    return metrics_id(id, period, user_id or ALL_USERS)


def _owner_of(id: str, user_id: str | None) -> str | None:
    """Whom a record must belong to for a call: nobody's are those about all users, and no record has an empty owner."""
    about_all = id.split(" ", 2)[2:] == [bucket_of(ALL_USERS)]
    return None if user_id == ALL_USERS and about_all else user_id
