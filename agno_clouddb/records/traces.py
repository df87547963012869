"""Traces and their spans."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from agno_clouddb.records.base import Record
from agno_clouddb.stores.schema import SPANS, TRACES, Collection

__all__ = ["FAILED", "Span", "Trace"]

FAILED = "error"
"""The outcome of a span that failed."""


class Trace(Record):
    """What happened in one run, as a whole; the steps are its spans.

    Args:
        trace_id: unique in the database.
        name: what was run.
        status: ``OK``, ``ERROR`` or ``UNSET``.
        start_time: when the first span began.
        end_time: when the last span ended.
        duration_ms: milliseconds from the first to the last; computed from these when None.
        total_spans: how many spans there are.
        error_count: how many of them failed.
        run_id: the run.
        session_id: the session of the run.
        user_id: the owner; None: nobody's.
        agent_id: the agent that ran.
        team_id: the team that ran.
        workflow_id: the workflow that ran.
        created_at: when it was first written; set by the library when None.
    """

    collection: ClassVar[Collection] = TRACES

    trace_id: str
    name: str
    start_time: datetime
    end_time: datetime
    status: str = "UNSET"
    duration_ms: int | None = None
    total_spans: int = 0
    error_count: int = 0
    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    team_id: str | None = None
    workflow_id: str | None = None
    created_at: datetime | None = None


class Span(Record):
    """One step of a trace.

    Args:
        span_id: unique in its trace.
        trace_id: the trace.
        name: what was done.
        start_time: when it began.
        end_time: when it ended.
        parent_span_id: the span that it is a part of; None: it is the root.
        span_kind: ``INTERNAL``, ``SERVER``, ``CLIENT``, ``PRODUCER`` or ``CONSUMER``.
        status_code: ``OK``, ``ERROR`` or ``UNSET``.
        status_message: what went wrong.
        duration_ms: milliseconds that it took; computed when None.
        attributes: any JSON object.
        created_at: when it was written; set by the library when None, also when one of the same id is replaced.
    """

    collection: ClassVar[Collection] = SPANS

    span_id: str
    trace_id: str
    name: str
    start_time: datetime
    end_time: datetime
    parent_span_id: str | None = None
    span_kind: str = "INTERNAL"
    status_code: str = "UNSET"
    status_message: str | None = None
    duration_ms: int | None = None
    attributes: dict[str, Any] | None = None
    created_at: datetime | None = None

    def derived_fields(self) -> dict[str, str]:
        return {"outcome": FAILED if self.status_code == "ERROR" else "other"}
