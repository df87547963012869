"""Metrics: what users and agents did on a day, in numbers."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.base import Record
from agno_clouddb.stores.items import check_id
from agno_clouddb.stores.schema import METRICS, OWNER, Collection

__all__ = ["ALL_USERS", "DAILY", "Metrics", "bucket_of", "check_day", "check_period", "metrics_id"]

ALL_USERS = ""
"""The ``user_id`` of metrics about all users together."""

DAILY = "daily"
"""The period of metrics about a day."""

_LONGEST_USER = 400  # bytes; so that the day and the period fit into an id beside the user
_LONGEST_PERIOD = 32  # characters


class Metrics(Record):
    """What one user did in a period, or all users together. Times are in UTC.

    Args:
        date: the day, or the first day of the period.
        aggregation_period: how long the period is, one word; ``db.metrics.calculate`` makes ``daily`` ones.
        user_id: the user; empty: all users together, and what belongs to nobody.
        users_count: how many users had a session or a run.
        agent_sessions_count: how many sessions of agents were created.
        team_sessions_count: likewise, of teams.
        workflow_sessions_count: likewise, of workflows.
        agent_runs_count: how many runs were created in sessions of agents.
        team_runs_count: likewise, of teams.
        workflow_runs_count: likewise, of workflows.
        token_metrics: sums over those runs, by the names that agno gives them, such as ``input_tokens``.
        model_metrics: how many of those runs each model had: ``{"model_id", "model_provider", "count"}``.
        completed: whether the period had been over for an hour when this was calculated, from all stores.
        created_at: when it was first written; set by the library when None.
        updated_at: when it was last written; set by the library.
    """

    collection: ClassVar[Collection] = METRICS
    # No field of an item can be empty: it is there for a user only.
    unstored: ClassVar[frozenset[str]] = frozenset({OWNER})

    date: dt.date
    aggregation_period: str = DAILY
    user_id: str = ALL_USERS
    users_count: int = 0
    agent_sessions_count: int = 0
    team_sessions_count: int = 0
    workflow_sessions_count: int = 0
    agent_runs_count: int = 0
    team_runs_count: int = 0
    workflow_runs_count: int = 0
    token_metrics: dict[str, int] = Field(default_factory=dict)
    model_metrics: list[dict[str, Any]] = Field(default_factory=list)
    completed: bool = False
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None

    @property
    def id(self) -> str:
        """The record's id, made of the day, the period and the user.

        Raises:
            InvalidRecord: one of these is none that a store can hold.
        """
        return metrics_id(self.date, self.aggregation_period, self.user_id)

    def derived_fields(self) -> dict[str, str]:
        bucket = {"bucket": bucket_of(self.user_id)}
        return bucket if self.user_id == ALL_USERS else {**bucket, OWNER: self.user_id}

    def kept(self, fields: Mapping[str, str]) -> dict[str, object]:
        # The user is a part of the id, and so the same.
        return {name: value for name, value in super().kept(fields).items() if name != OWNER}


def bucket_of(user_id: str) -> str:
    """Whom metrics are about, as text that is never empty. A long user id is replaced by its SHA-256 digest.

    The first word says which of the three it is, so that no user id can be taken for a digest.

    Raises:
        InvalidRecord: ``user_id`` is none that a session can have.
    """
    if user_id == ALL_USERS:
        return "all"
    check_id(OWNER, user_id, METRICS.name)
    encoded = user_id.encode()
    return f"user {user_id}" if len(encoded) <= _LONGEST_USER else f"sha256 {hashlib.sha256(encoded).hexdigest()}"


def metrics_id(day: dt.date, period: str, user_id: str) -> str:
    """The id of the metrics of a user, or of ALL_USERS, in a period.

    Raises:
        InvalidRecord: an argument is none that metrics can have.
    """
    check_day("date", day)
    check_period("aggregation_period", period)
    return f"{day.isoformat()} {period} {bucket_of(user_id)}"


def check_day(path: str, day: object) -> None:
    """Raise InvalidRecord, naming ``path``, unless ``day`` is a date, and not a moment."""
    if not isinstance(day, dt.date) or isinstance(day, dt.datetime):
        raise InvalidRecord(path, f"is of type {type(day).__name__}, not a date", collection=METRICS.name)


def check_period(path: str, period: object) -> None:
    """Raise InvalidRecord, naming ``path``, unless ``period`` is one word."""
    word = isinstance(period, str) and period.isascii() and period.isalnum() and len(period) <= _LONGEST_PERIOD
    if not word:
        problem = f"is {period!r}, not a word of at most {_LONGEST_PERIOD} letters and digits"
        raise InvalidRecord(path, problem, collection=METRICS.name)
