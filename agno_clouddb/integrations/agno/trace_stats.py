"""Numbers of traces and spans by group, as agno's SQLite database counts them; held are the groups alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agno_clouddb.integrations.agno.columns import in_order
from agno_clouddb.integrations.agno.trace_rows import SPANS, TRACES, utc
from agno_clouddb.records.traces import Span, Trace

__all__ = ["Groups", "SpanGroups"]

_GROUPS = ("session", "agent", "team", "workflow", "endpoint")
_OWNERS = ("user_id", "agent_id", "team_id", "workflow_id")
_COMPONENTS = ("agent_id", "team_id", "workflow_id")
_SPAN_TYPE = "openinference.span.kind"
_SORTS = ("total_calls", "avg_duration_ms", "max_duration_ms", "error_count", "last_called_at")


@dataclass(slots=True)
class _Durations:
    """How long what is in a group took, in milliseconds."""

    count: int = 0
    total: float = 0
    longest: float = 0
    errors: int = 0

    def add(self, duration: float | None, *, failed: bool) -> None:
        milliseconds = duration or 0
        self.longest = max(self.longest, milliseconds) if self.count else milliseconds
        self.count += 1
        self.total += milliseconds
        self.errors += failed

    @property
    def average(self) -> float:
        return self.total / self.count


@dataclass(slots=True)
class _Traces:
    """The traces of a group."""

    first: datetime
    last: datetime
    durations: _Durations = field(default_factory=_Durations)
    greatest: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(_OWNERS))
    sessions: set[str] = field(default_factory=set)


class Groups:
    """Traces by session, component or endpoint.

    Args:
        by: ``session``, ``agent``, ``team``, ``workflow`` or ``endpoint``.

    Raises:
        ValueError: it is none of these.
    """

    def __init__(self, by: str) -> None:
        if by not in _GROUPS:
            raise ValueError(f"Invalid group_by value: {by!r}. Allowed: {', '.join(_GROUPS)}")
        self._label = "name" if by == "endpoint" else f"{by}_id"
        self._groups: dict[str, _Traces] = {}

    def add(self, trace: Trace) -> None:
        """Count a trace, if it is of a group."""
        given = TRACES.given(trace, ("name", "session_id", *_OWNERS, "duration_ms"))
        name: str | None = given[self._label]
        component = any(given[each] is not None for each in _COMPONENTS)
        if name is None or (self._label == "name" and component):
            return
        created = utc(trace.created_at or trace.start_time)
        group = self._groups.setdefault(name, _Traces(created, created))
        group.first, group.last = min(group.first, created), max(group.last, created)
        group.durations.add(given["duration_ms"], failed=trace.status == "ERROR")
        if self._label != "session_id":
            group.sessions.update(() if given["session_id"] is None else (given["session_id"],))
            return
        for each in _OWNERS:
            found = [value for value in (group.greatest[each], given[each]) if value is not None]
            group.greatest[each] = max(found, default=None)

    def rows(self) -> list[dict[str, Any]]:
        """The groups, in agno's order."""
        if self._label == "session_id":
            rows = [self._of_session(name, group) for name, group in sorted(self._groups.items())]
            return sorted(rows, key=lambda row: row["last_trace_at"], reverse=True)
        rows = [self._of_component(name, group) for name, group in sorted(self._groups.items())]
        return sorted(rows, key=lambda row: row["total_traces"], reverse=True)

    def _of_session(self, name: str, group: _Traces) -> dict[str, Any]:
        return {
            "session_id": name,
            **group.greatest,
            "total_traces": group.durations.count,
            "first_trace_at": group.first,
            "last_trace_at": group.last,
        }

    def _of_component(self, name: str, group: _Traces) -> dict[str, Any]:
        return {
            self._label: name,
            "total_traces": group.durations.count,
            "total_sessions": len(group.sessions),
            "avg_duration_ms": round(group.durations.average, 1),
            "p95_duration_ms": None,
            "max_duration_ms": group.durations.longest,
            "error_traces": group.durations.errors,
            "first_trace_at": group.first,
            "last_trace_at": group.last,
        }


class SpanGroups:
    """Spans by name and type.

    Args:
        name: only spans of this name; None or empty: any.
        span_type: only spans of this type; None or empty: any.
    """

    def __init__(self, name: str | None, span_type: str | None) -> None:
        self._name = name
        self._type = span_type
        self._groups: dict[tuple[str, Any], _Durations] = {}
        self._last: dict[tuple[str, Any], datetime] = {}

    def add(self, span: Span) -> None:
        """Count a span, if it is one of those wanted."""
        span_type = _plain((span.attributes or {}).get(_SPAN_TYPE))
        if (self._name and span.name != self._name) or (self._type and span_type != self._type):
            return
        group = span.name, span_type
        duration = SPANS.given(span, ("duration_ms",))["duration_ms"]
        self._groups.setdefault(group, _Durations()).add(duration, failed=span.status_code == "ERROR")
        began = utc(span.start_time)
        self._last[group] = max(self._last.get(group, began), began)

    def rows(self, sort_by: str, *, ascending: bool) -> list[dict[str, Any]]:
        """The groups, by one of their numbers, then by name and type."""
        found = [(self._numbers(group), group) for group in self._groups]
        found.sort(key=lambda each: (each[1][0], each[1][1] is not None, str(each[1][1])))
        sort = sort_by if sort_by in _SORTS else _SORTS[0]
        ordered = in_order([numbers for numbers, _ in found], lambda row: row[sort], ascending=ascending)
        for row in ordered:
            row["avg_duration_ms"] = round(row["avg_duration_ms"], 1)
        return ordered

    def _numbers(self, group: tuple[str, Any]) -> dict[str, Any]:
        durations = self._groups[group]
        return {
            "name": group[0],
            "span_type": group[1],
            "total_calls": durations.count,
            "avg_duration_ms": durations.average,
            "p95_duration_ms": None,
            "max_duration_ms": durations.longest,
            "error_count": durations.errors,
            "last_called_at": self._last[group],
        }


def _plain(value: Any) -> str | float | None:
    """A JSON value as SQLite takes it out of an object: a truth value is a number, and what has several its text."""
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return int(value) if isinstance(value, bool) else value
