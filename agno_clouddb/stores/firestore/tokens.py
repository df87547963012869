"""What the store last saw of each document, so that a write needs no read before it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from agno_clouddb.stores.base import Item, Key

__all__ = ["Snapshot", "Tokens"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A document as it was at one moment.

    Args:
        item: the item; its payload is empty while it is in chunks or was not asked for.
        update_time: seconds and nanoseconds of the document's last change, which is its precondition token.
        chunks: how many chunks hold the payload; 0: it is in the document.
    """

    item: Item
    update_time: tuple[int, int]
    chunks: int = 0


class Tokens:
    """The last snapshots by key, without payloads, the least recently used forgotten first.

    Nothing depends on them being current: a commit carries the token as its precondition, and Firestore refuses it
    when the document has changed since.

    Args:
        limit: how many are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._snapshots: OrderedDict[Key, Snapshot] = OrderedDict()

    def __len__(self) -> int:
        return len(self._snapshots)

    def get(self, key: Key) -> Snapshot | None:
        """The last snapshot of a document, None where none is kept."""
        snapshot = self._snapshots.get(key)
        if snapshot is not None:
            self._snapshots.move_to_end(key)
        return snapshot

    def keep(self, snapshot: Snapshot) -> None:
        """Remember a snapshot, unless a later one of the same document is kept."""
        key = snapshot.item.key
        kept = self._snapshots.get(key)
        if kept is None or kept.update_time < snapshot.update_time:
            item = snapshot.item
            head = Item(key, item.version, item.fields, "", item.expires_at, item.deleted)
            self._snapshots[key] = Snapshot(head, snapshot.update_time, snapshot.chunks)
        self._snapshots.move_to_end(key)
        while len(self._snapshots) > self._limit:
            self._snapshots.popitem(last=False)

    def forget(self, key: Key) -> None:
        """Drop what is kept of a document that is gone."""
        self._snapshots.pop(key, None)
