"""Defects: coordinators that are wrong on purpose. The rules are worth something if they catch each of them.

A new rule of the coordinator gets a defect here: a function that patches it, entered in DEFECTS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from unittest import mock

from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout import flow, hints, merge, parallel, policy, replicas, sending, writer
from agno_clouddb.fanout import store as fanout
from agno_clouddb.fanout.circuit import CircuitStore
from agno_clouddb.fanout.hints import Hint
from agno_clouddb.fanout.lag import Lag
from agno_clouddb.fanout.portions import Portions
from agno_clouddb.fanout.reconcile import Reconciler, Reconciliation
from agno_clouddb.fanout.replay import Replay
from agno_clouddb.fanout.replicas import Copies, Replicas
from agno_clouddb.fanout.sending import Answers, Sending
from agno_clouddb.stores.base import Delete, Failed, Item, Key, Mutation, Outcome, Put, Refused, Store, Stored
from agno_clouddb.stores.clock import HybridClock, version_millis

__all__ = ["DEFECTS"]

T = TypeVar("T")
Defect = Callable[[], AbstractContextManager[object]]


def hint_dropped() -> AbstractContextManager[object]:
    """Nothing is kept of what a store has missed, and the write is acknowledged."""

    async def settle(self: Sending, puts: Sequence[Put], answers: Sequence[Answers]) -> list[Outcome]:
        pairs = zip(puts, answers, strict=True)
        return [policy.combine(put.key, by_store, self._options.acks, {}) for put, by_store in pairs]

    async def without_hints(
        self: Sending, name: str, puts: Sequence[Put], targets: Sequence[str]
    ) -> tuple[Outcome, ...]:
        return await self._stores[name].write(puts)

    return mock.patch.multiple(Sending, settle=settle, _with_hints=without_hints)


def acknowledged_without_a_hint() -> AbstractContextManager[object]:
    """A write is acknowledged though no store takes the hint of it."""
    right = policy.combine
    return mock.patch(
        "agno_clouddb.fanout.sending.combine", lambda key, outcomes, acks, _: right(key, outcomes, acks, {})
    )


def hint_after_the_answer() -> AbstractContextManager[object]:
    """The hint is stored when the caller has its answer already."""
    right = Sending._keep

    async def keep(self: Sending, waiting: Sequence[sending._Missed]) -> None:
        copies = [sending._Missed(each.put, list(each.unkept)) for each in waiting]
        for each in waiting:
            self._kept.update(each.unkept)

        async def later() -> None:
            await asyncio.sleep(3)
            await right(self, copies)

        _kept_alive.append(asyncio.ensure_future(later()))

    return mock.patch.object(Sending, "_keep", keep)


def hint_that_forgets_a_removal() -> AbstractContextManager[object]:
    """Every hint looks like that of a write after which something is left."""
    return mock.patch.object(Hint, "of", classmethod(lambda cls, target, put: cls(target, put.key, put.version, False)))


def hint_removed_without_condition() -> AbstractContextManager[object]:
    """A replay removes hints unseen, and so also one that came in meanwhile, of what it has not brought."""

    async def brought(self: Portions, keys: Sequence[Key], **options: Any) -> list[object]:
        mended = await right(self, keys, **options)
        for each in mended:
            each.failed.clear()
            each.complete = True
            each.answered = frozenset(self._replicas.stores)
        return list(mended)

    async def remove(store: Store, done: Iterable[Hint]) -> dict[Hint, CloudDBError]:
        removals = [Delete(hints.hint_key(h.target, h.key, certain=h.certain), hints.LAST_VERSION) for h in done]
        if removals:
            await store.write(removals)
        return {}

    right = Portions.mend
    return _all(mock.patch.object(hints, "remove", remove), mock.patch.object(Portions, "mend", brought))


def no_tombstone() -> AbstractContextManager[object]:
    """A deletion removes what is there, and leaves nothing that tells of it."""
    right = CircuitStore.write

    def removal(mutation: Mutation) -> Mutation:
        if isinstance(mutation, Put) and mutation.item.deleted:
            return Delete(mutation.key, mutation.version, mutation.condition)
        return mutation

    async def write(self: CircuitStore, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        return await right(self, [removal(each) for each in mutations], atomic=atomic)

    return mock.patch.object(CircuitStore, "write", write)


def clock_that_looks_at_nobody_else() -> AbstractContextManager[object]:
    """Stamps follow the wall clock alone; what is refused as older counts as stored."""

    async def settle(self: Sending, puts: Sequence[Put], answers: Sequence[Answers]) -> list[Outcome]:
        return await right(self, puts, [_older_is_done(put, each) for put, each in zip(puts, answers, strict=True)])

    right = Sending.settle
    observe = mock.patch.object(HybridClock, "observe", return_value=True)
    return _all(observe, mock.patch.object(Sending, "settle", settle))


def older_counts_as_stored() -> AbstractContextManager[object]:
    """A write that is refused as older is not stamped anew but acknowledged."""
    right = Sending.settle

    async def settle(self: Sending, puts: Sequence[Put], answers: Sequence[Answers]) -> list[Outcome]:
        return await right(self, puts, [_older_is_done(put, each) for put, each in zip(puts, answers, strict=True)])

    return mock.patch.object(Sending, "settle", settle)


def repair_without_condition() -> AbstractContextManager[object]:
    """What is copied to a store wins whatever that holds by then."""
    right = replicas._correction

    def correction(top: Item, item: Item | None) -> Mutation | None:
        made = right(top, item)
        millis = version_millis(top.version) + 60_000
        stamp = HybridClock("f" * 12, now=lambda: millis).stamp()
        return replace(made, item=replace(made.item, version=stamp)) if isinstance(made, Put) else made

    return mock.patch.object(replicas, "_correction", correction)


def page_without_looking_up() -> AbstractContextManager[object]:
    """What one store alone lists is listed."""
    return mock.patch.object(merge, "undecided", return_value=())


def unknown_counts_as_stored() -> AbstractContextManager[object]:
    """A store that did not answer a write is taken to have it."""
    right = CircuitStore.write

    async def write(self: CircuitStore, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        outcomes = await right(self, mutations, atomic=atomic)
        unknown = [isinstance(each, Failed) and each.applied for each in outcomes]
        pairs = zip(mutations, outcomes, unknown, strict=True)
        return tuple(Stored(mutation.version) if lost else each for mutation, each, lost in pairs)

    return mock.patch.object(CircuitStore, "write", write)


def acknowledged_before_the_store_has_it() -> AbstractContextManager[object]:
    """Only the first store is waited for, and the others count as having the write."""
    right = Sending.send

    async def send(
        self: Sending, names: Collection[str], puts: Sequence[Put], *, atomic: bool = False
    ) -> dict[str, tuple[Outcome, ...]]:
        first, *others = names
        if others:
            _kept_alive.append(asyncio.ensure_future(right(self, others, puts, atomic=atomic)))
        answers = await right(self, [first], puts, atomic=atomic)
        return {**answers, **{name: tuple(Stored(put.version) for put in puts) for name in others}}

    return mock.patch.object(Sending, "send", send)


def lost_on_cancel() -> AbstractContextManager[object]:
    """A cancelled call leaves off where it is, and says that it has written."""

    async def interrupted(call: Callable[[], Awaitable[T]]) -> T:
        return await call()

    right = CircuitStore.write

    async def write(self: CircuitStore, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        try:
            return await right(self, mutations, atomic=atomic)
        except asyncio.CancelledError:
            return tuple(Stored(each.version) for each in mutations)

    return _all(
        mock.patch.object(fanout, "uninterrupted", interrupted), mock.patch.object(CircuitStore, "write", write)
    )


def expired_is_copied() -> AbstractContextManager[object]:
    """A repair copies what has expired."""
    return mock.patch.object(Replicas, "_lasting", lambda self, copies: copies.newest)


def removal_not_traced() -> AbstractContextManager[object]:
    """A replay takes what has vanished from its source for what was never there."""

    async def nothing(self: Replicas, found: Iterable[Copies]) -> None:
        """Ask no hints."""

    return mock.patch.object(Replicas, "trace_removals", nothing)


def checkpoint_without_a_store() -> AbstractContextManager[object]:
    """A comparison that failed counts as made."""
    right = Reconciler.run

    async def run(self: Reconciler, **options: object) -> Reconciliation:
        try:
            return await right(self, **options)  # type: ignore[arg-type]
        except CloudDBError:
            await self._notes.save("checkpoint", {"at": self._replicas.now})
            await self._notes.save("full", {})
            raise

    return mock.patch.object(Reconciler, "run", run)


def degraded_not_said() -> AbstractContextManager[object]:
    """A read without one of the stores looks like one with all."""
    return mock.patch.object(fanout.FanOutStore, "_degraded", return_value=False)


def any_store_decides() -> AbstractContextManager[object]:
    """A write that expects a version goes to all stores at once."""
    return mock.patch.object(writer, "_needs_decision", return_value=False)


def lag_forgotten() -> AbstractContextManager[object]:
    """A store that is known to have missed a write is read alone."""
    return mock.patch.object(Lag, "lacks", return_value=False)


def nothing_put_back() -> AbstractContextManager[object]:
    """What a lagging store has let through stays, though the write is refused."""

    async def restored(self: flow.Flow, put: Put, by_store: Answers, holder: str) -> Outcome:
        return by_store[holder]

    return mock.patch.object(flow.Flow, "_restored", restored)


def dead_written_over() -> AbstractContextManager[object]:
    """A put is let through over a tombstone, and nobody asks which store has missed the deletion."""

    async def nobody(self: flow.Flow, put: Put, refused: Mapping[str, Refused], others: Sequence[str]) -> set[str]:
        return set()

    overwriting = mock.patch.object(parallel, "_not_over_the_dead", lambda put: put)
    return _all(overwriting, mock.patch.object(flow.Flow, "_missed_later", nobody))


def one_store_read() -> AbstractContextManager[object]:
    """A merged read looks at the first store that answers."""
    right = Replicas.ask

    async def ask(
        self: Replicas, call: Callable[[Store], Awaitable[T]], names: Collection[str] | None = None, *, needed: int = 1
    ) -> dict[str, T]:
        answers: Mapping[str, T] = await right(self, call, names, needed=needed)
        first = next(iter(answers))
        return dict.fromkeys(answers, answers[first])

    return mock.patch.object(Replicas, "ask", ask)


def stale_in_the_page() -> AbstractContextManager[object]:
    """Where stores differ, the older version wins."""

    def oldest(items: Iterable[Item | None]) -> Item | None:
        return min((item for item in items if item is not None), key=lambda item: item.version, default=None)

    return mock.patch("agno_clouddb.fanout.replicas.newest", oldest)


_kept_alive: list[asyncio.Future[object]] = []


def _older_is_done(put: Put, answers: Answers) -> Answers:
    return {
        name: Stored(put.version) if isinstance(each, Refused) and each.reason == "older" else each
        for name, each in answers.items()
    }


@contextmanager
def _all(*patches: AbstractContextManager[object]) -> Iterator[None]:
    with patches[0], patches[1]:
        yield


def late_hint_overlooked() -> AbstractContextManager[object]:
    """A hint that reaches its store after all others were replayed is not looked for."""

    async def nothing(self: Replay, target: str) -> None:
        """Look no more."""

    return mock.patch.object(Replay, "_look_again", nothing)


DEFECTS: Mapping[str, Defect] = {
    each.__name__: each
    for each in (
        hint_dropped,
        acknowledged_without_a_hint,
        hint_after_the_answer,
        hint_that_forgets_a_removal,
        hint_removed_without_condition,
        no_tombstone,
        clock_that_looks_at_nobody_else,
        older_counts_as_stored,
        repair_without_condition,
        page_without_looking_up,
        unknown_counts_as_stored,
        acknowledged_before_the_store_has_it,
        lost_on_cancel,
        expired_is_copied,
        removal_not_traced,
        checkpoint_without_a_store,
        degraded_not_said,
        any_store_decides,
        lag_forgotten,
        nothing_put_back,
        dead_written_over,
        one_store_read,
        stale_in_the_page,
        late_hint_overlooked,
    )
}
"""Each defect by its name, as a context in which the coordinator has it."""
