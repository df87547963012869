"""The tables that the demo prints."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from agno_clouddb.cli.conversations import Copy
from agno_clouddb.records.sessions import Session
from agno_clouddb.stores.usage import Usage

__all__ = ["console", "copies_table", "progress", "sessions_table", "usage_table"]

_FILE_WIDTH = 110  # columns, where the output is no terminal


def console() -> Console:
    """Where the output goes: a terminal with colours and live bars, or plain lines in a file or pipe."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What people have written may not fit the terminal's encoding, and is no reason to fail.
        sys.stdout.reconfigure(errors="replace")
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


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
