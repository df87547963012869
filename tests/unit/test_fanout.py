"""The fan-out over two memory stores, one of which fails as a test says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

import pytest

from agno_clouddb import (
    ConfigurationError,
    ConflictError,
    Database,
    LifecycleError,
    NotOwner,
    NotProvisioned,
    PartialWrite,
    QueryNotIndexed,
    RecordTooLarge,
    Run,
    Session,
    StoreUnavailable,
    connect,
)
from agno_clouddb.errors import IndexNotReady
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import (
    Condition,
    Consistency,
    Cursor,
    Item,
    Key,
    Limits,
    Page,
    Put,
    Query,
    Refused,
    Tally,
)
from agno_clouddb.stores.clock import HybridClock, wall_clock_millis
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import FaultyStore
from agno_clouddb.testing.faults import Fault


@dataclass
class Pair:
    """A fan-out over two stores that can be taken down."""

    db: Database
    first: FaultyStore
    second: FaultyStore
    fanout: FanOutStore

    def alone(self, store: FaultyStore) -> MemoryStore:
        assert isinstance(store.inner, MemoryStore)
        return store.inner

    def records(self, store: FaultyStore) -> dict[Key, Item]:
        """What a store holds beside hints."""
        return {key: item for key, item in self.alone(store).items.items() if key.collection != "replication"}

    async def back(self, store: FaultyStore) -> None:
        """A store that was down is reachable again, and known to be."""
        store.up()
        await self.fanout.probe()


async def make(acks: object = 1) -> Pair:
    first, second = FaultyStore(MemoryStore("memory://first")), FaultyStore(MemoryStore("memory://second"))
    db = connect(first, second, acks=acks)  # type: ignore[arg-type]
    await db.open()
    await db.provision()
    assert isinstance(db.store, FanOutStore)
    return Pair(db, first, second, db.store)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = await make()
    yield made
    await made.db.aclose()


def item(
    id: str = "s1",
    *,
    clock: HybridClock,
    user: str | None = None,
    created: str = "2026-01-01T00:00:00.000000Z",
    data: str = "",
) -> Item:
    fields = {"session_type": "agent", "created_at": created, "updated_at": created}
    return Item(Key("sessions", id), clock.stamp(), fields | ({"user_id": user} if user else {}), data)


BY_CREATION = Query("sessions", sort="created_at")


async def test_both_stores_hold_the_same_item_of_one_version(pair: Pair) -> None:
    session = await pair.db.sessions.upsert(Session(session_id="s1", runs=[Run(run_id="r1")]))
    assert pair.records(pair.first) == pair.records(pair.second)
    assert pair.alone(pair.first).items[Key("sessions", "s1")].version == session.version


async def test_with_one_store_down_writes_succeed_and_reads_say_that_they_are_degraded(pair: Pair) -> None:
    for down, up in ((pair.first, pair.second), (pair.second, pair.first)):
        down.down()
        name = down.name
        await pair.db.sessions.upsert(Session(session_id=name, runs=[Run(run_id="r1")]))
        read = await pair.db.sessions.get(name)
        assert read is not None
        assert read.degraded
        assert [run.run_id for run in read.runs] == ["r1"]
        page = await pair.db.sessions.list()
        assert page.degraded
        assert name in [session.session_id for session in page.items]
        await pair.back(down)
        assert Key("sessions", name) in pair.alone(up).items
        assert Key("sessions", name) not in pair.alone(down).items
        # Reachable again, the store that missed the write takes nothing away from what is read.
        read = await pair.db.sessions.get(name)
        assert read is not None
        assert not read.degraded
        assert [run.run_id for run in read.runs] == ["r1"]
    page = await pair.db.sessions.list(sort="created_at")
    assert [session.session_id for session in page.items] == [pair.first.name, pair.second.name]
    assert not page.degraded
    assert pair.fanout.degraded_reads > 0


async def test_counts_that_differ_are_settled_by_counting_the_merged_list(pair: Pair) -> None:
    await pair.db.sessions.upsert(Session(session_id="both"))
    pair.second.down()
    await pair.db.sessions.upsert(Session(session_id="first only"))
    assert await pair.db.sessions.count() == 2
    await pair.back(pair.second)
    assert await pair.db.sessions.count() == 2


async def test_a_tally_is_what_the_stores_say_where_they_agree_and_else_that_of_the_merged_list(pair: Pair) -> None:
    clock = HybridClock()
    both = [Put(item(f"s{n}", clock=clock, created=f"202{n}", user="ann")) for n in range(3)]
    await pair.fanout.write(both)
    asked: list[str] = []
    pair.first.plan = lambda call, mutations: asked.append(call)
    assert await pair.fanout.tally(BY_CREATION, "user_id") == {"ann": Tally(3, "2020", "2022")}
    assert asked == ["tally"]
    pair.first.plan = None
    # Each store misses one write, and the first still shows what the second has moved.
    pair.first.down()
    await pair.fanout.write([Put(item("s2", clock=clock, created="2030", user="bob"))])
    await pair.back(pair.first)
    pair.second.down()
    await pair.fanout.write([Put(item("s3", clock=clock, created="2023", user="ann"))])
    assert pair.fanout.degraded_reads == 0
    tallied = await pair.fanout.tally(BY_CREATION, "user_id")
    assert (tallied, pair.fanout.degraded_reads) == ({"ann": Tally(4, "2020", "2023")}, 1)
    await pair.back(pair.second)
    tallied = await pair.fanout.tally(BY_CREATION, "user_id")
    assert (tallied, pair.fanout.degraded_reads) == (
        {"ann": Tally(3, "2020", "2023"), "bob": Tally(1, "2030", "2030")},
        1,
    )


async def test_with_all_stores_down_the_primarys_error_is_raised(pair: Pair) -> None:
    pair.first.down()
    pair.second.down()
    for call in (
        lambda: pair.db.sessions.upsert(Session(session_id="s1")),
        lambda: pair.db.sessions.get("s1"),
        lambda: pair.db.sessions.list(),
        lambda: pair.db.sessions.count(),
        lambda: pair.fanout.tally(BY_CREATION, "user_id"),
        lambda: pair.db.sessions.delete("s1"),
        lambda: pair.db.provision(),
    ):
        with pytest.raises(StoreUnavailable, match="memory://first"):
            await call()


async def test_asked_for_all_acknowledgements_a_write_on_one_store_only_is_partial() -> None:
    pair = await make(acks="all")
    pair.second.down()
    with pytest.raises(PartialWrite) as caught:
        await pair.db.sessions.upsert(Session(session_id="s1"))
    assert caught.value.acked == ("memory://first",)
    assert list(caught.value.failed) == ["memory://second"]
    assert isinstance(caught.value.failed["memory://second"], StoreUnavailable)
    await pair.back(pair.second)
    again = await pair.db.sessions.upsert(Session(session_id="s1"))
    assert pair.alone(pair.second).items[Key("sessions", "s1")].version == again.version
    await pair.db.aclose()


async def test_the_newest_version_wins_whichever_store_has_it(pair: Pair) -> None:
    clock = HybridClock()
    old, new = item(clock=clock, data="old"), item(clock=clock, data="new")
    for first, second in ((old, new), (new, old)):
        pair.alone(pair.first).items = {first.key: first}
        pair.alone(pair.second).items = {second.key: second}
        assert (await pair.fanout.get([old.key])).items == (new,)
        assert (await pair.fanout.query(BY_CREATION, limit=5)).items == (new,)


async def test_a_delete_that_one_store_missed_does_not_show_through(pair: Pair) -> None:
    await pair.db.sessions.upsert(Session(session_id="s1", user_id="ann", runs=[Run(run_id="r1")]))
    pair.second.down()
    assert await pair.db.sessions.delete("s1") is True
    await pair.back(pair.second)
    assert await pair.db.sessions.get("s1") is None
    assert await pair.db.sessions.get_run("s1", "r1") is None
    assert (await pair.db.sessions.list(user_id="ann")).items == []
    assert await pair.db.sessions.count(user_id="ann") == 0
    # A store that has missed a deletion holds the record still, and is rid of it by the next one.
    await pair.db.sessions.delete("s1")
    assert await pair.db.sessions.delete("s1") is False


@pytest.mark.parametrize("missed", ["first", "second"])
@pytest.mark.parametrize("acks", [1, "all"])
async def test_an_id_used_again_after_a_delete_that_one_store_missed_is_a_new_session(
    missed: str, acks: object
) -> None:
    pair = await make(acks)
    await pair.db.sessions.upsert(Session(session_id="s1", user_id="ann", runs=[Run(run_id="old")]))
    store = pair.first if missed == "first" else pair.second
    store.down()
    try:
        await pair.db.sessions.delete("s1")
    except PartialWrite:
        assert acks == "all"
    await pair.back(store)
    # Another user may take the id: what forbids it is a copy that should be gone.
    stored = await pair.db.sessions.upsert(Session(session_id="s1", user_id="bob"))
    assert stored.generation == stored.version
    read = await pair.db.sessions.get("s1")
    assert read is not None
    assert (read.user_id, read.runs, read.created_at) == ("bob", [], stored.created_at)
    for each in (pair.first, pair.second):
        assert pair.alone(each).items[Key("sessions", "s1")].version == stored.version
    await pair.db.aclose()


@pytest.mark.parametrize("missed", ["first", "second"])
async def test_a_version_that_was_deleted_since_is_not_written_over(pair: Pair, missed: str) -> None:
    stored = await pair.db.sessions.upsert(Session(session_id="s1"))
    store = pair.first if missed == "first" else pair.second
    store.down()
    await pair.db.sessions.delete("s1")
    await pair.back(store)
    with pytest.raises(ConflictError):
        await pair.db.sessions.upsert(stored, expected_version=stored.version)
    assert await pair.db.sessions.get("s1") is None


async def test_an_expiry_that_one_store_missed_does_not_show_through(pair: Pair) -> None:
    clock = HybridClock()
    old = item(clock=clock)
    expired = Item(old.key, clock.stamp(), old.fields, expires_at=1)
    pair.alone(pair.first).items = {old.key: old}
    pair.alone(pair.second).items = {old.key: expired}
    assert (await pair.fanout.get([old.key])).items == (None,)
    assert (await pair.fanout.get([old.key], dead=True)).items == (expired,)
    assert (await pair.fanout.query(BY_CREATION, limit=5)).items == ()


async def test_an_item_is_listed_only_at_the_place_of_its_newest_version(pair: Pair) -> None:
    clock = HybridClock()
    stale = [item(f"s{n}", clock=clock, created=f"202{n}", user="ann") for n in range(6)]
    moved = [item(f"s{n}", clock=clock, created=f"203{5 - n}", user="bob" if n == 3 else "ann") for n in range(6)]
    pair.alone(pair.first).items = {each.key: each for each in stale}
    pair.alone(pair.second).items = {each.key: each for each in moved}
    for limit in (1, 2, 4, 6, 20):
        for query, expected in (
            (Query("sessions", sort="created_at"), ["s5", "s4", "s3", "s2", "s1", "s0"]),
            (Query("sessions", sort="created_at", descending=True), ["s0", "s1", "s2", "s3", "s4", "s5"]),
            (Query("sessions", sort="created_at", equals={"user_id": "ann"}), ["s5", "s4", "s2", "s1", "s0"]),
        ):
            listed: list[Item] = []
            cursor = None
            while True:
                page = await pair.fanout.query(query, limit=limit, cursor=cursor)
                listed += page.items
                cursor = page.cursor
                if cursor is None:
                    break
                assert len(page.items) == limit
            assert [each.key.id for each in listed] == expected
            assert all(each in moved for each in listed)


async def test_a_list_goes_on_when_a_store_disappears_between_pages(pair: Pair) -> None:
    for number in range(10):
        await pair.db.sessions.upsert(Session(session_id=f"s{number}"))
    page = await pair.db.sessions.list(limit=4, sort="created_at")
    pair.first.down()
    rest = await pair.db.sessions.list(limit=10, sort="created_at", cursor=page.cursor)
    assert [each.session_id for each in page.items + rest.items] == [f"s{number}" for number in range(10)]
    assert rest.degraded


async def test_a_look_up_that_fails_makes_the_page_degraded(pair: Pair) -> None:
    clock = HybridClock()
    only = item(clock=clock)
    pair.alone(pair.first).items = {only.key: only}
    pair.second.plan = lambda call, mutations: Fault("refused") if call == "get" else None
    page = await pair.fanout.query(BY_CREATION, limit=5)
    assert page.items == (only,)
    assert page.degraded


async def test_a_write_refused_as_older_by_one_store_is_stamped_past_it(pair: Pair) -> None:
    ahead = HybridClock(now=lambda: wall_clock_millis() + 600_000)
    seen = item(clock=ahead, data="{}")
    pair.alone(pair.second).items = {seen.key: seen}
    stored = await pair.db.sessions.upsert(Session(session_id="s1", session_data={"mine": True}))
    assert stored.version is not None
    assert stored.version > seen.version
    for store in (pair.first, pair.second):
        assert pair.alone(store).items[seen.key].version == stored.version


async def test_a_store_that_missed_a_session_does_not_let_another_user_take_it(pair: Pair) -> None:
    pair.second.down()
    await pair.db.sessions.upsert(Session(session_id="s1", user_id="ann", session_data={"mine": 1}))
    await pair.back(pair.second)
    with pytest.raises(NotOwner):
        await pair.db.sessions.upsert(Session(session_id="s1", user_id="bob"))
    read = await pair.db.sessions.get("s1")
    assert read is not None
    assert (read.user_id, read.session_data) == ("ann", {"mine": 1})
    assert pair.records(pair.first) == pair.records(pair.second)


@pytest.mark.parametrize("fails", ["the read", "the write to the holder", "the copy"])
async def test_a_takeover_that_cannot_be_undone_is_not_reported_as_refused(pair: Pair, fails: str) -> None:
    pair.second.down()
    await pair.db.sessions.upsert(Session(session_id="s1", user_id="ann"))
    await pair.back(pair.second)
    writes = 0

    def holder(call: str, mutations: int) -> Fault | None:
        nonlocal writes
        writes += call == "write"
        broken = (call == "get" and fails == "the read") or (writes == 2 and fails == "the write to the holder")
        return Fault("refused") if broken else None

    copies = 0

    def other(call: str, mutations: int) -> Fault | None:
        nonlocal copies
        copies += call == "write"
        return Fault("refused") if copies == 2 and fails == "the copy" else None

    pair.first.plan, pair.second.plan = holder, other
    with pytest.raises(PartialWrite) as caught:
        await pair.db.sessions.upsert(Session(session_id="s1", user_id="bob"))
    assert caught.value.acked == ("memory://second",)
    assert list(caught.value.failed) == ["memory://first"]
    reason = caught.value.failed["memory://first"]
    at_fault = "memory://second" if fails == "the copy" else "memory://first"
    assert (reason.store, isinstance(reason.__cause__, StoreUnavailable)) == ("memory://first", True)
    assert f"could not be put back on the other stores: {reason.__cause__}" in str(reason)
    assert at_fault in str(reason.__cause__)


async def test_putting_back_does_not_lose_what_was_written_meanwhile(pair: Pair) -> None:
    pair.second.down()
    await pair.db.sessions.upsert(Session(session_id="s1", user_id="ann", session_data={"n": 1}))
    await pair.back(pair.second)
    writes = 0

    def holder(call: str, mutations: int) -> None:
        """Just before the first attempt to put back, somebody else writes."""
        nonlocal writes
        writes += call == "write"
        if call == "write" and writes == 2:
            held = pair.alone(pair.first).items[Key("sessions", "s1")]
            clock = HybridClock()
            clock.observe(held.version)
            newer = replace(held, version=clock.stamp(), data='{"session_data":{"n":2}}')
            pair.alone(pair.first).items[held.key] = newer

    pair.first.plan = holder
    with pytest.raises(NotOwner):
        await pair.db.sessions.upsert(Session(session_id="s1", user_id="bob"))
    read = await pair.db.sessions.get("s1")
    assert read is not None
    assert (read.user_id, read.session_data) == ("ann", {"n": 2})


async def test_an_exclusive_put_refused_by_one_store_leaves_what_was_there(pair: Pair) -> None:
    clock = HybridClock()
    held = item(clock=clock, data="held")
    pair.alone(pair.first).items = {held.key: held}
    (outcome,) = await pair.fanout.write([Put(item(clock=clock, data="new"), Condition(absent=True))])
    assert isinstance(outcome, Refused)
    assert outcome.reason == "exists"
    (read,) = (await pair.fanout.get([held.key])).items
    assert read is not None
    assert read.data == "held"


async def test_an_expected_version_is_decided_by_the_primary(pair: Pair) -> None:
    stored = await pair.db.sessions.upsert(Session(session_id="s1"))
    pair.first.down()
    with pytest.raises(StoreUnavailable):
        await pair.db.sessions.upsert(stored, expected_version=stored.version)
    assert pair.alone(pair.second).items[Key("sessions", "s1")].version == stored.version
    await pair.back(pair.first)
    pair.second.down()
    second = await pair.db.sessions.upsert(stored, expected_version=stored.version)
    await pair.back(pair.second)
    with pytest.raises(ConflictError):
        await pair.db.sessions.upsert(stored, expected_version=stored.version)
    # A primary that lags behind the expected version is no conflict.
    pair.first.down()
    third = await pair.db.sessions.upsert(second)
    await pair.back(pair.first)
    fourth = await pair.db.sessions.upsert(third, expected_version=third.version)
    for store in (pair.first, pair.second):
        assert pair.alone(store).items[Key("sessions", "s1")].version == fourth.version


async def test_a_version_expected_of_a_faster_clock_is_written_over_although_the_primary_lags(pair: Pair) -> None:
    session = await pair.db.sessions.upsert(Session(session_id="s1"))
    ahead = HybridClock(now=lambda: wall_clock_millis() + 600_000)
    pair.first.down()
    newer = replace(pair.alone(pair.second).items[Key("sessions", "s1")], version=ahead.stamp())
    await pair.fanout.write([Put(newer)])
    await pair.back(pair.first)
    stored = await pair.db.sessions.upsert(session, expected_version=newer.version)
    read = await pair.db.sessions.get("s1")
    assert read is not None
    assert read.version == stored.version


async def test_a_copy_is_written_over_a_tombstone_from_before_the_expected_version(pair: Pair) -> None:
    await pair.db.sessions.upsert(Session(session_id="s1"))
    await pair.db.sessions.delete("s1")
    pair.second.down()
    anew = await pair.db.sessions.upsert(Session(session_id="s1"))
    await pair.back(pair.second)
    stored = await pair.db.sessions.upsert(anew, expected_version=anew.version)
    for store in (pair.first, pair.second):
        assert pair.alone(store).items[Key("sessions", "s1")].version == stored.version


async def test_a_payload_over_the_limit_of_one_store_is_written_to_none() -> None:
    small = MemoryStore("memory://small", limits=Limits(payload_bytes=1000, atomic_items=10, atomic_bytes=5000))
    large = MemoryStore("memory://large")
    async with connect(large, small) as db:
        await db.provision()
        assert db.store.limits.payload_bytes == 1000
        with pytest.raises(RecordTooLarge):
            await db.sessions.upsert(
                Session(session_id="s1", session_data={"x": random.Random(1).randbytes(2000).hex()})
            )
        assert large.items == small.items == {}


async def test_a_cancelled_write_is_finished_on_all_stores(pair: Pair) -> None:
    writing = asyncio.Event()

    def plan(name: str, mutations: int) -> Fault | None:
        if name == "write":
            writing.set()
            return Fault(delay=0.02)
        return None

    pair.second.plan = plan
    call = asyncio.ensure_future(pair.db.sessions.upsert(Session(session_id="s1")))
    await writing.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert pair.records(pair.first) == pair.records(pair.second) != {}


async def test_a_delete_is_recorded_also_where_a_store_that_may_hold_the_item_is_down(pair: Pair) -> None:
    pair.first.down()
    await pair.db.sessions.upsert(Session(session_id="s1"))
    await pair.back(pair.first)
    pair.second.down()
    await pair.db.sessions.delete("s1")
    await pair.back(pair.second)
    assert await pair.db.sessions.get("s1") is None


async def test_a_wrong_query_is_the_callers_fault_and_not_a_degraded_read(pair: Pair) -> None:
    with pytest.raises(QueryNotIndexed):
        await pair.fanout.query(Query("sessions", sort="session_name"), limit=1)
    assert pair.fanout.degraded_reads == 0


async def test_a_store_without_tables_is_not_gone_on_without() -> None:
    first, second = MemoryStore("memory://first"), MemoryStore("memory://second")
    async with connect(first, second) as db:
        await first.provision()
        for call in (
            lambda: db.sessions.get("s1"),
            lambda: db.sessions.list(),
            lambda: db.sessions.count(),
        ):
            with pytest.raises(NotProvisioned, match="memory://second"):
                await call()
        with pytest.raises(PartialWrite, match=r"provision\(\)"):
            await db.sessions.upsert(Session(session_id="s1"))
        await db.provision()
        await db.sessions.upsert(Session(session_id="s1"))
        assert first.items == second.items


class Unindexed(MemoryStore):
    """A store whose indexes are still being built: it answers all but lists."""

    def _refusal(self, query: Query) -> IndexNotReady:
        return IndexNotReady("still being built", index="i", store=self.name, collection=query.collection)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        raise self._refusal(query)

    async def count(self, query: Query) -> int:
        raise self._refusal(query)

    async def tally(self, query: Query, by: str) -> Mapping[str, Tally]:
        raise self._refusal(query)


@pytest.mark.parametrize("unindexed", ["first", "second"])
async def test_an_index_that_is_not_built_on_one_store_degrades_lists_and_nothing_else(
    unindexed: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = {name: f"memory://{name}" for name in ("first", "second")}
    stores = {name: (Unindexed if name == unindexed else MemoryStore)(url) for name, url in names.items()}
    async with connect(*stores.values()) as db:
        await db.provision()
        assert isinstance(db.store, FanOutStore)
        written = await db.sessions.upsert(Session(session_id="s1"))
        page = await db.store.query(BY_CREATION, limit=5)
        assert page.degraded
        assert [each.key.id for each in page.items] == ["s1"]
        assert await db.store.count(BY_CREATION) == 1
        place = page.items[0].fields["created_at"]
        assert await db.store.tally(BY_CREATION, "session_type") == {"agent": Tally(1, place, place)}
        assert db.store.degraded_reads == 3
        # The store is not taken for one that fails: what needs no index still reaches it.
        again = await db.sessions.upsert(Session(session_id="s1", user_id="ann"))
        assert written.version != again.version
        for store in stores.values():
            assert store.items[Key("sessions", "s1")].version == again.version
        assert not (await db.store.get([Key("sessions", "s1")])).degraded
    assert caplog.messages == []


async def test_an_index_that_is_built_on_no_store_is_the_callers_to_know() -> None:
    async with connect(Unindexed("memory://first"), Unindexed("memory://second")) as db:
        await db.provision()
        for call in (db.store.query(BY_CREATION, limit=1), db.store.count(BY_CREATION)):
            with pytest.raises(IndexNotReady, match="memory://first"):
                await call


async def test_a_fanout_needs_two_stores_and_known_options() -> None:
    with pytest.raises(ConfigurationError):
        FanOutStore([MemoryStore()])
    with pytest.raises(ConfigurationError, match="acks"):
        connect("memory://", "memory://", acks=2)  # type: ignore[arg-type]
    twins = connect("memory://", "memory://")
    assert twins.store.name == "memory:// (1) + memory:// (2)"


async def test_a_store_that_cannot_be_opened_leaves_none_open() -> None:
    class Broken(MemoryStore):
        async def open(self) -> None:
            raise StoreUnavailable("broken", store=self.name)

    first = MemoryStore("memory://first")
    db = connect(first, Broken("memory://second"))
    with pytest.raises(StoreUnavailable, match="broken"):
        await db.open()
    with pytest.raises(LifecycleError, match="memory://first"):
        await first.get([Key("sessions", "s1")])
