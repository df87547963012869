"""What reconciling costs: reads on both clouds, and memory."""

from __future__ import annotations

import gc
import re
import secrets
import time
import tracemalloc
from collections.abc import Sequence
from functools import partial

import pytest

from agno_clouddb import Database, Run, Session
from agno_clouddb.concurrency import gather
from agno_clouddb.fanout.reconcile import Reconciliation
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.fanout.tombstones import tombstone
from agno_clouddb.stores.base import Batch, Consistency, Item, Key, Mutation, Outcome, Put, Scan, Stored
from agno_clouddb.stores.clock import HybridClock, epoch_seconds
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing import MemoryStore
from tests.acceptance.clouds import Clouds, Cost, clock_an_hour_ago, counted, everything, show

SESSIONS = 1_000
CONCURRENCY = 16


async def write_sessions(clouds: Clouds) -> None:
    """Sessions of one run each, on both clouds alike, longer ago than an incremental comparison goes back."""
    clock = clock_an_hour_ago()
    async with Database(FanOutStore(clouds.stores, clock=clock), clock=clock) as db:
        await db.provision()

        async def write(number: int) -> None:
            await db.sessions.upsert(Session(session_id=f"s{number}", user_id="ann", session_data={"n": number}))
            await db.sessions.append_run(f"s{number}", Run(run_id="r1", status="completed", data={"n": number}))

        await gather([partial(write, number) for number in range(SESSIONS)], limit=CONCURRENCY)


async def make_ten_differ(clouds: Clouds) -> None:
    """Write to one cloud what the other never hears of: no hint is kept of it."""
    async with Database(clouds.dynamodb) as db:
        for number in range(5):
            await db.sessions.rename(f"s{number}", "renamed")
    async with Database(clouds.firestore) as db:
        for number in range(3):
            await db.sessions.upsert(Session(session_id=f"new{number}"))
        clock = HybridClock()
        dead = [tombstone(Key("sessions", f"s{number}"), clock.stamp(), epoch_seconds()) for number in (10, 11)]
        assert all(isinstance(each, Stored) for each in await clouds.firestore.write([Put(each) for each in dead]))


async def reconciled(clouds: Clouds, *, full: bool) -> tuple[Reconciliation, Cost]:
    """What one reconciliation has done, and has cost."""
    async with Database(FanOutStore(clouds.stores)) as db:
        clouds.mark()
        report = await db.reconcile(full=full)
        return report, clouds.cost()


@pytest.mark.dynamodb_local
@pytest.mark.firestore
async def test_an_incremental_reconciliation_reads_a_tenth_of_what_a_full_one_reads(
    cloud_urls: tuple[str, str],
) -> None:
    dynamodb, firestore = cloud_urls
    # What was written under other prefixes of a Firestore database is read too, since an index of runs spans them all.
    clouds = Clouds((dynamodb, re.sub("firestore://[^?]+", f"firestore://p{secrets.token_hex(6)}", firestore)))
    await write_sessions(clouds)
    first, full = await reconciled(clouds, full=True)
    await make_ten_differ(clouds)
    second, incremental = await reconciled(clouds, full=False)
    for report, cost in ((first, full), (second, incremental)):
        show(
            f"{report.kind}: {cost.dynamodb.read_units:g} read units and {cost.dynamodb.write_units:g} write units on "
            f"DynamoDB, {cost.documents} documents read and {cost.firestore.documents_written} written on Firestore, "
            f"requests {cost.requests}, {report.total}"
        )
    assert (first.kind, second.kind) == ("full", "incremental")
    assert first.total.compared == 2 * SESSIONS
    assert first.total.mended == 0
    assert (second.total.missing, second.total.stale, second.total.mended) == (3, 7, 10)
    assert second.collections["sessions"].mended == 10
    assert 0 < incremental.dynamodb.read_units <= full.dynamodb.read_units / 10
    assert 0 < incremental.documents <= full.documents / 10
    async with clouds.dynamodb, clouds.firestore:
        held = [await everything(store) for store in clouds.stores]
    show(f"held by both: {dict(counted(held[0]))}")
    assert held[0] == held[1]


class Made(WrapperStore):
    """Makes its records when they are asked for, so that what a caller holds is all that takes memory.

    Of every thousand records one is older than its like in another such store, until it is written. What a coordinator
    keeps for itself is in a MemoryStore.

    Args:
        name: the store's name.
        records: how many there are.
        old: the number, of each thousand, of the older one.
    """

    def __init__(self, name: str, records: int, old: int) -> None:
        super().__init__(MemoryStore(name))
        self.written = 0
        self._records = records
        self._old = old
        self._mended = bytearray(records // 1_000 + 1)

    async def scan(self, collection: str, *, limit: int, since: str | None = None, cursor: str | None = None) -> Scan:
        if collection != "memories":
            return await super().scan(collection, limit=limit, since=since, cursor=cursor)
        begin = int(cursor or 0)
        end = min(begin + limit, self._records)
        entries = tuple((Key("memories", f"m{n}"), self._version(n)) for n in range(begin, end))
        return Scan(entries, str(end) if end < self._records else None)

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        if not all(key.collection == "memories" for key in keys):
            return await super().get(keys, consistency=consistency, dead=dead)
        return Batch(tuple(Item(key, self._version(int(key.id[1:])), data=f'{{"memory":"{key.id}"}}') for key in keys))

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        if not all(each.key.collection == "memories" for each in mutations):
            return await super().write(mutations, atomic=atomic)
        for each in mutations:
            self._mended[int(each.key.id[1:]) // 1_000] = True
        self.written += len(mutations)
        return tuple(Stored(each.version) for each in mutations)

    def _version(self, number: int) -> str:
        old = number % 1_000 == self._old and not self._mended[number // 1_000]
        return f"{0 if old else 1:012x}-0000-{number:012x}"


async def peak_of_a_full_reconciliation(records: int) -> int:
    """The most bytes that a full reconciliation of so many records has held."""
    stores = [Made("memory://a", records, 0), Made("memory://b", records, 500)]
    async with Database(FanOutStore(stores)) as db:
        await db.provision()
        gc.collect()
        gc.freeze()  # else the collector lets garbage grow to a part of everything that this process holds
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            began = time.perf_counter()
            report = await db.reconcile(full=True)
            took = time.perf_counter() - began
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
            gc.unfreeze()
    show(f"full over {records:,} records: at most {peak / 1024:,.0f} KiB, in {took:.1f} s, {report.total}")
    assert report.total.compared == records
    assert report.total.mended == sum(store.written for store in stores) == records // 500
    return peak


async def test_a_full_reconciliation_of_ten_times_as_many_records_takes_no_more_memory() -> None:
    few = await peak_of_a_full_reconciliation(10_000)
    many = await peak_of_a_full_reconciliation(100_000)
    show(f"peak of 100,000 to that of 10,000: {many / few:.2f}")
    assert many <= 1.5 * few
