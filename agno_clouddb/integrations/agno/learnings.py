"""agno's calls about learnings."""

from __future__ import annotations

from typing import Any, Literal

from agno.db.utils import validate_pagination

from agno_clouddb.errors import RecordNotFound
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.columns import cut, in_order
from agno_clouddb.integrations.agno.ids import absent, excluded
from agno_clouddb.integrations.agno.kept import Fitting, as_object, object_alone
from agno_clouddb.integrations.agno.shapes import plain_json, seconds
from agno_clouddb.records.learnings import Learning
from agno_clouddb.repositories.base import MAX_PAGE, Page
from agno_clouddb.repositories.learnings import LearningFilters

__all__ = ["LearningCalls", "learning_row"]

_COLUMNS = (
    "learning_id",
    "learning_type",
    "namespace",
    "user_id",
    "agent_id",
    "team_id",
    "workflow_id",
    "session_id",
    "entity_id",
    "entity_type",
    "content",
    "metadata",
)
_TIMES = ("created_at", "updated_at")
_STEP = 500

_LEARNINGS = Fitting({"content": as_object, "metadata": object_alone})
"""How agno's columns of JSON, which take any, fit into a record."""


class LearningCalls(Family):
    """Learnings. Reads by id are strongly consistent; lists see what an index has, which on DynamoDB may lag behind
    what was written for the first time in the last moments.
    """

    _learning_writes = 0
    """How many were made by this database: the place of a page is not remembered over one."""

    async def get_learning(  # type: ignore[override]  # with workflow_id, as agno's own databases have it
        self,
        learning_type: str,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        session_id: str | None = None,
        namespace: str | None = None,
        entity_id: str | None = None,
        entity_type: str | None = None,
    ) -> dict[str, Any] | None:
        """The content of the learning that matches all that is given; of several, the first created.

        Reads all that match: give what tells one learning from the others.

        Returns:
            A dict with ``content`` alone; None when nothing matches.
        """
        if absent(learning_type):
            return None
        filters = _filters(
            learning_type=learning_type,
            user_id=user_id,
            agent_id=agent_id,
            team_id=team_id,
            workflow_id=workflow_id,
            session_id=session_id,
            namespace=namespace,
            entity_id=entity_id,
            entity_type=entity_type,
        )
        found = await self._all_learnings(filters)
        return _LEARNINGS.given(found[0], ("content",)) if found else None

    async def upsert_learning(
        self,
        id: str,
        learning_type: str,
        content: dict[str, Any],
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        session_id: str | None = None,
        namespace: str | None = None,
        entity_id: str | None = None,
        entity_type: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Write a learning: one request for a new one, two for one that is there.

        Of one that is there, content and metadata are replaced; whom and what it is about stays as it was.
        """
        self._learning_writes += 1
        values = {
            "learning_id": id,
            "learning_type": learning_type,
            "content": plain_json(content),
            "user_id": user_id,
            "agent_id": agent_id,
            "team_id": team_id,
            "session_id": session_id,
            "namespace": namespace,
            "entity_id": entity_id,
            "entity_type": entity_type,
            "metadata": plain_json(metadata),
        }
        await (await self.database()).learnings.overwrite(Learning.checked(**_LEARNINGS.fitted(values)))

    async def delete_learning(self, id: str) -> bool:
        """Delete a learning, in one request.

        Returns:
            Whether it was there.
        """
        if absent(id):
            return False
        self._learning_writes += 1
        return await (await self.database()).learnings.delete(id)

    async def update_learning(self, id: str, content: dict[str, Any], metadata: dict[str, Any] | None = None) -> bool:
        """Replace content and metadata of a learning that is there.

        Returns:
            Whether it is.
        """
        if absent(id):
            return False
        self._learning_writes += 1
        update = {"content": plain_json(content), "metadata": plain_json(metadata)}
        try:
            await (await self.database()).learnings.update(id, lambda learning: _LEARNINGS.changed(learning, update))
        except RecordNotFound:
            return False
        return True

    async def delete_user_learnings(self, user_id: str | None, learning_type: str | None = None) -> int:
        """Delete all learnings about a user, or those of one type.

        Args:
            user_id: the user; None: those about nobody, for which all of the type are read.
            learning_type: only those of this type.

        Returns:
            How many there were.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. Repeat the call.
        """
        if excluded(user_id, learning_type):
            return 0
        self._learning_writes += 1
        learnings = (await self.database()).learnings
        if user_id is None:  # as agno takes it: about nobody, and not about whomever
            every = await self._all_learnings(_filters(learning_type=learning_type))
            return await learnings.delete_many([each.learning_id for each in every if each.user_id is None])
        return await learnings.clear(user_id=user_id, learning_type=learning_type)

    async def get_learnings(  # type: ignore[override]  # with workflow_id, as agno's own databases have it
        self,
        learning_type: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        session_id: str | None = None,
        namespace: str | None = None,
        entity_id: str | None = None,
        entity_type: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The learnings that match all that is given, the last written first; at most ``limit``."""
        filters = _filters(
            learning_type=learning_type,
            user_id=user_id,
            agent_id=agent_id,
            team_id=team_id,
            workflow_id=workflow_id,
            session_id=session_id,
            namespace=namespace,
            entity_id=entity_id,
            entity_type=entity_type,
        )
        return [learning_row(each) for each in await self._learnings_page(filters, limit=limit, page=1)]

    async def search_learnings(
        self,
        query: str,
        learning_type: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        session_id: str | None = None,
        namespace: str | None = None,
        entity_id: str | None = None,
        entity_type: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The learnings with a text in their content, the last written first; at most ``limit``.

        Whatever its case, and with an underscore where the text has a space. No index serves this: what the other
        arguments leave is read until there are enough.
        """
        text = query.strip()
        filters = _filters(
            learning_type=learning_type,
            user_id=user_id,
            agent_id=agent_id,
            team_id=team_id,
            workflow_id=workflow_id,
            session_id=session_id,
            namespace=namespace,
            entity_id=entity_id,
            entity_type=entity_type,
        )
        if filters is None or not text.strip("%_ "):  # which agno takes for no text either
            return []
        filters["text"] = text
        return [learning_row(each) for each in await self._learnings_page(filters, limit=limit, page=1)]

    async def get_learning_by_id(self, id: str) -> dict[str, Any] | None:
        """A learning, in one request; None when it is not there."""
        if absent(id):
            return None
        learning = await (await self.database()).learnings.get(id)
        return None if learning is None else learning_row(learning)

    async def list_learnings(
        self,
        learning_type: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        session_id: str | None = None,
        namespace: str | None = None,
        entity_id: str | None = None,
        entity_type: str | None = None,
        include_global: bool = False,
        limit: int = 100,
        page: int = 1,
        sort_by: str | None = None,
        sort_order: str | None = None,
    ) -> tuple[list[dict[str, Any]], int]:
        """One page of learnings, and how many there are in all.

        By ``updated_at`` a page costs what the list of one page costs, after the page before it was read within a
        minute, and else the reading of all up to it; the total is counted by the store. By any other column all that
        match are read. So are, with ``include_global``, all that match but for the user.

        Args:
            learning_type: only those of this type.
            user_id: only those about this user.
            agent_id: only this agent's.
            team_id: only this team's.
            session_id: only those from this session.
            namespace: only those of this namespace.
            entity_id: only those about this entity.
            entity_type: only those about entities of this type.
            include_global: with a user, those about nobody too.
            limit: how many a page has.
            page: which one, from 1 on.
            sort_by: a column; by default ``updated_at``.
            sort_order: ``asc``; or else the greatest first.
        """
        filters = _filters(
            learning_type=learning_type,
            user_id=None if include_global else user_id,
            agent_id=agent_id,
            team_id=team_id,
            session_id=session_id,
            namespace=namespace,
            entity_id=entity_id,
            entity_type=entity_type,
        )
        if filters is None:
            return [], 0
        ascending = sort_order == "asc"
        either = include_global and user_id is not None
        if not either and (sort_by or "updated_at") == "updated_at":
            total = await (await self.database()).learnings.count(**filters)
            found = await self._learnings_page(filters, limit=limit, page=page, ascending=ascending)
            return [learning_row(each) for each in found], total
        found = [each for each in await self._all_learnings(filters) if not either or each.user_id in (None, user_id)]
        wanted = cut(_sorted(found, sort_by or "updated_at", ascending), limit, page)
        return [learning_row(each) for each in wanted], len(found)

    async def get_learnings_user_stats(
        self,
        learning_type: str | None = None,
        limit: int | None = None,
        page: int | None = None,
        user_id: str | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
    ) -> tuple[list[dict[str, Any]], int]:
        """The users that there are learnings about, with when the last of each was written, and how many users.

        All users are counted by the store, whatever the page.

        Args:
            learning_type: only learnings of this type.
            limit: how many users a page has.
            page: which one, from 1 on.
            user_id: only this user.
            sort_by: ``user_id``; or else ``last_learning_updated_at``.
            sort_order: ``asc``; or else the greatest first.

        Raises:
            ValueError: a page without a limit, or one before the first.
        """
        validate_pagination(limit, page)
        if excluded(user_id, learning_type):
            return [], 0
        stats = await (await self.database()).learnings.stats(user_id=user_id, learning_type=learning_type)
        column = "user_id" if sort_by == "user_id" else "last_updated_at"
        ordered = in_order(stats, lambda each: getattr(each, column), ascending=sort_order == "asc")
        wanted = cut(ordered, limit, page)
        rows = [{"user_id": each.user_id, "last_learning_updated_at": seconds(each.last_updated_at)} for each in wanted]
        return rows, len(stats)

    async def _all_learnings(self, filters: LearningFilters | None) -> list[Learning]:
        """All learnings that match, in the order in which they were created."""
        if filters is None:
            return []
        learnings = (await self.database()).learnings
        found = [each async for each in learnings.iterate(page_size=_STEP, **filters)]
        return in_order(found, lambda each: (each.created_at, each.learning_id), ascending=True)

    async def _learnings_page(
        self, filters: LearningFilters | None, *, limit: int | None, page: int, ascending: bool = False
    ) -> list[Learning]:
        """One page of the learnings that match, by when they were last written."""
        if filters is None:
            return []
        learnings = (await self.database()).learnings

        sort: Literal["updated_at", "-updated_at"] = "updated_at" if ascending else "-updated_at"

        async def listed(size: int, cursor: str | None) -> Page[Learning]:
            return await learnings.list(sort=sort, limit=min(size, MAX_PAGE), cursor=cursor, **filters)

        limit = None if limit is None or limit < 0 else limit  # as SQLite has it
        of = ("learnings", ascending, *sorted(filters.items()), self._learning_writes)
        return await self._bookmarks.page(listed, of=of, limit=limit, page=max(page, 1))


def learning_row(learning: Learning) -> dict[str, Any]:
    """The row of a learning, as agno's own tables have it."""
    return _LEARNINGS.given(learning, _COLUMNS) | {name: seconds(getattr(learning, name)) for name in _TIMES}


def _filters(**given: str | None) -> LearningFilters | None:
    """What is given as filters; None when it is what no learning has."""
    if excluded(*given.values()):
        return None
    filters: LearningFilters = {}
    for name, value in given.items():
        if value is not None:
            filters[name] = value  # type: ignore[literal-required]  # the names are those of the calls
    return filters


def _sorted(learnings: list[Learning], column: str, ascending: bool) -> list[Learning]:
    """Learnings by a column, as SQLite orders their rows; by one that there is not, as they are."""
    if column not in (*_COLUMNS, *_TIMES):
        return learnings
    return in_order(
        learnings,
        lambda each: _LEARNINGS.given(each, (column,))[column],
        ascending=ascending,
        as_json=column in _LEARNINGS.fits,
    )
