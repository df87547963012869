"""Merging what several stores answer: the newest version of each key wins, and stands only at its own place.

Source of the rule: last-writer-wins by version, as in the read path of G. DeCandia et al., "Dynamo: Amazon's Highly
Available Key-value Store", SOSP 2007, with hybrid logical clock stamps in place of vector clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agno_clouddb.stores.base import Cursor, Item, Key, Page, Query
from agno_clouddb.stores.query import order_of

__all__ = ["horizon", "newest", "shown", "undecided"]


def newest(items: Iterable[Item | None]) -> Item | None:
    """The item of the greatest version; None when there is none."""
    return max((item for item in items if item is not None), key=lambda item: item.version, default=None)


def horizon(query: Query, pages: Iterable[Page]) -> Cursor | None:
    """How far the pages tell what the list is: to the end of the page that ends first; None: to the end of the list.

    Beyond the end of a page its store may show more, so what others show there cannot be placed yet.
    """
    ends = [page.cursor for page in pages if page.cursor is not None]
    if not ends:
        return None
    return max(ends, key=order_of) if query.descending else min(ends, key=order_of)


def shown(query: Query, pages: Sequence[Page], limit: Cursor | None) -> dict[Key, list[Item | None]]:
    """What each page shows under each key that any page shows up to ``limit``, one entry a page."""
    found: dict[Key, list[Item | None]] = {}
    for position, page in enumerate(pages):
        for item in page.items:
            if limit is None or not query.after(item, limit):
                found.setdefault(item.key, [None] * len(pages))[position] = item
    return found


def undecided(found: Mapping[Key, Sequence[Item | None]], position: int) -> list[Key]:
    """The keys that the page at ``position`` does not show, and of which its store must therefore be asked."""
    return [key for key, items in found.items() if items[position] is None]
