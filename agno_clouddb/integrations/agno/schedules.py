"""Schedules: what is to be run when, and which worker runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agno.db.schemas.scheduler import build_run_endpoint, validate_schedule_update

from agno_clouddb.database import Database
from agno_clouddb.errors import ConflictError, RecordNotFound
from agno_clouddb.integrations.agno.ids import excluded
from agno_clouddb.integrations.agno.schedule_rows import (
    SCHEDULES,
    changed,
    due_text,
    name_id,
    reservation,
    schedule_entry,
    schedule_filters,
)
from agno_clouddb.integrations.agno.schedule_runs import ScheduleRunCalls
from agno_clouddb.integrations.agno.shapes import now
from agno_clouddb.integrations.agno.taken import repeated, taken
from agno_clouddb.records.entries import Entry

__all__ = ["ScheduleCalls"]

_CLAIM_PAGE = 10
_PROVENANCE = frozenset(
    {
        "managed_by",
        "target_type",
        "target_id",
        "created_by_run_id",
        "created_by_session_id",
        "updated_by_run_id",
        "updated_by_session_id",
    }
)


class _Abandoned(Exception):
    """The schedule is not, or no longer, as the change needs it."""


class ScheduleCalls(ScheduleRunCalls):
    """Calls about schedules and their runs."""

    async def get_schedule(self, schedule_id: str, user_id: str | None = None) -> dict[str, Any] | None:
        """A schedule; None when there is none of this id, or it is not this user's. One strongly consistent read."""
        if not SCHEDULES.has(schedule_id):
            return None
        entry = await (await self._entries()).get(SCHEDULES.id(schedule_id))
        return None if entry is None or not _is_of(entry, user_id) else dict(entry.data)

    async def get_schedule_by_name(self, name: str, user_id: str | None = None) -> dict[str, Any] | None:
        """The schedule of this name of a user, or of nobody; None when there is none. Two strongly consistent reads."""
        entries = await self._entries()
        place = name_id(user_id, name)
        reserved = await entries.get(place)
        entry = None if reserved is None else await entries.get(SCHEDULES.id(reserved.data["schedule_id"]))
        return None if entry is None or _name_id(entry) != place else dict(entry.data)

    async def get_schedules(
        self,
        enabled: bool | None = None,
        limit: int = 100,
        page: int = 1,
        user_id: str | None = None,
        raise_on_error: bool = False,
    ) -> tuple[list[dict[str, Any]], int]:
        """Schedules, the last created first, and how many there are in all, as the store counts them.

        A store that fails raises its error whatever ``raise_on_error`` says.
        """
        filters = schedule_filters(enabled, user_id)
        if excluded(*filters.values()):
            return [], 0
        total = await (await self._entries()).count(**filters)
        return [dict(each.data) for each in await self._entry_page(limit, page, **filters)], total

    async def create_schedule(self, schedule_data: dict[str, Any]) -> dict[str, Any]:
        """Write a schedule that is not there yet, together with the reservation of its name: one transaction.

        Args:
            schedule_data: its columns.

        Returns:
            What was given.

        Raises:
            ConflictError: there is a schedule of this id, or of this name and user; SQLAlchemy's ``IntegrityError``
                too where that is installed.
            InvalidRecord: a column that is required is missing.
        """
        row = SCHEDULES.row(schedule_data)
        entry, reserved = schedule_entry(row), reservation(row)
        db = await self.database()
        self._entry_writes += 1
        stale: Entry | None = None

        async def create() -> None:
            nonlocal stale
            try:
                async with db.transaction() as tx:
                    tx.create(entry)
                    if stale is None:
                        tx.create(reserved)
                    else:
                        tx.upsert(reserved, expected_version=stale.version)
            except ConflictError as error:
                if error.key == entry.key:
                    raise taken(error, "there is a schedule of this id already") from error
                stale = await _unused(db, reserved, error)
                raise

        await repeated(create)
        return schedule_data

    async def update_schedule(
        self, schedule_id: str, user_id: str | None = None, **kwargs: Any
    ) -> dict[str, Any] | None:
        """Change columns of a schedule; a new name is reserved in the same transaction.

        Args:
            schedule_id: which one.
            user_id: only when it is this user's.
            **kwargs: the columns that may be changed. ``updated_at`` is now, and enabling it takes ``disabled_reason``
                away.

        Returns:
            The schedule; None when it is not there, or not this user's.

        Raises:
            ValueError: one of the columns may not be changed.
            ConflictError: the user has another schedule of this name.
            InvalidRecord: a column that is required would be None.
        """
        validate_schedule_update(kwargs)
        if kwargs.get("enabled") is True:
            kwargs.setdefault("disabled_reason", None)
        changes = {**kwargs, "updated_at": now()}
        if kwargs.get("name") is not None:
            return await self._rename(schedule_id, user_id, changes)
        return await self._change(schedule_id, lambda row: changes if user_id in (None, row["user_id"]) else None)

    async def delete_schedule(self, schedule_id: str, user_id: str | None = None) -> bool:
        """Delete a schedule, its runs and the reservation of its name.

        Of a schedule that is not this user's, the runs that are the user's are deleted, and it is not.

        Returns:
            Whether it was there, and this user's.
        """
        if not SCHEDULES.has(schedule_id):
            return False
        db = await self.database()
        self._entry_writes += 1
        entry = await db.entries.get(SCHEDULES.id(schedule_id), consistency="strong")
        owned = entry is not None and _is_of(entry, user_id)
        # Before the schedule, so that a call that has failed on its way can be repeated.
        await self._delete_runs(schedule_id, None if owned else user_id)
        return owned and await repeated(lambda: _delete(db, schedule_id, user_id))

    async def disable_schedules_for_target(self, target_type: str, target_id: str, reason: str | None = None) -> int:
        """Disable every enabled schedule aimed at one agent, team or workflow, of all users.

        Reads all schedules that are enabled.

        Args:
            target_type: ``agent``, ``team`` or ``workflow``.
            target_id: which one.
            reason: what becomes their ``disabled_reason``.

        Returns:
            How many were enabled before.
        """
        endpoint = build_run_endpoint(target_type, target_id)
        target = (target_type, target_id)
        changes = {"enabled": False, "disabled_reason": reason, "updated_at": now()}

        def disabled(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
            aimed = (row["target_type"], row["target_id"]) == target or row["endpoint"] in (endpoint, f"{endpoint}/")
            return changes if row["enabled"] and aimed else None

        entries = await self._entries()
        filters = schedule_filters(True, None)
        enabled = entries.iterate(sort="created_at", page_size=500, consistency="strong", **filters)
        aimed = [each.data["id"] async for each in enabled if disabled(each.data) is not None]
        return sum([await self._change(each, disabled) is not None for each in aimed])

    async def stamp_schedule_provenance(self, schedule_id: str, **provenance: Any) -> bool:
        """Note who manages a schedule, what it is aimed at, and what has written it.

        Returns:
            Whether it is there.

        Raises:
            ValueError: one of the columns is not of these.
        """
        if rejected := sorted(set(provenance) - _PROVENANCE):
            raise ValueError(f"stamp_schedule_provenance cannot write {rejected}")
        changes = {"updated_at": now(), **provenance}
        return await self._change(schedule_id, lambda row: changes) is not None

    async def claim_due_schedule(self, worker_id: str, lock_grace_seconds: int = 300) -> dict[str, Any] | None:
        """Claim the schedule that is due for longest, and which no worker has claimed; for one worker alone.

        Costs one list of what is due, and for each attempt to claim one read and one conditional write. A schedule that
        another worker claims first is left to it, and the next one is tried. On DynamoDB one that became due in the
        last moments may be left to the next call.

        Args:
            worker_id: what becomes its ``locked_by``.
            lock_grace_seconds: how old a claim is when it no longer counts, in seconds.

        Returns:
            The schedule as it is claimed; None when nothing is due.
        """
        moment = now()

        def claimed(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
            due = row["enabled"] and row["next_run_at"] is not None and row["next_run_at"] <= moment
            free = row["locked_by"] is None or (
                row["locked_at"] is not None and row["locked_at"] <= moment - lock_grace_seconds
            )
            return {"locked_by": worker_id, "locked_at": moment} if due and free else None

        entries = await self._entries()
        due = entries.iterate(kind=SCHEDULES.kind, due_to=due_text(moment + 1), sort="due", page_size=_CLAIM_PAGE)
        async for entry in due:
            if claimed(entry.data) is not None:
                schedule = await self._change(entry.data["id"], claimed)
                if schedule is not None:
                    return schedule
        return None

    async def release_schedule(
        self,
        schedule_id: str,
        next_run_at: int | None = None,
        *,
        worker_id: str | None = None,
        locked_at: int | None = None,
    ) -> bool:
        """Give a claim up.

        Args:
            schedule_id: which schedule.
            next_run_at: when it is due again, in seconds since the epoch; None: as before. One without a cron
                expression is never due.
            worker_id: only while this worker has claimed it.
            locked_at: only while it is the claim of this second.

        Returns:
            Whether it was there, and claimed so.
        """
        moment = now()

        def released(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
            if worker_id is not None and row["locked_by"] != worker_id:
                return None
            if locked_at is not None and row["locked_at"] != locked_at:
                return None
            due = next_run_at if next_run_at is not None else row["next_run_at"]
            due = None if row["cron_expr"] == "" else due
            return {"locked_by": None, "locked_at": None, "updated_at": moment, "next_run_at": due}

        return await self._change(schedule_id, released) is not None

    async def _change(
        self, schedule_id: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    ) -> dict[str, Any] | None:
        """Change what a function of the row says, of the very row that it was given; None where it says None."""
        if not SCHEDULES.has(schedule_id):
            return None
        self._entry_writes += 1

        def update(entry: Entry) -> Entry:
            changes = change(entry.data)
            if changes is None:
                raise _Abandoned
            return changed(entry, changes)

        try:
            stored = await (await self._entries()).update(SCHEDULES.id(schedule_id), update)
        except (RecordNotFound, _Abandoned):
            return None
        return dict(stored.data)

    async def _rename(self, schedule_id: str, user_id: str | None, changes: Mapping[str, Any]) -> dict[str, Any] | None:
        if not SCHEDULES.has(schedule_id):
            return None
        db = await self.database()
        self._entry_writes += 1
        stale: Entry | None = None

        async def rename() -> dict[str, Any] | None:
            nonlocal stale
            entry = await db.entries.get(SCHEDULES.id(schedule_id), consistency="strong")
            if entry is None or not _is_of(entry, user_id):
                return None
            renamed = changed(entry, changes)
            reserved, before = reservation(renamed.data), await _reservation_of(db, entry)
            try:
                async with db.transaction() as tx:
                    tx.upsert(renamed, expected_version=entry.version)
                    if before is None or before.id != reserved.id:
                        if before is not None:
                            tx.delete(Entry, before.id, expected_version=before.version)
                        if stale is None:
                            tx.create(reserved)
                        else:
                            tx.upsert(reserved, expected_version=stale.version)
            except ConflictError as error:
                if error.key == reserved.key:
                    stale = await _unused(db, reserved, error)
                raise
            return dict(renamed.data)

        return await repeated(rename)


def _is_of(entry: Entry, user_id: str | None) -> bool:
    return user_id is None or entry.data["user_id"] == user_id


def _name_id(entry: Entry) -> str:
    return name_id(entry.data["user_id"], entry.data["name"])


async def _reservation_of(db: Database, entry: Entry) -> Entry | None:
    """The reservation of a schedule's name, where this schedule has it."""
    reserved = await db.entries.get(_name_id(entry), consistency="strong")
    return reserved if reserved is not None and reserved.data["schedule_id"] == entry.data["id"] else None


async def _unused(db: Database, reserved: Entry, error: ConflictError) -> Entry | None:
    """The reservation that is in the way, when no schedule has it: as after a split of a fan-out's stores.

    Raises:
        Taken: a schedule has the name.
    """
    found = await db.entries.get(reserved.id, consistency="strong")
    if found is None:
        return None
    holder = await db.entries.get(SCHEDULES.id(found.data["schedule_id"]), consistency="strong")
    if holder is not None and _name_id(holder) == reserved.id:
        raise taken(error, "there is a schedule of this name already") from error
    return found


async def _delete(db: Database, schedule_id: str, user_id: str | None) -> bool:
    entry = await db.entries.get(SCHEDULES.id(schedule_id), consistency="strong")
    if entry is None or not _is_of(entry, user_id):
        return False
    reserved = await _reservation_of(db, entry)
    async with db.transaction() as tx:
        tx.delete(Entry, entry.id, expected_version=entry.version)
        if reserved is not None:
            tx.delete(Entry, reserved.id, expected_version=reserved.version)
    return True
