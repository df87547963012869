"""Turns a second, latencies and the longest stall of the event loop, while many agents speak at once.

All adapters take turns, round by round, so that whatever else the machine does meets all of them; what counts are
the ratios within a round.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from agno.db.base import AsyncBaseDb, BaseDb
from agno.run.base import RunStatus

from agno_clouddb.cli.conversations import Conversation
from benchmarks.bare import bare
from benchmarks.counting import CLOUDS
from benchmarks.options import Options
from benchmarks.replayed import Replayed
from benchmarks.subjects import Engines, agno, engines, ours

__all__ = ["Cell", "Round", "percentile", "run"]

OURS, BLOCKING, THREADS, BARE = "agno_clouddb", "agno's adapter", "agno's adapter in threads", "bare client"
_LATENCIES = (0, 5, 20)  # milliseconds of a round trip
_SESSIONS = (1, 16, 64, 256)
_DOG = 0.005  # seconds that the watchdog sleeps

Db = AsyncBaseDb | BaseDb


@dataclass(frozen=True, slots=True)
class Cell:
    """One place in the grid.

    Args:
        sessions: that speak at once.
        latency: milliseconds that a round trip takes longer.
        rounds: how often each adapter takes its turn.
    """

    sessions: int
    latency: int
    rounds: int

    @property
    def turns(self) -> int:
        """Turns of each session."""
        return 3 if self.sessions <= 64 else 2


_DEFAULT = (Cell(1, 5, 3), Cell(16, 5, 2), Cell(64, 0, 2), Cell(64, 5, 3), Cell(64, 20, 1), Cell(256, 5, 1))
_FULL = tuple(Cell(sessions, latency, 3) for sessions in _SESSIONS for latency in _LATENCIES)


@dataclass(slots=True)
class Round:
    """What one adapter has done in one round.

    Args:
        seconds: until the last turn was over.
        latencies: seconds that each turn has taken.
        stall: seconds that the watchdog was woken too late, at most.
        processor: seconds of processor time of this process.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    stall: float = 0.0
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Turns a second."""
        return len(self.latencies) / self.seconds


def run(options: Options) -> dict[str, Any]:
    """Measure it all.

    Returns:
        ``cells``: for each cloud and cell what each adapter has reached, and what the library has reached of it.
    """
    recorded = [each for each in options.recorded() if len(each.turns) >= 3]
    cells: list[dict[str, Any]] = []
    grid = _FULL if options.full else _DEFAULT
    chosen = [cell for cell in grid if not options.cells or (cell.sessions, cell.latency) in options.cells]
    with engines() as relays:
        for cloud in CLOUDS:
            for cell in chosen:
                options.say(f"throughput: {cloud}, {cell.sessions} sessions, {cell.latency} ms")
                rounds = asyncio.run(_measure(cloud, cell, relays, recorded))
                cells.append(
                    {"cloud": cloud, "sessions": cell.sessions, "latency": cell.latency, **_summary(cell, rounds)}
                )
                rates = ", ".join(f"{name} {each['rate']:.1f}" for name, each in cells[-1]["adapters"].items())
                options.say(f"throughput: turns a second: {rates}")
    return {"cells": cells}


async def _measure(cloud: str, cell: Cell, relays: Engines, recorded: Sequence[Conversation]) -> dict[str, list[Round]]:
    relay = relays[cloud]
    async with _adapters(cloud, relay.url, cell.sessions) as adapters:
        for db in adapters.values():
            await _round(db, recorded, sessions=min(cell.sessions, 8), turns=1)
        rounds: dict[str, list[Round]] = {name: [] for name in adapters}
        relay.latency(cell.latency / 1000)
        try:
            order = list(adapters)
            for _ in range(cell.rounds):
                for name in order:
                    rounds[name].append(
                        await _round(adapters[name], recorded, sessions=cell.sessions, turns=cell.turns)
                    )
                order = [*order[1:], order[0]]
        finally:
            relay.latency(0)
        return rounds


@asynccontextmanager
async def _adapters(cloud: str, url: str, sessions: int) -> AsyncIterator[Mapping[str, Db]]:
    async with AsyncExitStack() as stack:
        rival = stack.enter_context(agno(cloud, url, count=False, threads=sessions))
        own = await stack.enter_async_context(ours({cloud: url}, count=False))
        prefix = f"c{secrets.token_hex(4)}_"
        least = await stack.enter_async_context(bare(cloud, url, prefix, connections=max(10, 2 * sessions)))
        yield {OURS: own.agno, THREADS: rival.threaded, BLOCKING: rival.db, BARE: least}


async def _round(db: Db, recorded: Sequence[Conversation], *, sessions: int, turns: int) -> Round:
    """Let so many agents speak at once, each in a session of its own."""
    done, run_id = Round(), secrets.token_hex(4)
    talks = [
        _talk(db, Replayed(recorded[number % len(recorded)], turns), f"{run_id}-{number}", done)
        for number in range(sessions)
    ]
    gc.collect()
    dog = asyncio.create_task(_watch(done))
    began, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*talks)
    done.seconds, done.processor = time.perf_counter() - began, time.process_time() - processor
    dog.cancel()
    await _check(db, f"{run_id}-{sessions - 1}", turns)
    return done


async def _talk(db: Db, replayed: Replayed, session_id: str, done: Round) -> None:
    agent = replayed.agent(db)
    for message, answer in zip(replayed.said, replayed.answers, strict=True):
        began = time.perf_counter()
        output = await agent.arun(message, session_id=session_id, user_id="ann")
        done.latencies.append(time.perf_counter() - began)
        if (output.status, output.content) != (RunStatus.completed, answer):
            raise RuntimeError(f"the agent has answered {output.content!r} and not {answer!r}")


async def _watch(done: Round) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _DOG
        await asyncio.sleep(_DOG)
        done.stall = max(done.stall, loop.time() - due)


async def _check(db: Db, session_id: str, turns: int) -> None:
    """See that what was said is stored: agno logs errors of its database and goes on."""
    found = db.get_session(session_id, "agent", user_id="ann")  # type: ignore[arg-type]
    session: Any = found if isinstance(db, BaseDb) else await found  # type: ignore[misc]
    if session is None or len(session.runs or ()) != turns:
        raise RuntimeError(f"{type(db).__name__} has not stored {turns} turns of {session_id}")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so great a share of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def _summary(cell: Cell, rounds: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    own = rounds[OURS]
    adapters = {}
    for name, each in rounds.items():
        latencies = [latency for one in each for latency in one.latencies]
        pairs = list(zip(own, each, strict=True))
        adapters[name] = {
            "rate": round(median(one.rate for one in each), 1),
            "p50": round(1000 * percentile(latencies, 0.50), 1),
            "p99": round(1000 * percentile(latencies, 0.99), 1),
            "stall": round(1000 * max(one.stall for one in each), 1),
            "cpu": round(1000 * median(one.processor / len(one.latencies) for one in each), 2),
            "times_rate": round(median(ours.rate / one.rate for ours, one in pairs), 2),
            "of_p99": round(
                median(percentile(ours.latencies, 0.99) / percentile(one.latencies, 0.99) for ours, one in pairs), 3
            ),
        }
    return {"rounds": cell.rounds, "turns": cell.turns, "adapters": adapters}
