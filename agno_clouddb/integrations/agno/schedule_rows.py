"""Rows of schedules and of their runs, and the entries that keep them.

A schedule is listed by its owner, by whether it is enabled, and, while it is enabled, by when it is due. Its name is
reserved by an entry whose id is made of owner and name, so that of two schedules with one name only one can be written.

The runs of a schedule are listed under a kind of entries of their own, one for each schedule, by creation and by how
late they are: so the latest run of a schedule is the first of one list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from agno_clouddb.integrations.agno.tables import ListedBy, Table
from agno_clouddb.records.entries import Entry

__all__ = [
    "NAMES",
    "SCHEDULES",
    "SCHEDULE_RUNS",
    "changed",
    "due_text",
    "name_id",
    "reservation",
    "run_entry",
    "run_filters",
    "schedule_entry",
    "schedule_filters",
]

SCHEDULES = Table(
    kind="schedule",
    columns=(
        "id",
        "name",
        "description",
        "method",
        "endpoint",
        "payload",
        "cron_expr",
        "timezone",
        "timeout_seconds",
        "max_retries",
        "retry_delay_seconds",
        "enabled",
        "next_run_at",
        "locked_by",
        "locked_at",
        "user_id",
        "managed_by",
        "target_type",
        "target_id",
        "created_by_run_id",
        "created_by_session_id",
        "updated_by_run_id",
        "updated_by_session_id",
        "disabled_reason",
        "created_at",
        "updated_at",
    ),
    required=frozenset(
        {
            "id",
            "name",
            "method",
            "endpoint",
            "cron_expr",
            "timezone",
            "timeout_seconds",
            "max_retries",
            "retry_delay_seconds",
            "enabled",
            "created_at",
        }
    ),
    json=frozenset({"payload"}),
)

SCHEDULE_RUNS = Table(
    kind="schedule_run",
    columns=(
        "id",
        "schedule_id",
        "attempt",
        "triggered_at",
        "completed_at",
        "status",
        "status_code",
        "run_id",
        "session_id",
        "error",
        "input",
        "output",
        "requirements",
        "user_id",
        "created_at",
    ),
    required=frozenset({"id", "schedule_id", "attempt", "status", "created_at"}),
    json=frozenset({"input", "output", "requirements"}),
)

NAMES = "schedule_name"

_DIGITS = 12
_NEVER = "-" * _DIGITS  # before all digits, as SQL orders NULL


def due_text(seconds: float | None) -> str:
    """Seconds since the epoch, from 1970 to the year 33658, as text in the same order; None before all."""
    return _NEVER if seconds is None else f"{min(max(int(seconds), 0), 10**_DIGITS - 1):0{_DIGITS}d}"


def schedule_entry(row: Mapping[str, Any]) -> Entry:
    """The entry that keeps a schedule."""
    due = row["enabled"] and row["next_run_at"] is not None
    return SCHEDULES.entry(
        row,
        **schedule_filters(bool(row["enabled"]), row["user_id"]),
        due=due_text(row["next_run_at"]) if due else None,
    )


def schedule_filters(enabled: bool | None, user_id: str | None) -> ListedBy:
    """What schedules are listed by."""
    filters: ListedBy = {"kind": SCHEDULES.kind}
    if enabled is not None:
        filters["state"] = "schedule:enabled" if enabled else "schedule:disabled"
    if user_id is not None:
        filters["group"] = f"schedule:{user_id}"
    return filters


def run_entry(row: Mapping[str, Any]) -> Entry:
    """The entry that keeps a run of a schedule."""
    due = due_text(row["triggered_at"]) + due_text(row["created_at"])
    return SCHEDULE_RUNS.entry(row, **run_filters(row["schedule_id"], row["user_id"]), due=due)


def run_filters(schedule_id: str, user_id: str | None) -> ListedBy:
    """What the runs of a schedule are listed by."""
    filters: ListedBy = {"kind": f"{SCHEDULE_RUNS.kind}:{schedule_id}"}
    if user_id is not None:
        filters["group"] = f"{SCHEDULE_RUNS.kind}:{json.dumps([schedule_id, user_id], ensure_ascii=False)}"
    return filters


def changed(entry: Entry, changes: Mapping[str, Any]) -> Entry:
    """A stored entry of a schedule or of a run with some columns changed."""
    make = schedule_entry if entry.kind == SCHEDULES.kind else run_entry
    return make({**entry.data, **changes}).model_copy(update={"version": entry.version})


def name_id(user_id: str | None, name: str) -> str:
    """The id of the entry that reserves a name for an owner, or for schedules that nobody owns."""
    # A hash, since both may be as long as an id, and a name may be any text.
    digest = hashlib.sha256(json.dumps([user_id, name]).encode()).hexdigest()
    return f"{NAMES}:{digest}"


def reservation(row: Mapping[str, Any]) -> Entry:
    """The entry that reserves the name of a schedule."""
    return Entry(id=name_id(row["user_id"], row["name"]), kind=NAMES, data={"schedule_id": row["id"]})
