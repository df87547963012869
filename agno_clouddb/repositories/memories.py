"""db.memories: what agents remember of users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.memories import UserMemory
from agno_clouddb.repositories.base import Page, require
from agno_clouddb.repositories.changes import Upsert
from agno_clouddb.repositories.listing import Filter, Lists, Test, contains_text
from agno_clouddb.repositories.reads import UserStats
from agno_clouddb.repositories.records import Records
from agno_clouddb.stores.base import Consistency, Key, Refused

__all__ = ["Memories", "MemoryFilters"]

Sort = Literal["updated_at", "-updated_at"]


class MemoryFilters(TypedDict, total=False):
    """What a list of memories may be narrowed by; a filter that is None or not given does not narrow."""

    user_id: str | None
    """Only this user's memories."""
    agent_id: str | None
    """Only memories of this agent."""
    team_id: str | None
    """Only memories of this team."""
    topics: Iterable[str] | None
    """Only memories that have all of these topics, whatever their case (``str.casefold``)."""
    text: str | None
    """Only memories that contain this text, whatever its case."""
    updated_from: datetime | None
    """Only memories last written at this moment or later."""
    updated_to: datetime | None
    """Only memories last written before this moment."""


def _all_topics(name: str, value: Any) -> Test:
    topics = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(each, str) for each in topics):
        raise InvalidRecord(name, "must be a list of texts", collection="memories")
    wanted = {each.casefold() for each in topics}
    return lambda memory: wanted <= {each.casefold() for each in memory.topics or ()}


class _Overwrite(Upsert[UserMemory]):
    """Write a memory over nothing, or over that of anybody, who stays its owner.

    Args:
        key: where the memory is stored.
        record: what to write, made anew.
        again: what ``updated_at`` becomes where a memory is stored; None: that of the record.
    """

    def __init__(self, key: Key, record: UserMemory, *, again: datetime | None) -> None:
        super().__init__(key, record)
        self._again = again

    def adapt(self, refused: Refused) -> bool:
        adapted = super().adapt(refused)
        if adapted:
            update = {"user_id": refused.fields.get("user_id"), "updated_at": self._again or self.written.updated_at}
            self._record = self.written = self.written.model_copy(update=update)
        return adapted


class Memories(Records[UserMemory]):
    """Memories of users. Reads are strongly consistent unless the call or the Database says otherwise.

    Lists by ``user_id`` are served by an index of their own; ``agent_id`` and ``team_id`` are filtered in the index of
    all memories. Filters by topics and text are applied to the memories that the others leave, whatever it takes to
    fill a page.
    """

    lists = Lists(
        UserMemory,
        filters={
            "user_id": Filter("equal", "user_id"),
            "agent_id": Filter("equal", "agent_id"),
            "team_id": Filter("equal", "team_id"),
            "topics": Filter("test", "topics", _all_topics),
            "text": Filter("test", "memory", contains_text("memory")),
            "updated_from": Filter("from", "updated_at"),
            "updated_to": Filter("to", "updated_at"),
        },
        sorts=("updated_at",),
    )

    async def overwrite(
        self, memories: Iterable[UserMemory], *, updated_at: datetime | None = None
    ) -> list[UserMemory]:
        """Write memories under their ids, whosever the stored ones are; one in one request, or two where it is stored.

        A stored memory keeps its owner, or that it has none, and its ``created_at``; all else is replaced. ``upsert``
        does not change what belongs to another user.

        Args:
            memories: objects made anew; of two with one id the later one stands, under the first one's owner.
            updated_at: what ``updated_at`` becomes where a memory is stored already; None: that of the object.

        Returns:
            What is stored, each id once, in the order in which they were first given.

        Raises:
            BulkWriteError: of several, some are not stored; says which, and why. The others are.
            InvalidRecord, RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        unique: dict[str, UserMemory] = {}
        for memory in memories:
            require(UserMemory, memory, "memories")
            first = unique.get(memory.memory_id)
            kept = {"user_id": first.user_id, "created_at": first.created_at} if first is not None else {}
            unique[memory.memory_id] = memory.model_copy(update={**kept, "version": None})
        changes = [_Overwrite(memory.key, self._expiring(memory), again=updated_at) for memory in unique.values()]
        if len(changes) == 1:
            return [await self._apply(changes[0])]
        result = await self._write_many(changes, lambda change: change, None)
        return [change.result(version or "") for change, version in zip(changes, result.versions, strict=True)]

    async def list(
        self,
        *,
        sort: Sort = "-updated_at",
        limit: int = 20,
        cursor: str | None = None,
        consistency: Consistency | None = None,
        **filters: Unpack[MemoryFilters],
    ) -> Page[UserMemory]:
        """One page of memories, the same on every store.

        Args:
            sort: ``-updated_at`` for the last written first, or ``updated_at``. Equal moments are ordered by memory id.
            limit: how many, 1 to 1,000. The page is full while there is more.
            cursor: go on after the page that carried it, with the same filters and sort.
            consistency: as in ``get``.
            **filters: what to list, see ``MemoryFilters``; all of them must hold.

        Raises:
            InvalidRecord: an argument is unknown or out of its range, or the cursor is of another list.
            QueryNotIndexed, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        return await self._page(self.lists.listing(filters, sort), limit, cursor, consistency)

    async def iterate(
        self,
        *,
        sort: Sort = "-updated_at",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[MemoryFilters],
    ) -> AsyncIterator[UserMemory]:
        """All memories that ``list`` would list, holding one page of ``page_size`` at a time."""
        async for memory in self._iterate(self.lists.listing(filters, sort), page_size, consistency):
            yield memory

    async def count(self, **filters: Unpack[MemoryFilters]) -> int:
        """How many memories ``list`` would list. Arguments and errors are those of ``list``.

        Counted by the store, unless topics or text are given. What has expired and the service has not removed yet may
        be included.
        """
        return await self._count(filters)

    async def topics(self, *, user_id: str | None = None) -> tuple[str, ...]:
        """All topics of memories, each once, in the order of their text. Reads all memories.

        Args:
            user_id: only of this user's memories.
        """
        found: set[str] = set()
        async for memory in self._iterate(self.lists.listing({"user_id": user_id}, "-updated_at"), 500):
            found.update(memory.topics or ())
        return tuple(sorted(found))

    async def stats(self, *, user_id: str | None = None) -> tuple[UserStats, ...]:
        """How many memories each user has, and when the last was written; the user of the last written first.

        Counted by the store where it can, as ``count`` is; memories that belong to nobody are left out.

        Args:
            user_id: only this user.
        """
        return await self._user_stats({"user_id": user_id})

    async def clear(self, *, user_id: str | None = None, progress: Callable[[int], None] | None = None) -> int:
        """Delete all memories, or all of one user.

        Args:
            user_id: only this user's.
            progress: is told after each batch how many are deleted.

        Returns:
            How many were deleted.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. Repeat the call.
            StoreUnavailable: a store of a fan-out did not answer, so that it may have more; the others are deleted.
        """
        query = self.lists.listing({"user_id": user_id}, "updated_at").query
        return await self._clear(query, user_id, progress)
