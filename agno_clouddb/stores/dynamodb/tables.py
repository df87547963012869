"""Tables and indexes, derived from the schema: what each collection looks like on DynamoDB.

A field that orders an index is kept together with the id, see ``items.composite``. Where it also selects, as the
partition of another index or as a field kept in one, the bare value stays under its own name and the composite has an
attribute of its own: ``date`` and ``date_sort``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agno_clouddb.errors import ConfigurationError
from agno_clouddb.stores.dynamodb.expressions import Request
from agno_clouddb.stores.schema import COLLECTIONS, DECLARED, SHARD, Collection, Index

__all__ = [
    "CHUNK_PARTITION",
    "CHUNK_SORT",
    "TTL_ATTRIBUTE",
    "VERSION",
    "VERSION_INDEX",
    "Layout",
    "Table",
    "TableIndex",
    "chunk_table",
    "layouts",
]

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{0,200}")

TTL_ATTRIBUTE, VERSION = "expires_at", "version"
CHUNK_PARTITION, CHUNK_SORT = "item", "part"
_RESERVED = frozenset({SHARD, TTL_ATTRIBUTE, VERSION, "deleted", "data", "chunks"})


@dataclass(frozen=True, slots=True)
class TableIndex:
    """An index as its table has it.

    Args:
        name: the same as in the schema, whatever the attributes are called.
        partition: the attribute that is its partition key.
        sort: the attribute that is its sort key.
        include: attributes kept in it beside the keys.
    """

    name: str
    partition: str
    sort: str
    include: tuple[str, ...] = ()


VERSION_INDEX = TableIndex("shard-version-index", SHARD, VERSION)
"""Lists a whole collection in order of version, tombstones too. Only a store of a fan-out has it, and only for records,
which are compared: it costs two write units for each write that replaces an item, and one for each other."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its keys and indexes.

    Args:
        name: with the store's prefix.
        partition: the attribute that is the partition key.
        sort: the attribute that is the sort key; None: the table has none.
        local: local secondary indexes, which can only be made with the table.
        global_: global secondary indexes.
    """

    name: str
    partition: str
    sort: str | None = None
    local: tuple[TableIndex, ...] = ()
    global_: tuple[TableIndex, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The attributes that make a key."""
        return (self.partition,) if self.sort is None else (self.partition, self.sort)

    def create_request(self) -> Request:
        """The parameters of CreateTable."""
        indexed = {name for index in (*self.local, *self.global_) for name in (index.partition, index.sort)}
        request: Request = {
            "TableName": self.name,
            "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": key_schema(*self.keys),
            "AttributeDefinitions": definitions({*self.keys, *indexed}),
        }
        if self.local:
            request["LocalSecondaryIndexes"] = [index_request(index) for index in self.local]
        if self.global_:
            request["GlobalSecondaryIndexes"] = [index_request(index) for index in self.global_]
        return request


@dataclass(frozen=True, slots=True)
class Layout:
    """How the items of one collection are kept.

    Args:
        collection: its declaration.
        table: the table that has them.
        composites: for each field that orders an index, the attribute that holds it together with the id.
        plain: the fields whose bare value is an attribute, under the field's own name.
    """

    collection: Collection
    table: Table
    composites: Mapping[str, str]
    plain: frozenset[str]

    def replicated(self) -> Table:
        """The table as a store of a fan-out needs it, with an index by version where it keeps records."""
        if self.collection.name not in COLLECTIONS:
            return self.table
        return replace(self.table, global_=(*self.table.global_, VERSION_INDEX))

    def sort_attribute(self, index: Index) -> str:
        """The attribute that is the sort key of an index."""
        return self.composites[index.sort]

    def is_local(self, index: Index) -> bool:
        """Whether an index shares its partition with the table, so that it can be read with strong consistency."""
        return index.partition == self.table.partition


def layouts(prefix: str) -> Mapping[str, Layout]:
    """The layout of every collection in the schema, by the collection's name.

    Raises:
        ConfigurationError: no table can have a name that begins so.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"the prefix {prefix!r} cannot begin the name of a table",
            remedy="Choose letters, digits, _, - and . only, 200 at most",
        )
    return {name: _layout(declared, prefix) for name, declared in DECLARED.items()}


def chunk_table(prefix: str) -> Table:
    """The table of the chunks of large payloads, of all collections."""
    return Table(f"{prefix}chunks", CHUNK_PARTITION, CHUNK_SORT)


def _layout(declared: Collection, prefix: str) -> Layout:
    parent = declared.parent_field
    sorts = {index.sort for index in declared.indexes}
    selecting = {name for index in declared.indexes for name in (index.partition, *index.include)}
    composites = {name: f"{name}_sort" if name in selecting else name for name in sorts}
    taken = _RESERVED | {declared.id_field, parent}
    added = [attribute for name, attribute in composites.items() if attribute != name]
    if clashes := taken & {*declared.fields, *sorts, *added} | {*added} & {*declared.fields}:
        raise ValueError(f"{declared.name}: {sorted(map(str, clashes))} cannot serve in both ways on DynamoDB")
    indexes = [TableIndex(each.name, each.partition, composites[each.sort], each.include) for each in declared.indexes]
    partition, sort = (declared.id_field, None) if parent is None else (parent, declared.id_field)
    table = Table(
        f"{prefix}{declared.name}",
        partition,
        sort,
        local=tuple(index for index in indexes if index.partition == parent),
        global_=tuple(index for index in indexes if index.partition != parent),
    )
    plain = frozenset(name for name in declared.fields if composites.get(name) != name)
    return Layout(declared, table, composites, plain)


def key_schema(partition: str, sort: str | None = None) -> list[Mapping[str, str]]:
    """A key as the service describes it."""
    schema: list[Mapping[str, str]] = [{"AttributeName": partition, "KeyType": "HASH"}]
    return schema if sort is None else [*schema, {"AttributeName": sort, "KeyType": "RANGE"}]


def definitions(names: Iterable[str]) -> list[Mapping[str, str]]:
    """The definitions of key attributes, all of which are text."""
    return [{"AttributeName": name, "AttributeType": "S"} for name in sorted(names)]


def index_request(index: TableIndex) -> dict[str, Any]:
    """An index as the service describes it."""
    projection: dict[str, Any] = {"ProjectionType": "KEYS_ONLY"}
    if index.include:
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.include)}
    return {
        "IndexName": index.name,
        "KeySchema": key_schema(index.partition, index.sort),
        "Projection": projection,
    }
