"""Items as documents, and back. Imported when a store is opened, as ``client`` is.

Sizes: https://firebase.google.com/docs/firestore/storage-size.
"""

from __future__ import annotations

from typing import Any

from google.cloud.firestore_v1.types import write as write_types

from agno_clouddb.errors import CloudDBError
from agno_clouddb.stores import codec
from agno_clouddb.stores.base import Item, Key, Mutation, Put
from agno_clouddb.stores.firestore.names import Layout
from agno_clouddb.stores.firestore.tokens import Snapshot
from agno_clouddb.stores.schema import collection

__all__ = ["CHUNK_BYTES", "RESERVED", "head_fields", "snapshot_of", "writes_for"]

RESERVED = frozenset({"version", "expires_at", "deleted", "data", "chunks"})
"""Names in a document that no field of the schema may have."""

CHUNK_BYTES = 1_000_000
"""Payload in one document. A document holds 1 MiB, of which its name takes up to 6 KiB and its fields some more."""

_DOCUMENT_BYTES = 1024 * 1024
_DOCUMENT_OVERHEAD = 512  # its own 32 bytes, and the names and values that are in every document

_Write: Any = write_types.Write.pb()


def head_fields(name: str) -> list[str]:
    """All fields of a collection's documents but the payload: enough to decide a write."""
    return ["version", "expires_at", "deleted", "chunks", *collection(name).fields]


def writes_for(mutation: Mutation, known: Snapshot | None, layout: Layout) -> tuple[list[Any], int]:
    """The writes that carry a mutation out, the document's first, and the number of chunks it has then.

    Args:
        mutation: the write.
        known: the document that it replaces, which must not have changed; None: there must be none.
        layout: where the documents are.
    """
    name = layout.document(mutation.key)
    chunks = _chunks(mutation.item, name) if isinstance(mutation, Put) else []
    write = _Write()
    if isinstance(mutation, Put):
        _fill(write.update, name, mutation.item, len(chunks))
    else:
        write.delete = name
    if known is None:
        write.current_document.exists = False
    else:
        update_time = write.current_document.update_time
        update_time.seconds, update_time.nanos = known.update_time
    writes = [write]
    if isinstance(mutation, Put):
        writes += [_chunk_write(mutation.item, name, number, chunk) for number, chunk in enumerate(chunks)]
    if known is not None:
        old = (layout.chunk(name, known.item.version, number) for number in range(known.chunks))
        writes += [_Write(delete=each) for each in old]
    return writes, len(chunks)


def _chunks(item: Item, name: str) -> list[bytes]:
    # Texts are at most four bytes a character, so that most items need no closer look.
    if len(item.data) * 4 < CHUNK_BYTES // 2 and sum(map(len, item.fields.values())) * 4 < CHUNK_BYTES // 4:
        return []
    overhead = _DOCUMENT_OVERHEAD + 2 * len(name.encode())
    overhead += sum(len(each.encode()) + len(value.encode()) + 2 for each, value in item.fields.items())
    if item.size <= _DOCUMENT_BYTES - max(overhead, 89):
        return []
    return codec.split(item.data, CHUNK_BYTES)


def _fill(document: Any, name: str, item: Item, chunks: int) -> None:
    document.name = name
    fields = document.fields
    for each, value in item.fields.items():
        fields[each].string_value = value
    fields["version"].string_value = item.version
    if item.expires_at is not None:
        fields["expires_at"].timestamp_value.seconds = item.expires_at
    if item.deleted:
        fields["deleted"].boolean_value = True
    if chunks:
        fields["chunks"].integer_value = chunks
    elif isinstance(item.data, bytes):
        fields["data"].bytes_value = item.data
    elif item.data:
        fields["data"].string_value = item.data


def _chunk_write(item: Item, name: str, number: int, chunk: bytes) -> Any:
    write = _Write()
    write.update.name = Layout.chunk(name, item.version, number)
    write.update.fields["data"].bytes_value = chunk
    if item.expires_at is not None:
        write.update.fields["expires_at"].timestamp_value.seconds = item.expires_at
    return write


def snapshot_of(document: Any, key: Key) -> Snapshot:
    """The snapshot in a document.

    Raises:
        CloudDBError: another program has written the document.
    """
    fields: dict[str, str] = {}
    special: dict[str, Any] = {}
    values = document.fields
    for name in values:  # items() of a map is a view in Python, at twice the time
        if name in RESERVED:
            special[name] = values[name]
        else:
            fields[name] = values[name].string_value
    if "version" not in special:
        raise CloudDBError(
            "the document has no version", key=key, remedy="Another program has written it; use a prefix of your own"
        )
    data = special.get("data")
    item = Item(
        key=key,
        version=special["version"].string_value,
        fields=fields,
        data="" if data is None else getattr(data, data.WhichOneof("value_type")),
        expires_at=special["expires_at"].timestamp_value.seconds if "expires_at" in special else None,
        deleted="deleted" in special,
    )
    token = (document.update_time.seconds, document.update_time.nanos)
    return Snapshot(item, token, special["chunks"].integer_value if "chunks" in special else 0)
