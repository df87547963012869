"""A Hypothesis state machine that holds a store against MemoryStore under random sequences of calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from agno_clouddb.stores.base import (
    Condition,
    Cursor,
    Delete,
    Item,
    Key,
    Mutation,
    Page,
    Payload,
    Put,
    Query,
    Range,
    Store,
)
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.schema import COLLECTIONS, METRICS, OWNER, RUNS, SESSIONS, SHARD, Collection
from agno_clouddb.testing.conformance_base import (
    FAR_FUTURE,
    LONG_PAST,
    check_page,
    check_tally,
    ids,
    plain,
    plain_outcome,
    stamp,
    tally_of,
    walk,
)

__all__ = ["StoreMachine", "run_state_machine"]

T = TypeVar("T")

# Small pools, so that calls meet each other's items; values that codecs, collations and escaping stumble over.
NAMES = ("a", "a/b", "a#", "é", "😀")
PARENTS = ("p", "p#")
FEW = ("x", "É#")
VALUES = ("1", "1#", "10", "a", "B", "é", "\ufffd", "😀")
STAMPS = [stamp(number, writer) for number in range(1, 13) for writer in ("0000000000aa", "0000000000bb")]
CLEANING, CLEANED = stamp(0xFFFF), stamp(0x10000)
NOISE = random.Random(0).randbytes(450_000)
LARGE: dict[Payload, Payload] = {"450 KB of bytes": NOISE, "1.1 MB of text": NOISE.hex() + "é" * 100_000}
"""What is written in place of these words, so that a sequence prints short."""

MODELLED = (SESSIONS, RUNS, METRICS)
"""The collections that the calls are about: one of its own, one of children, and one with a field that is the
partition of one index and the sort of others."""

KEYS = st.one_of(
    st.builds(Key, st.just(SESSIONS.name), st.sampled_from(NAMES)),
    st.builds(Key, st.just(RUNS.name), st.sampled_from(NAMES[:3]), st.sampled_from(PARENTS)),
    st.builds(Key, st.just(METRICS.name), st.sampled_from(NAMES[:3])),
)
PAYLOADS: st.SearchStrategy[Payload] = st.sampled_from(["", "{}", '"é😀"', b"", b"\x00\xff", "x", b"x", *LARGE])
OWNERS = st.dictionaries(st.just(OWNER), st.sampled_from(FEW))
CONDITIONS = st.one_of(
    st.just(Condition()),
    st.just(Condition()),
    st.builds(Condition, owner=st.sampled_from(FEW)),
    st.builds(
        Condition,
        st.booleans(),
        st.none() | st.sampled_from(STAMPS),
        st.none() | st.sampled_from(FEW),
        st.booleans(),
    ),
)


def values_of(declared: Collection, name: str) -> st.SearchStrategy[str]:
    """Values of a field: many where it orders lists, few where it selects."""
    return st.sampled_from(VALUES if any(name == index.sort for index in declared.indexes) else FEW)


def some_of(declared: Collection, name: str) -> st.SearchStrategy[tuple[str, ...]]:
    """Values of which a field may have one; the same may be given twice."""
    return st.lists(values_of(declared, name), min_size=1, max_size=3).map(tuple)


@st.composite
def items(draw: st.DrawFn) -> Item:
    """Items of the pools: live, to expire, expired, and tombstones."""
    key, version = draw(KEYS), draw(st.sampled_from(STAMPS))
    kind = draw(st.sampled_from(["live"] * 7 + ["to expire", "expired", "tombstone"]))
    if kind == "tombstone":
        return Item(key, version, expires_at=FAR_FUTURE, deleted=True)
    declared = COLLECTIONS[key.collection]
    fields = {name: draw(values_of(declared, name)) for name in declared.fields}
    for name in draw(st.sets(st.sampled_from(declared.fields), max_size=2)):
        del fields[name]
    expires_at = {"live": None, "to expire": FAR_FUTURE, "expired": LONG_PAST}[kind]
    return Item(key, version, fields, draw(PAYLOADS), expires_at)


PUTS = st.builds(Put, items(), CONDITIONS)
MUTATIONS: st.SearchStrategy[Mutation] = st.one_of(
    PUTS, PUTS, PUTS, st.builds(Delete, KEYS, st.sampled_from(STAMPS), CONDITIONS)
)
WRITES = st.lists(MUTATIONS, min_size=2, max_size=4, unique_by=lambda mutation: mutation.key)
FIRST = st.lists(st.builds(Put, items()), min_size=4, max_size=11, unique_by=lambda put: put.key)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    """Queries that an index serves, every other one with a filter beyond it."""
    declared = draw(st.sampled_from([SESSIONS, *MODELLED]))
    index = draw(st.sampled_from(declared.indexes))
    equals: dict[str, str] = {}
    any_of: dict[str, tuple[str, ...]] = {}
    ranges: list[Range] = []
    contains: dict[str, str] = {}
    name = draw(st.sampled_from(declared.fields))
    match draw(st.sampled_from(["none", "none", "none", "equals", "any of", "range", "contains"])):
        case "equals":
            equals[name] = draw(values_of(declared, name))
        case "any of":
            any_of[name] = draw(some_of(declared, name))
        case "range":
            bounds = st.none() | st.sampled_from(VALUES)
            ranges.append(Range(draw(st.sampled_from([name, index.sort])), draw(bounds), draw(bounds)))
        case "contains":
            contains[name] = draw(st.sampled_from(["1", "b", "X", "é"]))
    partition = index.partition
    if partition not in (SHARD, declared.parent_field) and partition not in any_of:
        if draw(st.booleans()):
            equals[partition] = draw(values_of(declared, partition))
        else:
            any_of[partition] = draw(some_of(declared, partition))
    parent = draw(st.sampled_from(PARENTS)) if declared.parent_field is not None else None
    return Query(declared.name, index.sort, draw(st.booleans()), parent, equals, any_of, tuple(ranges), contains)


def at_length(mutation: Mutation) -> Mutation:
    """The mutation with the large payload that it speaks of."""
    if isinstance(mutation, Put) and mutation.item.data in LARGE:
        return replace(mutation, item=replace(mutation.item, data=LARGE[mutation.item.data]))
    return mutation


class StoreMachine(RuleBasedStateMachine):
    """Makes the same calls to a store and to a MemoryStore, and compares every answer.

    Args:
        store: open, with the collections of MODELLED provisioned and holding nothing; it is left so.
        run: carries a call of the store out in the event loop that the store was opened in.
    """

    def __init__(self, store: Store, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        super().__init__()
        self.store = store
        self.model = MemoryStore(limits=store.limits)
        self._run = run
        self._touched: set[Key] = set()
        self._lists: list[tuple[Query, Cursor]] = []
        self._both(lambda each: each.open(), stores=(self.model,))
        self._both(lambda each: each.provision(), stores=(self.model,))

    def _both(self, call: Callable[[Store], Awaitable[T]], stores: tuple[Store, ...] = ()) -> tuple[T, ...]:
        async def calls() -> tuple[T, ...]:
            return tuple([await call(each) for each in stores or (self.store, self.model)])

        answers: tuple[T, ...] = self._run(calls())
        return answers

    def _write(self, mutations: list[Mutation], *, atomic: bool = False) -> None:
        self._touched.update(mutation.key for mutation in mutations)
        large = [at_length(mutation) for mutation in mutations]
        found, wanted = self._both(lambda each: each.write(large, atomic=atomic))
        assert [plain_outcome(each) for each in found] == [plain_outcome(each) for each in wanted]

    @initialize(puts=FIRST)
    def begin_with_items(self, puts: list[Put]) -> None:
        self._write(list(puts))

    @rule(mutation=MUTATIONS)
    def write_one(self, mutation: Mutation) -> None:
        self._write([mutation])

    @rule(mutations=WRITES)
    def write_many(self, mutations: list[Mutation]) -> None:
        self._write(mutations)

    @rule(mutations=WRITES)
    def write_all_or_none(self, mutations: list[Mutation]) -> None:
        self._write(mutations, atomic=True)

    @precondition(lambda self: self.model.items)
    @rule(data=st.data(), fields=OWNERS, payload=PAYLOADS)
    def update(self, data: st.DataObject, fields: dict[str, str], payload: Payload) -> None:
        """Replace what is stored as an optimistic update does, which random stamps seldom achieve."""
        old = self.model.items[data.draw(st.sampled_from(sorted(self.model.items)))]
        newer = [each for each in STAMPS if each > old.version]
        if newer:
            changed = {**old.fields, **fields} if OWNER in COLLECTIONS[old.key.collection].fields else old.fields
            item = replace(old, version=newer[0], fields=changed, data=payload, deleted=False)
            self._write([Put(item, Condition(expected=old.version))])

    @rule(keys=st.lists(KEYS, max_size=6))
    def get(self, keys: list[Key]) -> None:
        found, wanted = self._both(lambda each: each.get(keys))
        assert [plain(item) for item in found.items] == [plain(item) for item in wanted.items]

    @rule(keys=st.lists(KEYS, max_size=6))
    def get_with_the_dead(self, keys: list[Key]) -> None:
        found, wanted = self._both(lambda each: each.get(keys, dead=True))
        assert [_known(item) for item in found.items] == [_known(item) for item in wanted.items]

    @rule(query=queries(), limit=st.integers(1, 4))
    def first_page(self, query: Query, limit: int) -> None:
        self._page(query, limit, None)

    @precondition(lambda self: self._lists)
    @rule(data=st.data(), limit=st.integers(1, 4))
    def next_page(self, data: st.DataObject, limit: int) -> None:
        query, cursor = data.draw(st.sampled_from(self._lists))
        self._page(query, limit, cursor)

    def _page(self, query: Query, limit: int, cursor: Cursor | None) -> None:
        found: Page
        wanted: Page
        found, wanted = self._both(lambda each: each.query(query, limit=limit, cursor=cursor))
        assert [plain(item) for item in found.items] == [plain(item) for item in wanted.items]
        check_page(found, query, limit, cursor)
        if wanted.cursor is not None:
            assert found.cursor == wanted.cursor
        if found.cursor is not None:
            self._lists.append((query, found.cursor))

    @rule(query=queries(), limit=st.integers(1, 4))
    def whole_list(self, query: Query, limit: int) -> None:
        found, wanted = self._both(lambda each: walk(each, query, limit))
        assert ids(found) == ids(wanted)

    @rule(query=queries())
    def count(self, query: Query) -> None:
        found, wanted = self._both(lambda each: each.count(query))
        # A service may count what has expired and is not removed yet.
        assert wanted <= found <= wanted + len(self._expired(query))

    @rule(data=st.data(), query=queries())
    def tally(self, data: st.DataObject, query: Query) -> None:
        by = data.draw(st.sampled_from(COLLECTIONS[query.collection].fields))
        found, wanted = self._both(lambda each: each.tally(query, by))
        check_tally(found, wanted, tally_of(self._expired(query), query, by))

    def _expired(self, query: Query) -> list[Item]:
        """What a query would list had it not expired."""
        return [
            item
            for item in self.model.items.values()
            if item.key.collection == query.collection
            and not item.live(LONG_PAST)
            and query.matches(replace(item, expires_at=None), LONG_PAST)
        ]

    def teardown(self) -> None:
        keys = sorted(self._touched)
        note(f"removing {len(keys)} items")

        async def clean() -> None:
            # What is dead cannot be deleted, so every item is made live first.
            await self.store.write([Put(Item(key, CLEANING)) for key in keys])
            await self.store.write([Delete(key, CLEANED) for key in keys])

        self._run(clean())


def run_state_machine(make_store: Callable[[], Awaitable[Store]], *, examples: int = 50, steps: int = 30) -> None:
    """Hold a store against MemoryStore under random sequences of calls.

    All sequences use one store in one event loop, and leave it empty. Must be called outside any event loop. When
    an answer differs, Hypothesis looks for the shortest sequence that shows it and prints it as code, with a blob;
    ``reproduce_failure(version, blob)(StoreMachine)`` before the call runs that sequence again.

    Args:
        make_store: makes a store, neither open nor provisioned, in an empty namespace.
        examples: how many sequences.
        steps: how many calls a sequence has at most.

    Raises:
        AssertionError: an answer differs from the model's.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:

        async def begin() -> Store:
            store = await make_store()
            await store.open()
            await store.provision([each.name for each in MODELLED])
            return store

        store = runner.run(begin())

        class Machine(StoreMachine):
            def __init__(self) -> None:
                super().__init__(store, runner.run)

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    print_blob=True,
                    report_multiple_bugs=False,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        finally:
            runner.run(store.aclose())


def _known(item: Item | None) -> tuple[object, ...] | None:
    """What a store must know of an item: nothing is promised of the payload of a dead one."""
    return plain(replace(item, data="") if item is not None and not item.live(LONG_PAST) else item)
