"""Acknowledged writes outlive outages of AWS's and Google's own engines, behind a network that fails.

Every choice comes from a seed, which a failure prints with the history. What was acknowledged is compared with what
both stores hold in the end, and the counts are printed at the end of the test run.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack

import anyio
import pytest

from agno_clouddb import Database, UserMemory, connect
from agno_clouddb.errors import StoreUnavailable
from agno_clouddb.stores.base import Batch, Consistency, Cursor, Key, Mutation, Outcome, Page, Query
from agno_clouddb.stores.schema import REPLICATION
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing.engines import Engine, dynamodb_local_engine, firestore_emulator_engine
from tests.outages.comparison import Log, Verdict, compare
from tests.outages.schedule import Outages, behind_proxies, provisioned
from tests.outages.writer import Writer

WRITERS = 8
WRITES = 40  # of each writer
DEADLINE = 1.0  # seconds that a store has
PATIENT = 5.0  # the same, where the cloud that is well must answer in time each time
UNHURRIED = 10.0  # the same, where nothing is to wait for it, however slow the engine is just now
HANG = 120.0  # seconds after which something counts as never happening

pytestmark = [pytest.mark.dynamodb_local, pytest.mark.firestore]


@pytest.fixture
def cloud_urls(dynamodb_local_url: str, firestore_url: str) -> tuple[str, str]:
    prefix = f"prefix=t{secrets.token_hex(6)}_"
    return f"{dynamodb_local_url}&{prefix}", f"{firestore_url}&{prefix}"


class Load:
    """Several writers at once.

    Args:
        db: where to.
        seed: decides what they write.
    """

    def __init__(self, db: Database, seed: int, log: Log | None = None) -> None:
        self.log = log or Log()
        self._done = asyncio.Semaphore(0)
        self._life = str(self.log.counts["begun"])
        self._writers = [Writer(db, self.log, f"w{number}", seed, self._life) for number in range(WRITERS)]

    async def run(self, writes: int) -> None:
        """Let each writer carry out so many writes."""
        async with asyncio.TaskGroup() as group:
            for writer in self._writers:
                group.create_task(self._write(writer, writes))

    async def more(self, writes: int) -> None:
        """Wait until so many more writes have ended, one way or the other."""
        for _ in range(writes):
            await self._done.acquire()

    async def _write(self, writer: Writer, writes: int) -> None:
        for _ in range(writes):
            await writer.step()
            self._done.release()


class Lists:
    """Lists of sessions read in the middle of outages.

    Args:
        db: where from.
        log: what was acknowledged before a list is read.
    """

    def __init__(self, db: Database, log: Log) -> None:
        self.read = self.degraded = self.failed = 0
        self.missing: list[str] = []
        self._db = db
        self._log = log

    async def look(self) -> None:
        """Read the whole list; what was acknowledged before, and is not touched meanwhile, must be in it."""
        before = self._standing()
        shown: dict[str, object] = {}
        degraded, cursor = False, None
        try:
            while True:
                page = await self._db.sessions.list(limit=7, cursor=cursor)
                shown.update({each.session_id: (each.session_data or {}).get("marker") for each in page.items})
                degraded, cursor = degraded or page.degraded, page.cursor
                if cursor is None:
                    break
        except StoreUnavailable:
            self.failed += 1
            return
        self.read += 1
        self.degraded += degraded
        after = self._standing()
        if not degraded:
            self.missing += [
                f"{session} with {marker}, but {shown.get(session)} was listed"
                for session, marker in before.items()
                if after.get(session) == marker and shown.get(session) != marker
            ]

    def _standing(self) -> dict[str, str]:
        keys = [key for key in self._log.possible if key.collection == "sessions"]
        return {key.id: marker for key in keys if (marker := self._log.standing(key)) is not None}


async def fail_in_turn(outages: Outages, load: Load, lists: Lists, draw: Callable[[int, int], int]) -> None:
    """One outage after the other, each for some writes, and a list in the middle of each."""
    while True:
        outages.begin()
        await load.more(draw(3, 25))
        await lists.look()
        await load.more(draw(3, 25))
        await outages.end()
        await load.more(draw(1, 15))
        await lists.look()


def conclude(verdict: Verdict, record: Callable[[str, object], None], history: str) -> None:
    record("verdict", str(verdict))
    if not verdict.good:
        pytest.fail(f"{verdict.details()}\n{history}", pytrace=False)


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_acknowledged_write_is_lost_or_undone_by_outages_of_either_cloud(
    seed: int, cloud_urls: tuple[str, str], record_property: Callable[[str, object], None]
) -> None:
    async with behind_proxies(cloud_urls) as (proxies, urls):
        await provisioned(urls)
        outages = Outages(proxies, seed, DEADLINE)
        async with connect(*urls, deadline=DEADLINE) as db:
            load = Load(db, seed)
            lists = Lists(db, load.log)
            failing = asyncio.create_task(fail_in_turn(outages, load, lists, outages.number))
            await load.run(WRITES)
            failing.cancel()
            await asyncio.wait([failing])
            await outages.end()
        for proxy in proxies:
            await asyncio.wait_for(proxy.idle(), HANG)
        async with connect(*urls) as db:
            await db.reconcile()
            verdict = await compare(db, cloud_urls, load.log)
    seen = f"lists read {lists.read} ({lists.degraded} degraded), failed {lists.failed}, missing {len(lists.missing)}"
    record_property("verdict", f"seed {seed}, {len(outages.history) // 2} outages: {seen}")
    conclude(verdict, record_property, f"seed {seed}\n" + "\n".join(outages.history))
    assert lists.read
    assert lists.missing == [], f"seed {seed}"


async def caught_up(db: Database) -> None:
    """Wait until no store is known to have missed anything."""
    ends_at = asyncio.get_running_loop().time() + HANG
    while not (health := await db.health()).ok:
        if asyncio.get_running_loop().time() > ends_at:
            pytest.fail(f"a store has not caught up within {HANG:g} seconds: {health}", pytrace=False)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("position", [0, 1], ids=["dynamodb", "firestore"])
async def test_what_a_cloud_has_missed_is_brought_to_it_when_it_answers_again(
    position: int, cloud_urls: tuple[str, str], record_property: Callable[[str, object], None]
) -> None:
    async with behind_proxies(cloud_urls) as (proxies, urls):
        await provisioned(urls)
        async with connect(*urls, deadline=UNHURRIED) as db:
            load = Load(db, seed=5)
            proxies[position].cut()
            await load.run(6)
            assert (await db.health()).stores[position].hints
            await proxies[position].heal()
            await caught_up(db)
            verdict = await compare(db, cloud_urls, load.log)
    conclude(verdict, record_property, "")


async def test_what_a_cloud_has_missed_is_brought_to_it_by_another_process_that_reconciles_now_and_then(
    cloud_urls: tuple[str, str], record_property: Callable[[str, object], None]
) -> None:
    async with behind_proxies(cloud_urls) as (proxies, urls):
        await provisioned(urls)
        async with connect(*urls, deadline=UNHURRIED) as db:
            load = Load(db, seed=6)
            proxies[0].cut()
            await load.run(6)
        await proxies[0].heal()
        async with connect(*urls, reconcile_every=0.1, deadline=UNHURRIED) as db:
            assert (await db.health()).stores[0].hints
            await caught_up(db)
            verdict = await compare(db, cloud_urls, load.log)
    conclude(verdict, record_property, "")


# Engines that are stopped, killed and started again


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, cloud_engines_exist: None) -> Iterator[tuple[Engine, Engine]]:
    """Engines of this module alone: DynamoDB Local over a file, and Firestore's emulator, which has none."""
    with ExitStack() as stack:
        dynamodb = stack.enter_context(dynamodb_local_engine(tmp_path_factory.mktemp("dynamodb")))
        yield dynamodb, stack.enter_context(firestore_emulator_engine())


@pytest.fixture(scope="module")
def cloud_engines_exist(dynamodb_local_url: str, firestore_url: str) -> None:
    """Skips, or fails in CI, where an engine is missing."""


@pytest.fixture
async def own_urls(engines: tuple[Engine, Engine]) -> tuple[str, str]:
    prefix = f"prefix=t{secrets.token_hex(6)}_"
    first, second = (f"{engine.url}&{prefix}" for engine in engines)
    await provisioned((first, second))
    return first, second


async def written_while(load: Load, down: Callable[[], None], up: Callable[[], None]) -> None:
    """Writes before, while something is down, and after that; what blocks runs in a thread."""
    writing = asyncio.create_task(load.run(24))
    try:
        await load.more(40)
        await asyncio.to_thread(down)
        try:
            await load.more(80)
        finally:
            await asyncio.to_thread(up)
    finally:
        await asyncio.wait([writing])
    writing.result()


async def concluded(
    urls: Sequence[str], log: Log, record: Callable[[str, object], None], *, full: bool = False
) -> None:
    async with connect(*urls) as db:
        await db.reconcile(full=full)
        verdict = await compare(db, urls, log)
    conclude(verdict, record, "")


@pytest.mark.parametrize("position", [0, 1], ids=["dynamodb", "firestore"])
async def test_writes_go_on_while_an_engine_is_stopped_and_reach_it_when_it_goes_on(
    position: int,
    engines: tuple[Engine, Engine],
    own_urls: tuple[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    server = engines[position].server
    async with connect(*own_urls, deadline=DEADLINE) as db:
        load = Load(db, seed=position)
        await written_while(load, server.pause, server.resume)
    await concluded(own_urls, load.log, record_property)


async def test_an_engine_that_is_killed_and_started_again_catches_up(
    engines: tuple[Engine, Engine], own_urls: tuple[str, str], record_property: Callable[[str, object], None]
) -> None:
    server = engines[0].server
    async with connect(*own_urls, deadline=DEADLINE) as db:
        load = Load(db, seed=3)
        await written_while(load, server.kill, server.start)
    await concluded(own_urls, load.log, record_property)


async def test_a_cloud_that_has_lost_all_its_data_is_filled_again_from_the_other(
    engines: tuple[Engine, Engine], own_urls: tuple[str, str], record_property: Callable[[str, object], None]
) -> None:
    server = engines[1].server
    async with connect(*own_urls, deadline=DEADLINE) as db:
        load = Load(db, seed=4)
        await load.run(24)
        await db.reconcile()
        await asyncio.to_thread(server.kill)
        await load.run(6)
        await asyncio.to_thread(server.start)
    async with connect(*own_urls) as db:
        await db.provision()
    await concluded(own_urls, load.log, record_property, full=True)


# What a dead cloud costs


class Watched(WrapperStore):
    """Counts the calls that reach a store on behalf of callers, and not what the fan-out does for itself."""

    reached = 0

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        self._count(keys)
        return await super().get(keys, consistency=consistency, dead=dead)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        self._count([each.key for each in mutations])
        return await super().write(mutations, atomic=atomic)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        self.reached += query.collection != REPLICATION.name
        return await super().query(query, limit=limit, cursor=cursor, consistency=consistency)

    def _count(self, keys: Sequence[Key]) -> None:
        self.reached += any(key.collection != REPLICATION.name for key in keys)


@pytest.mark.parametrize("silent", [0, 1], ids=["dynamodb", "firestore"])
async def test_a_silent_cloud_costs_the_first_calls_one_deadline_and_later_ones_nothing(
    silent: int, cloud_urls: tuple[str, str]
) -> None:
    loop = asyncio.get_running_loop()
    async with behind_proxies(cloud_urls) as (proxies, urls):
        await provisioned(urls)
        stores = [Watched(store_from_url(url, StoreOptions(deadline=PATIENT))) for url in urls]
        dead = stores[silent]
        async with connect(*stores, deadline=PATIENT) as db:
            memory = await db.memories.upsert(UserMemory(memory_id="m", memory="before"))
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: db.sessions.get("shared", runs=0),
                lambda: db.memories.upsert(memory),
                lambda: db.sessions.list(limit=5),
            ]
            proxies[silent].black_hole()
            opened = False
            for number in range(12):
                reached, began = dead.reached, loop.time()
                await calls[number % len(calls)]()
                assert loop.time() - began < 2 * PATIENT, "the call waited for more than one deadline"
                opened = dead.reached == reached
            assert opened, "the circuit has not opened"
            reached, began = dead.reached, loop.time()
            for number in range(30):
                await calls[number % len(calls)]()
            assert dead.reached == reached
            assert loop.time() - began < 30 * PATIENT / 2, "the calls waited for the dead cloud"
            assert (await db.sessions.list(limit=5)).degraded
            await proxies[silent].heal()
            async with asyncio.timeout(HANG):
                while dead.reached == reached:
                    await asyncio.sleep(0.05)
                    await db.sessions.get("shared", runs=0)
            assert not (await db.sessions.list(limit=5)).degraded


@pytest.mark.parametrize("silent", [0, 1], ids=["dynamodb", "firestore"])
async def test_a_call_to_a_silent_cloud_can_be_given_up_by_a_scope_of_anyio(
    silent: int, cloud_urls: tuple[str, str]
) -> None:
    async with behind_proxies(cloud_urls) as (proxies, urls), connect(urls[silent]) as db:
        await db.provision(["sessions"])
        proxies[silent].black_hole()
        with anyio.move_on_after(0.1) as scope:
            await db.sessions.get("s1", runs=0)
        assert scope.cancelled_caught
