"""What a write to several stores comes to, from what it came to on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agno_clouddb.errors import CloudDBError, ConfigurationError, PartialWrite
from agno_clouddb.fanout.failures import OUTAGES
from agno_clouddb.stores.base import Failed, Key, Outcome, Refused, Stored

__all__ = ["Acks", "ReadPolicy", "check_options", "combine", "gravest"]

Acks = Literal[1, "all"]
"""How many stores must acknowledge a write before it counts as stored. All stores are written to and waited for in
any case."""

ReadPolicy = Literal["merge", "primary", "fastest"]
"""Which stores are read: all, merged; the primary, and the others when it fails; the one that answers first."""


def check_options(acks: object, reads: object, failover: object, reconcile_every: object) -> None:
    """Raise ConfigurationError unless a fan-out takes these options."""
    if isinstance(acks, bool) or acks not in (1, "all"):
        raise ConfigurationError(f'acks is {acks!r}, neither 1 nor "all"')
    if reads not in ("merge", "primary", "fastest"):
        raise ConfigurationError(f"reads is {reads!r}, none of merge, primary and fastest")
    if not isinstance(failover, bool):
        raise ConfigurationError(f"failover is {failover!r}, neither True nor False")
    seconds = reconcile_every if isinstance(reconcile_every, int | float) else 0.0
    if reconcile_every is not None and (isinstance(seconds, bool) or not 0 < seconds < float("inf")):
        raise ConfigurationError(f"reconcile_every is {reconcile_every!r}, not a number of seconds over 0")


_GRAVITY = {"owner": 3, "exists": 2, "version": 2, "absent": 2, "dead": 2, "older": 1, "atomic": 0}


def gravest(refused: Mapping[str, Refused]) -> str:
    """Whose refusal counts: where there is something dead, that by the newest version, which is what is true."""
    if any(each.reason == "dead" for each in refused.values()):
        return max(refused, key=lambda name: refused[name].version or "")
    return max(refused, key=lambda name: (_GRAVITY[refused[name].reason], refused[name].version or ""))


def combine(key: Key, outcomes: Mapping[str, Outcome], acks: Acks, unhinted: Mapping[str, CloudDBError]) -> Outcome:
    """The outcome of one mutation.

    Args:
        key: what was written.
        outcomes: by store name, the primary first.
        acks: how many stores must have it.
        unhinted: why no hint is kept of what a store has missed, by the store's name.

    Returns:
        A refusal when any store refused: what that store holds is newer or forbids the write, and the caller must
        learn of it. Else ``Stored`` when enough stores acknowledged, ``Failed(PartialWrite)`` when some did but not
        enough, or when one failed for another reason than an outage or without a hint, and the primary's failure when
        none did.
    """
    refused = {name: each for name, each in outcomes.items() if isinstance(each, Refused)}
    if refused:
        return refused[gravest(refused)]
    stored = {name: each for name, each in outcomes.items() if isinstance(each, Stored)}
    failed = {name: each for name, each in outcomes.items() if isinstance(each, Failed)}
    tolerated = acks == 1 and not unhinted and all(isinstance(each.error, OUTAGES) for each in failed.values())
    if stored and (not failed or tolerated):
        first = next(iter(stored.values()))
        return Stored(first.version, partial=True) if failed else first
    if stored:
        errors = {name: each.error for name, each in failed.items()}
        return Failed(PartialWrite(tuple(stored), errors, unhinted=unhinted, key=key), applied=True)
    return Failed(next(iter(failed.values())).error, applied=any(each.applied for each in failed.values()))
