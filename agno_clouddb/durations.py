"""Durations: times that callers give as a number or as a timedelta."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from agno_clouddb.errors import ConfigurationError

__all__ = ["duration", "seconds_between"]


def duration(value: Any, unit: int) -> timedelta | None:
    """A time over 0, given as a timedelta or as a number of units of so many seconds; None: it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = timedelta(seconds=value * unit)
        except ValueError:  # NaN
            return None
        except OverflowError:
            value = timedelta.max if value > 0 else timedelta.min
    return value if isinstance(value, timedelta) and value > timedelta(0) else None


def seconds_between(name: str, value: object, least: timedelta, most: timedelta) -> float:
    """An option's time in seconds.

    Args:
        name: of the option.
        value: a number of seconds, or a timedelta.
        least: what it must be at least.
        most: and at most.

    Raises:
        ConfigurationError: it is neither, or out of this range.
    """
    given = duration(value, 1)
    if given is None:
        raise ConfigurationError(f"{name} is {value!r}, neither a number of seconds over 0 nor a timedelta")
    if not least <= given <= most:
        raise ConfigurationError(f"{name} is {value!r}, and must be from {least} to {most} (days, h:mm:ss)")
    return given.total_seconds()
