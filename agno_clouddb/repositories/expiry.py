"""When records expire: what a call says, what the record says, and what the Database was made with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from agno_clouddb.durations import duration
from agno_clouddb.errors import ConfigurationError, InvalidRecord
from agno_clouddb.records.base import Record, to_text
from agno_clouddb.stores.schema import COLLECTIONS

__all__ = ["expiring", "ttls"]

R = TypeVar("R", bound=Record)


def ttls(given: Mapping[str, float | timedelta]) -> dict[str, timedelta]:
    """How long records of each collection are kept; children as long as their parents, unless they are named.

    Args:
        given: days, or a timedelta, by the name of the collection.

    Raises:
        ConfigurationError: there is no such collection, or a time is not over 0.
    """
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"ttl is {given!r}, not a mapping from collections to days")
    found: dict[str, timedelta] = {}
    for name, value in given.items():
        if name not in COLLECTIONS:
            raise ConfigurationError(f"ttl names {name!r}, which is not among {', '.join(COLLECTIONS)}")
        kept = duration(value, 86_400)
        if kept is None:
            raise ConfigurationError(f"ttl of {name} is {value!r}, neither a number of days over 0 nor a timedelta")
        try:
            _ = datetime.now(UTC) + kept
        except OverflowError:
            raise ConfigurationError(f"ttl of {name} is {value!r}, which ends after the year 9999") from None
        found[name] = kept
    for declared in COLLECTIONS.values():
        if declared.parent in found:
            found.setdefault(declared.name, found[declared.parent])
    return found


def expiring(
    record: R, default: timedelta | None, expires_in: float | timedelta | None, expires_at: datetime | None
) -> R:
    """A record with its expiry.

    Args:
        record: what is to be written.
        default: how long records of its collection are kept from their last write; None: for good.
        expires_in: seconds from now, or a timedelta.
        expires_at: a moment with a zone.

    Returns:
        The record as it is when neither is given and there is no default; with a default, kept at least that long. An
        expiry is a whole second, as the services have it.

    Raises:
        InvalidRecord: both are given, or the expiry is not in the future.
    """
    now = datetime.now(UTC)
    if expires_in is not None and expires_at is not None:
        raise InvalidRecord("expires_at", "is given together with expires_in", remedy="Give one of them")
    if expires_in is not None:
        expires_at = _later("expires_in", now, expires_in)
    if expires_at is None:
        expires_at = record.expires_at
        if default is not None:
            kept = _later("ttl", now, default)
            to_text("expires_at", expires_at or kept)
            expires_at = max(expires_at or kept, kept)
    if expires_at is None:
        return record
    to_text("expires_at", expires_at)
    try:
        expires_at = _whole(expires_at.astimezone(UTC))
    except OverflowError:
        raise InvalidRecord("expires_at", "is after the last second of the year 9999") from None
    if expires_at <= now:
        raise InvalidRecord(
            "expires_at", f"is {expires_at.isoformat()}, which has passed", remedy="Set a later moment, or None"
        )
    return record if expires_at == record.expires_at else record.model_copy(update={"expires_at": expires_at})


def _later(path: str, now: datetime, value: Any) -> datetime:
    kept = duration(value, 1)
    if kept is None:
        raise InvalidRecord(path, f"is {value!r}, neither a number of seconds over 0 nor a timedelta")
    try:
        return now + kept
    except OverflowError:
        raise InvalidRecord(path, f"is {value!r}, which is after the year 9999") from None


def _whole(moment: datetime) -> datetime:
    """The moment, or the first whole second after it."""
    return moment.replace(microsecond=0) + timedelta(seconds=moment.microsecond > 0)
