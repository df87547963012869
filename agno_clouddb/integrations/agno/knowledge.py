"""agno's calls about contents of knowledge bases."""

from __future__ import annotations

from typing import Any

from agno.db.schemas.knowledge import KnowledgeRow
from agno.db.utils import validate_pagination

from agno_clouddb.errors import ConflictError, InvalidRecord, RecordNotFound
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.columns import cut, in_order, placed
from agno_clouddb.integrations.agno.ids import absent, excluded
from agno_clouddb.integrations.agno.kept import Fitting, indexed, object_alone
from agno_clouddb.integrations.agno.shapes import plain_json, seconds
from agno_clouddb.records.base import plain
from agno_clouddb.records.knowledge import EVERYONE, KnowledgeContent
from agno_clouddb.repositories.base import Page

__all__ = ["CONTENTS", "KnowledgeCalls", "knowledge_record", "knowledge_row"]

_STEP = 500
_ATTEMPTS = 10
_TIMES = ("created_at", "updated_at")
_WRITTEN = ("name", "description", "metadata", "status_message")

CONTENTS = Fitting({**dict.fromkeys(("type", "status", "linked_to"), indexed), "metadata": object_alone})
"""How agno's columns fit into a record: what belongs to a ``Knowledge`` without a name is linked to an empty one."""


class KnowledgeCalls(Family):
    """Contents of knowledge bases. Reads are strongly consistent, unless ``consistency`` is given."""

    async def delete_knowledge_content(self, id: str, user_id: str | None = None) -> None:
        """Delete a content, in one request; with ``user_id`` only when it is this user's."""
        if not absent(id):
            await (await self.database()).knowledge.delete(id, user_id=user_id)

    async def get_knowledge_content(self, id: str, user_id: str | None = None) -> KnowledgeRow | None:
        """A content, in one request; with ``user_id`` only when it is this user's or nobody's."""
        if absent(id):
            return None
        content = await (await self.database()).knowledge.get(id)
        if content is None or (user_id is not None and content.user_id not in (None, user_id)):
            return None
        return knowledge_row(content)

    async def get_knowledge_contents(
        self,
        limit: int | None = None,
        page: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        linked_to: str | None = None,
        user_id: str | None = None,
    ) -> tuple[list[KnowledgeRow], int]:
        """Contents, the first created first unless sorted, and how many there are in all.

        A page by ``created_at``, or without a sort, costs what the list of one page costs, after the page before it was
        read within a minute, and else the reading of all up to it; with ``user_id`` two lists, of what is the user's
        and of what is nobody's. The total is counted by the store where the page does not show it. By any other column
        all that match are read, and for a ``linked_to`` that no index can have, such as an empty one, all others too.

        Args:
            limit: how many; None: all.
            page: which page of so many, from 1 on.
            sort_by: a column. Contents without a value come first.
            sort_order: ``asc``; or else the greatest first.
            linked_to: only contents of this knowledge base; empty: only those of one without a name.
            user_id: only this user's and nobody's.

        Raises:
            ValueError: a page without a limit, or below 1.
            InvalidRecord: there is no such column.
        """
        validate_pagination(limit, page)
        if sort_by is not None and sort_by not in KnowledgeRow.model_fields:
            raise InvalidRecord("sort_by", f"{sort_by!r} is no column of contents", collection="knowledge")
        db = await self.database()
        owned = {"audience": EVERYONE} if excluded(user_id) else {"visible_to": user_id}
        base = indexed(linked_to)
        filters: dict[str, Any] = {"linked_to": base, **owned}
        by_creation = sort_by in (None, "created_at")
        sort: Any = "-created_at" if sort_by == "created_at" and sort_order != "asc" else "created_at"
        if not by_creation or base is not linked_to:
            rows = [knowledge_row(each) async for each in db.knowledge.iterate(sort=sort, page_size=_STEP, **filters)]
            rows = [row for row in rows if linked_to in (None, row.linked_to)]
            rows = rows if by_creation else _sorted(rows, str(sort_by), sort_order)
            return [*cut(rows, limit, page)], len(rows)

        async def listed(size: int, cursor: str | None) -> Page[KnowledgeContent]:
            return await db.knowledge.list(sort=sort, limit=size, cursor=cursor, **filters)

        of = ("knowledge", sort, *filters.items())
        found = await self._bookmarks.page(listed, of=of, limit=limit, page=page)
        if found and (limit is None or len(found) < limit):
            total = (limit or 0) * ((page or 1) - 1) + len(found)
        else:
            total = await db.knowledge.count(**filters)
        return [knowledge_row(each) for each in found], total

    async def upsert_knowledge_content(self, knowledge_row: KnowledgeRow) -> KnowledgeRow:
        """Write a content under its id: a new one in one request. Of a stored one, what the row has is changed.

        Args:
            knowledge_row: what to write; None, in any column, leaves a stored content's value as it is.

        Returns:
            The row that was given.

        Raises:
            ValueError: the row has a user, and the stored content belongs to another one or to nobody.
            ConflictError: others kept writing in between.
        """
        db = await self.database()
        record = knowledge_record(knowledge_row)
        for attempt in range(_ATTEMPTS):
            try:
                await db.knowledge.create(record)
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
            try:
                await db.knowledge.update(record.id, lambda stored: _merged(stored, record), keep_updated_at=True)
            except RecordNotFound:
                continue  # deleted since
            break
        return knowledge_row


def knowledge_record(row: KnowledgeRow) -> KnowledgeContent:
    """The record that keeps a row of agno's."""
    values: dict[str, Any] = {name: plain(value) for name, value in row.model_dump().items()}
    values |= {name: plain_json(values[name]) for name in _WRITTEN}
    for name in _TIMES:
        values[name] = placed(values[name]) if values[name] is not None else None
    return KnowledgeContent.checked(**CONTENTS.fitted(values))


def knowledge_row(content: KnowledgeContent) -> KnowledgeRow:
    """A content as a row of agno's table."""
    values = CONTENTS.given(content, KnowledgeRow.model_fields)
    return KnowledgeRow(**{**values, **{name: seconds(values[name]) for name in _TIMES}})


def _merged(stored: KnowledgeContent, given: KnowledgeContent) -> KnowledgeContent:
    if given.user_id is not None and stored.user_id != given.user_id:
        raise ValueError(f"Knowledge content {given.id} not found")
    row = CONTENTS.given(given, KnowledgeRow.model_fields)
    columns = {name: value for name, value in row.items() if value is not None}
    for name in _TIMES:
        if name in columns and seconds(columns[name]) == seconds(getattr(stored, name)):
            del columns[name]
    return CONTENTS.changed(stored, columns)


def _sorted(rows: list[KnowledgeRow], column: str, order: str | None) -> list[KnowledgeRow]:
    as_json = column == "metadata"
    return in_order(rows, lambda row: getattr(row, column), ascending=order == "asc", as_json=as_json, none_first=True)
