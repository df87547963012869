"""Version stamps: a hybrid logical clock.

Source: S. Kulkarni, M. Demirbas, D. Madappa, B. Avva, M. Leone, "Logical Physical Clocks", OPODIS 2014. A stamp is at
or after the wall clock, later than every stamp that this clock has made or seen, and unique by its writer.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from datetime import timedelta

__all__ = ["DRIFTS", "HybridClock", "epoch_seconds", "is_version", "just_after", "version_millis", "wall_clock_millis"]

MAX_DRIFT_MILLIS = 3_600_000
"""How far ahead of the wall clock a version may be to be believed, in milliseconds: an hour."""

DRIFTS = timedelta(seconds=1), timedelta(days=365)
"""The least and the most that it may be set to: clocks that are set by the network differ by less than a second, and a
version a year ahead is no clock's."""

_MAX_COUNTER = 0xFFFF
_VERSION = re.compile(r"[0-9a-f]{12}-[0-9a-f]{4}-[0-9a-f]{12}")


def wall_clock_millis() -> int:
    """The wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def epoch_seconds() -> int:
    """The wall clock in seconds since the epoch."""
    return int(time.time())


def is_version(text: object) -> bool:
    """Whether ``text`` has the form of a version stamp."""
    return isinstance(text, str) and _VERSION.fullmatch(text) is not None


def version_millis(version: str) -> int:
    """The milliseconds since the epoch that a version stamp carries."""
    return int(version[:12], 16)


def just_after(version: str, holder: str) -> str:
    """A version later than another one, and older than what anybody stamps who has seen that: for what is put back.

    Args:
        version: that of what is to be replaced.
        holder: the version that the item has which is put back, so that two of them do not get the same.
    """
    mark = "f" + hashlib.sha256(holder.encode()).hexdigest()[:11]  # greater than the mark of every writer
    after = version[:18] + mark
    return after if after > version else f"{version[:13]}{int(version[13:17], 16) + 1:04x}-{mark}"


class HybridClock:
    """Makes version stamps: ``<milliseconds>-<counter>-<writer>``, fixed-width hexadecimal, sortable as text.

    Args:
        writer: 12 hexadecimal digits that no other writer uses, the first of them not ``f``; random by default.
        now: the wall clock in milliseconds; replaced in simulations.
        max_drift: how far ahead of the wall clock a version may be to be believed, in milliseconds.
    """

    def __init__(
        self,
        writer: str | None = None,
        now: Callable[[], int] = wall_clock_millis,
        max_drift: int = MAX_DRIFT_MILLIS,
    ) -> None:
        self.writer = writer if writer is not None else f"{secrets.randbits(47):012x}"
        self._now = now
        self._max_drift = max_drift
        self._millis = 0
        self._counter = 0

    def stamp(self) -> str:
        """A new stamp, later than all that this clock has made or observed."""
        now = self._now()
        if now > self._millis:
            self._millis, self._counter = now, 0
        elif self._counter < _MAX_COUNTER:
            self._counter += 1
        else:
            self._millis, self._counter = self._millis + 1, 0
        return f"{self._millis:012x}-{self._counter:04x}-{self.writer}"

    def observe(self, version: str) -> bool:
        """Advance past ``version``, so that every later stamp is newer than it.

        Returns:
            False, with the clock left as it is, when ``version`` is no stamp or too far in the future: one broken
            clock must not carry all others away.
        """
        if not is_version(version) or version_millis(version) > self._now() + self._max_drift:
            return False
        millis, counter = int(version[:12], 16), int(version[13:17], 16)
        if (millis, counter) > (self._millis, self._counter):
            self._millis, self._counter = millis, counter
        return True
