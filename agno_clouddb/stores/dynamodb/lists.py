"""Lists: index queries merged over partitions, and the items that they lead to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.base import MAX_ID_BYTES, Cursor, Item, Page, Query, Tally
from agno_clouddb.stores.dynamodb.calls import CONCURRENCY, Call
from agno_clouddb.stores.dynamodb.expressions import Attribute, Expression, Request, render, text
from agno_clouddb.stores.dynamodb.items import SEPARATOR, Row, composite, key_of, row_of, value_of
from agno_clouddb.stores.dynamodb.reads import TORN_READS, Reader
from agno_clouddb.stores.query import add_tally
from agno_clouddb.stores.schema import SHARD, Index

if TYPE_CHECKING:
    from agno_clouddb.stores.dynamodb.client import Client
    from agno_clouddb.stores.dynamodb.tables import Layout

__all__ = ["Lister", "Plan", "plan"]

_MOST_ITEMS = 400  # items read at a time for a filter that only items can answer: four requests at once
_FILTERED_AHEAD = (
    4  # how many entries are read for each that is wanted, where the service filters them: they cost little
)
_MOST_ENTRIES = 1000  # index entries read at a time for a filter that the index answers


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query is answered.

    Args:
        layout: of its collection.
        index: the index that serves it.
        partitions: the values of the index's partition key to read.
        low: entries lie above this sort key; empty: from the first.
        high: entries lie below this sort key; None: to the last.
        skip: the sort key that the cursor stands at, itself not listed.
        descending: from the greatest to the least.
        filter: what the service checks on the index's entries; None: nothing.
        exact: the index alone tells what is listed, save what has expired.
    """

    layout: Layout
    index: Index
    partitions: tuple[str, ...]
    low: str
    high: str | None
    skip: str
    descending: bool
    filter: Expression | None
    exact: bool

    @property
    def local(self) -> bool:
        return self.layout.is_local(self.index)

    @property
    def sort(self) -> str:
        """The attribute that is the index's sort key."""
        return self.layout.sort_attribute(self.index)

    @property
    def empty(self) -> bool:
        """No entry can be within the bounds."""
        return not self.partitions or (self.high is not None and self.low >= self.high)

    @property
    def enclosed(self) -> bool:
        """Both bounds are given, so that the entry at ``skip`` is read."""
        return bool(self.low) and self.high is not None

    def tells(self, name: str) -> bool:
        """Whether the index's entries alone tell what is listed, and this field of it."""
        return self.exact and name in (self.index.partition, self.index.sort, *self.index.include)

    def request(self, partition: str) -> Request:
        """The parameters of an index query, without limit and projection."""
        sort = Attribute(self.sort)
        key = Attribute(self.index.partition).equals(text(partition))
        if self.low and self.high is not None:
            # The service takes one condition on the sort key, and BETWEEN includes both ends. No entry has a bare
            # value as its sort key, so that the only end that can be met is the cursor's own, which `skip` drops.
            key &= sort.between(text(self.low), text(self.high))
        elif self.low:
            key &= sort.above(text(self.low))
        elif self.high is not None:
            key &= sort.below(text(self.high))
        return {
            "TableName": self.layout.table.name,
            "IndexName": self.index.name,
            "ScanIndexForward": not self.descending,
            **render(KeyConditionExpression=key, FilterExpression=self.filter),
        }


def plan(query: Query, cursor: Cursor | None, layout: Layout, shards: int) -> Plan:
    """How to answer a query from ``cursor`` on.

    Raises:
        InvalidRecord: a bound or the cursor cannot be a place in any list.
    """
    index, limits = query.index, query.sort_range
    local = layout.is_local(index)
    allowed = _allowed(query)
    rest = {name: values for name, values in allowed.items() if name != index.partition}
    kept = {} if local else {name: values for name, values in rest.items() if name in index.include}
    possible = all(allowed.values())
    low = _bound(query, limits.low or "")
    high = _bound(query, limits.high) if limits.high is not None else None
    skip = _bound(query, cursor.value, cursor.id) if cursor is not None else ""
    if skip and query.descending:
        high = skip if high is None else min(high, skip)
    elif skip:
        low = max(low, skip)
    return Plan(
        layout=layout,
        index=index,
        partitions=_partitions(query, index, allowed, local, shards) if possible else (),
        low=low,
        high=high,
        skip=skip,
        descending=query.descending,
        filter=_filter(kept) if possible else None,
        exact=len(kept) == len(rest)
        and not query.contains
        and all(each.field == index.sort for each in query.ranges)
        and (local or query.parent is None),
    )


def _allowed(query: Query) -> dict[str, tuple[str, ...]]:
    """The values that a field may have, each once, for every field that must have one of some values."""
    allowed = {name: tuple(dict.fromkeys(values)) for name, values in query.any_of.items()}
    for name, value in query.equals.items():
        allowed[name] = (value,) if value in allowed.get(name, (value,)) else ()
    return allowed


def _filter(allowed: Mapping[str, Sequence[str]]) -> Expression | None:
    conditions = (Attribute(name).is_in([text(value) for value in values]) for name, values in allowed.items())
    return reduce(and_, conditions) if allowed else None


def _partitions(
    query: Query, index: Index, allowed: Mapping[str, tuple[str, ...]], local: bool, shards: int
) -> tuple[str, ...]:
    if local and query.parent is not None:
        return (query.parent,)
    return tuple(map(str, range(shards))) if index.partition == SHARD else allowed[index.partition]


def _bound(query: Query, value: str, id: str | None = None) -> str:
    """A value, or a place, to compare sort keys with. Every sort key with a value from ``value`` on is above it."""
    path = query.sort if id is None else "cursor"
    try:
        size = max(len(value.encode()), len((id or "").encode()))
    except UnicodeEncodeError:
        raise InvalidRecord(path, "must not contain lone surrogates", collection=query.collection) from None
    if size > MAX_ID_BYTES or min(value, default=" ") <= SEPARATOR:
        problem = f"is over {MAX_ID_BYTES} bytes long or has control characters, as no sort value has"
        raise InvalidRecord(path, problem, collection=query.collection)
    return value if id is None else composite(value, id)


@dataclass(slots=True)
class _Stream:
    """The entries of one partition of an index, in order."""

    request: Request
    entries: deque[dict[str, Any]] = field(default_factory=deque)
    size: int = 1  # the fewest entries to read at a time: more with each request where a filter leaves few of them
    done: bool = False

    @property
    def dry(self) -> bool:
        """More can be had, but only by another request."""
        return not self.entries and not self.done


class Lister:
    """Answers queries.

    Args:
        client: sends the requests.
        reader: reads the items that an index leads to.
    """

    def __init__(self, client: Client, reader: Reader) -> None:
        self._client = client
        self._reader = reader

    async def page(self, plan: Plan, query: Query, limit: int, consistent: bool, now: int, call: Call) -> Page:
        """One page of a list."""
        for _ in range(TORN_READS):
            rows, more = await self._rows(plan, query, limit, consistent, now, call)
            whole = await self._reader.whole(rows, consistent, now, call)
            if len(whole) == len(rows):
                items = tuple(whole[row.item.key] for row in rows)
                return Page(items, query.place(items[-1]) if more and items else None)
            # An item was replaced between reading it and its chunks: its place may have changed with it.
            consistent = True
        raise self._reader.torn(next(row.item.key for row in rows if row.item.key not in whole))

    async def count(self, plan: Plan, query: Query, now: int, call: Call) -> int:
        """How many items a query lists; what has expired and is not removed yet may be counted."""
        if plan.empty:
            return 0
        if plan.exact:
            counts = [partial(self._count, plan, partition, call) for partition in plan.partitions]
            return sum(await gather(counts, limit=CONCURRENCY))
        streams = self._streams(plan)
        total = 0
        while entries := await self._take(plan, streams, _MOST_ENTRIES, _MOST_ENTRIES, True, call):
            total += len(await self._listed(plan, query, entries, True, now, call))
        return total

    async def _count(self, plan: Plan, partition: str, call: Call) -> int:
        request = {**plan.request(partition), "Select": "COUNT", "ConsistentRead": plan.local}
        total: int = 0
        while True:
            answer = await self._client.send("query", request, call)
            total += answer["Count"]
            if not answer.get("LastEvaluatedKey"):
                return total
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def tally(self, plan: Plan, by: str, call: Call) -> dict[str, Tally]:
        """What the entries of an index have of each value of a field, which the plan ``tells``; no item is read."""
        tallies: dict[str, Tally] = {}
        if not plan.empty:
            parts = [partial(self._tally, plan, partition, by, call) for partition in plan.partitions]
            for part in await gather(parts, limit=CONCURRENCY):
                for value, tally in part.items():
                    add_tally(tallies, value, tally)
        return tallies

    async def _tally(self, plan: Plan, partition: str, by: str, call: Call) -> dict[str, Tally]:
        request = {**plan.request(partition), "ConsistentRead": plan.local}
        tallies: dict[str, Tally] = {}
        while True:
            # Without a limit, an answer has as many entries as fit into a megabyte.
            answer = await self._client.send("query", request, call)
            for entry in answer["Items"]:
                value, place = (value_of(name, entry, plan.layout) for name in (by, plan.index.sort))
                if value is not None and place is not None:
                    add_tally(tallies, value, Tally(1, place, place))
            if not answer.get("LastEvaluatedKey"):
                return tallies
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _rows(
        self, plan: Plan, query: Query, limit: int, consistent: bool, now: int, call: Call
    ) -> tuple[list[Row], bool]:
        """The rows of a page, and whether there are more entries after them."""
        if plan.empty:
            return [], False
        streams = self._streams(plan)
        # An entry of a global index costs next to nothing, and one more tells whether the list goes on. A local
        # index is read together with its items, so that one more would cost a whole item.
        ahead = 0 if plan.local else 1
        rows: list[Row] = []
        count = limit
        size = limit + ahead + (1 if plan.skip and plan.enclosed else 0)
        if plan.filter is not None:
            size *= _FILTERED_AHEAD
        while True:
            entries = await self._take(plan, streams, count, size, consistent, call)
            rows += await self._listed(plan, query, entries, consistent, now, call)
            if len(rows) > limit:
                return rows[:limit], True
            if len(rows) == limit or not entries:
                return rows, await self._more(plan, streams, consistent, call)
            # The sparser the filter, the more is read at a time.
            count = limit - len(rows) if plan.exact else max(limit - len(rows), min(2 * count, _MOST_ITEMS))
            size = count + ahead

    async def _more(self, plan: Plan, streams: list[_Stream], consistent: bool, call: Call) -> bool:
        if any(stream.entries for stream in streams):
            return True
        if plan.local:
            return not all(stream.done for stream in streams)
        await self._fill(plan, streams, 1, consistent, call)
        return any(stream.entries for stream in streams)

    async def _listed(
        self, plan: Plan, query: Query, entries: Sequence[dict[str, Any]], consistent: bool, now: int, call: Call
    ) -> list[Row]:
        """The rows that entries lead to, save those that the query does not list or not at this place."""
        layout, sort = plan.layout, plan.sort
        # Every item has a version and no index of a list projects it. A local index is asked for whole items, which
        # moto does not give.
        keys = [key_of(entry, layout) for entry in entries if "version" not in entry]
        rows = await self._reader.rows(list(dict.fromkeys(keys)), consistent, call) if keys else {}
        listed = []
        for entry in entries:
            row = row_of(entry, layout) if "version" in entry else rows.get(key_of(entry, layout))
            if row is not None and query.matches(row.item, now) and _place(query, row.item) == entry[sort]["S"]:
                listed.append(row)
        return listed

    def _streams(self, plan: Plan) -> list[_Stream]:
        select = {"Select": "ALL_ATTRIBUTES"} if plan.local else {}
        return [_Stream({**plan.request(partition), **select}) for partition in plan.partitions]

    async def _take(
        self, plan: Plan, streams: list[_Stream], count: int, size: int, consistent: bool, call: Call
    ) -> list[dict[str, Any]]:
        """The next entries of all streams in order: ``count`` of them, or all that are left."""
        sort = plan.sort
        taken: list[dict[str, Any]] = []
        while len(taken) < count:
            await self._fill(plan, streams, size, consistent, call)
            heads = [stream.entries[0][sort]["S"] for stream in streams if stream.entries]
            if not heads:
                break
            next_place = max(heads) if plan.descending else min(heads)
            # An item that changes from one partition to another is for moments in both: it is one place all the same.
            at = [stream for stream in streams if stream.entries and stream.entries[0][sort]["S"] == next_place]
            entry, *_ = [stream.entries.popleft() for stream in at]
            taken.append(entry)
        return taken

    async def _fill(self, plan: Plan, streams: list[_Stream], size: int, consistent: bool, call: Call) -> None:
        """Read on wherever a stream has run dry, until none is."""
        while dry := [stream for stream in streams if stream.dry]:
            await gather([partial(self._read, plan, stream, size, consistent, call) for stream in dry])

    async def _read(self, plan: Plan, stream: _Stream, size: int, consistent: bool, call: Call) -> None:
        size = max(size, stream.size)
        stream.request["Limit"] = size
        stream.request["ConsistentRead"] = consistent and plan.local
        answer = await self._client.send("query", stream.request, call)
        sort = plan.sort
        stream.entries.extend(entry for entry in answer["Items"] if entry[sort]["S"] != plan.skip)
        start = answer.get("LastEvaluatedKey")
        stream.done = not start
        stream.size = min(4 * size, _MOST_ENTRIES) if plan.filter is not None else 1
        stream.request["ExclusiveStartKey"] = start


def _place(query: Query, item: Item) -> str:
    place = query.place(item)
    return composite(place.value, place.id)
