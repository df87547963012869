"""A cloud's limits for a transaction are known before a fan-out sends anything; no service is asked for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agno_clouddb import InvalidRecord, LifecycleError
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import MAX_ID_BYTES, Delete, Item, Key, Put, Store
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.dynamodb import DynamoDBStore
from agno_clouddb.stores.firestore import FirestoreStore
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import CountingStore

CLOCK = HybridClock()
NOBODY = "127.0.0.1:9"  # where nothing listens


def put(id: str, size: int = 0) -> Put:
    return Put(Item(Key("memories", id), CLOCK.stamp(), {}, b"x" * size))


def over_dynamodb() -> list[Put]:
    """At most 100 mutations of at most 3.9 MB, which are 104 actions with the chunks of three."""
    return [put(f"small {n}") for n in range(95)] + [put(f"large {n}", 450_000) for n in range(3)]


def over_firestore() -> list[Put]:
    """At most 500 mutations of at most 3.875 MiB, over the emulator's 4 MiB with the names of the documents,
    in which a slash takes two bytes.
    """
    return [put(f"{n:03}".ljust(MAX_ID_BYTES, "/"), 8_500) for n in range(450)]


STORES: dict[str, tuple[Callable[[], Store], Callable[[], list[Put]], str]] = {
    "dynamodb": (lambda: DynamoDBStore(endpoint_url=f"http://{NOBODY}"), over_dynamodb, "104 actions"),
    "firestore": (lambda: FirestoreStore("demo-x", emulator_host=NOBODY), over_firestore, "in one commit"),
}


@pytest.mark.parametrize("cloud", STORES)
async def test_a_transaction_over_the_limits_of_a_service_reaches_no_store_of_a_fanout(cloud: str) -> None:
    make, over, problem = STORES[cloud]
    store = make()
    puts = over()
    with pytest.raises(LifecycleError):
        store.check(puts, atomic=True)
    primary = CountingStore(MemoryStore())
    async with FanOutStore([primary, store]) as fanout:
        await primary.provision()
        with pytest.raises(InvalidRecord, match=problem):
            await fanout.write(puts, atomic=True)
        assert (primary.calls["get"], primary.calls["write"]) == (0, 0)
        assert fanout.check(puts, atomic=False) == (None,) * len(puts)
        assert fanout.check(puts[: len(puts) // 2], atomic=True) == (None,) * (len(puts) // 2)
        gone = Delete(Key("memories", "gone"), CLOCK.stamp())
        assert fanout.check([gone, put("m")], atomic=True) == (None, None)
        with pytest.raises(InvalidRecord, match="twice"):
            fanout.check([gone, gone], atomic=True)
