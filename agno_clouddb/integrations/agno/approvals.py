"""Approvals: what a person has to allow before a run goes on.

An approval is an entry, listed by its user and by its status. The approvals of a run are listed in one more entry,
which is written with them in one transaction: whether a run may go on is decided by what that list shows, and on
DynamoDB an index may miss what was written in the last moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from agno.run.base import RunStatus

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import ConflictError, InvalidRecord, RecordNotFound
from agno_clouddb.integrations.agno.columns import cut
from agno_clouddb.integrations.agno.entry_lists import EntryLists
from agno_clouddb.integrations.agno.ids import absent, excluded
from agno_clouddb.integrations.agno.shapes import now
from agno_clouddb.integrations.agno.tables import ListedBy, Table
from agno_clouddb.integrations.agno.taken import repeated, taken
from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.entries import Entries
from agno_clouddb.repositories.transactions import Transaction

__all__ = ["APPROVALS", "ApprovalCalls"]

APPROVALS = Table(
    kind="approval",
    columns=(
        "id",
        "run_id",
        "session_id",
        "status",
        "source_type",
        "approval_type",
        "pause_type",
        "tool_name",
        "tool_args",
        "expires_at",
        "agent_id",
        "team_id",
        "workflow_id",
        "user_id",
        "schedule_id",
        "schedule_run_id",
        "source_name",
        "requirements",
        "context",
        "resolution_data",
        "resolved_by",
        "resolved_at",
        "created_at",
        "updated_at",
        "run_status",
    ),
    required=frozenset({"id", "run_id", "session_id", "status", "source_type", "pause_type", "created_at"}),
    json=frozenset({"tool_args", "requirements", "context", "resolution_data"}),
)

_OF_RUN = "approval_run"
_AT_ONCE = 16


class _Abandoned(Exception):
    """The approval is not, or no longer, as the change needs it."""


class ApprovalCalls(EntryLists):
    """Calls about approvals."""

    async def create_approval(self, approval_data: dict[str, Any]) -> dict[str, Any]:
        """Write an approval that is not there yet: one transaction, after one read.

        Args:
            approval_data: its columns. ``created_at`` and ``updated_at`` are now, in seconds since the epoch, unless
                they are given.

        Returns:
            The columns that were written.

        Raises:
            ConflictError: there is an approval of this id.
            InvalidRecord: a column that is required is missing.
        """
        data = {"created_at": now(), "updated_at": now(), **approval_data}
        entry = _entry(APPROVALS.row(data))
        db = await self.database()
        self._entry_writes += 1
        self._unapproved.approved(data["run_id"])

        async def create() -> None:
            roster = await db.entries.get(_roster_id(data["run_id"]), consistency="strong")
            try:
                async with db.transaction() as tx:
                    tx.create(entry)
                    _write_roster(tx, data["run_id"], roster, [*_of_run(roster), data["id"]])
            except ConflictError as error:
                if error.key == entry.key:
                    raise taken(error, "there is an approval of this id already") from error
                raise

        await repeated(create)
        return data

    async def get_approval(self, approval_id: str) -> dict[str, Any] | None:
        """An approval; None when there is none of this id. One strongly consistent read."""
        if not APPROVALS.has(approval_id):
            return None
        entry = await (await self._entries()).get(APPROVALS.id(approval_id))
        return None if entry is None else dict(entry.data)

    async def get_approvals(
        self,
        status: str | None = None,
        source_type: str | None = None,
        approval_type: str | None = None,
        pause_type: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        user_id: str | None = None,
        schedule_id: str | None = None,
        run_id: str | None = None,
        limit: int = 100,
        page: int = 1,
    ) -> tuple[list[dict[str, Any]], int]:
        """Approvals, the last created first, and how many there are in all.

        Those of a run are read by their ids, strongly consistent. Lists by status, by user or of all are served by
        indexes, and counted by the store. With another filter all that match status and user are read.
        """
        wanted = {
            "status": status,
            "source_type": source_type,
            "approval_type": approval_type,
            "pause_type": pause_type,
            "agent_id": agent_id,
            "team_id": team_id,
            "workflow_id": workflow_id,
            "user_id": user_id,
            "schedule_id": schedule_id,
        }
        filters = _filters(status, user_id)
        if excluded(*filters.values()):
            return [], 0
        entries = await self._entries()
        others = {name: value for name, value in wanted.items() if value is not None}
        if run_id is not None:
            found = sorted(await _approvals_of(entries, run_id), key=_place, reverse=True)
        elif others.keys() <= {"status", "user_id"}:
            total = await entries.count(**filters)
            return [each.data for each in await self._entry_page(limit, page, **filters)], total
        else:
            found = [each async for each in entries.iterate(page_size=500, **filters)]
        rows = [each.data for each in found if others.items() <= each.data.items()]
        return cut(rows, limit, page), len(rows)

    async def update_approval(
        self, approval_id: str, expected_status: str | None = None, **kwargs: Any
    ) -> dict[str, Any] | None:
        """Change columns of an approval: of concurrent calls with one ``expected_status`` that they all change, one
        succeeds, on every store.

        Args:
            approval_id: which one.
            expected_status: only while this is its status.
            **kwargs: the columns. ``updated_at`` is now.

        Returns:
            The approval; None when it is not there or has another status.

        Raises:
            InvalidRecord: a column that is required would be None, or the id would change.
        """
        changes = {**kwargs, "updated_at": now()}
        _check_fixed(approval_id, kwargs)
        if not APPROVALS.has(approval_id):
            return None
        self._entry_writes += 1

        def change(entry: Entry) -> Entry:
            if expected_status is not None and entry.data["status"] != expected_status:
                raise _Abandoned
            return _changed(entry, changes)

        try:
            stored = await (await self._entries()).update(APPROVALS.id(approval_id), change)
        except (RecordNotFound, _Abandoned):
            return None
        return dict(stored.data)

    async def delete_approval(self, approval_id: str) -> bool:
        """Delete an approval, in one transaction after two reads.

        Returns:
            Whether there was one.
        """
        if not APPROVALS.has(approval_id):
            return False
        db = await self.database()
        self._entry_writes += 1

        async def delete() -> bool:
            entry = await db.entries.get(APPROVALS.id(approval_id), consistency="strong")
            if entry is None:
                return False
            run_id = entry.data["run_id"]
            roster = await db.entries.get(_roster_id(run_id), consistency="strong")
            async with db.transaction() as tx:
                tx.delete(Entry, entry.id, expected_version=entry.version)
                if approval_id in _of_run(roster):
                    _write_roster(tx, run_id, roster, [each for each in _of_run(roster) if each != approval_id])
            return True

        return await repeated(delete)

    async def get_pending_approval_count(self, user_id: str | None = None) -> int:
        """How many approvals, of one user or of all, are pending; counted by the store."""
        filters = _filters("pending", user_id)
        return 0 if excluded(*filters.values()) else await (await self._entries()).count(**filters)

    async def update_approval_run_status(self, run_id: str, run_status: RunStatus) -> int:
        """Note on all approvals of a run how the run is. Nothing is read right after the first write of a run for which
        no approval was made here.

        Returns:
            How many there are.
        """
        if self._unapproved.take(run_id):
            return 0
        changes = {"run_status": run_status.value, "updated_at": now()}
        entries = await self._entries()
        self._entry_writes += 1

        async def note(id: str) -> bool:
            try:
                await entries.update(id, lambda entry: _changed(entry, changes))
            except RecordNotFound:
                return False
            return True

        found = await _approvals_of(entries, run_id)
        return sum(await gather([partial(note, each.id) for each in found], limit=_AT_ONCE))


def _entry(row: Mapping[str, Any]) -> Entry:
    return APPROVALS.entry(row, **_filters(row["status"], row["user_id"]))


def _filters(status: str | None, user_id: str | None) -> ListedBy:
    filters: ListedBy = {"kind": APPROVALS.kind}
    if status is not None:
        filters["state"] = f"approval:{status}"
    if user_id is not None:
        filters["group"] = f"approval:{user_id}"
    return filters


def _changed(entry: Entry, changes: Mapping[str, Any]) -> Entry:
    changed = _entry({**entry.data, **changes})
    return changed.model_copy(update={"version": entry.version})


def _check_fixed(approval_id: str, changes: Mapping[str, Any]) -> None:
    # The run's approvals are listed by it.
    for name in ("id", "run_id"):
        if name in changes:
            raise InvalidRecord(name, f"of approval {approval_id} cannot be changed", collection="entries")


def _place(entry: Entry) -> tuple[Any, str]:
    return entry.created_at, entry.id


def _roster_id(run_id: str) -> str:
    return f"{_OF_RUN}:{run_id}"


def _of_run(roster: Entry | None) -> list[str]:
    return [] if roster is None else list(roster.data["approvals"])


def _write_roster(tx: Transaction, run_id: str, roster: Entry | None, ids: list[str]) -> None:
    """Write which approvals a run has, over what was read."""
    if roster is None:
        tx.create(Entry(id=_roster_id(run_id), kind=_OF_RUN, data={"approvals": ids}))
    elif ids:
        tx.upsert(roster.model_copy(update={"data": {"approvals": ids}}), expected_version=roster.version)
    else:
        tx.delete(Entry, roster.id, expected_version=roster.version)


async def _approvals_of(entries: Entries, run_id: str) -> list[Entry]:
    """All approvals of a run, by two strongly consistent reads."""
    if absent(_roster_id(run_id)):
        return []
    ids = [APPROVALS.id(each) for each in _of_run(await entries.get(_roster_id(run_id), consistency="strong"))]
    return [each for each in await entries.get_many(ids, consistency="strong") if each is not None]
