"""What a store that falls silent costs those who call: its deadline at first, and nothing once its circuit is open.

The stores that answer take a quarter of a second for each call, the silent one does not answer at all. What a call
takes on one healthy store alone is its own time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from agno_clouddb import Database, Run, Session
from agno_clouddb.testing import FaultyStore
from agno_clouddb.testing.faults import Fault
from tests.unit.fanouts import Node, World, hanging, virtual

DEADLINE = 3.0
DELAY = 0.25
EPSILON = 1e-6


class Call(NamedTuple):
    """A call of a Database.

    Args:
        made: makes it.
        later: how many calls of the healthy store follow one after the other once the silent one was given up: the
            hint; where the write is guarded by its owner, a look whether it stands still; and a session that was made
            anew, which is stored so that it hides nothing of what the silent store may have. Those of a deletion are
            the hint and the calls of its own that are left: to find its runs, and what else it has.
    """

    made: Callable[[Database], Awaitable[object]]
    later: int = 0


def session(id: str, user: str | None = None) -> Session:
    return Session(session_id=id, session_type="agent", user_id=user)


def changed(session: Session) -> Session:
    return session.model_copy(update={"metadata": {"changed": True}})


READS = {
    "get": Call(lambda db: db.sessions.get("s1")),
    "get with runs": Call(lambda db: db.sessions.get("s1", runs="all")),
    "get of nothing": Call(lambda db: db.sessions.get("none")),
    "list": Call(lambda db: db.sessions.list(limit=2)),
    "list of a user": Call(lambda db: db.sessions.list(user_id="ann", limit=10)),
    "count": Call(lambda db: db.sessions.count()),
}
WRITES = {
    "append": Call(lambda db: db.sessions.append_run("s1", Run(run_id="r2", status="completed")), later=1),
    "upsert": Call(lambda db: db.sessions.upsert(session("s1", "ann")), later=2),
    "upsert of a new session": Call(lambda db: db.sessions.upsert(session("new", "ann")), later=3),
    "upsert that expires": Call(lambda db: db.sessions.upsert(session("new", "ann"), expires_in=60), later=3),
    "delete": Call(lambda db: db.sessions.delete("s1"), later=4),
}
DECISIONS = {
    "create": Call(lambda db: db.sessions.create(session("new")), later=2),
    "update": Call(lambda db: db.sessions.update("s1", changed), later=2),
}
STORES = [(number, silent) for number in (2, 3) for silent in range(number)]


def slow(call: str, mutations: int) -> Fault:
    """A plan of a healthy store."""
    return Fault(delay=DELAY)


async def fill(db: Database) -> None:
    for number in range(5):
        await db.sessions.upsert(session(f"s{number}", "ann"))
        await db.sessions.append_run(f"s{number}", Run(run_id="r1", status="completed"))


async def took(call: Call, db: Database) -> float:
    """How many seconds a call takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await call.made(db)
    return loop.time() - began


async def own_time(call: Call) -> float:
    """What a call takes on a healthy store alone."""
    world = World(1)
    store = FaultyStore(world.memories[0])
    async with Database(store) as db:
        await db.provision()
        await fill(db)
        store.plan = slow
        return await took(call, db)


async def fall_silent(node: Node, silent: int) -> None:
    """Fill the stores, of which one does not answer from then on."""
    await fill(node.db)
    for place, link in enumerate(node.links):
        link.plan = hanging if place == silent else slow


@pytest.mark.parametrize(("number", "silent"), STORES)
@pytest.mark.parametrize("name", [*READS, *WRITES])
@virtual
async def test_the_first_call_takes_the_deadline_and_what_follows_from_it(name: str, number: int, silent: int) -> None:
    call = (READS | WRITES)[name]
    async with World(number).node(deadline=DEADLINE) as node:
        await fall_silent(node, silent)
        seconds = await took(call, node.db)
        assert DEADLINE <= seconds <= DEADLINE + call.later * DELAY + EPSILON
        assert node.circuit(silent).state == "open"


@pytest.mark.parametrize(("number", "silent"), STORES)
@pytest.mark.parametrize("name", [*READS, *WRITES])
@virtual
async def test_with_its_circuit_open_a_call_takes_the_healthy_stores_own_time(
    name: str, number: int, silent: int
) -> None:
    call = (READS | WRITES)[name]
    own = await own_time(call)
    async with World(number).node(deadline=DEADLINE) as node:
        await fall_silent(node, silent)
        await node.db.sessions.get("s1")
        assert await took(call, node.db) <= 1.2 * own


@pytest.mark.parametrize(("number", "silent"), [(number, silent) for number, silent in STORES if silent])
@pytest.mark.parametrize("name", DECISIONS)
@virtual
async def test_so_does_what_the_primary_decides_and_the_copy_to_another_store_that_answers(
    name: str, number: int, silent: int
) -> None:
    call = DECISIONS[name]
    own = await own_time(call)
    async with World(number).node(deadline=DEADLINE) as node:
        await fall_silent(node, silent)
        assert await took(call, node.db) <= DEADLINE + call.later * DELAY + EPSILON
    async with World(number).node(deadline=DEADLINE) as node:
        await fall_silent(node, silent)
        await node.db.sessions.get("s1")
        copied = DELAY * (number - 2)  # the other healthy stores at once, if there are any
        assert await took(call, node.db) <= 1.2 * own + copied


@virtual
async def test_many_calls_at_once_take_the_deadline_once() -> None:
    async with World().node(deadline=DEADLINE) as node:
        await fall_silent(node, 1)
        # Of different records: writes of one would wait for each other.
        calls = [*READS.values(), WRITES["append"], WRITES["upsert of a new session"]]
        longest = max(await asyncio.gather(*(took(call, node.db) for call in calls)))
        assert longest <= DEADLINE + max(call.later for call in calls) * DELAY + EPSILON
