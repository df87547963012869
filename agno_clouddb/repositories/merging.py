"""Traces whose parts come one by one: what becomes of a stored part and a further one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.base import to_text
from agno_clouddb.records.traces import Span, Trace
from agno_clouddb.repositories.changes import Change, touched
from agno_clouddb.stores.base import Condition, Key, Mutation, Put

__all__ = ["Combination", "Merge", "combined", "timed"]

T = TypeVar("T", Trace, Span)

Combination = Callable[[Trace, Trace], Trace]
"""Makes of a stored trace and a further part of it what is stored then."""


class Merge(Change[Trace]):
    """Write a trace over nothing, or merged with what is stored.

    Args:
        key: where the trace is stored.
        trace: the part to write.
        owner: the user that the stored trace must belong to, unless it belongs to nobody; None: anybody.
        combine: what becomes of the stored trace and the part.
        stored: what is stored.
    """

    def __init__(
        self, key: Key, trace: Trace, owner: str | None, combine: Combination, stored: Trace | None = None
    ) -> None:
        self.key = key
        self._owner = owner
        self.expected = stored.version if stored is not None else None
        if stored is not None:
            later = _later(stored.expires_at, trace.expires_at)
            trace = combine(stored, trace).model_copy(update={"expires_at": later})
        self._trace = touched(timed(trace))

    def mutation(self, version: str) -> Mutation:
        condition = Condition(absent=self.expected is None, expected=self.expected, owner=self._owner, exclusive=True)
        return Put(self._trace.to_item(self.key, version), condition)

    def result(self, version: str) -> Trace:
        return self._trace.model_copy(update={"version": version})


_CONTEXT = ("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id")
_LEVELS = ("workflow_id", "team_id", "agent_id")
_SEVERITIES = {"ERROR": 3, "OK": 2, "UNSET": 0}


def combined(stored: Trace, part: Trace) -> Trace:
    """A stored trace and a further part of it, in whatever order they come."""
    start, end = min(stored.start_time, part.start_time), max(stored.end_time, part.end_time)
    update: dict[str, Any] = dict(part.model_extra or {})
    update |= {name: getattr(stored, name) or getattr(part, name) for name in _CONTEXT}
    update |= {
        "start_time": start,
        "end_time": end,
        "duration_ms": _milliseconds(start, end),
        "total_spans": stored.total_spans + part.total_spans,
        "error_count": stored.error_count + part.error_count,
        "status": part.status if _severity(part) > _severity(stored) else stored.status,
        "name": part.name if _level(part) > _level(stored) else stored.name,
    }
    return stored.model_copy(update=update)


def _later(stored: datetime | None, part: datetime | None) -> datetime | None:
    """The later of the stored expiry and that of a part; what is kept for good stays so."""
    return stored if stored is None or part is None else max(stored, part)


def _level(trace: Trace) -> int:
    """How much of the whole a part of a trace is about: a workflow's is above a team's, and that above an agent's."""
    return next((len(_LEVELS) - n for n, name in enumerate(_LEVELS) if getattr(trace, name)), 0)


def _severity(trace: Trace) -> int:
    """Which of two statuses a trace keeps: the greater."""
    return _SEVERITIES.get(trace.status, 1)


def timed(record: T) -> T:
    """A trace or span with its duration."""
    to_text("start_time", record.start_time)
    to_text("end_time", record.end_time)
    if record.end_time < record.start_time:
        raise InvalidRecord("end_time", "is before start_time", collection=record.collection.name)
    if record.duration_ms is not None:
        return record
    return record.model_copy(update={"duration_ms": _milliseconds(record.start_time, record.end_time)})


def _milliseconds(start: datetime, end: datetime) -> int:
    return (end - start) // timedelta(milliseconds=1)
