"""Tombstones: what a deletion leaves, so that an older copy elsewhere does not come back.

Source: Apache Cassandra's tombstones and their grace period (A. Lakshman, P. Malik, "Cassandra: A Decentralized
Structured Storage System", LADIS 2009, and the documentation of ``gc_grace_seconds``); here hints outlive it.
"""

from __future__ import annotations

from datetime import timedelta

from agno_clouddb.stores.base import Item, Key

__all__ = ["RETENTIONS", "TOMBSTONE_SECONDS", "tombstone"]

TOMBSTONE_SECONDS = 7 * 24 * 3600
"""How long a tombstone is kept, in seconds, unless another time is given."""

RETENTIONS = timedelta(hours=1), timedelta(days=36_500)
"""The least and the most that it may be set to. A process whose clock is ahead takes a tombstone for gone before its
time, by up to the hour that clocks are believed to differ by; and no service takes a time after the year 9999."""


def tombstone(key: Key, version: str, now: int, kept: int = TOMBSTONE_SECONDS) -> Item:
    """What a deletion writes.

    Args:
        key: what is deleted.
        version: the stamp of the deletion.
        now: seconds since the epoch.
        kept: seconds until it is removed.
    """
    return Item(key, version, expires_at=now + kept, deleted=True)
