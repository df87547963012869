"""The runs of a session: one item each, ordered by the stamp of their first write.

A run carries the generation of its session, the stamp of the session's first write, and shows only in that session. So
a session id used again never shows the runs of the session that had the id before, even when the deletion of these did
not come to its end.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agno_clouddb.errors import InvalidRecord, RecordTooLarge
from agno_clouddb.records.base import plain
from agno_clouddb.records.sessions import ANY_GENERATION, Run, Session
from agno_clouddb.repositories.base import Connection, check_consistency, require
from agno_clouddb.repositories.changes import Change, Removal
from agno_clouddb.repositories.records import Records
from agno_clouddb.stores.base import Condition, Consistency, Item, Key, Mutation, Page, Put, Query, Refused
from agno_clouddb.stores.clock import epoch_seconds, is_version, version_millis

__all__ = ["RUNS_PAGE", "RunWrite", "Runs", "run_key", "runs_query", "session_key"]

RUNS_PAGE = 500
"""The most runs that are read at once."""

_KNOWN_SESSIONS = 10_000
_KNOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a session's header."""

    owner: str | None
    generation: str
    until: float  # by the monotonic clock, in seconds


class RunWrite(Change[Run]):
    """Write a run: over a stored one, which keeps its place, or at the end of its session.

    Args:
        key: where the run is stored.
        run: what to write.
        generation: that of its session; a function where the session is written in the same transaction.
        place: the place that the stored run is known to have; None: it is not known to be stored.
    """

    def __init__(self, key: Key, run: Run, generation: str | Callable[[], str], place: str | None = None) -> None:
        self.key = key
        self._run = run.model_copy(update={"session_id": key.parent})
        self._generation = generation
        self._place = place
        self._creating = place is None
        self._written = self._run

    def mutation(self, version: str) -> Mutation:
        return Put(self._item(version), Condition(absent=self._creating))

    def adapt(self, refused: Refused) -> bool:
        if not (self._creating and refused.reason == "exists"):
            return False
        self._creating = False
        # It keeps its place, unless it is left over from an earlier session of the same id.
        if self._session_generation() in (refused.fields.get("generation"), ANY_GENERATION):
            self._place = refused.fields.get("run_index")
        return True

    def result(self, version: str) -> Run:
        return self._written.model_copy(update={"version": version})

    def _item(self, version: str) -> Item:
        """The run as an item, at its place, which tells when it was first written."""
        place = self._place or version
        first_written = datetime.fromtimestamp(version_millis(place) / 1000, UTC)
        created_at = self._run.created_at or first_written
        generation = self._session_generation()
        self._written = self._run.model_copy(
            update={"run_index": place, "generation": generation, "created_at": created_at},
        )
        return self._written.to_item(self.key, version)

    def _session_generation(self) -> str:
        return self._generation if isinstance(self._generation, str) else self._generation()


class Runs(Records[Session]):
    """What ``db.sessions`` does with runs."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        # Sessions known to exist, so that appending a run need not read the session's header first.
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def append_run(
        self,
        session_id: str,
        run: Run,
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> Run:
        """Add a run to the end of a session, in one request; the header is not touched.

        A run of the same ``run_id`` is replaced and keeps its place, so that the call can be repeated safely. The order
        is the same for all readers: a run comes after every run that its writer had read or written, and otherwise the
        writers' clocks decide.

        Args:
            session_id: the session, which must exist. One that this Database has not read or written within the last
                minute is looked up first, which costs one more request.
            run: what to write; its ``run_index`` is set by the call.
            user_id: only when the session belongs to this user.
            expires_in: seconds, or a timedelta, after which the run counts as absent.
            expires_at: the same as a moment. Without either, the run keeps its expiry, or is kept as long as the
                Database's ``ttl`` says, from its own last write.

        Whether the session exists, and whose it is, is judged by what this Database saw of it within that minute. A run
        appended to a session that another process has deleted meanwhile is deleted with it: it does not show in a
        session made anew under the same id.

        Returns:
            What is stored, with its version and its place.

        Raises:
            InvalidRecord, RecordTooLarge: as in ``upsert``; nothing was written.
            RecordNotFound: there is no such session.
            NotOwner: the session belongs to another user.
            PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        require(Run, run, "run")
        run_key(session_id, run.run_id)
        expiring_run = self._expiring(run, expires_in, expires_at)
        session = await self._require_session(session_id, user_id)
        return await self._apply(RunWrite(run_key(session_id, run.run_id), expiring_run, session.generation))

    async def upsert_run(
        self,
        session_id: str,
        run: Run,
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> Run:
        """Write a run: a stored one is replaced and keeps its place, a new one goes to the end of the session.

        One request for a run that was read or returned by this library, as ``append_run`` otherwise.
        Arguments, result and errors are those of ``append_run``.
        """
        require(Run, run, "run")
        placed = run.version is not None and run.run_index is not None and is_version(run.run_index)
        if not placed or run.session_id != session_id:
            return await self.append_run(session_id, run, user_id=user_id, expires_in=expires_in, expires_at=expires_at)
        key = run_key(session_id, run.run_id)
        expiring_run = self._expiring(run, expires_in, expires_at)
        session = await self._require_session(session_id, user_id)
        return await self._apply(RunWrite(key, expiring_run, session.generation, run.run_index))

    async def get_run(
        self, session_id: str, run_id: str, *, user_id: str | None = None, consistency: Consistency | None = None
    ) -> Run | None:
        """One run of a session, in one round trip.

        Args:
            session_id: the session.
            run_id: the run.
            user_id: only when the session belongs to this user.
            consistency: as in ``get``.

        Returns:
            None when there is no such run, or the session is not there or not this user's.

        Raises:
            InvalidRecord, NotProvisioned, Throttled, StoreUnavailable: as in ``get``.
        """
        keys = [session_key(session_id), run_key(session_id, run_id)]
        consistency = check_consistency(consistency, self._connection.consistency)
        header, run = (await self._store.get(keys, consistency=consistency)).items
        if header is None or run is None or (user_id is not None and header.owner != user_id):
            return None
        self._remember(header)
        return Run.from_item(run) if belongs(run, header) else None

    async def _fill(self, session: Session, page: Page, wanted: int | None, consistency: Consistency) -> Session:
        """Give a session its newest runs.

        Args:
            session: as it was read.
            page: the first of its runs.
            wanted: how many runs; None: all.
            consistency: of the pages after the first.
        """
        query, generation = runs_query(session.session_id), session.generation
        found = [item for item in page.items if of_generation(item, generation)]
        session.degraded = session.degraded or page.degraded
        while page.cursor is not None and (wanted is None or len(found) < wanted):
            size = RUNS_PAGE if wanted is None else min(wanted - len(found), RUNS_PAGE)
            page = await self._store.query(query, limit=size, cursor=page.cursor, consistency=consistency)
            found += [item for item in page.items if of_generation(item, generation)]
            session.degraded = session.degraded or page.degraded
        for item in found:
            self._clock.observe(item.version)
        session.runs = [Run.from_item(item) for item in reversed(found[:wanted])]
        return session

    async def _append(self, session_id: str, generation: str, runs: Sequence[Run]) -> list[Run]:
        """Write runs that are not stored yet to the end of a session, in order, all at once."""
        return await self._apply_each([RunWrite(run_key(session_id, run.run_id), run, generation) for run in runs])

    def _check_runs(self, session_id: str, runs: Sequence[Run]) -> None:
        """Raise InvalidRecord or RecordTooLarge unless all runs can be stored."""
        limit, seen = self._store.limits.payload_bytes, set()
        for run in runs:
            require(Run, run, "run")
            key = run_key(session_id, run.run_id)
            item = run.to_item(key, "")
            if key in seen:
                raise InvalidRecord("runs", f"has two runs with the id {run.run_id!r}", collection="sessions")
            if item.size > limit:
                raise RecordTooLarge(item.size, limit, store=self._store.name, key=key)
            seen.add(key)

    async def _delete_runs(self, session_id: str, deleted: str = "") -> None:
        """Delete the runs that do not belong to the session that has the id now, if one has.

        Args:
            session_id: which session.
            deleted: the version in which it was deleted, which takes all runs with it that are older: somebody who
                has read the session before may have written it over that, so that it has their generation still.
        """
        query, cursor = runs_query(session_id), None
        while True:
            page = await self._store.query(query, limit=RUNS_PAGE, cursor=cursor)
            # Read after its runs: a session made anew meanwhile is seen, whose runs stay.
            (header,) = (await self._store.get([session_key(session_id)])).items
            for item in page.items:
                self._clock.observe(item.version)
            left = [
                item.key for item in page.items if header is None or item.version < deleted or not belongs(item, header)
            ]
            await self._apply_each([Removal(key) for key in left])
            cursor = page.cursor
            if cursor is None:
                return

    async def _require_session(self, session_id: str, user_id: str | None) -> _Known:
        """What is known of a session, which is looked up when need be; raise unless it is there for ``user_id``."""
        key = session_key(session_id)
        known = self._known.get(key.id)
        if known is not None and user_id in (None, known.owner) and time.monotonic() < known.until:
            return known
        batch = await self._store.get([key])
        header = batch.items[0]
        if header is None:
            raise self._not_found(key, batch)
        if user_id is not None and header.owner != user_id:
            raise self._not_owner(key)
        return self._remember(header)

    def _remember(self, header: Item) -> _Known:
        self._clock.observe(header.version)
        return self._know(header.key.id, header.owner, header.fields.get("generation", ""), header.expires_at)

    def _know(self, session_id: str, owner: str | None, generation: str, expires_at: float | None) -> _Known:
        left = _KNOWN_SECONDS if expires_at is None else expires_at - epoch_seconds()
        until = time.monotonic() + min(left, _KNOWN_SECONDS)
        known = self._known[session_id] = _Known(owner, generation, until)
        self._known.move_to_end(session_id)
        if len(self._known) > _KNOWN_SESSIONS:
            self._known.popitem(last=False)
        return known


def session_key(session_id: str) -> Key:
    """The key of a session's header. Raises InvalidRecord when ``session_id`` is no valid id."""
    key = Key("sessions", plain(session_id))
    key.check()
    return key


def run_key(session_id: str, run_id: str) -> Key:
    """The key of a run. Raises InvalidRecord when an id is not valid."""
    key = Key("runs", plain(run_id), plain(session_id))
    key.check()
    return key


def runs_query(session_id: str) -> Query:
    """The runs of a session, newest first."""
    return Query("runs", parent=plain(session_id), sort="run_index", descending=True)


def belongs(run: Item, header: Item) -> bool:
    """Whether a run is of this session and not of an earlier one of the same id."""
    return of_generation(run, header.fields.get("generation"))


def of_generation(run: Item, generation: str | None) -> bool:
    """Whether a run is of the session of this generation."""
    return generation in (run.fields.get("generation"), ANY_GENERATION)
