"""Hedge: asking a second store when the first takes longer than most of its calls.

Source: hedged requests in J. Dean, L. A. Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from agno_clouddb.concurrency import task_group
from agno_clouddb.errors import IndexNotReady
from agno_clouddb.fanout.circuit import CircuitStore
from agno_clouddb.fanout.failures import OUTAGES
from agno_clouddb.stores.base import Store

__all__ = ["first_answer"]

T = TypeVar("T")

_PERCENTILE = 0.95
_UNKNOWN = 0.05  # seconds that are waited for a store of which no latency is known
_LEAST = 0.002
_TYPICAL = 0.5


async def first_answer(stores: Sequence[CircuitStore], call: Callable[[Store], Awaitable[T]]) -> T | None:
    """The answer of the store that gives one first; None when all of them are out.

    The store that was fastest of late is asked first, the next when that takes longer than 95 in 100 of its calls, or
    fails; and so on.

    Raises:
        CloudDBError: what a store has failed with for another reason than an outage.
    """
    ranked = sorted(stores, key=lambda store: _quantile(store, _TYPICAL))
    answers: list[T] = []

    async with task_group() as group:
        for place, store in enumerate(ranked):
            ended = anyio.Event()

            async def ask(store: CircuitStore = store, ended: anyio.Event = ended) -> None:
                began = anyio.current_time()
                try:
                    answers.append(await call(store))
                    group.cancel_scope.cancel()
                except anyio.get_cancelled_exc_class():
                    if answers:
                        _lost(store, anyio.current_time() - began)
                    raise
                except (*OUTAGES, IndexNotReady):
                    ended.set()

            group.start_soon(ask)
            if place + 1 < len(ranked):
                with anyio.move_on_after(max(_quantile(store, _PERCENTILE), _LEAST)):
                    await ended.wait()
    return answers[0] if answers else None


def _lost(store: CircuitStore, waited: float) -> None:
    """Remember that a store takes longer than this, else it would count for ever as fast as it was once."""
    if waited > _quantile(store, _TYPICAL):  # less says nothing
        store.latencies.append(waited)


def _quantile(store: CircuitStore, share: float) -> float:
    latencies = sorted(store.latencies)
    return latencies[min(int(share * len(latencies)), len(latencies) - 1)] if latencies else _UNKNOWN
