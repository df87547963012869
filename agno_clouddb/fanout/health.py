"""Health: what is known of the stores of a Database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from agno_clouddb.errors import CloudDBError
from agno_clouddb.stores.base import Key, Store

__all__ = ["CircuitState", "Health", "StoreHealth", "health_of_one"]

CircuitState = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """One store.

    Args:
        name: such as ``dynamodb://eu-west-1``.
        state: of its circuit: ``closed`` when it is in use, ``open`` when it is left alone since it has failed,
            ``half-open`` while it is probed.
        last_error: what the last call failed with that did, also when the store has answered since; or what it has
            failed with when its health was asked for.
        latency: the median of what the last calls took, in seconds; None before the first.
        hints: how many hints the other stores keep of writes that it has missed; None when none of these answers. Of
            more than two stores each keeps its own, so that one write may count once for each store that has it.
        replication_lag: seconds since the oldest of these writes; 0 when there is none, None when that is not known.
        answers: it has answered when its health was asked for; of a single store also that it has not refused, for want
            of credentials or of its tables.
    """

    name: str
    state: CircuitState = "closed"
    last_error: CloudDBError | None = None
    latency: float | None = None
    hints: int | None = 0
    replication_lag: float | None = 0.0
    answers: bool = True


@dataclass(frozen=True, slots=True)
class Health:
    """All stores of a Database.

    Args:
        stores: each of them, the primary first.
        degraded_reads: how many reads were made without one of the stores.
        repaired: how many records were mended after a read had found them different.
        replayed: how many hints were replayed by this Database.
        reconciled_at: up to when all stores were last compared; None: they never were, so that one that was added holds
            only what was written or read since.
        compared: how many records the full comparison that is under way, or was stopped, has compared; None: there is
            none.
        background_error: what work in the background has last failed with.
    """

    stores: tuple[StoreHealth, ...]
    degraded_reads: int = 0
    repaired: int = 0
    replayed: int = 0
    reconciled_at: datetime | None = None
    compared: int | None = None
    background_error: CloudDBError | None = None

    @property
    def ok(self) -> bool:
        """Whether every store answers, has missed nothing, and was compared with the others once."""
        caught_up = all(each.answers and each.state == "closed" and each.hints == 0 for each in self.stores)
        return caught_up and (len(self.stores) == 1 or self.reconciled_at is not None)


_NOTHING = Key("sessions", "probe")
"""A key to ask a single store for, which has no collection ``replication``."""


async def health_of_one(store: Store) -> Health:
    """The health of a store that is not one of several, by one eventually consistent read."""
    try:
        await store.get([_NOTHING], consistency="eventual")
    except CloudDBError as error:
        return Health((StoreHealth(store.name, last_error=error, answers=False),))
    return Health((StoreHealth(store.name),))
