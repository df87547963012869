"""Scans for a coordinator: what is stored in a table, or, by its index by version, what was written since a version.

A cursor has the key that the service goes on after. One of the index by version has, as JSON, such a key for each
partition, ``{}`` for one that is still at its beginning and null for one that has come to its end.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.base import Scan
from agno_clouddb.stores.dynamodb.calls import CONCURRENCY, Call
from agno_clouddb.stores.dynamodb.expressions import Attribute, Parameters, Request, render, text
from agno_clouddb.stores.dynamodb.items import key_of
from agno_clouddb.stores.dynamodb.tables import VERSION, VERSION_INDEX, Layout
from agno_clouddb.stores.items import check_id
from agno_clouddb.stores.scans import decode_cursor, encode_cursor

if TYPE_CHECKING:
    from agno_clouddb.stores.dynamodb.client import Client

__all__ = ["SinceVersion", "WholeTable", "scan_of"]

Start = Mapping[str, str]
"""The key attributes after which the service goes on; empty: at the beginning."""


@dataclass(frozen=True, slots=True)
class WholeTable:
    """A part of everything in a table, read from the items themselves.

    Args:
        layout: of the collection.
        start: where to go on.
    """

    layout: Layout
    start: Start

    def request(self, limit: int) -> Request:
        """The parameters of Scan."""
        names = Parameters()
        wanted = ", ".join(names.name(each) for each in (*self.layout.table.keys, VERSION))
        request = {"TableName": self.layout.table.name, "ProjectionExpression": wanted, **names.request()}
        return {**request, "ConsistentRead": True, "Limit": limit, **_going_on(self.start)}

    async def run(self, client: Client, limit: int, call: Call) -> Scan:
        """Read up to ``limit`` keys and versions, by one request."""
        answer = await client.send("scan", self.request(limit), call)
        last, keys = answer.get("LastEvaluatedKey"), self.layout.table.keys
        place = [last[name]["S"] for name in keys] if last else []
        cursor = encode_cursor(self.layout.collection.name, None, place) if last else None
        return Scan(_entries(answer["Items"], self.layout), cursor)


@dataclass(frozen=True, slots=True)
class SinceVersion:
    """A part of what has a version or a greater one, read from the index by version.

    Args:
        layout: of the collection.
        version: the least version.
        starts: where to go on in each partition of the index; None: nothing is left there.
    """

    layout: Layout
    version: str
    starts: tuple[Start | None, ...]

    def request(self, partition: int, start: Start, limit: int) -> Request:
        """The parameters of Query for one partition of the index."""
        key = Attribute(VERSION_INDEX.partition).equals(text(str(partition)))
        going_on = _going_on({VERSION_INDEX.partition: str(partition), **start} if start else {})
        return {
            "TableName": self.layout.table.name,
            "IndexName": VERSION_INDEX.name,
            "Limit": limit,
            **render(KeyConditionExpression=key & Attribute(VERSION).at_least(text(self.version))),
            **going_on,
        }

    async def run(self, client: Client, limit: int, call: Call) -> Scan:
        """Read up to ``limit`` keys and versions in order of version, by one request a partition at the same time."""
        open_ = [(partition, start) for partition, start in enumerate(self.starts) if start is not None]
        # What is read beyond the end of this part is read again for the next one, so that each partition is asked for
        # its share only, and the part ends where the first of them has no more at hand.
        share = -(-limit // len(open_)) if open_ else 0
        sent = [partial(client.send, "query", self.request(*each, share), call) for each in open_]
        answers = await gather(sent, limit=CONCURRENCY)
        taken = _merged([answer["Items"] for answer in answers], _known(answers), limit)
        starts = list(self.starts)
        for place, (partition, before) in enumerate(open_):
            own = [entry for of, entry in taken if of == place]
            starts[partition] = self._next(answers[place], own, before)
        cursor = None
        if any(start is not None for start in starts):
            cursor = encode_cursor(self.layout.collection.name, self.version, [json.dumps(starts)])
        return Scan(_entries([entry for _, entry in taken], self.layout), cursor)

    def _next(
        self, answer: Mapping[str, Any], taken: Sequence[Mapping[str, Any]], before: Start | None
    ) -> Start | None:
        """Where a partition goes on when of its answer so many entries, from the first, were taken."""
        if len(taken) < len(answer["Items"]):
            return self._start(taken[-1]) if taken else before
        last = answer.get("LastEvaluatedKey")
        return self._start(last) if last else None

    def _start(self, attributes: Mapping[str, Any]) -> Start:
        return {name: attributes[name]["S"] for name in (*self.layout.table.keys, VERSION)}


def scan_of(layout: Layout, since: str | None, cursor: str | None, shards: int) -> WholeTable | SinceVersion:
    """How to scan a collection from ``cursor`` on.

    Args:
        layout: of the collection.
        since: the least version; None: everything.
        cursor: of an earlier scan; None: from the beginning.
        shards: over how many partitions the index by version is spread.

    Raises:
        InvalidRecord: the cursor is not of such a scan.
    """
    name, keys = layout.collection.name, layout.table.keys
    if since is None:
        values = decode_cursor(cursor, name, None, len(keys)) if cursor is not None else ()
        return WholeTable(layout, _checked(dict(zip(keys, values, strict=True)), keys, name) if values else {})
    starts: list[Start | None] = []
    if cursor is not None:
        (encoded,) = decode_cursor(cursor, name, since, 1)
        starts = _starts(encoded, (*keys, VERSION), name)
    if len(starts) > shards or any(start[VERSION] < since for start in starts if start):
        raise _foreign(name)
    # The number of partitions may have been raised since the cursor was made: new ones are read from their beginning.
    return SinceVersion(layout, since, (*starts, *({} for _ in range(shards - len(starts)))))


def _known(answers: Sequence[Mapping[str, Any]]) -> str | None:
    """The greatest version up to which the answers have everything; None: they have all that there is."""
    ends = [answer["LastEvaluatedKey"][VERSION]["S"] for answer in answers if answer.get("LastEvaluatedKey")]
    return min(ends, default=None)


def _merged(
    parts: Sequence[Sequence[Mapping[str, Any]]], known: str | None, limit: int
) -> list[tuple[int, Mapping[str, Any]]]:
    """The first entries of all parts in order of version, each with the place of its part."""
    found = [(place, entry) for place, part in enumerate(parts) for entry in part]
    # Sorting is stable, and so keeps the service's order of the entries of one part that have the same version.
    found.sort(key=lambda each: (each[1][VERSION]["S"], each[0]))
    return [each for each in found if known is None or each[1][VERSION]["S"] <= known][:limit]


def _starts(encoded: str, names: Collection[str], collection: str) -> list[Start | None]:
    try:
        values = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise _foreign(collection) from error
    if not isinstance(values, list):
        raise _foreign(collection)
    return [each if each is None or each == {} else _checked(each, names, collection) for each in values]


def _checked(value: Any, names: Collection[str], collection: str) -> Start:
    """The key attributes in a part of a cursor. Raises InvalidRecord unless they are such as an item can have."""
    if not isinstance(value, dict) or value.keys() != set(names):
        raise _foreign(collection)
    try:
        for name, each in value.items():
            check_id(name, each, collection)
    except InvalidRecord as error:
        raise _foreign(collection) from error
    return value


def _foreign(collection: str) -> InvalidRecord:
    return InvalidRecord(
        "cursor",
        "is not one of a scan like this, of this store",
        collection=collection,
        remedy="Scan from the beginning",
    )


def _going_on(start: Start) -> Request:
    return {"ExclusiveStartKey": {name: text(value) for name, value in start.items()}} if start else {}


def _entries(found: Sequence[Mapping[str, Any]], layout: Layout) -> tuple[Any, ...]:
    return tuple((key_of(each, layout), each[VERSION]["S"]) for each in found)
