"""Kept: what agno gives in a column, where the attribute of a record is narrower than the column.

agno's columns of JSON take any JSON, also where agno types them as text, and its columns of text any text, also an
empty one. So a value is fitted: the attribute has what comes nearest to it, by which the record is found and listed,
and where that is not the value itself, the value is kept beside it and given back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.base import Record
from agno_clouddb.stores.items import check_id

__all__ = ["Fit", "Fitting", "as_object", "as_text", "as_texts", "indexed", "object_alone", "whole"]

R = TypeVar("R", bound=Record)

Fit = Callable[[Any], Any]
"""Makes of a JSON value what an attribute can have: the very value, where the attribute can have it."""

_KEPT = "agno_values"


@dataclass(frozen=True, slots=True)
class Fitting:
    """How columns of one of agno's tables fit into the attributes of a record.

    Args:
        fits: by the name of the column, which is that of the attribute.
    """

    fits: Mapping[str, Fit]

    def fitted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Columns as attributes of a record, with what does not fit beside them."""
        made = {name: self.fits[name](value) for name, value in values.items() if name in self.fits}
        kept = {name: values[name] for name, value in made.items() if value is not values[name]}
        return {**values, **made, **({_KEPT: kept} if kept else {})}

    def given(self, record: Record, columns: Iterable[str]) -> dict[str, Any]:
        """Columns as they were given; one whose attribute was changed since has what it was changed to."""
        extra = record.model_extra or {}
        kept = extra[_KEPT] if isinstance(extra.get(_KEPT), dict) else {}
        values = {name: getattr(record, name) for name in columns}
        still = {name: kept[name] for name in self.fits if name in values and name in kept}
        return values | {name: value for name, value in still.items() if self.fits[name](value) == values[name]}

    def changed(self, record: R, values: Mapping[str, Any]) -> R:
        """A record with some columns changed."""
        update = self.fitted({**self.given(record, self.fits), **values})
        if _KEPT in (record.model_extra or {}):
            update.setdefault(_KEPT, {})
        return record.model_copy(update=update)


def as_text(value: Any) -> str:
    """A text; of any other value its text as JSON, in which a search finds what is in it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_texts(value: Any) -> list[str] | None:
    """A list of texts, or None; of any other value all texts in it."""
    if value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        return value
    return [*_texts(value)]


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object; any other value as the only one of an object, under no name."""
    if isinstance(value, dict):
        return value
    return {} if value is None else {"": value}


def object_alone(value: Any) -> dict[str, Any] | None:
    """A JSON object, or None; None for any other value."""
    return value if isinstance(value, dict) else None


def indexed(value: Any) -> Any:
    """A text that an index can have; None for an empty one, and for one that is too long or has control characters."""
    if not isinstance(value, str):
        return value
    try:
        check_id("value", value, "")
    except InvalidRecord:
        return None
    return value


def whole(value: Any) -> Any:
    """A whole number, of one with a fraction; what is no number as it is."""
    return int(value) if isinstance(value, float) and math.isfinite(value) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
