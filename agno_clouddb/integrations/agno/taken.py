"""Taken: what is unique is in use already; and changes that are made again when somebody else came first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TypeVar

from agno_clouddb.concurrency import full_jitter
from agno_clouddb.errors import ConflictError

__all__ = ["Taken", "repeated", "taken"]

T = TypeVar("T")

_ATTEMPTS = 100


class Taken(ConflictError):
    """A name or an id that must be unique is in use. Where SQLAlchemy is installed, an ``IntegrityError`` of it too."""


def taken(error: ConflictError, problem: str) -> Taken:
    """The error that something unique is in use, so that agno's routes answer 409.

    Args:
        error: what the store has refused.
        problem: what is in use.
    """
    return _recognised()(None, error.found, problem=problem, store=error.store, key=error.key)


@cache
def _recognised() -> type[Taken]:
    """The class that agno's ``is_unique_violation`` recognises: it goes by SQLAlchemy's, on whatever database."""
    try:
        from sqlalchemy.exc import IntegrityError
    except ImportError:
        return Taken

    class Violation(IntegrityError):
        def __init__(self, message: str) -> None:
            super().__init__(message, None, Exception(message))

    return type("Taken", (Taken, Violation), {"__doc__": Taken.__doc__, "__module__": __name__})


async def repeated(change: Callable[[], Awaitable[T]]) -> T:
    """Make a change that reads first, and make it anew while somebody else writes in between.

    Raises:
        Taken: something unique is in use.
        ConflictError: others kept writing in between, for a hundred attempts.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return await change()
        except Taken:
            raise
        except ConflictError:
            await asyncio.sleep(full_jitter(attempt, 0.005, 0.5))
    return await change()
