"""Lists as data: which filters and orders a repository offers, and the query that a call comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Generic, Literal, TypeVar

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.base import Record, plain, to_text
from agno_clouddb.stores.base import Query, Range

__all__ = ["Filter", "Listing", "Lists", "Test", "contains", "contains_text"]

R = TypeVar("R", bound=Record)

Test = Callable[[Any], bool]
"""Whether a list shows a record."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One thing that a list can be narrowed by.

    Args:
        kind: ``equal``: the field has the value given; ``any``: one of the values given; ``from``: the value or a
            greater one; ``to``: a lesser one; ``contains``: the text given, whatever its case; ``test``: what only the
            record shows.
        field: the field of the item; for ``test``, what it is about.
        test: for ``test``: makes the test from the value given, or raises InvalidRecord.
        text: for ``from`` and ``to``: the field is compared as the text that it is, and is no moment.
    """

    kind: Literal["equal", "any", "from", "to", "contains", "test"]
    field: str
    test: Callable[[str, Any], Test] | None = None
    text: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What one call lists.

    Args:
        query: what the store lists.
        tests: what its items must pass besides, as records.
        also: the tests in words, a part of what a cursor is good for.
    """

    query: Query
    tests: tuple[Test, ...] = ()
    also: str = ""


@dataclass(frozen=True, slots=True)
class Lists(Generic[R]):
    """The lists that a repository offers.

    Args:
        record: what they are of.
        filters: by the name of the argument.
        sorts: the fields that order them; the first by default, the greatest first.
    """

    record: type[R]
    filters: Mapping[str, Filter]
    sorts: tuple[str, ...]

    @property
    def orders(self) -> tuple[str, ...]:
        """What ``sort`` may be: a field, with ``-`` before it for the greatest first."""
        return tuple(f"{sign}{name}" for name in self.sorts for sign in ("-", ""))

    def count_order(self, given: Mapping[str, Any]) -> str:
        """The order by which to count: that of the field whose range is given, so that an index serves it."""
        ranged = {each.field for name, each in self.filters.items() if each.kind in ("from", "to") and given.get(name)}
        return next((name for name in self.sorts if name in ranged), self.sorts[0])

    def listing(self, given: Mapping[str, Any], sort: str) -> Listing:
        """What a call with these filters and this order lists; a filter that is None does not narrow.

        Raises:
            InvalidRecord: a filter or order is unknown, or a value is none that it can have.
        """
        if unknown := given.keys() - self.filters.keys():
            raise InvalidRecord(
                ", ".join(sorted(unknown)),
                f"is no filter of {self.record.collection.name}; there are {', '.join(self.filters)}",
                collection=self.record.collection.name,
            )
        if sort not in self.orders:
            raise InvalidRecord(
                "sort",
                f"is {sort!r}, not one of {', '.join(self.orders)}",
                collection=self.record.collection.name,
            )
        made = _Making(self.record.collection.name)
        for name, value in given.items():
            if value is not None:
                made.add(name, self.filters[name], value)
        return made.listing(sort)


class _Making:
    """Turns filters and values into a query."""

    def __init__(self, collection: str) -> None:
        self._collection = collection
        self._equals: dict[str, str] = {}
        self._any_of: dict[str, tuple[str, ...]] = {}
        self._contains: dict[str, str] = {}
        self._lows: dict[str, str] = {}
        self._highs: dict[str, str] = {}
        self._tests: list[Test] = []
        self._also: list[str] = []

    def add(self, name: str, each: Filter, value: Any) -> None:
        if each.kind == "equal":
            self._equals[each.field] = self._text(name, value)
        elif each.kind == "any":
            values = [value] if isinstance(value, str) else value
            if not isinstance(values, Sequence | set | frozenset):
                raise InvalidRecord(name, f"is of type {type(value).__name__}, not a list of texts")
            self._any_of[each.field] = tuple(dict.fromkeys(self._text(name, one) for one in values))
        elif each.kind == "contains":
            if text := self._text(name, value):
                self._contains[each.field] = text
        elif each.kind == "test":
            assert each.test is not None
            if isinstance(value, Iterable) and not isinstance(value, str):
                value = list(value)
            self._tests.append(each.test(name, value))
            # The same for the same values in whatever order, so that a cursor goes on in another process too.
            self._also.append(f" {name}~{sorted(map(repr, value)) if isinstance(value, list) else repr(value)}")
        else:
            limits = self._lows if each.kind == "from" else self._highs
            limits[each.field] = self._text(name, value) if each.text else _moment(name, value)

    def listing(self, sort: str) -> Listing:
        ranges = tuple(
            Range(name, self._lows.get(name), self._highs.get(name)) for name in {**self._lows, **self._highs}
        )
        query = Query(
            self._collection,
            sort=sort.removeprefix("-"),
            descending=sort.startswith("-"),
            equals=self._equals,
            any_of=self._any_of,
            ranges=ranges,
            contains=self._contains,
        )
        return Listing(query, tuple(self._tests), "".join(sorted(self._also)))

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise InvalidRecord(name, f"is of type {type(value).__name__}, not text", collection=self._collection)
        # The plain text of a member of an enumeration of texts too.
        return plain(value)


def _moment(name: str, value: object) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    return to_text(name, value)  # type: ignore[arg-type]  # which raises for what is no datetime


def contains(text: str, *texts: str | None) -> bool:
    """Whether one of some texts contains a text, whatever its case (``str.casefold``)."""
    folded = text.casefold()
    return any(each is not None and folded in each.casefold() for each in texts)


def contains_text(*attributes: str) -> Callable[[str, Any], Test]:
    """A filter for records one of whose attributes contains a text, whatever its case."""

    def make(name: str, text: Any) -> Test:
        if not isinstance(text, str):
            raise InvalidRecord(name, f"is of type {type(text).__name__}, not text")
        return lambda record: contains(text, *(getattr(record, each) for each in attributes))

    return make
