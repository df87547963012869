"""The library under simulated time."""

from __future__ import annotations

import logging
import random
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest import mock

import anyio._backends._asyncio as backend

from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout import reconcile as reconcile_module
from agno_clouddb.fanout.background import Background
from agno_clouddb.repositories import changes, expiry, runs
from agno_clouddb.stores.schema import COLLECTIONS
from tests.simulation.loop import PROCESS, SerialScope
from tests.simulation.world import World

__all__ = ["simulated"]


@contextmanager
def simulated(world: World, seed: int) -> Iterator[None]:
    """Every clock and every random number of the library is that of the schedule."""
    random.seed(seed)
    SerialScope.made = 0

    def wall() -> float:
        process = PROCESS.get()
        return process.wall() if process is not None else world.wall()

    def seconds() -> int:
        return int(wall())

    note = Background.note

    def noted(background: Background, error: CloudDBError, *, unexpected: Exception | None = None) -> None:
        if unexpected is not None:
            world.fail("errors", f"in the background: {unexpected!r}")
        note(background, error, unexpected=unexpected)

    moments = SimpleNamespace(
        now=lambda zone=UTC: datetime.fromtimestamp(wall(), zone),
        fromtimestamp=datetime.fromtimestamp,
        fromisoformat=datetime.fromisoformat,
    )
    patches: list[Any] = [
        mock.patch.object(backend, "CancelScope", SerialScope),
        mock.patch.object(Background, "note", noted),
        mock.patch.object(changes, "datetime", moments),
        mock.patch.object(expiry, "datetime", moments),
        mock.patch.object(runs, "time", SimpleNamespace(monotonic=world.loop.time)),
        mock.patch.object(runs, "epoch_seconds", seconds),
        mock.patch.object(secrets, "token_hex", _token),
        mock.patch.object(uuid, "uuid4", _unique),
    ]
    # Only what is written is compared, which takes a third of the time.
    used = {name: each for name, each in COLLECTIONS.items() if name in ("sessions", "runs", "memories")}
    patches.append(mock.patch.object(reconcile_module, "COLLECTIONS", used))
    log = logging.getLogger("agno_clouddb.fanout")
    level, log.level = log.level, logging.CRITICAL
    for each in patches:
        each.start()
    try:
        yield
    finally:
        log.level = level
        for each in reversed(patches):
            each.stop()


def _token(size: int = 16) -> str:
    return f"{random.getrandbits(8 * size):0{2 * size}x}"


def _unique() -> uuid.UUID:
    return uuid.UUID(int=random.getrandbits(128), version=4)
