"""Writing to the stores of a fan-out: to all at once, by way of the primary, or all or none.

Not here yet: durable hints of the writes that a store missed. Their place is ``_send``, which knows what each store
answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from agno_clouddb.concurrency import gather, gather_outcomes
from agno_clouddb.errors import CloudDBError, ConflictError, PartialWrite, StoreUnavailable
from agno_clouddb.fanout.policy import Acks, combine
from agno_clouddb.stores.base import (
    Batch,
    Condition,
    Delete,
    Failed,
    Item,
    Key,
    Mutation,
    Outcome,
    Put,
    Refused,
    Store,
    Stored,
    decide,
)
from agno_clouddb.stores.clock import HybridClock

__all__ = ["TOMBSTONE_SECONDS", "Writer", "tombstone"]

TOMBSTONE_SECONDS = 7 * 24 * 3600
"""How long a tombstone is kept, in seconds."""

_ATTEMPTS = 5  # how often a write is decided again when the item changes under it

_CONCURRENCY = 16  # how many creations that the primary has refused are looked into at once


def tombstone(key: Key, version: str, now: int) -> Item:
    """What a deletion writes.

    Args:
        key: what is deleted.
        version: the stamp of the deletion.
        now: seconds since the epoch.
    """
    return Item(key, version, expires_at=now + TOMBSTONE_SECONDS, deleted=True)


class Writer:
    """Carries mutations out on all stores.

    Args:
        stores: by name; the first is the primary.
        read: gives the newest version of each key on all stores, be it dead.
        acks: how many stores must have a write.
        clock: stamps what is written to repair what a write has met.
        now: the wall clock in seconds since the epoch.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        read: Callable[[Sequence[Key]], Awaitable[Batch]],
        *,
        acks: Acks,
        clock: HybridClock,
        now: Callable[[], float],
    ) -> None:
        self._stores = dict(stores)
        self._primary, *self._others = self._stores
        self._read = read
        self._acks = acks
        self._clock = clock
        self._now = now

    async def write(
        self, mutations: Sequence[Mutation], checked: Sequence[Outcome | None], *, atomic: bool
    ) -> tuple[Outcome, ...]:
        """What each mutation comes to, in their order.

        Args:
            mutations: the writes.
            checked: of each, what is known without asking a store; None: nothing.
            atomic: all or none.
        """
        outcomes = {n: each for n, each in enumerate(checked) if each is not None}
        open_still = {n: each for n, each in enumerate(mutations) if n not in outcomes}
        if atomic:
            found = {} if outcomes else await self._decided(open_still, outcomes)
            if outcomes:
                return tuple(outcomes.get(n, Refused("atomic")) for n in range(len(mutations)))
            asked = [_of_what_is_there(self._as_put(each), found[n]) for n, each in open_still.items()]
            return tuple(await self._at_once(asked, list(found.values())))
        await self._decided({n: each for n, each in open_still.items() if isinstance(each, Delete)}, outcomes)
        puts = {n: self._as_put(each) for n, each in open_still.items() if n not in outcomes}
        serial = {n for n, put in puts.items() if put.condition.expected is not None}
        for send, group in ((self._write_all, puts.keys() - serial), (self._write_by_primary, serial)):
            if order := sorted(group):
                outcomes.update(zip(order, await send([puts[n] for n in order]), strict=True))
        return tuple(outcomes[n] for n in range(len(mutations)))

    async def _decided(self, mutations: Mapping[int, Mutation], outcomes: dict[int, Outcome]) -> dict[int, str]:
        """Decide mutations against the newest version on any store; what is refused or fails goes into ``outcomes``.

        Returns:
            For each of them the version found, empty where nothing was.
        """
        if not mutations:
            return {}
        try:
            batch = await self._read([each.key for each in mutations.values()])
        except CloudDBError as error:
            outcomes.update(dict.fromkeys(mutations, Failed(error)))
            return {}
        now = int(self._now())
        for (n, mutation), found in zip(mutations.items(), batch.items, strict=True):
            decided = decide(mutation, found, now)
            # Also where a store has this very version: it is sent again since others may not have it. And what is to
            # be deleted may be on a store that has not answered.
            unseen = isinstance(mutation, Delete) and batch.degraded
            if isinstance(decided, Refused) and not (unseen and decided.reason == "absent"):
                outcomes[n] = decided
        return {n: item.version if item else "" for n, item in zip(mutations, batch.items, strict=True)}

    def _as_put(self, mutation: Mutation) -> Put:
        if isinstance(mutation, Put):
            return mutation
        buried = tombstone(mutation.key, mutation.version, int(self._now()))
        return Put(buried, replace(mutation.condition, absent=False))

    async def _write_all(self, puts: Sequence[Put]) -> list[Outcome]:
        """Write to all stores at once, save what is exclusive, which goes to the primary first.

        Nothing dead is written over at first: where a store that missed a deletion forbids what another store lets
        through over a tombstone, or over nothing, only the tombstone tells which of them is out of date.
        """
        outcomes: list[Outcome] = []
        answers, buried = await self._offered(puts)
        for position, (put, by_store) in enumerate(zip(puts, answers, strict=True)):
            outcome = combine(put.key, by_store, self._acks)
            if put.condition.over_dead and _out_of_date(outcome, by_store, buried.get(position, "")):
                by_store = await self._over_the_dead(put, by_store)
                outcome = combine(put.key, by_store, self._acks)
            binding = isinstance(outcome, Refused) and outcome.reason != "older"
            if binding and any(isinstance(each, Stored) for each in by_store.values()):
                outcome = await self._restored(put, by_store, outcome)
            outcomes.append(outcome)
        return outcomes

    async def _offered(self, puts: Sequence[Put]) -> tuple[list[dict[str, Outcome]], dict[int, str]]:
        """What each store answers to each put, the primary first, as long as nothing dead is to be written over.

        Exclusive puts are settled on the primary, also over what is dead, before the other stores are asked; these are
        not asked about what was refused there.

        Returns:
            The answers, and of each exclusive put the version of the deletion that it has written over.
        """
        answers: list[dict[str, Outcome]] = [{} for _ in puts]
        buried: dict[int, str] = {}

        async def send(names: Collection[str], positions: Sequence[int]) -> None:
            if not positions:
                return
            offers = [_not_over_the_dead(puts[position]) for position in positions]
            for name, answer in (await self._send(names, offers)).items():
                for position, outcome in zip(positions, answer, strict=True):
                    answers[position][name] = outcome

        exclusive = [position for position, put in enumerate(puts) if put.condition.exclusive]
        shared = [position for position, put in enumerate(puts) if not put.condition.exclusive]
        await gather([partial(send, self._stores, shared), partial(send, [self._primary], exclusive)])
        first = {n: answers[n][self._primary] for n in exclusive}
        refused = {n: each for n, each in first.items() if isinstance(each, Refused)}
        again = [partial(self._over_a_deletion, puts[n], each) for n, each in refused.items()]
        for n, (answer, version) in zip(refused, await gather(again, limit=_CONCURRENCY), strict=True):
            answers[n][self._primary], buried[n] = answer, version
        # Also where the primary did not answer; but not where it has refused the put, and failed after that.
        going_on = {
            n for n in exclusive if isinstance(first[n], Failed) or isinstance(answers[n][self._primary], Stored)
        }
        await send(self._others, sorted(going_on))
        return answers, buried

    async def _over_a_deletion(self, put: Put, refused: Refused) -> tuple[Outcome, str]:
        """Write to the primary what it has refused, if the newest version on any store is dead.

        Returns:
            What it comes to, and the version of what is dead.
        """
        for _ in range(_ATTEMPTS):
            known: dict[int, Outcome] = {}
            found = await self._decided({0: put}, known)
            if known:
                return known[0], ""
            live = refused.reason not in ("dead", "absent")
            if live and (refused.version or "") >= found[0]:
                return refused, ""
            (answer,) = (await self._send([self._primary], [Put(put.item, _in_place_of(refused))]))[self._primary]
            if not isinstance(answer, Refused):
                return answer, found[0]
            # Somebody else has written to the primary since: what they wrote decides.
            refused = answer
        kept_changing = ConflictError(
            None, refused.version, problem="the item kept changing", store=self._stores[self._primary].name, key=put.key
        )
        return Failed(kept_changing), ""

    async def _write_by_primary(self, puts: Sequence[Put]) -> list[Outcome]:
        """Let the primary decide, and copy what it has stored to the others."""
        outcomes = list((await self._send([self._primary], puts))[self._primary])
        stored = [position for position, outcome in enumerate(outcomes) if isinstance(outcome, Stored)]
        if not stored:
            return outcomes
        copies = [Put(puts[position].item, Condition(over_dead=False)) for position in stored]
        answers = await self._send(self._others, copies)
        for number, position in enumerate(stored):
            by_store = {name: answer[number] for name, answer in answers.items()}
            outcomes[position] = await self._copied(puts[position], outcomes[position], by_store)
        return outcomes

    async def _copied(self, put: Put, decided: Outcome, by_store: Mapping[str, Outcome]) -> Outcome:
        """What a write comes to that the primary has stored, from what its copies came to on the other stores."""
        dead = [each for each in by_store.values() if isinstance(each, Refused) and each.reason == "dead"]
        if dead:
            newest = max(dead, key=lambda each: each.version or "")
            if put.condition.expected is not None and (newest.version or "") > put.condition.expected:
                # Deleted since the version that was expected; the primary has missed it.
                self._clock.observe(max(newest.version or "", put.version))
                again = tombstone(put.key, self._clock.stamp(), int(self._now()))
                await self._send(self._stores, [Put(again)])
                return Refused("absent", newest.version)
            # The primary has decided: what it has stored is copied whatever was expected.
            by_store = await self._over_the_dead(Put(put.item), by_store)
        # A copy refused as older is done: a later write was there before it.
        done = {name: decided if isinstance(each, Refused) else each for name, each in by_store.items()}
        return combine(put.key, {self._primary: decided, **done}, self._acks)

    async def _at_once(self, puts: Sequence[Put], found: Sequence[str]) -> list[Outcome]:
        """All or none: the primary decides, and what it has stored is copied to the others, atomically on each.

        Args:
            puts: what is to be written; against the newest versions found, every condition holds.
            found: these versions, empty where there is nothing.
        """
        outcomes = await self._at_once_by_primary(puts, found)
        copies = {n: Put(puts[n].item) for n, outcome in enumerate(outcomes) if isinstance(outcome, Stored)}
        copied = await gather([partial(self._copy, name, copies) for name in self._others])
        for n, copy in copies.items():
            by_store = {name: answers[n] for name, answers in zip(self._others, copied, strict=True)}
            outcomes[n] = combine(copy.key, {self._primary: outcomes[n], **by_store}, self._acks)
        return outcomes

    async def _at_once_by_primary(self, puts: Sequence[Put], found: Sequence[str]) -> list[Outcome]:
        """What the primary decides; what it holds that is older than what was found forbids nothing."""
        asked, outcomes = list(puts), list[Outcome]()
        for _ in range(_ATTEMPTS):
            outcomes = list((await self._send([self._primary], asked, atomic=True))[self._primary])
            refused = {n: each for n, each in enumerate(outcomes) if isinstance(each, Refused)}
            for n, each in refused.items():
                if asked[n] is not puts[n] and each.reason != "atomic":
                    # Somebody else has written to the primary since: what they wrote decides.
                    asked[n] = puts[n]
                elif each.reason != "atomic" and (each.version or "") < found[n]:
                    asked[n] = Put(puts[n].item, _in_place_of(each))
                elif each.reason != "atomic":
                    return outcomes
            if not refused:
                break
        return outcomes

    async def _copy(self, name: str, copies: Mapping[int, Put]) -> dict[int, Outcome]:
        """Copy to one store what the primary has stored, atomically, but for what is replaced there already."""
        outcomes: dict[int, Outcome] = {}
        rest = dict(copies)
        while rest:
            answers = dict(zip(rest, (await self._send([name], list(rest.values()), atomic=True))[name], strict=True))
            older = {n for n, each in answers.items() if isinstance(each, Refused) and each.reason == "older"}
            if not older:
                failure = next((each for each in answers.values() if isinstance(each, Failed)), None)
                for n, each in answers.items():
                    refused = isinstance(each, Refused)
                    outcomes[n] = failure or self._uncopied(name, copies[n], each) if refused else each
                return outcomes
            # A copy refused as older is done, a later write was there before it; the others are still to be stored.
            outcomes.update({n: Stored(copies[n].version) for n in older})
            rest = {n: copy for n, copy in rest.items() if n not in older}
        return outcomes

    def _uncopied(self, name: str, copy: Put, answer: Outcome) -> Failed:
        store = self._stores[name].name
        return Failed(CloudDBError(f"the copy of a write was answered with {answer}", store=store, key=copy.key))

    async def _over_the_dead(self, put: Put, by_store: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """Write over what is dead and, on stores that missed the deletion, over what lives there still."""
        settled = dict(by_store)
        for name in self._stores:
            refused = by_store.get(name)
            if not isinstance(refused, Refused):
                continue
            condition = put.condition if refused.reason == "dead" else Condition(expected=refused.version)
            (settled[name],) = (await self._send([name], [Put(put.item, condition)]))[name]
        return settled

    async def _send(
        self, names: Collection[str], puts: Sequence[Put], *, atomic: bool = False
    ) -> dict[str, tuple[Outcome, ...]]:
        """What each of these stores answers to the same writes; a store that raises has failed every one of them.

        So also where a store takes a write for the caller's mistake: others may have stored it, as they were asked.
        """
        answers = await gather_outcomes([partial(self._stores[name].write, puts, atomic=atomic) for name in names])
        return {
            name: (Failed(answer),) * len(puts) if isinstance(answer, CloudDBError) else answer
            for name, answer in zip(names, answers, strict=True)
        }

    async def _restored(self, refused: Put, by_store: Mapping[str, Outcome], outcome: Outcome) -> Outcome:
        """Put back what a store holds that forbade a write, on stores that missed it and have let the write through.

        Without this a user could take over another user's record while a store lags. The store that forbade the write
        decides, so that what others write to it meanwhile is not lost.

        Returns:
            The refusal, once the write stands nowhere; else a failure that says that it may.
        """
        holder = next(name for name in self._stores if by_store[name] is outcome)
        others = [name for name in self._stores if name != holder]
        error: CloudDBError | None = None
        for _ in range(_ATTEMPTS):
            (answer,) = await gather_outcomes([partial(self._stores[holder].get, [refused.key])])
            item = answer.items[0] if isinstance(answer, Batch) else None
            if item is None:
                error = answer if isinstance(answer, CloudDBError) else None
                break
            self._clock.observe(max(item.version, refused.version))
            restored = replace(item, version=self._clock.stamp())
            (held,) = (await self._send([holder], [Put(restored, Condition(expected=item.version))]))[holder]
            if isinstance(held, Failed):
                error = held.error
                break
            if isinstance(held, Stored):
                copies = await self._send(others, [Put(restored)])
                failed = [each.error for (each,) in copies.values() if isinstance(each, Failed)]
                if not failed:
                    return outcome
                error = failed[0]
                break
        failure = error or StoreUnavailable("what was to be put back kept changing", store=self._stores[holder].name)
        acked = tuple(name for name, each in by_store.items() if isinstance(each, Stored))
        return Failed(PartialWrite(acked, {holder: failure}, key=refused.key), applied=True)


def _of_what_is_there(put: Put, version: str) -> Put:
    """A put of a transaction; of a deletion, that what it removes is there still, so that only one of several does."""
    if not put.item.deleted or put.condition.expected is not None or not version:
        return put
    return replace(put, condition=replace(put.condition, expected=version))


def _not_over_the_dead(put: Put) -> Put:
    return replace(put, condition=replace(put.condition, over_dead=False))


def _out_of_date(outcome: Outcome, by_store: Mapping[str, Outcome], buried: str) -> bool:
    """Whether all that forbids a write is older than something dead: what a store shows, or ``buried``, a version."""
    if not isinstance(outcome, Refused):
        return False
    versions = [each.version or "" for each in by_store.values() if isinstance(each, Refused)]
    return outcome.reason == "dead" or max(versions) < buried


def _in_place_of(refused: Refused) -> Condition:
    """That a store still holds what it has refused a write for, which is out of date."""
    nothing = refused.reason in ("dead", "absent")
    return Condition(absent=True, exclusive=True) if nothing else Condition(expected=refused.version)
