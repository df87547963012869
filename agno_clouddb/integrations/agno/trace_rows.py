"""Rows of agno's tables of traces and spans, and the records that keep them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.integrations.agno.kept import Fitting, indexed, object_alone, whole
from agno_clouddb.integrations.agno.shapes import plain_json
from agno_clouddb.records.base import plain
from agno_clouddb.records.traces import Span, Trace
from agno_clouddb.stores import codec

if TYPE_CHECKING:
    from agno.tracing.schemas import Span as AgnoSpan
    from agno.tracing.schemas import Trace as AgnoTrace

__all__ = [
    "SPANS",
    "TRACES",
    "agno_span",
    "agno_trace",
    "merged",
    "span_record",
    "trace_record",
    "trace_row",
    "utc",
]

_CONTEXT = ("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id")
_SPAN = (
    "span_id",
    "trace_id",
    "parent_span_id",
    "name",
    "span_kind",
    "status_code",
    "status_message",
    "duration_ms",
    "attributes",
)
_TEXTS = ("name", "status_message")
_UNKNOWN = "UNKNOWN"
_LEVELS = ("workflow_id", "team_id", "agent_id")
_ROOTS = (".run", ".arun")
_MILLISECOND = timedelta(milliseconds=1)

_log = logging.getLogger(__name__)


def _status(value: Any) -> Any:
    return indexed(value) or _UNKNOWN


TRACES = Fitting({**dict.fromkeys(_CONTEXT, indexed), "status": _status, "duration_ms": whole})
"""How agno's columns of a trace fit into a record: they may have an empty text."""

SPANS = Fitting({"parent_span_id": indexed, "attributes": object_alone, "duration_ms": whole})
"""How those of a span do."""


def utc(moment: datetime) -> datetime:
    """A moment with a zone; one without counts as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def trace_record(trace: AgnoTrace) -> Trace:
    """The record that keeps an agno trace.

    Raises:
        InvalidRecord: a value is of another type than a record can have.
    """
    names = (*_CONTEXT, "trace_id", "status", "duration_ms", "total_spans", "error_count")
    values = {name: plain(getattr(trace, name)) for name in names} | {"name": plain_json(trace.name)}
    return Trace.checked(**TRACES.fitted(values | _times(trace)))


def merged(stored: Trace, part: Trace) -> Trace:
    """A stored trace and a further part of it, as agno's SQLite database merges them.

    The status is that of the part that came last; the name that of the highest component among parts that are roots.
    """
    start, end = min(stored.start_time, part.start_time), max(stored.end_time, part.end_time)
    before, further = TRACES.given(stored, _CONTEXT), TRACES.given(part, _CONTEXT)
    of_part = _level(part, further) > _level(stored, before)
    values: dict[str, Any] = {name: further[name] if before[name] is None else before[name] for name in _CONTEXT}
    values |= {
        "start_time": start,
        "end_time": end,
        "duration_ms": (end - start) // _MILLISECOND,
        "name": part.name if of_part else stored.name,
        "total_spans": stored.total_spans + part.total_spans,
        "error_count": stored.error_count + part.error_count,
    }
    return TRACES.changed(stored, values | TRACES.given(part, ("status",)))


def _level(trace: Trace, given: Mapping[str, Any]) -> int:
    """How high the component is that a root is of; 0 for what is no root."""
    if not any(each in trace.name.lower() for each in _ROOTS):
        return 0
    return next((len(_LEVELS) - place for place, name in enumerate(_LEVELS) if given[name] is not None), 0)


def trace_row(trace: Trace) -> dict[str, Any]:
    """The row of a trace, as agno's own table has it, which filter expressions are about."""
    created = trace.created_at or trace.start_time
    given = TRACES.given(trace, (*_CONTEXT, "status", "duration_ms"))
    return {
        "trace_id": trace.trace_id,
        "name": trace.name,
        **given,
        "start_time": utc(trace.start_time).isoformat(),
        "end_time": utc(trace.end_time).isoformat(),
        "duration_ms": given["duration_ms"] or 0,
        "created_at": utc(created).isoformat(),
    }


def agno_trace(trace: Trace, spans: int, errors: int) -> AgnoTrace:
    """An agno trace, with how many spans it has and how many of them failed."""
    from agno.tracing.schemas import Trace as AgnoTrace

    return AgnoTrace.from_dict({**trace_row(trace), "total_spans": spans, "error_count": errors})


def span_record(span: AgnoSpan) -> Span:
    """The record that keeps an agno span.

    Raises:
        InvalidRecord: a value is of another type than a record can have.
    """
    values = {name: plain(getattr(span, name)) for name in _SPAN}
    values |= {name: plain_json(values[name]) for name in _TEXTS}
    try:
        codec.check_json(values["attributes"], "attributes")  # which are long, and most often need no copy
    except InvalidRecord:
        values["attributes"] = plain_json(values["attributes"])
    return Span.checked(**SPANS.fitted(values | _times(span)))


def _times(given: AgnoTrace | AgnoSpan) -> dict[str, datetime]:
    """When it began, ended and was made. A clock may have been set back meanwhile."""
    start, end = utc(given.start_time), utc(given.end_time)
    if end < start:
        _log.warning("%r ends at %s, before it begins at %s: it is stored as ending then", given.name, end, start)
    return {"start_time": start, "end_time": max(start, end), "created_at": utc(given.created_at)}


def agno_span(span: Span) -> AgnoSpan:
    """An agno span."""
    from agno.tracing.schemas import Span as AgnoSpan

    values = SPANS.given(span, _SPAN)
    return AgnoSpan(
        **values | {"duration_ms": values["duration_ms"] or 0},
        start_time=utc(span.start_time),
        end_time=utc(span.end_time),
        created_at=utc(span.created_at or span.start_time),
    )
