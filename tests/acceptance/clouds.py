"""Both clouds of a fan-out, with what each was asked for, and the figures that tests show."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from agno_clouddb.stores.base import Item, Key, Store
from agno_clouddb.stores.clock import HybridClock, wall_clock_millis
from agno_clouddb.stores.dynamodb.store import DynamoDBStore
from agno_clouddb.stores.firestore.store import FirestoreStore
from agno_clouddb.stores.schema import COLLECTIONS
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.stores.usage import Usage

__all__ = ["Clouds", "Cost", "clock_an_hour_ago", "counted", "everything", "show"]

_PAGE = 200
_AGO = 3_600_000  # milliseconds


@dataclass(frozen=True, slots=True)
class Cost:
    """What calls have cost, on both clouds.

    Args:
        dynamodb: what DynamoDB Local has reported.
        firestore: what the Firestore client has counted.
    """

    dynamodb: Usage
    firestore: Usage

    @property
    def requests(self) -> tuple[int, int]:
        """How many requests each cloud was sent, DynamoDB first."""
        return self.dynamodb.requests.total(), self.firestore.requests.total()

    @property
    def documents(self) -> int:
        """The most document reads that Firestore bills: one for each document, and one for a query that finds none."""
        return self.firestore.documents_read + self.firestore.requests["RunQuery"]


class Clouds:
    """DynamoDB Local and the Firestore emulator.

    Args:
        urls: theirs, DynamoDB's with ``report_capacity=true``.
    """

    def __init__(self, urls: tuple[str, str]) -> None:
        dynamodb, firestore = (store_from_url(url, StoreOptions()) for url in urls)
        assert isinstance(dynamodb, DynamoDBStore)
        assert isinstance(firestore, FirestoreStore)
        self.dynamodb = dynamodb
        self.firestore = firestore
        self.mark()

    @property
    def stores(self) -> tuple[Store, Store]:
        """Both, DynamoDB first."""
        return self.dynamodb, self.firestore

    def mark(self) -> Self:
        """Count anew from here."""
        self._before = Cost(self.dynamodb.usage.copy(), self.firestore.usage.copy())
        return self

    def cost(self) -> Cost:
        """What was asked for since ``mark``."""
        before = self._before
        return Cost(self.dynamodb.usage.since(before.dynamodb), self.firestore.usage.since(before.firestore))


def clock_an_hour_ago() -> HybridClock:
    """A clock that stamps what it writes as if it were written an hour ago."""
    return HybridClock(now=lambda: wall_clock_millis() - _AGO)


def show(line: str) -> None:
    """Print a figure. It is shown with ``pytest -rP``, or ``-s``, and where the test fails."""
    sys.stdout.write(f"{line}\n")


async def everything(store: Store) -> dict[Key, Item]:
    """What an open store holds of all records, tombstones and expired ones too."""
    held: dict[Key, Item] = {}
    for collection in COLLECTIONS:
        cursor: str | None = None
        while True:
            scan = await store.scan(collection, limit=_PAGE, cursor=cursor)
            keys = [key for key, _ in scan.entries]
            batch = await store.get(keys, dead=True)
            held |= {key: item for key, item in zip(keys, batch.items, strict=True) if item is not None}
            cursor = scan.cursor
            if cursor is None:
                break
    return held


def counted(held: Mapping[Key, Item]) -> Counter[str]:
    """How many items there are by collection, and of tombstones."""
    return Counter("tombstones" if item.deleted else key.collection for key, item in held.items())
