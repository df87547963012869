"""Rows of agno's tables of traces and spans, and the records that keep them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from agno_clouddb.records.traces import Span, Trace

if TYPE_CHECKING:
    from agno.tracing.schemas import Span as AgnoSpan
    from agno.tracing.schemas import Trace as AgnoTrace

__all__ = ["agno_span", "agno_trace", "merged", "span_record", "trace_record", "trace_row", "utc"]

_CONTEXT = ("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id")
_LEVELS = ("workflow_id", "team_id", "agent_id")
_ROOTS = (".run", ".arun")
_MILLISECOND = timedelta(milliseconds=1)


def utc(moment: datetime) -> datetime:
    """A moment with a zone; one without counts as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def trace_record(trace: AgnoTrace) -> Trace:
    """The record that keeps an agno trace."""
    context: dict[str, Any] = {name: getattr(trace, name) or None for name in _CONTEXT}
    return Trace(
        **context,
        trace_id=trace.trace_id,
        name=trace.name,
        status=trace.status,
        start_time=utc(trace.start_time),
        end_time=utc(trace.end_time),
        duration_ms=trace.duration_ms,
        total_spans=trace.total_spans,
        error_count=trace.error_count,
        created_at=utc(trace.created_at),
    )


def merged(stored: Trace, part: Trace) -> Trace:
    """A stored trace and a further part of it, as agno's SQLite database merges them.

    The status is that of the part that came last; the name that of the highest component among parts that are roots.
    """
    start, end = min(stored.start_time, part.start_time), max(stored.end_time, part.end_time)
    update: dict[str, Any] = {name: getattr(stored, name) or getattr(part, name) for name in _CONTEXT}
    update |= {
        "start_time": start,
        "end_time": end,
        "duration_ms": (end - start) // _MILLISECOND,
        "status": part.status,
        "name": part.name if _level(part) > _level(stored) else stored.name,
        "total_spans": stored.total_spans + part.total_spans,
        "error_count": stored.error_count + part.error_count,
    }
    return stored.model_copy(update=update)


def _level(trace: Trace) -> int:
    """How high the component is that a root is of; 0 for what is no root."""
    if not any(each in trace.name.lower() for each in _ROOTS):
        return 0
    return next((len(_LEVELS) - place for place, name in enumerate(_LEVELS) if getattr(trace, name) is not None), 0)


def trace_row(trace: Trace) -> dict[str, Any]:
    """The row of a trace, as agno's own table has it, which filter expressions are about."""
    created = trace.created_at or trace.start_time
    return {
        "trace_id": trace.trace_id,
        "name": trace.name,
        "status": trace.status,
        "start_time": utc(trace.start_time).isoformat(),
        "end_time": utc(trace.end_time).isoformat(),
        "duration_ms": trace.duration_ms or 0,
        **{name: getattr(trace, name) for name in _CONTEXT},
        "created_at": utc(created).isoformat(),
    }


def agno_trace(trace: Trace, spans: int, errors: int) -> AgnoTrace:
    """An agno trace, with how many spans it has and how many of them failed."""
    from agno.tracing.schemas import Trace as AgnoTrace

    return AgnoTrace.from_dict({**trace_row(trace), "total_spans": spans, "error_count": errors})


def span_record(span: AgnoSpan) -> Span:
    """The record that keeps an agno span."""
    return Span(
        span_id=span.span_id,
        trace_id=span.trace_id,
        parent_span_id=span.parent_span_id or None,
        name=span.name,
        span_kind=span.span_kind,
        status_code=span.status_code,
        status_message=span.status_message,
        start_time=utc(span.start_time),
        end_time=utc(span.end_time),
        duration_ms=span.duration_ms,
        attributes=span.attributes,
        created_at=utc(span.created_at),
    )


def agno_span(span: Span) -> AgnoSpan:
    """An agno span."""
    from agno.tracing.schemas import Span as AgnoSpan

    return AgnoSpan(
        span_id=span.span_id,
        trace_id=span.trace_id,
        parent_span_id=span.parent_span_id,
        name=span.name,
        span_kind=span.span_kind,
        status_code=span.status_code,
        status_message=span.status_message,
        start_time=utc(span.start_time),
        end_time=utc(span.end_time),
        duration_ms=span.duration_ms or 0,
        attributes=span.attributes,  # type: ignore[arg-type]  # a row may have none, as in agno's own table
        created_at=utc(span.created_at or span.start_time),
    )
