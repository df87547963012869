"""Runs of schedules."""

from __future__ import annotations

from functools import partial
from typing import Any

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import ConflictError, RecordNotFound
from agno_clouddb.integrations.agno.entry_lists import EntryLists
from agno_clouddb.integrations.agno.ids import excluded
from agno_clouddb.integrations.agno.schedule_rows import SCHEDULE_RUNS, SCHEDULES, changed, run_entry, run_filters
from agno_clouddb.integrations.agno.taken import taken
from agno_clouddb.records.entries import Entry
from agno_clouddb.stores.base import Key

__all__ = ["ScheduleRunCalls"]

_AT_ONCE = 16


class ScheduleRunCalls(EntryLists):
    """Calls about runs of schedules."""

    async def create_schedule_run(self, run_data: dict[str, Any]) -> dict[str, Any]:
        """Write a run that is not there yet, of a schedule that is there: one read and one write.

        Returns:
            What was given.

        Raises:
            ConflictError: there is a run of this id; SQLAlchemy's ``IntegrityError`` too where that is installed.
            RecordNotFound: there is no such schedule.
            InvalidRecord: a column that is required is missing.
        """
        entry = run_entry(SCHEDULE_RUNS.row(run_data))
        entries = await self._entries()
        self._entry_writes += 1
        schedule = SCHEDULES.id(run_data["schedule_id"])
        if await entries.get(schedule, consistency="strong") is None:
            raise RecordNotFound("there is no such schedule", key=Key("entries", schedule))
        try:
            await entries.create(entry)
        except ConflictError as error:
            raise taken(error, "there is a run of a schedule of this id already") from error
        return run_data

    async def update_schedule_run(self, schedule_run_id: str, **kwargs: Any) -> dict[str, Any] | None:
        """Change columns of a run.

        Returns:
            The run; None when there is none of this id, or nothing to change.

        Raises:
            InvalidRecord: a column that is required would be None, or the id would change.
        """
        if not kwargs or not SCHEDULE_RUNS.has(schedule_run_id):
            return None
        self._entry_writes += 1
        try:
            stored = await (await self._entries()).update(
                SCHEDULE_RUNS.id(schedule_run_id), lambda entry: changed(entry, kwargs)
            )
        except RecordNotFound:
            return None
        return dict(stored.data)

    async def get_schedule_run(self, run_id: str, user_id: str | None = None) -> dict[str, Any] | None:
        """A run; None when there is none of this id, or it is not this user's. One strongly consistent read."""
        if not SCHEDULE_RUNS.has(run_id):
            return None
        entry = await (await self._entries()).get(SCHEDULE_RUNS.id(run_id))
        return None if entry is None or user_id not in (None, entry.data["user_id"]) else dict(entry.data)

    async def get_latest_schedule_runs(self, schedule_ids: list[str]) -> dict[str, dict[str, Any]]:
        """The run of each schedule that was triggered last, by schedule: one list of one record for each of them."""
        entries = await self._entries()

        async def latest(schedule_id: str) -> list[Entry]:
            filters = run_filters(schedule_id, None)
            return [] if excluded(*filters.values()) else (await entries.list(sort="-due", limit=1, **filters)).items

        pages = await gather([partial(latest, each) for each in dict.fromkeys(schedule_ids)], limit=_AT_ONCE)
        return {entry.data["schedule_id"]: dict(entry.data) for page in pages for entry in page}

    async def get_schedule_runs(
        self, schedule_id: str, limit: int = 20, page: int = 1, user_id: str | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """The runs of a schedule, the last created first, and how many there are in all, as the store counts them."""
        filters = run_filters(schedule_id, user_id)
        if excluded(*filters.values()):
            return [], 0
        total = await (await self._entries()).count(**filters)
        return [dict(each.data) for each in await self._entry_page(limit, page, **filters)], total

    async def delete_schedule_runs(self, schedule_id: str, *, before: int) -> int:
        """Delete the runs of a schedule that were completed before a second since the epoch. Reads all its runs.

        Returns:
            How many there were.
        """
        return await self._delete_runs(schedule_id, None, before)

    async def _delete_runs(self, schedule_id: str, user_id: str | None, before: int | None = None) -> int:
        filters = run_filters(schedule_id, user_id)
        if excluded(*filters.values()):
            return 0
        entries = await self._entries()
        self._entry_writes += 1
        runs = entries.iterate(sort="created_at", page_size=500, consistency="strong", **filters)
        ids = [each.id async for each in runs if before is None or _completed(each) < before]
        return await entries.delete_many(ids)


def _completed(entry: Entry) -> float:
    completed = entry.data["completed_at"]
    return float("inf") if completed is None else float(completed)
