"""db.knowledge: contents of knowledge bases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Literal, TypedDict, Unpack

from agno_clouddb.errors import ConflictError, InvalidRecord
from agno_clouddb.records.knowledge import KnowledgeContent
from agno_clouddb.repositories.base import Page, check_version
from agno_clouddb.repositories.changes import Upsert
from agno_clouddb.repositories.listing import Filter, Lists
from agno_clouddb.repositories.records import Records
from agno_clouddb.stores.base import Consistency

__all__ = ["Knowledge", "KnowledgeFilters"]

Sort = Literal["created_at", "-created_at"]


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
            "created_from": Filter("from", "created_at"),
            "created_to": Filter("to", "created_at"),
        },
        sorts=("created_at",),
    )

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
        return await self._page(self.lists.listing(filters, sort), limit, cursor, consistency)

    async def iterate(
        self,
        *,
        sort: Sort = "-created_at",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[KnowledgeFilters],
    ) -> AsyncIterator[KnowledgeContent]:
        """All contents that ``list`` would list, holding one page of ``page_size`` at a time."""
        async for record in self._iterate(self.lists.listing(filters, sort), page_size, consistency):
            yield record

    async def count(self, **filters: Unpack[KnowledgeFilters]) -> int:
        """How many contents ``list`` would list. Arguments and errors are those of ``list``.

        Counted by the store; what has expired and the service has not removed yet may be included.
        """
        return await self._count(filters)

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
            item = (await self._store.get([key])).items[0]
            if item is None:
                raise self._not_found(key)
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
