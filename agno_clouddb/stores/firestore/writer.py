"""Writes: one commit when a document is as it was last seen, read again and decided anew when it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError, InvalidRecord, LifecycleError, RecordTooLarge, Throttled
from agno_clouddb.stores.base import Delete, Failed, Key, Mutation, Outcome, Put, Refused, Stored, decide, settled
from agno_clouddb.stores.firestore.client import Connection
from agno_clouddb.stores.firestore.documents import writes_for
from agno_clouddb.stores.firestore.faults import Backoff, Fault
from agno_clouddb.stores.firestore.names import Layout
from agno_clouddb.stores.firestore.reader import Reader
from agno_clouddb.stores.firestore.tokens import Snapshot, Tokens

__all__ = ["Writer"]

_WRITES_PER_BATCH = 500
_CONCURRENT_REQUESTS = 16

Result = tuple[int, int] | Fault | LifecycleError
"""The update time that a write left, in seconds and nanoseconds, or why there is none."""


@dataclass(slots=True)
class _Pending:
    """A mutation under way.

    Args:
        mutation: the write.
        known: what is thought to be stored.
        current: whether ``known`` was read during this call, so that a refusal may rest on it.
        uncertain: whether an earlier attempt may have been applied.
        outcome: what it has come to; None while under way.
        writes: what the next attempt sends, the document's write first.
        chunks: how many chunks the document has after it.
    """

    mutation: Mutation
    known: Snapshot | None
    current: bool = False
    uncertain: bool = False
    outcome: Outcome | None = None
    writes: Sequence[Any] = ()
    chunks: int = 0

    @property
    def key(self) -> Key:
        return self.mutation.key

    @property
    def size(self) -> int:
        """Bytes of ``writes`` in a request, at most."""
        return sum(write.ByteSize() + 16 for write in self.writes)

    def decide(self, now: int) -> Stored | Refused | None:
        if self.known is None and self.uncertain and isinstance(self.mutation, Delete):
            return Stored(self.mutation.version)
        return decide(self.mutation, self.known.item if self.known is not None else None, now)

    @property
    def holds(self) -> bool:
        """Whether the item of this very write is stored."""
        return (
            isinstance(self.mutation, Put)
            and self.known is not None
            and self.known.item.version == self.mutation.version
        )

    def settle(self, outcome: Stored | Refused | None, store: str) -> None:
        self.outcome = settled(self.mutation, outcome, store) if outcome is not None and self.uncertain else outcome

    def fail(self, error: CloudDBError) -> None:
        self.outcome = Failed(error, applied=self.uncertain)


class Writer:
    """Carries mutations out.

    Args:
        connection: where requests go.
        reader: reads what is stored when a precondition has failed.
        layout: where the documents are.
        tokens: what was last seen of each document.
        name: the store's name, for errors.
        request_bytes: the largest request.
        now: the wall clock in seconds since the epoch.
    """

    def __init__(
        self,
        connection: Connection,
        reader: Reader,
        layout: Layout,
        tokens: Tokens,
        *,
        name: str,
        request_bytes: int,
        now: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._layout = layout
        self._tokens = tokens
        self._name = name
        self._request_bytes = request_bytes
        self._now = now

    async def write(self, mutations: Sequence[Mutation], until: float, *, atomic: bool) -> list[Outcome]:
        """What each mutation comes to, in their order.

        Raises:
            InvalidRecord: an atomic write is over the size of a request. Nothing was written.
        """
        work = [_Pending(each, self._tokens.get(each.key)) for each in mutations]
        backoff = Backoff(until)
        met: Fault | None = None
        while pending := [each for each in work if each.outcome is None]:
            try:
                decided = await self._decide(pending, until, atomic=atomic)
            except Fault as fault:
                why = fault.after(met)
                for each in pending:
                    each.fail(why.error(self._name, key=each.key) if why is fault else self._unfinished(each, why))
                break
            except CloudDBError as error:
                for each in pending:
                    each.fail(error)
                break
            ready = self._ready(pending, decided, atomic=atomic)
            if not ready:
                continue
            current = any(each.current for each in ready)
            sent = await self._send(ready, until, atomic=atomic)
            met = None if sent is None else sent.after(met)
            if met is not None and not await backoff.pause():
                for each in pending:
                    if each.outcome is None:
                        each.fail(self._unfinished(each, met))
            if met is not None and not met.transient and not current:
                # That a document is not as it was last seen, before this call, is nobody's contention yet.
                met = None
        return [each.outcome for each in work if each.outcome is not None]

    def check(self, mutations: Sequence[Mutation]) -> None:
        """Raise InvalidRecord when an atomic write is over the size of a request, by what is known of the documents."""
        work = [_Pending(each, self._tokens.get(each.key)) for each in mutations]
        for each in work:
            each.writes, each.chunks = writes_for(each.mutation, each.known, self._layout)
        self._check_commit(work)

    def _check_commit(self, ready: Sequence[_Pending]) -> None:
        if (size := sum(each.size for each in ready)) > self._request_bytes:
            raise InvalidRecord("mutations", f"{size} bytes in one commit, over the limit of {self._request_bytes}")

    async def _decide(
        self, pending: Sequence[_Pending], until: float, *, atomic: bool
    ) -> list[Stored | Refused | None]:
        """What each comes to; None when it is to be applied.

        What is stored is read first where the last attempt found it changed, or where what is known refuses the write:
        for an atomic write all is read then, so that each refusal is reported and not only the first.
        """
        now = self._now()
        decided = [each.decide(now) for each in pending]
        stale = [
            each
            for each, outcome in zip(pending, decided, strict=True)
            if not each.current and (outcome is not None or each.writes)
        ]
        if not stale:
            return decided
        if atomic:
            stale = list(pending)
        heads = await self._reader.heads([each.key for each in stale], until)
        for each in stale:
            each.known = heads.get(each.key)
            each.current = True
        return [each.decide(now) for each in pending]

    def _ready(
        self, pending: Sequence[_Pending], decided: Sequence[Stored | Refused | None], *, atomic: bool
    ) -> list[_Pending]:
        """Those to be applied; the others get their outcome here, which in an atomic write waits for all."""
        pairs = list(zip(pending, decided, strict=True))
        if atomic and any(each.uncertain and each.holds for each in pending):
            # An earlier attempt was applied after all, and so to all of them, whatever has happened since.
            for each in pending:
                each.outcome = Stored(each.mutation.version)
            return []
        if atomic and any(isinstance(outcome, Refused) for outcome in decided):
            for each, outcome in pairs:
                each.settle(outcome if isinstance(outcome, Refused) else Refused("atomic"), self._name)
            return []
        ready = [each for each, outcome in pairs if outcome is None]
        if not (atomic and ready):
            for each, outcome in pairs:
                each.settle(outcome, self._name)
        for each in ready:
            each.writes, each.chunks = writes_for(each.mutation, each.known, self._layout)
        return ready if atomic else [each for each in ready if self._fits(each)]

    def _fits(self, each: _Pending) -> bool:
        if each.chunks and (size := each.size) > self._request_bytes:
            each.fail(RecordTooLarge(size, self._request_bytes, store=self._name, key=each.key))
            return False
        return True

    async def _send(self, ready: Sequence[_Pending], until: float, *, atomic: bool) -> Fault | None:
        """One attempt; a fault after which another one may help."""
        if atomic or len(ready) == 1:
            if atomic:
                self._check_commit(ready)
            return await self._commit(ready, until)
        batches = self._batches(each for each in ready if len(each.writes) == 1)
        requests = [partial(self._batch, batch, until) for batch in batches]
        requests += [partial(self._commit, [each], until) for each in ready if len(each.writes) > 1]
        faults = await gather(requests, limit=_CONCURRENT_REQUESTS)
        return next((fault for fault in faults if fault is not None), None)

    def _batches(self, singles: Iterable[_Pending]) -> Iterator[list[_Pending]]:
        batch: list[_Pending] = []
        total = 0
        for each in singles:
            size = each.size
            if batch and (len(batch) == _WRITES_PER_BATCH or total + size > self._request_bytes):
                yield batch
                batch, total = [], 0
            batch.append(each)
            total += size
        if batch:
            yield batch

    async def _commit(self, group: Sequence[_Pending], until: float) -> Fault | None:
        writes = [write for each in group for write in each.writes]
        try:
            times = await self._connection.commit(writes, until)
        except (Fault, LifecycleError) as error:
            return self._settle(group, [error] * len(group))
        firsts = accumulate((len(each.writes) for each in group), initial=0)
        return self._settle(group, [times[first] for first in firsts if first < len(times)])

    async def _batch(self, group: Sequence[_Pending], until: float) -> Fault | None:
        writes = [each.writes[0] for each in group]
        try:
            return self._settle(group, await self._connection.batch_write(writes, until))
        except (Fault, LifecycleError) as error:
            return self._settle(group, [error] * len(group))

    def _settle(self, group: Sequence[_Pending], results: Sequence[Result]) -> Fault | None:
        """Turn results into outcomes; a fault after which another attempt may help."""
        last: Fault | None = None
        for each, result in zip(group, results, strict=True):
            if isinstance(result, tuple):
                self._applied(each, result)
            elif isinstance(result, LifecycleError):
                each.outcome = Failed(result, applied=True)
            elif result.conflict or result.transient:
                each.current = False
                each.uncertain = each.uncertain or result.unknown
                last = result
            else:
                each.fail(result.error(self._name, key=each.key))
        return last

    def _applied(self, done: _Pending, update_time: tuple[int, int]) -> None:
        done.outcome = Stored(done.mutation.version)
        if isinstance(done.mutation, Put):
            self._tokens.keep(Snapshot(done.mutation.item, update_time, done.chunks))
        else:
            self._tokens.forget(done.key)

    def _unfinished(self, each: _Pending, fault: Fault) -> CloudDBError:
        if not fault.conflict:
            return fault.error(self._name, key=each.key)
        error = Throttled(
            f"other writers kept changing the document until the deadline; Firestore answered {fault}",
            store=self._name,
            key=each.key,
            remedy="Spread the writes over time or over documents",
        )
        error.__cause__ = fault.cause
        return error
