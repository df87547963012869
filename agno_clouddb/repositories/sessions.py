"""db.sessions: sessions and their runs.

A session is a header item and one item a run, so that a turn writes the header and one run and its cost does not grow
with the conversation.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import ConflictError, InvalidRecord
from agno_clouddb.records.base import to_text
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.repositories.base import Page, check_consistency, check_limit, require
from agno_clouddb.repositories.runs import RUNS_PAGE, Runs, runs_query, session_key
from agno_clouddb.stores import base as port
from agno_clouddb.stores.base import (
    Batch,
    Condition,
    Consistency,
    Cursor,
    Delete,
    Key,
    Put,
    Query,
    Range,
    Refused,
    Stored,
)
from agno_clouddb.stores.clock import is_version

__all__ = ["SessionFilters", "Sessions"]

Sort = Literal["created_at", "-created_at", "updated_at", "-updated_at"]

_SORTS = ("created_at", "-created_at", "updated_at", "-updated_at")
_DELETES_AT_ONCE = 16


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


class Sessions(Runs):
    """Sessions and their runs. Reads are strongly consistent unless the call or the Database says otherwise."""

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
        self._remember(header)
        session = Session.from_item(header)
        if page is not None:
            found, degraded = await self._visible_runs(header, page, wanted, consistency)
            session.runs = [Run.from_item(item) for item in reversed(found)]
            session.degraded = batch.degraded or degraded
        else:
            session.degraded = batch.degraded
        return session

    async def upsert(
        self, session: Session, *, user_id: str | None = None, expected_version: str | None = None
    ) -> Session:
        """Write the session's header, and those of its ``runs`` that were never stored.

        The newest write wins unless ``expected_version`` is given. One request for a new session and for one that was
        read before (be it in another process, and come back as JSON); two for a session object made anew over a
        stored one, whose ``created_at`` is then kept, and its owner where the object names none.

        Args:
            session: what to write. ``updated_at`` becomes now, unless the object was never stored and names one.
            user_id: the user on whose behalf; by default the session's own ``user_id``. A session that belongs to
                another user is not changed; one that belongs to nobody is claimed.
            expected_version: write only when the stored version is this one.

        Returns:
            What is stored, with its version.

        Raises:
            InvalidRecord: a value that no store can hold, with its path.
            RecordTooLarge: over what the store holds in one record; nothing was written.
            ConflictError: the stored version is another one than ``expected_version``.
            NotOwner: the session belongs to another user.
            PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        require(Session, session, "session")
        session.check_types()
        key = session_key(session.session_id)
        if user_id is not None and session.user_id not in (None, user_id):
            raise InvalidRecord("user_id", f"is {session.user_id!r} but the call is made for {user_id!r}")
        owner = user_id if user_id is not None else session.user_id
        if user_id is not None:
            session = session.model_copy(update={"user_id": user_id})
        fresh = [run for run in session.runs if run.version is None]
        self._check_runs(session.session_id, fresh)
        if expected_version is not None:
            stored = await self._replace(key, session, expected_version, owner)
        elif session.version is None or session.generation is None or not is_version(session.generation):
            stored = await self._create_or_replace(key, session, owner)
        else:
            stored = await self._put(key, _touched(session, created_at=session.created_at), Condition(owner=owner))
        known = self._know(stored.session_id, stored.user_id, stored.generation or "")
        if not fresh:
            return stored
        appended = iter(await self._append(stored.session_id, known.generation, fresh))
        return stored.model_copy(
            update={"runs": [next(appended) if run.version is None else run for run in stored.runs]}
        )

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
            QueryNotIndexed, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        check_limit(limit)
        query = _list_query(filters, sort)
        place = Cursor.decode(cursor, query) if cursor is not None else None
        page = await self._store.query(
            query, limit=limit, cursor=place, consistency=check_consistency(consistency, self._connection.consistency)
        )
        for item in page.items:
            self._remember(item)
        sessions = [Session.from_item(item) for item in page.items]
        for session in sessions:
            session.degraded = page.degraded
        return Page(
            sessions,
            page.cursor.encode(query) if page.cursor is not None else None,
            page.degraded,
        )

    async def iterate(
        self,
        *,
        sort: Sort = "-created_at",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[SessionFilters],
    ) -> AsyncIterator[Session]:
        """All sessions that ``list`` would list, holding one page of ``page_size`` at a time."""
        cursor: str | None = None
        while True:
            page = await self.list(sort=sort, limit=page_size, cursor=cursor, consistency=consistency, **filters)
            for session in page.items:
                yield session
            cursor = page.cursor
            if cursor is None:
                return

    async def count(self, **filters: Unpack[SessionFilters]) -> int:
        """How many sessions ``list`` would list. Arguments and errors are those of ``list``."""
        by_update = {"updated_from", "updated_to"} & filters.keys() and not {
            "created_from",
            "created_to",
        } & filters.keys()
        return await self._store.count(_list_query(filters, "updated_at" if by_update else "created_at"))

    async def update(
        self, session_id: str, function: Callable[[Session], Session | None], *, user_id: str | None = None
    ) -> Session:
        """Read the header, change it and write it; begin anew when somebody else has written in between.

        Args:
            session_id: which session.
            function: takes the session, without its runs, and returns what to write, or changes what it is given and
                returns None. It may be called several times and must have no other effect.
            user_id: only when the session belongs to this user.

        Returns:
            What is stored, with its version; ``degraded`` when the session was read without one of the stores of a
            fan-out, so that a change which that store alone has may be overwritten.

        Raises:
            RecordNotFound: there is no such session.
            NotOwner: it belongs to another user.
            ConflictError: others kept writing in between, for a hundred attempts.
            InvalidRecord, RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        key = session_key(session_id)
        async for attempt in self._attempts():
            with attempt:
                batch = await self._store.get([key])
                header = batch.items[0]
                if header is None:
                    self._known.pop(session_id, None)
                    raise self._not_found(key)
                if user_id is not None and header.owner != user_id:
                    raise self._not_owner(key)
                session = Session.from_item(header)
                changed = function(session)
                changed = session if changed is None else changed
                if inspect.iscoroutine(changed):
                    changed.close()
                require(Session, changed, "function")
                if changed.session_id != session_id:
                    raise InvalidRecord("session_id", "must not be changed by the function", collection="sessions")
                changed = _touched(changed, created_at=changed.created_at or session.created_at)
                changed = changed.model_copy(update={"generation": session.generation})
                stored = await self._put(key, changed, Condition(expected=header.version, owner=user_id))
                return stored.model_copy(update={"degraded": batch.degraded})
        raise AssertionError("attempts end with a result or an error")

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
        self._known.pop(session_id, None)
        outcome = await self._write(lambda version: Delete(key, version, Condition(owner=user_id)))
        existed = not isinstance(outcome, Refused)
        if not (isinstance(outcome, Refused) and outcome.reason == "owner"):
            await self._delete_runs(session_id)
        return existed

    async def delete_many(self, session_ids: Sequence[str], *, user_id: str | None = None) -> int:
        """Delete sessions and their runs, several at a time.

        Args:
            session_ids: which sessions; an id given twice counts once.
            user_id: only those that belong to this user.

        Returns:
            How many were there, and this user's.

        Raises:
            What ``delete`` raises, at the first one that fails; others may have been deleted. Repeat the call.
        """
        unique = list({session_key(session_id): session_id for session_id in session_ids}.values())
        calls = [partial(self.delete, session_id, user_id=user_id) for session_id in unique]
        return sum(await gather(calls, limit=_DELETES_AT_ONCE))

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

    async def _create_or_replace(self, key: Key, session: Session, owner: str | None) -> Session:
        """Write a session object that was never stored, over nothing or over a stored session."""
        now = datetime.now(UTC)
        fresh = session.model_copy(
            update={"created_at": session.created_at or now, "updated_at": session.updated_at or now}
        )

        def first(version: str) -> Put:
            item = fresh.model_copy(update={"generation": version}).to_item(key, version)
            return Put(item, Condition(absent=True, owner=owner))

        outcome = await self._write(first)
        if isinstance(outcome, Stored):
            return fresh.model_copy(update={"generation": outcome.version, "version": outcome.version})
        if outcome.reason != "exists":
            self._raise_refused(key, outcome)
        kept = fresh.model_copy(update=_kept(fresh, outcome.fields))
        return await self._put(key, kept, Condition(owner=owner))

    async def _replace(self, key: Key, session: Session, expected: str, owner: str | None) -> Session:
        """Write a session over the version that the caller expects."""
        if not is_version(expected):
            raise InvalidRecord("expected_version", f"{expected!r} is not a version of this library")
        if session.generation is None or not is_version(session.generation):
            header = (await self._store.get([key])).items[0]
            if header is None:
                raise ConflictError(expected, None, store=self._store.name, key=key)
            session = session.model_copy(update=_kept(session, header.fields))
        touched = _touched(session, created_at=session.created_at)
        return await self._put(key, touched, Condition(expected=expected, owner=owner))

    async def _put(self, key: Key, session: Session, condition: Condition) -> Session:
        if condition.expected is not None:
            # Else a fan-out whose primary lags would store what is older than what it replaces on the others.
            self._clock.observe(condition.expected)
        outcome = await self._write(lambda version: Put(session.to_item(key, version), condition))
        if isinstance(outcome, Refused):
            self._raise_refused(key, outcome, condition.expected)
        return session.model_copy(update={"version": outcome.version})


def _list_query(filters: SessionFilters, sort: str) -> Query:
    if unknown := filters.keys() - SessionFilters.__annotations__.keys():
        raise TypeError(
            f"unknown filters {', '.join(sorted(unknown))}; there are {', '.join(SessionFilters.__annotations__)}"
        )
    if sort not in _SORTS:
        raise InvalidRecord("sort", f"is {sort!r}, not one of {', '.join(_SORTS)}")
    given: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
    name = given.get("name")
    if name is not None and not isinstance(name, str):
        raise InvalidRecord("name", f"is of type {type(name).__name__}, not text")
    return Query(
        "sessions",
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
        equals={field: given[field] for field in ("session_type", "component_id", "user_id") if field in given},
        ranges=tuple(
            Range(f"{moment}_at", _bound(given, f"{moment}_from"), _bound(given, f"{moment}_to"))
            for moment in ("created", "updated")
            if {f"{moment}_from", f"{moment}_to"} & given.keys()
        ),
        contains={"session_name": name} if name else {},
    )


def _bound(given: dict[str, Any], name: str) -> str | None:
    return to_text(name, given[name]) if name in given else None


def _touched(session: Session, *, created_at: datetime | None) -> Session:
    now = datetime.now(UTC)
    return session.model_copy(update={"created_at": created_at or now, "updated_at": now})


def _kept(session: Session, fields: Mapping[str, str]) -> dict[str, object]:
    """What a session object made anew takes over from the stored session."""
    return {
        "generation": fields.get("generation"),
        "created_at": datetime.fromisoformat(fields["created_at"]),
        "user_id": session.user_id or fields.get("user_id"),
    }
