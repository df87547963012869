"""Spans: the steps of traces, each kept beside its trace."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import NamedTuple

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError, InvalidRecord
from agno_clouddb.records.base import plain
from agno_clouddb.records.traces import FAILED, Span, Trace
from agno_clouddb.repositories.base import MAX_PAGE, Page, check_consistency, check_limit, require
from agno_clouddb.repositories.bulk import BulkResult, each_of
from agno_clouddb.repositories.changes import Upsert
from agno_clouddb.repositories.merging import timed
from agno_clouddb.repositories.records import Records, check_iterable
from agno_clouddb.stores import base as port
from agno_clouddb.stores.base import Consistency, Cursor, Item, Key, Query, Refused

__all__ = ["SpanCounts", "Spans", "spans_query"]

_TRACES = 100
"""How many traces are looked in at once for a span."""


class SpanCounts(NamedTuple):
    """How many spans a trace has.

    Args:
        total_spans: how many in all.
        error_count: how many of them have the status ``ERROR``.
    """

    total_spans: int
    error_count: int


class Spans(Records[Trace]):
    """What is done with the spans of traces."""

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
        keep: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> BulkResult:
        """Write any number of spans, of any traces, as ``upsert_many`` writes records; see there.

        Args:
            spans: an iterable or asynchronous iterable.
            user_id: only those whose trace does not belong to another user; looked up once a trace.
            expires_in: as in ``upsert``, for every span.
            expires_at: as in ``upsert``, for every span.
            keep: a span that is stored stays as it is, and has no version in the result; else it is replaced.
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
            return _Addition(change.key, change.written) if keep else change

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
        keys = [_span_key(trace_id, span_id), *([self._key(trace_id)] if user_id is not None else [])]
        consistency = check_consistency(consistency, self._connection.consistency)
        batch = await self._store.get(keys, consistency=consistency)
        span, *trace = batch.items
        if span is None or any(each is None or each.owner != user_id for each in trace):
            return None
        return _read_span(span, batch.degraded)

    async def find_span(
        self, span_id: str, *, traces: Iterable[str] = (), consistency: Consistency | None = None
    ) -> Span | None:
        """A span whose trace is not known, looked for in one stored trace after the other, the latest first.

        There is no index by span, which would cost each span a write unit. A hundred traces cost two requests, three
        on DynamoDB, and two read units each there: so a span of late is found at once, and one of long ago, or none,
        after all traces were gone through. Name the traces that it may be in.

        Args:
            span_id: which span.
            traces: the ids of traces to look in first, in one round trip a hundred; they need not be stored.
            consistency: as in ``get``.

        Returns:
            The span; of several of this id that of the first trace that has one; None when there is none.

        Raises:
            InvalidRecord, NotProvisioned, Throttled, StoreUnavailable: as in ``get``.
        """
        consistency = check_consistency(consistency, self._connection.consistency)
        named = list(dict.fromkeys(traces))
        for start in range(0, len(named), _TRACES):
            span = await self._span_in(named[start : start + _TRACES], span_id, consistency)
            if span is not None:
                return span
        query, cursor = Query("traces", sort="start_time", descending=True), None
        while True:
            page = await self._store.query(query, limit=_TRACES, cursor=cursor, consistency=consistency)
            further = [item.key.id for item in page.items if item.key.id not in named]
            span = await self._span_in(further, span_id, consistency)
            cursor = page.cursor
            if span is not None or cursor is None:
                return span

    async def _span_in(self, traces: Sequence[str], span_id: str, consistency: Consistency) -> Span | None:
        keys = [_span_key(trace_id, span_id) for trace_id in traces]
        batch = await self._store.get(keys, consistency=consistency) if keys else port.Batch(())
        found = next((item for item in batch.items if item is not None), None)
        return _read_span(found, batch.degraded) if found is not None else None

    async def count_spans(self, trace_id: str) -> SpanCounts:
        """How many spans a trace has, and how many of them failed, in one request.

        Counted from an index on DynamoDB, which costs about half a read unit for forty spans, and from the fields of
        documents on Firestore; what has expired and the service has not removed yet may be included.

        Raises:
            InvalidRecord: ``trace_id`` is no valid id.
            NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        tallies = await self._store.tally(spans_query(trace_id), "outcome")
        counts = {outcome: tally.count for outcome, tally in tallies.items()}
        return SpanCounts(sum(counts.values()), counts.get(FAILED, 0))

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
        query = spans_query(trace_id)
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


class _Addition(Upsert[Span]):
    """Write a span over nothing; one that is stored stays."""

    accepts = frozenset({"exists"})

    def adapt(self, refused: Refused) -> bool:
        return False


def _read_span(item: Item, degraded: bool) -> Span:
    span = Span.from_item(item)
    span.degraded = degraded
    return span


def _span_key(trace_id: str, span_id: str) -> Key:
    key = Key("spans", plain(span_id), plain(trace_id))
    key.check()
    return key


def spans_query(trace_id: str) -> Query:
    """The list of a trace's spans, in the order in which they began."""
    return Query("spans", parent=plain(trace_id), sort="start_time")
