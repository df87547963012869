"""Runs one by one: listed, found, created, changed and deleted without the rest of their session."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.repositories.base import check_consistency, require
from agno_clouddb.repositories.changes import Removal, Upsert
from agno_clouddb.repositories.runs import RUNS_PAGE, Runs, RunWrite, belongs, run_key, runs_query, session_key
from agno_clouddb.stores.base import Batch, Condition, Consistency, Item, Key, Mutation, Put, Query, Refused

__all__ = ["SingleRuns"]

_SESSIONS = 100  # whose headers are read at once
_QUERIES_AT_ONCE = 16


class _RunCreation(RunWrite):
    """Write a run where none is stored, and nowhere else."""

    def __init__(self, key: Key, run: Run, generation: str, *, exclusive: bool) -> None:
        super().__init__(key, run, generation)
        self._exclusive = exclusive

    def mutation(self, version: str) -> Mutation:
        return Put(self._item(version), Condition(absent=True, exclusive=self._exclusive))

    def adapt(self, refused: Refused) -> bool:
        return False


class _RunChange(RunWrite):
    """Write a run over the version of it that was read."""

    def __init__(self, key: Key, run: Run, generation: str, place: str, expected: str) -> None:
        super().__init__(key, run, generation, place)
        self.expected = expected

    def mutation(self, version: str) -> Mutation:
        return Put(self._item(version), Condition(expected=self.expected))


class SingleRuns(Runs):
    """What ``db.sessions`` does with single runs."""

    async def list_runs(
        self, session_id: str, *, user_id: str | None = None, consistency: Consistency | None = None
    ) -> AsyncIterator[Run]:
        """The runs of a session, the newest first, in steps of 500; nothing when there is no such session.

        Args:
            session_id: the session.
            user_id: only when the session belongs to this user.
            consistency: as in ``get``.
        """
        consistency = check_consistency(consistency, self._connection.consistency)
        (header,) = (await self._store.get([session_key(session_id)], consistency=consistency)).items
        if header is None or (user_id is not None and header.owner != user_id):
            return
        query, cursor = runs_query(session_id), None
        while True:
            page = await self._store.query(query, limit=RUNS_PAGE, cursor=cursor, consistency=consistency)
            for item in page.items:
                if belongs(item, header):
                    self._clock.observe(item.version)
                    yield Run.from_item(item)
            cursor = page.cursor
            if cursor is None:
                return

    async def with_runs(self, sessions: Iterable[Session], *, consistency: Consistency | None = None) -> list[Session]:
        """Sessions that were read without their runs, as those of a list, with their runs.

        One query a session for every 500 runs, several at once, and no header is read again: each session is returned
        as it was read, with the runs that it has now; with none when it was deleted since, also when its id was used
        again.

        Args:
            sessions: as they were read.
            consistency: as in ``get``, of the runs.

        Returns:
            Copies of the sessions in the same order, each with all of its runs, oldest first.

        Raises:
            InvalidRecord: a session has no valid id.
            NotProvisioned, Throttled, StoreUnavailable: as in ``get``.
        """
        consistency = check_consistency(consistency, self._connection.consistency)

        async def filled(session: Session) -> Session:
            query = runs_query(session_key(session.session_id).id)
            page = await self._store.query(query, limit=RUNS_PAGE, consistency=consistency)
            return await self._fill(session.model_copy(), page, None, consistency)

        return await gather([partial(filled, session) for session in sessions], limit=_QUERIES_AT_ONCE)

    async def find_run(self, run_id: str, *, consistency: Consistency | None = None) -> Run | None:
        """A run whose session is not known, looked for in one session after the other, the last written first.

        There is no index by run, which would cost each turn a write unit. A hundred sessions cost two requests: so a
        run of late is found at once, and one of long ago, or none, after all sessions were gone through.

        Args:
            run_id: which run.
            consistency: as in ``get``.

        Returns:
            The run; of several of this id that of the session that was written last; None when there is none.

        Raises:
            InvalidRecord, NotProvisioned, Throttled, StoreUnavailable: as in ``get``.
        """
        consistency = check_consistency(consistency, self._connection.consistency)
        query, cursor = Query("sessions", sort="updated_at", descending=True), None
        while True:
            page = await self._store.query(query, limit=_SESSIONS, cursor=cursor, consistency=consistency)
            keys = [run_key(header.key.id, run_id) for header in page.items]
            batch = await self._store.get(keys, consistency=consistency) if keys else Batch(())
            for header, item in zip(page.items, batch.items, strict=True):
                if item is not None and belongs(item, header):
                    self._remember(header)
                    return self._run(item)
            cursor = page.cursor
            if cursor is None:
                return None

    async def create_run(self, session_id: str, run: Run, *, exclusive: bool = True, user_id: str | None = None) -> Run:
        """Add a run to the end of a session, in one request, where none of this id is stored.

        Further arguments and errors are those of ``append_run``.

        Args:
            session_id: the session.
            run: what to write.
            exclusive: of several who create the run at once, one succeeds, also on several stores, which the first of
                them decides before the others are written. False: all stores are written at once.
            user_id: only when the session belongs to this user.

        Raises:
            ConflictError: the session has a run of this id.
        """
        require(Run, run, "run")
        key = run_key(session_id, run.run_id)
        session = await self._require_session(session_id, user_id)
        return await self._apply(_RunCreation(key, self._expiring(run), session.generation, exclusive=exclusive))

    async def update_run(
        self,
        session_id: str,
        run_id: str,
        function: Callable[[Run], Run | None],
        *,
        session: Callable[[Session], Session | None] | None = None,
        user_id: str | None = None,
    ) -> Run:
        """Read a run, change it and write it; begin anew when somebody else has written in between.

        Args:
            session_id: the session.
            run_id: which run.
            function: gets the run and returns the changed one, or changes it in place and returns None. It may be
                called several times and must not wait for anything; what it raises ends the call.
            session: the same for the session's header, which comes without runs: run and header are then written in
                one atomic write, both or neither. On DynamoDB that takes twice the write units.
            user_id: only when the session belongs to this user.

        Returns:
            The run as it is stored.

        Raises:
            RecordNotFound: there is no such session, or no such run in it.
            NotOwner: the session belongs to another user.
            ConflictError: others kept writing in between, for a hundred attempts.
            InvalidRecord, RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``.
        """
        keys = [session_key(session_id), run_key(session_id, run_id)]
        async for attempt in self._attempts():
            with attempt:
                batch = await self._store.get(keys)
                header, item = batch.items
                if header is None or item is None or not belongs(item, header):
                    raise self._not_found(keys[0] if header is None else keys[1], batch)
                if user_id is not None and header.owner != user_id:
                    raise self._not_owner(keys[0])
                self._remember(header)
                change = self._run_change(item, header, function)
                if session is None:
                    return await self._apply(change)
                changed = self._changed(self._read(header), session)
                written: Upsert[Session] = Upsert(keys[0], changed, owner=user_id, expected=header.version)
                stored: Run = (await self._apply_at_once([change, written]))[0]
                return stored
        raise AssertionError("attempts end with a result or an error")

    async def delete_run(self, session_id: str, run_id: str) -> bool:
        """Delete one run, in one request.

        Returns:
            Whether it was there; also True where it may be on a store of a fan-out that does not answer.

        Raises:
            InvalidRecord, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        return not isinstance(await self._attempt(Removal(run_key(session_id, run_id))), Refused)

    def _run_change(self, item: Item, header: Item, function: Callable[[Run], Run | None]) -> _RunChange:
        """What a function makes of a stored run, as a write over that version of it."""
        run = self._run(item)
        changed = self._expiring(_changed_run(run, function))
        return _RunChange(item.key, changed, header.fields.get("generation", ""), run.run_index or "", item.version)

    def _run(self, item: Item) -> Run:
        self._clock.observe(item.version)
        return Run.from_item(item)


def _changed_run(run: Run, function: Callable[[Run], Run | None]) -> Run:
    """What a function makes of a run, with what must not change."""
    key, kept = run.key, {"run_index": run.run_index, "generation": run.generation}
    changed = function(run)
    changed = run if changed is None else changed
    if inspect.iscoroutine(changed):
        changed.close()
    require(Run, changed, "function")
    if changed.key != key:
        raise InvalidRecord("run_id", "must not be changed by the function", collection="runs")
    return changed.model_copy(update=kept)
