"""What every call to the service shares: its deadline, what is known of its attempts, and how rejections are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio

from agno_clouddb.concurrency import full_jitter
from agno_clouddb.errors import CloudDBError
from agno_clouddb.stores.base import Key

__all__ = ["CONCURRENCY", "Call", "Reason", "Rejected", "backoff"]

CONCURRENCY = 32
"""The most requests that one call of the store has under way at once."""

_FIRST_DELAY, _LONGEST_DELAY = 0.025, 1.0  # seconds


def backoff(attempt: int) -> float:
    """Seconds to wait before retry number ``attempt``, counted from 0."""
    return full_jitter(attempt, _FIRST_DELAY, _LONGEST_DELAY)


@dataclass(slots=True)
class Call:
    """One call of the store, however many requests it takes.

    Args:
        deadline: when it must have ended, by the event loop's clock in seconds.
        collection: named in its errors.
        key: named in its errors.
        unknown: a request was sent and its answer is missing, so that a write may have been applied.
        met: what the request under way has met before, for which it is sent again.
    """

    deadline: float
    collection: str | None = None
    key: Key | None = None
    unknown: bool = False
    met: CloudDBError | None = None

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - anyio.current_time()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one action of a write was rejected.

    Args:
        code: the service's code, such as ``ConditionalCheckFailed``; ``None`` as text for an action without fault.
        item: the attributes stored, where a condition failed and something is stored.
    """

    code: str
    item: dict[str, Any] | None = None

    @property
    def condition_failed(self) -> bool:
        return self.code.startswith("ConditionalCheckFailed")


@dataclass(slots=True)
class Rejected(Exception):
    """The service rejected a request for a reason that its sender had asked to hear of. Never leaves the adapter."""

    code: str
    reasons: tuple[Reason, ...] = field(default_factory=tuple)
