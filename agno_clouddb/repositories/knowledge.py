"""db.knowledge: contents of knowledge bases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, TypedDict, Unpack

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import ConflictError, InvalidRecord
from agno_clouddb.records.base import to_text
from agno_clouddb.records.knowledge import EVERYONE, KnowledgeContent
from agno_clouddb.repositories.base import Page, check_limit, check_version
from agno_clouddb.repositories.changes import Upsert
from agno_clouddb.repositories.listing import Filter, Listing, Lists
from agno_clouddb.repositories.records import Records
from agno_clouddb.stores.base import Consistency, Cursor
from agno_clouddb.stores.query import order_of

__all__ = ["Knowledge", "KnowledgeFilters"]

Sort = Literal["created_at", "-created_at"]

_MERGED = " or of nobody"


class KnowledgeFilters(TypedDict, total=False):
    """What a list of contents may be narrowed by; a filter that is None or not given does not narrow."""

    type: str | None
    """Only contents of this type."""
    status: str | None
    """Only contents with this status."""
    linked_to: str | None
    """Only contents of this knowledge base."""
    user_id: str | None
    """Only contents that this user has uploaded."""
    audience: Literal["everyone"] | None
    """Only contents that belong to nobody."""
    visible_to: str | None
    """Only contents that this user has uploaded, or that belong to nobody: two lists, merged."""
    created_from: datetime | None
    """Only contents created at this moment or later."""
    created_to: datetime | None
    """Only contents created before this moment."""


class Knowledge(Records[KnowledgeContent]):
    """Contents of knowledge bases. Reads are strongly consistent unless the call or the Database says otherwise."""

    lists = Lists(
        KnowledgeContent,
        filters={
            "type": Filter("equal", "type"),
            "status": Filter("equal", "status"),
            "linked_to": Filter("equal", "linked_to"),
            "user_id": Filter("equal", "user_id"),
            "audience": Filter("equal", "audience"),
            "created_from": Filter("from", "created_at"),
            "created_to": Filter("to", "created_at"),
        },
        sorts=("created_at",),
    )

    async def create(
        self,
        record: KnowledgeContent,
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> KnowledgeContent:
        """Write a content that is not stored yet, in one request.

        Args:
            record: what to write.
            user_id: the owner; by default the record's own.
            expires_in: as in ``upsert``.
            expires_at: as in ``upsert``.

        Returns:
            What is stored, with its version.

        Raises:
            ConflictError: there is a content of this id.
            InvalidRecord, RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        return await self._apply(self._creation(record, user_id, expires_in, expires_at))

    async def list(
        self,
        *,
        sort: Sort = "-created_at",
        limit: int = 20,
        cursor: str | None = None,
        consistency: Consistency | None = None,
        **filters: Unpack[KnowledgeFilters],
    ) -> Page[KnowledgeContent]:
        """One page of contents, the same on every store.

        Args:
            sort: ``-created_at`` for the latest first, or ``created_at``. Equal moments are ordered by id.
            limit: how many, 1 to 1,000. The page is full while there is more.
            cursor: go on after the page that carried it, with the same filters and sort.
            consistency: as in ``get``.
            **filters: what to list, see ``KnowledgeFilters``; all of them must hold.

        Raises:
            InvalidRecord: an argument is unknown or out of its range, or the cursor is of another list.
            QueryNotIndexed, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        parts = self._parts(filters, sort)
        if len(parts) == 1:
            return await self._page(parts[0], limit, cursor, consistency)
        return await self._merged_page(parts, limit, cursor, consistency)

    async def iterate(
        self,
        *,
        sort: Sort = "-created_at",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[KnowledgeFilters],
    ) -> AsyncIterator[KnowledgeContent]:
        """All contents that ``list`` would list, holding one page of ``page_size`` at a time."""
        cursor: str | None = None
        while True:
            page = await self.list(sort=sort, limit=page_size, cursor=cursor, consistency=consistency, **filters)
            for record in page.items:
                yield record
            cursor = page.cursor
            if cursor is None:
                return

    async def count(self, **filters: Unpack[KnowledgeFilters]) -> int:
        """How many contents ``list`` would list. Arguments and errors are those of ``list``.

        Counted by the store; what has expired and the service has not removed yet may be included.
        """
        counts = [partial(self._store.count, part.query) for part in self._parts(filters, "-created_at")]
        return sum(await gather(counts))

    async def set_status(
        self,
        id: str,
        status: str,
        *,
        expected: str | Iterable[str | None] | None = None,
        expected_version: str | None = None,
        message: str | None = None,
        user_id: str | None = None,
    ) -> KnowledgeContent:
        """Move a content from one status to another; of several who try at once, one does.

        Args:
            id: which content.
            status: the new status.
            expected: the status, or one of those, that it must have now; None among those: it has none. By default any.
            expected_version: the version that must be stored.
            message: why; becomes ``status_message``.
            user_id: only when the content belongs to this user.

        Returns:
            What is stored.

        Raises:
            ConflictError: it has another status or version by now; says the version that is gone (the one expected or
                seen, else the one that the last ``set_status`` has moved on) and the one found.
            RecordNotFound: there is no such content.
            NotOwner: it belongs to another user.
            InvalidRecord, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        if not isinstance(status, str):
            raise InvalidRecord("status", f"is of type {type(status).__name__}, not text", collection="knowledge")
        check_version(expected_version)
        allowed = _statuses(expected)
        key, seen = self._key(id), expected_version
        async for attempt in self._attempts():
            batch = await self._store.get([key])
            item = batch.items[0]
            if item is None:
                raise self._not_found(key, batch)
            if user_id is not None and item.owner != user_id:
                raise self._not_owner(key)
            record = self._read(item)
            unexpected = allowed is not None and record.status not in allowed
            if unexpected or expected_version not in (None, item.version):
                problem = f"the status is {record.status!r}, not {_either(allowed)}" if unexpected else ""
                gone = seen or record.moved_from
                raise ConflictError(gone, item.version, problem=problem, store=self._store.name, key=key)
            seen = item.version
            with attempt:
                change = {"status": status, "status_message": message, "moved_from": item.version}
                changed = self._expiring(record.model_copy(update=change))
                return await self._apply(Upsert(key, changed, owner=user_id, expected=item.version))
        raise AssertionError("attempts end with a result or an error")

    async def count_access(self, id: str, *, user_id: str | None = None) -> int:
        """Add one to ``access_count``, also when many do so at once. Errors are those of ``update``.

        Args:
            id: which content.
            user_id: only when the content belongs to this user.

        Returns:
            The number with this access.
        """

        def add(content: KnowledgeContent) -> KnowledgeContent:
            return content.model_copy(update={"access_count": (content.access_count or 0) + 1})

        return (await self.update(id, add, user_id=user_id)).access_count or 0

    def _parts(self, filters: KnowledgeFilters, sort: Sort) -> Sequence[Listing]:
        """The lists whose merged contents a call lists.

        No index has both what is a user's and what is nobody's, and a filter would read what is of all other users.
        """
        given = dict(filters)
        user = given.pop("visible_to", None)
        if user is None:
            return (self.lists.listing(given, sort),)
        if (owned := {"user_id", "audience"} & {name for name in given if given[name] is not None}) != set():
            problem = f"cannot be given with {', '.join(sorted(owned))}"
            raise InvalidRecord("visible_to", problem, collection="knowledge")
        return tuple(
            self.lists.listing({**given, **part}, sort) for part in ({"user_id": user}, {"audience": EVERYONE})
        )

    async def _merged_page(
        self, parts: Sequence[Listing], limit: int, cursor: str | None, consistency: Consistency | None
    ) -> Page[KnowledgeContent]:
        """One page of several lists in one order, which reads at most ``limit`` of each."""
        check_limit(limit)
        first = parts[0].query
        # A place in the order is a place in each of the lists, whichever of them the content at it was of.
        start = Cursor.decode(cursor, first, _MERGED) if cursor is not None else None
        calls = [
            partial(self._page, part, limit, start.encode(part.query) if start is not None else None, consistency)
            for part in parts
        ]
        pages: list[Page[KnowledgeContent]] = await gather(calls)
        # A content that was claimed between the queries is in both.
        found = {Cursor(to_text("created_at", _created(each)), each.id): each for page in pages for each in page.items}
        places = sorted(found, key=order_of, reverse=first.descending)
        more = len(places) > limit or any(page.cursor is not None for page in pages)
        places = places[:limit]
        end = places[-1].encode(first, _MERGED) if more and places else None
        degraded = any(page.degraded for page in pages)
        for place in places:
            found[place].degraded = degraded
        return Page([found[place] for place in places], end, degraded)


def _created(record: KnowledgeContent) -> datetime:
    assert record.created_at is not None  # what is listed is ordered by it
    return record.created_at


def _statuses(expected: str | Iterable[str | None] | None) -> frozenset[str | None] | None:
    """The statuses that are expected; None: any."""
    if expected is None or isinstance(expected, str):
        return None if expected is None else frozenset({expected})
    statuses = tuple(expected) if isinstance(expected, Iterable) else (expected,)
    for status in statuses:
        if status is not None and not isinstance(status, str):
            raise InvalidRecord("expected", f"has a {type(status).__name__}, not text or None", collection="knowledge")
    return frozenset(statuses)


def _either(statuses: frozenset[str | None] | None) -> str:
    return " or ".join(sorted(map(repr, statuses or ()))) or "any of none"
