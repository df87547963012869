"""Tables and indexes, derived from the schema: what each collection looks like on DynamoDB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agno_clouddb.stores.dynamodb.expressions import Request
from agno_clouddb.stores.schema import COLLECTIONS, SHARD, Collection, Index

__all__ = [
    "CHUNK_PARTITION",
    "CHUNK_SORT",
    "TTL_ATTRIBUTE",
    "Layout",
    "Table",
    "chunk_table",
    "layouts",
]

TTL_ATTRIBUTE = "expires_at"
CHUNK_PARTITION, CHUNK_SORT = "item", "part"
_RESERVED = frozenset({SHARD, TTL_ATTRIBUTE, "version", "deleted", "data", "chunks"})


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
    local: tuple[Index, ...] = ()
    global_: tuple[Index, ...] = ()

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
        sorts: the fields that order an index; they are kept together with the id, see ``items.composite``.
        sharded: some index lists all items, by the attribute ``shard``.
    """

    collection: Collection
    table: Table
    sorts: frozenset[str]
    sharded: bool

    def is_local(self, index: Index) -> bool:
        """Whether an index shares its partition with the table, so that it can be read with strong consistency."""
        return index.partition == self.table.partition


def layouts(prefix: str) -> Mapping[str, Layout]:
    """The layout of every collection in the schema, by the collection's name."""
    return {name: _layout(declared, prefix) for name, declared in COLLECTIONS.items()}


def chunk_table(prefix: str) -> Table:
    """The table of the chunks of large payloads, of all collections."""
    return Table(f"{prefix}chunks", CHUNK_PARTITION, CHUNK_SORT)


def _layout(declared: Collection, prefix: str) -> Layout:
    parent = declared.parent_field
    local = tuple(index for index in declared.indexes if index.partition == parent)
    global_ = tuple(index for index in declared.indexes if index.partition != parent)
    sorts = frozenset(index.sort for index in declared.indexes)
    plain = {name for index in declared.indexes for name in (index.partition, *index.include)} - {SHARD}
    if clashes := sorts & plain | (_RESERVED | {declared.id_field, parent}) & {*declared.fields, *sorts}:
        # One attribute cannot hold both the bare value and the value with the id.
        raise ValueError(f"{declared.name}: {sorted(map(str, clashes))} cannot serve in both ways on DynamoDB")
    partition, sort = (declared.id_field, None) if parent is None else (parent, declared.id_field)
    table = Table(f"{prefix}{declared.name}", partition, sort, local, global_)
    return Layout(declared, table, sorts, any(index.partition == SHARD for index in declared.indexes))


def key_schema(partition: str, sort: str | None = None) -> list[Mapping[str, str]]:
    """A key as the service describes it."""
    schema: list[Mapping[str, str]] = [{"AttributeName": partition, "KeyType": "HASH"}]
    return schema if sort is None else [*schema, {"AttributeName": sort, "KeyType": "RANGE"}]


def definitions(names: Iterable[str]) -> list[Mapping[str, str]]:
    """The definitions of key attributes, all of which are text."""
    return [{"AttributeName": name, "AttributeType": "S"} for name in sorted(names)]


def index_request(index: Index) -> dict[str, Any]:
    """An index as the service describes it."""
    projection: dict[str, Any] = {"ProjectionType": "KEYS_ONLY"}
    if index.include:
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.include)}
    return {
        "IndexName": index.name,
        "KeySchema": key_schema(index.partition, index.sort),
        "Projection": projection,
    }
