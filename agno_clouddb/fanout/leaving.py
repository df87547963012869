"""Leaving: discarding what is kept for a store that is no longer one of a fan-out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agno_clouddb.errors import ConfigurationError, NotProvisioned
from agno_clouddb.fanout import hints
from agno_clouddb.fanout.hints import Hint
from agno_clouddb.fanout.notes import KINDS, note_item, note_key
from agno_clouddb.stores.base import Cursor, Failed, Put, Store
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.schema import REPLICATION

__all__ = ["forget"]

_PAGE = 100
_SEARCHED = 20  # pages in which the names are looked for that hints are kept for


async def forget(
    stores: Mapping[str, Store], target: str, clock: HybridClock, progress: Callable[[int], None] | None = None
) -> int:
    """Discard the hints that stores keep for another, and what is noted of all of them together.

    Args:
        stores: by name, those that stay.
        target: the name of the store that has left.
        clock: stamps what is noted in its place: that these stores were never compared. It is newer than what the store
            that has left may know of it.
        progress: is told after each page how many hints were discarded.

    Returns:
        How many hints were discarded; 0 when that was done before.

    Raises:
        ConfigurationError: nothing was ever kept for a store of this name.
        CloudDBError: what the stores fail with.
    """
    await _require_known(stores, target)
    forgotten = 0
    for store in stores.values():
        notes = [note_item(kind, [*stores, target], {}, clock.stamp()) for kind in KINDS]
        for outcome in await store.write([Put(note) for note in notes]):
            if isinstance(outcome, Failed):
                raise outcome.error
        cursor: Cursor | None = None
        while True:
            page = await hints.listed(store, target, limit=_PAGE, cursor=cursor)
            failed = await hints.remove(store, page.hints)
            forgotten += len(page.hints) - len(failed)
            if progress is not None:
                progress(forgotten)
            if failed:
                raise next(iter(failed.values()))
            cursor = page.cursor
            if cursor is None:
                break
    return forgotten


async def _require_known(stores: Mapping[str, Store], target: str) -> None:
    """Raise ConfigurationError when stores keep nothing for another, as when its name is misspelt."""
    keys = [note_key(kind, [*stores, target]) for kind in KINDS]
    try:
        for store in stores.values():
            # A note stays when it was emptied, so that forgetting twice is no mistake.
            if any((await store.get(keys)).items) or (await hints.listed(store, target, limit=1)).hints:
                return
        names = await _targets(stores)
    except NotProvisioned as error:
        if len(stores) > 1:
            raise  # `provision` makes what is missing
        raise ConfigurationError(
            f"nothing is kept for {target}, since the store was never one of several: {error.message}",
            store=error.store,
            remedy="Check URL and prefix of the store that stays; if they are right, nothing needs to be done",
        ) from error
    known = f"hints are kept for {', '.join(names)}" if names else "no hints are kept for any store that has left"
    raise ConfigurationError(
        f"nothing is kept for {target}, and it was never compared with {', '.join(stores)}; {known}",
        remedy="Name the store as `health` did when it was one of them; if that is right, nothing needs to be done",
    )


async def _targets(stores: Mapping[str, Store]) -> list[str]:
    """The names of other stores for which some of the hints are that stores keep."""
    names: set[str] = set()
    for store in stores.values():
        cursor: str | None = None
        for _ in range(_SEARCHED):
            scan = await store.scan(REPLICATION.name, limit=_PAGE, cursor=cursor)
            keys = [key for key, _ in scan.entries if hints.is_hint(key)]
            kept = [item for item in (await store.get(keys)).items if item is not None]
            names.update(Hint.from_item(item).target for item in kept)
            cursor = scan.cursor
            if cursor is None:
                break
    return sorted(names - stores.keys())
