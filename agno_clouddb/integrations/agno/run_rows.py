"""The rows of runs, as agno's own table has them, and the records that keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agno.db.utils import HISTORY_SKIP_STATUSES

from agno_clouddb.integrations.agno.shapes import moment, seconds
from agno_clouddb.records.sessions import Run

__all__ = ["ROW", "context_runs", "in_order", "run_record", "run_row", "sortable"]


def run_record(row: dict[str, Any]) -> Run:
    """The record that keeps a row of agno's table of runs."""
    own = {
        "run_type": row["run_type"],
        "user_id": row["user_id"],
        "position": row["run_index"],
        "updated_at": row["updated_at"],
    }
    return Run(
        run_id=row["run_id"],
        session_id=row["session_id"],
        status=row["status"],
        data=row["run_data"],
        created_at=moment(row["created_at"]),
        **{name: value for name, value in own.items() if value is not None},
    )


def run_row(run: Run) -> dict[str, Any]:
    """The row of a run, as agno's own table has it."""
    data, own = run.data or {}, run.model_extra or {}
    return {
        "run_id": run.run_id,
        "session_id": run.session_id,
        "run_type": own.get("run_type"),
        "agent_id": data.get("agent_id"),
        "team_id": data.get("team_id"),
        "workflow_id": data.get("workflow_id"),
        "user_id": own.get("user_id"),
        "parent_run_id": data.get("parent_run_id"),
        "status": run.status,
        "run_index": own.get("position"),
        "run_data": run.data,
        "created_at": seconds(run.created_at),
        "updated_at": own.get("updated_at"),
    }


ROW = tuple(run_row(Run(run_id="-")))
"""The columns."""


def in_order(runs: Sequence[Run]) -> list[Run]:
    """Runs by their place in the session, where they name one, as agno's tables order them."""

    def place(run: Run) -> tuple[int, int, str]:
        position = getattr(run, "position", None)
        return (-1 if position is None else position, seconds(run.created_at) or 0, run.run_id)

    return sorted(runs, key=place)


def context_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs that count as context: neither of members, nor paused, cancelled, in error or regenerated."""
    return [
        run for run in runs if (run.data or {}).get("parent_run_id") is None and run.status not in HISTORY_SKIP_STATUSES
    ]


def sortable(row: dict[str, Any], name: str) -> tuple[bool, Any]:
    """What orders rows by a column: those without a value first."""
    value = row[name]
    if name == "updated_at" and value is None:
        value = row["created_at"]
    return value is not None, value if isinstance(value, int) else str(value)
