"""Whether reads of several tasks at once are worth sharing: identical ones joined, different ones sent as one batch.

    python -m benchmarks.sharing [--agents 50] [--rounds 5] [--json FILE]

Neither is in the library; the two wrappers here are what would be. They are the best case: a joined read may have begun
before a write of the caller's own, which the library could not let pass, and a batch takes what tasks ask for in the
same turn of the event loop, so that nobody waits for others to come. Agents replay recorded conversations, each in a
session of its own, with a model that answers at once: one after the other without a pause, where reads meet most, and
with pauses of a second on average between turns, as users and models make them. All ways take turns, round by round,
over the same engine, 5 ms away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from agno_clouddb import Database, UserMemory
from agno_clouddb.cli.conversations import Conversation
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.stores.base import Batch, Consistency, Key, Store
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.stores.wrapper import WrapperStore
from benchmarks.counting import CLOUDS
from benchmarks.options import Options
from benchmarks.replayed import HISTORY, Replayed
from benchmarks.subjects import Engines, engines
from benchmarks.throughput import percentile

__all__ = ["Alone", "Batched", "Joined"]

_LATENCY = 0.005
_KEYS = 64
_TURNS = 3
_PAUSES = {"without pauses": 0.0, "with pauses": 1.0}  # seconds between turns, on average

_Asked = tuple[Key, Consistency]


class Alone(WrapperStore):
    """Sends each read as it comes, as the library does, and counts.

    Attributes:
        asked: keys that were asked for.
        sent: requests that were made of them.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.asked = 0
        self.sent = 0

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        self.asked += len(keys)
        self.sent += 1
        return await super().get(keys, consistency=consistency, dead=dead)


class Joined(Alone):
    """Lets a read wait for an identical one that is on its way."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._under_way: dict[tuple[tuple[Key, ...], Consistency], asyncio.Task[Batch]] = {}

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        asked = (tuple(keys), consistency)
        task = self._under_way.get(asked)
        if task is None:
            task = self._under_way[asked] = asyncio.ensure_future(super().get(keys, consistency=consistency, dead=dead))
            task.add_done_callback(lambda _: self._under_way.pop(asked))
        else:
            self.asked += len(keys)
        return await asyncio.shield(task)


class Batched(Alone):
    """Sends what is asked for in the same turn of the event loop as one read."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._waiting: dict[_Asked, asyncio.Future[Batch]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        if len(keys) != 1 or dead:
            return await super().get(keys, consistency=consistency, dead=dead)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send)
        self.asked += 1
        return await self._waiting.setdefault((keys[0], consistency), loop.create_future())

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._task = asyncio.ensure_future(self._answer(waiting))

    async def _answer(self, waiting: dict[_Asked, asyncio.Future[Batch]]) -> None:
        for consistency in ("strong", "eventual"):
            asked = {key: future for (key, each), future in waiting.items() if each == consistency}
            if not asked:
                continue
            self.sent += 1
            try:
                batch = await self.inner.get(list(asked), consistency=consistency)
            except Exception as error:
                for future in asked.values():
                    future.set_exception(error)
                continue
            for future, item in zip(asked.values(), batch.items, strict=True):
                future.set_result(Batch((item,), batch.degraded))


_WAYS = {"alone": Alone, "joined": Joined, "batched": Batched}


async def _measure(cloud: str, relays: Engines, recorded: Sequence[Conversation], given: Any) -> dict[str, Any]:
    relay = relays[cloud]
    prefix = f"s{secrets.token_hex(4)}_"
    async with AsyncExitStack() as stack:
        databases: dict[str, Database] = {}
        stores: dict[str, Alone] = {}
        for name, way in _WAYS.items():
            stores[name] = way(store_from_url(relay.url, StoreOptions(prefix=prefix, deadline=60)))
            databases[name] = await stack.enter_async_context(Database(stores[name]))
        await databases["alone"].provision()
        for number in range(_KEYS):
            await databases["alone"].memories.upsert(UserMemory(memory_id=f"m{number}", memory="likes tea" * 50))
        relay.latency(_LATENCY)
        try:
            turns = {name: await _turns(databases, stores, recorded, given, pause) for name, pause in _PAUSES.items()}
            reads = await _reads(databases, stores, given.rounds)
        finally:
            relay.latency(0)
    return {"turns": turns, "reads": reads}


async def _turns(
    databases: dict[str, Database],
    stores: dict[str, Alone],
    recorded: Sequence[Conversation],
    given: Any,
    pause: float,
) -> dict[str, Any]:
    """Turns of agents, each in its own session."""
    dbs = {name: AsyncCloudDb(database=each, history_runs=HISTORY) for name, each in databases.items()}
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in dbs}
    for number in range(given.rounds + 1):
        for name in random.sample(list(dbs), len(dbs)):
            store = stores[name]
            asked, sent = store.asked, store.sent
            latencies: list[float] = []
            processor = time.process_time()
            await asyncio.gather(
                *(
                    _talk(dbs[name], Replayed(recorded[each % len(recorded)], _TURNS), pause, latencies)
                    for each in range(given.agents)
                )
            )
            processor = time.process_time() - processor
            if number:  # the first round makes the connections
                turns = len(latencies)
                measured[name].append(
                    {
                        "keys a turn": (store.asked - asked) / turns,
                        "requests for them a turn": (store.sent - sent) / turns,
                        "processor ms a turn": 1000 * processor / turns,
                        "p50 ms": 1000 * percentile(latencies, 0.5),
                        "p99 ms": 1000 * percentile(latencies, 0.99),
                    }
                )
    return {name: _medians(each) for name, each in measured.items()}


async def _talk(db: AsyncCloudDb, replayed: Replayed, pause: float, latencies: list[float]) -> None:
    agent, session_id = replayed.agent(db), secrets.token_hex(8)
    for message, answer in zip(replayed.said, replayed.answers, strict=True):
        await asyncio.sleep(random.uniform(0, 2 * pause))
        began = time.perf_counter()
        output = await agent.arun(message, session_id=session_id, user_id=session_id)
        latencies.append(time.perf_counter() - began)
        assert output.content == answer
    session = await db.get_session(session_id, "agent", user_id=session_id)  # type: ignore[arg-type]
    assert session is not None


async def _reads(databases: dict[str, Database], stores: dict[str, Alone], rounds: int) -> dict[str, Any]:
    """All tasks read a record in the same turn of the event loop: each another one, or all the same."""
    results: dict[str, Any] = {}
    for case in ("different", "same"):
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in databases}
        for number in range(4 * rounds + 1):
            for name in random.sample(list(databases), len(databases)):
                memories, store = databases[name].memories, stores[name]
                ids = [f"m{each if case == 'different' else 0}" for each in range(_KEYS)]
                sent, began, processor = store.sent, time.perf_counter(), time.process_time()
                found = await asyncio.gather(*(memories.get(each) for each in ids))
                took, used = time.perf_counter() - began, time.process_time() - processor
                assert [each and each.memory_id for each in found] == ids
                if number:
                    measured[name].append(
                        {
                            "requests": float(store.sent - sent),
                            "processor µs a key": 1e6 * used / _KEYS,
                            "ms until all are there": 1000 * took,
                        }
                    )
        results[case] = {name: _medians(each) for name, each in measured.items()}
    return results


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(median(each[name] for each in rounds), 3) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    recorded = [each for each in Options().recorded() if len(each.turns) >= _TURNS]
    with engines() as relays:
        results = {cloud: asyncio.run(_measure(cloud, relays, recorded, given)) for cloud in CLOUDS}
    text = json.dumps(results, indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
