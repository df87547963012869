"""Which runs cannot have an approval, so that the end of a run need not look for any.

agno notes on the approvals of each run how it has ended, right after it was written. Approvals are rare, and are made
by the process that makes the run. So a run that had ended when it was first written, and for which no approval was made
here, has none; to look for them would cost each turn one more request, after all the others.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Unapproved"]

_KNOWN = 10_000


class Unapproved:
    """Runs that were just written for the first time and have ended, and runs for which approvals were made."""

    def __init__(self) -> None:
        self._new: OrderedDict[str, None] = OrderedDict()
        self._approved: OrderedDict[str, None] = OrderedDict()

    def created(self, run_id: str) -> None:
        """A run was written that was not stored before, and that has ended."""
        if run_id not in self._approved:
            _add(self._new, run_id)

    def approved(self, run_id: str) -> None:
        """An approval is about to be made for a run."""
        self._new.pop(run_id, None)
        _add(self._approved, run_id)

    def take(self, run_id: str) -> bool:
        """Whether a run cannot have an approval yet. Said once for each first write."""
        known = run_id in self._new
        self._new.pop(run_id, None)
        return known


def _add(runs: OrderedDict[str, None], run_id: str) -> None:
    runs[run_id] = None
    runs.move_to_end(run_id)
    if len(runs) > _KNOWN:
        runs.popitem(last=False)
