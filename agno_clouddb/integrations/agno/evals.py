"""agno's calls about evaluation runs."""

from __future__ import annotations

from typing import Any

from agno.db.schemas.evals import EvalFilterType, EvalRunRecord, EvalType
from agno.db.utils import validate_pagination

from agno_clouddb.errors import RecordNotFound
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.columns import cut, in_order, placed
from agno_clouddb.integrations.agno.ids import absent, excluded, possible
from agno_clouddb.integrations.agno.shapes import now, plain_json, seconds
from agno_clouddb.records.base import plain
from agno_clouddb.records.evals import EvalRun
from agno_clouddb.repositories.base import Page

__all__ = ["EvalCalls", "eval_record", "eval_row"]

_COLUMNS = (
    "run_id",
    "eval_type",
    "eval_data",
    "eval_input",
    "name",
    "agent_id",
    "team_id",
    "workflow_id",
    "model_id",
    "model_provider",
    "evaluated_component_name",
    "user_id",
    "created_at",
    "updated_at",
)
_JSON = ("eval_data", "eval_input")
_TIMES = ("created_at", "updated_at")
_STEP = 500


class EvalCalls(Family):
    """Evaluation runs. Reads are strongly consistent, unless ``consistency`` is given."""

    async def create_eval_run(self, eval_run: EvalRunRecord) -> EvalRunRecord:
        """Write a new run, in one request, and return it as it was given.

        Raises:
            ConflictError: there is a run of this id.
        """
        await (await self.database()).evals.create(eval_record(eval_run))
        return eval_run

    async def delete_eval_run(self, eval_run_id: str) -> None:
        """Delete a run, in one request."""
        if not absent(eval_run_id):
            await (await self.database()).evals.delete(eval_run_id)

    async def delete_eval_runs(self, eval_run_ids: list[str], user_id: str | None = None) -> None:
        """Delete runs, several at once; with ``user_id`` only this user's.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. The others are.
        """
        await (await self.database()).evals.delete_many(possible(eval_run_ids), user_id=user_id)

    async def get_eval_run(
        self, eval_run_id: str, deserialize: bool | None = True, user_id: str | None = None
    ) -> EvalRunRecord | dict[str, Any] | None:
        """A run, in one request; with ``user_id`` only when it is this user's.

        Args:
            eval_run_id: which run.
            deserialize: a run object; or else its row, a dict.
            user_id: only when it belongs to this user.
        """
        if absent(eval_run_id):
            return None
        run = await (await self.database()).evals.get(eval_run_id, user_id=user_id)
        return None if run is None else _shaped(eval_row(run), deserialize)

    async def get_eval_run_raw(self, eval_run_id: str) -> dict[str, Any] | None:
        """The row of a run, whosever it is, in one request; None when there is none."""
        if absent(eval_run_id):
            return None
        run = await (await self.database()).evals.get(eval_run_id)
        return None if run is None else eval_row(run)

    async def get_eval_runs(
        self,
        limit: int | None = None,
        page: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        model_id: str | None = None,
        filter_type: EvalFilterType | None = None,
        eval_type: list[EvalType] | None = None,
        deserialize: bool | None = True,
        user_id: str | None = None,
    ) -> list[EvalRunRecord] | tuple[list[dict[str, Any]], int]:
        """Runs, the last created first unless sorted.

        A page by ``created_at`` costs what the list of one page costs, after the page before it was read within a
        minute, and else the reading of all up to it; the total is counted by the store where the page does not show it.
        By any other column all that match are read. For ``filter_type`` the runs that the other filters leave are read,
        for a total all of them.

        Args:
            limit: how many; None: all.
            page: which page of so many, from 1 on.
            sort_by: a column; by an unknown one the first created comes first.
            sort_order: ``asc``; or else the greatest first.
            agent_id: only evaluations of this agent.
            team_id: only evaluations of this team.
            workflow_id: only evaluations of this workflow.
            model_id: only evaluations with this model.
            filter_type: only evaluations of agents, teams or workflows.
            eval_type: only evaluations of one of these types.
            deserialize: run objects; or else a tuple of rows and how many there are in all.
            user_id: only this user's.

        Raises:
            ValueError: a page without a limit, or below 1.
        """
        validate_pagination(limit, page)
        if excluded(user_id, agent_id, team_id, workflow_id, model_id):
            return [] if deserialize else ([], 0)
        db = await self.database()
        filters: dict[str, Any] = {
            "user_id": user_id,
            "agent_id": agent_id,
            "team_id": team_id,
            "workflow_id": workflow_id,
            "model_id": model_id,
            "eval_type": tuple(plain(each) for each in eval_type) if eval_type else None,
            "component_type": plain(filter_type) if filter_type in set(EvalFilterType) else None,
        }
        total: int | None = None
        if sort_by is not None and sort_by in _COLUMNS and sort_by != "created_at":
            every = [each async for each in db.evals.iterate(sort="created_at", page_size=_STEP, **filters)]
            total = len(every)
            rows = [*cut(_sorted([eval_row(run) for run in every], sort_by, sort_order), limit, page)]
        else:
            latest_first = sort_by is None or (sort_by == "created_at" and sort_order != "asc")

            async def listed(size: int, cursor: str | None) -> Page[EvalRun]:
                sort: Any = "-created_at" if latest_first else "created_at"
                return await db.evals.list(sort=sort, limit=size, cursor=cursor, **filters)

            of = ("evals", latest_first, *filters.values())
            rows = [eval_row(run) for run in await self._bookmarks.page(listed, of=of, limit=limit, page=page)]
        if deserialize:
            return [EvalRunRecord.model_validate(row) for row in rows]
        if not rows:
            return [], 0
        if total is None and (limit is None or len(rows) < limit):
            total = (limit or 0) * ((page or 1) - 1) + len(rows)
        return rows, await db.evals.count(**filters) if total is None else total

    async def rename_eval_run(
        self, eval_run_id: str, name: str | None, deserialize: bool | None = True, user_id: str | None = None
    ) -> EvalRunRecord | dict[str, Any] | None:
        """Set the name of a run, in two requests; None when there is no such run, or not this user's.

        Args:
            eval_run_id: which run.
            name: the new name; None: it has none any more.
            deserialize: what is stored is returned as a run object; or else as its row, a dict.
            user_id: only when it belongs to this user.
        """
        if absent(eval_run_id) or excluded(user_id):
            return None
        try:
            run = await (await self.database()).evals.rename(eval_run_id, name, user_id=user_id)
        except RecordNotFound:  # or NotOwner, which is one
            return None
        return _shaped(eval_row(run), deserialize)

    async def update_eval_run_user_id(self, eval_run_id: str, user_id: str) -> None:
        """Make a run a user's, whosever it is, in two requests; nothing when there is no such run."""
        if absent(eval_run_id):
            return
        try:
            await (await self.database()).evals.assign(eval_run_id, user_id)
        except RecordNotFound:
            return


def eval_record(run: EvalRunRecord) -> EvalRun:
    """The record that keeps a run of agno's, created and updated now unless it says when."""
    values = {"created_at": now(), "updated_at": now(), **run.model_dump()}
    values = {name: plain(value) for name, value in values.items()}
    values |= {name: plain_json(values[name]) for name in _JSON}
    values |= {name: placed(values[name]) for name in _TIMES}
    return EvalRun.checked(**values)


def eval_row(run: EvalRun) -> dict[str, Any]:
    """A run as a row of agno's table."""
    row: dict[str, Any] = {name: getattr(run, name) for name in _COLUMNS}
    return row | {name: seconds(row[name]) for name in _TIMES}


def _shaped(row: dict[str, Any], deserialize: bool | None) -> EvalRunRecord | dict[str, Any]:
    return EvalRunRecord.model_validate(row) if deserialize else row


def _sorted(rows: list[dict[str, Any]], column: str, order: str | None) -> list[dict[str, Any]]:
    return in_order(rows, lambda row: row[column], ascending=order == "asc", as_json=column in _JSON)
