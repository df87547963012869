"""Transactions: writes of several records that are stored all or none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from agno_clouddb.errors import InvalidRecord, LifecycleError
from agno_clouddb.records.base import Record
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.records.traces import Span
from agno_clouddb.repositories.base import Connection, Repository, check_version, require
from agno_clouddb.repositories.changes import Change, Creation, Removal, Upsert
from agno_clouddb.repositories.records import Records
from agno_clouddb.repositories.runs import RunWrite, run_key
from agno_clouddb.repositories.traces import Traces
from agno_clouddb.stores.base import Key

__all__ = ["Transaction"]


class Transaction(Repository):
    """Collects writes in an ``async with`` block and sends them at its end, in one atomic write of the store.

    Nothing is sent when the block raises. The store checks every condition in that one write: when one does not hold,
    nothing is stored, and the error of the first that does not is raised. On DynamoDB a transaction costs twice the
    write units. On a fan-out it is decided against what all stores hold, which costs one more read of each, and by the
    primary; then it is copied to the others, atomically on each: a reader of another store may see all of it later,
    but not half of it.

    Made by ``Database.transaction``.

    Attributes:
        results: after the block, what is stored, in the order of the calls; None for a deletion.
    """

    def __init__(self, connection: Connection, repositories: Mapping[str, Records[Any]], traces: Traces) -> None:
        super().__init__(connection)
        self._repositories = repositories
        self._traces = traces
        self._changes: dict[Key, Change[Any]] = {}
        self._open = False
        self.results: tuple[Any, ...] = ()

    def upsert(
        self,
        record: Record,
        *,
        user_id: str | None = None,
        expected_version: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Write a record over what is stored, or over nothing. Arguments are those of the repository's ``upsert``.

        Args:
            record: a session without runs that were never stored, a memory, an evaluation run, a content, a trace, a
                span, a learning, metrics or an entry.
            user_id: see there.
            expected_version: see there.
            expires_in: see there.
            expires_at: see there.

        Raises:
            InvalidRecord: a value that no store can hold; it is of another kind; or the transaction writes it already.
            LifecycleError: the block has ended.
        """
        check_version(expected_version)
        if isinstance(record, Span):
            if user_id is not None or expected_version is not None:
                raise InvalidRecord("user_id, expected_version", "do not go with a span", collection="spans")
            self._add(self._traces._span(record, expires_in, expires_at))
            return
        repository = self._repository_of(record)
        self._add(repository._upsert(record, user_id, expires_in, expires_at, expected_version))

    def create(
        self,
        record: Record,
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Write a record where none is stored under its id; ConflictError at the end of the block when one is.

        Arguments and errors are those of ``upsert``.
        """
        self._add(self._repository_of(record)._creation(record, user_id, expires_in, expires_at))

    def append_run(
        self,
        session: Session,
        run: Run,
        *,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Add a run to the end of a session; a run of the same id is replaced and keeps its place.

        Args:
            session: one that this transaction writes, by ``upsert`` or ``create`` before: so the session is there, and
                its owner is checked, when the run is stored.
            run: what to write.
            expires_in: as in ``db.sessions.append_run``.
            expires_at: as in ``db.sessions.append_run``.

        Raises:
            InvalidRecord: a value that no store can hold, or the transaction does not write the session.
            LifecycleError: the block has ended.
        """
        require(Session, session, "session")
        require(Run, run, "run")
        run.check_types()
        key = run_key(session.session_id, run.run_id)
        written = self._changes.get(session.key)
        if not isinstance(written, Upsert | Creation):
            raise InvalidRecord(
                "session",
                "is not written by this transaction",
                collection="sessions",
                remedy="Call tx.upsert(session) before; outside a transaction, db.sessions.append_run",
            )

        def generation() -> str:
            return written.written.generation or ""

        self._add(RunWrite(key, self._expiring(run, expires_in, expires_at), generation))

    def delete(
        self, kind: type[Record], id: str, *, user_id: str | None = None, expected_version: str | None = None
    ) -> None:
        """Delete a record; RecordNotFound or NotOwner at the end of the block when it is not there to be deleted.

        The runs of a session and the spans of a trace stay: delete these by ``db.sessions`` and ``db.traces``.

        Args:
            kind: the class of the record, such as ``UserMemory``; not one of sessions or traces.
            id: which record.
            user_id: only when it belongs to this user.
            expected_version: only when the stored version is this one.

        Raises:
            InvalidRecord: the id is not valid, the kind is none that can be deleted, or the transaction writes it.
            LifecycleError: the block has ended.
        """
        check_version(expected_version)
        name = getattr(getattr(kind, "collection", None), "name", "")
        if name not in self._repositories or name in ("sessions", "traces"):
            remedy = f"Use db.{name}.delete, which takes their children along" if name in ("sessions", "traces") else ""
            raise InvalidRecord("kind", f"{kind!r} is no kind that a transaction can delete", remedy=remedy)
        removal = Removal(self._repositories[name]._key(id), owner=user_id, expected=expected_version)
        self._add(removal)

    def _repository_of(self, record: object) -> Records[Any]:
        if not isinstance(record, Record) or record.collection.name not in self._repositories:
            raise InvalidRecord(
                "record",
                f"is of type {type(record).__name__}, which a transaction cannot write",
                remedy="Add a run by tx.append_run(session, run)" if isinstance(record, Run) else "",
            )
        return self._repositories[record.collection.name]

    def _add(self, change: Change[Any]) -> None:
        if not self._open:
            raise LifecycleError("the transaction is not open", remedy="Use `async with db.transaction() as tx`")
        if change.key in self._changes:
            raise InvalidRecord(
                str(change.key), "is written twice in one transaction", collection=change.key.collection
            )
        self._changes[change.key] = change

    async def __aenter__(self) -> Self:
        if self._open or self._changes:
            raise LifecycleError("the transaction was begun before", remedy="Begin another one")
        _ = self._store
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        if error is None and self._changes:
            self.results = tuple(await self._apply_at_once(list(self._changes.values())))
