"""Items and their keys: what a store keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.schema import DECLARED, OWNER, collection

__all__ = ["MAX_ID_BYTES", "MAX_TEXT_BYTES", "Item", "Key", "Payload", "check_id", "is_encodable"]

Payload = str | bytes
"""JSON as text, or the same compressed; see ``stores/codec.py``."""

MAX_ID_BYTES = 512
"""The longest id, in bytes of UTF-8. Sort keys of DynamoDB hold 1,024 bytes and must fit a sort value and an id;
document ids of Firestore hold 1,500 and escaping may double an id's length."""

MAX_TEXT_BYTES = 2_048
"""The longest value of a field that may be any text, in bytes of UTF-8."""

_CONTROL = re.compile("[\x00-\x1f\x7f]")


def is_encodable(text: str) -> bool:
    """Whether text has an encoding in UTF-8, as it has unless it contains lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_id(path: str, value: object, collection_name: str) -> None:
    """Raise InvalidRecord, naming ``path``, unless every store can hold ``value`` in a key or an index."""
    if type(value) is not str:
        # A subclass, such as a member of an enumeration, may print as something else than it is.
        raise InvalidRecord(path, f"must be text, not {type(value).__name__}", collection=collection_name)
    if 0 < len(value) <= MAX_ID_BYTES and value.isascii() and value.isprintable():
        return
    if not value:
        raise InvalidRecord(path, "must not be empty", collection=collection_name)
    if _CONTROL.search(value):
        raise InvalidRecord(path, "must not contain control characters", collection=collection_name)
    if not is_encodable(value):
        raise InvalidRecord(path, "must not contain lone surrogates", collection=collection_name)
    size = len(value.encode())
    if size > MAX_ID_BYTES:
        raise InvalidRecord(path, f"is {size} bytes long, over the limit of {MAX_ID_BYTES}", collection=collection_name)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Where an item lives.

    Args:
        collection: a name in ``schema.DECLARED``.
        id: unique in the collection or, for children, under their parent. Any text without control characters, of
            1 to 512 bytes in UTF-8.
        parent: the parent's id, for collections that have a parent; None for others. As limited as ``id``.
    """

    collection: str
    id: str
    parent: str | None = None

    def __str__(self) -> str:
        return f"{self.collection}/{self.id}" if self.parent is None else f"{self.collection}/{self.parent}/{self.id}"

    def check(self) -> None:
        """Raise InvalidRecord, naming the field, unless every store can hold this key."""
        if self.collection not in DECLARED:
            raise InvalidRecord("collection", f"{self.collection!r} is not one of {sorted(DECLARED)}")
        declared = collection(self.collection)
        check_id(declared.id_field, self.id, self.collection)
        if declared.parent_field is not None:
            check_id(declared.parent_field, self.parent, self.collection)
        elif self.parent is not None:
            raise InvalidRecord("parent", f"{self.collection} have no parent", collection=self.collection)


@dataclass(frozen=True, slots=True)
class Item:
    """A record as a store sees it.

    Args:
        key: where it lives.
        version: a stamp of ``stores/clock.py``; a later write has a greater one.
        fields: what an index or a filter needs, as text; names are those declared in the schema.
        data: the payload, opaque to stores.
        expires_at: seconds since the epoch from which the item counts as absent; None: never.
        deleted: a tombstone, which counts as absent: a fan-out keeps it so that the deleted item does not come back. It
            has no payload and no fields.
    """

    key: Key
    version: str
    fields: Mapping[str, str] = field(default_factory=dict)
    data: Payload = ""
    expires_at: int | None = None
    deleted: bool = False

    @property
    def owner(self) -> str | None:
        """The user whom the item belongs to."""
        return self.fields.get(OWNER)

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return len(self.data) if isinstance(self.data, bytes) or self.data.isascii() else len(self.data.encode())

    def live(self, now: int) -> bool:
        """Whether the item counts as present at ``now``, in seconds since the epoch."""
        return not self.deleted and (self.expires_at is None or self.expires_at > now)

    def check(self) -> None:
        """Raise InvalidRecord, naming the field, unless every store can hold this item."""
        self.key.check()
        if isinstance(self.data, str) and not is_encodable(self.data):
            raise InvalidRecord("data", "must not contain lone surrogates", collection=self.key.collection)
        declared = collection(self.key.collection)
        for name, value in self.fields.items():
            if name not in declared.fields:
                raise InvalidRecord(name, f"is not a field of {declared.name}", collection=declared.name)
            if name not in declared.texts:
                check_id(name, value, declared.name)
            elif type(value) is not str or not is_encodable(value):
                raise InvalidRecord(name, "must be text without lone surrogates", collection=declared.name)
            elif len(value) > MAX_TEXT_BYTES or len(value.encode()) > MAX_TEXT_BYTES:
                raise InvalidRecord(name, f"is over the limit of {MAX_TEXT_BYTES} bytes", collection=declared.name)
