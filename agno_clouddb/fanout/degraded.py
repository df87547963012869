"""Degraded: telling a caller that a store was not read, where the result itself cannot say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Reads", "note_degraded", "watched_reads"]


@dataclass(slots=True)
class Reads:
    """What is known of the reads in a block of ``Database.watch_reads``.

    Args:
        degraded: one of them was made without one of the stores, so that its result may lack something.
    """

    degraded: bool = False


_watched: ContextVar[tuple[Reads, ...]] = ContextVar("agno_clouddb_reads", default=())


@contextmanager
def watched_reads() -> Iterator[Reads]:
    """Watch the reads in a block, and those of the tasks that it starts."""
    reads = Reads()
    token = _watched.set((*_watched.get(), reads))
    try:
        yield reads
    finally:
        _watched.reset(token)


def note_degraded() -> None:
    """Note in the blocks around that a read was degraded."""
    for reads in _watched.get():
        reads.degraded = True
