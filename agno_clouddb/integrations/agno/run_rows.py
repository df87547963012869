"""The rows of runs, as agno's own table has them, and the records that keep them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agno.db.utils import HISTORY_SKIP_STATUSES

from agno_clouddb.integrations.agno.shapes import moment, seconds
from agno_clouddb.records.sessions import Run

__all__ = ["ROW", "apart", "components", "context_runs", "in_order", "run_record", "run_row", "sortable"]

_COMPONENTS = ("agent_id", "team_id", "workflow_id")


def components(run: Run) -> dict[str, Any]:
    """The agent, team and workflow in the row of a run: those with which it was first written, as agno keeps them."""
    found: Mapping[str, Any] = (run.model_extra or {}).get("components") or run.data or {}
    return {name: found.get(name) for name in _COMPONENTS}


def apart(components: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What a record has of the agent, team and workflow of its row beside its data: nothing where they are the same."""
    same = all(components[name] == data.get(name) for name in _COMPONENTS)
    return {} if same else {"components": dict(components)}


def run_record(row: Mapping[str, Any]) -> Run:
    """The record that keeps a row of agno's table of runs."""
    data = row["run_data"] or {}
    own = {
        "run_type": row["run_type"],
        "user_id": row["user_id"],
        "position": row["run_index"],
        "updated_at": row["updated_at"],
        **apart({name: row.get(name, data.get(name)) for name in _COMPONENTS}, data),
    }
    return Run.checked(
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
        **components(run),
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
    """Runs by their place in the session, where they name one, and by creation, as agno's tables order them.

    Runs of one place and second, such as several processes may write at once, are in the order of their first writes.
    """

    def place(run: Run) -> tuple[int, int, str, str]:
        position = getattr(run, "position", None)
        created = seconds(run.created_at) or 0
        return (-1 if position is None else position, created, run.run_index or "", run.run_id)

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
