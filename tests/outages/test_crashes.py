"""Acknowledged writes outlive their writer: a process that is killed at any moment, while clouds fail now and then."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agno_clouddb import connect
from tests.outages.comparison import Log, compare
from tests.outages.schedule import Outages, behind_proxies, provisioned

KILLS = 50
AT_ONCE = 3  # processes
MOST_WRITES = 25  # that a process has acknowledged when it is killed
DEADLINE = 1.0  # seconds
HANG = 300.0  # seconds after which something counts as never happening

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.dynamodb_local, pytest.mark.firestore]


@pytest.fixture
def cloud_urls(dynamodb_local_url: str, firestore_url: str) -> tuple[str, str]:
    prefix = f"prefix=t{secrets.token_hex(6)}_"
    return f"{dynamodb_local_url}&{prefix}", f"{firestore_url}&{prefix}"


@asynccontextmanager
async def writer_process(name: str, seed: int, urls: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that writes without pause, and is killed in the end."""
    command = [sys.executable, "-m", "tests.outages.writer", name, str(seed), str(DEADLINE), *urls]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Killer:
    """Starts writers one after the other and kills each at a random moment.

    Args:
        urls: where they write to.
        seed: decides when they are killed.
        log: what all of them have acknowledged.
    """

    def __init__(self, urls: Sequence[str], seed: int, log: Log) -> None:
        self.killed = 0
        self.acknowledged = asyncio.Semaphore(0)
        self._urls = urls
        self._seed = seed
        self._log = log
        self._draw = random.Random(seed)
        self._left = iter(range(KILLS))

    async def run(self, name: str) -> None:
        """Kill writers of this name until enough were killed, under all names together."""
        for number in self._left:
            async with writer_process(name, self._seed + number, self._urls) as process:
                await asyncio.wait_for(self._follow(process, self._draw.randint(1, MOST_WRITES)), HANG)

    async def _follow(self, process: asyncio.subprocess.Process, writes: int) -> None:
        """Kill the process when it has acknowledged so many writes, and read its log to the end."""
        assert process.stdout is not None
        assert process.stderr is not None
        log = self._log.of_process()
        while (line := await process.stdout.readline()).endswith(b"\n"):
            if log.read(line.decode()):
                self.acknowledged.release()
                writes -= 1
                if writes == 0:
                    process.kill()
                    self.killed += 1
        if writes > 0:
            pytest.fail(f"the writer has ended by itself: {(await process.stderr.read()).decode()}", pytrace=False)


async def fail_in_turn(outages: Outages, killer: Killer) -> None:
    """Each cloud fails now and then, for a number of acknowledged writes."""
    while True:
        for fails in (False, True):
            for _ in range(outages.number(5, 40)):
                await killer.acknowledged.acquire()
            if fails:
                await outages.end()
            else:
                outages.begin()


async def test_no_acknowledged_write_is_lost_or_undone_when_its_process_is_killed(
    cloud_urls: tuple[str, str], record_property: Callable[[str, object], None]
) -> None:
    seed = 1
    log = Log()
    async with behind_proxies(cloud_urls) as (proxies, urls):
        await provisioned(urls)
        outages = Outages(proxies, seed, DEADLINE, both=0.0)
        killer = Killer(urls, seed, log)
        failing = asyncio.create_task(fail_in_turn(outages, killer))
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(killer.run(f"p{number}"))
        failing.cancel()
        await asyncio.wait([failing])
        await outages.end()
        for proxy in proxies:
            await asyncio.wait_for(proxy.idle(), HANG)
        async with connect(*urls) as db:
            await db.reconcile()
            verdict = await compare(db, cloud_urls, log)
    record_property("verdict", f"seed {seed}, {killer.killed} processes killed: {verdict}")
    assert killer.killed == KILLS
    if not verdict.good:
        history = "\n".join(outages.history)
        pytest.fail(f"seed {seed}\n{verdict.details()}\n{history}", pytrace=False)
