"""The day it is, for tests of what asks for the date by itself: none is to end in the middle of one."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime

__all__ = ["DAY", "midnight", "today", "wait_for_midnight"]

DAY = 86_400  # seconds
_NEAR = 60.0  # seconds that a test may take


def midnight() -> int:
    """When today has begun, in UTC, in seconds since the epoch."""
    return int(time.time()) // DAY * DAY


def today() -> date:
    """The day in UTC."""
    return datetime.fromtimestamp(midnight(), UTC).date()


def wait_for_midnight() -> None:
    """Return when today goes on for a while: after midnight, where that is near."""
    while (left := midnight() + DAY - time.time()) < _NEAR:
        time.sleep(left)
