"""From rows of agno's tables to the records that AsyncCloudDb keeps of the same things."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from agno.db.utils import detect_session_type, get_run_type
from agno.utils.dttm import to_epoch_s
from pydantic import ValidationError

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.integrations.agno.importing.sources import IDS, Row
from agno_clouddb.integrations.agno.kept import Fitting
from agno_clouddb.integrations.agno.knowledge import CONTENTS
from agno_clouddb.integrations.agno.memories import MEMORIES
from agno_clouddb.integrations.agno.metrics import metrics_record
from agno_clouddb.integrations.agno.run_rows import run_record
from agno_clouddb.integrations.agno.sessions import COMPONENTS
from agno_clouddb.integrations.agno.shapes import moment
from agno_clouddb.integrations.agno.trace_rows import SPANS, TRACES
from agno_clouddb.records.base import Record
from agno_clouddb.records.evals import EvalRun
from agno_clouddb.records.knowledge import KnowledgeContent
from agno_clouddb.records.memories import UserMemory
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.records.traces import Span, Trace
from agno_clouddb.stores.clock import wall_clock_millis
from agno_clouddb.stores.schema import DECLARED

__all__ = ["id_of", "in_place", "mapped", "merged_runs", "newer", "order_of"]


_COLUMNS_OF_SESSIONS = ("session_type", "runs", *COMPONENTS.values())
_OURS = frozenset({"version", "expires_at", "degraded", "generation"})
_WRITER = "0" * 12  # in the places of imported runs, where others have their writer
_MAX_COUNTER = 0xFFFF
_FITTINGS: Mapping[str, Fitting] = MappingProxyType(
    {"memories": MEMORIES, "knowledge": CONTENTS, "traces": TRACES, "spans": SPANS}
)


def mapped(kind: str, row: Row) -> Record:
    """The record of a row.

    Args:
        kind: ``runs``, or one of ``KINDS``.
        row: as a source gives it.

    Raises:
        InvalidRecord: a column is missing, or is not what agno writes.
    """
    try:
        return _MAPPINGS[kind](_storable(kind, row))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidRecord(".".join(map(str, first["loc"])), first["msg"], collection=kind) from error
    except KeyError as error:
        raise InvalidRecord(str(error.args[0]), "is missing", collection=kind) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRecord(IDS[kind], f"is of a row that agno does not write: {error}", collection=kind) from error


def id_of(kind: str, row: Row) -> str:
    """What a row is called in messages."""
    return str(row.get(IDS[kind], "?"))


def newer(record: Record, stored: Record) -> bool:
    """Whether a record of the source replaces a stored one that differs: it was written last there, to the second.

    Within one second the source counts as later. What names no time replaces nothing.
    """
    theirs, ours = _last_written(record), _last_written(stored)
    return theirs is not None and (ours is None or theirs >= ours)


def _last_written(record: Record) -> tuple[float, int] | None:
    if isinstance(record, Trace):
        return record.end_time.timestamp(), record.total_spans
    if isinstance(record, Span):
        return record.end_time.timestamp(), 0
    updated = getattr(record, "updated_at", None)
    updated = getattr(record, "created_at", None) if updated is None else updated
    if isinstance(updated, datetime):
        updated = updated.timestamp()
    return None if updated is None else (int(updated), 0)


def _session(row: Row) -> Session:
    kind = detect_session_type(row)
    extra = {name: value for name, value in row.items() if name not in _COLUMNS_OF_SESSIONS and value is not None}
    created = _moment(row.get("created_at"))
    return Session(
        **{
            **extra,
            "session_type": kind,
            "component_id": row.get(COMPONENTS.get(kind, "")),
            "created_at": created,
            "updated_at": _moment(row.get("updated_at")) or created,
        }
    )


def _run(row: Row) -> Run:
    data = row["run_data"]
    whole = {
        "run_type": None,
        "user_id": None,
        "run_index": None,
        "status": None,
        **row,
        "run_data": json.loads(data) if isinstance(data, str) else data,
        "created_at": _second(row.get("created_at")),
        "updated_at": _second(row.get("updated_at")),
    }
    return run_record(whole)


def _memory(row: Row) -> UserMemory:
    created = _moment(row.get("created_at"))
    times = {"created_at": created, "updated_at": _moment(row.get("updated_at")) or created}
    return UserMemory(**MEMORIES.fitted({**row, **times}))


def _knowledge(row: Row) -> KnowledgeContent:
    return KnowledgeContent(**CONTENTS.fitted({**row, **_times(row)}))


def _eval(row: Row) -> EvalRun:
    return EvalRun(**{**row, **_times(row)})


def _trace(row: Row) -> Trace:
    values = {name: value for name, value in row.items() if value is not None}
    times = {name: _instant(row[name]) for name in ("start_time", "end_time")}
    return Trace(**TRACES.fitted({**values, **times, "created_at": _created(row)}))


def _span(row: Row) -> Span:
    values = {name: value for name, value in row.items() if value is not None}
    if isinstance(values.get("attributes"), str):
        values["attributes"] = json.loads(values["attributes"])
    times = {name: _instant(row[name]) for name in ("start_time", "end_time")}
    return Span(**SPANS.fitted({**values, **times, "created_at": _created(row)}))


_MAPPINGS: Mapping[str, Callable[[Row], Record]] = MappingProxyType(
    {
        "sessions": _session,
        "runs": _run,
        "memories": _memory,
        "knowledge": _knowledge,
        "evals": _eval,
        "metrics": metrics_record,
        "traces": _trace,
        "spans": _span,
    }
)


def _storable(kind: str, row: Row) -> Row:
    """A row without empty texts in what becomes a field, which no store can hold, unless they are kept beside it.

    Nor with what agno does not write, and is something else in a record.
    """
    fields = {*DECLARED[kind].fields, *COMPONENTS.values()} if kind != "metrics" else set()
    fields -= _FITTINGS[kind].fits.keys() if kind in _FITTINGS else set()
    return {name: value for name, value in row.items() if name not in _OURS and not (value == "" and name in fields)}


def _second(value: Any) -> int | None:
    return None if value is None else to_epoch_s(value)


def _times(row: Row) -> dict[str, datetime | None]:
    return {name: _moment(row.get(name)) for name in ("created_at", "updated_at")}


def _moment(value: Any) -> datetime | None:
    return moment(_second(value))


def _instant(value: Any) -> datetime:
    """When a span began or ended, which agno writes as ISO text, and has written as nanoseconds since the epoch."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value / 1_000_000_000, UTC)
    found = datetime.fromisoformat(value)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _created(row: Row) -> datetime | None:
    value = row.get("created_at")
    if value is None or isinstance(value, int | float):
        return _moment(value)
    return _instant(value)


def order_of(row: Row) -> tuple[int, int]:
    """What agno orders the runs of a session by."""
    return row.get("run_index") or 0, _second(row.get("created_at")) or 0


def merged_runs(session: Row, rows: Iterable[Row]) -> list[Row]:
    """The rows of a session's runs in agno's order: those in the session, as 2.x keeps them, and those of the table.

    As agno itself reads them: the order inside the session comes first, what the table has of a run counts, and what
    only the table has comes after.

    Args:
        session: the session's row.
        rows: the rows of the table, with ``run_id`` at least.

    Raises:
        InvalidRecord: a run inside the session has no id, or they are no list of runs.
    """
    ordered = sorted(rows, key=order_of)
    inside = session.get("runs")
    if isinstance(inside, str):
        try:
            inside = json.loads(inside)
        except ValueError as error:
            raise InvalidRecord("runs", f"are no JSON: {error}", collection="sessions") from error
    if not inside:
        return ordered
    if not isinstance(inside, list):
        raise InvalidRecord("runs", f"are of type {type(inside).__name__}, not a list", collection="sessions")
    of_table = {row["run_id"]: row for row in ordered}
    runs: dict[str, Row] = {}
    for place, run in enumerate(inside):
        if not isinstance(run, Mapping) or not run.get("run_id"):
            raise InvalidRecord(f"runs[{place}].run_id", "is missing", collection="sessions")
        runs[run["run_id"]] = of_table.get(run["run_id"]) or _row_of(session, dict(run))
    runs |= {run_id: row for run_id, row in of_table.items() if run_id not in runs}
    return _positioned(list(runs.values()))


def _row_of(session: Row, run: dict[str, Any]) -> Row:
    """A run inside a session as a row of the table of runs."""
    created = run.get("created_at") or session.get("created_at")
    return {
        "run_id": run["run_id"],
        "session_id": session["session_id"],
        "run_type": get_run_type(run),
        "user_id": session.get("user_id") or None,
        "status": run.get("status"),
        "run_index": run.get("run_index"),
        "run_data": run,
        "created_at": created,
        # When it was last written is not known; that of the session would change with every turn.
        "updated_at": created,
    }


def _positioned(rows: list[Row]) -> list[Row]:
    """Rows with positions: those that they have, unless these are missing or contradict the order."""
    known = [row["run_index"] for row in rows if row.get("run_index") is not None]
    if len(known) == len(rows) and known == sorted(set(known)):
        return rows
    return [{**row, "run_index": place} for place, row in enumerate(rows)]


def in_place(rows: Sequence[Row]) -> dict[str, str]:
    """Where each run goes in its session, by run id: at its moment, and after those before it.

    The place depends on the source alone, so that it is the same whenever a run is imported, be it after a stop in the
    middle of its session, and is before the place of every run that an agent writes from now on.

    Args:
        rows: in agno's order.
    """
    latest = wall_clock_millis()
    places: dict[str, str] = {}
    millis, counter = 0, -1
    for row in rows:
        at = min(max((_second(row.get("created_at")) or 0) * 1_000, 0), latest)
        # By its position, where it has one, so that it does not depend on other runs of the same second.
        position = min(max(row.get("run_index") or 0, 0), _MAX_COUNTER)
        if at > millis:
            millis, counter = at, position
        elif counter < _MAX_COUNTER:
            counter = max(counter + 1, position)
        else:
            millis, counter = millis + 1, 0
        places[row["run_id"]] = f"{millis:012x}-{counter:04x}-{_WRITER}"
    return places
