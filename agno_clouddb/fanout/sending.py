"""Sending: the puts of one write on their way to the stores, with hints of what some of them miss."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from agno_clouddb.concurrency import gather, gather_outcomes
from agno_clouddb.errors import CloudDBError, StoreUnavailable
from agno_clouddb.fanout.circuit import CircuitStore, insisting
from agno_clouddb.fanout.hints import LAST_VERSION, Hint
from agno_clouddb.fanout.lag import Lag
from agno_clouddb.fanout.policy import Acks, combine
from agno_clouddb.stores.base import Condition, Failed, Key, Outcome, Put, Refused, Stored
from agno_clouddb.stores.clock import just_after

__all__ = ["Answers", "Sending", "WriteOptions"]

_CONCURRENCY = 16  # transactions of a put and its hints at once

_HINT_BYTES = 4_096  # more than a hint takes

_LAGGING = "only stores that are known to have missed an earlier write of the record have let this one through"
_OVERTAKEN = "the record was written by another user before it was certain that this write is kept"

_UNHINTED_SECONDS = 365 * 24 * 3600  # how much longer a tombstone is kept of which no hint could be

Answers = dict[str, Outcome]
"""What each store has answered to one put, by the store's name."""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a fan-out writes.

    Args:
        acks: how many stores must have a write.
        failover: while the primary is down, the next store decides what the primary is to decide.
        lag: is told what stores have missed.
        unconfirmed: is given the hints that went out with writes which a store, named by its name, has stored.
    """

    acks: Acks
    failover: bool
    lag: Lag
    unconfirmed: Callable[[str, Sequence[Hint]], None]


@dataclass(slots=True)
class _Missed:
    """One put that some stores have and others have missed.

    Args:
        put: the put.
        unkept: the hints that stores which have it do not keep yet, each with the store.
        hints: those that no store keeps.
        error: why the last store that was asked has not kept one.
    """

    put: Put
    unkept: list[tuple[str, Hint]]
    hints: list[Hint] = field(default_factory=list)
    error: CloudDBError | None = None


class Sending:
    """Sends the puts of one write, and keeps hints of what they miss.

    Args:
        stores: by name; the first is the primary.
        options: how.
    """

    def __init__(self, stores: Mapping[str, CircuitStore], options: WriteOptions) -> None:
        self._stores = stores
        self._options = options
        self._kept: set[tuple[str, Hint]] = set()

    async def send(
        self, names: Collection[str], puts: Sequence[Put], *, atomic: bool = False
    ) -> dict[str, tuple[Outcome, ...]]:
        """What each of these stores answers to the same puts; a store that raises has failed every one of them.

        So also where a store takes a put for the caller's mistake: others may have stored it, as they were asked.

        With a store known to be down, hints go out together with the puts.
        """
        up = [name for name in names if self._stores[name].available]
        down = [name for name, store in self._stores.items() if not store.available]
        calls = [
            partial(self._with_hints, name, puts, down)
            if down and not atomic
            else partial(self._stores[name].write, puts, atomic=atomic)
            for name in up
        ]
        answers: dict[str, tuple[Outcome, ...]] = {
            name: (Failed(self._stores[name].refusal()),) * len(puts) for name in names if name in down
        }
        for name, answer in zip(up, await gather_outcomes(calls), strict=True):
            answers[name] = (Failed(answer),) * len(puts) if isinstance(answer, CloudDBError) else answer
        alone = [name for name in names if name in down] if len(names) == len(self._stores) else []
        if alone and all(isinstance(each, Failed) for outcomes in answers.values() for each in outcomes):
            with insisting():
                calls = [partial(self._stores[name].write, puts, atomic=atomic) for name in alone]
                again = await gather_outcomes(calls)
            for name, answer in zip(alone, again, strict=True):
                answers[name] = (Failed(answer),) * len(puts) if isinstance(answer, CloudDBError) else answer
        return {name: answers[name] for name in names}

    async def _with_hints(self, name: str, puts: Sequence[Put], targets: Sequence[str]) -> tuple[Outcome, ...]:
        """What a store answers to puts that are sent to it together with hints of what other stores miss of them.

        A hint that goes out beside its put is not certain, since the put may be refused. So it must not be kept of what
        may be removed soon, a tombstone or an item with an expiry: these and their hints are stored both or none.
        """
        hints = [[Hint.of(target, put) for target in targets] for put in puts]
        beside = [place for place, put in enumerate(puts) if _stays(put)]
        together = [place for place in range(len(puts)) if place not in set(beside)]
        calls = [partial(self._stored_together, name, puts[place], hints[place]) for place in together]
        if beside:
            calls.insert(0, partial(self._stored_beside, name, [puts[n] for n in beside], [hints[n] for n in beside]))
        answers = [outcome for outcomes in await gather(calls, limit=_CONCURRENCY) for outcome in outcomes]
        return tuple(outcome for _, outcome in sorted(zip([*beside, *together], answers, strict=True), key=_place))

    async def _stored_beside(
        self, name: str, puts: Sequence[Put], hints: Sequence[Sequence[Hint]]
    ) -> tuple[Outcome, ...]:
        unkept = [[hint for hint in each if not self._keeps(name, hint)] for each in hints]
        sent = [Put(hint.sent().to_item()) for each in unkept for hint in each]
        outcomes = await self._stores[name].write([*puts, *sent])
        answers = iter(outcomes[len(puts) :])
        for each, outcome in zip(unkept, outcomes, strict=False):
            kept = [next(answers) for _ in each]
            if isinstance(outcome, Stored):
                # That of a put which is refused tells of nothing, and may be removed at any moment.
                self._note(name, each, kept)
        stored = zip(hints, outcomes, strict=False)
        self._options.unconfirmed(
            name, [hint for each, outcome in stored if isinstance(outcome, Stored) for hint in each]
        )
        return outcomes[: len(puts)]

    async def _stored_together(self, name: str, put: Put, hints: Sequence[Hint]) -> tuple[Outcome, ...]:
        store, unkept = self._stores[name], [hint for hint in hints if not self._keeps(name, hint)]
        kept = [Put(hint.to_item()) for hint in unkept]
        if put.item.size + _HINT_BYTES * len(kept) > store.limits.atomic_bytes:
            return await store.write([put])
        first, *others = await store.write([put, *kept], atomic=True)
        self._note(name, unkept, others)
        if first != Refused("atomic"):
            return (first,)
        failed = next((each for each in others if isinstance(each, Failed)), None)
        # Else a later hint is there already.
        return (failed,) if failed is not None else await store.write([put])

    async def settle(self, puts: Sequence[Put], answers: Sequence[Answers]) -> list[Outcome]:
        """What puts come to, once hints are kept of what stores have missed that others have.

        Args:
            puts: what was sent.
            answers: what all stores have answered to each, the primary first.
        """
        if not any(isinstance(each, Failed) for by_store in answers for each in by_store.values()):
            return [
                combine(put.key, by_store, self._options.acks, {}) for put, by_store in zip(puts, answers, strict=True)
            ]
        missed: dict[int, _Missed] = {}
        behind: set[int] = set()
        for place, (put, by_store) in enumerate(zip(puts, answers, strict=True)):
            keepers = [name for name, each in by_store.items() if isinstance(each, Stored)]
            targets = [name for name, each in by_store.items() if isinstance(each, Failed)]
            hints = [Hint.of(target, put) for target in targets]
            unkept = [(keeper, hint) for keeper in keepers for hint in hints if not self._keeps(keeper, hint)]
            if targets and keepers and _is_guarded(put):
                behind.update({place} if all(self._options.lag.knows(name, put.key) for name in keepers) else ())
            self._options.lag.add(hints if keepers else ())
            if unkept:
                missed[place] = _Missed(put, unkept)
        await self._keep(list(missed.values()))
        for each in missed.values():
            keepers = list(dict.fromkeys(keeper for keeper, _ in each.unkept))
            kept = {hint for _, hint in each.unkept if any(self._keeps(keeper, hint) for keeper in keepers)}
            each.hints = list(dict.fromkeys(hint for _, hint in each.unkept if hint not in kept))
        await self._prolong({n: answers[n] for n, each in missed.items() if each.hints}, puts)
        unhinted: dict[int, dict[str, CloudDBError]] = {
            place: {hint.target: each.error for hint in each.hints if each.error is not None}
            for place, each in missed.items()
        }
        outcomes = [
            combine(put.key, by_store, self._options.acks, unhinted.get(place, {}))
            for place, (put, by_store) in enumerate(zip(puts, answers, strict=True))
        ]
        for place in behind:
            outcomes[place] = _uncertain(outcomes[place], key=puts[place].key, problem=_LAGGING)
        for place in await self._taken_over(puts, {place: answers[place] for place in missed}):
            outcomes[place] = _uncertain(outcomes[place], key=puts[place].key, problem=_OVERTAKEN)
        return outcomes

    async def _taken_over(self, puts: Sequence[Put], answers: Mapping[int, Answers]) -> list[int]:
        """The places of puts that another user's record has replaced before a hint was kept of them.

        Others may have put that record back, as they took the put for one that only a store which lags had let
        through: which a hint would have told them, had it been there.

        Args:
            puts: all puts.
            answers: what the stores have answered, by the places of the puts to look at.
        """
        guarded = [n for n in answers if puts[n].condition.owner is not None and not puts[n].removes]
        asked: dict[str, list[int]] = {}
        for n in guarded:
            keeper = next((name for name, each in answers[n].items() if isinstance(each, Stored)), None)
            if keeper is not None:
                asked.setdefault(keeper, []).append(n)
        calls = [partial(self._stores[name].get, [puts[n].key for n in places]) for name, places in asked.items()]
        overtaken: list[int] = []
        for places, answer in zip(asked.values(), await gather_outcomes(calls), strict=True):
            for place, n in enumerate(places):
                item = None if isinstance(answer, CloudDBError) else answer.items[place]
                foreign = item is not None and item.version > puts[n].version and item.owner != puts[n].item.owner
                if foreign or isinstance(answer, CloudDBError):
                    overtaken.append(n)
        return overtaken

    async def _keep(self, missed: Sequence[_Missed]) -> None:
        """Have every store that has a put keep the hints of it: one suffices, unless it is then lost or silent."""
        asked: dict[str, list[tuple[_Missed, Hint]]] = {}
        for each in missed:
            for keeper, hint in each.unkept:
                asked.setdefault(keeper, []).append((each, hint))
        writes = [partial(self._stores[name].write, _puts(pairs)) for name, pairs in asked.items()]
        for (name, pairs), answer in zip(asked.items(), await gather_outcomes(writes), strict=True):
            outcomes = (Failed(answer),) * len(pairs) if isinstance(answer, CloudDBError) else answer
            self._note(name, [hint for _, hint in pairs], outcomes)
            for (each, _), outcome in zip(pairs, outcomes, strict=True):
                if isinstance(outcome, Failed):
                    each.error = outcome.error

    async def _prolong(self, unhinted: Mapping[int, Answers], puts: Sequence[Put]) -> None:
        """Make tombstones last of which no hint tells once they are gone; where that fails, too, they stay as they are.

        The write has failed, but what it has removed may still be in another store.
        """
        asked: dict[str, list[Put]] = {}
        for place, by_store in unhinted.items():
            item = puts[place].item
            if item.deleted and item.expires_at is not None:
                expires_at = item.expires_at + _UNHINTED_SECONDS
                lasting = replace(item, version=just_after(item.version, item.version), expires_at=expires_at)
                for name, each in by_store.items():
                    if isinstance(each, Stored):
                        asked.setdefault(name, []).append(Put(lasting, Condition(absent=True)))
        await gather_outcomes([partial(self._stores[name].write, lasting) for name, lasting in asked.items()])

    def _keeps(self, name: str, hint: Hint) -> bool:
        return (name, hint) in self._kept

    def _note(self, name: str, hints: Sequence[Hint], outcomes: Sequence[Outcome]) -> None:
        """Remember which hints a store keeps; one refused as older is there in a later version."""
        pairs = zip(hints, outcomes, strict=False)
        kept = [hint for hint, each in pairs if isinstance(each, Stored) or _replaced(each)]
        self._kept.update((name, hint) for hint in kept)
        self._options.lag.add(kept)


def _is_guarded(put: Put) -> bool:
    """Whether what is stored decides if a put is let through."""
    condition = put.condition
    return condition.owner is not None or condition.exclusive or condition.expected not in (None, LAST_VERSION)


def _uncertain(outcome: Outcome, *, key: Key, problem: str) -> Outcome:
    if not isinstance(outcome, Stored):
        return outcome
    error = StoreUnavailable(problem, key=key, remedy="Read the record to see what is stored")
    return Failed(error, applied=True)


def _replaced(outcome: Outcome) -> bool:
    """Whether a hint was refused since a later one is there."""
    return isinstance(outcome, Refused) and outcome.reason == "older"


def _place(answer: tuple[int, Outcome]) -> int:
    return answer[0]


def _stays(put: Put) -> bool:
    """Whether what a put leaves is there until it is written over."""
    return not put.item.deleted and put.item.expires_at is None


def _puts(pairs: Sequence[tuple[_Missed, Hint]]) -> list[Put]:
    return [Put(hint.to_item()) for _, hint in pairs]
