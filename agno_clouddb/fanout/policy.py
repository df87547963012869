"""What a write to several stores comes to, from what it came to on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from agno_clouddb.errors import CloudDBError, ConfigurationError, PartialWrite, StoreUnavailable, Throttled
from agno_clouddb.stores.base import Failed, Key, Outcome, Refused, Stored

__all__ = ["Acks", "combine"]

Acks = Literal[1, "all"]
"""How many stores must acknowledge a write before it counts as stored. All stores are written to and waited for in
any case."""

_OUTAGES = (StoreUnavailable, Throttled, ConfigurationError)
"""Failures that are gone on without, and logged. Others are mistakes, such as a missing table, which it would hide."""

_GRAVITY = {"owner": 3, "exists": 2, "version": 2, "absent": 2, "dead": 2, "older": 1, "atomic": 0}


def _gravest(refused: Sequence[Refused]) -> Refused:
    """The refusal that counts: where there is something dead, that by the newest version, which is what is true."""
    if any(each.reason == "dead" for each in refused):
        return max(refused, key=lambda each: each.version or "")
    return max(refused, key=lambda each: (_GRAVITY[each.reason], each.version or ""))


def combine(key: Key, outcomes: Mapping[str, Outcome], acks: Acks) -> Outcome:
    """The outcome of one mutation.

    Args:
        key: what was written.
        outcomes: by store name, the primary first.
        acks: how many stores must have it.

    Returns:
        A refusal when any store refused: what that store holds is newer or forbids the write, and the caller must
        learn of it. Else ``Stored`` when enough stores acknowledged, ``Failed(PartialWrite)`` when some did but not
        enough, or when one failed for another reason than an outage, and the primary's failure when none did.
    """
    refused = [each for each in outcomes.values() if isinstance(each, Refused)]
    if refused:
        return _gravest(refused)
    stored = {name: each for name, each in outcomes.items() if isinstance(each, Stored)}
    failed = {name: each for name, each in outcomes.items() if isinstance(each, Failed)}
    if stored and (not failed or (acks == 1 and all(isinstance(each.error, _OUTAGES) for each in failed.values()))):
        return next(iter(stored.values()))
    if stored:
        errors: dict[str, CloudDBError] = {name: each.error for name, each in failed.items()}
        return Failed(PartialWrite(tuple(stored), errors, key=key), applied=True)
    return Failed(next(iter(failed.values())).error, applied=any(each.applied for each in failed.values()))
