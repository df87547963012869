"""Queries: ordered lists of items, and places in them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.items import Item, check_id, is_encodable
from agno_clouddb.stores.schema import DECLARED, Index, collection

__all__ = ["MAX_ANY_OF", "Cursor", "Page", "Query", "Range", "Tally", "add_tally", "order_of"]

MAX_ANY_OF = 30
"""The most values that the filters ``any_of`` of one query may have. Source: a disjunction of Firestore has at most 30
parts (https://firebase.google.com/docs/firestore/query-data/queries#limits_on_or_queries)."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an ordered list: after the item with this sort value and id. It means the same on every store."""

    value: str
    id: str

    def encode(self, query: Query, also: str = "") -> str:
        """An opaque text for callers, which also remembers what was listed and in which order.

        Args:
            query: the list.
            also: what narrows it beside the query, in words.
        """
        text = json.dumps([query.scope + also, self.value, self.id], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, query: Query, also: str = "") -> Cursor:
        """The cursor in an opaque text.

        Raises:
            InvalidRecord: it was not made by ``encode``, or for another query.
        """
        try:
            scope, value, name = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, TypeError, RecursionError, binascii.Error):
            scope = value = name = None
        if not (isinstance(value, str) and isinstance(name, str)):
            raise InvalidRecord("cursor", "is not one that a page of this library carried", collection=query.collection)
        if scope != query.scope + also:
            raise InvalidRecord(
                "cursor",
                f"belongs to a list of {scope}, not of {query.scope}{also}",
                collection=query.collection,
                remedy="Go on with the same filters and sort as on the page that the cursor came from",
            )
        check_id("cursor", value, query.collection)
        check_id("cursor", name, query.collection)
        return cls(value, name)


@dataclass(frozen=True, slots=True)
class Range:
    """Values of a field from ``low`` (inclusive) to ``high`` (exclusive); None leaves that side open."""

    field: str
    low: str | None = None
    high: str | None = None

    def matches(self, value: str | None) -> bool:
        if value is None:
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value < self.high)


@dataclass(frozen=True, slots=True)
class Query:
    """A list of live items of one collection, in order of (sort value, id), both the same way.

    Text is ordered by its UTF-8 bytes on every store.

    Args:
        collection: a name in ``schema.DECLARED``.
        sort: the field that orders; items without it are not listed.
        descending: from the greatest to the least.
        parent: the parent's id; required where the collection has parents.
        equals: fields and the values that they must have.
        any_of: fields and values of which they must have one, at most MAX_ANY_OF in all.
        ranges: what fields must lie between.
        contains: fields and a text that they must contain, whatever its case (compared by ``str.casefold``).
    """

    collection: str
    sort: str
    descending: bool = False
    parent: str | None = None
    equals: Mapping[str, str] = field(default_factory=dict)
    any_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: tuple[Range, ...] = ()
    contains: Mapping[str, str] = field(default_factory=dict)

    @property
    def index(self) -> Index:
        """The index that serves this query.

        Raises:
            QueryNotIndexed: there is none.
        """
        return collection(self.collection).index_for(self.equals.keys() | self.any_of.keys(), self.sort)

    @property
    def sort_range(self) -> Range:
        """What the sort field must lie between: a part of the index query on every store."""
        lows = [each.low for each in self.ranges if each.field == self.sort and each.low is not None]
        highs = [each.high for each in self.ranges if each.field == self.sort and each.high is not None]
        return Range(self.sort, max(lows, default=None), min(highs, default=None))

    @property
    def scope(self) -> str:
        """What is listed, in words; a cursor is good only for the scope that it was made in."""
        parts = [self.collection] + ([self.parent] if self.parent is not None else [])
        parts += [f"{name}={value}" for name, value in sorted(self.equals.items())]
        parts += [f"{name} in {sorted(set(values))}" for name, values in sorted(self.any_of.items())]
        parts += [f"{name}~{text}" for name, text in sorted(self.contains.items())]
        parts += [f"{each.low}<={each.field}<{each.high}" for each in sorted(self.ranges, key=lambda r: r.field)]
        return " ".join(parts) + f" by {'-' if self.descending else ''}{self.sort}"

    def check(self, limit: int = 1) -> None:
        """Raise InvalidRecord or QueryNotIndexed unless every store can list this query, ``limit`` items a page."""
        if limit < 1:
            raise InvalidRecord("limit", f"is {limit}, less than 1", collection=self.collection)
        if self.collection not in DECLARED:
            raise InvalidRecord("collection", f"{self.collection!r} is not one of {sorted(DECLARED)}")
        declared = collection(self.collection)
        if declared.parent_field is not None:
            check_id(declared.parent_field, self.parent, self.collection)
        for name in (*self.equals, *self.any_of, *self.contains, *(each.field for each in self.ranges)):
            if name not in declared.fields:
                raise InvalidRecord(name, f"is not a field of {declared.name}", collection=declared.name)
        for name, value in self.equals.items():
            check_id(name, value, declared.name)
        for name, values in self.any_of.items():
            if not values:
                raise InvalidRecord(name, "must be one of some values, and none is given", collection=declared.name)
            for value in values:
                check_id(name, value, declared.name)
        if sum(map(len, self.any_of.values())) > MAX_ANY_OF:
            problem = f"have {sum(map(len, self.any_of.values()))} values in all, over the limit of {MAX_ANY_OF}"
            raise InvalidRecord(", ".join(self.any_of), problem, collection=declared.name)
        for name, text in self.contains.items():
            if not text or not is_encodable(text):
                raise InvalidRecord(name, "must contain text that is not empty", collection=declared.name)
        for bound in self.ranges:
            for limits in (bound.low, bound.high):
                if limits is not None:
                    check_id(bound.field, limits, declared.name)
        _ = self.index

    def check_field(self, name: str) -> None:
        """Raise what ``check`` raises, or InvalidRecord unless ``name`` is a field of the collection."""
        self.check()
        declared = collection(self.collection)
        if name not in declared.fields:
            raise InvalidRecord(name, f"is not a field of {declared.name}", collection=declared.name)

    def matches(self, item: Item, now: int) -> bool:
        """Whether the query lists this item, apart from its place in the order."""
        fields = item.fields
        return (
            item.live(now)
            and self.sort in fields
            and (self.parent is None or item.key.parent == self.parent)
            and all(fields.get(name) == value for name, value in self.equals.items())
            and all(fields.get(name) in values for name, values in self.any_of.items())
            and all(each.matches(fields.get(each.field)) for each in self.ranges)
            and all(text.casefold() in fields.get(name, "").casefold() for name, text in self.contains.items())
        )

    def place(self, item: Item) -> Cursor:
        """The place of an item in this list."""
        return Cursor(item.fields[self.sort], item.key.id)

    def after(self, item: Item, cursor: Cursor | None) -> bool:
        """Whether an item comes after ``cursor`` in this list."""
        if cursor is None:
            return True
        place, limit = order_of(self.place(item)), order_of(cursor)
        return place < limit if self.descending else place > limit


def order_of(place: Cursor) -> tuple[bytes, bytes]:
    """What places are compared by, so that all stores agree: the bytes in UTF-8."""
    return place.value.encode(), place.id.encode()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Args:
        items: at most as many as were asked for, and as many as that while there are more.
        cursor: where the list goes on; None at its end. A store that cannot know the end without reading one item
            more than was asked for may give a cursor that leads to an empty page.
        degraded: True when a store of a fan-out did not answer, so that something may be missing.
    """

    items: tuple[Item, ...]
    cursor: Cursor | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """What a list has of one value of a field.

    Args:
        count: how many items.
        first: the least sort value among them.
        last: the greatest sort value among them.
    """

    count: int
    first: str
    last: str

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.count + other.count, min(self.first, other.first), max(self.last, other.last))


def add_tally(tallies: dict[str, Tally], value: str, tally: Tally) -> None:
    """Add to what there is of a value so far."""
    tallies[value] = tallies[value] + tally if value in tallies else tally
