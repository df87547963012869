"""db.traces: traces and their spans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypedDict, Unpack

from agno_clouddb.records.traces import Trace
from agno_clouddb.repositories.base import Page
from agno_clouddb.repositories.changes import Removal
from agno_clouddb.repositories.listing import Filter, Lists
from agno_clouddb.repositories.merging import Combination, Merge, combined, timed
from agno_clouddb.repositories.spans import Spans, spans_query
from agno_clouddb.stores.base import Consistency, Refused

__all__ = ["SessionTraces", "TraceFilters", "Traces"]

Sort = Literal["start_time", "-start_time"]


class TraceFilters(TypedDict, total=False):
    """What a list of traces may be narrowed by; a filter that is None or not given does not narrow."""

    session_id: str | None
    """Only traces of this session."""
    user_id: str | None
    """Only this user's traces."""
    run_id: str | None
    """Only traces of this run."""
    agent_id: str | None
    """Only traces of this agent."""
    team_id: str | None
    """Only traces of this team."""
    workflow_id: str | None
    """Only traces of this workflow."""
    status: str | Sequence[str] | set[str] | frozenset[str] | None
    """Only traces with this status, or with one of these."""
    started_from: datetime | None
    """Only traces that began at this moment or later."""
    started_to: datetime | None
    """Only traces that began before this moment."""
    ended_from: datetime | None
    """Only traces that ended at this moment or later."""
    ended_to: datetime | None
    """Only traces that ended before this moment."""
    created_from: datetime | None
    """Only traces first written at this moment or later."""
    created_to: datetime | None
    """Only traces first written before this moment."""


@dataclass(frozen=True, slots=True)
class SessionTraces:
    """What traces there are of one session.

    Args:
        session_id: the session.
        total_traces: how many traces.
        first_trace_at: when the first of them began.
        last_trace_at: when the last of them began.
    """

    session_id: str
    total_traces: int
    first_trace_at: datetime
    last_trace_at: datetime


class Traces(Spans):
    """Traces and their spans. Reads are strongly consistent unless the call or the Database says otherwise."""

    lists = Lists(
        Trace,
        filters={
            "session_id": Filter("equal", "session_id"),
            "user_id": Filter("equal", "user_id"),
            "run_id": Filter("equal", "run_id"),
            "agent_id": Filter("equal", "agent_id"),
            "team_id": Filter("equal", "team_id"),
            "workflow_id": Filter("equal", "workflow_id"),
            "status": Filter("any", "status"),
            "started_from": Filter("from", "start_time"),
            "started_to": Filter("to", "start_time"),
            "ended_from": Filter("from", "end_time"),
            "ended_to": Filter("to", "end_time"),
            "created_from": Filter("from", "created_at"),
            "created_to": Filter("to", "created_at"),
        },
        sorts=("start_time",),
    )

    async def upsert_trace(
        self,
        trace: Trace,
        *,
        user_id: str | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
        combine: Combination = combined,
    ) -> Trace:
        """Write a trace, or merge it with the part of it that is stored, as when its spans come in several batches.

        The earliest start and the latest end count, ``total_spans`` and ``error_count`` are added up, ``ERROR`` goes
        before ``OK`` and that before any other status, and what says where the trace belongs (run, session, user,
        agent, team, workflow) stays as it was first given. The name is that of the part which belongs to a workflow,
        else to a team, else to an agent, else the first. So the order of the parts does not matter, unless they
        contradict each other. One request for a new trace, three for one that is there.

        Args:
            trace: what to write, or to add.
            user_id: only when the stored trace belongs to this user, or to nobody, in which case it is claimed. A part
                that merely names another user leaves the trace with the user who had it first.
            expires_in: as in ``upsert``; the later of this and the stored expiry holds.
            expires_at: likewise, as a moment.
            combine: makes of the stored trace and this part what is stored then; by default what is said above. It may
                be called several times and must not wait for anything.

        Returns:
            What is stored.

        Raises:
            NotOwner: the stored trace belongs to another user.
            InvalidRecord: it ends before it starts, or has a value that no store can hold.
            ConflictError: others kept writing in between, for a hundred attempts.
            RecordTooLarge, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as in ``upsert``. After an error
                which leaves open whether the trace was written, a repetition may count its spans twice.
        """
        trace, _ = self._owned(trace, user_id)
        key = trace.key
        trace = self._expiring(trace, expires_in, expires_at)
        first = Merge(key, trace, user_id, combine)
        outcome = await self._attempt(first)
        if not isinstance(outcome, Refused):
            return first.result(outcome.version)
        if outcome.reason != "exists":
            raise first.error(outcome, self._store.name)
        async for attempt in self._attempts():
            with attempt:
                item = (await self._store.get([key])).items[0]
                stored = self._read(item) if item is not None else None
                return await self._apply(Merge(key, trace, user_id, combine, stored))
        raise AssertionError("attempts end with a result or an error")

    async def list(
        self,
        *,
        sort: Sort = "-start_time",
        limit: int = 20,
        cursor: str | None = None,
        consistency: Consistency | None = None,
        **filters: Unpack[TraceFilters],
    ) -> Page[Trace]:
        """One page of traces without their spans, the same on every store.

        Args:
            sort: ``-start_time`` for the latest first, or ``start_time``. Equal moments are ordered by trace id.
            limit: how many, 1 to 1,000. The page is full while there is more.
            cursor: go on after the page that carried it, with the same filters and sort.
            consistency: as in ``get``.
            **filters: what to list, see ``TraceFilters``; all of them must hold.

        Raises:
            InvalidRecord: an argument is unknown or out of its range, or the cursor is of another list.
            QueryNotIndexed, IndexNotReady, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        return await self._page(self.lists.listing(filters, sort), limit, cursor, consistency)

    async def iterate(
        self,
        *,
        sort: Sort = "-start_time",
        page_size: int = 100,
        consistency: Consistency | None = None,
        **filters: Unpack[TraceFilters],
    ) -> AsyncIterator[Trace]:
        """All traces that ``list`` would list, holding one page of ``page_size`` at a time."""
        async for trace in self._iterate(self.lists.listing(filters, sort), page_size, consistency):
            yield trace

    async def count(self, **filters: Unpack[TraceFilters]) -> int:
        """How many traces ``list`` would list. Arguments and errors are those of ``list``.

        Counted by the store; what has expired and the service has not removed yet may be included.
        """
        return await self._count(filters)

    async def stats(self, **filters: Unpack[TraceFilters]) -> tuple[SessionTraces, ...]:
        """What traces there are of each session, the session of the latest first.

        Counted by the store where it can, as ``count`` is; traces of no session are left out. Arguments and errors are
        those of ``list``.
        """
        tallies = await self._store.tally(self.lists.listing(filters, "start_time").query, "session_id")
        stats = [
            SessionTraces(name, each.count, datetime.fromisoformat(each.first), datetime.fromisoformat(each.last))
            for name, each in tallies.items()
        ]
        return tuple(sorted(stats, key=lambda each: (each.last_trace_at, each.session_id), reverse=True))

    async def delete(self, id: str, *, user_id: str | None = None) -> bool:
        """Delete a trace and its spans. The spans go first, so that the call can be repeated when it fails.

        Args:
            id: which trace.
            user_id: only when it belongs to this user, which is looked up first; then one that belongs to nobody, or
                is not stored, is left as it is, with its spans.

        Returns:
            Whether it was there, and this user's.

        Raises:
            BulkWriteError: some spans could not be deleted.
            InvalidRecord, PartialWrite, NotProvisioned, Throttled, StoreUnavailable: as the store says.
        """
        key = self._key(id)
        if user_id is not None:
            item = (await self._store.get([key])).items[0]
            if item is None or item.owner != user_id:
                return False
        await self._clear(spans_query(id), None, None)
        return not isinstance(await self._attempt(Removal(key, owner=user_id)), Refused)

    async def delete_many(
        self, ids: Iterable[str], *, user_id: str | None = None, progress: Callable[[int], None] | None = None
    ) -> int:
        """Delete traces and their spans, several at a time. Arguments are those of ``delete``.

        Returns:
            How many traces were there, and this user's.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. Repeat the call.
        """
        return await self._delete_each(ids, user_id, progress)

    def _owned(self, record: Trace, user_id: str | None) -> tuple[Trace, str | None]:
        owned, owner = super()._owned(record, user_id)
        return timed(owned), owner

    def _changed(self, record: Trace, function: Callable[[Trace], Trace | None]) -> Trace:
        before = (record.start_time, record.end_time)
        changed = super()._changed(record, function)
        moved = (changed.start_time, changed.end_time) != before
        return timed(changed.model_copy(update={"duration_ms": None}) if moved else changed)
