"""Scans: the keys and versions of all documents of a collection. Imported when a store is opened, as ``client`` is.

The children of all parents are a collection group, which spans every subcollection of that id in the database, also
those of other prefixes and other programs. In order of names, a scan is bounded to the parents of this prefix, by
cursors as the service itself makes them (https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1,
PartitionQuery); in order of version it is not, as that would need an index of both. What is foreign is left out by its
path.
"""

from __future__ import annotations

from typing import Any

from google.cloud.firestore_v1.types import query as types

from agno_clouddb.errors import CloudDBError, InvalidRecord
from agno_clouddb.stores.base import MAX_ID_BYTES, Key, Scan
from agno_clouddb.stores.firestore.client import Connection
from agno_clouddb.stores.firestore.faults import Fault
from agno_clouddb.stores.firestore.indexes import version_index
from agno_clouddb.stores.firestore.names import Layout
from agno_clouddb.stores.scans import decode_cursor, encode_cursor
from agno_clouddb.stores.schema import collection as declared

__all__ = ["Scanner", "scan_query"]

_LARGEST_PAGE = 1_000  # documents in one request, which has to end within the deadline
_LEAST_ID = " "  # ids have no control characters
_BEYOND_IDS = "\U0010ffff" * (MAX_ID_BYTES // 4 + 1)  # greater than any id, as escaping leaves this character alone

_StructuredQuery: Any = types.StructuredQuery.pb()
_ASCENDING: Any = types.StructuredQuery.Direction.ASCENDING


class Scanner:
    """Reads what collections hold, without payloads and whatever the items' state.

    Args:
        connection: where requests go.
        layout: where the documents are.
        name: the store's name, for errors.
    """

    def __init__(self, connection: Connection, layout: Layout, *, name: str) -> None:
        self._connection = connection
        self._layout = layout
        self._name = name

    async def scan(self, collection: str, limit: int, since: str | None, cursor: str | None, until: float) -> Scan:
        """One request's part of a collection: at most 1,000 documents, of which foreign ones are left out.

        Args:
            collection: which one.
            limit: the most entries.
            since: None: all, in order of their names. A version: from it on, in order of version and name.
            cursor: of the part before.
            until: the deadline, in seconds of the event loop's clock.
        """
        after = None if cursor is None else self._place(cursor, collection, since)
        step = min(limit, _LARGEST_PAGE)
        message = scan_query(collection, self._layout, limit=step, since=since, after=after)
        try:
            answers = await self._connection.run_query(self._layout.root, message, until)
        except Fault as fault:
            index = str(version_index(collection, self._layout.prefix))
            raise fault.error(self._name, collection=collection, index=index) from fault.cause
        found = [
            (key, self._version(document, key))
            for document in answers.documents
            if (key := self._layout.key_at(document.name, collection)) is not None
        ]
        if len(answers.documents) < step:
            return Scan(tuple(found))
        last = answers.documents[-1]
        path = last.name.removeprefix(f"{self._layout.root}/")
        place = (path,) if since is None else (last.fields["version"].string_value, path)
        return Scan(tuple(found), encode_cursor(collection, since, place))

    def _place(self, cursor: str, collection: str, since: str | None) -> tuple[str, ...]:
        *version, path = decode_cursor(cursor, collection, since, 1 if since is None else 2)
        if not self._layout.is_document(path, collection):
            raise InvalidRecord("cursor", "names no document of the collection", collection=collection)
        return (*version, path)

    def _version(self, document: Any, key: Key) -> str:
        if "version" not in document.fields:
            raise CloudDBError(
                "the document has no version",
                store=self._name,
                key=key,
                remedy="Another program has written it; use a prefix of your own",
            )
        version: str = document.fields["version"].string_value
        return version


def scan_query(
    collection: str,
    layout: Layout,
    *,
    limit: int,
    since: str | None = None,
    after: tuple[str, ...] | None = None,
) -> Any:
    """The StructuredQuery for a part of a scan, to be run at the database's root.

    Args:
        collection: which one.
        layout: where the documents are.
        limit: the most documents.
        since: None: all, in order of their names. A version: from it on, in order of version and name.
        after: go on after this version, where ``since`` is given, and this path.
    """
    parent = declared(collection).parent
    message = _StructuredQuery()
    message.from_.add(collection_id=layout.collection_id(collection), all_descendants=parent is not None)
    message.select.fields.add(field_path="version")
    message.limit.value = limit
    for name in ("__name__",) if since is None else ("version", "__name__"):
        message.order_by.add(direction=_ASCENDING).field.field_path = name
    if parent is not None and since is None:
        parents = f"{layout.root}/{layout.collection_id(parent)}"
        _bound(message.start_at, f"{parents}/{_LEAST_ID}", before=True)
        _bound(message.end_at, f"{parents}/{_BEYOND_IDS}", before=True)
    if after is not None:
        *version, path = after
        _bound(message.start_at, f"{layout.root}/{path}", *version, before=False)
    elif since is not None:
        message.start_at.values.add(string_value=since)
        message.start_at.before = True
    return message


def _bound(bound: Any, reference: str, *values: str, before: bool) -> None:
    del bound.values[:]
    for value in values:
        bound.values.add(string_value=value)
    bound.values.add(reference_value=reference)
    bound.before = before
