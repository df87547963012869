"""Ten thousand memories into both clouds' engines, while each leaves writes unprocessed and resets connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from agno_clouddb import Database, UserMemory, connect
from agno_clouddb.fanout.policy import Acks
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.testing import Fault, FaultyStore, Unprocessed
from agno_clouddb.testing.faults import Call, Plan

UNPROCESSED, RESETS = 0.05, 0.1


async def memories(count: int) -> AsyncIterator[UserMemory]:
    for number in range(count):
        yield UserMemory(
            memory_id=f"m{number:05}",
            memory=f"The user said for the {number}th time that tea is better than coffee.",
            topics=["drinks"],
            user_id=f"user-{number % 50}",
        )


def counted(plan: Plan, met: Counter[str]) -> Plan:
    """The same plan, which counts mutations that were left unprocessed, and writes that met a reset."""

    def ask(call: Call, mutations: int) -> Fault | None:
        fault = plan(call, mutations)
        if call == "write":
            met["mutations"] += mutations
            met["writes"] += 1
            met["unprocessed"] += len(fault.positions) if fault is not None and fault.positions is not None else 0
            met["resets"] += fault is not None and fault.positions is None
        return fault

    return ask


async def ids(db: Database) -> list[str]:
    return [each.memory_id async for each in db.memories.iterate(sort="updated_at", page_size=1_000)]


@pytest.mark.dynamodb_local
@pytest.mark.firestore
@pytest.mark.parametrize(("acks", "count"), [("all", 10_000), (1, 1_000)])
async def test_every_memory_is_stored_once_although_both_clouds_fail_at_times(
    cloud_urls: tuple[str, str], acks: Acks, count: int
) -> None:
    stores = [store_from_url(url, StoreOptions()) for url in cloud_urls]
    met: list[Counter[str]] = [Counter(), Counter()]
    faulty = [
        FaultyStore(store, counted(Unprocessed(seed, items=UNPROCESSED, resets=RESETS), met[seed]))
        for seed, store in enumerate(stores)
    ]
    told: list[int] = []
    wanted = [f"m{number:05}" for number in range(count)]
    async with connect(*faulty, acks=acks) as db:
        await db.provision(["memories"])
        result = await db.memories.upsert_many(memories(count), progress=told.append)
        assert (result.stored, len(set(result.versions)), result.failed) == (count, count, {})
        for counts in met:
            assert counts["unprocessed"] > 0.03 * counts["mutations"] > 0.03 * count
            assert acks == 1 or counts["resets"] >= 1
        assert told == sorted(told)
        assert told[-1] == count
        for each in faulty:
            each.plan = None
        if acks == 1:
            assert sorted(await ids(db)) == wanted
    if acks == "all":
        for store in stores:
            async with Database(store) as alone:
                assert await alone.memories.count() == count
                assert sorted(await ids(alone)) == wanted
