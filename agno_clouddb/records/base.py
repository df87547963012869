"""Records: what callers hold. An Item of the port is made from a record here, and back.

The schema says which attributes of a record are its key and which are fields of the item; all others go into the one
payload, unknown ones included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, ClassVar, Self, TypeVar, cast
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agno_clouddb.errors import CloudDBError, InvalidRecord
from agno_clouddb.stores import codec
from agno_clouddb.stores.base import Item, Key
from agno_clouddb.stores.schema import OWNER, Collection

__all__ = ["NOBODY", "Record", "new_id", "plain", "to_text"]

T = TypeVar("T")

NOBODY = ""
"""On whose behalf a write is made that must change only what belongs to nobody: no user has this id."""

_OF_THE_ITEM = ("version", "expires_at", "degraded")


def to_text(path: str, value: datetime) -> str:
    """A moment as fixed-width text in UTC, whose order is the order in time.

    Raises:
        InvalidRecord: ``value`` is no datetime, has no zone, or is not representable in UTC.
    """
    if not isinstance(value, datetime):
        raise InvalidRecord(path, f"is of type {type(value).__name__}, not a datetime")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidRecord(path, "is a datetime without a zone", remedy="Use datetime.now(timezone.utc) or the like")
    try:
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        raise InvalidRecord(path, "is outside the years 1 to 9999 in UTC") from None


def new_id() -> str:
    """An id for a record that names none: random, as text."""
    return str(uuid4())


def plain(value: T) -> T:
    """A text as it is stored: that of a member of an enumeration of texts, say, without its class."""
    return cast("T", str.__str__(value)) if isinstance(value, str) and type(value) is not str else value


class Record(BaseModel):
    """The base of all records: JSON values and datetimes with a zone, checked when written.

    Attributes that a record does not declare are kept and survive a round trip. Construction checks types only;
    what no store can hold (NaN, a lone surrogate, a naive datetime, an empty id) is InvalidRecord when it is written.
    """

    model_config = ConfigDict(extra="allow", defer_build=True)  # each class is built when it is first used

    collection: ClassVar[Collection]
    unstored: ClassVar[frozenset[str]] = frozenset()
    """Attributes that are not stored, beside those of every record."""
    lasting: ClassVar[tuple[str, ...]] = ("created_at",)
    """Attributes that stay as they were first written."""

    version: str | None = Field(default=None, description="The stamp of the stored record; None before it is written")
    expires_at: datetime | None = Field(
        default=None, description="From when on the record counts as absent, to the second; None: it stays"
    )
    degraded: bool = Field(
        default=False, exclude=True, description="Read without one of the stores of a fan-out; never stored"
    )

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """A record of values that may be of any type.

        Raises:
            InvalidRecord: one of them is not of its attribute's type; names it, where the constructor raises pydantic's
                ValidationError.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise _of_another_type(error, cls.collection.name) from error

    @property
    def key(self) -> Key:
        """Where the record is stored.

        Raises:
            InvalidRecord: its id, or its parent's, is none that a store can hold.
        """
        declared = self.collection
        parent = plain(getattr(self, declared.parent_field)) if declared.parent_field is not None else None
        key = Key(declared.name, plain(getattr(self, declared.id_field)), parent)
        key.check()
        return key

    @property
    def is_stored(self) -> bool:
        """Whether the library has read or returned this object, so that it knows what is kept over the next write."""
        return self.version is not None

    def derived_fields(self) -> dict[str, str]:
        """Fields of the item which are not attributes of their own."""
        return {}

    def first_written(self, version: str) -> Self:
        """This record as its first write with a version stores it."""
        return self

    def unconfirmed(self) -> Self | None:
        """This record as it is stored when it is not certain that it is new; None when that makes no difference."""
        return None

    def kept(self, fields: Mapping[str, str]) -> dict[str, object]:
        """The attributes that an object made anew takes over from the stored record with these fields."""
        kept: dict[str, object] = {}
        if OWNER in self.collection.fields:
            kept[OWNER] = getattr(self, OWNER) or fields.get(OWNER)
        if "created_at" in fields:
            kept["created_at"] = datetime.fromisoformat(fields["created_at"])
        return kept

    def to_item(self, key: Key, version: str) -> Item:
        """The item that stores this record.

        Raises:
            InvalidRecord: a value that no store can hold, with its path.
        """
        declared = self.collection
        self.check_types()
        fields = self.derived_fields()
        payload: dict[str, Any] = {}
        skipped = {declared.id_field, declared.parent_field, *_OF_THE_ITEM, *self.unstored}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or name in skipped:
                continue
            if isinstance(value, datetime):
                value = to_text(name, value)
            elif isinstance(value, date):
                value = value.isoformat()
            if name in declared.fields:
                fields[name] = plain(value)
            else:
                codec.check_json(value, name, collection=declared.name)
                payload[name] = value
        for name, value in (self.model_extra or {}).items():
            codec.check_json(name, f"the name of attribute {name!r}", collection=declared.name)
            codec.check_json(value, name, collection=declared.name)
            payload[name] = value
        item = Item(key, version, fields, codec.encode(payload), self._expiry())
        item.check()
        return item

    def _expiry(self) -> int | None:
        """Seconds since the epoch from which the record counts as absent."""
        if self.expires_at is None:
            return None
        to_text("expires_at", self.expires_at)
        return math.ceil(self.expires_at.timestamp())

    def check_types(self) -> None:
        """Raise InvalidRecord, naming the attribute, unless all attributes are of their types."""
        # Assignment and model_copy do not validate; what is stored must be readable again.
        try:
            self.__pydantic_validator__.validate_python(self.__dict__, strict=True)
        except ValidationError as error:
            raise _of_another_type(error, self.collection.name) from error

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """The record in an item.

        Raises:
            CloudDBError: the item is damaged, or was not written by this library.
        """
        declared = cls.collection
        values: dict[str, Any] = codec.decode(item.data)
        values.update({name: value for name, value in item.fields.items() if name in cls.model_fields})
        if declared.id_field in cls.model_fields:
            values[declared.id_field] = item.key.id
        if declared.parent_field is not None:
            values[declared.parent_field] = item.key.parent
        values["version"] = item.version
        if item.expires_at is not None:
            values["expires_at"] = datetime.fromtimestamp(item.expires_at, UTC)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise CloudDBError(
                "a stored record is not as this library writes it", key=item.key, remedy=str(error)
            ) from error


def _of_another_type(error: ValidationError, collection: str) -> InvalidRecord:
    """The error for the first attribute that pydantic names."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in first["loc"])
    return InvalidRecord(path.lstrip("."), first["msg"], collection=collection)
