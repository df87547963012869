"""FaultyStore and CountingStore, and what the testing package needs to be imported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

import agno_clouddb.testing
from agno_clouddb.errors import InvalidRecord, NotProvisioned, StoreUnavailable, Throttled
from agno_clouddb.stores.base import Condition, Delete, Failed, Item, Key, Outcome, Put, Query, Refused, Stored, Tally
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing import CountingStore, Fault, FaultyStore, RandomFaults, Unprocessed, script

KEY = Key("sessions", "s")
QUERY = Query("sessions", "created_at")


def item(name: str = "s", version: str = "1") -> Item:
    return Item(Key("sessions", name), version, {"created_at": name})


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        await store.provision()
        yield store


def brief(outcomes: tuple[Outcome, ...]) -> list[object]:
    return [each.applied if isinstance(each, Failed) else type(each).__name__ for each in outcomes]


class TestWrapperStore:
    async def test_every_call_and_its_arguments_reach_the_inner_store(self, memory: MemoryStore) -> None:
        store = WrapperStore(memory)
        assert (store.name, store.limits) == (memory.name, memory.limits)
        tombstone = Item(KEY, "2", expires_at=9_999_999_999, deleted=True)
        assert await store.write([Put(tombstone), Put(item("a"))]) == (Stored("2"), Stored("1"))
        refused = await store.write([Put(item("b")), Put(item("a", "2"), Condition(absent=True))], atomic=True)
        assert [each.reason for each in refused if isinstance(each, Refused)] == ["atomic", "exists"]
        assert (await store.get([KEY])).items == (None,)
        assert (await store.get([KEY], dead=True)).items == (tombstone,)
        await store.write([Put(item("b"))])
        page = await store.query(QUERY, limit=1)
        assert page.items == (item("a"),)
        assert (await store.query(QUERY, limit=1, cursor=page.cursor)).items == (item("b"),)
        assert await store.count(QUERY) == 2
        assert await store.tally(QUERY, "created_at") == {name: Tally(1, name, name) for name in "ab"}

    async def test_only_the_collections_asked_for_are_provisioned(self) -> None:
        for wrapper in (WrapperStore, CountingStore, FaultyStore):
            async with wrapper(MemoryStore()) as store:
                for name in ("memories", "evals"):
                    with pytest.raises(InvalidRecord, match="nowhere"):
                        await store.provision([name, "nowhere"])
                await store.provision(["memories"])
                await store.provision(["evals"])
                assert (await store.get([Key("memories", "a"), Key("evals", "a")])).items == (None, None)
                with pytest.raises(NotProvisioned):
                    await store.get([KEY])

    async def test_it_opens_and_closes_the_inner_store(self) -> None:
        inner = MemoryStore()
        async with WrapperStore(inner) as store:
            await store.provision()
            assert (await inner.get([KEY])).items == (None,)
        with pytest.raises(Exception, match="not open"):
            await inner.get([KEY])


class TestCountingStore:
    async def test_it_counts_calls_by_kind_and_items(self, memory: MemoryStore) -> None:
        store = CountingStore(memory)
        await store.provision()
        await store.write([Put(item("a")), Put(item("b"))])
        await store.write([Delete(Key("sessions", "b"), "2")])
        await store.get([KEY, KEY, KEY])
        await store.query(QUERY, limit=10)
        await store.count(QUERY)
        await store.tally(QUERY, "created_at")
        assert store.calls == {"provision": 1, "write": 2, "get": 1, "query": 1, "count": 1, "tally": 1}
        assert store.items == {"write": 3, "get": 3, "query": 1}
        store.clear()
        assert (store.calls.total(), store.items.total()) == (0, 0)

    async def test_a_call_that_fails_is_counted(self, memory: MemoryStore) -> None:
        store = CountingStore(FaultyStore(memory, script(Fault("refused"))))
        with pytest.raises(StoreUnavailable):
            await store.get([KEY])
        assert store.calls == {"get": 1}


class TestFaultyStore:
    async def test_without_a_plan_every_call_goes_through(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory)
        assert await store.write([Put(item())]) == (Stored("1"),)
        assert (await store.get([KEY])).items == (item(),)
        assert await store.count(QUERY) == len((await store.query(QUERY, limit=5)).items) == 1
        assert await store.tally(QUERY, "created_at") == {"s": Tally(1, "s", "s")}

    @pytest.mark.parametrize(
        ("fault", "applied", "stored"),
        [(Fault("refused"), False, False), (Fault("request lost"), True, False), (Fault("response lost"), True, True)],
    )
    async def test_a_write_fails_before_or_after_it_takes_effect(
        self, memory: MemoryStore, fault: Fault, applied: bool, stored: bool
    ) -> None:
        for atomic in (False, True):
            store = FaultyStore(memory, script(fault))
            (outcome,) = await store.write([Put(item())], atomic=atomic)
            assert isinstance(outcome, Failed)
            assert outcome.applied is applied
            assert isinstance(outcome.error, StoreUnavailable)
            assert (outcome.error.store, outcome.error.key) == (store.name, KEY)
            assert (KEY in memory.items) is stored

    async def test_a_script_is_followed_in_the_order_of_the_calls_it_is_for(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory, script(None, Fault("refused", error=Throttled), Fault("refused"), on=("get",)))
        await store.write([Put(item())])
        assert (await store.get([KEY])).items == (item(),)
        with pytest.raises(Throttled):
            await store.get([KEY])
        assert await store.count(QUERY) == 1
        with pytest.raises(StoreUnavailable) as caught:
            await store.get([KEY])
        assert caught.value.store == store.name
        assert (await store.get([KEY])).items == (item(),)

    async def test_each_read_can_fail_and_lose_its_response(self, memory: MemoryStore) -> None:
        counting = CountingStore(memory)
        store = FaultyStore(counting, lambda call, mutations: Fault("response lost"))
        for attempt in (
            store.get([KEY]),
            store.query(QUERY, limit=1),
            store.count(QUERY),
            store.tally(QUERY, "created_at"),
            store.provision(),
        ):
            with pytest.raises(StoreUnavailable, match="response lost"):
                await attempt
        assert counting.calls == {"get": 1, "query": 1, "count": 1, "tally": 1, "provision": 1}

    async def test_some_mutations_of_a_bulk_write_fail(self, memory: MemoryStore) -> None:
        puts = [Put(item(name)) for name in "abcd"]
        store = FaultyStore(memory, script(Fault("refused", positions=frozenset({1, 3, 9}))))
        assert brief(await store.write(puts)) == ["Stored", False, "Stored", False]
        assert sorted(key.id for key in memory.items) == ["a", "c"]
        store.plan = script(Fault("response lost", positions=frozenset({0, 1})))
        assert brief(await store.write(puts)) == [True, True, "Stored", "Stored"]
        assert sorted(key.id for key in memory.items) == ["a", "b", "c", "d"]

    async def test_an_atomic_write_fails_whole(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory, script(Fault("refused", positions=frozenset({0}))))
        assert brief(await store.write([Put(item("a")), Put(item("b"))], atomic=True)) == [False, False]
        assert not memory.items

    async def test_a_store_that_is_down_refuses_everything_until_it_is_up(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory)
        store.down()
        assert store.is_down
        assert brief(await store.write([Put(item("a")), Put(item("b"))])) == [False, False]
        for attempt in (
            store.get([KEY]),
            store.query(QUERY, limit=1),
            store.count(QUERY),
            store.tally(QUERY, "created_at"),
            store.provision(),
        ):
            with pytest.raises(StoreUnavailable, match="down"):
                await attempt
        assert not memory.items
        store.up()
        assert not store.is_down
        assert await store.write([Put(item())]) == (Stored("1"),)

    async def test_a_call_under_way_when_the_store_goes_down_loses_its_response(self, memory: MemoryStore) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        class Slow(WrapperStore):
            async def write(self, mutations, *, atomic=False):  # type: ignore[no-untyped-def]
                outcomes = await super().write(mutations, atomic=atomic)
                begun.set()
                await go_on.wait()
                return outcomes

        store = FaultyStore(Slow(memory))
        task = asyncio.create_task(store.write([Put(item())]))
        await begun.wait()
        store.down()
        go_on.set()
        assert brief(await task) == [True]
        assert KEY in memory.items

    async def test_a_delayed_call_that_finds_the_store_down_has_no_effect(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory, script(Fault(delay=0.001)))
        task = asyncio.create_task(store.write([Put(item())]))
        await asyncio.sleep(0)
        store.down()
        assert brief(await task) == [False]
        assert not memory.items

    async def test_a_delay_alone_lets_the_call_succeed(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory, script(Fault(delay=0.001)))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await store.write([Put(item())]) == (Stored("1"),)
        assert loop.time() - begun >= 0.001

    async def test_an_invalid_argument_is_found_before_any_fault(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory)
        store.down()
        bad = Key("sessions", "")
        for attempt in (store.get([bad]), store.write([Put(Item(bad, "1"))]), store.tally(QUERY, "x")):
            with pytest.raises(InvalidRecord):
                await attempt


class TestRandomFaults:
    @staticmethod
    def drawn(seed: int, rate: float, delay: float = 0.0) -> list[Fault | None]:
        plan = RandomFaults(seed, rate=rate, delay=delay)
        return [plan("write", 3) for _ in range(200)]

    def test_the_same_seed_draws_the_same_faults(self) -> None:
        assert self.drawn(7, rate=0.5, delay=1.0) == self.drawn(7, rate=0.5, delay=1.0)
        assert self.drawn(7, rate=0.5) != self.drawn(8, rate=0.5)

    def test_rate_and_delay_hold(self) -> None:
        assert self.drawn(1, rate=0.0) == [None] * 200
        always = [each for each in self.drawn(1, rate=1.0, delay=2.0) if each is not None]
        assert len(always) == 200
        assert {each.kind for each in always} == {"refused", "request lost", "response lost"}
        assert {each.error for each in always} == {StoreUnavailable, Throttled}
        assert 0 <= min(each.delay for each in always) < max(each.delay for each in always) <= 2.0
        assert all(each.positions is None or each.positions <= {0, 1, 2} for each in always)
        half = sum(each is not None for each in self.drawn(1, rate=0.5))
        assert 70 < half < 130


class TestUnprocessed:
    PUTS = tuple(Put(item(f"{number}")) for number in range(20))

    async def outcomes(self, seed: int, items: float, resets: float) -> list[Outcome]:
        async with MemoryStore() as memory:
            await memory.provision()
            store = FaultyStore(memory, Unprocessed(seed, items=items, resets=resets))
            return [outcome for _ in range(50) for outcome in await store.write(self.PUTS)]

    async def test_a_share_of_the_mutations_is_throttled_and_surely_not_applied(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory, Unprocessed(1, items=0.3))
        outcomes = await store.write(self.PUTS)
        refused = [put.key for put, each in zip(self.PUTS, outcomes, strict=True) if isinstance(each, Failed)]
        assert 0 < len(refused) < len(self.PUTS)
        for each in outcomes:
            if isinstance(each, Failed):
                assert isinstance(each.error, Throttled)
                assert not each.applied
        assert memory.items.keys() == {put.key for put in self.PUTS} - set(refused)

    async def test_a_reset_fails_the_whole_write_before_or_after_it_took_effect(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory, Unprocessed(1, items=0.0, resets=1.0))
        applied = 0
        for put in self.PUTS:
            other = Put(item(f"beside {put.key.id}"))
            for outcome in await store.write([put, other]):
                assert isinstance(outcome, Failed)
                assert isinstance(outcome.error, StoreUnavailable)
                assert outcome.applied
            assert (put.key in memory.items) is (other.key in memory.items)
            applied += put.key in memory.items
        assert 4 < applied < 16

    async def test_the_shares_hold_and_the_same_seed_draws_the_same_faults(self) -> None:
        outcomes = await self.outcomes(7, items=0.05, resets=0.1)
        errors = [type(each.error) if isinstance(each, Failed) else None for each in outcomes]
        assert 20 < errors.count(Throttled) < 80
        assert 40 < errors.count(StoreUnavailable) < 200
        assert brief(tuple(outcomes)) == brief(tuple(await self.outcomes(7, items=0.05, resets=0.1)))
        assert brief(tuple(outcomes)) != brief(tuple(await self.outcomes(8, items=0.05, resets=0.1)))

    async def test_an_atomic_write_counts_as_one_mutation(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory, Unprocessed(1, items=0.1))
        answers = [{type(each) for each in await store.write(self.PUTS, atomic=True)} for _ in range(50)]
        assert all(len(each) == 1 for each in answers)
        assert 0 < answers.count({Failed}) < 15

    async def test_reads_succeed(self, memory: MemoryStore) -> None:
        store = FaultyStore(memory, Unprocessed(1, items=1.0, resets=1.0))
        assert (await store.get([KEY])).items == (None,)
        assert (await store.query(QUERY, limit=1)).items == ()
        assert await store.count(QUERY) == 0


class TestTestingPackage:
    def test_every_public_name_can_be_imported(self) -> None:
        for name in agno_clouddb.testing.__all__:
            assert getattr(agno_clouddb.testing, name) is not None
        assert set(agno_clouddb.testing.__all__) <= set(dir(agno_clouddb.testing))

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="colour"):
            _ = agno_clouddb.testing.colour

    def test_the_wrappers_need_neither_pytest_nor_hypothesis(self) -> None:
        code = (
            "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
            "import agno_clouddb\n"
            "from agno_clouddb.testing import FaultyStore, CountingStore, MemoryStore\n"
            "from agno_clouddb.testing import RandomFaults, Unprocessed, script"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
