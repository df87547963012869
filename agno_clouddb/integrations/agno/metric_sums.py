"""The arithmetic of agno's daily metrics: sessions with their runs go in one by one, numbers by day and user come out.

A day has the sessions created on it, with all their runs whenever these were, and the tokens that the sessions' own
``session_metrics`` have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date
from typing import Any

from agno_clouddb.records.metrics import ALL_USERS
from agno_clouddb.records.sessions import SESSION_TYPES, Session
from agno_clouddb.repositories.metrics_sums import TOKENS

__all__ = ["Buckets"]


@dataclass(slots=True)
class _Bucket:
    """What happened on one day, of one user or of nobody."""

    sessions: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))
    models: dict[str, Counter[tuple[str, str]]] = field(
        default_factory=lambda: {kind: Counter() for kind in SESSION_TYPES}
    )


class Buckets:
    """What happened, by day and user. Holds numbers only."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[date, str], _Bucket] = {}

    def add(self, session: Session, runs: Iterable[Mapping[str, Any]]) -> None:
        """Count a session.

        Args:
            session: its header.
            runs: the ``model`` and ``model_provider`` of each of its runs.
        """
        assert session.created_at is not None
        day = session.created_at.astimezone(UTC).date()
        bucket = self._buckets.setdefault((day, session.user_id or ALL_USERS), _Bucket())
        bucket.sessions[session.session_type] += 1
        for run in runs:
            bucket.runs[session.session_type] += 1
            if run["model"]:
                bucket.models[session.session_type][str(run["model"]), str(run["model_provider"])] += 1
        metrics = (session.session_data or {}).get("session_metrics")
        for name in TOKENS:
            number = metrics.get(name) if isinstance(metrics, dict) else None
            if isinstance(number, int | float):
                bucket.tokens[name] += int(number)

    def numbers(self) -> Iterator[tuple[tuple[date, str], dict[str, Any]]]:
        """The attributes of the record of each day and user, the earliest day first."""
        for (day, user_id), bucket in sorted(self._buckets.items(), key=lambda each: each[0]):
            numbers: dict[str, Any] = {f"{kind}_sessions_count": bucket.sessions[kind] for kind in SESSION_TYPES}
            numbers |= {f"{kind}_runs_count": bucket.runs[kind] for kind in SESSION_TYPES}
            # In the order in which they were first counted, agents' before teams' and these before workflows'.
            models: Counter[tuple[str, str]] = Counter()
            for kind in SESSION_TYPES:
                models.update(bucket.models[kind])
            # Nobody is no user, so that the sum over all records of a day is the number of its users.
            numbers |= {"users_count": int(user_id != ALL_USERS), "token_metrics": bucket.tokens}
            numbers["model_metrics"] = [
                {"model_id": model, "model_provider": provider, "count": count}
                for (model, provider), count in models.items()
            ]
            yield (day, user_id), numbers
