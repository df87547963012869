"""Items as attributes, written out by hand for their one shape, and the sizes that the service counts.

A field that orders an index is kept as ``<value> U+001F <id>``: unique in its index, so that a place in a list is one
sort key. The separator orders below every character that values and ids may contain, so that the order of these texts
is the order of (value, id) also where one value is the beginning of another, which ``#`` or ``/`` would not give. A
value of the greatest length is the beginning of no other and goes without separator, so that it fits with an id of
the greatest length into the 1,024 bytes of a sort key ("Quotas in Amazon DynamoDB", the service's developer guide).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agno_clouddb.stores.base import MAX_ID_BYTES, Item, Key, Payload
from agno_clouddb.stores.dynamodb.expressions import AttributeValue
from agno_clouddb.stores.dynamodb.tables import CHUNK_PARTITION, CHUNK_SORT, TTL_ATTRIBUTE, VERSION, Layout
from agno_clouddb.stores.schema import SHARD

__all__ = [
    "CHUNK_BYTES",
    "INLINE_BYTES",
    "SEPARATOR",
    "Row",
    "chunk_items",
    "chunk_keys",
    "composite",
    "data_attribute",
    "key_attributes",
    "key_of",
    "row_of",
    "shard_of",
    "size_of",
    "to_attributes",
    "value_of",
]

SEPARATOR = "\x1f"

INLINE_BYTES = 400_000
"""The largest item, of the 409,600 bytes that the service allows; the rest is for its entries in local indexes."""

CHUNK_BYTES = 400_000
"""The largest chunk, of the same; the rest is for its keys."""

Attributes = dict[str, AttributeValue]


def composite(value: str, id: str) -> str:
    """A place in an index as one text."""
    longest = len(value) * 4 >= MAX_ID_BYTES and len(value.encode()) >= MAX_ID_BYTES
    return value + id if longest else f"{value}{SEPARATOR}{id}"


@dataclass(frozen=True, slots=True)
class Row:
    """An item as its table has it.

    Args:
        item: the item; without its payload where that is in chunks.
        chunks: how many chunks the payload is in; 0: it is in the item.
    """

    item: Item
    chunks: int = 0

    def with_data(self, data: Payload) -> Item:
        """The item with a payload that was in chunks."""
        return replace(self.item, data=data)


def key_attributes(key: Key, layout: Layout) -> Attributes:
    """A key as the attributes of its table."""
    own: Attributes = {layout.collection.id_field: {"S": key.id}}
    return own if key.parent is None else {layout.table.partition: {"S": key.parent}, **own}


def key_of(attributes: Mapping[str, Any], layout: Layout) -> Key:
    """The key in the attributes of an item or index entry."""
    declared = layout.collection
    parent = attributes[declared.parent_field]["S"] if declared.parent_field is not None else None
    return Key(declared.name, attributes[declared.id_field]["S"], parent)


def shard_of(id: str, shards: int) -> str:
    """The partition of an item in the indexes that list the whole collection."""
    return str(zlib.crc32(id.encode()) % shards)


def to_attributes(item: Item, layout: Layout, shards: int) -> Attributes:
    """All attributes of an item but its payload."""
    attributes = key_attributes(item.key, layout)
    attributes[VERSION] = {"S": item.version}
    # A tombstone has it too, for the index by version; the other indexes by it sort by fields that no tombstone has.
    attributes[SHARD] = {"S": shard_of(item.key.id, shards)}
    for name, value in item.fields.items():
        if name in layout.plain:
            attributes[name] = {"S": value}
        if (attribute := layout.composites.get(name)) is not None:
            attributes[attribute] = {"S": composite(value, item.key.id)}
    if item.expires_at is not None:
        attributes[TTL_ATTRIBUTE] = {"N": str(item.expires_at)}
    if item.deleted:
        attributes["deleted"] = {"BOOL": True}
    return attributes


def data_attribute(data: Payload) -> Attributes:
    """The payload as an attribute; empty text is not written out."""
    if isinstance(data, bytes):
        return {"data": {"B": data}}
    return {"data": {"S": data}} if data else {}


def value_of(name: str, attributes: Mapping[str, Any], layout: Layout) -> str | None:
    """The value of a field in the attributes of an item or index entry; None where they do not have it."""
    if name in layout.plain and name in attributes:
        return str(attributes[name]["S"])
    place = layout.composites.get(name)
    if place is None or place not in attributes:
        return None
    with_id: str = attributes[place]["S"]
    return with_id.removesuffix(attributes[layout.collection.id_field]["S"]).removesuffix(SEPARATOR)


def row_of(attributes: Mapping[str, Any], layout: Layout) -> Row:
    """The item in its attributes."""
    key = key_of(attributes, layout)
    values = {name: value_of(name, attributes, layout) for name in layout.collection.fields}
    fields = {name: value for name, value in values.items() if value is not None}
    data = attributes.get("data", {"S": ""})
    expires_at = attributes.get(TTL_ATTRIBUTE)
    item = Item(
        key,
        attributes[VERSION]["S"],
        fields,
        data["S"] if "S" in data else data["B"],
        int(expires_at["N"]) if expires_at is not None else None,
        "deleted" in attributes,
    )
    return Row(item, int(attributes["chunks"]["N"]) if "chunks" in attributes else 0)


def chunk_keys(key: Key, version: str, count: int) -> Iterator[Attributes]:
    """The keys of a payload's chunks. They carry the version, so that chunks of two versions cannot be mixed up."""
    # Ids are free of control characters, so that this text is the item's alone.
    owner = SEPARATOR.join((key.collection, key.id) if key.parent is None else (key.collection, key.parent, key.id))
    for place in range(count):
        yield {CHUNK_PARTITION: {"S": owner}, CHUNK_SORT: {"S": f"{version}#{place:03d}"}}


def chunk_items(item: Item, chunks: list[bytes]) -> Iterator[Attributes]:
    """The chunks of an item's payload, which expire with it."""
    expiry: Attributes = {TTL_ATTRIBUTE: {"N": str(item.expires_at)}} if item.expires_at is not None else {}
    for key, chunk in zip(chunk_keys(item.key, item.version, len(chunks)), chunks, strict=True):
        yield {**key, "data": {"B": chunk}, **expiry}


def size_of(attributes: Attributes) -> int:
    """The bytes that the service counts for an item: of names and of values.

    Source: "DynamoDB item sizes and formats" in the service's developer guide; a number is at most 21 bytes.
    """
    size = 0
    for name, value in attributes.items():
        size += len(name)
        for kind, each in value.items():
            if kind == "S":
                size += len(each) if each.isascii() else len(each.encode())
            else:
                size += len(each) if kind == "B" else 21
    return size
