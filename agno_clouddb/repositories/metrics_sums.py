"""The arithmetic of metrics: sessions and runs go in one by one, records of days and users come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from agno_clouddb.records.metrics import ALL_USERS, Metrics
from agno_clouddb.repositories.metrics_days import DAY, start_of

__all__ = ["TOKENS", "Sums", "tokens_of"]

TOKENS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "audio_total_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
"""The sums that every record has, by agno's names."""

_TOKENS_SUFFIX = "_tokens"
_MAX_TOKENS = 2**53  # beyond it a float is no exact number, and a run has not so many


@dataclass(slots=True)
class _Activity:
    """What happened on one day, of one user or of all."""

    sessions: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    models: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: _Activity) -> None:
        for mine, others in (
            (self.sessions, other.sessions),
            (self.runs, other.runs),
            (self.tokens, other.tokens),
        ):
            mine.update(others)
        self.models.update(other.models)


class Sums:
    """What happened in a window of time, by day and user. Holds numbers only, however many runs there are.

    Args:
        start: what was created at this moment or later counts; the start of a day in UTC.
        end: what was created before this moment counts.
        settled: of what was created before this moment nothing more is expected; at most ``end``.

    Attributes:
        partial: True when something may have been missed, so that no day is complete.
    """

    def __init__(self, start: datetime, end: datetime, settled: datetime) -> None:
        self._start = start
        self._end = end
        self._settled = settled
        self._days: dict[date, dict[str, _Activity]] = {}
        self.partial = False

    def add_session(self, user_id: str, session_type: str, created_at: datetime) -> None:
        """Count a session, if it was created in the window.

        Args:
            user_id: whose it is; empty: nobody's.
            session_type: agent, team or workflow.
            created_at: when.
        """
        activity = self._activity(user_id, created_at)
        if activity is not None:
            activity.sessions[session_type] += 1

    def add_run(self, user_id: str, session_type: str, created_at: datetime, data: dict[str, Any] | None) -> None:
        """Count a run of a session, if the run was created in the window.

        Args:
            user_id: whose the session is; empty: nobody's.
            session_type: of the session.
            created_at: when the run was created.
            data: the run, as agno has it.
        """
        activity = self._activity(user_id, created_at)
        if activity is None:
            return
        activity.runs[session_type] += 1
        data = data or {}
        activity.tokens.update(tokens_of(data.get("metrics")))
        model, provider = data.get("model"), data.get("model_provider")
        if isinstance(model, str) and model:
            activity.models[model, provider if isinstance(provider, str) else ""] += 1

    @property
    def days(self) -> Iterable[date]:
        """The days on which something happened."""
        return self._days.keys()

    def completes(self, day: date) -> bool:
        """Whether all of a day is in the window, and nothing more of it is expected."""
        return not self.partial and start_of(day) + DAY <= self._settled

    def records(self, day: date) -> dict[str, Metrics]:
        """The metrics of a day by user, and those of all users; none when nothing happened."""
        users = self._days.get(day)
        if not users:
            return {}
        together = _Activity()
        for activity in users.values():
            together.add(activity)
        named = {user: activity for user, activity in users.items() if user != ALL_USERS}
        completed = self.completes(day)
        found = {user: _record(day, user, 1, activity, completed) for user, activity in named.items()}
        return {ALL_USERS: _record(day, ALL_USERS, len(named), together, completed), **found}

    def _activity(self, user_id: str, created_at: datetime) -> _Activity | None:
        if not self._start <= created_at < self._end:
            return None
        day = created_at.astimezone(UTC).date()
        return self._days.setdefault(day, {}).setdefault(user_id, _Activity())


def tokens_of(metrics: object) -> dict[str, int]:
    """The numbers of tokens in the metrics of a run, under every name that ends with ``_tokens``.

    A float counts when it is whole. What is no number, or none that is exact, is left out: runs are any JSON.
    """
    if not isinstance(metrics, dict):
        return {}
    found = {}
    for name, value in metrics.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and name.endswith(_TOKENS_SUFFIX) and abs(value) <= _MAX_TOKENS and value == int(value):
            found[name] = int(value)
    return found


def _record(day: date, user_id: str, users: int, activity: _Activity, completed: bool) -> Metrics:
    sessions, runs = activity.sessions, activity.runs
    return Metrics(
        date=day,
        user_id=user_id,
        users_count=users,
        agent_sessions_count=sessions["agent"],
        team_sessions_count=sessions["team"],
        workflow_sessions_count=sessions["workflow"],
        agent_runs_count=runs["agent"],
        team_runs_count=runs["team"],
        workflow_runs_count=runs["workflow"],
        token_metrics={**dict.fromkeys(TOKENS, 0), **activity.tokens},
        model_metrics=[
            {"model_id": model, "model_provider": provider, "count": count}
            for (model, provider), count in sorted(activity.models.items())
        ],
        completed=completed,
    )
