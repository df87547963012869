"""The days of metrics, which are those of UTC: what a calculation covers, and what is over."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.base import to_text
from agno_clouddb.records.metrics import check_day
from agno_clouddb.stores.clock import MAX_DRIFT_MILLIS

__all__ = ["DAY", "GRACE", "check_window", "end_of", "last_day", "start_of", "utc_now"]

DAY = timedelta(days=1)

GRACE = timedelta(milliseconds=MAX_DRIFT_MILLIS)
"""How long after its end a day stays incomplete: an hour. Until then something of it may still be written, by a run
that spans midnight or a clock that is behind by as much as clocks are believed to differ, or be on its way into an
index."""

_EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta.resolution


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def start_of(day: date) -> datetime:
    """The moment at which a day begins."""
    return datetime.combine(day, time(tzinfo=UTC))


def end_of(until: datetime | date | None, now: datetime) -> datetime:
    """The moment before which everything counts, which has passed.

    Args:
        until: as ``calculate`` takes it.
        now: the wall clock.
    """
    if until is None:
        return now
    if not isinstance(until, datetime):
        until = start_of(until) + DAY if until < now.date() else now
    return min(until.astimezone(UTC), now)


def last_day(end: datetime) -> date:
    """The day of the last moment before ``end``."""
    return (max(end, _EARLIEST) - timedelta.resolution).date()


def check_window(since: date | None, until: datetime | date | None, now: datetime) -> None:
    """Raise InvalidRecord unless metrics can be calculated from one to the other."""
    if isinstance(until, datetime):
        to_text("until", until)
    elif until is not None:
        check_day("until", until)
    if since is not None:
        check_day("since", since)
        if since > last_day(end_of(until, now)):
            raise InvalidRecord("since", f"is {since}, which is not before until, or in the future")
