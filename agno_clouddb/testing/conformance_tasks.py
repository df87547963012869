"""Conformance: many tasks at once, cancelled calls, and the life of a store from open to close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agno_clouddb.errors import LifecycleError, NotProvisioned
from agno_clouddb.stores.base import Condition, Delete, Item, Put, Refused, Store, Stored
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.testing.conformance_base import (
    ConformanceBase,
    Samples,
    expect,
    fill,
    ids,
    one,
    only,
    plain_outcome,
    stamp,
    walk,
)

__all__ = ["CancellationCases", "ConcurrencyCases", "LifecycleCases"]

TASKS = 16

# One of each call, for the cases that hold of all of them.
CALLS: dict[str, Callable[[Store, Samples], Awaitable[object]]] = {
    "get": lambda store, samples: store.get([samples.key("a"), samples.key("b"), samples.child("r")]),
    "write": lambda store, samples: only(store, Put(samples.item("a", 50, data=b"x" * 500_000))),
    "bulk write": lambda store, samples: store.write([Put(samples.item(f"{n}", 50)) for n in range(30)]),
    "atomic write": lambda store, samples: store.write(
        [Put(samples.item("a", 50)), Put(samples.item("c", 50))], atomic=True
    ),
    "query": lambda store, samples: store.query(samples.query(), limit=10),
    "count": lambda store, samples: store.count(samples.query()),
    "tally": lambda store, samples: store.tally(samples.query(), "session_type"),
    "scan": lambda store, samples: store.scan("sessions", limit=10),
}


async def no_task_but(before: set[asyncio.Task[Any]]) -> None:
    """Wait until only the tasks of ``before`` are left; a driver may need a moment to take its call back."""
    if left := asyncio.all_tasks() - before:
        await asyncio.wait(left, timeout=5)
    assert not asyncio.all_tasks() - before, "the cancelled call has left a task behind"


class ConcurrencyCases(ConformanceBase):
    """No update of concurrent tasks is lost."""

    async def test_tasks_that_append_children_lose_none(self, store: Store, samples: Samples) -> None:
        async def append(number: int) -> None:
            run = samples.run(f"{number:02d}", number, data=f"{number}")
            assert await only(store, Put(run, Condition(absent=True))) == Stored(run.version)

        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(append(number))
        listed = await walk(store, samples.runs(), 5)
        assert [(item.key.id, item.data) for item in listed] == [(f"{n:02d}", f"{n}") for n in range(TASKS)]

    async def test_optimistic_increments_reach_the_exact_sum(self, store: Store, samples: Samples) -> None:
        first = Item(samples.key(), HybridClock().stamp(), {}, "0")
        await fill(store, [first])

        async def increment() -> None:
            clock = HybridClock()
            for _ in range(10 * TASKS):
                found = await one(store, first.key)
                assert found is not None
                assert isinstance(found.data, str)
                clock.observe(found.version)
                new = Item(first.key, clock.stamp(), {}, str(int(found.data) + 1))
                outcome = await only(store, Put(new, Condition(expected=found.version)))
                if outcome == Stored(new.version):
                    return
                assert isinstance(outcome, Refused)
                assert outcome.reason in ("version", "older")
            raise AssertionError("a task never got through")

        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(increment())
        found = await one(store, first.key)
        assert found is not None
        assert found.data == str(TASKS)

    async def test_exactly_one_of_concurrent_creations_is_stored(self, store: Store, samples: Samples) -> None:
        puts = [Put(samples.item("", 1 + n, data=f"{n}"), Condition(absent=True)) for n in range(TASKS)]
        outcomes = [(await each)[0] for each in [asyncio.create_task(store.write([put])) for put in puts]]
        (winner,) = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Stored)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        assert [(each.reason, each.version) for each in losers] == [("exists", puts[winner].version)] * (TASKS - 1)
        await expect(store, {puts[winner].key: puts[winner].item})

    async def test_the_newest_of_concurrent_puts_stays(self, store: Store, samples: Samples) -> None:
        puts = [Put(samples.item("", 1 + n, data=f"{n}" * (1 + n % 2 * 500_000))) for n in range(TASKS)]
        order = [*puts[::3], *puts[1::3], *puts[2::3]]
        outcomes = await asyncio.gather(*(only(store, put) for put in order))
        for put, outcome in zip(order, outcomes, strict=True):
            assert plain_outcome(outcome)[:2] in [("stored", put.version), ("refused", "older")]
        assert outcomes[order.index(puts[-1])] == Stored(puts[-1].version)
        await expect(store, {puts[-1].key: puts[-1].item})

    async def test_a_retry_that_races_its_first_attempt_is_stored_too(self, store: Store, samples: Samples) -> None:
        put = Put(samples.item(), Condition(absent=True))
        assert await asyncio.gather(*(only(store, put) for _ in range(4))) == [Stored(put.version)] * 4
        await expect(store, {put.key: put.item})


class CancellationCases(ConformanceBase):
    """A cancelled call leaves no task behind and the store usable."""

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_call_cancelled_at_any_moment_leaves_the_store_usable(
        self, store: Store, samples: Samples, call: str
    ) -> None:
        await fill(store, [samples.item("a"), samples.item("b"), samples.run("r", 1)])
        await CALLS[call](store, samples)
        before = asyncio.all_tasks()
        for turns in (0, 1, 2, 3, 5, 8, 13, 21, 55, 144):
            task = asyncio.ensure_future(CALLS[call](store, samples))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled() or not isinstance(result, BaseException), result
            await no_task_but(before)
        new = samples.item("a", 99, data="after")
        assert await only(store, Put(new)) == Stored(new.version)
        await expect(store, {new.key: new, samples.child("r"): samples.run("r", 1)})
        assert samples.key("a").id in ids(await walk(store, samples.query(), 10))


class LifecycleCases(ConformanceBase):
    """Open, provision, close, and open again."""

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_call_before_open_or_after_close_is_an_error(self, samples: Samples, call: str) -> None:
        store = await self.make_store()
        with pytest.raises(LifecycleError):
            await CALLS[call](store, samples)
        await store.open()
        await store.aclose()
        with pytest.raises(LifecycleError):
            await CALLS[call](store, samples)

    async def test_provision_before_open_is_an_error(self) -> None:
        store = await self.make_store()
        with pytest.raises(LifecycleError):
            await store.provision(self.collections)

    async def test_closing_twice_or_unopened_is_harmless(self) -> None:
        store = await self.make_store()
        await store.aclose()
        await store.open()
        await store.aclose()
        await store.aclose()

    async def test_a_closed_store_can_be_opened_again(self, samples: Samples) -> None:
        store = await self.make_store()
        for _ in range(2):
            async with store as entered:
                assert entered is store
                await store.provision(self.collections)
                await fill(store, [samples.item()])
                await expect(store, {samples.key(): samples.item()})

    async def test_an_error_names_the_store(self, samples: Samples) -> None:
        store = await self.make_store()
        assert store.name
        with pytest.raises(LifecycleError) as caught:
            await store.get([samples.key()])
        assert caught.value.store == store.name

    async def test_use_before_provision_says_so(self, samples: Samples) -> None:
        async with await self.make_store() as store:
            if not self.needs_provision:
                await fill(store, [samples.item()])
                await expect(store, {samples.key(): samples.item()})
                return
            for call in ("get", "query", "count", "tally", "scan"):
                with pytest.raises(NotProvisioned):
                    await CALLS[call](store, samples)
            puts = [Put(samples.item("a")), Put(samples.run("r", 1))]
            for outcomes in (
                await store.write(puts[:1]),
                await store.write(puts),
                await store.write([Delete(samples.key("a"), stamp(2))]),
                await store.write(puts, atomic=True),
            ):
                assert {plain_outcome(each) for each in outcomes} <= {
                    ("failed", "NotProvisioned", False),
                    ("refused", "atomic"),
                }
                assert plain_outcome(outcomes[0]) == ("failed", "NotProvisioned", False)

    async def test_provision_is_safe_to_call_again_and_at_once(self, samples: Samples) -> None:
        async with await self.make_store() as store:
            await asyncio.gather(*(store.provision(self.collections) for _ in range(3)))
            await fill(store, [samples.item(), samples.run("r", 1)])
            await store.provision(self.collections)
            await expect(store, {samples.key(): samples.item(), samples.child("r"): samples.run("r", 1)})

    async def test_stores_in_different_namespaces_share_nothing(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item()])
        async with await self.make_store() as other:
            await other.provision(self.collections)
            await expect(other, {samples.key(): None})
            assert await other.count(samples.query()) == 0

    async def test_items_outlive_the_store_object(self, samples: Samples) -> None:
        items = [samples.item("s", data=b"x" * 1_200_000), samples.run("r", 1), samples.item("gone")]
        first = await self.make_store()
        async with first:
            await first.provision(self.collections)
            await fill(first, items)
            await only(first, Delete(samples.key("gone"), stamp(2)))
        second = await self.reopen(first)
        if second is None:
            pytest.skip("what this store holds is gone with the object")
        async with second:
            await expect(second, {items[0].key: items[0], items[1].key: items[1], items[2].key: None})
            assert ids(await walk(second, samples.query(), 10)) == [samples.key("s").id]

    async def test_two_store_objects_see_each_others_writes(self, samples: Samples) -> None:
        async with await self.make_store() as one_side:
            await one_side.provision(self.collections)
            other = await self.reopen(one_side)
            if other is None:
                pytest.skip("what this store holds cannot be shared")
            async with other:
                await fill(one_side, [samples.item("", 1)])
                for version in range(2, 8, 2):
                    # Whatever a store remembers of an item from its last call is out of date here every time.
                    await fill(other, [samples.item("", version, data=f"{version}")])
                    stale = Put(samples.item("", version - 1), Condition(expected=stamp(version - 1)))
                    assert await only(one_side, stale) == Refused(
                        "version", stamp(version), dict(samples.item("", version).fields)
                    )
                    await fill(one_side, [samples.item("", version + 1, data=b"y" * 500_000)])
                    await expect(other, {samples.key(): samples.item("", version + 1, data=b"y" * 500_000)})
                assert await only(other, Delete(samples.key(), stamp(20))) == Stored(stamp(20))
                await fill(one_side, [samples.item("", 3)])
                await expect(other, {samples.key(): samples.item("", 3)})
