"""The composite indexes and field settings that the queries of this library need, as firestore.indexes.json.

Which indexes serve a query: https://firebase.google.com/docs/firestore/query-data/index-overview. Firestore indexes
every field by itself in both directions, and merges indexes that have an equality field each and the same order.
"""

from __future__ import annotations

from collections.abc import Collection as Names
from dataclasses import dataclass
from typing import Any

from agno_clouddb.stores.base import Query
from agno_clouddb.stores.firestore.names import CHUNKS, Layout
from agno_clouddb.stores.schema import DECLARED, SHARD, Collection, collection

__all__ = [
    "Composite",
    "composite_indexes",
    "filtered_natively",
    "firestore_indexes",
    "group_indexes",
    "indexes_for",
    "pairs",
    "version_index",
]

_MAX_DISJUNCTIONS = 30
_MAX_COMPONENTS = 100
_OTHER_COMPONENTS = 3  # two sort orders, and the parent's path


@dataclass(frozen=True, slots=True)
class Composite:
    """An index of a collection: an equality field, and the field that orders; or the latter alone.

    Args:
        group: the collection's id on Firestore.
        field: the field that has one value; None stands for an index of the sort field alone, which is automatic unless
            it is of a collection group.
        sort: the field that orders.
        descending: from the greatest to the least.
        whole_group: whether it is of the collection group: of all collections of this id, whatever their parents.
    """

    group: str
    field: str | None
    sort: str
    descending: bool
    whole_group: bool = False

    def __str__(self) -> str:
        field = "" if self.field is None else f"{self.field}, "
        scope = "collection group " if self.whole_group else ""
        return f"{scope}{self.group} ({field}{self.sort} {self.order})"

    @property
    def order(self) -> str:
        return "DESCENDING" if self.descending else "ASCENDING"

    def as_json(self) -> dict[str, Any]:
        """The index as firestore.indexes.json has it."""
        return {
            "collectionGroup": self.group,
            "queryScope": "COLLECTION",
            "fields": [
                {"fieldPath": self.field, "order": "ASCENDING"},
                {"fieldPath": self.sort, "order": self.order},
            ],
        }


def pairs(declared: Collection) -> frozenset[tuple[str, str]]:
    """The equality fields and sort fields of a collection that have a composite index together.

    A list is filtered by the fields that an index of the schema in its order is partitioned by, or includes. The
    children of one parent are few: what their index includes is counted from their fields.
    """
    return frozenset(
        (name, index.sort)
        for index in declared.indexes
        for name in (index.partition, *(index.include if declared.parent is None else ()))
        if name not in (SHARD, declared.parent_field, index.sort)
    )


def filtered_natively(query: Query) -> dict[str, tuple[str, ...]]:
    """The filters of a query, beside the range, that Firestore applies: fields, and the values of which one is needed.

    The others are applied to what it answers: those without an index, and those with which the query would be over
    Firestore's limits: 30 disjunctions in disjunctive normal form, and 100 filters and sort orders, "calculated based
    on the disjunctive normal form". Here these 100 are counted in all disjunctions together, the strictest reading,
    since a query over the limit fails; the emulator counts less, each value once. Source:
    https://firebase.google.com/docs/firestore/query-data/queries#query_limitations.
    """
    indexed = pairs(collection(query.collection))
    native: dict[str, tuple[str, ...]] = {
        name: (value,) for name, value in query.equals.items() if (name, query.sort) in indexed
    }
    several = {name: tuple(dict.fromkeys(values)) for name, values in query.any_of.items()}
    bounds = query.sort_range
    others = (bounds.low is not None) + (bounds.high is not None) + 2 * (query.sort in {*query.equals, *several})
    disjunctions, partition = 1, query.index.partition
    # The field that the index is partitioned by selects most, and fewer values more.
    for name, values in sorted(several.items(), key=lambda each: (each[0] != partition, len(each[1]))):
        product = disjunctions * len(values)
        components = product * (len(native) + 1 + others) + _OTHER_COMPONENTS
        allowed = product <= _MAX_DISJUNCTIONS and components <= _MAX_COMPONENTS
        if (name, query.sort) in indexed and name not in native and allowed:
            native[name] = values
            disjunctions = product
    return native


def composite_indexes(names: Names[str], prefix: str) -> list[Composite]:
    """The composite indexes of some collections.

    Args:
        names: the collections, as the schema calls them.
        prefix: the store's prefix of collection names.
    """
    layout = Layout("", prefix)
    return [
        Composite(layout.collection_id(name), field, sort, descending)
        for name in names
        for field, sort in sorted(pairs(collection(name)))
        for descending in (False, True)
    ]


def version_index(name: str, prefix: str) -> Composite:
    """The index that serves a scan of a collection by version: automatic for one that has no parent."""
    return Composite(
        Layout("", prefix).collection_id(name), None, "version", False, collection(name).parent is not None
    )


def group_indexes(names: Names[str], prefix: str) -> list[Composite]:
    """The indexes by version of some collections that are not automatic.

    An index of a field that rises with time limits how fast documents can be written, to some 500 a second
    (https://firebase.google.com/docs/firestore/best-practices); that of a group, all children together.

    Args:
        names: the collections, as the schema calls them.
        prefix: the store's prefix of collection names.
    """
    return [each for each in (version_index(name, prefix) for name in names) if each.whole_group]


def indexes_for(query: Query, prefix: str) -> list[Composite]:
    """The indexes that serve a query: one for each equality field, or the automatic one of the sort field alone."""
    group = Layout("", prefix).collection_id(query.collection)
    fields: list[str | None] = [*sorted(filtered_natively(query))] or [None]
    return [Composite(group, field, query.sort, query.descending) for field in fields]


def firestore_indexes(prefix: str = "agno_") -> dict[str, Any]:
    """The content of firestore.indexes.json for ``firebase deploy --only firestore:indexes``.

    It has the composite indexes of all lists and the indexes by version of collection groups, leaves payloads out of
    every index, and turns on time-to-live by ``expires_at``. Time-to-live applies to all collections of the same name,
    so that ``runs``, ``spans`` and ``chunks`` hold for every session, trace and document.

    Args:
        prefix: the store's prefix of collection names.

    Raises:
        ConfigurationError: no collection can have a name that begins so.
    """
    Layout.check(prefix)
    overrides: list[dict[str, Any]] = []
    layout = Layout("", prefix)
    for name in DECLARED:
        group = layout.collection_id(name)
        overrides += [_exempt(group, "data"), _exempt(group, "expires_at", ttl=True)]
    overrides += [_exempt(CHUNKS, "data"), _exempt(CHUNKS, "expires_at", ttl=True)]
    overrides += [_by_version(each) for each in group_indexes(DECLARED, prefix)]
    indexes = [each.as_json() for each in composite_indexes(DECLARED, prefix)]
    return {"indexes": indexes, "fieldOverrides": overrides}


def _by_version(index: Composite) -> dict[str, Any]:
    # An override replaces the automatic indexes, which are therefore named with the one that is added.
    wanted = [("COLLECTION", "ASCENDING"), ("COLLECTION", "DESCENDING"), ("COLLECTION_GROUP", index.order)]
    indexes = [{"order": order, "queryScope": scope} for scope, order in wanted]
    return {"collectionGroup": index.group, "fieldPath": index.sort, "indexes": indexes}


def _exempt(group: str, name: str, *, ttl: bool = False) -> dict[str, Any]:
    override: dict[str, Any] = {"collectionGroup": group, "fieldPath": name, "indexes": []}
    return {**override, "ttl": True} if ttl else override
