"""The places of runs: where each is stored, and where the next one of a session goes, as far as this process knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import Any, NamedTuple

from agno_clouddb.integrations.agno.run_rows import components
from agno_clouddb.integrations.agno.shapes import seconds
from agno_clouddb.records.sessions import Run

__all__ = ["Appends", "RunPlace", "RunPlaces", "next_position"]

_KNOWN = 10_000


class RunPlace(NamedTuple):
    """Where a run is stored, and what of its row stays as it was first written."""

    session_id: str
    position: int | None
    run_type: str | None
    created_at: int | None
    components: Mapping[str, Any]

    def over(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row that is written over the run."""
        kept = {"run_index": self.position, "run_type": self.run_type, "created_at": self.created_at}
        return {**row, **{name: value for name, value in kept.items() if value is not None}, **self.components}


class RunPlaces:
    """What is known of the last 10,000 runs and sessions that were read or written."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, RunPlace] = OrderedDict()
        self._unread: OrderedDict[str, int] = OrderedDict()

    def find(self, run_id: str) -> RunPlace | None:
        """The place of a run; None when it is not known."""
        return self._places.get(run_id)

    def note(self, session_id: str, runs: Iterable[Run]) -> None:
        """Runs of a session were read or written."""
        for run in runs:
            own: dict[str, Any] = run.model_extra or {}
            created = seconds(run.created_at)
            place = RunPlace(session_id, own.get("position"), own.get("run_type"), created, components(run))
            _keep(self._places, run.run_id, place)

    def forget(self, run_id: str) -> None:
        """A run was deleted."""
        self._places.pop(run_id, None)

    def give(self, session_id: str, runs: Sequence[Run] | None) -> None:
        """A session was given to agno with these runs, the newest; or with None, as one that is not there."""
        if runs is None:
            if session_id not in self._unread:
                _keep(self._unread, session_id, 0)
            return
        # Never less than before: who was given the session earlier counts from there, and must not come in between.
        unread = max(self._unread.get(session_id, 0), next_position(runs) - len(runs))
        _keep(self._unread, session_id, unread)

    def unread(self, session_id: str) -> int | None:
        """How many runs come before those that agno was given; None when that is not known."""
        return self._unread.get(session_id)

    def forget_session(self, session_id: str) -> None:
        """A session was deleted, and may begin anew."""
        self._unread.pop(session_id, None)


@dataclass(slots=True)
class _Appending:
    """A session to which runs are being appended."""

    writers: int = 0
    next: int = 0
    taken: dict[str, int] = field(default_factory=dict)


class Appends:
    """Runs that are being appended to sessions: each gets a place of its own, also those of several event loops.

    Nothing is kept of a session to which nobody is appending.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, _Appending] = {}
        # Held for moments, never while anything is waited for. Each event loop is in a thread, and what one has left
        # unfinished may end, as garbage, within any statement.
        self._guard = RLock()

    @contextmanager
    def to(self, session_id: str) -> Iterator[Callable[[str, int], int]]:
        """What is done while a run is appended: it is read where the session ends, a place is taken, the run written.

        Yields:
            A function that takes a place for a run, given its id and the first place after all runs that were read.
        """
        with self._guard:
            session = self._sessions.setdefault(session_id, _Appending())
            session.writers += 1
        try:
            yield partial(self._take, session)
        finally:
            with self._guard:
                session.writers -= 1
                if not session.writers:
                    self._sessions.pop(session_id, None)

    def _take(self, session: _Appending, run_id: str, free: int) -> int:
        with self._guard:
            if run_id not in session.taken:
                session.taken[run_id] = max(free, session.next)
                session.next = session.taken[run_id] + 1
            return session.taken[run_id]


def next_position(runs: Iterable[Run]) -> int:
    """The place after all of these runs."""
    positions = [getattr(run, "position", None) for run in runs]
    return max((each for each in positions if each is not None), default=-1) + 1


def _keep(known: OrderedDict[str, Any], key: str, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _KNOWN:
        known.popitem(last=False)
