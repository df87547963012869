"""SQLiteStore: held against the reference model, shared by tasks and processes, and never left half written."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from pathlib import Path

import aiosqlite
import pytest

from agno_clouddb.errors import CloudDBError, ConfigurationError, LifecycleError, NotProvisioned, StoreUnavailable
from agno_clouddb.stores.base import Condition, Delete, Failed, Item, Key, Mutation, Put, Query, Range, Refused, Stored
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.schema import DECLARED, SHARD, Collection, Index
from agno_clouddb.stores.sqlite import SQLiteStore
from agno_clouddb.stores.sqlite_tables import Table, add_functions

pytestmark = pytest.mark.sqlite

COUNTER = Key("sessions", "counter")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(path, prefix="t_") as opened:
        await opened.provision()
        yield opened


@pytest.fixture
def locked(path: Path, store: SQLiteStore) -> Iterator[sqlite3.Connection]:
    """Another program's connection, in the middle of a write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def put(name: str, version: str, **fields: str) -> Put:
    return Put(Item(Key("sessions", name), version, fields, f"data of {version}"))


async def count_up(store: SQLiteStore, times: int) -> None:
    """Add to the counter by optimistic updates."""
    clock = HybridClock()
    for _ in range(times):
        outcome: object = None
        while not isinstance(outcome, Stored):
            (found,) = (await store.get([COUNTER])).items
            if found is not None:
                clock.observe(found.version)
            condition = Condition(absent=True) if found is None else Condition(expected=found.version)
            number = int(str(found.data)) + 1 if found is not None else 1
            (outcome,) = await store.write([Put(Item(COUNTER, clock.stamp(), {}, str(number)), condition)])
            assert not isinstance(outcome, Failed), outcome.error


def the_writer(store: SQLiteStore) -> AbstractAsyncContextManager[aiosqlite.Connection]:
    """The connection that writes, to tamper with."""
    return store._hold(store._open()[1])


@contextmanager
def short_of_time(store: SQLiteStore, seconds: float = 1.0) -> Iterator[None]:
    """Let the calls in the block end at a deadline that others, such as those that make the tables, do not have."""
    usual, store._deadline = store._deadline, seconds
    try:
        yield
    finally:
        store._deadline = usual


async def counted(store: SQLiteStore) -> int:
    (item,) = (await store.get([COUNTER])).items
    assert item is not None
    return int(str(item.data))


def count_in_a_process(path: Path, times: int) -> None:
    async def main() -> None:
        async with SQLiteStore(path, prefix="t_", deadline=60) as store:
            await store.provision()
            await count_up(store, times)

    asyncio.run(main())


def forget_a_store(path: Path) -> None:
    async def main() -> None:
        await forgotten.open()

    forgotten = SQLiteStore(path)
    asyncio.run(main())


class TestAgainstTheModel:
    """The same random calls on SQLiteStore and MemoryStore have the same answers."""

    @pytest.mark.parametrize("seed", range(12))
    async def test_random_calls(self, path: Path, seed: int) -> None:
        calls = random.Random(seed)
        now = [1_000]
        model = MemoryStore(now=lambda: now[0])
        async with SQLiteStore(path, now=lambda: now[0]) as store, model:
            for each in (store, model):
                await each.provision()
            for _ in range(120):
                now[0] += calls.choice((0, 0, 1))
                mutations, atomic = random_mutations(calls, now[0]), calls.random() < 0.5
                assert await store.write(mutations, atomic=atomic) == await model.write(mutations, atomic=atomic)
                keys = [random_key(calls) for _ in range(calls.randrange(5))]
                dead = calls.random() < 0.3
                assert await store.get(keys, dead=dead) == await model.get(keys, dead=dead)
                query = random_query(calls)
                assert await store.count(query) == await model.count(query)
                by = calls.choice(DECLARED[query.collection].fields)
                assert await store.tally(query, by) == await model.tally(query, by)
                await compare_pages(store, model, query, limit=calls.randrange(1, 5))


async def compare_pages(store: SQLiteStore, model: MemoryStore, query: Query, limit: int) -> None:
    cursor = None
    while True:
        page = await store.query(query, limit=limit, cursor=cursor)
        assert page == await model.query(query, limit=limit, cursor=cursor)
        cursor = page.cursor
        if cursor is None:
            return


_TEXTS = ("a", "A", "z", "é", "～", "\U0001f600", "a'\"%_b", "Straße", "STRASSE")


_MET = ("sessions", "runs", "metrics")


def random_key(calls: random.Random) -> Key:
    declared = DECLARED[calls.choice(_MET)]
    return Key(declared.name, calls.choice(_TEXTS), calls.choice(_TEXTS[:3]) if declared.parent_field else None)


def random_item(calls: random.Random, now: int) -> Item:
    key = random_key(calls)
    deleted = calls.random() < 0.1
    names = DECLARED[key.collection].fields
    fields = {} if deleted else {name: calls.choice(_TEXTS) for name in names if calls.random() < 0.7}
    expires_at = now + calls.randrange(-1, 4) if calls.random() < 0.3 else None
    data = calls.choice(("", "text", "\0\n", b"", b"\0\xff"))
    return Item(key, random_version(calls), fields, "" if deleted else data, expires_at, deleted)


def random_version(calls: random.Random) -> str:
    return f"{calls.randrange(50):012x}-0000-000000000000"


def random_mutations(calls: random.Random, now: int) -> list[Mutation]:
    mutations: dict[Key, Mutation] = {}
    for _ in range(calls.randrange(1, 4)):
        condition = Condition(
            absent=calls.random() < 0.2,
            expected=random_version(calls) if calls.random() < 0.2 else None,
            owner=calls.choice(_TEXTS[:3]) if calls.random() < 0.2 else None,
        )
        item = random_item(calls, now)
        put = Put(item, condition)
        mutations[item.key] = Delete(item.key, item.version, condition) if calls.random() < 0.3 else put
    return list(mutations.values())


def random_query(calls: random.Random) -> Query:
    declared = DECLARED[calls.choice(_MET)]
    index = calls.choice(declared.indexes)
    equals, any_of = {}, {}
    if index.partition in declared.fields and calls.random() < 0.5:
        equals[index.partition] = calls.choice(_TEXTS[:4])
    elif index.partition in declared.fields:
        any_of[index.partition] = random_values(calls)
    if calls.random() < 0.4:
        any_of[calls.choice(declared.fields)] = random_values(calls)
    low, high = (calls.choice((None, *_TEXTS)) for _ in range(2))
    return Query(
        declared.name,
        index.sort,
        descending=calls.random() < 0.5,
        parent=calls.choice(_TEXTS[:3]) if declared.parent_field else None,
        equals=equals,
        any_of=any_of,
        ranges=(Range(calls.choice(declared.fields), low, high),) if calls.random() < 0.4 else (),
        contains={calls.choice(declared.fields): calls.choice(("a", "É", "ss", "%"))} if calls.random() < 0.4 else {},
    )


def random_values(calls: random.Random) -> tuple[str, ...]:
    return tuple(calls.choices(_TEXTS, k=calls.randrange(1, 6)))


class TestManyKeys:
    """One call takes more keys than SQLite takes parameters in one statement."""

    async def test_are_written_and_found_in_order(self, store: SQLiteStore) -> None:
        puts = [put(f"{number}", "1") for number in range(2_000)]
        assert await store.write(puts) == (Stored("1"),) * len(puts)
        keys = [each.key for each in puts]
        assert [item and item.key for item in (await store.get([COUNTER, *keys, keys[0]])).items] == [
            None,
            *keys,
            keys[0],
        ]

    async def test_of_many_parents_are_written_and_found_in_order(self, store: SQLiteStore) -> None:
        keys = [Key("spans", f"{number % 7}", f"{number // 7}") for number in range(1_000)]
        assert await store.write([Put(Item(key, "1")) for key in keys]) == (Stored("1"),) * len(keys)
        assert [item and item.key for item in (await store.get(keys)).items] == keys

    @pytest.mark.parametrize("head", [False, True])
    async def test_are_looked_up_by_the_primary_key(self, store: SQLiteStore, head: bool) -> None:
        keys = [Key("runs", name, parent) for name in "abc" for parent in "st"]
        statement, parameters = Table(DECLARED["runs"], "t_").find(keys, head=head)
        async with the_writer(store) as raw:
            *_, step = await raw.execute_fetchall(f"EXPLAIN QUERY PLAN {statement}", parameters)
        assert step[3].endswith("(parent=? AND id=?)")


class TestTogether:
    """Tasks and processes share a file, and no update is lost."""

    async def test_sixteen_tasks_update_one_item(self, store: SQLiteStore) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(16):
                tasks.create_task(count_up(store, 5))
        assert await counted(store) == 80

    async def test_several_processes_create_the_file_and_update_one_item(self, path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=count_in_a_process, args=(path, 20)) for _ in range(4)]
        for each in processes:
            each.start()
        for each in processes:
            await asyncio.to_thread(each.join)
        assert [each.exitcode for each in processes] == [0] * 4
        async with SQLiteStore(path, prefix="t_") as store:
            assert await counted(store) == 80

    async def test_stores_provision_at_once(self, path: Path) -> None:
        stores = [SQLiteStore(path) for _ in range(8)]
        await asyncio.gather(*(each.open() for each in stores))
        await asyncio.gather(*(each.provision() for each in stores))
        assert await stores[0].write([put("a", "1")]) == (Stored("1"),)
        await asyncio.gather(*(each.aclose() for each in stores))

    async def test_prefixes_keep_stores_in_one_file_apart(self, path: Path, store: SQLiteStore) -> None:
        async with SQLiteStore(path, prefix="other_") as other:
            await other.provision()
            await store.write([put("a", "1", created_at="1")])
            assert (await other.get([Key("sessions", "a")])).items == (None,)
            assert await other.count(Query("sessions", "created_at")) == 0


class TestSharedTransactions:
    """Writes of several tasks that wait for the file share a transaction, and each is answered as by itself."""

    async def test_those_that_wait_share_one_commit(self, store: SQLiteStore) -> None:
        commits: list[str] = []
        async with the_writer(store) as raw:
            await raw.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
        puts = [put(f"{number}", "1") for number in range(20)]
        outcomes = await asyncio.gather(*(store.write([each]) for each in puts))
        assert outcomes == [(Stored("1"),)] * 20
        assert len(commits) == 1
        keys = [each.key for each in puts]
        assert (await store.get(keys)).items == tuple(each.item for each in puts)

    async def test_a_refused_one_does_not_keep_the_others_from_being_stored(self, store: SQLiteStore) -> None:
        await store.write([put("old", "5")])
        absent = Put(put("old", "6").item, Condition(absent=True))
        calls = [([put("a", "1")], False), ([put("b", "1"), absent], True), ([absent], False), ([put("c", "1")], False)]
        outcomes = await asyncio.gather(*(store.write(mutations, atomic=atomic) for mutations, atomic in calls))
        refused = Refused("exists", "5")
        assert outcomes == [(Stored("1"),), (Refused("atomic"), refused), (refused,), (Stored("1"),)]
        found = (await store.get([Key("sessions", name) for name in ("a", "b", "old", "c")])).items
        assert [item and item.version for item in found] == ["1", None, "5", "1"]

    async def test_writes_of_one_item_are_decided_one_after_the_other(self, store: SQLiteStore) -> None:
        writes: list[Mutation] = [put("a", "1"), Delete(COUNTER, "9"), put("a", "3"), put("a", "2")]
        writes += [Delete(Key("sessions", "a"), "4"), put("a", "5")]
        outcomes = await asyncio.gather(*(store.write([each]) for each in writes))
        assert [each for (each,) in outcomes] == [
            Stored("1"),
            Refused("absent"),
            Stored("3"),
            Refused("older", "3"),
            Stored("4"),
            Stored("5"),
        ]

    async def test_one_that_fails_takes_no_other_with_it(self, store: SQLiteStore) -> None:
        async with the_writer(store) as raw:
            ((pages,),) = await raw.execute_fetchall("PRAGMA page_count")
            await raw.execute_fetchall(f"PRAGMA max_page_count = {pages + 20}")
        writes = [put(f"{number}", "1") for number in range(8)]
        writes.insert(4, Put(Item(Key("sessions", "big"), "1", {}, b"x" * 1_000_000)))
        outcomes = [each for (each,) in await asyncio.gather(*(store.write([each]) for each in writes))]
        failed = outcomes.pop(4)
        assert isinstance(failed, Failed)
        assert "full" in str(failed.error)
        assert not failed.applied
        assert outcomes == [Stored("1")] * 8

    @pytest.mark.parametrize("cancelled", [0, 3])
    async def test_one_that_is_cancelled_at_any_moment_takes_no_other_with_it(
        self, store: SQLiteStore, cancelled: int
    ) -> None:
        for moment in range(40):
            puts = [put(f"{moment}-{number}", "1") for number in range(6)]
            tasks = [asyncio.create_task(store.write([each])) for each in puts]
            for _ in range(moment):
                await asyncio.sleep(0)
            tasks[cancelled].cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            del outcomes[cancelled], puts[cancelled]
            assert outcomes == [(Stored("1"),)] * 5
            assert (await store.get([each.key for each in puts])).items == tuple(each.item for each in puts)

    async def test_a_commit_without_answer_may_have_applied_all(self, store: SQLiteStore) -> None:
        def deny_commits(action: int, what: str | None, *_: str | None) -> int:
            return sqlite3.SQLITE_DENY if (action, what) == (22, "COMMIT") else sqlite3.SQLITE_OK

        async with the_writer(store) as raw:
            await raw.set_authorizer(deny_commits)
        for (outcome,) in await asyncio.gather(*(store.write([put(name, "1")]) for name in "abc")):
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, StoreUnavailable)
            assert outcome.applied
        async with the_writer(store) as raw:
            await raw.set_authorizer(None)
        assert await store.write([put("a", "2")]) == (Stored("2"),)


class TestCancelled:
    """A cancelled call has been carried out as a whole or not at all, and the store can be used."""

    async def test_at_any_moment(self, store: SQLiteStore) -> None:
        for moment in range(60):
            pair = [put(f"{moment}-{side}", "1", created_at="1") for side in "ab"]
            task = asyncio.create_task(store.write(pair))
            for _ in range(moment):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            first, second = (await store.get([each.key for each in pair])).items
            # The read may have been quicker than a commit under way; the next write waits for that.
            await store.write([put("next", f"{moment:03}")])
            first, second = (await store.get([each.key for each in pair])).items
            assert (first is None) == (second is None)
        assert await store.count(Query("sessions", "created_at")) % 2 == 0

    async def test_in_the_middle_of_many_changes(self, store: SQLiteStore) -> None:
        many = [put(f"{number}", "1", created_at="1") for number in range(5_000)]
        writer, changing, go_on = store._open()[1], asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def hold_up_changes(action: int, *_: str | None) -> int:
            if action == sqlite3.SQLITE_INSERT:
                loop.call_soon_threadsafe(changing.set)
                go_on.wait(60)
            return sqlite3.SQLITE_OK

        await writer.raw.set_authorizer(hold_up_changes)
        before = writer.raw.total_changes
        task = asyncio.create_task(store.write(many))
        await changing.wait()
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert writer.stopped
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert writer.raw.total_changes == before
        await writer.raw.set_authorizer(None)
        assert await store.count(Query("sessions", "created_at")) == 0
        assert await store.write(many) == (Stored("1"),) * len(many)

    async def test_while_it_waits_for_a_lock(self, store: SQLiteStore, locked: sqlite3.Connection) -> None:
        task = asyncio.create_task(store.write([put("cancelled", "1")]))
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        locked.execute("ROLLBACK")
        assert await store.write([put("next", "1")]) == (Stored("1"),)
        assert (await store.get([Key("sessions", "cancelled")])).items == (None,)

    async def test_calls_under_way_end_before_the_store_closes(self, path: Path) -> None:
        store = SQLiteStore(path)
        await store.open()
        await store.provision()
        task = asyncio.create_task(store.write([put("a", "1")]))
        await asyncio.sleep(0)
        await store.aclose()
        assert await task == (Stored("1"),)


class TestLocked:
    """Another program holds the file's write lock."""

    async def test_a_write_fails_at_the_deadline_without_effect(self, path: Path, locked: sqlite3.Connection) -> None:
        async with SQLiteStore(path, prefix="t_") as hasty:
            with short_of_time(hasty):
                outcomes = await asyncio.gather(*(hasty.write([put(name, "1")]) for name in "abc"))
            for (outcome,) in outcomes:
                assert isinstance(outcome, Failed)
                assert isinstance(outcome.error, StoreUnavailable)
                assert not outcome.applied
            locked.execute("ROLLBACK")
            assert (await hasty.get([Key("sessions", name) for name in "abc"])).items == (None,) * 3
            assert await hasty.write([put("a", "1")]) == (Stored("1"),)

    async def test_a_write_waits_for_the_lock(self, store: SQLiteStore, locked: sqlite3.Connection) -> None:
        task = asyncio.create_task(store.write([put("a", "1")]))
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
        locked.execute("ROLLBACK")
        assert await task == (Stored("1"),)

    async def test_reads_go_on(self, store: SQLiteStore, locked: sqlite3.Connection) -> None:
        task = asyncio.create_task(store.write([put("a", "1")]))
        assert await store.count(Query("sessions", "created_at")) == 0
        assert (await store.get([Key("sessions", "a")])).items == (None,)
        assert not task.done()
        locked.execute("ROLLBACK")
        await task


class TestFaults:
    async def test_a_full_disk_fails_all_without_effect(self, store: SQLiteStore) -> None:
        async with the_writer(store) as raw:
            await raw.execute_fetchall("PRAGMA max_page_count = 1")
        big = Put(Item(Key("sessions", "big"), "1", {}, b"x" * 1_000_000))
        outcomes = await store.write([put("small", "1"), big])
        for outcome in outcomes:
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, StoreUnavailable)
            assert "full" in str(outcome.error)
            assert not outcome.applied
        assert (await store.get([Key("sessions", "small"), big.key])).items == (None, None)

    async def test_a_commit_without_answer_may_have_been_applied(self, store: SQLiteStore) -> None:
        def deny_commits(action: int, what: str | None, *_: str | None) -> int:
            return sqlite3.SQLITE_DENY if (action, what) == (22, "COMMIT") else sqlite3.SQLITE_OK

        async with the_writer(store) as raw:
            await raw.set_authorizer(deny_commits)
        (outcome,) = await store.write([put("a", "1")])
        assert isinstance(outcome, Failed)
        assert outcome.applied
        async with the_writer(store) as raw:
            await raw.set_authorizer(None)
        assert await store.write([put("b", "1")]) == (Stored("1"),)

    async def test_a_commit_that_the_disk_holds_up_may_have_been_applied(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agno_clouddb.stores.sqlite._BACKSTOP", 0.1)
        answer = threading.Event()

        def hold_up_commits(action: int, what: str | None, *_: str | None) -> int:
            return sqlite3.SQLITE_OK if (action, what) != (22, "COMMIT") or answer.wait(60) else sqlite3.SQLITE_DENY

        async with SQLiteStore(path) as store:
            await store.provision()
            async with the_writer(store) as raw:
                await raw.set_authorizer(hold_up_commits)
            try:
                with short_of_time(store):
                    (late,) = await store.write([put("a", "1")])
                    (behind,) = await store.write([put("b", "1")])
            finally:
                answer.set()
            assert isinstance(late, Failed)
            assert late.applied
            assert isinstance(behind, Failed)
            assert not behind.applied
        async with SQLiteStore(path) as store:
            found = (await store.get([Key("sessions", "a"), Key("sessions", "b")])).items
            assert [item is not None for item in found] == [True, False]

    async def test_a_slow_query_is_interrupted_at_the_deadline(self, path: Path) -> None:
        slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000000) SELECT count(*) FROM n"
        async with SQLiteStore(path) as store:
            await store.provision()
            with short_of_time(store), pytest.raises(StoreUnavailable, match=r"within 1\.0 seconds") as caught:
                async with store._hold(store._open()[0]) as raw:
                    await raw.execute_fetchall(slow)
            assert isinstance(caught.value.__cause__, TimeoutError)
            assert await store.count(Query("sessions", "created_at")) == 0

    async def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailable, match="unable to open"):
            await SQLiteStore(tmp_path / "none" / "store.sqlite").open()

    async def test_a_file_of_another_kind(self, path: Path) -> None:
        await asyncio.to_thread(path.write_text, "no database at all " * 100)
        with pytest.raises(ConfigurationError, match="not an SQLite database"):
            await SQLiteStore(path).open()

    async def test_a_file_that_orders_text_otherwise(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA encoding = 'UTF-16le'")
            other.execute("CREATE TABLE some (thing)")
        with pytest.raises(ConfigurationError, match="UTF-16le"):
            await SQLiteStore(path).open()

    @pytest.mark.parametrize(("path", "prefix"), [("", ""), (":memory:", ""), ("file.sqlite", "SQLite_")])
    async def test_what_cannot_be_meant(self, path: str, prefix: str) -> None:
        with pytest.raises(ConfigurationError):
            await SQLiteStore(path, prefix=prefix).open()


class TestProvisioning:
    async def test_nothing_is_provisioned(self, path: Path) -> None:
        async with SQLiteStore(path) as store:
            for call in (
                store.get([COUNTER]),
                store.query(Query("sessions", "created_at"), limit=1),
                store.count(Query("sessions", "created_at")),
            ):
                with pytest.raises(NotProvisioned, match="no such table: agno_sessions"):
                    await call
            (outcome,) = await store.write([put("a", "1")])
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, NotProvisioned)

    async def test_a_missing_table_is_the_trouble_of_its_items_alone(self, path: Path, store: SQLiteStore) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE t_runs")
        run = Put(Item(Key("runs", "r", "a"), "1"))
        failed, refused = await store.write([run, put("a", "1")], atomic=True)
        assert isinstance(failed, Failed)
        assert refused == Refused("atomic")
        failed, stored = await store.write([run, put("a", "1")])
        assert isinstance(failed, Failed)
        assert stored == Stored("1")

    async def test_only_the_collections_asked_for_are_provisioned(self, path: Path) -> None:
        async with SQLiteStore(path) as store:
            for names in (["runs"], ["sessions", "memories"]):
                await store.provision(names)
            with closing(sqlite3.connect(path)) as other:
                tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"agno_runs", "agno_sessions", "agno_memories"}

    async def test_a_missing_index_is_not_made_up_for_by_a_scan(self, path: Path, store: SQLiteStore) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute('DROP INDEX "t_sessions-user_id-created_at-index"')
        query = Query("sessions", "created_at", equals={"user_id": "ann"})
        with pytest.raises(NotProvisioned, match="user_id-created_at-index"):
            await store.query(query, limit=1)
        await store.provision()
        assert (await store.query(query, limit=1)).items == ()

    async def test_a_file_from_before_a_field_gets_its_column(self, path: Path) -> None:
        declared = DECLARED["sessions"]
        names = tuple(name for name in declared.fields if name != "component_id")
        indexes = tuple(Index(SHARD, sort) for sort in ("created_at", "updated_at"))
        older = Table(Collection(declared.name, declared.id_field, names, indexes), "agno_")
        async with aiosqlite.connect(path) as other:
            await older.provision(other, 0)
            await other.execute_fetchall(*older.change(put("old", "1", created_at="1")))
            await other.commit()
        async with SQLiteStore(path) as store:
            (outcome,) = await store.write([put("a", "1")])
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, NotProvisioned)
            await store.provision()
            assert await store.write([put("a", "1", component_id="c", created_at="2")]) == (Stored("1"),)
            page = await store.query(Query("sessions", "created_at"), limit=5)
        assert [(item.key.id, item.fields) for item in page.items] == [
            ("old", {"created_at": "1"}),
            ("a", {"component_id": "c", "created_at": "2"}),
        ]

    async def test_what_expired_long_ago_is_removed(self, path: Path) -> None:
        now = [0]
        async with SQLiteStore(path, now=lambda: now[0]) as store:
            await store.provision()
            await store.write([Put(Item(COUNTER, "1", expires_at=10))])
            for now[0], left in ((86_400, 1), (86_411, 0)):
                await store.provision()
                items = (await store.get([COUNTER], dead=True)).items
                assert len([each for each in items if each is not None]) == left


@pytest.mark.parametrize(
    ("declared", "index"),
    [pytest.param(each, index, id=f"{each.name}-{index.name}") for each in DECLARED.values() for index in each.indexes],
)
@pytest.mark.parametrize("descending", [False, True])
async def test_every_index_answers_its_query_without_sorting(
    declared: Collection, index: Index, descending: bool
) -> None:
    equals = {index.partition: "x"} if index.partition in declared.fields else {}
    parent = "p" if declared.parent_field else None
    ranges = (Range(index.sort, "a", "b"),)
    query = Query(declared.name, index.sort, descending, parent, equals, ranges=ranges)
    table = Table(declared, "")
    async with aiosqlite.connect(":memory:") as connection:
        await add_functions(connection)
        await table.provision(connection, 0)
        place = query.place(Item(Key(declared.name, "i", parent), "1", {index.sort: "a"}))
        for cursor in (None, place):
            statement, parameters = table.page(query, 0, cursor, 10)
            plan = list(await connection.execute_fetchall(f"EXPLAIN QUERY PLAN {statement}", parameters))
            assert len(plan) == 1, plan
            assert plan[0][3].startswith(f"SEARCH {declared.name} USING INDEX {declared.name}-{index.name} "), plan


@pytest.mark.parametrize(
    ("query", "by"),
    [
        (Query("memories", "updated_at", True, any_of={"user_id": ("a", "b")}), "user_id"),
        (Query("metrics", "aggregation_period", any_of={"date": ("1", "2")}), "date"),
        (Query("memories", "updated_at"), "user_id"),
    ],
)
async def test_pages_counts_and_tallies_of_several_values_search_the_index(query: Query, by: str) -> None:
    declared = DECLARED[query.collection]
    table = Table(declared, "")
    async with aiosqlite.connect(":memory:") as connection:
        await add_functions(connection)
        await table.provision(connection, 0)
        for statement, parameters in (
            table.page(query, 0, None, 10),
            table.count(query, 0),
            table.tally(query, 0, by),
        ):
            plan = list(await connection.execute_fetchall(f"EXPLAIN QUERY PLAN {statement}", parameters))
            reads = [step[3] for step in plan if step[3].startswith(("SEARCH", "SCAN"))]
            searched = f"SEARCH {declared.name} USING INDEX {declared.name}-{query.index.name} "
            assert len(reads) == 1
            assert reads[0].startswith(searched), reads


@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
async def test_scans_read_an_index_in_its_order_from_where_they_go_on(declared: Collection) -> None:
    table = Table(declared, "")
    async with aiosqlite.connect(":memory:") as connection:
        await table.provision(connection, 0, replicated=True)
        for since, after, index in (
            (None, None, f"INDEX sqlite_autoindex_{declared.name}_1 "),
            (None, ("p", "i"), f"INDEX sqlite_autoindex_{declared.name}_1 "),
            ("1", None, f"COVERING INDEX {declared.name}-version-index "),
            ("1", ("2", "p", "i"), f"COVERING INDEX {declared.name}-version-index "),
        ):
            statement, parameters = table.scan(since, after, 10)
            plan = list(await connection.execute_fetchall(f"EXPLAIN QUERY PLAN {statement}", parameters))
            assert len(plan) == 1, plan
            assert plan[0][3].startswith(f"SEARCH {declared.name} USING {index}"), plan


class TestLifecycle:
    async def test_before_and_after(self, path: Path) -> None:
        store = SQLiteStore(path)
        for _ in range(2):
            with pytest.raises(LifecycleError):
                await store.get([COUNTER])
            with pytest.raises(LifecycleError):
                await store.write([put("a", "1")])
            async with store:
                await store.provision()
                await store.open()
            await store.aclose()

    async def test_another_event_loop(self, store: SQLiteStore) -> None:
        with pytest.raises(LifecycleError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, store.get([COUNTER]))

    async def test_what_is_stored_outlives_the_store(self, path: Path) -> None:
        async with SQLiteStore(path) as store:
            await store.provision()
            await store.write([put("a", "1")])
        async with SQLiteStore(path) as store:
            (item,) = (await store.get([Key("sessions", "a")])).items
        assert item is not None
        assert item.data == "data of 1"

    @pytest.mark.parametrize("moment", range(8))
    async def test_no_thread_outlives_a_cancelled_open(self, path: Path, moment: int) -> None:
        before = set(threading.enumerate())
        store = SQLiteStore(path)
        task = asyncio.create_task(store.open())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.aclose()
        await asyncio.get_running_loop().shutdown_default_executor()
        mine = set(threading.enumerate()) - before
        for each in mine:
            each.join(10)
        assert not any(each.is_alive() for each in mine)

    def test_a_store_that_is_never_closed_does_not_keep_its_process_from_ending(self, path: Path) -> None:
        process = multiprocessing.get_context("spawn").Process(target=forget_a_store, args=(path,))
        process.start()
        process.join(60)
        ended = process.exitcode
        process.kill()
        assert ended == 0

    async def test_errors_name_the_store(self, path: Path) -> None:
        with pytest.raises(CloudDBError) as caught:
            await SQLiteStore(path).provision()
        assert caught.value.store == f"sqlite:///{path}"
