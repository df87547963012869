"""agno's calls about sessions."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from agno.db.base import SessionType
from agno.db.utils import deserialize_session, deserialize_sessions, validate_pagination
from agno.session import AgentSession, TeamSession, WorkflowSession
from agno.session import Session as AgnoSession

from agno_clouddb.concurrency import gather
from agno_clouddb.database import Database
from agno_clouddb.errors import ConflictError, InvalidRecord, NotOwner, RecordNotFound
from agno_clouddb.integrations.agno.columns import cut
from agno_clouddb.integrations.agno.ids import absent, excluded, possible
from agno_clouddb.integrations.agno.run_rows import context_runs, in_order
from agno_clouddb.integrations.agno.runs import RunCalls
from agno_clouddb.integrations.agno.shapes import bound, moment, now, plain_json, seconds
from agno_clouddb.records.base import NOBODY
from agno_clouddb.records.sessions import Session
from agno_clouddb.repositories.base import Page

__all__ = ["COMPONENTS", "SessionCalls", "session_record", "session_row"]

COMPONENTS = {"agent": "agent_id", "team": "team_id", "workflow": "workflow_id"}
"""What the component of a session is called, by the session's type."""

_OBJECTS = ("session_data", "metadata", "summary")
_DATA = ("agent_data", "team_data", "workflow_data")
_ACTIVE = ("PENDING", "RUNNING", "PAUSED")
_WRITES_AT_ONCE = 8
_KNOWN_HEADERS = 10_000
_KNOWN_SECONDS = 60.0


class _Header(NamedTuple):
    """What a session's header keeps from one write to the next."""

    kept: Mapping[str, Any]
    until: float  # by the monotonic clock, in seconds


class SessionCalls(RunCalls):
    """Sessions, each a header and its runs beside it. Reads are as consistent as the Database was made to read.

    A new session, and one that this object has read or written within the last minute, is written in one request; one
    that is there and was not read takes three.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers: OrderedDict[str, _Header] = OrderedDict()

    async def get_session(
        self,
        session_id: str,
        session_type: SessionType | None = None,
        user_id: str | None = None,
        deserialize: bool | None = True,
        runs_limit: int | None = None,
    ) -> AgnoSession | dict[str, Any] | None:
        """A session with its runs, in one round trip of two requests.

        Args:
            session_id: which session.
            session_type: what to read it as; None: what it was written as.
            user_id: only when it belongs to this user.
            deserialize: a session object; or else its row, a dict.
            runs_limit: only so many of the newest runs that count as context: neither runs of members nor those that
                are paused, cancelled, in error or regenerated. Where there are such among the newest, more are read.

        With ``history_runs``, a session object that is read as of a type, without ``runs_limit``, has so many of the
        runs that count as context, and all others that are as new. So agno reads a session for a turn.
        """
        if absent(session_id):
            return None
        db = await self.database()
        limit = None if runs_limit is None or runs_limit < 0 else runs_limit
        for_turn = limit is None and session_type is not None and bool(deserialize)
        enough = self._history_runs if for_turn else limit
        session = await self._with_newest(db, session_id, user_id, enough)
        if session is None:
            if for_turn:
                self._run_places.give(session_id, None)
            return None
        runs = in_order(session.runs)
        if limit is not None:
            runs = context_runs(runs)[-limit:] if limit else []
        self._remember(session)
        self._run_places.note(session_id, session.runs)
        if for_turn:
            self._run_places.give(session_id, runs)
        row = session_row(session, [run.data or {} for run in runs])
        return deserialize_session(session_type, row) if deserialize else row

    async def get_sessions(
        self,
        session_type: SessionType | None = None,
        user_id: str | None = None,
        component_id: str | None = None,
        session_name: str | None = None,
        start_timestamp: int | None = None,
        end_timestamp: int | None = None,
        limit: int | None = None,
        page: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        deserialize: bool | None = True,
        include_runs: bool = True,
    ) -> list[AgnoSession] | tuple[list[dict[str, Any]], int]:
        """Sessions, the first created first unless sorted.

        A page by ``created_at`` or ``updated_at`` costs what the list of one page costs, after the page before it was
        read within a minute, and else the reading of all up to it. By any other column all that match are read. The
        total is counted by the store. The runs cost one query a session: leave them out by ``include_runs=False``.

        Args:
            session_type: only sessions of agents, teams or workflows.
            user_id: only this user's.
            component_id: only those with this agent, team or workflow.
            session_name: only those whose name contains this, whatever its case.
            start_timestamp: only those created at this second since the epoch or later.
            end_timestamp: only those created at this second or before.
            limit: how many; None: all.
            page: which page of so many, from 1 on.
            sort_by: a column.
            sort_order: ``asc``; or else the greatest first.
            deserialize: session objects; or else a tuple of rows and how many there are in all.
            include_runs: with their runs.
        """
        validate_pagination(limit, page)
        if excluded(user_id, component_id):
            return [] if deserialize else ([], 0)
        db = await self.database()
        filters: dict[str, Any] = {
            "session_type": session_type.value if session_type is not None else None,
            "user_id": user_id,
            "component_id": component_id,
            "name": session_name,
            "created_from": bound(start_timestamp),
            "created_to": bound(end_timestamp + 1) if end_timestamp is not None else None,
        }
        total = 0 if deserialize else await db.sessions.count(**filters)
        sort = _order(sort_by, sort_order)
        if sort is not None:

            async def listed(size: int, cursor: str | None) -> Page[Session]:
                return await db.sessions.list(sort=cast(Any, sort), limit=size, cursor=cursor, **filters)

            of = ("sessions", sort, *filters.values())
            found = await self._bookmarks.page(listed, of=of, limit=limit, page=page)
        else:
            found = [session async for session in db.sessions.iterate(sort="created_at", page_size=500, **filters)]
            found.sort(key=lambda session: _column(session, sort_by), reverse=sort_order != "asc")
            found = cut(found, limit, page)
        for session in found:
            self._remember(session)
        if include_runs:
            rows = [session_row(session, _runs(session)) for session in await db.sessions.with_runs(found)]
        else:
            rows = [session_row(session, None) for session in found]
        return deserialize_sessions(session_type, rows) if deserialize else (rows, total)

    async def upsert_session(
        self, session: AgnoSession, deserialize: bool | None = True
    ) -> AgnoSession | dict[str, Any] | None:
        """Write a session's header; its runs are written by ``upsert_run``. The first ``created_at`` is kept.

        Args:
            session: what to write.
            deserialize: the session object is returned; or else its row, a dict.

        Returns:
            None when the stored session belongs to another user: then nothing was written.
        """
        stored = await self._write(session_record(session))
        if stored is None:
            return None
        if not deserialize:
            return session_row(stored, [run if isinstance(run, dict) else run.to_dict() for run in session.runs or []])
        written = deserialize_session(None, session_row(stored, None))
        written.runs = session.runs
        return written

    async def upsert_sessions(
        self, sessions: list[AgnoSession], deserialize: bool | None = True, preserve_updated_at: bool = False
    ) -> list[AgnoSession | dict[str, Any]]:
        """Write the headers of several sessions, several at once; those of other users are left out.

        Args:
            sessions: what to write; of two with one id the later one stands.
            deserialize: session objects are returned; or else rows.
            preserve_updated_at: a new session keeps the ``updated_at`` that it has.
        """
        unique = {session.session_id: session for session in sessions if session is not None}
        kinds = (AgentSession, TeamSession, WorkflowSession)
        ordered = [session for kind in kinds for session in unique.values() if isinstance(session, kind)]
        records = [session_record(session) for session in ordered]
        records = [
            record.model_copy(
                update={"updated_at": moment(session.updated_at, "updated_at") if preserve_updated_at else None}
            )
            for session, record in zip(ordered, records, strict=True)
        ]
        calls = [partial(self._write, record, keep=preserve_updated_at) for record in records]
        results: list[AgnoSession | dict[str, Any]] = []
        for session, stored in zip(ordered, await gather(calls, limit=_WRITES_AT_ONCE), strict=True):
            if stored is not None:
                runs = [run if isinstance(run, dict) else run.to_dict() for run in session.runs or []]
                row = session_row(stored, runs)
                results.append(deserialize_session(None, row) if deserialize else row)
        return results

    async def insert_session_if_absent(self, session: AgnoSession) -> bool | None:
        """Write a session's header where there is none. Returns whether it was written: by one caller only."""
        db = await self.database()
        try:
            stored = await _written(db.sessions.create, session_record(session))
        except ConflictError:
            return False
        self._remember(stored)
        return True

    async def rename_session(
        self,
        session_id: str,
        session_type: SessionType | None,
        session_name: str,
        user_id: str | None = None,
        deserialize: bool | None = True,
    ) -> AgnoSession | dict[str, Any] | None:
        """Set ``session_data["session_name"]`` of a session.

        Returns:
            The session with its runs; None when there is none, or it belongs to another user.
        """
        if absent(session_id):
            return None
        db = await self.database()
        try:
            stored = await db.sessions.rename(session_id, session_name, user_id=user_id)
        except (RecordNotFound, NotOwner):
            return None
        self._remember(stored)
        (renamed,) = await db.sessions.with_runs([stored])
        row = session_row(renamed, _runs(renamed))
        session = deserialize_session(session_type, row)
        if deserialize:
            return session
        return {**row, "runs": [run if isinstance(run, dict) else run.to_dict() for run in session.runs or []]}

    async def reassign_session_owner(self, session_id: str, *, previous_user_id: str, user_id: str | None) -> bool:
        """Give a session to another user, or to nobody, unless one of its runs is pending, running or paused.

        Returns:
            False when there is no such session, it does not belong to ``previous_user_id``, or a run is active.
        """
        if absent(session_id):
            return False
        db = await self.database()
        session = await db.sessions.get(session_id, consistency="strong")
        if session is None or session.user_id != previous_user_id or any(run.status in _ACTIVE for run in session.runs):
            return False
        given = session.model_copy(update={"user_id": user_id, "runs": []})
        try:
            # The version that was read before the runs: a turn that has begun since has written the header.
            stored = await db.sessions.update(session_id, _given_to(given), keep_updated_at=True)
        except (RecordNotFound, NotOwner, _Changed):
            return False
        self._remember(stored)
        return True

    async def delete_session(self, session_id: str, user_id: str | None = None) -> bool:
        """Delete a session with its runs, the results of its tools and its transcripts.

        Args:
            session_id: which session.
            user_id: only when it belongs to this user.

        Returns:
            Whether it was there, and this user's.
        """
        there = not absent(session_id) and await self._delete_header(session_id, user_id)
        if there:
            await self._delete_attached([session_id])
        return there

    async def delete_sessions(self, session_ids: list[str], user_id: str | None = None) -> None:
        """Delete sessions, as ``delete_session`` does, several at once.

        Without a user, results and transcripts are deleted of those too that are not there themselves any more.
        """

        async def delete(session_id: str) -> None:
            if await self._delete_header(session_id, user_id) or user_id is None:
                await self._delete_attached([session_id])

        await gather([partial(delete, each) for each in dict.fromkeys(possible(session_ids))], limit=16)

    async def _with_newest(
        self, db: Database, session_id: str, user_id: str | None, enough: int | None
    ) -> Session | None:
        """A session with so many of its newest runs that enough of them count as context; None: with all."""
        wanted = enough
        while True:
            session = await db.sessions.get(session_id, user_id=user_id, runs="all" if wanted is None else wanted)
            if session is None or enough is None or wanted is None or len(session.runs) < wanted:
                return session
            if len(context_runs(session.runs)) >= enough:
                return session
            wanted = 4 * wanted if wanted < 1_000 else None

    async def _delete_header(self, session_id: str, user_id: str | None) -> bool:
        db = await self.database()
        self._headers.pop(session_id, None)
        self._run_places.forget_session(session_id)
        return await db.sessions.delete(session_id, user_id=user_id)

    async def _delete_attached(self, session_ids: Sequence[str]) -> None:
        """Delete what belongs to sessions and is kept elsewhere."""

    async def _write(self, record: Session, *, keep: bool = False) -> Session | None:
        """Write a header; a stored one is updated now, unless what the record names is to be kept."""
        db = await self.database()
        owner = record.user_id if record.user_id is not None else NOBODY
        header = self._headers.get(record.session_id)
        if header is not None and time.monotonic() < header.until and not keep:
            record = record.model_copy(update=dict(header.kept))
        try:
            stored = await _written(partial(db.sessions.upsert, user_id=owner), record)
            if not record.is_stored and not keep and stored.generation != stored.version:
                # It was there, unknown to this process, and has kept the moment at which the object was created.
                stored = await db.sessions.upsert(stored, user_id=owner)
        except NotOwner:
            self._headers.pop(record.session_id, None)
            return None
        self._remember(stored)
        return stored

    def _remember(self, session: Session) -> None:
        kept = {"version": session.version, "generation": session.generation, "created_at": session.created_at}
        self._headers[session.session_id] = _Header(kept, time.monotonic() + _KNOWN_SECONDS)
        self._headers.move_to_end(session.session_id)
        if len(self._headers) > _KNOWN_HEADERS:
            self._headers.popitem(last=False)


class _Changed(Exception):
    """A session was written in between."""


def _given_to(given: Session) -> Any:
    def change(session: Session) -> Session:
        if session.version != given.version:
            raise _Changed
        return given

    return change


def session_record(session: AgnoSession) -> Session:
    """The record that keeps an agno session, without its runs."""
    kind = "agent" if isinstance(session, AgentSession) else "team" if isinstance(session, TeamSession) else "workflow"
    values = session.to_dict(include_runs=False)
    created = values.get("created_at") or now()
    extra = {f"{kind}_data": data for data in (values.get(f"{kind}_data"),) if data is not None}
    make = partial(
        Session.checked,
        session_id=values["session_id"],
        session_type=kind,
        component_id=values.get(COMPONENTS[kind]),
        user_id=values.get("user_id"),
        created_at=moment(created),
        updated_at=moment(created),
        **extra,
    )
    objects = {name: values.get(name) for name in _OBJECTS}
    try:
        return make(**objects)
    except InvalidRecord:
        return make(**plain_json(objects))  # whose keys are texts


def session_row(session: Session, runs: list[dict[str, Any]] | None) -> dict[str, Any]:
    """The row of a session, as agno's own tables have it, with its runs."""
    extra = session.model_extra or {}
    row: dict[str, Any] = {"session_id": session.session_id, "session_type": session.session_type}
    for kind, name in COMPONENTS.items():
        row[name] = session.component_id if kind == session.session_type else None
    row |= {
        "user_id": session.user_id,
        "session_data": session.session_data,
        **{name: extra.get(name) for name in _DATA},
        "metadata": session.metadata,
        "summary": session.summary,
        "created_at": seconds(session.created_at),
        "updated_at": seconds(session.updated_at),
        "runs": runs,
    }
    return row


def _runs(session: Session) -> list[dict[str, Any]]:
    return [run.data or {} for run in in_order(session.runs)]


async def _written(write: Callable[[Session], Awaitable[Session]], record: Session) -> Session:
    """Write a header as it is, or as agno's own databases would keep it."""
    try:
        return await write(record)
    except InvalidRecord:
        objects = {name: getattr(record, name, None) for name in (*_OBJECTS, *_DATA)}
        plain = plain_json({name: value for name, value in objects.items() if value is not None})
        return await write(record.model_copy(update=plain))


def _order(sort_by: str | None, sort_order: str | None) -> str | None:
    """The order of a list that an index has; None: it has to be sorted."""
    if sort_by not in (None, "created_at", "updated_at") and sort_by in _COLUMNS:
        return None
    if sort_by not in ("created_at", "updated_at"):
        return "created_at"
    return sort_by if sort_order == "asc" else f"-{sort_by}"


_COLUMNS = tuple(session_row(Session(session_id="-"), None))


def _column(session: Session, name: str | None) -> tuple[bool, str]:
    """What orders sessions by a column: those without a value first, as SQLite has it."""
    value = session_row(session, None)[str(name)]
    return value is not None, str(value)
