"""db.sessions: sessions and their runs.

A session is a header item and one item a run, so that a turn writes the header and one run and its cost does not grow
with the conversation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal, TypedDict, Unpack

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.sessions import Session
from agno_clouddb.repositories.base import Page, check_consistency, check_version
from agno_clouddb.repositories.changes import Removal, Upsert
from agno_clouddb.repositories.listing import Filter, Lists
from agno_clouddb.repositories.runs import RUNS_PAGE, runs_query, session_key
from agno_clouddb.repositories.single_runs import SingleRuns
from agno_clouddb.stores import base as port
from agno_clouddb.stores.base import Batch, Consistency, Item, Key, Refused, Stored

__all__ = ["SessionFilters", "Sessions"]

Sort = Literal["created_at", "-created_at", "updated_at", "-updated_at"]


class SessionFilters(TypedDict, total=False):
    """What a list of sessions may be narrowed by; a filter that is None or not given does not narrow."""

    session_type: str | None
    """Only sessions of agents, teams or workflows."""
    component_id: str | None
    """Only sessions with this agent, team or workflow."""
    user_id: str | None
    """Only this user's sessions."""
    name: str | None
    """Only sessions whose name contains this text, whatever its case."""
    created_from: datetime | None
    """Only sessions created at this moment or later."""
    created_to: datetime | None
    """Only sessions created before this moment."""
    updated_from: datetime | None
    """Only sessions last written at this moment or later."""
    updated_to: datetime | None
    """Only sessions last written before this moment."""


class Sessions(SingleRuns):
    """Sessions and their runs. Reads are strongly consistent unless the call or the Database says otherwise."""

    lists = Lists(
        Session,
        filters={
            "session_type": Filter("equal", "session_type"),
            "component_id": Filter("equal", "component_id"),
            "user_id": Filter("equal", "user_id"),
            "name": Filter("contains", "session_name"),
            "created_from": Filter("from", "created_at"),
            "created_to": Filter("to", "created_at"),
            "updated_from": Filter("from", "updated_at"),
            "updated_to": Filter("to", "updated_at"),
        },
        sorts=("created_at", "updated_at"),
    )

    async def get(
        self,
        session_id: str,
        *,
        user_id: str | None = None,
        runs: Literal["all"] | int = "all",
        consistency: Consistency | None = None,
    ) -> Session | None:
        """The session, with its runs, in one round trip (a read of the header and a query for runs, in parallel).

        Args:
            session_id: which session.
            user_id: only when it belongs to this user.
            runs: ``"all"``, 0 for none, or the number of the newest runs to read; oldest first in the result.
            consistency: ``strong`` sees every write acknowledged before the call; None: what the Database was made
                with.

        Returns:
            None when there is no such session, or it belongs to another user (or to nobody, with ``user_id`` given).

        Raises:
            InvalidRecord: ``session_id`` is no valid id, or ``runs`` is negative.
            NotProvisioned, Throttled, StoreUnavailable: the store does not answer.
        """
        if runs != "all" and (isinstance(runs, bool) or not isinstance(runs, int) or runs < 0):
            raise InvalidRecord("runs", f'is {runs!r}, neither "all" nor a number from 0')
        key = session_key(session_id)
        store, consistency = self._store, check_consistency(consistency, self._connection.consistency)
        wanted = None if runs == "all" else runs
        size = RUNS_PAGE if wanted is None else min(wanted, RUNS_PAGE)
        if size == 0:
            batch, page = await store.get([key], consistency=consistency), None
        else:
            batch, page = await self._header_and_runs(key, size, consistency)
        header = batch.items[0]
        if header is None or (user_id is not None and header.owner != user_id):
            return None
        session = self._read(header, batch.degraded)
        return session if page is None else await self._fill(session, page, wanted, consistency)

    async def upsert(
        self,
        session: Session,
        *,
        user_id: str | None = None,
        expected_version: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> Session:
        """Write the session's header, and those of its ``runs`` that were never stored; others are left as they are.

        The newest write wins unless ``expected_version`` is given. One request for a new session and for one that was
        read before (be it in another process, and come back as JSON); two for a session object made anew over a
        stored one, whose ``created_at`` is then kept, and its owner where the object names none.

        Args:
            session: what to write. ``updated_at`` becomes now, unless the object was never stored and names one.
            user_id: the user on whose behalf; by default the session's own ``user_id``. A session that belongs to
                another user is not changed; one that belongs to nobody is claimed. ``NOBODY``: one that belongs to
                anybody is not changed.
            expected_version: the version of this session that was read; write only when nothing newer is stored.
            expires_in: seconds, or a timedelta, after which the session, and the runs that are written with it, count
                as absent.
            expires_at: the same as a moment. Without either, the object's own ``expires_at`` holds, and at least the
                time that the Database's ``ttl`` gives, from now. Runs that are written later do not expire with the
                session, but by themselves: give them an expiry too, or use ``ttl``.

        Returns:
            What is stored, with its version.

        Raises:
            InvalidRecord: a value that no store can hold, with its path.
            RecordTooLarge: over what the store holds in one record; nothing was written.
            ConflictError: the stored version is another one than ``expected_version``.
            NotOwner: the session belongs to another user.
            PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        session, owner = self._owned(session, user_id)
        key = session.key
        check_version(expected_version)
        fresh = [run for run in session.runs if run.version is None]
        self._check_runs(session.session_id, fresh)
        fresh = [self._expiring(run, expires_in, expires_at) for run in fresh]
        session = self._expiring(session, expires_in, expires_at)
        stored = await self._apply(Upsert(key, session, owner=owner, expected=expected_version))
        expiry = stored.expires_at.timestamp() if stored.expires_at is not None else None
        known = self._know(key.id, stored.user_id, stored.generation or "", expiry)
        if not fresh:
            return stored
        appended = iter(await self._append(stored.session_id, known.generation, fresh))
        return stored.model_copy(
            update={"runs": [next(appended) if run.version is None else run for run in stored.runs]}
        )

    async def create(self, session: Session, *, user_id: str | None = None) -> Session:
        """Write the header of a session that is not stored yet, in one request.

        Args:
            session: what to write, without runs.
            user_id: the owner; by default the session's own ``user_id``.

        Returns:
            What is stored, with its version.

        Raises:
            ConflictError: there is a session of this id.
            InvalidRecord, RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        self._check_no_new_runs(session)
        stored = await self._apply(self._creation(session, user_id))
        expiry = stored.expires_at.timestamp() if stored.expires_at is not None else None
        self._know(stored.session_id, stored.user_id, stored.generation or "", expiry)
        return stored

    async def list(
        self,
        *,
        sort: Sort = "-created_at",
        limit: int = 20,
        cursor: str | None = None,
        consistency: Consistency | None = None,
        **filters: Unpack[SessionFilters],
    ) -> Page[Session]:
        """One page of sessions without their runs, the same on every store.

        Args:
            sort: by which moment; with ``-`` the latest first. Equal moments are ordered by session id.
            limit: how many, 1 to 1,000. The page is full while there is more.
            cursor: go on after the page that carried it, with the same filters and sort.
            consistency: as in ``get``.
            **filters: what to list, see ``SessionFilters``; all of them must hold.

        Raises:
            InvalidRecord: an argument is out of its range, a datetime has no zone, or the cursor is of another list.
            QueryNotIndexed, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        return await self._page(self.lists.listing(filters, sort), limit, cursor, consistency)

    async def iterate(
        self,
        *,
        sort: Sort = "-created_at",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[SessionFilters],
    ) -> AsyncIterator[Session]:
        """All sessions that ``list`` would list, holding one page of ``page_size`` at a time."""
        async for session in self._iterate(self.lists.listing(filters, sort), page_size, consistency):
            yield session

    async def count(self, **filters: Unpack[SessionFilters]) -> int:
        """How many sessions ``list`` would list. Arguments and errors are those of ``list``."""
        return await self._count(filters)

    async def rename(self, session_id: str, name: str, *, user_id: str | None = None) -> Session:
        """Set the session's name, ``session_data["session_name"]``. Results and errors are those of ``update``."""
        if not isinstance(name, str):
            raise InvalidRecord("name", f"is of type {type(name).__name__}, not text", collection="sessions")

        def change(session: Session) -> Session:
            return session.model_copy(
                update={"session_data": {**(session.session_data or {}), "session_name": name}},
            )

        return await self.update(session_id, change, user_id=user_id)

    async def delete(self, session_id: str, *, user_id: str | None = None) -> bool:
        """Delete a session and its runs.

        The header goes first, so that no reader sees the session without some of its runs. Repeat the call when it
        fails: runs that it could not delete are not shown, unless an object read before the deletion is written again,
        and are deleted by the repetition.

        Args:
            session_id: which session.
            user_id: only when it belongs to this user; then a session that belongs to nobody is not deleted either.

        Returns:
            Whether the session was there, and this user's; also True where it may be on a store of a fan-out that does
            not answer.

        Raises:
            InvalidRecord, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        key = session_key(session_id)
        self._known.pop(key.id, None)
        outcome = await self._attempt(Removal(key, owner=user_id))
        if not (isinstance(outcome, Refused) and outcome.reason == "owner"):
            await self._delete_runs(session_id, outcome.version if isinstance(outcome, Stored) else "")
        return not isinstance(outcome, Refused)

    async def update(
        self,
        session_id: str,
        function: Callable[[Session], Session | None],
        *,
        user_id: str | None = None,
        keep_updated_at: bool = False,
    ) -> Session:
        """Read the header, change it and write it; begin anew when somebody else has written in between.

        See ``Records.update``, whose arguments, results and errors these are. The session has no runs here.
        """
        return await super().update(session_id, function, user_id=user_id, keep_updated_at=keep_updated_at)

    async def delete_many(
        self, session_ids: Iterable[str], *, user_id: str | None = None, progress: Callable[[int], None] | None = None
    ) -> int:
        """Delete sessions and their runs, several at a time.

        Args:
            session_ids: which sessions; an id given twice counts once.
            user_id: only those that belong to this user.
            progress: is told after each session how many are deleted.

        Returns:
            How many were there, and this user's.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. Repeat the call.
        """
        return await self._delete_each(session_ids, user_id, progress)

    async def _header_and_runs(self, key: Key, size: int, consistency: Consistency) -> tuple[Batch, port.Page]:
        store, query = self._store, runs_query(key.id)
        answers: list[Batch | port.Page] = await gather(
            [
                lambda: store.get([key], consistency=consistency),
                lambda: store.query(query, limit=size, consistency=consistency),
            ]
        )
        batch, page = answers
        assert isinstance(batch, Batch)
        assert isinstance(page, port.Page)
        return batch, page

    def _upsert(
        self,
        record: Session,
        user_id: str | None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
        expected: str | None = None,
    ) -> Upsert[Session]:
        change = super()._upsert(record, user_id, expires_in, expires_at, expected)
        self._check_no_new_runs(record)
        return change

    def _check_no_new_runs(self, record: Session) -> None:
        if any(run.version is None for run in record.runs):
            raise InvalidRecord(
                "runs",
                "were never stored, and only upsert writes them",
                collection="sessions",
                remedy="Write them with append_run, or the session with upsert",
            )

    def _owned(self, record: Session, user_id: str | None) -> tuple[Session, str | None]:
        owned, owner = super()._owned(record, user_id)
        self._known.pop(owned.key.id, None)  # it may begin anew
        return owned, owner

    def _changed(self, record: Session, function: Callable[[Session], Session | None]) -> Session:
        changed = super()._changed(record, function)
        if changed.runs:
            raise InvalidRecord(
                "runs",
                "are not written by update",
                collection="sessions",
                remedy="Write runs with append_run or upsert_run",
            )
        return changed

    def _read(self, item: Item, degraded: bool = False) -> Session:
        self._remember(item)
        return super()._read(item, degraded)
