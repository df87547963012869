"""agno's calls about memories of users."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from agno.db.schemas.memory import UserMemory
from agno.db.utils import validate_pagination

from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.columns import cut, in_order, placed
from agno_clouddb.integrations.agno.ids import absent, excluded, possible
from agno_clouddb.integrations.agno.kept import Fitting, as_text, as_texts
from agno_clouddb.integrations.agno.shapes import moment, now, plain_json, seconds
from agno_clouddb.records import memories as records
from agno_clouddb.repositories.base import Page

__all__ = ["MEMORIES", "MemoryCalls", "memory_record", "memory_row"]

_COLUMNS = (
    "memory_id",
    "memory",
    "input",
    "agent_id",
    "team_id",
    "user_id",
    "topics",
    "feedback",
    "created_at",
    "updated_at",
)
_JSON = ("memory", "topics")
_TEXTS = ("input", "feedback")
_STEP = 500

MEMORIES = Fitting({"memory": as_text, "topics": as_texts})
"""How agno's columns of JSON, which take any, fit into a record."""


class MemoryCalls(Family):
    """Memories of users. Reads are strongly consistent, unless ``consistency`` is given."""

    async def delete_user_memory(self, memory_id: str, user_id: str | None = None) -> None:
        """Delete a memory, in one request; with ``user_id`` only when it is this user's."""
        if not absent(memory_id):
            await (await self.database()).memories.delete(memory_id, user_id=user_id)

    async def delete_user_memories(self, memory_ids: list[str], user_id: str | None = None) -> None:
        """Delete memories, several at once; with ``user_id`` only this user's.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. The others are.
        """
        await (await self.database()).memories.delete_many(possible(memory_ids), user_id=user_id)

    async def get_all_memory_topics(self, user_id: str | None = None) -> list[str]:
        """All topics, each once, in the order of their text. Reads all memories, or all of one user."""
        if excluded(user_id):
            return []
        found: set[str] = set()
        async for memory in (await self.database()).memories.iterate(user_id=user_id, page_size=_STEP):
            found.update(_listed(memory_row(memory)["topics"]))
        return sorted(found, key=str)

    async def get_user_memory(
        self, memory_id: str, deserialize: bool | None = True, user_id: str | None = None
    ) -> UserMemory | dict[str, Any] | None:
        """A memory, in one request; with ``user_id`` only when it is this user's.

        Args:
            memory_id: which memory.
            deserialize: a memory object; or else its row, a dict.
            user_id: only when it belongs to this user.
        """
        if absent(memory_id):
            return None
        memory = await (await self.database()).memories.get(memory_id, user_id=user_id)
        return None if memory is None else _shaped(memory_row(memory), deserialize)

    async def get_user_memories(
        self,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        topics: list[str] | None = None,
        search_content: str | None = None,
        limit: int | None = None,
        page: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        deserialize: bool | None = True,
    ) -> list[UserMemory] | tuple[list[dict[str, Any]], int]:
        """Memories, the first created first unless sorted.

        A page by ``updated_at`` costs what the list of one page costs, after the page before it was read within a
        minute, and else the reading of all up to it; the total is counted by the store where the page does not show it.
        In any other order, or without one, all that match are read. For ``topics`` and ``search_content`` the memories
        that the other filters leave are read, for a total all of them.

        Args:
            user_id: only this user's.
            agent_id: only memories of this agent.
            team_id: only memories of this team.
            topics: only those that have all of these topics, whatever their case.
            search_content: only those that contain this text, whatever its case; those that are no text, in JSON.
            limit: how many; None: all.
            page: which page of so many, from 1 on.
            sort_by: a column; an unknown one sorts nothing.
            sort_order: ``asc``; or else the greatest first.
            deserialize: memory objects; or else a tuple of rows and how many there are in all.

        Raises:
            ValueError: a page without a limit, or below 1.
        """
        validate_pagination(limit, page)
        if excluded(user_id, agent_id, team_id):
            return [] if deserialize else ([], 0)
        db = await self.database()
        filters: dict[str, Any] = {
            "user_id": user_id,
            "agent_id": agent_id,
            "team_id": team_id,
            "topics": tuple(topics) if topics else None,
            "text": search_content or None,
        }
        total: int | None = None
        if sort_by == "updated_at":

            async def listed(size: int, cursor: str | None) -> Page[records.UserMemory]:
                sort: Any = "updated_at" if sort_order == "asc" else "-updated_at"
                return await db.memories.list(sort=sort, limit=size, cursor=cursor, **filters)

            of = ("memories", sort_order == "asc", *filters.values())
            rows = [memory_row(each) for each in await self._bookmarks.page(listed, of=of, limit=limit, page=page)]
        else:
            every = [each async for each in db.memories.iterate(sort="updated_at", page_size=_STEP, **filters)]
            total = len(every)
            rows = [*cut(_sorted(every, sort_by, sort_order), limit, page)]
        if deserialize:
            return [UserMemory.from_dict(row) for row in rows]
        if not rows:
            return [], 0
        if total is None and (limit is None or len(rows) < limit):
            total = (limit or 0) * ((page or 1) - 1) + len(rows)
        return rows, await db.memories.count(**filters) if total is None else total

    async def get_user_memory_stats(
        self, limit: int | None = None, page: int | None = None, user_id: str | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """How many memories each user has, and when the last was written; the user of the last written first.

        Counted by the store where it can, for all users whatever the page.

        Args:
            limit: how many users; None: all.
            page: which page of so many, from 1 on.
            user_id: only this user.

        Returns:
            Rows, and how many users there are in all; 0 for a page past the end.
        """
        validate_pagination(limit, page)
        if excluded(user_id):
            return [], 0
        stats = await (await self.database()).memories.stats(user_id=user_id)
        rows = [
            {
                "user_id": each.user_id,
                "total_memories": each.count,
                "last_memory_updated_at": seconds(each.last_updated_at),
            }
            for each in cut(stats, limit, page)
        ]
        return rows, len(stats) if rows else 0

    async def upsert_user_memory(
        self, memory: UserMemory, deserialize: bool | None = True
    ) -> UserMemory | dict[str, Any] | None:
        """Write a memory under its id, whosever it is: in one request, or two where it is stored.

        A stored memory keeps its user and ``created_at``; a new one was updated when it was created.

        Args:
            memory: what to write; gets an id when it has none.
            deserialize: what is stored is returned as a memory object; or else as its row, a dict.
        """
        written = await self._overwrite([memory_record(memory)])
        return _shaped(written[0], deserialize)

    async def upsert_memories(
        self, memories: list[UserMemory], deserialize: bool | None = True, preserve_updated_at: bool = False
    ) -> list[UserMemory | dict[str, Any]]:
        """Write memories as ``upsert_user_memory`` does, in batches several of which are under way at once.

        Args:
            memories: what to write, without what is None; of two with one id the later one stands.
            deserialize: what is stored is returned as memory objects; or else as rows.
            preserve_updated_at: they were updated when they say; else now.

        Returns:
            What is stored, in the order of the ids.

        Raises:
            BulkWriteError: some are not stored; says which, and why. The others are.
        """
        given = [memory for memory in memories if memory is not None]
        written = [memory_record(memory) for memory in given]
        for memory, record in zip(given, written, strict=True):
            if not preserve_updated_at:
                record.updated_at = placed(now())
            elif memory.updated_at is not None:
                record.updated_at = moment(memory.updated_at)
        rows = await self._overwrite(written, touch=not preserve_updated_at) if written else []
        return [_shaped(row, deserialize) for row in sorted(rows, key=lambda row: str(row["memory_id"]))]

    async def clear_memories(self) -> None:
        """Delete all memories of all users.

        Raises:
            BulkWriteError: some could not be deleted. Repeat the call.
            StoreUnavailable: a store of a fan-out did not answer, so that it may have more; the others are deleted.
        """
        await (await self.database()).memories.clear()

    async def _overwrite(self, written: list[records.UserMemory], touch: bool = True) -> list[dict[str, Any]]:
        db = await self.database()
        stored = await db.memories.overwrite(written, updated_at=placed(now()) if touch else None)
        return [memory_row(each) for each in stored]


def memory_record(memory: UserMemory) -> records.UserMemory:
    """The record that keeps a memory of agno's, which gets an id when it has none."""
    if memory.memory_id is None:
        memory.memory_id = str(uuid4())
    created = placed(memory.created_at if memory.created_at is not None else now())
    values = {name: getattr(memory, name) for name in _COLUMNS}
    values |= {name: plain_json(values[name]) for name in (*_JSON, *_TEXTS)}
    values |= {"created_at": created, "updated_at": created}
    return records.UserMemory.checked(**MEMORIES.fitted(values))


def memory_row(memory: records.UserMemory) -> dict[str, Any]:
    """A memory as a row of agno's table."""
    row = MEMORIES.given(memory, _COLUMNS)
    return row | {"created_at": seconds(memory.created_at), "updated_at": seconds(memory.updated_at)}


def _shaped(row: Mapping[str, Any], deserialize: bool | None) -> UserMemory | dict[str, Any]:
    return UserMemory.from_dict(dict(row)) if deserialize else dict(row)


def _sorted(memories: list[records.UserMemory], column: str | None, order: str | None) -> list[dict[str, Any]]:
    """All memories as rows, the first created first, or by a column."""
    memories.sort(key=lambda memory: (memory.created_at, memory.memory_id))
    rows = [memory_row(memory) for memory in memories]
    if column not in _COLUMNS:
        return rows
    return in_order(rows, lambda row: row[column], ascending=order == "asc", as_json=column in _JSON)


def _listed(topics: Any) -> list[Any]:
    """The topics of one memory that count as a list: those of a list, also of one that is written as text."""
    if isinstance(topics, str):
        try:
            topics = json.loads(topics)
        except ValueError:
            return []
    return [each for each in topics if not isinstance(each, dict | list)] if isinstance(topics, list) else []
