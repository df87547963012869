"""Whether costs grow: of a turn with the conversation, of a list with the collection, and memory with bulk calls."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agno.db.base import AsyncBaseDb, BaseDb

from agno_clouddb import Database, Session, UserMemory, connect
from agno_clouddb.cli.conversations import Conversation
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.repositories.sessions import Sort
from benchmarks.counting import CLOUDS, Cost, Meter
from benchmarks.options import Options
from benchmarks.replayed import Replayed
from benchmarks.subjects import Engines, agno, engines, ours

__all__ = ["lists", "run", "turns"]

LENGTHS = (1, 10, 30, 100, 300, 1_000)
SHORTER = LENGTHS[:4]
"""For those whose turns grow, and take long."""
SIZES = (20, 200, 2_000, 20_000)
BULKS = (250, 1_000, 4_000)
BULKS_FULL = (*BULKS, 16_000)
_LISTED = 20
_TURNS = 4  # of the conversation that is said again and again
_ORDERS: tuple[Sort, ...] = ("-created_at", "updated_at")


def run(options: Options) -> dict[str, Any]:
    """Measure it all.

    Returns:
        ``turns``: what a turn costs at each length of the conversation; ``lists``: what a list of 20 costs at each
        number of sessions; ``memory``: the most that bulk calls have held, in MB, by the number of records.
    """
    with engines() as relays:
        return asyncio.run(_measure(options, relays))


async def _measure(options: Options, relays: Engines) -> dict[str, Any]:
    conversation = next(each for each in options.recorded() if len(each.turns) >= _TURNS)
    of_turns: list[dict[str, Any]] = []
    of_lists: list[dict[str, Any]] = []
    for cloud in CLOUDS:
        url = relays[cloud].url
        lengths = LENGTHS if options.full else SHORTER
        with agno(cloud, url, relay=relays[cloud]) as rival:
            options.say(f"growth: turns of agno's {rival.name}")
            of_turns += await turns(rival.name, cloud, rival.db, rival.meter, conversation, lengths)
        async with ours({cloud: url}, relays=relays) as own:
            options.say(f"growth: turns on {cloud}")
            of_turns += await turns("agno_clouddb", cloud, own.agno, own.meter, conversation, LENGTHS)
        async with ours({cloud: url}, relays=relays) as own:
            options.say(f"growth: turns on {cloud}, reading all runs")
            reading_all = AsyncCloudDb(database=own.database)
            of_turns += await turns("agno_clouddb, all runs", cloud, reading_all, own.meter, conversation, lengths)
        async with ours({cloud: url}, relays=relays) as own:
            options.say(f"growth: lists on {cloud}")
            of_lists += await lists(cloud, own.database, own.meter, SIZES)
    return {"turns": of_turns, "lists": of_lists, "memory": await _memory(options, relays)}


async def turns(
    name: str,
    cloud: str,
    db: AsyncBaseDb | BaseDb,
    meter: Meter,
    conversation: Conversation,
    lengths: Sequence[int],
) -> list[dict[str, Any]]:
    """Say four turns again and again in one session.

    The costs at a length are the mean of the four turns that end there, or that begin the conversation.
    """
    rows: list[dict[str, Any]] = []
    ends = [-(-length // _TURNS) * _TURNS for length in lengths]
    for number in range(0, max(ends), _TURNS):
        replayed = Replayed(conversation, _TURNS)
        agent = replayed.agent(db)
        costs: list[Cost] = []
        for message in replayed.said:
            meter.mark()
            await agent.arun(message, session_id="s1", user_id="ann")
            costs.append(meter.cost()[cloud])
        if (end := number + _TURNS) in ends:
            length = lengths[ends.index(end)]
            rows.append({"subject": name, "cloud": cloud, "length": length, **Cost.mean(costs).as_json()})
    return rows


async def lists(cloud: str, db: Database, meter: Meter, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """List 20 sessions out of so many, by two filters and two orders each; what the dearest has cost."""
    rows: list[dict[str, Any]] = []
    there = 0
    for size in sizes:
        await db.sessions.upsert_many(_sessions(there, size))
        there = size
        costs: list[Cost] = []
        filters: tuple[dict[str, Any], ...] = ({}, {"session_type": "agent"}, {"user_id": "ann"})
        for narrowed in filters:
            for sort in _ORDERS:
                meter.mark()
                page = await db.sessions.list(**narrowed, sort=sort, limit=_LISTED)
                costs.append(meter.cost()[cloud])
                if len(page.items) != _LISTED:
                    raise RuntimeError(f"a list of {_LISTED} has {len(page.items)}")
        dearest = max(costs, key=lambda each: (each.total, each.read_units, each.documents_read))
        rows.append({"cloud": cloud, "size": size, **dearest.as_json()})
    return rows


def _sessions(first: int, last: int) -> Iterator[Session]:
    for number in range(first, last):
        yield Session(
            session_id=f"s{number:06}",
            session_type="agent",
            component_id="support",
            user_id="ann",
            session_data={"session_name": f"Talk {number}"},
        )


async def _memory(options: Options, relays: Engines) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for size in BULKS_FULL if options.full else BULKS:
        options.say(f"growth: memory of bulk calls, {size:,} records")
        with tempfile.TemporaryDirectory() as folder:
            async with connect(f"sqlite:///{Path(folder) / 'bulk.sqlite'}") as db:
                rows += await _bulk("sqlite", db, size)
        async with ours({"dynamodb": relays["dynamodb"].url}, count=False) as own:
            rows += await _bulk("dynamodb", own.database, size)
    return rows


async def _bulk(store: str, db: Database, size: int) -> list[dict[str, Any]]:
    """What writing and reading so many records of a kilobyte has held at once, at most."""
    await db.provision()
    await db.memories.upsert(UserMemory(memory_id="first", memory="so that everything is imported and connected"))
    written = await _peak(_write(db, size))
    read = await _peak(_read(db, size))
    return [
        {"store": store, "call": "upsert_many", "size": size, "megabytes": written},
        {"store": store, "call": "iterate", "size": size, "megabytes": read},
    ]


async def _write(db: Database, size: int) -> None:
    await db.memories.upsert_many(
        UserMemory(memory_id=f"m{number:06}", memory=f"{number} likes tea; " * 60, user_id="ann")
        for number in range(size)
    )


async def _read(db: Database, size: int) -> None:
    found = 0
    async for _ in db.memories.iterate(user_id="ann"):
        found += 1
    if found != size:
        raise RuntimeError(f"{found} records of {size}")


async def _peak(call: Any) -> float:
    gc.collect()
    tracemalloc.start()
    try:
        await call
        return round(tracemalloc.get_traced_memory()[1] / 1e6, 2)
    finally:
        tracemalloc.stop()
