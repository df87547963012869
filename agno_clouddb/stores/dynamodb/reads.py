"""Reading items by key: batches to their end, and payloads put together from their chunks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError
from agno_clouddb.stores.base import Item, Key
from agno_clouddb.stores.codec import join
from agno_clouddb.stores.dynamodb.calls import CONCURRENCY, Call
from agno_clouddb.stores.dynamodb.expressions import AttributeValue
from agno_clouddb.stores.dynamodb.items import Row, chunk_keys, key_attributes, row_of
from agno_clouddb.stores.dynamodb.tables import CHUNK_PARTITION, CHUNK_SORT, Layout, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agno_clouddb.stores.dynamodb.client import Client

__all__ = ["TORN_READS", "Reader"]

_BATCH_KEYS = 100  # the service's limit for one BatchGetItem
TORN_READS = 5
"""How often an item may be replaced between reading it and reading its chunks."""

Place = tuple[str, dict[str, AttributeValue]]
"""A table and the key of an item in it."""


class Reader:
    """Reads items by key.

    Args:
        client: sends the requests.
        layouts: by collection.
        chunks: the table of chunks.
        store: the store's name, for errors.
    """

    def __init__(self, client: Client, layouts: Mapping[str, Layout], chunks: Table, store: str) -> None:
        self._client = client
        self._layouts = layouts
        self._by_table = {layout.table.name: layout for layout in layouts.values()}
        self._chunks = chunks
        self._store = store

    async def items(self, keys: Sequence[Key], consistent: bool, now: int, call: Call) -> dict[Key, Item]:
        """What is stored under ``keys``, with payloads; those of dead items may be missing."""
        found: dict[Key, Item] = {}
        wanted: Sequence[Key] = list(dict.fromkeys(keys))
        for _ in range(TORN_READS):
            rows = await self.rows(wanted, consistent, call)
            whole = await self.whole(list(rows.values()), consistent, now, call)
            found.update(whole)
            wanted = [key for key in rows if key not in whole]
            if not wanted:
                return found
            consistent = True
        raise self.torn(wanted[0])

    def torn(self, key: Key) -> CloudDBError:
        """The error for an item whose chunks could not be read as they belong together."""
        return CloudDBError(
            "chunks of the payload are missing, or the item is replaced faster than it can be read",
            store=self._store,
            key=key,
            remedy="Try again; if it stays, write the record anew",
        )

    async def rows(self, keys: Sequence[Key], consistent: bool, call: Call) -> dict[Key, Row]:
        """What the tables have under ``keys``, which are all different."""
        places: list[Place] = []
        for key in keys:
            layout = self._layouts[key.collection]
            places.append((layout.table.name, key_attributes(key, layout)))
        rows = (
            row_of(attributes, self._by_table[table]) for table, attributes in await self._at(places, consistent, call)
        )
        return {row.item.key: row for row in rows}

    async def whole(self, rows: Sequence[Row], consistent: bool, now: int, call: Call) -> dict[Key, Item]:
        """The items of ``rows`` with their payloads; an item whose chunks are of another version by now is left out."""
        items = {row.item.key: row.item for row in rows}
        # Chunks of what has expired may be gone before the item itself, and nobody reads them.
        chunked = [row for row in rows if row.chunks and row.item.live(now)]
        if not chunked:
            return items
        keys = {row.item.key: list(chunk_keys(row.item.key, row.item.version, row.chunks)) for row in chunked}
        places = [(self._chunks.name, key) for own in keys.values() for key in own]
        found = {_chunk(each): each["data"]["B"] for _, each in await self._at(places, consistent, call)}
        for row in chunked:
            chunks = [found[_chunk(key)] for key in keys[row.item.key] if _chunk(key) in found]
            if len(chunks) == row.chunks:
                items[row.item.key] = row.with_data(join(chunks))
            else:
                del items[row.item.key]
        return items

    async def _at(self, places: Sequence[Place], consistent: bool, call: Call) -> list[tuple[str, dict[str, Any]]]:
        """The tables and attributes of the items at ``places``, in no order."""
        if len(places) == 1:
            ((table, key),) = places
            request = {"TableName": table, "Key": key, "ConsistentRead": consistent}
            answer = await self._client.send("get_item", request, call)
            return [(table, answer["Item"])] if "Item" in answer else []
        batches = [places[start : start + _BATCH_KEYS] for start in range(0, len(places), _BATCH_KEYS)]
        answers = await gather([partial(self._batch, each, consistent, call) for each in batches], limit=CONCURRENCY)
        return [each for answer in answers for each in answer]

    async def _batch(self, places: Sequence[Place], consistent: bool, call: Call) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        pending: dict[str, Any] = {}
        for table, key in places:
            pending.setdefault(table, {"Keys": [], "ConsistentRead": consistent})["Keys"].append(key)
        attempt = 0
        while True:
            answer = await self._client.send("batch_get_item", {"RequestItems": pending}, call)
            answered = [(table, each) for table, items in answer["Responses"].items() for each in items]
            found += answered
            pending = answer.get("UnprocessedKeys") or {}
            if not pending:
                return found
            # An answer is cut off at 16 MB, without any load: only one that brought nothing is worth a longer wait.
            attempt = 0 if answered else attempt + 1
            await self._client.pause(attempt, call, "keys stayed unprocessed")


def _chunk(attributes: Mapping[str, Any]) -> tuple[str, str]:
    return attributes[CHUNK_PARTITION]["S"], attributes[CHUNK_SORT]["S"]
