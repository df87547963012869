"""agno's calls about traces and spans."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from agno_clouddb.concurrency import gather
from agno_clouddb.database import Database
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.columns import cut
from agno_clouddb.integrations.agno.filters import Test, expression, narrowing
from agno_clouddb.integrations.agno.ids import absent, excluded
from agno_clouddb.integrations.agno.trace_rows import (
    agno_span,
    agno_trace,
    merged,
    span_record,
    trace_record,
    trace_row,
    utc,
)
from agno_clouddb.integrations.agno.trace_stats import Groups, SpanGroups
from agno_clouddb.records.traces import Span, Trace
from agno_clouddb.repositories.base import MAX_PAGE, Page

if TYPE_CHECKING:
    from agno.tracing.schemas import Span as AgnoSpan
    from agno.tracing.schemas import Trace as AgnoTrace

__all__ = ["TraceCalls"]

_KNOWN_SPANS = 10_000
_RECENT_TRACES = 16
_TRACES_AT_ONCE = 16
_STEP = 500
_TICK = timedelta(microseconds=1)


class TraceCalls(Family):
    """Traces and their spans. Reads are strongly consistent, unless ``consistency`` is given.

    Spans are kept beside their trace. One of which only the id is given is found in one request when this process has
    written or read it, or its trace a short time ago; else the traces are gone through, the latest first: three
    requests for each hundred. Spans whose trace is not stored are found by their trace's id alone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._traces_of: OrderedDict[str, str] = OrderedDict()
        self._recent: OrderedDict[str, None] = OrderedDict()

    async def upsert_trace(self, trace: AgnoTrace) -> None:
        """Write a trace, or merge it with the part of it that is stored: one request for a new one, else three.

        The earliest start and the latest end count, the latest status, and what was first given of run, session, user,
        agent, team and workflow. Its spans are counted when it is read.

        Raises:
            InvalidRecord: it has a value that no store can hold.
        """
        db = await self.database()
        await db.traces.upsert_trace(trace_record(trace), combine=merged)
        self._note_trace(trace.trace_id)

    async def get_trace(self, trace_id: str | None = None, run_id: str | None = None) -> AgnoTrace | None:
        """A trace, in two requests, the second of which counts its spans.

        Args:
            trace_id: which trace.
            run_id: the latest trace of this run, when no trace is named.
        """
        if excluded(trace_id or run_id or None):
            return None
        db = await self.database()
        if trace_id:
            trace = await db.traces.get(trace_id)
        elif run_id:
            traces = (await db.traces.list(run_id=run_id, limit=1)).items
            trace = traces[0] if traces else None
        else:
            return None
        if trace is None:
            return None
        return await self._counted(db, trace)

    async def get_traces(
        self,
        run_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        status: str | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int | None = 20,
        page: int | None = 1,
        filter_expr: dict[str, Any] | None = None,
    ) -> tuple[list[AgnoTrace], int]:
        """Traces, the latest first, and how many there are in all.

        A page costs what the list of one page costs, after the page before it was read within a minute, and else the
        reading of all up to it; and one request a trace, which counts its spans. The total is counted by the store. For
        a filter expression all traces are read that the other filters leave, and its own comparisons with AND.

        Args:
            run_id: only traces of this run.
            session_id: only traces of this session.
            user_id: only this user's.
            agent_id: only traces of this agent.
            team_id: only traces of this team.
            workflow_id: only traces of this workflow.
            status: only traces with this status.
            start_time: only traces that began at this moment or later.
            end_time: only traces that had ended at this moment.
            limit: how many; None: all.
            page: which page of so many, from 1 on.
            filter_expr: a filter expression, as ``to_dict`` of agno's filters makes it.

        Raises:
            ValueError: ``filter_expr`` is no valid expression.
        """
        test = expression(filter_expr) if filter_expr else None
        filters = {
            **(narrowing(filter_expr) if filter_expr else {}),
            **_given(run_id=run_id, session_id=session_id, agent_id=agent_id, team_id=team_id),
            **_given(user_id=user_id, workflow_id=workflow_id, status=status),
            **_given(
                started_from=utc(start_time) if start_time else None,
                ended_to=utc(end_time) + _TICK if end_time else None,
            ),
        }
        if excluded(user_id, *filters.values()):
            return [], 0
        db = await self.database()
        if test is not None:
            matching = [trace async for trace in self._matching(db, filters, test)]
            traces, total = list(cut(matching, limit, page)), len(matching)
        else:
            traces, total = await self._paged(db, filters, limit, page)
        counted = await gather([partial(self._counted, db, trace) for trace in traces], limit=_TRACES_AT_ONCE)
        return counted, total

    async def get_trace_stats(
        self,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int | None = 20,
        page: int | None = 1,
        filter_expr: dict[str, Any] | None = None,
        group_by: Literal["session", "agent", "team", "workflow", "endpoint"] = "session",
    ) -> tuple[list[dict[str, Any]], int]:
        """Numbers of traces for each session, agent, team, workflow or endpoint, and how many of these there are.

        All traces that match are read, some hundreds at a time: on DynamoDB one read unit each. Narrow them.

        Args:
            user_id: only this user's.
            agent_id: only traces of this agent.
            team_id: only traces of this team.
            workflow_id: only traces of this workflow.
            start_time: only traces that were first written at this moment or later.
            end_time: only traces that were first written at this moment or before.
            limit: how many groups; None: all.
            page: which page of so many, from 1 on.
            filter_expr: a filter expression, as ``to_dict`` of agno's filters makes it.
            group_by: what makes a group. Sessions are ordered by their last trace, the last first; all others by their
                number of traces, the greatest first.

        Raises:
            ValueError: ``group_by`` is none of these, or ``filter_expr`` is no valid expression.
        """
        groups = Groups(group_by)
        test = expression(filter_expr) if filter_expr else None
        filters = {
            **(narrowing(filter_expr) if filter_expr else {}),
            **_given(user_id=user_id, agent_id=agent_id, team_id=team_id, workflow_id=workflow_id),
            **_given(
                created_from=utc(start_time) if start_time else None,
                created_to=utc(end_time) + _TICK if end_time else None,
            ),
        }
        if excluded(user_id, *filters.values()):
            return [], 0
        async for trace in self._matching(await self.database(), filters, test):
            groups.add(trace)
        rows = groups.rows()
        return list(cut(rows, limit, page)), len(rows)

    async def create_span(self, span: AgnoSpan) -> None:
        """Write a span, in one request; one of the same id stays as it is, so that a repetition does no harm.

        Raises:
            What ``create_spans`` raises.
        """
        await self.create_spans([span])

    async def create_spans(self, spans: list[AgnoSpan]) -> None:
        """Write spans, several at once, each on its own; one of the same id stays as it is.

        Raises:
            BulkWriteError: some are not stored; says which, and why. The others are.
        """
        if not spans:
            return
        db = await self.database()
        records = [span_record(span) for span in spans]
        await db.traces.create_spans(records, keep=True)
        for record in records:
            self._note_span(record)

    async def get_span(self, span_id: str) -> AgnoSpan | None:
        """A span of whatever trace. None when there is none, after all traces were gone through.

        Args:
            span_id: which span.
        """
        if absent(span_id):
            return None
        db = await self.database()
        if (trace_id := self._traces_of.get(span_id)) is not None:
            span = await db.traces.get_span(trace_id, span_id)
        else:
            span = None
        if span is None:
            span = await db.traces.find_span(span_id, traces=tuple(reversed(self._recent)))
        if span is None:
            return None
        self._note_span(span)
        return agno_span(span)

    async def get_spans(
        self, trace_id: str | None = None, parent_span_id: str | None = None, limit: int | None = 1000
    ) -> list[AgnoSpan]:
        """Spans, the first created first.

        All spans of the trace are read whatever the limit. Without ``trace_id`` those of one trace after the other, the
        earliest first, until there are enough.

        Args:
            trace_id: only spans of this trace.
            parent_span_id: only the direct children of this span.
            limit: how many; None, 0 or less: all.
        """
        if excluded(trace_id or None):
            return []
        limit = limit if limit is not None and limit > 0 else None
        db = await self.database()
        found: list[Span] = []
        async for spans in self._spans_by_trace(db, {"trace_id": trace_id} if trace_id else {}):
            found += [each for each in spans if not parent_span_id or each.parent_span_id == parent_span_id]
            if limit is not None and len(found) >= limit:
                break
        found = found[:limit]
        for span in found:
            self._note_span(span)
        return [agno_span(span) for span in found]

    async def get_span_stats(
        self,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        name: str | None = None,
        span_type: str | None = None,
        limit: int | None = 20,
        page: int | None = 1,
        sort_by: str = "total_calls",
        sort_order: str = "desc",
    ) -> tuple[list[dict[str, Any]], int]:
        """Numbers of spans for each name and type, and how many of these there are.

        All spans of all traces that match are read, one request a trace: narrow them by an agent, team or workflow, or
        by time, when only traces that were under way then are read.

        Args:
            agent_id: only spans of traces of this agent.
            team_id: only spans of traces of this team.
            workflow_id: only spans of traces of this workflow.
            start_time: only spans that began at this moment or later.
            end_time: only spans that began at this moment or before.
            name: only spans of this name.
            span_type: only spans of this type, such as ``LLM`` or ``TOOL``.
            limit: how many groups; None: all.
            page: which page of so many, from 1 on.
            sort_by: ``total_calls``, ``avg_duration_ms``, ``max_duration_ms``, ``error_count`` or ``last_called_at``;
                what is none of these stands for the first.
            sort_order: ``asc``; or else the greatest first.
        """
        low, high = utc(start_time) if start_time else None, utc(end_time) if end_time else None
        filters = {
            **_given(agent_id=agent_id, team_id=team_id, workflow_id=workflow_id),
            **_given(ended_from=low, started_to=high + _TICK if high else None),
        }
        if excluded(*filters.values()):
            return [], 0
        groups = SpanGroups(name, span_type)
        async for spans in self._spans_by_trace(await self.database(), filters):
            for span in spans:
                if (low is None or span.start_time >= low) and (high is None or span.start_time <= high):
                    groups.add(span)
        rows = groups.rows(sort_by, ascending=sort_order == "asc")
        return list(cut(rows, limit, page)), len(rows)

    async def _paged(
        self, db: Database, filters: Mapping[str, Any], limit: int | None, page: int | None
    ) -> tuple[list[Trace], int]:
        """One page of traces, and how many there are."""

        async def listed(size: int, cursor: str | None) -> Page[Trace]:
            return await db.traces.list(limit=size, cursor=cursor, **filters)

        async def read() -> list[Trace]:
            of = ("traces", *sorted(filters.items()))
            return await self._bookmarks.page(listed, of=of, limit=limit, page=max(1, page or 1))

        async def counted() -> int:
            return await db.traces.count(**filters)

        if limit is None:
            traces = await read()
            return traces, len(traces)
        found, total = await gather([read, counted])
        assert isinstance(found, list)
        assert isinstance(total, int)
        return found, total

    async def _matching(self, db: Database, filters: Mapping[str, Any], test: Test | None) -> AsyncIterator[Trace]:
        """All traces that match, the latest first."""
        async for trace in db.traces.iterate(page_size=_STEP, **filters):
            if test is None or test(trace_row(trace)):
                yield trace

    async def _spans_by_trace(self, db: Database, filters: Mapping[str, Any]) -> AsyncIterator[list[Span]]:
        """The spans of each trace that matches, the first created first; the traces in the order in which they began.

        Args:
            db: where they are.
            filters: of ``db.traces``; or one trace, which need not be stored.
        """
        if "trace_id" in filters:
            yield await _spans_of(db, filters["trace_id"])
            return
        traces: list[str] = []
        async for trace in db.traces.iterate(sort="start_time", page_size=_STEP, **filters):
            traces.append(trace.trace_id)
            if len(traces) == _TRACES_AT_ONCE:
                for spans in await gather([partial(_spans_of, db, each) for each in traces]):
                    yield spans
                traces = []
        for spans in await gather([partial(_spans_of, db, each) for each in traces]):
            yield spans

    async def _counted(self, db: Database, trace: Trace) -> AgnoTrace:
        counts = await db.traces.count_spans(trace.trace_id)
        self._note_trace(trace.trace_id)
        return agno_trace(trace, counts.total_spans, counts.error_count)

    def _note_trace(self, trace_id: str) -> None:
        self._recent[trace_id] = None
        self._recent.move_to_end(trace_id)
        if len(self._recent) > _RECENT_TRACES:
            self._recent.popitem(last=False)

    def _note_span(self, span: Span) -> None:
        self._traces_of[span.span_id] = span.trace_id
        self._traces_of.move_to_end(span.span_id)
        if len(self._traces_of) > _KNOWN_SPANS:
            self._traces_of.popitem(last=False)


def _given(**filters: Any) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value}


async def _spans_of(db: Database, trace_id: str) -> list[Span]:
    """All spans of a trace, the first created first."""
    spans: list[Span] = []
    cursor: str | None = None
    while True:
        page = await db.traces.list_spans(trace_id, limit=MAX_PAGE, cursor=cursor)
        spans += page.items
        cursor = page.cursor
        if cursor is None:
            return sorted(spans, key=lambda span: (span.created_at or span.start_time, span.start_time, span.span_id))
