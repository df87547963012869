"""What clients do, through the real repositories, and what each operation came to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from agno_clouddb.database import Database
from agno_clouddb.errors import (
    BulkWriteError,
    ConflictError,
    NotOwner,
    PartialWrite,
    RecordNotFound,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.records.memories import UserMemory
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.stores.base import Item, Key
from tests.simulation import rules
from tests.simulation.schedules import COUNTER, KEYS, LASTING, PASSING, USERS, Step
from tests.simulation.world import World, mark, writer_of

if TYPE_CHECKING:
    from tests.simulation.processes import Process

__all__ = ["COUNTER_KEY", "MEMORY_KEYS", "SESSION_KEYS", "Operation", "memory_key", "perform"]

MEMORY_KEYS = tuple(Key("memories", each) for each in (*KEYS, COUNTER))
COUNTER_KEY = MEMORY_KEYS[-1]
SESSION_KEYS = (Key("sessions", LASTING), Key("sessions", PASSING))

_REFUSALS = (ConflictError, NotOwner, RecordNotFound)
_FAILURES = (StoreUnavailable, Throttled, PartialWrite, BulkWriteError)


@dataclass(eq=False, slots=True)
class Operation:
    """One call of a client.

    Attributes:
        number: counted in the schedule; what it writes carries it.
        step: what it was asked to do.
        process: where it ran.
        writes: the keys that it may write.
        begun, ended: seconds of the loop; ``ended`` is None while it runs.
        outcome: ``acknowledged``, ``refused`` (nothing of it may stand), ``unknown``, or ``nothing``: it answered, and
            has written nothing.
        versions: the version under which each write was acknowledged.
        wrote: the greatest version under which a store has stored what it wrote, by key.
        stored, failed, heard, listed: what stores have answered: to writes, not at all, to reads by key, to queries.
        before: what each store held when it began, by key.
    """

    number: int
    step: Step
    process: Process
    draw: random.Random
    begun: float
    writes: tuple[Key, ...] = ()
    ended: float | None = None
    outcome: Literal["pending", "acknowledged", "refused", "unknown", "nothing"] = "pending"
    answer: str = ""
    removes: bool = False
    expected: str | None = None
    versions: dict[Key, str] = field(default_factory=dict)
    wrote: dict[Key, str] = field(default_factory=dict)
    stored: set[tuple[int, Key]] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    heard: dict[int, set[Key]] = field(default_factory=dict)
    listed: Counter[int] = field(default_factory=Counter)
    before: dict[Key, list[Item | None]] = field(default_factory=dict)

    @property
    def world(self) -> World:
        return self.process.world

    def wrote_item(self, key: Key, item: Item | None) -> None:
        """Note what a store has applied in the course of this operation."""
        if item is None or key not in self.writes:
            return
        own = item.deleted if self.removes else writer_of(item) == self.number
        if own and item.version > self.wrote.get(key, ""):
            self.wrote[key] = item.version

    def may_write(self, *keys: Key, removes: bool = False) -> None:
        """Say what is going to be written."""
        self.writes, self.removes = keys, removes
        for key in keys:
            self.world.by_key.setdefault(key, []).append(self)

    def look(self, *keys: Key) -> None:
        """Keep what stores hold before a read."""
        for key in keys:
            self.before[key] = self.world.held(key)

    def clean(self, key: Key) -> bool:
        """Whether every store has answered every call, and has stored what it wrote under a key."""
        return not self.failed and all((store, key) in self.stored for store in range(self.world.number))

    def __str__(self) -> str:
        detail = " ".join(f"{name}={each}" for name, each in self.step.detail.items() if name != "cancel")
        return f"p{self.process.number}.c{self.step.client} #{self.number} {self.step.kind} {detail}"


async def perform(operation: Operation) -> None:
    """Carry an operation out, and enter what it came to."""
    world = operation.world
    world.tell(f"{operation} begins")
    try:
        await _ACTIONS[operation.step.kind](operation, operation.process.db)
    except _REFUSALS as error:
        end(operation, "refused", type(error).__name__)
    except _FAILURES as error:
        end(operation, "unknown", f"{type(error).__name__} {error.message[:60]}")
    except asyncio.CancelledError:
        end(operation, "unknown", "cancelled")
        raise
    except Exception as error:
        end(operation, "unknown", repr(error))
        if not operation.process.dead:
            world.fail("errors", f"{operation} raised {error!r}, which it may not")
    else:
        if operation.outcome == "pending":
            end(operation, "acknowledged" if operation.versions else "nothing", operation.answer)


def end(
    operation: Operation, outcome: Literal["acknowledged", "refused", "unknown", "nothing"], answer: str = ""
) -> None:
    """Enter what an operation came to, unless that is known: a process that has died has answered nothing."""
    if operation.ended is not None:
        return
    operation.ended, operation.outcome = operation.world.loop.time(), outcome
    operation.world.tell(f"{operation} -> {outcome} {answer}")
    if outcome == "acknowledged":
        rules.check_write(operation)


def memory_key(step: Step) -> Key:
    return Key("memories", str(step.detail["key"]))


def _memory(operation: Operation, key: Key, user: str) -> UserMemory:
    topics = [f"t{operation.number % 3}"]
    return UserMemory(memory=mark(operation.number), memory_id=key.id, user_id=user, topics=topics)


def _acknowledged(operation: Operation, *records: UserMemory | Session | Run) -> None:
    for record in records:
        operation.versions[record.key] = str(record.version)
    operation.answer = " ".join(str(record.version) for record in records)


async def _upsert(operation: Operation, db: Database) -> None:
    key, user = memory_key(operation.step), operation.step.detail["user"]
    operation.may_write(key)
    _acknowledged(operation, await db.memories.upsert(_memory(operation, key, user)))


async def _expire(operation: Operation, db: Database) -> None:
    key, user = memory_key(operation.step), operation.step.detail["user"]
    operation.may_write(key)
    record = _memory(operation, key, user)
    _acknowledged(operation, await db.memories.upsert(record, expires_in=operation.step.detail["seconds"]))


async def _read_memory(operation: Operation, db: Database, key: Key, user: str | None = None) -> UserMemory | None:
    operation.look(key)
    operation.heard.clear()
    operation.failed.clear()
    begun = operation.world.loop.time()
    record = await db.memories.get(key.id, user_id=user)
    if not operation.process.dead:
        rules.check_get(operation, begun, key, record, guarded=user is not None)
    return record


def _changed(operation: Operation, record: UserMemory) -> UserMemory:
    update = {"memory": mark(operation.number), "topics": [f"t{operation.number % 3}"], "expires_at": None}
    return record.model_copy(update=update)


async def _rewrite(operation: Operation, db: Database) -> None:
    key = memory_key(operation.step)
    record = await _read_memory(operation, db, key)
    if record is not None:
        operation.failed.clear()
        operation.may_write(key)
        _acknowledged(operation, await db.memories.upsert(_changed(operation, record)))


async def _expect(operation: Operation, db: Database) -> None:
    key = memory_key(operation.step)
    record = await _read_memory(operation, db, key)
    if record is not None:
        operation.failed.clear()
        operation.may_write(key)
        operation.expected = record.version
        await asyncio.sleep(operation.draw.uniform(0, 0.1))
        changed = _changed(operation, record)
        _acknowledged(operation, await db.memories.upsert(changed, expected_version=record.version))


async def _count_up(operation: Operation, db: Database) -> None:
    operation.may_write(COUNTER_KEY)

    def change(record: UserMemory) -> UserMemory:
        counted = [*(record.topics or []), str(operation.number)]
        return record.model_copy(update={"memory": mark(operation.number), "topics": counted})

    _acknowledged(operation, await db.memories.update(COUNTER, change))


async def _delete(operation: Operation, db: Database) -> None:
    key = memory_key(operation.step)
    operation.may_write(key, removes=True)
    there = await db.memories.delete(key.id, user_id=operation.step.detail.get("user"))
    if there:
        operation.versions[key] = operation.wrote.get(key, "")
    operation.answer = f"{there} {operation.versions.get(key, '')}"


async def _get(operation: Operation, db: Database) -> None:
    key = memory_key(operation.step)
    record = await _read_memory(operation, db, key, operation.step.detail.get("user"))
    operation.answer = f"{record.memory} {record.version} degraded={record.degraded}" if record is not None else "None"


async def _list(operation: Operation, db: Database) -> None:
    detail = operation.step.detail
    operation.look(*MEMORY_KEYS)
    begun = operation.world.loop.time()
    found, degraded, cursor = list[UserMemory](), False, None
    filters = {"user_id": detail["user"], "topics": ["t1"] if detail["topics"] else None}
    if detail["iterate"]:
        iterating = db.memories.iterate(sort=detail["sort"], page_size=detail["limit"], **filters)
        found = [record async for record in iterating]
        degraded = any(record.degraded for record in found)
    else:
        while True:
            page = await db.memories.list(sort=detail["sort"], limit=detail["limit"], cursor=cursor, **filters)
            found += page.items
            degraded = degraded or page.degraded
            if page.cursor is not None and len(page.items) != detail["limit"]:
                operation.world.fail("lists", f"{operation} gave a page of {len(page.items)} that is not the last")
            cursor = page.cursor
            if cursor is None:
                break
    operation.answer = f"{[(record.memory_id, record.memory) for record in found]} degraded={degraded}"
    if not operation.process.dead:
        rules.check_list(operation, begun, found, None if detail["iterate"] else degraded)


async def _count(operation: Operation, db: Database) -> None:
    operation.look(*MEMORY_KEYS)
    begun, user = operation.world.loop.time(), operation.step.detail["user"]
    number = await db.memories.count(user_id=user)
    operation.answer = str(number)
    if not operation.process.dead:
        rules.check_count(operation, begun, user, number)


async def _append(operation: Operation, db: Database) -> None:
    session = str(operation.step.detail["key"])
    run_id = f"r{operation.number}"
    if operation.step.detail["again"]:
        # The repetition of an earlier call, as after one of unknown outcome.
        earlier = [each for each in operation.world.operations if each.step.kind == "append"]
        earlier = [each for each in earlier if each.writes and each.writes[0].parent == session]
        run_id = earlier[-1].writes[0].id if earlier else run_id
    operation.may_write(Key("runs", run_id, session))
    run = Run(run_id=run_id, data={"by": mark(operation.number)})
    _acknowledged(operation, await db.sessions.append_run(session, run))


async def _get_session(operation: Operation, db: Database) -> None:
    key = Key("sessions", str(operation.step.detail["key"]))
    operation.look(key)
    begun = operation.world.loop.time()
    session = await db.sessions.get(key.id)
    runs = [run.run_id for run in session.runs] if session is not None else []
    operation.answer = f"{session.version} {runs} degraded={session.degraded}" if session is not None else "None"
    if not operation.process.dead:
        rules.check_session(operation, begun, key, session)


async def _upsert_session(operation: Operation, db: Database) -> None:
    key = Key("sessions", str(operation.step.detail["key"]))
    operation.may_write(key)
    session = Session(session_id=key.id, user_id=USERS[0], metadata={"by": mark(operation.number)})
    _acknowledged(operation, await db.sessions.upsert(session))


async def _delete_session(operation: Operation, db: Database) -> None:
    key = SESSION_KEYS[1]
    operation.may_write(key, removes=True)
    there = await db.sessions.delete(key.id)
    if there:
        operation.versions[key] = operation.wrote.get(key, "")
    operation.answer = f"{there} {operation.versions.get(key, '')}"


async def _transact(operation: Operation, db: Database) -> None:
    first = memory_key(operation.step)
    second = Key("memories", KEYS[(KEYS.index(first.id) + 1) % len(KEYS)])
    operation.may_write(first, second)
    async with db.transaction() as transaction:
        for key in (first, second):
            transaction.upsert(_memory(operation, key, operation.step.detail["user"]))
    _acknowledged(operation, *transaction.results)


async def _create(operation: Operation, db: Database) -> None:
    """What every schedule begins with: the counter, and the session that is never deleted."""
    operation.may_write(COUNTER_KEY, SESSION_KEYS[0])
    counter = UserMemory(memory=mark(operation.number), memory_id=COUNTER, user_id=USERS[0], topics=[])
    session = Session(session_id=LASTING, user_id=USERS[0], metadata={"by": mark(operation.number)})
    _acknowledged(operation, await db.memories.upsert(counter), await db.sessions.upsert(session))


async def _reconcile(operation: Operation, db: Database) -> None:
    await db.reconcile(full=operation.step.detail["full"])


_ACTIONS: dict[str, Callable[[Operation, Database], Awaitable[None]]] = {
    "create": _create,
    "upsert": _upsert,
    "expire": _expire,
    "rewrite": _rewrite,
    "expect": _expect,
    "count up": _count_up,
    "delete": _delete,
    "get": _get,
    "list": _list,
    "count": _count,
    "append": _append,
    "get session": _get_session,
    "upsert session": _upsert_session,
    "delete session": _delete_session,
    "transact": _transact,
    "reconcile": _reconcile,
}
