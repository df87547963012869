"""Records: what callers hold. An Item of the port is made from a record here, and back.

The schema says which attributes of a record are its key and which are fields of the item; all others go into the one
payload, unknown ones included.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agno_clouddb.errors import CloudDBError, InvalidRecord
from agno_clouddb.stores import codec
from agno_clouddb.stores.base import Item, Key
from agno_clouddb.stores.schema import Collection

__all__ = ["Record", "to_text"]


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


class Record(BaseModel):
    """The base of all records: JSON values and datetimes with a zone, checked when written.

    Attributes that a record does not declare are kept and survive a round trip. Construction checks types only;
    what no store can hold (NaN, a lone surrogate, a naive datetime, an empty id) is InvalidRecord when it is written.
    """

    model_config = ConfigDict(extra="allow")

    collection: ClassVar[Collection]
    unstored: ClassVar[frozenset[str]] = frozenset()

    version: str | None = Field(default=None, description="The stamp of the stored record; None before it is written")

    def derived_fields(self) -> dict[str, str]:
        """Fields of the item which are not attributes of their own."""
        return {}

    def to_item(self, key: Key, version: str) -> Item:
        """The item that stores this record.

        Raises:
            InvalidRecord: a value that no store can hold, with its path.
        """
        declared = self.collection
        self.check_types()
        fields = self.derived_fields()
        payload: dict[str, Any] = {}
        skipped = {declared.id_field, declared.parent_field, "version", *self.unstored}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or name in skipped:
                continue
            if isinstance(value, datetime):
                value = to_text(name, value)
            if name in declared.fields:
                fields[name] = value
            else:
                codec.check_json(value, name, collection=declared.name)
                payload[name] = value
        for name, value in (self.model_extra or {}).items():
            codec.check_json(name, f"the name of attribute {name!r}", collection=declared.name)
            codec.check_json(value, name, collection=declared.name)
            payload[name] = value
        item = Item(key, version, fields, codec.encode(payload))
        item.check()
        return item

    def check_types(self) -> None:
        """Raise InvalidRecord, naming the attribute, unless all attributes are of their types."""
        # Assignment and model_copy do not validate; what is stored must be readable again.
        try:
            self.__pydantic_validator__.validate_python(self.__dict__, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in first["loc"])
            raise InvalidRecord(path.lstrip("."), first["msg"], collection=self.collection.name) from error

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """The record in an item.

        Raises:
            CloudDBError: the item is damaged, or was not written by this library.
        """
        declared = cls.collection
        values: dict[str, Any] = codec.decode(item.data)
        values.update({name: value for name, value in item.fields.items() if name in cls.model_fields})
        values[declared.id_field] = item.key.id
        if declared.parent_field is not None:
            values[declared.parent_field] = item.key.parent
        values["version"] = item.version
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise CloudDBError(
                "a stored record is not as this library writes it", key=item.key, remedy=str(error)
            ) from error
