"""Hints: what a store has missed, kept in a store that has it until the first has caught up.

Source: hinted handoff in G. DeCandia et al., "Dynamo: Amazon's Highly Available Key-value Store", SOSP 2007, 4.6; but
a hint here has a key and a version and no payload, since the store that keeps it holds the item itself.

A hint never expires, and so outlives what it is about: where the store that keeps it holds nothing any more, what it
held was removed, as a tombstone or a record is when its time has come. So the hint says of the older copy in the other
store that it is out of date, and not that the first store lacks it.

Only a *certain* hint says so: one that was kept after its write was. With a store known to be down, the hint of a plain
write goes out together with the write, which may yet be refused; it is replaced by a certain one afterwards. What a
delete or a write with an expiry leaves may be removed soon, and its hint is certain from the beginning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agno_clouddb.errors import CloudDBError
from agno_clouddb.stores.base import Condition, Cursor, Delete, Failed, Item, Key, Put, Query, Store
from agno_clouddb.stores.schema import REPLICATION

__all__ = ["LAST_VERSION", "Hint", "HintPage", "confirm", "hint_key", "hints_of", "is_hint", "listed", "remove"]

_SHARDS = 8
"""Parts in which the hints for a store are listed: a partition of an index takes 1,000 writes a second on DynamoDB."""

_HINT = "hint-"

LAST_VERSION = "ffffffffffff-ffff-ffffffffffff"
"""Greater than every version."""


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def hint_key(target: str, key: Key, *, certain: bool) -> Key:
    """Where the hint is kept that a store has missed a write of a key.

    Args:
        target: the store's name.
        key: what it has missed.
        certain: of a write that the store which keeps the hint has stored. These have a place of their own, which one
            that is not certain does not take.
    """
    digest = _digest(target, key.collection, key.parent or "", key.id)
    return Key(REPLICATION.name, f"{_HINT}{digest}-{'stored' if certain else 'sent'}")


def is_hint(key: Key) -> bool:
    """Whether a hint is kept under a key of ``replication``, and not a note or a lease."""
    return key.id.startswith(_HINT)


@dataclass(frozen=True, slots=True)
class Hint:
    """That a store has missed a write.

    Args:
        target: the name of the store.
        key: what was written.
        version: the version that it has missed, or a later one.
        certain: the store that keeps the hint has stored the write.
    """

    target: str
    key: Key
    version: str
    certain: bool = True

    @classmethod
    def of(cls, target: str, put: Put) -> Hint:
        """The hint that a store has missed a put."""
        return cls(target, put.key, put.version)

    def sent(self) -> Hint:
        """The same, as it goes out together with the put."""
        return replace(self, certain=False)

    def to_item(self) -> Item:
        """The item that keeps the hint; a later one of the same key replaces it."""
        kept = hint_key(self.target, self.key, certain=self.certain)
        shard = int(kept.id.removeprefix(_HINT)[:8], 16) % _SHARDS
        fields = {"target": f"{_digest(self.target)}#{shard}", "missed": self.version}
        data = {
            "target": self.target,
            "collection": self.key.collection,
            "id": self.key.id,
            "parent": self.key.parent,
            "certain": self.certain,
        }
        return Item(kept, self.version, fields, json.dumps(data))

    @classmethod
    def from_item(cls, item: Item) -> Hint:
        """The hint in an item."""
        data = json.loads(item.data)
        return cls(data["target"], Key(data["collection"], data["id"], data["parent"]), item.version, data["certain"])


@dataclass(frozen=True, slots=True)
class HintPage:
    """Some of the hints that a store keeps for another.

    Args:
        hints: the oldest first.
        cursor: where the list goes on; None at its end.
    """

    hints: tuple[Hint, ...]
    cursor: Cursor | None


def hints_of(target: str) -> Query:
    """The list of hints for a store, the oldest first."""
    shards = tuple(f"{_digest(target)}#{number}" for number in range(_SHARDS))
    return Query(REPLICATION.name, sort="missed", any_of={"target": shards})


async def listed(store: Store, target: str, *, limit: int, cursor: Cursor | None = None) -> HintPage:
    """One page of the hints that ``store`` keeps for the store named ``target``. Raises what ``query`` raises."""
    page = await store.query(hints_of(target), limit=limit, cursor=cursor)
    return HintPage(tuple(map(Hint.from_item, page.items)), page.cursor)


async def remove(store: Store, hints: Sequence[Hint]) -> dict[Hint, CloudDBError]:
    """Remove hints from the store that keeps them, but not one that has been replaced by a later one.

    Returns:
        Those that could not be removed, with the reason; they are replayed once more.
    """
    if not hints:
        return {}
    removals = [
        Delete(hint_key(each.target, each.key, certain=each.certain), LAST_VERSION, Condition(expected=each.version))
        for each in hints
    ]
    outcomes = await store.write(removals)
    return {hint: each.error for hint, each in zip(hints, outcomes, strict=True) if isinstance(each, Failed)}


async def confirm(store: Store, hints: Sequence[Hint]) -> list[Hint]:
    """Replace hints that went out with their writes, in the store that keeps them and has stored the writes.

    Returns:
        Those that could not be replaced.
    """
    if not hints:
        return []
    outcomes = await store.write([Put(each.to_item()) for each in hints])
    failed = {each for each, outcome in zip(hints, outcomes, strict=True) if isinstance(outcome, Failed)}
    await remove(store, [each.sent() for each in hints if each not in failed])
    return [each for each in hints if each in failed]
