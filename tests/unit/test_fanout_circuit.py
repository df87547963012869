"""A store of a fan-out that has failed is left alone, until a probe finds that it answers again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from agno_clouddb import InvalidRecord, NotProvisioned, QueryNotIndexed, StoreUnavailable, Throttled
from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout.circuit import CircuitStore
from agno_clouddb.stores.base import Delete, Failed, Key, Query, Refused
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import CountingStore, FaultyStore
from agno_clouddb.testing.faults import Fault
from tests.unit.fanouts import BY_CREATION, KEY, World, elapsed, hanging, records, virtual

DEADLINE = 10.0


@dataclass
class Rig:
    """A circuit over a store that fails as told."""

    faulty: FaultyStore
    counting: CountingStore
    store: CircuitStore
    opened: list[CircuitStore] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.store.state

    def next(self, fault: Fault | None) -> None:
        self.faulty.plan = lambda call, mutations: fault

    async def read(self) -> CloudDBError | None:
        try:
            await self.store.get([KEY])
        except CloudDBError as error:
            return error
        return None

    async def fail(self, times: int) -> None:
        """Let calls fail, half a second after each other."""
        for _ in range(times):
            self.next(Fault("refused"))
            assert isinstance(await self.read(), StoreUnavailable)
            await asyncio.sleep(0.5)


@asynccontextmanager
async def rig(*, provision: bool = True) -> AsyncIterator[Rig]:
    faulty = FaultyStore(MemoryStore("memory://it"))
    counting = CountingStore(faulty)
    made = Rig(faulty, counting, CircuitStore(counting, deadline=DEADLINE))
    made.store.opened = made.opened.append
    async with made.store:
        if provision:
            await made.store.provision(replicated=True)
            counting.clear()
        yield made


@virtual
async def test_it_opens_after_three_failures_in_a_row_and_then_no_call_reaches_the_store() -> None:
    async with rig() as made:
        await made.fail(2)
        assert (made.state, made.opened) == ("closed", [])
        await made.fail(1)
        assert (made.state, made.opened) == ("open", [made.store])
        assert not made.store.available
        made.next(None)
        made.counting.clear()
        for call in (
            lambda: made.store.get([KEY]),
            lambda: made.store.query(BY_CREATION, limit=1),
            lambda: made.store.count(BY_CREATION),
            lambda: made.store.tally(BY_CREATION, "user_id"),
            lambda: made.store.scan("sessions", limit=1),
        ):
            with pytest.raises(StoreUnavailable, match="left alone") as caught:
                await call()
            assert caught.value.store == "memory://it"
        deletes = [Delete(Key("sessions", f"s{n}"), HybridClock().stamp()) for n in range(2)]
        outcomes = await made.store.write(deletes)
        assert [(type(each), each.applied) for each in outcomes if isinstance(each, Failed)] == [(Failed, False)] * 2
        assert not made.counting.calls


@virtual
async def test_a_burst_of_failures_within_a_second_does_not_open_it() -> None:
    async with rig() as made:
        made.next(Fault("refused"))
        for _ in range(10):
            await made.read()
        assert made.state == "closed"
        await asyncio.sleep(1)
        await made.read()
        assert made.state == "open"


@virtual
async def test_a_success_in_between_begins_the_count_again() -> None:
    async with rig() as made:
        for _ in range(3):
            await made.fail(2)
            made.next(None)
            assert await made.read() is None
        assert (made.state, made.store.failure) == ("closed", None)
        assert isinstance(made.store.last_error, StoreUnavailable)


@virtual
async def test_a_call_that_ends_with_its_deadline_opens_it_at_once() -> None:
    async with rig() as made:
        made.faulty.plan = hanging
        with elapsed(DEADLINE, DEADLINE):
            error = await made.read()
        assert isinstance(error, StoreUnavailable)
        assert (error.store, error.message) == ("memory://it", "no answer within 10 seconds")
        assert made.state == "open"


@virtual
async def test_a_write_given_up_may_have_been_applied_and_opens_it_at_once() -> None:
    async with rig() as made:
        made.faulty.plan = hanging
        (outcome,) = await made.store.write([Delete(KEY, HybridClock().stamp())])
        assert isinstance(outcome, Failed)
        assert outcome.applied
        assert (made.state, made.store.failure) == ("open", outcome.error)


@virtual
async def test_a_slow_failure_of_the_stores_own_deadline_opens_it_at_once() -> None:
    async with rig() as made:
        made.next(Fault("request lost", delay=DEADLINE / 2, error=Throttled))
        assert isinstance(await made.read(), Throttled)
        assert made.state == "open"


@virtual
async def test_successes_that_are_too_slow_count_as_failures() -> None:
    async with rig() as made:
        made.next(Fault(delay=DEADLINE / 2))
        for state in ("closed", "closed", "open"):
            assert await made.read() is None
            assert made.state == state
        assert "take over 5.0 seconds" in made.store.refusal().message
        assert list(made.store.latencies) == [5.0, 5.0, 5.0]


@virtual
async def test_quick_failures_are_no_latencies() -> None:
    async with rig() as made:
        await made.fail(1)
        made.next(Fault(delay=0.25))
        await made.read()
        assert list(made.store.latencies) == [0.25]


@virtual
async def test_a_write_of_which_a_part_was_carried_out_is_no_failure() -> None:
    async with rig() as made:
        made.next(Fault("refused", positions=frozenset({0})))
        deletes = [Delete(Key("sessions", f"s{n}"), HybridClock().stamp()) for n in range(2)]
        for _ in range(5):
            failed, done = await made.store.write(deletes)
            assert isinstance(failed, Failed)
            assert isinstance(done, Refused)
            await asyncio.sleep(1)
        assert (made.state, made.store.failure) == ("closed", None)
        made.next(Fault("refused"))
        for _ in range(3):
            await made.store.write(deletes)
            await asyncio.sleep(1)
        assert made.state == "open"


@virtual
async def test_mistakes_of_the_caller_and_missing_tables_do_not_open_it() -> None:
    async with rig(provision=False) as made:
        for _ in range(5):
            for error, call in (
                (NotProvisioned, lambda: made.store.get([KEY])),
                (NotProvisioned, lambda: made.store.count(BY_CREATION)),
                (QueryNotIndexed, lambda: made.store.count(Query("sessions", sort="session_name"))),
                (InvalidRecord, lambda: made.store.get([Key("sessions", "")])),
            ):
                with pytest.raises(error):
                    await call()
            (outcome,) = await made.store.write([Delete(KEY, HybridClock().stamp())])
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, NotProvisioned)
            await asyncio.sleep(1)
        assert (made.state, made.opened) == ("closed", [])


@virtual
async def test_a_probe_closes_it_when_the_store_answers_and_one_is_under_way_at_most() -> None:
    async with rig() as made:
        await made.fail(3)
        made.counting.clear()
        assert await made.store.probe() is False
        assert made.state == "open"
        made.next(Fault(delay=1))
        probing = asyncio.ensure_future(made.store.probe())
        await asyncio.sleep(0.5)
        assert made.state == "half-open"
        assert isinstance(await made.read(), StoreUnavailable)
        assert await probing is True
        assert (made.state, made.store.failure) == ("closed", None)
        assert made.counting.calls == {"get": 2}
        assert await made.read() is None


@virtual
async def test_a_probe_of_a_store_that_hangs_ends_with_the_deadline() -> None:
    async with rig() as made:
        await made.fail(3)
        made.faulty.plan = hanging
        with elapsed(DEADLINE, DEADLINE):
            assert await made.store.probe() is False
        assert made.state == "open"


@virtual
async def test_a_cancelled_probe_leaves_it_open() -> None:
    async with rig() as made:
        await made.fail(3)
        made.faulty.plan = hanging
        probing = asyncio.ensure_future(made.store.probe())
        await asyncio.sleep(0.5)
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probing
        assert made.state == "open"


@virtual
async def test_a_store_that_answers_a_probe_with_an_error_of_its_own_answers() -> None:
    async with rig(provision=False) as made:
        await made.fail(3)
        made.next(None)
        assert await made.store.probe() is True
        assert isinstance(await made.read(), NotProvisioned)


@virtual
async def test_a_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with rig() as made:
        await made.fail(8)
        made.next(None)
        await made.store.probe()
        for _ in range(3):
            await made.read()
    opened, closed = [record.message for record in caplog.records]
    assert opened.startswith("going on without memory://it: ")
    assert closed == "memory://it answers again"


@virtual
async def test_a_fanout_makes_no_calls_of_a_store_that_is_left_alone_but_probes() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        node.clear()
        with elapsed(0, 0):
            await node.put("x")
            assert await node.read() == "x"
            await node.listed()
            await node.fanout.count(BY_CREATION)
        assert node.counts[1].calls == {}
        await asyncio.sleep(100)
        assert len(node.counts[1].calls) == 1  # of the kind that has failed
        assert 3 <= node.counts[1].calls.total() <= 30


@virtual
async def test_a_store_that_answers_again_is_found_in_the_background() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(1)
        await node.put("missed")
        node.links[1].up()
        await asyncio.sleep(120)
        assert node.circuit(1).state == "closed"
        assert records(world.memories[0]) == records(world.memories[1])
        assert node.fanout.incomplete is False


@virtual
async def test_with_all_circuits_open_calls_go_through_and_close_those_of_stores_that_answer() -> None:
    world = World()
    async with world.node() as node:
        await node.lose(0)
        await node.lose(1)
        assert [node.circuit(place).state for place in (0, 1)] == ["open", "open"]
        with pytest.raises(StoreUnavailable, match="the store is down"):
            await node.read()
        node.links[1].up()
        assert await node.read() is None
        assert [node.circuit(place).state for place in (0, 1)] == ["open", "closed"]
        node.clear()
        await node.put("now")
        assert node.counts[0].calls == {}


@virtual
async def test_a_hanging_store_costs_its_deadline_once() -> None:
    world = World()
    async with world.node(deadline=3.0) as node:
        node.links[1].plan = hanging
        with elapsed(3, 3):
            await node.put("one")
        with elapsed(0, 0):
            await node.put("two")
            assert await node.read() == "two"


@virtual
async def test_a_store_without_tables_is_not_left_alone() -> None:
    world = World()
    await world.memories[0].open()
    await world.memories[0].provision(replicated=True)
    async with world.node(provision=False) as node:
        for _ in range(5):
            with pytest.raises(NotProvisioned, match="memory://b"):
                await node.read()
            await asyncio.sleep(1)
        assert [node.circuit(place).state for place in (0, 1)] == ["closed", "closed"]
