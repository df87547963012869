"""Reading what metrics are made of: the sessions that changed, and their newest runs, by index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from agno_clouddb.concurrency import gather
from agno_clouddb.records.base import to_text
from agno_clouddb.records.metrics import ALL_USERS
from agno_clouddb.records.sessions import Run
from agno_clouddb.repositories.metrics_sums import Sums
from agno_clouddb.repositories.runs import belongs, runs_query
from agno_clouddb.stores.base import Cursor, Item, Progress, Query, Range, Store
from agno_clouddb.stores.clock import MAX_DRIFT_MILLIS

__all__ = ["EARLIEST_SESSION", "Reading", "runs_since", "sessions_since"]

EARLIEST_SESSION = Query("sessions", "created_at")
"""Lists the session first that was created first."""

_SESSIONS_PAGE = 100
_RUNS_PAGE = 50
_SESSIONS_AT_ONCE = 16

_APPENDED_WITHIN = timedelta(days=1)
"""How long after a session's header was last written a run may be appended and still be found."""

_DRIFT = timedelta(milliseconds=MAX_DRIFT_MILLIS)
"""How far a writer's clock, which places its runs, may be behind the moment at which a run says it was created."""

_EARLIEST = datetime.min.replace(tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reading:
    """Reads the sessions and runs that were created in a window of time, and those that may have been.

    These are the sessions written from a day before its start on, and those created in it, and of each the runs whose
    place is at most an hour before its start. Held are one page of sessions, a page of runs of each of 16 of them, and
    the ids of all sessions read, since one that is written meanwhile is listed again.

    Args:
        store: where from.
        start: the start of the window; the start of a day in UTC.
        end: its end, exclusive.
        settled: of what was created before this moment nothing more is expected; at most ``end``.
        progress: is told how many sessions were read.
    """

    def __init__(
        self, store: Store, start: datetime, end: datetime, settled: datetime, progress: Progress | None = None
    ) -> None:
        self._store = store
        self._start = start
        self._end = end
        self._progress = progress
        self._sums = Sums(start, end, settled)
        self._seen: set[str] = set()

    async def sums(self) -> Sums:
        """What happened in the window."""
        for query in sessions_since(self._start, self._end):
            async for headers in self._pages(query, _SESSIONS_PAGE):
                fresh = {item.key.id: item for item in headers if item.key.id not in self._seen}
                self._seen.update(fresh)
                await gather([partial(self._add, item) for item in fresh.values()], limit=_SESSIONS_AT_ONCE)
                if fresh and self._progress is not None:
                    self._progress(f"{len(self._seen)} sessions read")
        return self._sums

    async def _add(self, header: Item) -> None:
        fields = header.fields
        user_id, session_type = header.owner or ALL_USERS, fields["session_type"]
        self._sums.add_session(user_id, session_type, datetime.fromisoformat(fields["created_at"]))
        async for runs in self._pages(runs_since(header.key.id, self._start), _RUNS_PAGE):
            for item in runs:
                run = Run.from_item(item) if belongs(item, header) else None
                if run is not None and run.created_at is not None:
                    self._sums.add_run(user_id, session_type, run.created_at, run.data)

    async def _pages(self, query: Query, size: int) -> AsyncIterator[tuple[Item, ...]]:
        cursor: Cursor | None = None
        while True:
            page = await self._store.query(query, limit=size, cursor=cursor)
            if page.degraded:
                self._sums.partial = True
            yield page.items
            cursor = page.cursor
            if cursor is None:
                return


def sessions_since(start: datetime, end: datetime) -> tuple[Query, Query]:
    """The lists of sessions to read for a window of time: those that may have changed in it, then those created in it.

    The changed ones come first and in order of their last write: one that is written meanwhile comes later, or again.
    """
    changed = Range("updated_at", to_text("since", _before(start, _APPENDED_WITHIN)))
    created = Range("created_at", to_text("since", start), to_text("until", end))
    return Query("sessions", changed.field, ranges=(changed,)), Query("sessions", created.field, ranges=(created,))


def runs_since(session_id: str, start: datetime) -> Query:
    """The list of a session's runs that may have been created at this moment or later."""
    millis = (_before(start, _DRIFT) - _EPOCH) // timedelta(milliseconds=1)
    place = f"{max(0, millis):012x}"  # the least stamp of that millisecond
    return replace(runs_query(session_id), descending=False, ranges=(Range("run_index", place),))


def _before(moment: datetime, time: timedelta) -> datetime:
    return moment - min(time, moment - _EARLIEST)
