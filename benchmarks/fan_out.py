"""The latency of a fan-out over that of each of its clouds alone, 5 ms away.

    python -m benchmarks.fan_out [CALLS]

Both services give the same answers again and again (``canned``), each in a process of its own, 5 ms after they were
asked: what services compute is not waited for. A call follows the other, and the adapters take turns. One of them calls
the two clouds at once without a fan-out: what two clients on one event loop take, whoever calls them.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from google.cloud.firestore_v1.types import firestore

from agno_clouddb import Database, UserMemory
from agno_clouddb.concurrency import gather
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import Item, Key, Store
from agno_clouddb.stores.dynamodb import DynamoDBStore
from agno_clouddb.stores.firestore import FirestoreStore
from agno_clouddb.stores.memory import MemoryStore
from benchmarks.canned import canned_dynamodb
from benchmarks.canned_firestore import canned_firestore
from benchmarks.overhead import wire
from benchmarks.overhead_firestore import PROJECT, document_of

__all__ = ["fan_out_latency"]

_LATENCY = 5  # milliseconds of a round trip
_KEY = Key("memories", "m1")
_MEMORY = UserMemory(memory_id=_KEY.id, memory="likes tea " * 50, user_id="ann")


async def fan_out_latency(calls: int) -> dict[str, Any]:
    """What writing and reading a record takes on each cloud alone and on both, one call after another.

    Returns:
        ``latency``: in milliseconds; ``calls``; and by call and adapter the medians, in milliseconds: each cloud alone,
        ``at_once`` without a fan-out, and ``both`` in one.
    """
    async with AsyncExitStack() as stack:
        adapters = await _opened(stack)
        taken: dict[str, dict[str, list[float]]] = {call: {name: [] for name in adapters} for call in ("write", "read")}
        for number in range(calls):
            for name, databases in adapters.items():
                memory = _MEMORY.model_copy(update={"memory_id": f"w{number}"})  # as what it has written is known to it
                began = time.perf_counter()
                await gather([partial(each.memories.upsert, memory) for each in databases])
                written = time.perf_counter()
                found = await gather([partial(each.memories.get, _KEY.id) for each in databases])
                taken["write"][name].append(written - began)
                taken["read"][name].append(time.perf_counter() - written)
                assert None not in found
    medians = {
        call: {name: round(1000 * statistics.median(each), 2) for name, each in of.items()}
        for call, of in taken.items()
    }
    return {"latency": _LATENCY, "calls": calls, **medians}


async def _opened(stack: AsyncExitStack) -> Mapping[str, Sequence[Database]]:
    """The Databases that each adapter calls at once, open."""
    item = await _stored()
    found = {"GetItem": {"Item": wire(item, encoded=True)}}
    url = await stack.enter_async_context(canned_dynamodb(found, _LATENCY / 1000))
    committed = firestore.CommitResponse.pb()()
    committed.write_results.add()
    committed.commit_time.seconds = committed.write_results[0].update_time.seconds = int(time.time())
    answers = {"GetDocument": document_of(item), "Commit": committed}
    encoded = {name: [answer.SerializeToString()] for name, answer in answers.items()}
    host = await stack.enter_async_context(canned_firestore(encoded, _LATENCY / 1000))

    def clouds() -> tuple[Store, Store]:
        return DynamoDBStore(endpoint_url=url), FirestoreStore(PROJECT, emulator_host=host)

    # A Database of its own for each: one that has written a record knows it.
    made: list[list[Store]] = [*([cloud] for cloud in clouds()), [*clouds()], [FanOutStore(clouds())]]
    opened = [[await stack.enter_async_context(Database(store)) for store in stores] for stores in made]
    return dict(zip(("dynamodb", "firestore", "at_once", "both"), opened, strict=True))


async def _stored() -> Item:
    """The memory as stores keep it."""
    async with Database(MemoryStore()) as database:
        await database.provision()
        await database.memories.upsert(_MEMORY)
        item = (await database.store.get([_KEY])).items[0]
        assert item is not None
        return item


if __name__ == "__main__":
    print(asyncio.run(fan_out_latency(int(sys.argv[1]) if sys.argv[1:] else 500)))
