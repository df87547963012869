"""agno's calls about runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from agno.db.utils import (
    build_single_run_row,
    canonical_run_status,
    deserialize_run,
    validate_pagination,
)
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.run.status_persist import RunPersistOutcome
from agno.run.team import TeamRunOutput
from agno.run.workflow import WorkflowRunOutput

from agno_clouddb.database import Database
from agno_clouddb.errors import ConflictError, InvalidRecord, RecordNotFound
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.columns import cut
from agno_clouddb.integrations.agno.ids import absent, possible
from agno_clouddb.integrations.agno.run_places import Appends, RunPlaces, next_position
from agno_clouddb.integrations.agno.run_rows import ROW, apart, components, in_order, run_record, run_row, sortable
from agno_clouddb.integrations.agno.shapes import now, plain_json
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.stores.base import Consistency

__all__ = ["RunCalls"]

_ENDED = ("COMPLETED", "CANCELLED", "ERROR")

AnyRun = RunOutput | TeamRunOutput | WorkflowRunOutput


class RunCalls(Family):
    """Runs, each an item of its session.

    A run of which only the id is given is found at once when this process has read or written it; else the sessions are
    gone through, those last written first: two requests for each hundred.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._run_places = RunPlaces()
        self._appends = Appends()

    async def get_run(self, run_id: str, deserialize: bool | None = True) -> AnyRun | dict[str, Any] | None:
        """A run of whatever session. None when there is none.

        Args:
            run_id: which run.
            deserialize: a run object; or else its row, a dict.
        """
        run = await self._found(await self.database(), run_id)
        if run is None:
            return None
        row = run_row(run)
        return deserialize_run(row["run_type"], row["run_data"]) if deserialize else row

    async def get_runs(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        status: RunStatus | None = None,
        limit: int | None = None,
        page: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        deserialize: bool | None = True,
    ) -> list[AnyRun] | tuple[list[dict[str, Any]], int]:
        """Runs of one session, or of all of them, by their place in the session unless sorted.

        All runs of the session are read whatever the page; without ``session_id`` those of every session.

        Args:
            session_id: only runs of this session.
            user_id: only this user's.
            agent_id: only this agent's.
            team_id: only this team's.
            workflow_id: only this workflow's.
            status: only those in this status.
            limit: how many; None: all.
            page: which page of so many, from 1 on.
            sort_by: a column.
            sort_order: ``asc``; or else the greatest first.
            deserialize: run objects; or else a tuple of rows and how many there are in all.
        """
        validate_pagination(limit, page)
        db = await self.database()
        wanted = {
            "user_id": user_id,
            "agent_id": agent_id,
            "team_id": team_id,
            "workflow_id": workflow_id,
            "status": status.value if isinstance(status, RunStatus) else status,
        }
        wanted = {name: value for name, value in wanted.items() if value is not None}
        rows: list[dict[str, Any]] = []
        if session_id is not None:
            session = None if absent(session_id) else await db.sessions.get(session_id)
            sessions = [session] if session is not None else []
        else:
            sessions = await db.sessions.with_runs([each async for each in db.sessions.iterate(page_size=500)])
        for each in sessions:
            of_session = map(run_row, in_order(each.runs))
            rows += [row for row in of_session if all(row[name] == value for name, value in wanted.items())]
        rows.sort(key=lambda row: (row["run_index"] is not None, row["run_index"] or 0, row["created_at"]))
        if sort_by in ROW:
            rows.sort(key=lambda row: sortable(row, str(sort_by)), reverse=sort_order != "asc")
        shown = cut(rows, limit, page)
        if not deserialize:
            return shown, len(rows)
        return [deserialize_run(row["run_type"], row["run_data"]) for row in shown]

    async def upsert_run(
        self,
        run: AnyRun | dict[str, Any],
        session_id: str,
        user_id: str | None = None,
        run_index: int | None = None,
    ) -> None:
        """Write a run, in one request. A stored one keeps its place, type, agent, team, workflow and ``created_at``.

        Without ``run_index``, of a run that this process has not read or written, the newest runs are read before, and
        it comes after them: of several at once each gets a place of its own, as far as they are written by this object.
        With it, a run that only other processes have read or written is written over whole, unless ``history_runs`` is
        given.

        Args:
            run: what to write.
            session_id: its session, which must exist.
            user_id: whose run it is.
            run_index: its place in the session.

        Raises:
            ValueError: the run has no id.
            RecordNotFound: there is no such session.
        """
        db = await self.database()
        row = build_single_run_row(run, session_id, user_id, run_index)
        write = partial(db.sessions.append_run, session_id)
        place = self._run_places.find(row["run_id"])
        if place is None and row["run_index"] is not None and self._history_runs is not None:
            if await self._created(db, session_id, row):
                return
            row["run_index"] = None  # it is there, at a place that is to be read
        if place is None and row["run_index"] is None:
            with self._appends.to(session_id):  # else a run that is appended since it was looked for would move
                stored = await db.sessions.get_run(session_id, row["run_id"], consistency="strong")
                if stored is None:
                    self._note_written(session_id, await self._appended(db, session_id, row, write))
                    return
            self._run_places.note(session_id, [stored])
            place = self._run_places.find(row["run_id"])
        if place is not None:
            row = place.over(row)
        self._note_written(session_id, await _written(write, row))

    async def append_run_to_session_if_absent(
        self, session_id: str, run_dict: dict[str, Any], user_id: str | None = None
    ) -> bool | None:
        """Write a run where its session has none of this id, at the place that ``upsert_run`` would give it.

        Returns:
            Whether it was written: by one caller only. None when there is no such session.
        """
        db = await self.database()
        row = build_single_run_row(run_dict, session_id, user_id, None)
        write = partial(db.sessions.create_run, session_id)
        try:
            if row["run_index"] is None:
                stored = await self._appended(db, session_id, row, write)
            else:
                stored = await _written(write, row)
        except ConflictError:
            return False
        except RecordNotFound:
            return None
        self._run_places.note(session_id, [stored])
        return True

    async def update_run_in_session(
        self,
        session_id: str,
        run_id: str,
        fields: dict[str, Any],
        expected_attempt: int | None = None,
        user_id: str | None = None,
        content_if_absent: str | None = None,
        session_data: dict[str, Any] | None = None,
    ) -> RunPersistOutcome:
        """Change fields of one run, unless a later attempt owns it, or it has come to an end with another status.

        Args:
            session_id: the session.
            run_id: which run.
            fields: what to set.
            expected_attempt: the attempt that this writer makes of the run.
            user_id: only when the run belongs to this user, or to nobody.
            content_if_absent: its content, when it has none.
            session_data: becomes that of the session when the change of the run is accepted, in the same atomic write:
                both are stored, or neither.

        Raises:
            RuntimeError: the session belongs to another user, and ``session_data`` is given; nothing was written.
        """
        if absent(session_id, run_id):
            return RunPersistOutcome.MISSING
        db = await self.database()
        status = fields.get("status")
        if status is not None:
            fields = {**fields, "status": canonical_run_status(status)}

        def change(run: Run) -> Run:
            return _patched(run, fields, expected_attempt, user_id, content_if_absent)

        def change_session(session: Session) -> Session:
            if session.user_id not in (None, user_id):
                raise RuntimeError("the session of the run belongs to another user")
            return session.model_copy(update={"session_data": plain_json(session_data)})

        header = change_session if session_data is not None else None
        try:
            stored = await db.sessions.update_run(session_id, run_id, change, session=header)
        except _Refused as refused:
            return refused.outcome
        except RecordNotFound:
            return RunPersistOutcome.MISSING
        self._run_places.note(session_id, [stored])
        return RunPersistOutcome.UPDATED

    async def cancel_pending_run(
        self,
        run_id: str,
        *,
        session_id: str,
        reason: str,
        user_id: str | None = None,
        expected_status: str = "PENDING",
    ) -> bool:
        """Cancel a run that is pending, or running; of several callers one succeeds, and a change in between wins.

        Args:
            run_id: which run.
            session_id: its session.
            reason: becomes its content, when it has none.
            user_id: only when the run belongs to this user, or to nobody.
            expected_status: ``PENDING`` or ``RUNNING``.

        Returns:
            Whether this call has cancelled it.
        """
        if expected_status not in ("PENDING", "RUNNING"):
            raise ValueError(f"expected_status is {expected_status!r}: only PENDING or RUNNING runs can be cancelled")
        if absent(session_id, run_id):
            return False
        db = await self.database()

        def cancel(run: Run) -> Run:
            if run.status != expected_status or not _visible(run, user_id):
                raise _Refused(RunPersistOutcome.MISSING)
            data = {**(run.data or {}), "status": "CANCELLED"}
            data["content"] = data.get("content") or reason
            return run.model_copy(update={"status": "CANCELLED", "data": data, "updated_at": now()})

        try:
            await db.sessions.update_run(session_id, run_id, cancel)
        except (_Refused, RecordNotFound):
            return False
        return True

    async def delete_run(self, run_id: str) -> bool:
        """Delete a run of whatever session. Returns whether it was there."""
        db = await self.database()
        run = await self._found(db, run_id, "strong")
        self._run_places.forget(run_id)
        return run is not None and await db.sessions.delete_run(run.session_id or "", run_id)

    async def delete_runs(self, run_ids: list[str]) -> None:
        """Delete runs of whatever sessions."""
        for run_id in dict.fromkeys(possible(run_ids)):
            await self.delete_run(run_id)

    async def _found(self, db: Database, run_id: str, consistency: Consistency | None = None) -> Run | None:
        if absent(run_id):
            return None
        place = self._run_places.find(run_id)
        run: Run | None = None
        if place is not None:
            run = await db.sessions.get_run(place.session_id, run_id, consistency=consistency)
        run = run or await db.sessions.find_run(run_id, consistency=consistency)
        if run is not None:
            self._run_places.note(run.session_id or "", [run])
        return run

    async def _created(self, db: Database, session_id: str, row: Mapping[str, Any]) -> bool:
        """Write a run that is new, after those that agno was not given; False when it is stored already.

        Args:
            db: where.
            session_id: its session.
            row: what to write, with its place among the runs that agno was given.
        """
        unread = self._run_places.unread(session_id)
        write = partial(db.sessions.create_run, session_id, exclusive=False)
        try:
            if unread is None:
                stored = await self._appended(db, session_id, row, write)
            else:
                stored = await _written(write, {**row, "run_index": row["run_index"] + unread})
        except ConflictError:
            return False
        self._note_written(session_id, stored)
        return True

    async def _appended(
        self, db: Database, session_id: str, row: Mapping[str, Any], write: Callable[[Run], Awaitable[Run]]
    ) -> Run:
        """Write a run after all others of its session, and not before the place that it names."""
        with self._appends.to(session_id) as take:
            free = max(await self._next_position(db, session_id), row["run_index"] or 0)
            return await _written(write, {**row, "run_index": take(row["run_id"], free)})

    async def _next_position(self, db: Database, session_id: str) -> int:
        """The place after all runs of a session, judged by the newest of them."""
        session = await db.sessions.get(session_id, runs=10, consistency="strong")
        return next_position(session.runs) if session is not None else 0

    def _note_written(self, session_id: str, stored: Run) -> None:
        if stored.run_index == stored.version and stored.status in _ENDED:
            self._unapproved.created(stored.run_id)
        self._run_places.note(session_id, [stored])


class _Refused(Exception):
    """A run is not to be changed."""

    def __init__(self, outcome: RunPersistOutcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def _patched(
    run: Run, fields: dict[str, Any], attempt: int | None, user_id: str | None, content_if_absent: str | None
) -> Run:
    if not _visible(run, user_id):
        raise _Refused(RunPersistOutcome.MISSING)
    data = dict(run.data or {})
    stored_attempt = data.get("queue_attempt")
    if attempt is not None and stored_attempt is not None and stored_attempt > attempt:
        raise _Refused(RunPersistOutcome.STALE_ATTEMPT)
    stored, incoming = str(data.get("status") or run.status or "").lower(), str(fields.get("status") or "").lower()
    if stored in ("completed", "cancelled") and incoming and incoming != stored:
        raise _Refused(RunPersistOutcome.TERMINAL_REFUSED)
    data |= plain_json(fields)
    if content_if_absent is not None and not data.get("content"):
        data["content"] = content_if_absent
    if attempt is not None:
        data["queue_attempt"] = attempt
    update = {"data": data, "status": fields.get("status") or run.status, "updated_at": now()}
    return run.model_copy(update={**update, **apart(components(run), data)})


def _visible(run: Run, user_id: str | None) -> bool:
    return getattr(run, "user_id", None) in (None, user_id)


async def _written(write: Callable[[Run], Awaitable[Run]], row: Mapping[str, Any]) -> Run:
    """Write the run of a row as it is, or as agno's own databases would keep it."""
    run = run_record(row)
    try:
        return await write(run)
    except InvalidRecord:
        return await write(run.model_copy(update={"data": plain_json(run.data)}))
