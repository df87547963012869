"""The composite indexes and field settings that the queries of this library need, as firestore.indexes.json.

Which indexes serve a query: https://firebase.google.com/docs/firestore/query-data/index-overview. Firestore indexes
every field by itself in both directions, and merges indexes that have an equality field each and the same order.
"""

from __future__ import annotations

from typing import Any

from agno_clouddb.stores.base import Query
from agno_clouddb.stores.firestore.names import CHUNKS, Layout
from agno_clouddb.stores.schema import COLLECTIONS, OWNER, SHARD, Collection, collection

__all__ = ["filtered_natively", "firestore_indexes", "pairs"]


def pairs(declared: Collection) -> frozenset[tuple[str, str]]:
    """The equality fields and sort fields of a collection that have a composite index together.

    A list may always be filtered by owner; other fields where an index of the schema is partitioned by them or
    includes them.
    """
    owner = (OWNER,) if OWNER in declared.fields else ()
    return frozenset(
        (name, index.sort)
        for index in declared.indexes
        for name in (index.partition, *index.include, *owner)
        if name not in (SHARD, declared.parent_field, index.sort)
    )


def filtered_natively(query: Query) -> dict[str, str]:
    """The equality filters of a query that Firestore applies; the others are applied to what it answers."""
    indexed = pairs(collection(query.collection))
    return {name: value for name, value in query.equals.items() if (name, query.sort) in indexed}


def firestore_indexes(prefix: str = "agno_") -> dict[str, Any]:
    """The content of firestore.indexes.json for ``firebase deploy --only firestore:indexes``.

    It has the composite indexes of all lists, leaves payloads out of every index, and turns on time-to-live by
    ``expires_at``. Time-to-live applies to all collections of the same name, so that ``runs`` and ``chunks`` hold for
    every session and every document.

    Args:
        prefix: the store's prefix of collection names.
    """
    indexes: list[dict[str, Any]] = []
    overrides: list[dict[str, Any]] = []
    layout = Layout("", prefix)
    for declared in COLLECTIONS.values():
        group = layout.collection_id(declared.name)
        for name, sort in sorted(pairs(declared)):
            indexes.extend(_composite(group, name, sort, order) for order in ("ASCENDING", "DESCENDING"))
        overrides += [_exempt(group, "data"), _exempt(group, "expires_at", ttl=True)]
    overrides += [_exempt(CHUNKS, "data"), _exempt(CHUNKS, "expires_at", ttl=True)]
    return {"indexes": indexes, "fieldOverrides": overrides}


def _composite(group: str, name: str, sort: str, order: str) -> dict[str, Any]:
    return {
        "collectionGroup": group,
        "queryScope": "COLLECTION",
        "fields": [{"fieldPath": name, "order": "ASCENDING"}, {"fieldPath": sort, "order": order}],
    }


def _exempt(group: str, name: str, *, ttl: bool = False) -> dict[str, Any]:
    override: dict[str, Any] = {"collectionGroup": group, "fieldPath": name, "indexes": []}
    return {**override, "ttl": True} if ttl else override
