"""Tombstones: what a deletion leaves, so that an older copy elsewhere does not come back.

Source: Apache Cassandra's tombstones and their grace period (A. Lakshman, P. Malik, "Cassandra: A Decentralized
Structured Storage System", LADIS 2009, and the documentation of ``gc_grace_seconds``); here hints outlive it.
"""

from __future__ import annotations

from agno_clouddb.stores.base import Item, Key

__all__ = ["TOMBSTONE_SECONDS", "tombstone"]

TOMBSTONE_SECONDS = 7 * 24 * 3600
"""How long a tombstone is kept, in seconds."""


def tombstone(key: Key, version: str, now: int) -> Item:
    """What a deletion writes.

    Args:
        key: what is deleted.
        version: the stamp of the deletion.
        now: seconds since the epoch.
    """
    return Item(key, version, expires_at=now + TOMBSTONE_SECONDS, deleted=True)
