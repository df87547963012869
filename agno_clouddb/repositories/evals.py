"""db.evals: results of evaluations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.evals import EvalRun
from agno_clouddb.repositories.base import Page
from agno_clouddb.repositories.listing import Filter, Lists, Test
from agno_clouddb.repositories.records import Records
from agno_clouddb.stores.base import Consistency

__all__ = ["EvalFilters", "Evals"]

Sort = Literal["created_at", "-created_at"]

_COMPONENTS = ("agent", "team", "workflow")


class EvalFilters(TypedDict, total=False):
    """What a list of evaluation runs may be narrowed by; a filter that is None or not given does not narrow."""

    user_id: str | None
    """Only this user's runs."""
    agent_id: str | None
    """Only evaluations of this agent."""
    team_id: str | None
    """Only evaluations of this team."""
    workflow_id: str | None
    """Only evaluations of this workflow."""
    model_id: str | None
    """Only evaluations with this model."""
    eval_type: str | Sequence[str] | set[str] | frozenset[str] | None
    """Only evaluations of this type, or of one of these types."""
    component_type: Literal["agent", "team", "workflow"] | None
    """Only evaluations of an agent, of a team or of a workflow, whichever it is."""
    created_from: datetime | None
    """Only runs created at this moment or later."""
    created_to: datetime | None
    """Only runs created before this moment."""


def _of_a_component(name: str, value: Any) -> Test:
    if value not in _COMPONENTS:
        raise InvalidRecord(name, f"is {value!r}, not one of {', '.join(_COMPONENTS)}", collection="evals")
    return lambda run: getattr(run, f"{value}_id") is not None


class Evals(Records[EvalRun]):
    """Results of evaluations. Reads are strongly consistent unless the call or the Database says otherwise.

    The filter by ``component_type`` is applied to the runs that the others leave, whatever it takes to fill a page.
    """

    lists = Lists(
        EvalRun,
        filters={
            "user_id": Filter("equal", "user_id"),
            "agent_id": Filter("equal", "agent_id"),
            "team_id": Filter("equal", "team_id"),
            "workflow_id": Filter("equal", "workflow_id"),
            "model_id": Filter("equal", "model_id"),
            "eval_type": Filter("any", "eval_type"),
            "component_type": Filter("test", "component_type", _of_a_component),
            "created_from": Filter("from", "created_at"),
            "created_to": Filter("to", "created_at"),
        },
        sorts=("created_at",),
    )

    async def create(
        self,
        record: EvalRun,
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> EvalRun:
        """Write an evaluation run that is not stored yet, in one request.

        Args:
            record: what to write.
            user_id: the owner; by default the record's own.
            expires_in: as in ``upsert``.
            expires_at: as in ``upsert``.

        Returns:
            What is stored, with its version.

        Raises:
            ConflictError: there is a run of this id.
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
        **filters: Unpack[EvalFilters],
    ) -> Page[EvalRun]:
        """One page of evaluation runs, the same on every store.

        Args:
            sort: ``-created_at`` for the latest first, or ``created_at``. Equal moments are ordered by run id.
            limit: how many, 1 to 1,000. The page is full while there is more.
            cursor: go on after the page that carried it, with the same filters and sort.
            consistency: as in ``get``.
            **filters: what to list, see ``EvalFilters``; all of them must hold.

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
        **filters: Unpack[EvalFilters],
    ) -> AsyncIterator[EvalRun]:
        """All evaluation runs that ``list`` would list, holding one page of ``page_size`` at a time."""
        async for record in self._iterate(self.lists.listing(filters, sort), page_size, consistency):
            yield record

    async def count(self, **filters: Unpack[EvalFilters]) -> int:
        """How many evaluation runs ``list`` would list. Arguments and errors are those of ``list``.

        Counted by the store, unless ``component_type`` is given. What has expired and the service has not removed yet
        may be included.
        """
        return await self._count(filters)

    async def rename(self, id: str, name: str | None, *, user_id: str | None = None) -> EvalRun:
        """Set the name of an evaluation run; None takes it away. Results and errors are those of ``update``."""
        if name is not None and not isinstance(name, str):
            raise InvalidRecord("name", f"is of type {type(name).__name__}, not text", collection="evals")
        return await self.update(id, lambda run: run.model_copy(update={"name": name}), user_id=user_id)

    async def assign(self, id: str, user_id: str) -> EvalRun:
        """Make an evaluation run a user's, whosever it is. ``updated_at`` stays as it is.

        Results and errors are those of ``update``.
        """
        return await self.update(id, lambda run: run.model_copy(update={"user_id": user_id}), keep_updated_at=True)
