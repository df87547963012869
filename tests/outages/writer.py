"""A writer of sessions, runs and memories that logs what was acknowledged; also a process of its own.

    python -m tests.outages.writer NAME SEED DEADLINE URL URL

writes without pause until it is killed, and prints the lines of its log.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable

from agno_clouddb import Database, Run, Session, UserMemory, connect
from agno_clouddb.errors import (
    CloudDBError,
    ConflictError,
    NotOwner,
    PartialWrite,
    RecordNotFound,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.stores.base import Key
from tests.outages.comparison import SHARED, Log

__all__ = ["OUTAGE", "Writer"]

OUTAGE = (StoreUnavailable, Throttled, PartialWrite, ConflictError, RecordNotFound)
"""What a write may fail with while clouds fail: without the primary, say, a session is not found or keeps changing."""

_SESSIONS, _MEMORIES = 2, 3  # that each writer has


class Writer:
    """Writes records of its own, one at a time, and adds its markers to the shared session.

    Args:
        db: where to.
        log: is told of every write.
        name: no other writer of the same time has it.
        seed: decides what it writes.
        life: no earlier writer of the same name has it.
    """

    def __init__(self, db: Database, log: Log, name: str, seed: int, life: str = "") -> None:
        self._db = db
        self._log = log
        self._name = name
        self._draw = random.Random(f"{seed}/{name}/{life}")
        self._life = life
        self._count = 0
        self._runs: dict[str, str] = {}

    async def step(self) -> None:
        """Carry out one random write; one that fails for an outage is not acknowledged, and that is all."""
        operations: list[Callable[[], Awaitable[None]]] = [
            *([self._turn] * 4),
            *([self._remember] * 3),
            self._complete_run,
            self._forget,
            self._share,
        ]
        if self._draw.random() < 0.05:
            operations = [self._end_session]
        try:
            await self._draw.choice(operations)()
        except NotOwner:
            raise
        except OUTAGE:
            self._log.counts["failed"] += 1

    def _marker(self) -> str:
        self._count += 1
        return f"{self._name}-{self._life}-{self._count}"

    def _session_id(self) -> str:
        return f"{self._name}-s{self._draw.randrange(_SESSIONS)}"

    async def _turn(self) -> None:
        """Read a session, write its header and append a run."""
        session_id, marker = self._session_id(), self._marker()
        stored = await self._db.sessions.get(session_id, runs=3)
        key = Key("sessions", session_id)
        if stored is None or stored.degraded:
            # Where the store that has the deletion cannot be reached, what another has left is gone on with.
            self._log.revive(key)
        attempt = self._log.begin(key, marker)
        data = {"marker": marker, "padding": "x" * self._draw.choice((10, 5_000))}
        session = stored or Session(session_id=session_id, user_id=self._name, component_id="support")
        session = session.model_copy(update={"session_data": data, "runs": []})
        written = await self._db.sessions.upsert(session)
        self._log.acknowledge(attempt, written.version)
        if stored is None and written.generation == written.version:
            self._log.begin_anew(key)
        run_id = self._runs[session_id] = self._marker()
        await self._write_run(session_id, run_id, "running")

    async def _complete_run(self) -> None:
        session_id = self._session_id()
        if session_id in self._runs:
            await self._write_run(session_id, self._runs[session_id], "completed")

    async def _write_run(self, session_id: str, run_id: str, status: str) -> None:
        marker = self._marker()
        attempt = self._log.begin(Key("runs", run_id, session_id), marker)
        run = Run(run_id=run_id, status=status, data={"marker": marker})
        written = await self._db.sessions.append_run(session_id, run)
        self._log.acknowledge(attempt, written.version)

    async def _end_session(self) -> None:
        session_id = self._session_id()
        self._runs.pop(session_id, None)
        attempt = self._log.begin(Key("sessions", session_id), None)
        self._log.acknowledge(attempt, done=await self._db.sessions.delete(session_id))

    async def _remember(self) -> None:
        memory_id, marker = f"{self._name}-m{self._draw.randrange(_MEMORIES)}", self._marker()
        attempt = self._log.begin(Key("memories", memory_id), marker)
        written = await self._db.memories.upsert(UserMemory(memory_id=memory_id, memory=marker, user_id=self._name))
        self._log.acknowledge(attempt, written.version)

    async def _forget(self) -> None:
        memory_id = f"{self._name}-m{self._draw.randrange(_MEMORIES)}"
        attempt = self._log.begin(Key("memories", memory_id), None)
        self._log.acknowledge(attempt, done=await self._db.memories.delete(memory_id))

    async def _share(self) -> None:
        """Add a marker to the session that all writers change."""
        marker = self._marker()

        def add(session: Session) -> Session:
            markers = [*(session.session_data or {}).get("markers", ()), marker]
            return session.model_copy(update={"session_data": {"markers": markers}})

        attempt = self._log.begin(SHARED, marker)
        written = await self._db.sessions.update(SHARED.id, add)
        self._log.acknowledge(attempt, written.version)


async def _write_until_killed(name: str, seed: int, deadline: float, urls: list[str]) -> None:
    log = Log(lambda line: print(line, flush=True))
    async with connect(*urls, deadline=deadline) as db, asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(_write(Writer(db, log, f"{name}-{number}", seed, life=str(seed))))


async def _write(writer: Writer) -> None:
    while True:
        try:
            await writer.step()
        except CloudDBError as error:
            raise SystemExit(f"unexpected: {error!r}") from error


if __name__ == "__main__":
    asyncio.run(_write_until_killed(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
