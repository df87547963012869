"""db.learnings: what agents have learned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.learnings import Learning
from agno_clouddb.repositories.base import Page, require
from agno_clouddb.repositories.changes import Upsert
from agno_clouddb.repositories.listing import Filter, Lists, Test
from agno_clouddb.repositories.reads import UserStats
from agno_clouddb.repositories.records import Records
from agno_clouddb.stores.base import Consistency, Refused
from agno_clouddb.stores.schema import LEARNINGS

__all__ = ["LearningFilters", "Learnings"]

Sort = Literal["updated_at", "-updated_at"]


class LearningFilters(TypedDict, total=False):
    """What a list of learnings may be narrowed by; a filter that is None or not given does not narrow."""

    learning_type: str | None
    """Only learnings of this type."""
    namespace: str | None
    """Only learnings of this namespace."""
    user_id: str | None
    """Only learnings about this user."""
    agent_id: str | None
    """Only learnings of this agent."""
    team_id: str | None
    """Only learnings of this team."""
    workflow_id: str | None
    """Only learnings of this workflow."""
    session_id: str | None
    """Only learnings from this session."""
    entity_id: str | None
    """Only learnings about this entity."""
    entity_type: str | None
    """Only learnings about entities of this type."""
    text: str | None
    """Only learnings with this text in their content; see ``search``."""
    updated_from: datetime | None
    """Only learnings last written at this moment or later."""
    updated_to: datetime | None
    """Only learnings last written before this moment."""


def _in_content(name: str, text: Any) -> Test:
    if not isinstance(text, str):
        raise InvalidRecord(name, f"is of type {type(text).__name__}, not text", collection="learnings")
    folded = text.casefold()
    forms = {folded, folded.replace(" ", "_")}
    return lambda learning: any(form in each for each in _texts(learning.content) for form in forms)


def _texts(value: Any) -> Iterator[str]:
    """All texts and names in a JSON value, in lower case."""
    if isinstance(value, str):
        yield value.casefold()
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name.casefold()
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


class _Overwrite(Upsert[Learning]):
    """Write a learning over nothing, or write its content and metadata over that of anybody."""

    def adapt(self, refused: Refused) -> bool:
        adapted = super().adapt(refused)
        if adapted:
            kept = {name: refused.fields.get(name) for name in _DESCRIBED}
            self._record = self.written = self.written.model_copy(update=kept)
        return adapted


_DESCRIBED = tuple(name for name in LEARNINGS.fields if name not in ("created_at", "updated_at"))
"""What says whose a learning is and what it is about."""


class Learnings(Records[Learning]):
    """What agents have learned. Reads are strongly consistent unless the call or the Database says otherwise.

    Lists by ``learning_type``, ``user_id`` or ``entity_id`` are served by an index of their own; without one of these,
    the other filters are applied in the index of all learnings. Text is looked for in what these leave, whatever it
    takes to fill a page.
    """

    lists = Lists(
        Learning,
        filters={
            "learning_type": Filter("equal", "learning_type"),
            "namespace": Filter("equal", "namespace"),
            "user_id": Filter("equal", "user_id"),
            "agent_id": Filter("equal", "agent_id"),
            "team_id": Filter("equal", "team_id"),
            "workflow_id": Filter("equal", "workflow_id"),
            "session_id": Filter("equal", "session_id"),
            "entity_id": Filter("equal", "entity_id"),
            "entity_type": Filter("equal", "entity_type"),
            "updated_from": Filter("from", "updated_at"),
            "updated_to": Filter("to", "updated_at"),
            "text": Filter("test", "content", _in_content),
        },
        sorts=("updated_at",),
    )

    async def overwrite(self, learning: Learning) -> Learning:
        """Write what was learned under its id, whosever the stored learning is.

        A stored learning keeps whom and what it is about: owner, type, namespace, agent, team, workflow, session,
        entity and ``created_at``; content, metadata and all else are replaced. ``upsert`` does not change what belongs
        to another user. One request for a new learning, two for a stored one.

        Args:
            learning: an object made anew.

        Returns:
            What is stored, with its version.

        Raises:
            InvalidRecord, RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        require(Learning, learning, "learning")
        anew = learning.model_copy(update={"version": None})
        return await self._apply(_Overwrite(anew.key, self._expiring(anew)))

    async def list(
        self,
        *,
        sort: Sort = "-updated_at",
        limit: int = 20,
        cursor: str | None = None,
        consistency: Consistency | None = None,
        **filters: Unpack[LearningFilters],
    ) -> Page[Learning]:
        """One page of learnings, the same on every store.

        Args:
            sort: ``-updated_at`` for the last written first, or ``updated_at``. Equal moments are ordered by id.
            limit: how many, 1 to 1,000. The page is full while there is more.
            cursor: go on after the page that carried it, with the same filters and sort.
            consistency: as in ``get``.
            **filters: what to list, see ``LearningFilters``; all of them must hold.

        Raises:
            InvalidRecord: an argument is unknown or out of its range, or the cursor is of another list.
            QueryNotIndexed, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        return await self._page(self.lists.listing(filters, sort), limit, cursor, consistency)

    async def search(
        self,
        text: str,
        /,
        *,
        sort: Sort = "-updated_at",
        limit: int = 20,
        cursor: str | None = None,
        consistency: Consistency | None = None,
        **filters: Unpack[LearningFilters],
    ) -> Page[Learning]:
        """One page of the learnings with a text in their content, in a value or a name at any depth, whatever its case.

        A space in ``text`` matches an underscore too, so that "sarah chen" finds ``sarah_chen``. No index serves this:
        all learnings that the filters leave are read until the page is full, so give one that an index serves.

        Args:
            text: what to look for.
            sort: as in ``list``, as are the other arguments and the errors.
            limit: see ``list``.
            cursor: see ``list``; good for the same text.
            consistency: see ``list``.
            **filters: see ``list``.
        """
        require(str, text, "text")
        return await self._page(self.lists.listing({**filters, "text": text}, sort), limit, cursor, consistency)

    async def iterate(
        self,
        *,
        sort: Sort = "-updated_at",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[LearningFilters],
    ) -> AsyncIterator[Learning]:
        """All learnings that ``list`` would list, holding one page of ``page_size`` at a time."""
        async for record in self._iterate(self.lists.listing(filters, sort), page_size, consistency):
            yield record

    async def count(self, **filters: Unpack[LearningFilters]) -> int:
        """How many learnings ``list`` would list. Arguments and errors are those of ``list``.

        Counted by the store; what has expired and the service has not removed yet may be included.
        """
        return await self._count(filters)

    async def stats(self, *, user_id: str | None = None, learning_type: str | None = None) -> tuple[UserStats, ...]:
        """How many learnings there are about each user, and when the last was written; the last written first.

        Counted by the store where it can, as ``count`` is; learnings about no user are left out.

        Args:
            user_id: only this user.
            learning_type: only learnings of this type.
        """
        return await self._user_stats({"user_id": user_id, "learning_type": learning_type})

    async def clear(
        self,
        *,
        user_id: str | None = None,
        learning_type: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete all learnings, or those of one user or type.

        Args:
            user_id: only those about this user.
            learning_type: only those of this type.
            progress: is told after each batch how many are deleted.

        Returns:
            How many were deleted.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. Repeat the call.
            StoreUnavailable: a store of a fan-out did not answer, so that it may have more; the others are deleted.
        """
        filters = {"user_id": user_id, "learning_type": learning_type}
        return await self._clear(self.lists.listing(filters, "updated_at").query, user_id, progress)
