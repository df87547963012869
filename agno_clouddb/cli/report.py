"""Where commands print, and the tables that they print."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from agno_clouddb.cli.conversations import Copy
from agno_clouddb.fanout.health import Health, StoreHealth
from agno_clouddb.fanout.reconcile import Reconciliation
from agno_clouddb.records.sessions import Session
from agno_clouddb.stores.usage import Usage

__all__ = [
    "console",
    "copies_table",
    "duration",
    "health_table",
    "progress",
    "reconciliation_table",
    "sessions_table",
    "usage_table",
    "when",
]

_FILE_WIDTH = 110  # columns, where the output is no terminal


def console(*, stderr: bool = False) -> Console:
    """Where the output goes: a terminal with colours and live bars, or plain lines in a file or pipe.

    Args:
        stderr: to standard error, as for what is not the result of a command.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        # What people have written may not fit the terminal's encoding, and is no reason to fail.
        stream.reconfigure(errors="replace")
    width = None if stream.isatty() else _FILE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False, stderr=stderr)


def progress(on: Console) -> Progress:
    """A live bar of turns."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("turns"),
        TimeElapsedColumn(),
        console=on,
    )


def sessions_table(user_id: str, pages: Sequence[Sequence[Session]], total: int) -> Table:
    """One user's sessions as they were listed, page by page.

    Args:
        user_id: the user.
        pages: the sessions of each page.
        total: how many sessions the user has.
    """
    listed = sum(len(page) for page in pages)
    table = Table(title=f"The newest {listed} of {total} sessions of {user_id}", title_justify="left")
    for heading in ("page", "session", "name", "created (UTC)", "turns", "reward"):
        right = heading in ("page", "turns", "reward")
        # Where the terminal is narrow, only the name is broken into lines.
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "name")
    for number, page in enumerate(pages, start=1):
        for session in page:
            created = f"{session.created_at:%Y-%m-%d %H:%M:%S.%f}"[:-3] if session.created_at is not None else "-"
            turns = str((session.session_data or {}).get("turns", "-"))
            reward = str((session.metadata or {}).get("reward", "-"))
            table.add_row(str(number), session.session_id, session.name or "-", created, turns, reward)
        table.add_section()
    return table


def copies_table(recorded: Copy, found: Mapping[str, Copy]) -> Table:
    """What was recorded beside what each store holds.

    Args:
        recorded: what each should hold.
        found: by store, what it does hold.
    """
    table = Table(title="Read back, compared message by message", title_justify="left")
    table.add_column("store")
    for heading in ("sessions", "runs", "messages"):
        table.add_column(heading, justify="right")
    table.add_column("equal")
    rows = {"(the recording)": recorded, **found}
    for name, copy in rows.items():
        numbers = (str(copy.sessions), str(copy.runs), str(copy.messages))
        equal = "" if copy is recorded else ("no" if copy.differences else "yes")
        table.add_row(name, *numbers, equal, style="red" if copy.differences else None)
    return table


def usage_table(spent: Mapping[str, Usage | None], turns: int) -> Table:
    """What a turn has cost on each store, on average.

    Args:
        spent: by store, what all turns have cost; None where the store does not count.
        turns: how many turns there were.
    """
    table = Table(title="A turn on average", title_justify="left")
    table.add_column("counted")
    for name in spent:
        table.add_column(name, justify="right", overflow="fold")
    counted = [usage or Usage() for usage in spent.values()]
    calls = sorted({call for usage in counted for call in usage.requests})
    rows: dict[str, list[float]] = {"requests": [usage.requests.total() for usage in counted]}
    rows |= {f"- {call}": [usage.requests[call] for usage in counted] for call in calls}
    rows["read units"] = [usage.read_units for usage in counted]
    rows["write units"] = [usage.write_units for usage in counted]
    rows["documents read"] = [usage.documents_read for usage in counted]
    rows["documents written"] = [usage.documents_written for usage in counted]
    for heading, counts in rows.items():
        table.add_row(heading, *(f"{count / turns:.1f}" if count else "-" for count in counts))
    return table


def reconciliation_table(report: Reconciliation) -> Table:
    """What a reconciliation has compared, found and mended, by collection."""
    what = "everything" if report.kind == "full" else "what was written since the last time"
    table = Table(title=f"Compared: {what}", title_justify="left")
    table.add_column("collection")
    for heading in ("compared", "missing", "stale", "mended", "failed"):
        table.add_column(heading, justify="right")
    for name, counts in (*report.collections.items(), ("all", report.total)):
        if name == "all":
            table.add_section()
        numbers = (counts.compared, counts.missing, counts.stale, counts.mended, counts.failed)
        table.add_row(name, *(f"{number:,}" for number in numbers), style="red" if counts.failed else None)
    return table


_STATES = {"closed": "in use", "open": "left alone", "half-open": "being probed"}


def health_table(health: Health) -> Table:
    """How the stores are, the primary first."""
    table = Table(title="Stores, the primary first", title_justify="left")
    for heading in ("store", "state", "missed", "behind"):
        table.add_column(heading, justify="right" if heading == "missed" else "left", overflow="fold")
    for store in health.stores:
        missed = "unknown" if store.hints is None else f"{store.hints:,}"
        state = "does not answer" if store.state == "closed" and not store.answers else _STATES[store.state]
        well = state == _STATES["closed"] and store.hints == 0
        table.add_row(store.name, state, missed, _behind(store), style=None if well else "red")
    return table


def _behind(store: StoreHealth) -> str:
    if store.hints is None:
        return "unknown"
    return f"by {duration(store.replication_lag or 0.0)}" if store.hints else "nothing is known to be missing"


def duration(seconds: float) -> str:
    """Seconds in words, in the greatest unit of which there are two."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"


def when(moment: datetime) -> str:
    """A moment, and how long ago it was."""
    ago = max((datetime.now(UTC) - moment).total_seconds(), 0.0)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC, {duration(ago)} ago"
