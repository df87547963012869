"""Load for a Database while a store joins it: writers, readers of single sessions, and readers of whole lists.

Each session has one writer, and is not used again once it is deleted. So every answer is known: a session whose writer
has written it, and has not begun to delete it, is there, as it was last written.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from agno_clouddb import Database, Run, Session

__all__ = ["Load"]

_KINDS = ("upsert", "append", "create", "delete", "get")
_WEIGHTS = (35, 30, 10, 10, 15)


class Load:
    """What is to be there, and those who write and read it.

    Args:
        db: where to.
        sessions: what is stored already, with what each has in ``session_data["n"]`` and how many runs.
        writers: how many there are; session number n belongs to the writer of number n modulo this.
        pause: a listing begins when so many more calls have been made since the last.
        allowed: how many calls may be made, until ``allow`` lets more be made.
    """

    def __init__(
        self, db: Database, sessions: dict[str, tuple[int, int]], *, writers: int, pause: int, allowed: int
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.standing = dict(sessions)
        self.stopped = False
        self._db = db
        self._writers = writers
        self._pause = pause
        self._allowed = asyncio.Semaphore(allowed)
        self._made = asyncio.Condition()
        self._gone: list[str] = []
        self._owned = [list(sessions)[number::writers] for number in range(writers)]

    async def write(self, number: int) -> None:
        """Write as one of the writers until ``stopped``."""
        draw, owned = random.Random(number), self._owned[number]
        while await self._may_go_on():
            (kind,) = draw.choices(_KINDS, _WEIGHTS)
            place = draw.randrange(len(owned))
            if kind == "create":
                owned.append(f"w{number}-{len(owned)}-{self.calls['create']}")
                await self._create(owned[-1])
            elif kind == "delete":
                await self._delete(owned.pop(place))
            elif kind == "append":
                await self._append(owned[place])
            else:
                await self._read(owned[place], upsert=kind == "upsert")
            await self._count(kind)

    async def list(self) -> None:
        """Read the whole list again and again until ``stopped``, at least once; none may miss a session."""
        while True:
            standing, mark = list(self.standing), len(self._gone)
            seen = Counter([session.session_id async for session in self._db.sessions.iterate(page_size=500)])
            missed = set(standing) - seen.keys() - set(self._gone[mark:])
            self.wrong += [f"{each} is not in list number {self.calls['list']}" for each in sorted(missed)]
            self.wrong += [f"{each} is in a list {times} times" for each, times in seen.items() if times > 1]
            await self._count("list")
            await self.more(self._pause)
            if self.stopped:
                return

    async def get(self) -> None:
        """Read one session after the other until ``stopped``."""
        draw = random.Random("get")
        while await self._may_go_on():
            wanted, mark = draw.choice(list(self.standing)), len(self._gone)
            found = await self._db.sessions.get(wanted, runs=0)
            if found is None and wanted not in self._gone[mark:]:
                self.wrong.append(f"{wanted} is not found")
            await self._count("get")

    async def more(self, calls: int) -> None:
        """Wait until so many more calls have been made, or ``stopped``."""
        async with self._made:
            goal = self.calls.total() + calls
            await self._made.wait_for(lambda: self.stopped or self.calls.total() >= goal)

    def allow(self, calls: int) -> None:
        """Let so many more calls be made, so that those who make them leave time to others."""
        for _ in range(calls):
            self._allowed.release()

    async def stop(self) -> None:
        """Let everybody end after the call that they are at."""
        self.stopped = True
        self.allow(self._writers + 1)
        async with self._made:
            self._made.notify_all()

    async def _may_go_on(self) -> bool:
        await self._allowed.acquire()
        return not self.stopped

    async def _count(self, kind: str) -> None:
        self.calls[kind] += 1
        async with self._made:
            self._made.notify_all()

    async def _create(self, id: str) -> None:
        await self._db.sessions.upsert(Session(session_id=id, user_id="ann", session_data={"n": 0}))
        self.standing[id] = 0, 0

    async def _delete(self, id: str) -> None:
        self._gone.append(id)
        del self.standing[id]
        if not await self._db.sessions.delete(id):
            self.wrong.append(f"{id} was not there to delete")
        if await self._db.sessions.get(id) is not None:
            self.wrong.append(f"{id} is there after its deletion")

    async def _append(self, id: str) -> None:
        written, runs = self.standing[id]
        await self._db.sessions.append_run(id, Run(run_id=f"r{runs}", status="completed", data={"n": runs}))
        self.standing[id] = written, runs + 1

    async def _read(self, id: str, *, upsert: bool) -> None:
        written, runs = self.standing[id]
        session = await self._db.sessions.get(id)
        if session is None:
            self.wrong.append(f"{id} is not found by its writer")
            return
        found = (session.session_data or {})["n"], len(session.runs)
        if found != (written, runs):
            self.wrong.append(f"{id} is {found} for its writer, which has written {(written, runs)}")
        if upsert:
            session.session_data = {"n": written + 1}
            await self._db.sessions.upsert(session)
            self.standing[id] = written + 1, runs
