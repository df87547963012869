"""What a fan-out over both clouds costs beside each cloud alone: nothing more, but for what is named here."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median

import pytest

from agno_clouddb import Database, Run, Session, UserMemory, connect
from agno_clouddb.errors import ConflictError
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import Batch, Consistency, Key, Mutation, Outcome
from agno_clouddb.stores.schema import REPLICATION
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.testing import CountingStore, Proxy
from tests.acceptance.clouds import Clouds, Cost, show
from tests.outages.comparison import port_of, through

pytestmark = [pytest.mark.dynamodb_local, pytest.mark.firestore]

TURNS = 20
CALLS = 100
DEADLINE = 10.0  # seconds that a silent cloud is waited for

CHEAPER = {
    # The primary decides, and what it refuses for good is sent nowhere else.
    "write with a version that was replaced": (1, 0),
}


class Caller:
    """Calls as an application makes them, each one after what the earlier ones have left.

    Args:
        db: where to.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._session = Session(session_id="s1", component_id="support", user_id="ann")
        self._memory = UserMemory(memory_id="m1", memory="likes tea", user_id="ann", topics=["drinks"])

    def calls(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        """The calls in their order, by what they do."""
        db = self._db
        return {
            "read a session that is not there": lambda: db.sessions.get("s1", runs=3),
            "write a new session": self._write_session,
            "append a run": lambda: db.sessions.append_run("s1", Run(run_id="r1", status="completed")),
            "append the run again": lambda: db.sessions.append_run("s1", Run(run_id="r1", status="completed")),
            "read a session with its runs": self._read_session,
            "write a session that was read": self._write_session,
            "write a session made anew": self._write_session_anew,
            "update a session": lambda: db.sessions.rename("s1", "Tea"),
            "write with the version that is stored": self._write_expected,
            "write with a version that was replaced": self._write_outdated,
            "list sessions by creation": lambda: db.sessions.list(user_id="ann"),
            "list sessions by last write": lambda: db.sessions.list(sort="-updated_at"),
            "count sessions": lambda: db.sessions.count(user_id="ann"),
            "write a new memory": lambda: db.memories.upsert(self._memory),
            "write a memory made anew": lambda: db.memories.upsert(self._memory),
            "write several memories": self._write_memories,
            "read a memory": lambda: db.memories.get("m1"),
            "list memories": lambda: db.memories.list(user_id="ann"),
            "delete a memory": lambda: db.memories.delete("m1"),
            "delete a session with a run": lambda: db.sessions.delete("s1"),
        }

    async def _write_session(self) -> None:
        self._session = await self._db.sessions.upsert(self._session)

    async def _write_session_anew(self) -> None:
        self._session = await self._db.sessions.upsert(Session(session_id="s1", user_id="ann", metadata={"n": 1}))

    async def _read_session(self) -> None:
        found = await self._db.sessions.get("s1", runs=3)
        assert found is not None
        assert len(found.runs) == 1
        self._session = found

    async def _write_expected(self) -> None:
        read = await self._db.sessions.get("s1", runs=0)
        assert read is not None
        await self._db.sessions.upsert(read, expected_version=read.version)

    async def _write_outdated(self) -> None:
        with pytest.raises(ConflictError):
            await self._db.sessions.upsert(self._session, expected_version=self._session.version)

    async def _write_memories(self) -> None:
        await self._db.memories.upsert_many(UserMemory(memory_id=f"n{n}", memory="x", user_id="ann") for n in range(25))


async def costs(db: Database, clouds: Clouds) -> dict[str, Cost]:
    """What each call has cost, with what it has left to be done in the background."""
    found: dict[str, Cost] = {}
    async with db:
        await db.provision()
        for name, call in Caller(db).calls().items():
            clouds.mark()
            await call()
            if isinstance(db.store, FanOutStore):
                await db.store.idle()
            found[name] = clouds.cost()
    return found


def under(urls: tuple[str, str], prefix: str) -> Clouds:
    """Both clouds with a prefix of their own."""
    dynamodb, firestore = (f"{url.partition('&prefix=')[0]}&prefix={prefix}" for url in urls)
    return Clouds((f"{dynamodb}&report_capacity=true", firestore))


async def test_a_healthy_fan_out_sends_each_cloud_what_that_cloud_alone_is_sent(cloud_urls: tuple[str, str]) -> None:
    alone, both = (under(cloud_urls, f"t{secrets.token_hex(6)}_") for _ in range(2))
    of_dynamodb = await costs(Database(alone.dynamodb), alone)
    of_firestore = await costs(Database(alone.firestore), alone)
    of_both = await costs(Database(FanOutStore(both.stores)), both)
    show(f"{'requests':40} DynamoDB alone, in a fan-out  Firestore alone, in a fan-out")
    for name, cost in of_both.items():
        show(
            f"{name:40} {of_dynamodb[name].requests[0]:14} {cost.requests[0]:14} "
            f"{of_firestore[name].requests[1]:16} {cost.requests[1]:14}"
        )
    expected = {
        name: CHEAPER.get(name, (of_dynamodb[name].requests[0], of_firestore[name].requests[1])) for name in of_both
    }
    assert {name: cost.requests for name, cost in of_both.items()} == expected


async def transaction_cost(clouds: Clouds, db: Database) -> Cost:
    """What a transaction of two records costs."""
    async with db:
        await db.provision(["sessions", "runs", "memories"])
        clouds.mark()
        async with db.transaction() as transaction:
            transaction.upsert(Session(session_id="s1", user_id="ann"))
            transaction.upsert(UserMemory(memory_id="m1", memory="x", user_id="ann"))
    return clouds.cost()


async def test_an_atomic_write_reads_what_it_writes_first_and_asks_for_nothing_else(
    cloud_urls: tuple[str, str],
) -> None:
    alone, both = (under(cloud_urls, f"t{secrets.token_hex(6)}_") for _ in range(2))
    of_dynamodb = (await transaction_cost(alone, Database(alone.dynamodb))).dynamodb
    of_firestore = (await transaction_cost(alone, Database(alone.firestore))).firestore
    of_both = await transaction_cost(both, Database(FanOutStore(both.stores)))
    more = of_both.dynamodb.requests - of_dynamodb.requests, of_both.firestore.requests - of_firestore.requests
    show(f"a transaction of two records: DynamoDB {dict(of_dynamodb.requests)} and {dict(more[0])} more in a fan-out")
    show(f"a transaction of two records: Firestore {dict(of_firestore.requests)} and {dict(more[1])} more in a fan-out")
    assert more[0] == {"BatchGetItem": 1}
    assert more[1] == {"BatchGetDocuments": 1}


async def test_a_turn_in_a_fan_out_costs_four_requests_and_nine_write_units(cloud_urls: tuple[str, str]) -> None:
    clouds = Clouds(cloud_urls)
    found: list[Cost] = []
    async with Database(FanOutStore(clouds.stores)) as db:
        await db.provision()
        for number in range(TURNS):
            clouds.mark()
            session = await db.sessions.get("s1", runs=3)
            await db.sessions.upsert(session or Session(session_id="s1", component_id="support", user_id="ann"))
            run = Run(run_id=f"r{number}", status="completed", data={"messages": [{"role": "user", "content": "?"}]})
            await db.sessions.append_run("s1", run)
            found.append(clouds.cost())
    first, *later = found
    units = [each.dynamodb.write_units for each in later]
    show(
        f"a turn in a fan-out: requests {max(each.requests for each in found)}, write units on DynamoDB "
        f"{max(units):g} (the first {first.dynamodb.write_units:g}), read units "
        f"{max(each.dynamodb.read_units for each in later):g}, documents on Firestore "
        f"{max(each.firestore.documents_read for each in later)} read and "
        f"{max(each.firestore.documents_written for each in later)} written"
    )
    assert all(each.requests == (4, 4) for each in found)
    assert 0 < max(units) <= 9
    assert all(each.firestore.documents_written == 2 for each in found)


ONE_WAY = 0.005
"""Seconds that a request, or an answer, takes to or from a cloud that is not on this machine."""


class Calls(CountingStore):
    """Counts calls, and apart those that are about hints and probes alone."""

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        if all(key.collection == REPLICATION.name for key in keys):
            self.calls["read replication"] += 1
            return await self.inner.get(keys, consistency=consistency, dead=dead)
        return await super().get(keys, consistency=consistency, dead=dead)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        if all(each.key.collection == REPLICATION.name for each in mutations):
            self.calls["write replication"] += 1
            return await self.inner.write(mutations, atomic=atomic)
        return await super().write(mutations, atomic=atomic)

    def taken(self) -> Counter[str]:
        """The calls since this was asked the last time."""
        taken = self.calls.copy()
        self.clear()
        return taken


async def seconds(dbs: Sequence[Database], run: str) -> list[tuple[float, float]]:
    """What a write and a read of one record take with each Database in turn, the medians of many, in seconds."""
    writes, reads = ([list[float]() for _ in dbs] for _ in range(2))
    for number in range(CALLS):
        for place, (db, took) in enumerate(zip(dbs, writes, strict=True)):
            memory = UserMemory(memory_id=f"{run}-{place}-{number}", memory="likes tea", user_id="ann")
            began = time.perf_counter()
            await db.memories.upsert(memory)
            took.append(time.perf_counter() - began)
    for number in range(CALLS):
        for place, (db, took) in enumerate(zip(dbs, reads, strict=True)):
            began = time.perf_counter()
            found = await db.memories.get(f"{run}-{place}-{number}")
            took.append(time.perf_counter() - began)
            assert found is not None
    return [(median(of_write), median(of_read)) for of_write, of_read in zip(writes, reads, strict=True)]


async def test_a_cloud_that_does_not_answer_is_not_asked_and_costs_the_other_no_call_more(
    dynamodb_local_url: str, firestore_url: str, prefix: str
) -> None:
    dynamodb, firestore = (
        f"{each}&prefix={prefix}&deadline={DEADLINE}" for each in (dynamodb_local_url, firestore_url)
    )
    async with connect(dynamodb, firestore) as db:
        await db.provision(["memories"])
    async with Proxy(port_of(dynamodb)) as way, Proxy(port_of(firestore)) as proxy:
        near = through(dynamodb, way.port)
        healthy, dead = (Calls(store_from_url(url, StoreOptions())) for url in (near, through(firestore, proxy.port)))
        both = connect(healthy, dead, deadline=DEADLINE)
        async with both, connect(near) as alone:
            while_healthy = await seconds([alone, both], "healthy")
            proxy.black_hole()
            await both.memories.upsert(UserMemory(memory_id="first", memory="waits for the silent cloud"))
            assert (await both.health()).stores[1].state != "closed"
            for store in (healthy, dead):
                store.clear()
            while_silent = await seconds([alone, both], "silent")
            calls, dead_calls = healthy.taken(), dead.taken()
            await both.memories.delete("first")
            deletion = healthy.taken()
            way.delay(ONE_WAY)
            from_afar = await seconds([alone, both], "far")
    far = f"silent, and DynamoDB {2e3 * ONE_WAY:.0f} ms away"
    for state, measured in (("healthy", while_healthy), ("silent", while_silent), (far, from_afar)):
        for name, own, fan_out in zip(("write", "merged read"), *measured, strict=True):
            show(
                f"Firestore {state}, a {name}: {own * 1e3:.1f} ms on DynamoDB alone, {fan_out * 1e3:.1f} ms in the "
                f"fan-out, {fan_out / own:.2f} times as long"
            )
    show(f"calls of DynamoDB {dict(calls)}, of Firestore {dict(dead_calls)}; for a delete {dict(deletion)}")
    assert (calls["write"], calls["get"]) == (CALLS, CALLS)
    assert calls["write replication"] <= 2 * CALLS  # hints are confirmed in the background
    assert calls.keys() <= {"write", "get", "write replication"}
    assert dead_calls.keys() <= {"read replication", "write replication"}  # probes
    assert deletion["write"] == 1
