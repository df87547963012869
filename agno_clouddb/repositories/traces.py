"""db.traces: traces and their spans."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypedDict, Unpack

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError, InvalidRecord
from agno_clouddb.records.base import plain
from agno_clouddb.records.traces import Span, Trace
from agno_clouddb.repositories.base import MAX_PAGE, Page, check_consistency, check_limit, require
from agno_clouddb.repositories.bulk import BulkResult, each_of
from agno_clouddb.repositories.changes import Removal, Upsert
from agno_clouddb.repositories.listing import Filter, Lists
from agno_clouddb.repositories.merging import Merge, timed
from agno_clouddb.repositories.records import Records, check_iterable
from agno_clouddb.stores import base as port
from agno_clouddb.stores.base import Consistency, Cursor, Item, Key, Query, Refused

__all__ = ["SessionTraces", "TraceFilters", "Traces"]

Sort = Literal["start_time", "-start_time"]


class TraceFilters(TypedDict, total=False):
    """What a list of traces may be narrowed by; a filter that is None or not given does not narrow."""

    session_id: str | None
    """Only traces of this session."""
    user_id: str | None
    """Only this user's traces."""
    run_id: str | None
    """Only traces of this run."""
    agent_id: str | None
    """Only traces of this agent."""
    team_id: str | None
    """Only traces of this team."""
    workflow_id: str | None
    """Only traces of this workflow."""
    status: str | Sequence[str] | set[str] | frozenset[str] | None
    """Only traces with this status, or with one of these."""
    started_from: datetime | None
    """Only traces that began at this moment or later."""
    started_to: datetime | None
    """Only traces that began before this moment."""
    ended_from: datetime | None
    """Only traces that ended at this moment or later."""
    ended_to: datetime | None
    """Only traces that ended before this moment."""


@dataclass(frozen=True, slots=True)
class SessionTraces:
    """What traces there are of one session.

    Args:
        session_id: the session.
        total_traces: how many traces.
        first_trace_at: when the first of them began.
        last_trace_at: when the last of them began.
    """

    session_id: str
    total_traces: int
    first_trace_at: datetime
    last_trace_at: datetime


class Traces(Records[Trace]):
    """Traces and their spans. Reads are strongly consistent unless the call or the Database says otherwise."""

    lists = Lists(
        Trace,
        filters={
            "session_id": Filter("equal", "session_id"),
            "user_id": Filter("equal", "user_id"),
            "run_id": Filter("equal", "run_id"),
            "agent_id": Filter("equal", "agent_id"),
            "team_id": Filter("equal", "team_id"),
            "workflow_id": Filter("equal", "workflow_id"),
            "status": Filter("any", "status"),
            "started_from": Filter("from", "start_time"),
            "started_to": Filter("to", "start_time"),
            "ended_from": Filter("from", "end_time"),
            "ended_to": Filter("to", "end_time"),
        },
        sorts=("start_time",),
    )

    async def upsert_trace(
        self,
        trace: Trace,
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> Trace:
        """Write a trace, or merge it with the part of it that is stored, as when its spans come in several batches.

        The earliest start and the latest end count, ``total_spans`` and ``error_count`` are added up, ``ERROR`` goes
        before ``OK`` and that before any other status, and what says where the trace belongs (run, session, user,
        agent, team, workflow) stays as it was first given. The name is that of the part which belongs to a workflow,
        else to a team, else to an agent, else the first. So the order of the parts does not matter, unless they
        contradict each other. One request for a new trace, three for one that is there.

        Args:
            trace: what to write, or to add.
            user_id: only when the stored trace belongs to this user, or to nobody, in which case it is claimed. A part
                that merely names another user leaves the trace with the user who had it first.
            expires_in: as in ``upsert``; the later of this and the stored expiry holds.
            expires_at: likewise, as a moment.

        Returns:
            What is stored.

        Raises:
            NotOwner: the stored trace belongs to another user.
            InvalidRecord: it ends before it starts, or has a value that no store can hold.
            ConflictError: others kept writing in between, for a hundred attempts.
            RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``. After an error
                which leaves open whether the trace was written, a repetition may count its spans twice.
        """
        trace, _ = self._owned(trace, user_id)
        key = trace.key
        trace = self._expiring(trace, expires_in, expires_at)
        first = Merge(key, trace, user_id)
        outcome = await self._attempt(first)
        if not isinstance(outcome, Refused):
            return first.result(outcome.version)
        if outcome.reason != "exists":
            raise first.error(outcome, self._store.name)
        async for attempt in self._attempts():
            with attempt:
                item = (await self._store.get([key])).items[0]
                stored = self._read(item) if item is not None else None
                return await self._apply(Merge(key, trace, user_id, stored))
        raise AssertionError("attempts end with a result or an error")

    async def list(
        self,
        *,
        sort: Sort = "-start_time",
        limit: int = 20,
        cursor: str | None = None,
        consistency: Consistency | None = None,
        **filters: Unpack[TraceFilters],
    ) -> Page[Trace]:
        """One page of traces without their spans, the same on every store.

        Args:
            sort: ``-start_time`` for the latest first, or ``start_time``. Equal moments are ordered by trace id.
            limit: how many, 1 to 1,000. The page is full while there is more.
            cursor: go on after the page that carried it, with the same filters and sort.
            consistency: as in ``get``.
            **filters: what to list, see ``TraceFilters``; all of them must hold.

        Raises:
            InvalidRecord: an argument is unknown or out of its range, or the cursor is of another list.
            QueryNotIndexed, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        return await self._page(self.lists.listing(filters, sort), limit, cursor, consistency)

    async def iterate(
        self,
        *,
        sort: Sort = "-start_time",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[TraceFilters],
    ) -> AsyncIterator[Trace]:
        """All traces that ``list`` would list, holding one page of ``page_size`` at a time."""
        async for trace in self._iterate(self.lists.listing(filters, sort), page_size, consistency):
            yield trace

    async def count(self, **filters: Unpack[TraceFilters]) -> int:
        """How many traces ``list`` would list. Arguments and errors are those of ``list``.

        Counted by the store; what has expired and the service has not removed yet may be included.
        """
        return await self._count(filters)

    async def stats(self, **filters: Unpack[TraceFilters]) -> tuple[SessionTraces, ...]:
        """What traces there are of each session, the session of the latest first.

        Counted by the store where it can, as ``count`` is; traces of no session are left out. Arguments and errors are
        those of ``list``.
        """
        tallies = await self._store.tally(self.lists.listing(filters, "start_time").query, "session_id")
        stats = [
            SessionTraces(name, each.count, datetime.fromisoformat(each.first), datetime.fromisoformat(each.last))
            for name, each in tallies.items()
        ]
        return tuple(sorted(stats, key=lambda each: (each.last_trace_at, each.session_id), reverse=True))

    async def create_span(
        self,
        span: Span,
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> Span:
        """Write a span, whether its trace is stored already or not; one of the same id is replaced. One request.

        Args:
            span: what to write.
            user_id: only when its trace does not belong to another user, which is looked up before.
            expires_in: as in ``upsert``.
            expires_at: as in ``upsert``.

        Returns:
            What is stored, with its version.

        Raises:
            NotOwner: its trace belongs to another user.
            InvalidRecord: it ends before it starts, or has a value that no store can hold.
            RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        change = self._span(span, expires_in, expires_at)
        if user_id is not None and (error := await self._refusal(span.trace_id, user_id)) is not None:
            raise error
        return await self._apply(change)

    async def create_spans(
        self,
        spans: Iterable[Span] | AsyncIterable[Span],
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> BulkResult:
        """Write any number of spans, of any traces, as ``upsert_many`` writes records; see there.

        Args:
            spans: an iterable or asynchronous iterable.
            user_id: only those whose trace does not belong to another user; looked up once a trace.
            expires_in: as in ``upsert``, for every span.
            expires_at: as in ``upsert``, for every span.
            progress: is told after each batch how many spans are stored.
        """
        check_iterable(spans)
        refused: dict[str, CloudDBError | None] = {}

        async def looked_up() -> AsyncGenerator[Span, None]:
            async with aclosing(each_of(spans)) as each:
                async for span in each:
                    if isinstance(span, Span) and isinstance(span.trace_id, str) and span.trace_id not in refused:
                        refused[span.trace_id] = await self._refusal(span.trace_id, user_id)
                    yield span

        def change(span: Span) -> Upsert[Span]:
            change = self._span(span, expires_in, expires_at)
            if (error := refused.get(span.trace_id)) is not None:
                raise error
            return change

        return await self._write_many(looked_up() if user_id is not None else spans, change, progress)

    async def get_span(
        self, trace_id: str, span_id: str, *, user_id: str | None = None, consistency: Consistency | None = None
    ) -> Span | None:
        """One span of a trace, in one round trip.

        Args:
            trace_id: the trace.
            span_id: the span.
            user_id: only when the trace is stored and belongs to this user.
            consistency: as in ``get``.

        Returns:
            None when there is no such span, or its trace is not this user's.
        """
        keys = [Key("spans", plain(span_id), plain(trace_id)), *([self._key(trace_id)] if user_id is not None else [])]
        keys[0].check()
        consistency = check_consistency(consistency, self._connection.consistency)
        batch = await self._store.get(keys, consistency=consistency)
        span, *trace = batch.items
        if span is None or any(each is None or each.owner != user_id for each in trace):
            return None
        return _read_span(span, batch.degraded)

    async def list_spans(
        self,
        trace_id: str,
        *,
        limit: int = MAX_PAGE,
        cursor: str | None = None,
        user_id: str | None = None,
        consistency: Consistency | None = None,
    ) -> Page[Span]:
        """The spans of a trace, in the order in which they began.

        Args:
            trace_id: the trace.
            limit: how many at most, 1 to 1,000.
            cursor: go on after the page that carried it.
            user_id: only when the trace is stored and belongs to this user; looked up at the same time.
            consistency: as in ``get``.

        Raises:
            InvalidRecord: an argument is out of its range, or the cursor is of another trace.
            NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        check_limit(limit)
        query = _spans_query(trace_id)
        query.check()
        place = Cursor.decode(cursor, query) if cursor is not None else None
        strictness = check_consistency(consistency, self._connection.consistency)

        async def mine() -> bool:
            return user_id is None or await self.get(trace_id, user_id=user_id, consistency=strictness) is not None

        async def read() -> port.Page:
            return await self._store.query(query, limit=limit, cursor=place, consistency=strictness)

        owned, page = await gather([mine, read])
        assert isinstance(page, port.Page)
        if not owned:
            return Page([], None, page.degraded)
        spans = [_read_span(item, page.degraded) for item in page.items]
        return Page(spans, page.cursor.encode(query) if page.cursor is not None else None, page.degraded)

    async def delete(self, id: str, *, user_id: str | None = None) -> bool:
        """Delete a trace and its spans. The spans go first, so that the call can be repeated when it fails.

        Args:
            id: which trace.
            user_id: only when it belongs to this user, which is looked up first; then one that belongs to nobody, or
                is not stored, is left as it is, with its spans.

        Returns:
            Whether it was there, and this user's.

        Raises:
            BulkWriteError: some spans could not be deleted.
            InvalidRecord, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        key = self._key(id)
        if user_id is not None:
            item = (await self._store.get([key])).items[0]
            if item is None or item.owner != user_id:
                return False
        await self._clear(_spans_query(id), None, None)
        return not isinstance(await self._attempt(Removal(key, owner=user_id)), Refused)

    async def delete_many(
        self, ids: Iterable[str], *, user_id: str | None = None, progress: Callable[[int], None] | None = None
    ) -> int:
        """Delete traces and their spans, several at a time. Arguments are those of ``delete``.

        Returns:
            How many traces were there, and this user's.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. Repeat the call.
        """
        return await self._delete_each(ids, user_id, progress)

    def _owned(self, record: Trace, user_id: str | None) -> tuple[Trace, str | None]:
        owned, owner = super()._owned(record, user_id)
        return timed(owned), owner

    def _changed(self, record: Trace, function: Callable[[Trace], Trace | None]) -> Trace:
        before = (record.start_time, record.end_time)
        changed = super()._changed(record, function)
        moved = (changed.start_time, changed.end_time) != before
        return timed(changed.model_copy(update={"duration_ms": None}) if moved else changed)

    def _span(self, span: Span, expires_in: float | timedelta | None, expires_at: datetime | None) -> Upsert[Span]:
        """The write of a span over what is stored, or over nothing. Raises InvalidRecord."""
        require(Span, span, "span")
        span.check_types()
        span = self._expiring(timed(span), expires_in, expires_at)
        return Upsert(span.key, span)

    async def _refusal(self, trace_id: str, user_id: str | None) -> CloudDBError | None:
        """Why this user may not write spans of a trace: it is stored and another's, or no store can hold its id."""
        try:
            key = self._key(trace_id)
        except InvalidRecord as error:
            return error
        item = (await self._store.get([key])).items[0]
        foreign = item is not None and item.owner not in (None, user_id)
        return self._not_owner(key) if foreign else None


def _read_span(item: Item, degraded: bool) -> Span:
    span = Span.from_item(item)
    span.degraded = degraded
    return span


def _spans_query(trace_id: str) -> Query:
    return Query("spans", parent=plain(trace_id), sort="start_time")
