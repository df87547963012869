"""FanOutStore: the coordinator, a Store over several Stores.

A write goes to all stores in parallel with one version; a read goes to all in parallel and is merged. When some do not
answer, writes are acknowledged by those that do (or raise PartialWrite with ``acks="all"``), and reads give what those
hold and say that they are degraded.

Not here yet: durable hints of the writes that a store missed (their place is ``_write_all`` and ``_write_by_primary``,
which know what each store answered), repair of stale copies (``get`` and ``_winners``, which see every version), and
reconciliation. Until then a store that missed writes catches up only as its keys are written again; merged reads are
right in the meantime, as long as the store that has the write can be reached.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from agno_clouddb.concurrency import gather, gather_outcomes, uninterrupted
from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    LifecycleError,
    NotProvisioned,
    PartialWrite,
    StoreUnavailable,
)
from agno_clouddb.fanout import merge
from agno_clouddb.fanout.circuit import CALLERS_FAULT, CircuitStore
from agno_clouddb.fanout.policy import Acks, combine
from agno_clouddb.stores.base import (
    Batch,
    Condition,
    Consistency,
    Cursor,
    Delete,
    Failed,
    Item,
    Key,
    Limits,
    Mutation,
    Outcome,
    Page,
    Progress,
    Put,
    Query,
    Refused,
    Store,
    Stored,
    check_write,
    chosen,
    decide,
)
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.query import order_of

__all__ = ["TOMBSTONE_SECONDS", "FanOutStore", "distinct_names"]

T = TypeVar("T")

TOMBSTONE_SECONDS = 7 * 24 * 3600
"""How long a tombstone is kept, in seconds."""

_COUNT_PAGE = 500
_RESTORE_ATTEMPTS = 5


class FanOutStore(Store):
    """Writes to all of its stores, reads from all of them and merges.

    Args:
        stores: two or more; the first is the primary, which decides writes that expect a version.
        acks: 1: a write counts as stored when one store has it; ``"all"``: only when all have it.
        clock: stamps what the coordinator itself writes; share the one that stamps the callers' writes.
        now: the wall clock in seconds since the epoch; replaced in simulations.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        acks: Acks = 1,
        clock: HybridClock | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if len(stores) < 2:
            raise ConfigurationError(f"a fan-out is over two or more stores, not {len(stores)}")
        if acks not in (1, "all"):
            raise ConfigurationError(f'acks is {acks!r}, neither 1 nor "all"')
        self.stores = tuple(stores)
        self._circuits = tuple(CircuitStore(store) for store in stores)
        self._names = distinct_names([store.name for store in stores])
        self.name = " + ".join(self._names)
        self.limits = Limits(
            payload_bytes=min(store.limits.payload_bytes for store in stores),
            atomic_items=min(store.limits.atomic_items for store in stores),
            atomic_bytes=min(store.limits.atomic_bytes for store in stores),
        )
        self.degraded_reads = 0
        self._acks = acks
        self._clock = clock or HybridClock()
        self._now = now
        self._is_open = False

    async def open(self) -> None:
        opened: list[Store] = []
        try:
            for store in self.stores:
                await store.open()
                opened.append(store)
        except BaseException:
            await uninterrupted(partial(gather_outcomes, [store.aclose for store in opened]))
            raise
        self._is_open = True

    async def aclose(self) -> None:
        self._is_open = False
        errors = await gather_outcomes([store.aclose for store in self.stores])
        for error in errors:
            if isinstance(error, CloudDBError):
                raise error

    async def provision(
        self,
        collections: Collection[str] | None = None,
        *,
        wait_for_indexes: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Provision all stores at once; the error of one is raised when the others have come to their end."""
        names = chosen(collections)
        await self._ask(
            lambda store: store.provision(names, wait_for_indexes=wait_for_indexes, progress=progress),
            needed=len(self.stores),
        )

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        batches = await self._ask(lambda store: store.get(keys, consistency=consistency, dead=True))
        now = int(self._now())
        found = (merge.newest(each) for each in zip(*(batch.items for batch in batches.values()), strict=True))
        items = tuple(item if item is not None and (dead or item.live(now)) else None for item in found)
        return Batch(items, self._degraded(batches) or any(batch.degraded for batch in batches.values()))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        """Carry mutations out on all stores.

        A cancelled call finishes its writes, for at most the stores' deadlines, before the cancellation goes on: so a
        write is never on one store only because its caller went away. An atomic write is decided by the primary, like
        one that expects a version, and then copied, atomically on each store.
        """
        outcomes = {n: each for n, each in enumerate(check_write(self, mutations, atomic)) if each is not None}
        self._require_open()
        return await uninterrupted(lambda: self._carry_out(mutations, outcomes, atomic))

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        """One page of the merged list.

        All stores list in parallel. Up to where the shortest of their pages ends, a key that not every store shows is
        looked up on those that do not: the newest version decides whether it is listed, and only at that version's
        own place. So neither a missed delete, nor a changed field, nor an old sort value shows through.
        """
        items: list[Item] = []
        degraded = False
        while True:
            pages = await self._ask(partial(_query, query=query, limit=limit, cursor=cursor, consistency=consistency))
            degraded = self._degraded(pages) or degraded or any(page.degraded for page in pages.values())
            end = merge.horizon(query, pages.values())
            winners, complete = await self._winners(query, pages, cursor, end)
            degraded = degraded or not complete
            room = limit - len(items)
            items += winners[:room]
            if len(winners) > room or (end is not None and len(winners) == room):
                return Page(tuple(items), query.place(items[-1]), degraded)
            if end is None:
                return Page(tuple(items), None, degraded)
            cursor = end

    async def count(self, query: Query) -> int:
        """How many items the merged list has: what the stores say when they agree, else counted one by one.

        A count made without one of the stores cannot say so; ``degraded_reads`` counts it.
        Stores which missed different writes may agree on the number by chance; the merged list is right all the same.
        """
        counts = await self._ask(lambda store: store.count(query))
        self._degraded(counts)
        if len(set(counts.values())) == 1:
            return next(iter(counts.values()))
        total, cursor = 0, None
        while True:
            page = await self.query(query, limit=_COUNT_PAGE, cursor=cursor)
            total, cursor = total + len(page.items), page.cursor
            if cursor is None:
                return total

    async def _ask(self, call: Callable[[Store], Awaitable[T]], *, needed: int = 1) -> dict[str, T]:
        """What the stores answer, by name, without those that fail; an error when fewer than ``needed`` answer."""
        self._require_open()
        answers = await gather_outcomes([partial(call, store) for store in self._circuits])
        errors = [each for each in answers if isinstance(each, CloudDBError)]
        for error in errors:
            if isinstance(error, (*CALLERS_FAULT, NotProvisioned)):
                raise error
        if len(answers) - len(errors) < needed:
            raise errors[0]
        return {
            name: each for name, each in zip(self._names, answers, strict=True) if not isinstance(each, CloudDBError)
        }

    def _require_open(self) -> None:
        if not self._is_open:
            raise LifecycleError("the store is not open", store=self.name, remedy="Open it with `async with`")

    def _degraded(self, answers: Mapping[str, object]) -> bool:
        """Whether not all stores have answered, which is counted."""
        degraded = len(answers) < len(self.stores)
        self.degraded_reads += degraded
        return degraded

    async def _winners(
        self, query: Query, pages: Mapping[str, Page], after: Cursor | None, end: Cursor | None
    ) -> tuple[list[Item], bool]:
        """What the merged list has from ``after`` to ``end``, in order, and whether every look-up was answered."""
        found = merge.shown(query, tuple(pages.values()), end)
        asked = {name: merge.undecided(found, position) for position, name in enumerate(pages)}
        stores = {name: store for name, store in zip(self._names, self._circuits, strict=True) if asked.get(name)}
        answers = await gather_outcomes([partial(store.get, asked[name], dead=True) for name, store in stores.items()])
        complete = True
        for name, answer in zip(stores, answers, strict=True):
            if isinstance(answer, CloudDBError):
                complete = False
                continue
            for key, item in zip(asked[name], answer.items, strict=True):
                found[key].append(item)
        now = int(self._now())
        winners = [item for item in map(merge.newest, found.values()) if item is not None and query.matches(item, now)]
        placed = [item for item in winners if query.after(item, after) and (end is None or not query.after(item, end))]
        placed.sort(key=lambda item: order_of(query.place(item)), reverse=query.descending)
        return placed, complete

    async def _carry_out(
        self, mutations: Sequence[Mutation], outcomes: dict[int, Outcome], atomic: bool
    ) -> tuple[Outcome, ...]:
        """Add the outcomes of the mutations that have none yet."""
        puts = await self._as_puts({n: each for n, each in enumerate(mutations) if n not in outcomes}, outcomes)
        if atomic and any(isinstance(each, Refused | Failed) for each in outcomes.values()):
            return tuple(outcomes.get(n, Refused("atomic")) for n in range(len(mutations)))
        serial = {n for n, put in puts.items() if atomic or put.condition.expected is not None}
        for send, group in ((self._write_all, puts.keys() - serial), (self._write_by_primary, serial)):
            if group:
                order = sorted(group)
                answers = await send([puts[n] for n in order], atomic)
                outcomes.update(zip(order, answers, strict=True))
        return tuple(outcomes[n] for n in range(len(mutations)))

    async def _as_puts(self, mutations: Mapping[int, Mutation], outcomes: dict[int, Outcome]) -> dict[int, Put]:
        """Mutations as puts: a delete becomes a tombstone, unless ``outcomes`` gets its refusal."""
        deletes = {n: each for n, each in mutations.items() if isinstance(each, Delete)}
        puts = {n: each for n, each in mutations.items() if isinstance(each, Put)}
        if not deletes:
            return puts
        try:
            batch = await self.get([each.key for each in deletes.values()], dead=True)
        except CloudDBError as error:
            outcomes.update(dict.fromkeys(deletes, Failed(error)))
            return puts
        now = int(self._now())
        for (n, delete), found in zip(deletes.items(), batch.items, strict=True):
            decided = decide(delete, found, now)
            missing = isinstance(decided, Refused) and decided.reason == "absent"
            # Also where a store has this very tombstone: the delete is sent again since others may not have it.
            if decided is None or isinstance(decided, Stored) or (missing and batch.degraded):
                puts[n] = Put(self._tombstone(delete.key, delete.version), replace(delete.condition, absent=False))
            else:
                outcomes[n] = decided
        return puts

    def _tombstone(self, key: Key, version: str) -> Item:
        return Item(key, version, expires_at=int(self._now()) + TOMBSTONE_SECONDS, deleted=True)

    async def _write_all(self, puts: Sequence[Put], atomic: bool) -> list[Outcome]:
        """Write to all stores at once, save what is exclusive, which goes to the primary first.

        Nothing dead is written over at first: where a store that missed a deletion forbids what another store lets
        through over a tombstone, or over nothing, only the tombstone tells which of them is out of date.
        """
        outcomes: list[Outcome] = []
        for put, by_store in zip(puts, await self._offered(puts, atomic), strict=True):
            outcome = combine(put.key, by_store, self._acks)
            if isinstance(outcome, Refused) and outcome.reason == "dead" and put.condition.over_dead:
                by_store = await self._over_the_dead(put, by_store)
                outcome = combine(put.key, by_store, self._acks)
            binding = isinstance(outcome, Refused) and outcome.reason not in ("older", "atomic")
            if binding and any(isinstance(each, Stored) for each in by_store.values()):
                outcome = await self._restored(put, by_store, outcome)
            outcomes.append(outcome)
        return outcomes

    async def _offered(self, puts: Sequence[Put], atomic: bool) -> list[dict[str, Outcome]]:
        """What each store answers to each put, as long as nothing dead is to be written over.

        A store after the primary is not asked about what is exclusive and was refused there.
        """
        answers: list[dict[str, Outcome]] = [{} for _ in puts]

        async def send(circuits: Sequence[Store], names: Sequence[str], positions: Sequence[int]) -> None:
            if not positions:
                return
            offers = [_not_over_the_dead(puts[position]) for position in positions]
            for name, answer in zip(names, await self._send(circuits, offers, atomic), strict=True):
                for position, outcome in zip(positions, answer, strict=True):
                    answers[position][name] = outcome

        exclusive = [position for position, put in enumerate(puts) if put.condition.exclusive]
        if not exclusive:
            await send(self._circuits, self._names, range(len(puts)))
            return answers
        shared = [position for position, put in enumerate(puts) if not put.condition.exclusive]
        await gather(
            [
                partial(send, self._circuits, self._names, shared),
                partial(send, self._circuits[:1], self._names[:1], exclusive),
            ]
        )
        decided = self._names[0]
        open_still = [n for n in exclusive if not _forbids(answers[n][decided])]
        await send(self._circuits[1:], self._names[1:], open_still)
        return answers

    async def _write_by_primary(self, puts: Sequence[Put], atomic: bool) -> list[Outcome]:
        """Let the primary decide, and copy what it has stored to the others."""
        outcomes = list((await self._send(self._circuits[:1], puts, atomic))[0])
        stored = [position for position, outcome in enumerate(outcomes) if isinstance(outcome, Stored)]
        if not stored:
            return outcomes
        copies = [Put(puts[position].item, Condition(over_dead=atomic)) for position in stored]
        answers = await self._send(self._circuits[1:], copies, atomic)
        for number, position in enumerate(stored):
            by_store = {name: answer[number] for name, answer in zip(self._names[1:], answers, strict=True)}
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
                await self._send(self._circuits, [Put(self._tombstone(put.key, self._clock.stamp()))], atomic=False)
                return Refused("absent", newest.version)
            # The primary has decided: what it has stored is copied whatever was expected.
            by_store = await self._over_the_dead(Put(put.item), by_store)
        # A copy refused as older is done: a later write was there before it.
        done = {name: decided if isinstance(each, Refused) else each for name, each in by_store.items()}
        return combine(put.key, {self._names[0]: decided, **done}, self._acks)

    async def _over_the_dead(self, put: Put, by_store: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """Write over what is dead and, on stores that missed the deletion, over what lives there still."""
        settled = dict(by_store)
        for name, circuit in zip(self._names, self._circuits, strict=True):
            refused = by_store.get(name)
            if not isinstance(refused, Refused):
                continue
            condition = put.condition if refused.reason == "dead" else Condition(expected=refused.version)
            ((settled[name],),) = await self._send([circuit], [Put(put.item, condition)], atomic=False)
            if put.condition.exclusive and _forbids(settled[name]):
                break
        return settled

    async def _send(self, stores: Sequence[Store], puts: Sequence[Put], atomic: bool) -> list[tuple[Outcome, ...]]:
        """What each store answers to the same writes; a store that raises has failed every one of them."""
        answers = await gather_outcomes([partial(store.write, puts, atomic=atomic) for store in stores])
        for answer in answers:
            if isinstance(answer, CALLERS_FAULT):
                raise answer
        return [(Failed(each),) * len(puts) if isinstance(each, CloudDBError) else each for each in answers]

    async def _restored(self, refused: Put, by_store: Mapping[str, Outcome], outcome: Outcome) -> Outcome:
        """Put back what a store holds that forbade a write, on stores that missed it and have let the write through.

        Without this a user could take over another user's record while a store lags. The store that forbade the write
        decides, so that what others write to it meanwhile is not lost.

        Returns:
            The refusal, once the write stands nowhere; else a failure that says that it may.
        """
        circuits = dict(zip(self._names, self._circuits, strict=True))
        holder = next(store for name, store in circuits.items() if by_store[name] is outcome)
        others = [store for store in circuits.values() if store is not holder]
        error: CloudDBError | None = None
        for _ in range(_RESTORE_ATTEMPTS):
            (answer,) = await gather_outcomes([partial(holder.get, [refused.key])])
            item = answer.items[0] if isinstance(answer, Batch) else None
            if item is None:
                error = answer if isinstance(answer, CloudDBError) else None
                break
            self._clock.observe(max(item.version, refused.version))
            restored = replace(item, version=self._clock.stamp())
            ((held,),) = await self._send([holder], [Put(restored, Condition(expected=item.version))], atomic=False)
            if isinstance(held, Failed):
                error = held.error
                break
            if isinstance(held, Stored):
                copies = await self._send(others, [Put(restored)], atomic=False)
                failed = [each.error for (each,) in copies if isinstance(each, Failed)]
                if not failed:
                    return outcome
                error = failed[0]
                break
        failure = error or StoreUnavailable("what was to be put back kept changing", store=holder.name)
        acked = tuple(name for name, each in by_store.items() if isinstance(each, Stored))
        return Failed(PartialWrite(acked, {holder.name: failure}, key=refused.key), applied=True)


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names that tell the stores apart, also where two have the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: position + 1].count(name)})"
        for position, name in enumerate(names)
    ]


def _not_over_the_dead(put: Put) -> Put:
    return replace(put, condition=replace(put.condition, over_dead=False))


async def _query(store: Store, *, query: Query, limit: int, cursor: Cursor | None, consistency: Consistency) -> Page:
    return await store.query(query, limit=limit, cursor=cursor, consistency=consistency)


def _forbids(outcome: Outcome) -> bool:
    """Whether a store forbids a write, and not only because of something dead."""
    return isinstance(outcome, Refused) and outcome.reason != "dead"
