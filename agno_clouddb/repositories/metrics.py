"""db.metrics: what users and agents did, in numbers, day by day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from agno_clouddb.errors import ConflictError, InvalidRecord
from agno_clouddb.records.base import to_text
from agno_clouddb.records.metrics import ALL_USERS, DAILY, Metrics, bucket_of, check_day, check_period, metrics_id
from agno_clouddb.repositories.bulk import Bulk
from agno_clouddb.repositories.changes import Change, Removal
from agno_clouddb.repositories.listing import Filter, Listing, Lists
from agno_clouddb.repositories.metrics_reading import Reading
from agno_clouddb.repositories.metrics_sums import Sums
from agno_clouddb.repositories.records import Records
from agno_clouddb.stores.base import Consistency, Progress, Query

__all__ = ["DailyMetrics"]

_PAGE = 500
_FEW = 5
_DAY = timedelta(days=1)
_EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta.resolution
_OF_THE_RECORD = {"version", "expires_at", "degraded", "created_at", "updated_at"}
"""What a record has beside what is calculated."""


class DailyMetrics(Records[Metrics]):
    """Metrics of each user, and of all users together. Reads are strongly consistent unless the call or the Database
    says otherwise.

    ``calculate`` makes them from sessions and runs. Records made elsewhere are stored by ``upsert`` and
    ``upsert_many``; the id of a record, for ``update`` and ``delete_many``, is its ``id``.
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
            id: the day; or the id of a record, in which case ``user_id`` is the user that it must be about.
            user_id: whose; None or empty: those about all users.
            period: of how long a time.
            consistency: ``strong`` sees every write acknowledged before the call; None: what the Database was made
                with.

        Returns:
            None when there are none.

        Raises:
            InvalidRecord: an argument is out of its range.
            NotProvisioned, Throttled, StoreUnavailable: the store does not answer.
        """
        return await super().get(_id_of(id, user_id, period), user_id=user_id or None, consistency=consistency)

    async def delete(self, id: str | date, *, user_id: str | None = None, period: str = DAILY) -> bool:
        """Delete the metrics of a day. Arguments and errors are those of ``get``.

        Returns:
            Whether they were there; also True where they may be on a store of a fan-out that does not answer.
        """
        return await super().delete(_id_of(id, user_id, period), user_id=user_id or None)

    async def range(
        self,
        start: date | None = None,
        end: date | None = None,
        *,
        user_id: str | None = None,
        period: str = DAILY,
        consistency: Consistency | None = None,
    ) -> AsyncIterator[Metrics]:
        """Metrics in order of their dates, on one day those about all users first. Holds a page at a time.

        Args:
            start: the first day; None: from the earliest.
            end: the last day, inclusive; None: to the latest.
            user_id: only this user's; empty: only those about all users; None: both, of all users.
            period: of how long a time.
            consistency: as in ``get``.

        Raises:
            InvalidRecord: an argument is out of its range.
            QueryNotIndexed, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        listing = self._listing(start, end, user_id, period)
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
        with what belongs to nobody; a day without anything gets none. A day that has ended is ``completed`` and is not
        calculated again; one that has not is, by the next call. What is written later for a completed day, such as a
        run that says it was created the day before, or sessions that are imported, needs ``since``.

        Read are the sessions written from a day before the first of those days on, and their runs from an hour before
        it on, not those that did not change. So a run is missed when it is appended more than a day after its
        session's header was last written. On DynamoDB, a session of the last moments may be missed, since the
        service's indexes follow its tables; it counts when its day
        is calculated the next time, which for a day completed by then needs ``since``.

        Only what differs is written, each record on the condition that it is still what was read before, so that
        repeated and simultaneous calls do no harm: where somebody else has written in between, the day is calculated
        anew. A completed record is not replaced by one that is not. The record of all users is written last, so that a
        call that was cancelled or has failed is made good by the next one. Nothing is completed from a read without
        one of the stores of a fan-out.

        Args:
            until: what was created before this moment counts; a date stands for its end. None, or what is in the
                future: now.
            since: calculate from this day on at the latest, and completed days too.
            progress: is told, in a line of text, of sessions read and of each day.

        Returns:
            What is stored of the days calculated, those that did not change included, in order of their dates, on one
            day those about all users first; ``degraded`` when read without one of the stores of a fan-out.

        Raises:
            InvalidRecord: an argument is of the wrong type, ``until`` has no zone, or ``since`` is not before it.
            ConflictError: others kept writing in between, for a hundred attempts.
            BulkWriteError, PartialWrite, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store
                says. Repeat the call.
        """
        _check_window(since, until)
        first: date | None = None
        standing: list[Metrics] = []
        async for attempt in self._attempts():
            with attempt:
                end = _end_of(until)
                last = _last_day(end)
                first = first or await self._first_day(since, last)
                if first is None or first > last:
                    break
                # Read before what they are made of: whoever has newer results has written since, and is noticed.
                stored = await self._stored(first, last)
                sums = await Reading(self._store, _start_of(first), end, progress).sums()
                for day in sorted({*stored, *sums.days}):
                    standing += await self._write_day(day, stored.get(day, {}), sums, progress)
                    first = day + _DAY
        return tuple(sorted(standing, key=lambda each: (each.date, each.id)))

    # How metrics are calculated

    async def _first_day(self, since: date | None, last: date) -> date | None:
        """The first day to calculate; None when there is nothing to calculate from."""
        completed = await self._first_of(self._listing(None, last, ALL_USERS, DAILY, "-date"), completed=True)
        candidates = [since] if since is not None else []
        if completed is not None:
            candidates.append(completed.date + _DAY if completed.date < last else last + _DAY)
        else:
            # An earlier call may have left a day incomplete on which there is no session any more.
            earliest = await self._first_of(self._listing(None, last, ALL_USERS, DAILY, "date"))
            candidates += [earliest.date] if earliest is not None else []
            if since is None:
                page = await self._store.query(Query("sessions", "created_at"), limit=1)
                candidates += [datetime.fromisoformat(item.fields["created_at"]).date() for item in page.items]
        return min(candidates, default=None)

    async def _first_of(self, listing: Listing, *, completed: bool = False) -> Metrics | None:
        """The first record of a list, or the first completed one."""
        async for record in self._iterate(listing, _FEW):
            if record.completed or not completed:
                return record
        return None

    async def _stored(self, first: date, last: date) -> dict[date, dict[str, Metrics]]:
        """What is stored of some days, by user."""
        found: dict[date, dict[str, Metrics]] = {}
        async for record in self._iterate(self._listing(first, last, None, DAILY), _PAGE):
            found.setdefault(record.date, {})[record.user_id] = record
        return found

    async def _write_day(
        self, day: date, stored: Mapping[str, Metrics], sums: Sums, progress: Progress | None
    ) -> list[Metrics]:
        """Store what was calculated of a day where it differs, that of all users last, and give what is stored then.

        Raises:
            ConflictError: a record is not what was read before.
        """
        calculated, completes = sums.records(day), sums.completes(day)
        changes: dict[str, Change[Any]] = {}
        standing: dict[str, Metrics] = {}
        for user_id in {**stored, **calculated}:
            old = stored.get(user_id)
            change = self._change(old, calculated.get(user_id), completes)
            if change is not None:
                changes[user_id] = change
            elif old is not None:
                standing[user_id] = old
        together = changes.pop(ALL_USERS, None)
        standing.update(await self._write_users(changes))
        if together is not None and (written := await self._apply(together)) is not None:
            standing[ALL_USERS] = written
        if progress is not None:
            progress(f"{day}: {len(standing)} records, {len(changes) + (together is not None)} written")
        degraded = {"degraded": True} if sums.partial else {}
        return [each.model_copy(update=degraded) for each in standing.values()]

    def _change(self, old: Metrics | None, new: Metrics | None, completes: bool) -> Change[Any] | None:
        """What is to be written over what is stored; None when it stays as it is."""
        if old is None:
            return self._creation(new, None) if new is not None else None
        if old.completed and not completes:
            return None
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
            return self.lists.listing({**filters, "date": start.isoformat()}, "aggregation_period")
        filters["date_from"] = start
        filters["date_to"] = end + _DAY if end is not None and end < date.max else None
        return self.lists.listing(filters, sort)

    def _owned(self, record: Metrics, user_id: str | None) -> tuple[Metrics, str | None]:
        owned, owner = super()._owned(record, user_id)
        return owned, owner or None  # metrics of all users belong to nobody


def _id_of(id: str | date, user_id: str | None, period: str) -> str:
    if isinstance(id, str):
        return id
    check_period("period", period)
    return metrics_id(id, period, user_id or ALL_USERS)


def _end_of(until: datetime | date | None) -> datetime:
    """The moment before which everything counts, which has passed."""
    now = datetime.now(UTC)
    if until is None:
        return now
    if not isinstance(until, datetime):
        until = _start_of(until) + _DAY if until < now.date() else now
    return min(until.astimezone(UTC), now)


def _last_day(end: datetime) -> date:
    """The day of the last moment before ``end``."""
    return (max(end, _EARLIEST) - timedelta.resolution).date()


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time(tzinfo=UTC))


def _check_window(since: date | None, until: datetime | date | None) -> None:
    if isinstance(until, datetime):
        to_text("until", until)
    elif until is not None:
        check_day("until", until)
    if since is not None:
        check_day("since", since)
        if since > _last_day(_end_of(until)):
            raise InvalidRecord("since", f"is {since}, which is not before until, or in the future")
