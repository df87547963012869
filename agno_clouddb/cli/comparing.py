"""How far a reconciliation has come, shown while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from agno_clouddb.fanout.reconcile import Reconciliation

__all__ = ["Comparing"]

_LINE_SECONDS = 10.0  # between two lines about one collection, where there is no terminal
_BAR_WIDTH = 10  # columns, so that all of the line has room in 80


class Comparing:
    """Shows what ``Database.reconcile`` tells: a live line in a terminal, else a plain line now and then.

    How many records there are is not known beforehand, so that there is no end to show.

    Args:
        console: where to.
        clock: seconds, for the rate and for when the next line is due.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.report: Reconciliation | None = None
        """What was told last; None: nothing yet."""
        self._console = console
        self._clock = clock
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[counts]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("replaying hints", total=None, counts="")
        self._first: tuple[float, int] | None = None
        self._line_of: str | None = None
        self._line_at = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, report: Reconciliation) -> None:
        """Show a report; the ``progress`` of ``Database.reconcile``."""
        now = self._clock()
        if self._first is None and report.collections:
            # One that goes on where it was stopped has counted what was compared before.
            self._first = (now, report.total.compared)
        self.report = report
        under_way = next(reversed(report.collections), "")
        doing = f"comparing {under_way}" if under_way else f"{report.replayed:,} hints replayed"
        self._show(now, under_way, doing, self._counts(report, now))

    def _counts(self, report: Reconciliation, now: float) -> str:
        total = report.total
        counts = f"{total.compared:,} compared, {total.missing + total.stale:,} differ"
        if not report.dry_run:
            counts += f", {total.mended:,} mended"
        since, before = self._first or (now, 0)
        return f"{counts}, {(total.compared - before) / (now - since):,.0f}/s" if now > since else counts

    def _show(self, now: float, under_way: str, doing: str, counts: str) -> None:
        if self._console.is_terminal:
            self._progress.update(self._task, description=doing, counts=counts)
        elif under_way != self._line_of or now - self._line_at >= _LINE_SECONDS:
            self._console.print(f"{doing}: {counts}", soft_wrap=True)
            self._line_at = now
        self._line_of = under_way
