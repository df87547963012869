"""A store in use gets a second, empty cloud, while its users go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from agno_clouddb import Database, Run, Session
from agno_clouddb.concurrency import gather
from agno_clouddb.fanout.reconcile import Reconciliation
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.testing import dynamodb_local
from tests.acceptance.clouds import Clouds, clock_an_hour_ago, counted, everything, show
from tests.acceptance.joining import Load

WRITERS = 16
BEFORE = 300  # calls while the new cloud is provisioned
CALLS = 15  # after each page that is compared
PAGE = 100  # records that are compared at once
HANG = 900.0  # seconds after which something counts as never happening
USED = ("sessions", "runs")  # what DynamoDB has before; with few tables DynamoDB Local adds an index soon


@pytest.fixture
def alone_url(dynamodb_local_url: str) -> Iterator[str]:
    """A DynamoDB Local that has no other tables; the shared one is asked for, since it skips where that is missing."""
    with dynamodb_local() as url:
        yield url


async def write_alone(clouds: Clouds, number: int) -> dict[str, tuple[int, int]]:
    """So many sessions on DynamoDB alone, a tenth of them with a run, as ``Load`` takes them."""
    began = time.perf_counter()
    # Longer ago than an incremental comparison goes back, so that the full one alone meets them.
    async with Database(clouds.dynamodb, clock=clock_an_hour_ago()) as db:
        await db.provision(USED)
        sessions = (Session(session_id=f"s{n}", session_data={"n": n}) for n in range(number))
        await db.sessions.upsert_many(sessions)
        run = Run(run_id="r0", status="completed", data={"n": 0})
        calls = [lambda n=n: db.sessions.append_run(f"s{n}", run) for n in range(number // 10)]
        await gather(calls, limit=WRITERS)
    show(f"{number} sessions written to DynamoDB alone in {time.perf_counter() - began:.1f} s")
    return {f"s{n}": (n, int(n < number // 10)) for n in range(number)}


async def reconcile_in_two_parts(db: Database, load: Load, stopped_after: int) -> Reconciliation:
    """Begin, be cancelled when so many records are compared, and go on; what the second part tells in the end."""
    reached, compared = asyncio.Event(), 0
    told: list[int] = []

    def watch(report: Reconciliation) -> None:
        nonlocal compared
        compared = report.total.compared
        told.append(compared)
        load.allow(CALLS)
        if compared >= stopped_after:
            reached.set()

    first = asyncio.create_task(db.reconcile(progress=watch))
    await reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    noted = (await db.health()).compared
    told.clear()
    report = await db.reconcile(progress=watch)
    went_on = next(each for each in told if each)
    show(f"stopped when {noted} records were compared, went on with {went_on}, {report.total}")
    assert noted is not None
    assert stopped_after - PAGE <= noted <= stopped_after + PAGE
    assert noted <= went_on <= noted + PAGE
    return report


async def join(clouds: Clouds, sessions: dict[str, tuple[int, int]], *, writing: bool) -> Load:
    """Add Firestore to DynamoDB while the sessions are in use.

    Args:
        clouds: both.
        sessions: what DynamoDB holds.
        writing: one of the writers begins before Firestore, and the index by version on DynamoDB, are provisioned.
    """
    store = FanOutStore(clouds.stores)
    async with asyncio.timeout(HANG), Database(store) as db:
        async with asyncio.TaskGroup() as group:
            load = Load(db, sessions, writers=WRITERS, pause=len(sessions) // 5, allowed=BEFORE)
            if writing:
                group.create_task(load.write(0))
                await load.more(1)
            group.create_task(load.get())
            await load.more(1)
            before, began = load.calls.copy(), time.perf_counter()
            await db.provision(USED)
            await db.provision()
            meanwhile = load.calls - before
            show(f"provisioned in {time.perf_counter() - began:.1f} s, meanwhile {dict(meanwhile)}")
            assert meanwhile
            assert bool(before.keys() - {"get"}) is writing
            assert not (await db.health()).ok
            group.create_task(load.list())
            for number in range(int(writing), WRITERS):
                group.create_task(load.write(number))
            began = time.perf_counter()
            report = await reconcile_in_two_parts(db, load, len(sessions) // 5)
            show(f"reconciled in {time.perf_counter() - began:.1f} s, meanwhile and before {dict(load.calls)}")
            await load.stop()
        await store.idle()
        assert report.kind == "full"
        assert report.total.failed == 0
        health = await db.health()
        show(f"{health.repaired} repaired after reads, {health.degraded_reads} degraded reads")
        assert health.ok
        assert health.degraded_reads == 0
        return load


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        # DynamoDB Local refuses writes to a table while it adds an index; moto and the service itself do not.
        pytest.param("moto_url", 500, id="moto, with a writer from the beginning", marks=pytest.mark.moto),
        pytest.param("alone_url", 5_000, id="dynamodb_local", marks=pytest.mark.dynamodb_local),
    ],
)
@pytest.mark.firestore
async def test_a_store_in_use_is_joined_by_an_empty_cloud_and_no_session_is_lost_or_missed(
    engine: str, number: int, firestore_url: str, prefix: str, request: pytest.FixtureRequest
) -> None:
    options = f"prefix={prefix}&deadline=60"
    clouds = Clouds((f"{request.getfixturevalue(engine)}&{options}", f"{firestore_url}&{options}"))
    load = await join(clouds, await write_alone(clouds, number), writing=engine == "moto_url")
    async with clouds.dynamodb, clouds.firestore:
        first, second = [await everything(store) for store in clouds.stores]
    show(f"held by DynamoDB {dict(counted(first))}, by Firestore {dict(counted(second))}")
    assert load.wrong == []
    assert first == second
    live = {key.id for key, item in first.items() if key.collection == "sessions" and not item.deleted}
    assert live == load.standing.keys()
