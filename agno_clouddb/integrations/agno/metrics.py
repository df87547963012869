"""agno's calls about metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from agno_clouddb.concurrency import gather
from agno_clouddb.database import Database
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.ids import excluded
from agno_clouddb.integrations.agno.metric_sums import Buckets
from agno_clouddb.integrations.agno.shapes import moment, now, seconds
from agno_clouddb.records.metrics import ALL_USERS, Metrics
from agno_clouddb.records.sessions import Session
from agno_clouddb.repositories.metrics_days import start_of
from agno_clouddb.repositories.sessions import SessionFilters

__all__ = ["PERIOD", "MetricCalls", "metrics_record", "metrics_row"]

PERIOD = "agno"
"""The period of agno's daily metrics among those of ``db.metrics``, which count otherwise: a run on the day on which it
was created, and all users together under the empty user."""

_DAILY = "daily"
_REFRESH_SECONDS = 60
_SESSIONS_AT_ONCE = 8
_LATEST = 100
_DAY = timedelta(days=1)
_COUNTS = (
    "agent_runs_count",
    "team_runs_count",
    "workflow_runs_count",
    "agent_sessions_count",
    "team_sessions_count",
    "workflow_sessions_count",
    "users_count",
)


class MetricCalls(Family):
    """Metrics, a record for each day and user, and one a day for what belongs to nobody."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metrics_refreshed_at = 0.0

    async def get_metrics(
        self, starting_date: date | None = None, ending_date: date | None = None, user_id: str | None = None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Metrics by day, and when the latest of them were calculated; those that are not complete are calculated
        before, once a minute at most.

        Args:
            starting_date: the first day; of a datetime, its date.
            ending_date: the last day, inclusive; likewise.
            user_id: only this user's; empty: only of what belongs to nobody.

        Raises:
            What ``calculate_metrics`` raises.
        """
        if time.time() - self._metrics_refreshed_at >= _REFRESH_SECONDS:
            await self.calculate_metrics()
        starting_date, ending_date = _day(starting_date), _day(ending_date)
        if starting_date is not None and ending_date is not None and starting_date > ending_date:
            return [], None
        if excluded(user_id or None):
            return [], None
        db = await self.database()
        found = db.metrics.range(starting_date, ending_date, user_id=user_id, period=PERIOD)
        records = _in_order([record async for record in found])
        if not records:
            return [], None
        latest = records if starting_date is None and ending_date is None else await self._latest(db, user_id)
        rows = [{**row, "user_id": row["user_id"] or None} for row in map(metrics_row, records)]
        return rows, max(filter(None, (seconds(each.updated_at) for each in (*records, *latest))), default=None)

    async def calculate_metrics(self) -> list[dict[str, Any]] | None:
        """Calculate the metrics of all days that are not complete, and return them: a day counts the sessions that were
        created on it with all their runs, and is complete when it is over.

        Read are the sessions created since the latest complete day and all their runs, held is one session a time of
        each of eight. What was read without one of the stores of a fan-out may lack something: then only today is
        calculated, which is calculated again in any case, and not where that would pass over a day before it.

        Returns:
            None when there is nothing to calculate from.

        Raises:
            BulkWriteError, PartialWrite, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store
                says. Repeat the call.
        """
        # Before all else, so that what fails is not tried again by every read.
        self._metrics_refreshed_at = time.time()
        db = await self.database()
        today = datetime.now(UTC).date()
        with db.watch_reads() as reads:
            start = await self._first_day(db, today)
            if start is None or start > today:
                return None
            buckets = await self._buckets(db, start, today)
            found = db.metrics.range(start, today, period=PERIOD)
            stored = {(record.date, record.user_id): record async for record in found}
        records = _records(buckets, stored, today)
        if reads.degraded:
            # The next calculation begins with the first day that has an incomplete record.
            passed_over = start < today and all(day != start for day, _ in stored)
            records = [each for each in records if each.date == today and not passed_over]
        await db.metrics.upsert_many(records)
        return [metrics_row(record) for record in records]

    async def _first_day(self, db: Database, today: date) -> date | None:
        """The first day to calculate: the first after the latest that has a complete record, where there are any."""
        incomplete: list[date] = []
        async for record in db.metrics.range(period=PERIOD, descending=True):
            if record.completed:
                # What is incomplete on a complete day is of somebody whose sessions are not there any more.
                later = [day for day in incomplete if day > record.date]
                return min(*later, today) if later else min(record.date + _DAY, today)
            incomplete = [*incomplete, record.date] if record.date not in incomplete else incomplete
        if incomplete:
            return min(*incomplete, today)
        first = (await db.sessions.list(sort="created_at", limit=1)).items
        return first[0].created_at.astimezone(UTC).date() if first and first[0].created_at is not None else None

    async def _buckets(self, db: Database, start: date, end: date) -> Buckets:
        buckets = Buckets()
        batch: list[Session] = []

        async def add(sessions: Sequence[Session]) -> None:
            calls = [partial(self._runs, db, session) for session in sessions]
            for session, runs in zip(sessions, await gather(calls), strict=True):
                buckets.add(session, runs)

        low, high = start_of(start), start_of(end + _DAY)
        made: SessionFilters = {"created_from": low, "created_to": high}
        async for session in db.sessions.iterate(sort="created_at", consistency="strong", **made):
            batch.append(session)
            if len(batch) == _SESSIONS_AT_ONCE:
                await add(batch)
                batch = []
        await add(batch)
        return buckets

    async def _runs(self, db: Database, session: Session) -> list[Mapping[str, Any]]:
        """What counts of each run of a session, the first first."""
        (filled,) = await db.sessions.with_runs([session], consistency="strong")
        runs = [run.data or {} for run in filled.runs]
        return [{name: data.get(name) for name in ("model", "model_provider")} for data in runs]

    async def _latest(self, db: Database, user_id: str | None) -> list[Metrics]:
        """The latest records of a user, or of all; what was calculated last is among them."""
        filters: dict[str, Any] = {"user_id": user_id} if user_id is not None else {}
        found: list[Metrics] = []
        async for record in db.metrics.range(period=PERIOD, descending=True, **filters):
            if len(found) == _LATEST or (found and record.date != found[0].date):
                break
            found.append(record)
        return found


def metrics_record(row: Mapping[str, Any]) -> Metrics:
    """The record that keeps a row of agno's table of metrics."""
    day = row["date"]
    counts: dict[str, Any] = {name: row.get(name) or 0 for name in _COUNTS}
    return Metrics.checked(
        **counts,
        date=date.fromisoformat(day[:10]) if isinstance(day, str) else day,
        aggregation_period=PERIOD,
        user_id=row.get("user_id") or ALL_USERS,
        token_metrics=dict(row.get("token_metrics") or {}),
        model_metrics=list(row.get("model_metrics") or []),
        completed=bool(row.get("completed")),
        created_at=_moment(row.get("created_at"), "created_at"),
        updated_at=_moment(row.get("updated_at"), "updated_at"),
    )


def metrics_row(record: Metrics) -> dict[str, Any]:
    """The row of metrics, as agno's own table has it."""
    return {
        "id": str(uuid5(NAMESPACE_OID, record.id)),
        **{name: getattr(record, name) for name in _COUNTS},
        "token_metrics": record.token_metrics,
        "model_metrics": record.model_metrics,
        "date": record.date,
        "aggregation_period": _DAILY,
        "user_id": record.user_id,
        "created_at": seconds(record.created_at),
        "updated_at": seconds(record.updated_at),
        "completed": record.completed,
    }


def _records(buckets: Buckets, stored: Mapping[tuple[date, str], Metrics], today: date) -> list[Metrics]:
    """The records of what was counted; of a day and user of which there is one, that with the new numbers."""
    calculated = datetime.fromtimestamp(now(), UTC)
    records = []
    for (day, user_id), numbers in buckets.numbers():
        values = {**numbers, "completed": day < today, "updated_at": calculated}
        old = stored.get((day, user_id))
        if old is None:
            old = Metrics(date=day, aggregation_period=PERIOD, user_id=user_id, created_at=calculated)
        records.append(old.model_copy(update=values))
    return records


def _in_order(records: Iterable[Metrics]) -> list[Metrics]:
    return sorted(records, key=lambda each: (each.date, each.created_at or start_of(each.date)))


def _day(given: date | None) -> date | None:
    return given.date() if isinstance(given, datetime) else given


def _moment(seconds: Any, name: str) -> datetime | None:
    return moment(seconds, name) if isinstance(seconds, int | float) else None
