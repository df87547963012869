"""The read cache: what it answers from memory, what it never does, and how much it takes."""

from __future__ import annotations

import asyncio
import random
import re
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_clouddb import ConfigurationError, Database, InvalidRecord, ReadCache, Session, StoreUnavailable, connect
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores import cache as module
from agno_clouddb.stores.base import (
    Batch,
    Condition,
    Consistency,
    Cursor,
    Delete,
    Item,
    Key,
    Mutation,
    Outcome,
    Page,
    Put,
    Query,
    Refused,
    Store,
    Stored,
)
from agno_clouddb.stores.cache import CachingStore
from agno_clouddb.stores.clock import epoch_seconds
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing import CountingStore, FaultyStore
from tests.unit.fanouts import EPOCH, virtual

KEY = Key("sessions", "s")
LIST = Query("sessions", "created_at")
SECONDS = 5.0


def item(number: int, name: str = "s", *, expires_at: int | None = None) -> Item:
    return Item(Key("sessions", name), f"{number:012x}", {"created_at": name}, f"{number}", expires_at)


def run(number: int, session: str) -> Item:
    return Item(Key("runs", "r", session), f"{number:012x}", {"run_index": "1"}, f"{number}")


async def ready(now: Any = epoch_seconds, **options: Any) -> tuple[CachingStore, CountingStore]:
    """A store with a cache, and what it asks of a store that holds nothing."""
    counting = CountingStore(MemoryStore(now=now))
    store = CachingStore(counting, ReadCache(**{"seconds": SECONDS, **options}), now=now)
    await store.open()
    await store.provision()
    return store, counting


async def look(store: Store, key: Key = KEY, consistency: Consistency = "eventual") -> str | None:
    (found,) = (await store.get([key], consistency=consistency)).items
    return None if found is None else str(found.data)


async def listed(store: Store, query: Query = LIST, consistency: Consistency = "eventual", **more: Any) -> list[str]:
    page = await store.query(query, consistency=consistency, **{"limit": 10, **more})
    return [str(each.data) for each in page.items]


class TestOptions:
    @pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "5", None, True])
    def test_seconds_that_are_none_are_refused(self, seconds: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"seconds of ReadCache is .*ReadCache\(seconds=5\)"):
            ReadCache(seconds=seconds)

    @pytest.mark.parametrize("max_bytes", [0, -1, 1.5, "1", None, True])
    def test_bytes_that_are_none_are_refused(self, max_bytes: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"max_bytes of ReadCache is .*max_bytes=32"):
            ReadCache(seconds=1, max_bytes=max_bytes)

    def test_connect_takes_nothing_else(self) -> None:
        with pytest.raises(ConfigurationError, match=r"cache is 5, not a ReadCache.*ReadCache\(seconds=5\)"):
            connect("memory://", cache=5)  # type: ignore[arg-type]

    def test_without_it_there_is_no_layer_more(self) -> None:
        store = MemoryStore()
        db = connect(store)
        assert db._connection._store is store
        assert db.cache_stats is None


class TestAnswers:
    @virtual
    async def test_what_was_read_is_answered_without_a_request_until_it_is_too_old(self) -> None:
        store, counting = await ready()
        await store.write([Put(item(1))])
        await asyncio.sleep(10)
        counting.clear()
        assert [await look(store), await listed(store)] == ["1", ["1"]]
        assert counting.calls == {"get": 1, "query": 1}
        await asyncio.sleep(SECONDS - 0.001)
        await counting.inner.write([Put(item(2))])
        assert [await look(store), await listed(store)] == ["1", ["1"]]
        assert counting.calls == {"get": 1, "query": 1}
        await asyncio.sleep(0.002)
        assert [await look(store), await listed(store)] == ["2", ["2"]]
        assert counting.calls == {"get": 2, "query": 2}
        assert (store.stats.hits, store.stats.misses, store.stats.entries) == (2, 4, 2)

    @virtual
    async def test_the_age_counts_from_when_it_was_asked_for(self) -> None:
        store, counting = await ready()
        store.inner = _Slow(counting, after=3)
        assert await look(store) is None
        await counting.inner.write([Put(item(1))])
        await asyncio.sleep(1.9)
        assert await look(store) is None
        await asyncio.sleep(0.2)
        assert await look(store) == "1"

    @virtual
    async def test_only_the_keys_that_are_not_kept_are_asked_for(self) -> None:
        store, counting = await ready()
        a, b, c = (Key("sessions", name) for name in "abc")
        await store.write([Put(item(1, "a")), Put(item(2, "b"))])
        await store.get([a, c], consistency="eventual")
        counting.clear()
        batch = await store.get([c, b, a, b], consistency="eventual")
        assert [each and each.data for each in batch.items] == [None, "2", "1", "2"]
        assert counting.items == {"get": 1}

    @virtual
    async def test_strong_reads_ask_the_store_and_replace_what_is_kept(self) -> None:
        store, counting = await ready()
        assert await look(store) is None
        assert await listed(store) == []
        await counting.inner.write([Put(item(1))])
        assert await look(store) is None
        assert await listed(store) == []
        assert await look(store, consistency="strong") == "1"
        assert await listed(store, consistency="strong") == ["1"]
        counting.clear()
        assert [await look(store), await listed(store)] == ["1", ["1"]]
        assert not counting.calls

    @virtual
    async def test_an_answer_that_comes_late_does_not_replace_a_later_one(self) -> None:
        store, counting = await ready()
        store.inner = _Slow(counting, after=3)
        late, later_list = asyncio.create_task(look(store)), asyncio.create_task(listed(store))
        await asyncio.sleep(1)
        store.inner = counting
        await counting.inner.write([Put(item(1))])
        assert [await look(store), await listed(store)] == ["1", ["1"]]
        assert [await late, await later_list] == [None, []]
        assert [await look(store), await listed(store)] == ["1", ["1"]]

    @virtual
    async def test_strong_reads_of_what_is_not_kept_are_not_kept(self) -> None:
        store, _ = await ready()
        await look(store, consistency="strong")
        await listed(store, consistency="strong")
        assert store.stats.entries == 0

    @virtual
    async def test_what_is_kept_was_read_strongly(self) -> None:
        asked: list[Consistency] = []

        class Noting(WrapperStore):
            async def get(self, *args: Any, consistency: Consistency = "strong", **more: Any) -> Batch:
                asked.append(consistency)
                return await super().get(*args, consistency=consistency, **more)

            async def query(self, *args: Any, consistency: Consistency = "strong", **more: Any) -> Page:
                asked.append(consistency)
                return await super().query(*args, consistency=consistency, **more)

        store, counting = await ready()
        store.inner = Noting(counting)
        await look(store)
        await listed(store)
        assert asked == ["strong", "strong"]

    @virtual
    async def test_the_dead_are_asked_of_the_store(self) -> None:
        store, counting = await ready()
        await look(store)
        dead = replace(item(1), deleted=True, fields={}, data="", expires_at=EPOCH * 2)
        await counting.inner.write([Put(dead)])
        assert (await store.get([KEY], dead=True, consistency="eventual")).items == (dead,)

    @virtual
    async def test_lists_that_differ_in_anything_are_others(self) -> None:
        store, counting = await ready()
        await store.write([Put(item(1, "a")), Put(item(2, "b"))])
        await asyncio.sleep(10)
        counting.clear()
        ways: list[dict[str, Any]] = [
            {},
            {"limit": 1},
            {"cursor": Cursor("a", "a")},
            {"query": replace(LIST, descending=True)},
            {"query": replace(LIST, sort="updated_at")},
            {"query": replace(LIST, equals={"user_id": "a component_id=b"})},
            {"query": replace(LIST, equals={"user_id": "a", "component_id": "b"})},
            {"query": replace(LIST, any_of={"user_id": ("a", "b")})},
            {"query": replace(LIST, contains={"session_name": "a"})},
        ]
        first = [await listed(store, **way) for way in ways]
        assert first[:4] == [["1", "2"], ["1"], ["2"], ["2", "1"]]
        assert counting.calls == {"query": len(ways)}
        assert [await listed(store, **way) for way in ways] == first
        assert counting.calls == {"query": len(ways)}

    @virtual
    async def test_what_has_expired_is_not_answered(self) -> None:
        start = epoch_seconds()
        now = lambda: start + int(asyncio.get_running_loop().time())  # noqa: E731
        store, _ = await ready(now, seconds=1000)
        await store.write([Put(item(1, expires_at=start + 60))])
        await asyncio.sleep(10)
        assert [await look(store), await listed(store)] == ["1", ["1"]]
        await asyncio.sleep(49)
        assert [await look(store), await listed(store)] == ["1", ["1"]]
        await asyncio.sleep(1)
        assert [await look(store), await listed(store)] == [None, []]

    @virtual
    async def test_wrong_arguments_are_refused_as_by_the_store(self) -> None:
        store, _ = await ready()
        with pytest.raises(InvalidRecord):
            await store.get([Key("sessions", ["s"])], consistency="eventual")  # type: ignore[arg-type]
        with pytest.raises(InvalidRecord):
            await store.write([Delete(Key("sessions", ["s"]), "1")])  # type: ignore[arg-type]
        with pytest.raises(InvalidRecord):
            await store.query(LIST, limit=0, consistency="eventual")

    @virtual
    async def test_it_is_empty_once_it_was_closed(self) -> None:
        store, _ = await ready()
        await look(store)
        await store.aclose()
        assert (store.stats.entries, store.stats.bytes) == (0, 0)


class TestOwnWrites:
    @virtual
    async def test_are_seen_at_once(self) -> None:
        store, counting = await ready()
        other = Key("sessions", "other")
        assert [await look(store), await look(store, other), await listed(store)] == [None, None, []]
        await store.write([Put(item(1))])
        counting.clear()
        assert [await look(store), await look(store, other), await listed(store)] == ["1", None, ["1"]]
        assert counting.calls == {"get": 1, "query": 1}
        await store.write([Delete(KEY, "f")], atomic=True)
        assert [await look(store), await listed(store)] == [None, []]

    @virtual
    async def test_a_refused_or_failed_write_makes_it_look_again(self) -> None:
        store, counting = await ready()
        await look(store)
        await counting.inner.write([Put(item(5))])
        (outcome,) = await store.write([Put(item(6), Condition(absent=True))])
        assert isinstance(outcome, Refused)
        assert await look(store) == "5"
        faulty = FaultyStore(counting)
        store.inner = faulty
        await counting.inner.write([Put(item(7))])
        faulty.down()
        await store.write([Put(item(8))])
        faulty.up()
        assert await look(store) == "7"

    @virtual
    async def test_make_it_forget_the_lists_of_their_parent_alone(self) -> None:
        store, counting = await ready()
        a, b = (Query("runs", "run_index", parent=name) for name in "ab")
        assert [await listed(store, a), await listed(store, b)] == [[], []]
        await store.write([Put(run(1, "a"))])
        counting.clear()
        assert [await listed(store, a), await listed(store, b)] == [["1"], []]
        assert counting.calls == {"query": 1}

    @virtual
    async def test_what_is_being_written_is_asked_of_the_store(self) -> None:
        store, counting = await ready()
        assert [await look(store), await listed(store)] == [None, []]
        store.inner = _Slow(counting, after=3)
        writing = asyncio.create_task(store.write([Put(item(1))]))
        await asyncio.sleep(1)
        assert [await look(store), await listed(store)] == ["1", ["1"]]
        await writing

    @virtual
    async def test_a_read_that_was_on_its_way_is_not_kept(self) -> None:
        store, counting = await ready()
        child, children = run(1, "p"), Query("runs", "run_index", parent="p")
        store.inner = _Slow(counting, after=1)
        one, several = asyncio.create_task(look(store, child.key)), asyncio.create_task(listed(store, children))
        await asyncio.sleep(0.5)
        store.inner = counting
        await store.write([Put(child)])
        assert [await one, await several] == [None, []]
        assert [await look(store, child.key), await listed(store, children)] == ["1", ["1"]]

    @virtual
    async def test_a_read_that_was_begun_and_has_ended_during_the_write_is_not_kept(self) -> None:
        store, counting = await ready()
        store.inner = _Slow(counting, before=3)
        writing = asyncio.create_task(store.write([Put(item(1))]))
        await asyncio.sleep(1)
        store.inner = counting
        assert [await look(store), await listed(store)] == [None, []]
        assert await writing == (Stored(item(1).version),)
        assert [await look(store), await listed(store)] == ["1", ["1"]]

    @virtual
    async def test_a_cancelled_write_makes_it_look_again(self) -> None:
        store, counting = await ready()
        store.inner = _Slow(counting, after=3)
        writing = asyncio.create_task(store.write([Put(item(1))]))
        await asyncio.sleep(1)
        store.inner = counting
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert await look(store) == "1"

    @virtual
    async def test_a_list_is_not_kept_while_an_index_may_lag_behind_them(self) -> None:
        store, counting = await ready()
        await store.write([Put(item(1))])
        lagging = _Empty(counting)
        store.inner = lagging
        assert await listed(store) == []
        store.inner = counting
        assert await listed(store) == ["1"]
        counting.clear()
        await asyncio.sleep(module._SETTLING)
        await listed(store)
        await listed(store)
        assert counting.calls == {"query": 1}


class TestDatabase:
    @virtual
    async def test_a_session_that_is_read_again_costs_nothing(self) -> None:
        counting = CountingStore(MemoryStore())
        async with connect(counting, cache=ReadCache(seconds=60), consistency="eventual") as db:
            await db.provision()
            await db.sessions.upsert(Session(session_id="s", user_id="ann"))
            await asyncio.sleep(10)
            first = [await db.sessions.get("s"), await db.sessions.list(user_id="ann")]
            counting.clear()
            assert [await db.sessions.get("s"), await db.sessions.list(user_id="ann")] == first
            assert not counting.calls
            await db.sessions.get("s", consistency="strong")
            assert counting.calls == {"get": 1, "query": 1}
            stats = db.cache_stats
            assert stats is not None
            assert (stats.hits, stats.misses, stats.entries) == (3, 3, 3)

    @virtual
    async def test_a_database_that_reads_strongly_is_not_served_from_it(self) -> None:
        counting = CountingStore(MemoryStore())
        async with connect(counting, cache=ReadCache(seconds=60)) as db:
            await db.provision()
            counting.clear()
            for _ in range(2):
                await db.memories.get("m")
                await db.memories.list()
            assert counting.calls == {"get": 2, "query": 2}
            for _ in range(2):
                await db.memories.get("m", consistency="eventual")
            assert counting.calls["get"] == 3

    @virtual
    async def test_what_reads_in_order_to_write_reads_the_store(self) -> None:
        memory = MemoryStore()
        async with connect(memory, cache=ReadCache(seconds=3600), consistency="eventual") as db:
            await db.provision()
            await db.sessions.upsert(Session(session_id="s", session_data={"turns": 1}))
            assert await db.sessions.get("s") is not None
            other = Database(memory)
            await other.open()

            def count(session: Session) -> Session:
                data = session.session_data or {}
                return session.model_copy(update={"session_data": {"turns": data["turns"] + 1}})

            await other.sessions.update("s", count)
            attempts = 0

            def counted(session: Session) -> Session:
                nonlocal attempts
                attempts += 1
                return count(session)

            assert (await db.sessions.update("s", counted)).session_data == {"turns": 3}
            assert attempts == 1

    @virtual
    async def test_hits_ask_neither_of_two_stores_and_degraded_answers_are_not_kept(self) -> None:
        links = [FaultyStore(CountingStore(MemoryStore(f"memory://{name}"))) for name in "ab"]
        counts = [link.inner for link in links]
        async with connect(*links, cache=ReadCache(seconds=60), consistency="eventual") as db:
            await db.provision()
            assert isinstance(db.store, FanOutStore)
            links[1].down()
            assert await db.memories.get("m") is None
            assert (await db.memories.list()).degraded
            stats = db.cache_stats
            assert stats is not None
            assert stats.entries == 0
            links[1].up()
            await db.store.probe()
            assert await db.memories.get("m") is None
            assert not (await db.memories.list()).degraded
            for each in counts:
                assert isinstance(each, CountingStore)
                each.clear()
            links[0].down()
            links[1].down()
            with db.watch_reads() as reads:
                assert await db.memories.get("m") is None
                assert not (await db.memories.list()).degraded
            assert not reads.degraded
            with pytest.raises(StoreUnavailable):
                await db.memories.get("m", consistency="strong")
            health = await db.health()
            assert not health.ok

    def test_the_page_about_it_runs(self, capsys: pytest.CaptureFixture[str]) -> None:
        page = (Path(__file__).parents[2] / "docs" / "read-cache.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        names: dict[str, Any] = {}
        exec(block, names)

        async def read() -> None:
            async with names["db"] as db:
                await db.provision()
                await db.sessions.upsert(Session(session_id="s"))
                await names["read_twice"](db, "s")

        asyncio.run(read())
        assert "CacheStats(hits=2, misses=2, " in capsys.readouterr().out


class TestMemory:
    @virtual
    async def test_what_was_not_used_for_the_longest_time_goes_first(self) -> None:
        store, counting = await ready()
        names = "abc"
        for name in names:
            await look(store, Key("sessions", name))
        each = store.stats.bytes // 3
        store, counting = await ready(max_bytes=3 * each)
        for name in "abcad":
            await look(store, Key("sessions", name))
        counting.clear()
        for name in "acd":
            await look(store, Key("sessions", name))
        assert not counting.calls
        await look(store, Key("sessions", "b"))
        assert counting.calls == {"get": 1}
        assert (store.stats.entries, store.stats.bytes) == (3, 3 * each)

    @virtual
    async def test_an_answer_over_the_bound_is_given_and_not_kept(self) -> None:
        store, _ = await ready(max_bytes=5_000)
        await store.write([Put(replace(item(1), data="x" * 5_000))])
        await asyncio.sleep(10)
        assert await look(store) == "x" * 5_000
        assert await listed(store) == ["x" * 5_000]
        assert store.stats.entries == 0

    @pytest.mark.parametrize("data", ["", "{}", "x" * 500, "ü😀" * 100, b"x" * 3000])
    def test_no_more_is_taken_than_is_counted(self, data: str | bytes) -> None:
        names = ("created_at", "updated_at", "user_id", "component_id")

        class Making(WrapperStore):
            async def get(self, keys: Sequence[Key], **_: Any) -> Batch:
                return Batch(tuple(self.make(key.id) if data else None for key in keys))

            async def query(self, query: Query, *, limit: int, **_: Any) -> Page:
                user = query.equals["user_id"]
                return Page(tuple(self.make(f"{user}{n}") for n in range(limit)), Cursor("2026", user))

            def make(self, id: str) -> Item:
                whole = data + "é" if isinstance(data, str) else data + b"x"
                return Item(Key("sessions", f"{id} "), f"1{id}", {name: f"{name}{id}" for name in names}, whole)

        async def taken() -> None:
            async with CachingStore(Making(MemoryStore()), ReadCache(60)) as store:
                tracemalloc.start()
                for number in range(500):
                    await store.get([Key("sessions", f"s{number}")], consistency="eventual")
                    query = replace(LIST, equals={"user_id": f"u{number}"})
                    await store.query(query, limit=number % 4 + 1, consistency="eventual")
                measured = tracemalloc.get_traced_memory()[0]
                tracemalloc.stop()
                assert store.stats.entries == 1000
                assert 0.5 < measured / store.stats.bytes < 1

        asyncio.run(taken())


class _Slow(WrapperStore):
    """A store on a long way: seconds pass before, and after, a call takes effect."""

    def __init__(self, inner: Store, *, before: float = 0, after: float = 0) -> None:
        super().__init__(inner)
        self._before = before
        self._after = after

    async def _way(self, call: Any) -> Any:
        await asyncio.sleep(self._before)
        answer = await call
        await asyncio.sleep(self._after)
        return answer

    async def get(self, *args: Any, **more: Any) -> Any:
        return await self._way(super().get(*args, **more))

    async def query(self, *args: Any, **more: Any) -> Any:
        return await self._way(super().query(*args, **more))

    async def write(self, *args: Any, **more: Any) -> Any:
        return await self._way(super().write(*args, **more))


class _Empty(WrapperStore):
    """A store whose index has nothing yet."""

    async def query(self, *args: Any, **more: Any) -> Page:
        return Page(())


class _History(WrapperStore):
    """A store on a way of random length, which notes what it held and from when.

    Args:
        inner: the store.
        draw: the lengths of ways.
    """

    def __init__(self, inner: MemoryStore, draw: random.Random) -> None:
        super().__init__(inner)
        self.memory = inner
        self._draw = draw
        self.states: list[tuple[float, dict[Key, str]]] = [(float("-inf"), {})]

    async def pause(self) -> None:
        await asyncio.sleep(self._draw.random() * self._draw.choice((0.01, 1)))

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        await self.pause()
        batch = await super().get(keys, consistency=consistency, dead=dead)
        await self.pause()
        return batch

    async def query(self, *args: Any, **more: Any) -> Page:
        await self.pause()
        page = await super().query(*args, **more)
        await self.pause()
        return page

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        await self.pause()
        outcomes = await super().write(mutations, atomic=atomic)
        held = {key: str(each.data) for key, each in self.memory.items.items()}
        self.states.append((asyncio.get_running_loop().time(), held))
        await self.pause()
        return outcomes

    def between(self, first: float, last: float) -> list[dict[Key, str]]:
        """What it held at some moment of this time."""
        ends = [began for began, _ in self.states[1:]] + [float("inf")]
        return [held for (began, held), end in zip(self.states, ends, strict=True) if began <= last and end >= first]

    def effect(self, key: Key, data: str | None) -> float:
        """When it began to hold this."""
        return next(began for began, held in self.states if held.get(key) == data and began > float("-inf"))


KEYS = [Key("sessions", name) for name in "ab"] + [Key("runs", name, parent) for name in "a" for parent in "pq"]
LISTS = [LIST, replace(LIST, descending=True), *(Query("runs", "run_index", parent=name) for name in "pq")]


@given(seed=st.integers(0, 2**32), entries=st.sampled_from([2, 5, 100]))
@settings(max_examples=150)
def test_own_writes_are_always_seen_and_others_after_the_time_whatever_happens_at_once(seed: int, entries: int) -> None:
    """Tasks of one Database read and write while another one writes. Each answer is what the store held at some moment
    of the last seconds, and not before the last write of that Database which had ended when the read began.
    """
    draw = random.Random(seed)

    @virtual
    async def schedule() -> None:
        memory = MemoryStore()
        await memory.open()
        await memory.provision()
        history = _History(memory, draw)
        limit = 1_100 * entries
        store = CachingStore(history, ReadCache(SECONDS, limit))
        time = asyncio.get_running_loop().time
        acknowledged: dict[object, float] = {}
        numbers = iter(range(1, 10_000))

        def change(key: Key) -> Mutation:
            number = next(numbers)
            fields = {"created_at": key.id} if key.collection == "sessions" else {"run_index": key.id}
            return Put(Item(key, f"{number:012x}", fields, str(number)))

        async def write(through: Store) -> None:
            mutation = change(draw.choice(KEYS))
            assert isinstance(mutation, Put)
            await through.write([mutation], atomic=draw.random() < 0.3)
            if through is store:
                key = mutation.key
                if str(mutation.item.data) in [held.get(key) for _, held in history.states]:
                    effect = history.effect(key, str(mutation.item.data))
                    for place in (key, (key.collection, key.parent)):
                        acknowledged[place] = max(effect, acknowledged.get(place, 0.0))

        async def read() -> None:
            began, key = time(), draw.choice(KEYS)
            first = max(began - SECONDS, acknowledged.get(key, 0.0))
            found = await look(store, key)
            assert found in [held.get(key) for held in history.between(first, time())]

        async def read_list() -> None:
            began, query = time(), draw.choice(LISTS)
            first = max(began - SECONDS, acknowledged.get((query.collection, query.parent), 0.0))
            found = await listed(store, query)
            moments = history.between(first, time())
            assert found in [_list_of(held, query) for held in moments]

        async def work(number: int) -> None:
            ways: list[Callable[[], Awaitable[None]]] = [read, read_list, lambda: write(store)]
            for _ in range(30):
                await asyncio.sleep(draw.random() * draw.choice((0.1, 1, 3)))
                await draw.choices(ways, [5, 5, number % 2])[0]()
                assert store.stats.bytes <= limit
                kept = store._answers._by_place.values()
                assert store.stats.bytes == sum(each.size for each in kept)

        async def other() -> None:
            for _ in range(40):
                await asyncio.sleep(draw.random() * 2)
                await write(history)

        await asyncio.gather(*(work(number) for number in range(4)), other())
        assert not store._flights
        assert store.stats.hits or entries < 100

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SETTLING", 0.0)
        schedule()


def _list_of(held: dict[Key, str], query: Query) -> list[str]:
    keys = sorted(key for key in held if (key.collection, key.parent) == (query.collection, query.parent))
    return [held[key] for key in (reversed(keys) if query.descending else keys)]
