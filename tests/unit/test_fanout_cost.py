"""A healthy fan-out asks each of its stores what a store alone would be asked, for every call of the repositories."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agno_clouddb import (
    ConflictError,
    Database,
    EvalRun,
    KnowledgeContent,
    Learning,
    Run,
    Session,
    Span,
    Trace,
    UserMemory,
    connect,
)
from agno_clouddb.fanout.policy import Acks, ReadPolicy
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import CountingStore
from tests.unit.fanouts import World, asked, between_rounds, ready, virtual

Call = Callable[[Database, dict[str, Any]], Awaitable[object]]
Counts = tuple[dict[str, int], dict[str, int]]

START = datetime(2026, 1, 1, tzinfo=UTC)


def memory(number: int) -> UserMemory:
    return UserMemory(memory_id=f"m{number}", memory="likes tea", user_id="ann", topics=["tea"])


def span(number: int) -> Span:
    return Span(span_id=f"p{number}", trace_id="t1", name="step", start_time=START, end_time=START)


TRACE = Trace(trace_id="t1", name="run", start_time=START, end_time=START, session_id="s1")


async def _keep(memo: dict[str, Any], name: str, call: Awaitable[Any]) -> None:
    memo[name] = await call


async def _conflict(call: Awaitable[object]) -> None:
    with suppress(ConflictError):
        await call
        pytest.fail("no conflict")


async def _transaction(db: Database) -> None:
    async with db.transaction() as tx:
        tx.upsert(memory(50))
        tx.upsert(memory(51))


async def _each(records: Any) -> None:
    async for _ in records:
        pass


CALLS: dict[str, Call] = {
    "a new session": lambda db, memo: _keep(memo, "s1", db.sessions.upsert(Session(session_id="s1", user_id="ann"))),
    "a session again": lambda db, memo: _keep(memo, "s1", db.sessions.upsert(Session(session_id="s1", user_id="ann"))),
    "a session with its owner": lambda db, memo: _keep(
        memo, "s1", db.sessions.upsert(Session(session_id="s1", user_id="ann"), user_id="ann")
    ),
    "a session with its version": lambda db, memo: _keep(
        memo, "s1", db.sessions.upsert(memo["s1"], expected_version=memo["s1"].version)
    ),
    "a session with runs": lambda db, memo: db.sessions.upsert(
        Session(session_id="s2", runs=[Run(run_id=f"r{n}") for n in range(3)])
    ),
    "a run appended": lambda db, memo: db.sessions.append_run("s1", Run(run_id="r1")),
    "a run appended again": lambda db, memo: db.sessions.append_run("s1", Run(run_id="r1")),
    "a run upserted": lambda db, memo: db.sessions.upsert_run("s1", Run(run_id="r2")),
    "a run read": lambda db, memo: db.sessions.get_run("s1", "r1"),
    "a session read": lambda db, memo: db.sessions.get("s1"),
    "a session read that is not there": lambda db, memo: db.sessions.get("none"),
    "an eventual read": lambda db, memo: db.sessions.get("s1", consistency="eventual"),
    "sessions listed": lambda db, memo: db.sessions.list(),
    "sessions listed by page": lambda db, memo: _each(db.sessions.iterate(sort="created_at", page_size=1)),
    "sessions counted": lambda db, memo: db.sessions.count(user_id="ann"),
    "a session renamed": lambda db, memo: db.sessions.rename("s1", "name"),
    "a session updated": lambda db, memo: db.sessions.update(
        "s1", lambda session: session.model_copy(update={"session_name": "other"})
    ),
    "a session with a time to live": lambda db, memo: db.sessions.upsert(
        Session(session_id="s3"), expires_in=timedelta(days=1)
    ),
    "a new memory": lambda db, memo: db.memories.upsert(memory(1)),
    "memories in bulk": lambda db, memo: db.memories.upsert_many([memory(n) for n in range(40)]),
    "a memory read": lambda db, memo: db.memories.get("m1"),
    "memories listed": lambda db, memo: db.memories.list(user_id="ann", limit=7),
    "memories searched": lambda db, memo: db.memories.list(user_id="ann", topics=["tea"]),
    "topics": lambda db, memo: db.memories.topics(user_id="ann"),
    "statistics of memories": lambda db, memo: db.memories.stats(),
    "a memory deleted": lambda db, memo: db.memories.delete("m1"),
    "a memory deleted that is not there": lambda db, memo: db.memories.delete("none"),
    "memories deleted": lambda db, memo: db.memories.delete_many(["m2", "m3", "none"]),
    "an evaluation created": lambda db, memo: db.evals.create(EvalRun(run_id="e1", eval_type="accuracy", eval_data={})),
    "an evaluation renamed": lambda db, memo: db.evals.rename("e1", "name"),
    "evaluations counted": lambda db, memo: db.evals.count(eval_type="accuracy"),
    "a content": lambda db, memo: db.knowledge.upsert(KnowledgeContent(id="k1", name="book", status="pending")),
    "the status of a content": lambda db, memo: db.knowledge.set_status("k1", "ready", expected="pending"),
    "an access of a content": lambda db, memo: db.knowledge.count_access("k1"),
    "a new trace": lambda db, memo: db.traces.upsert_trace(TRACE),
    "a part of a trace": lambda db, memo: db.traces.upsert_trace(TRACE),
    "a span": lambda db, memo: db.traces.create_span(span(1)),
    "spans": lambda db, memo: db.traces.create_spans([span(n) for n in range(30)]),
    "a span read": lambda db, memo: db.traces.get_span("t1", "p1"),
    "spans listed": lambda db, memo: db.traces.list_spans("t1", limit=10),
    "statistics of traces": lambda db, memo: db.traces.stats(),
    "a trace deleted": lambda db, memo: db.traces.delete("t1"),
    "a learning": lambda db, memo: db.learnings.upsert(
        Learning(learning_id="l1", learning_type="fact", content={"text": "likes tea"})
    ),
    "learnings searched": lambda db, memo: db.learnings.search("tea"),
    "metrics calculated": lambda db, memo: db.metrics.calculate(),
    "metrics read": lambda db, memo: db.metrics.latest(),
    "a session deleted": lambda db, memo: db.sessions.delete("s2"),
    "a session created anew": lambda db, memo: db.sessions.upsert(Session(session_id="s2")),
    "sessions deleted": lambda db, memo: db.sessions.delete_many(["s1", "s2", "none"]),
    "memories cleared": lambda db, memo: db.memories.clear(),
}


async def counted(db: Database, stores: list[CountingStore], calls: dict[str, Call]) -> list[dict[str, Counts]]:
    """What each store was asked, by the name of the call."""
    found: list[dict[str, Counts]] = [{} for _ in stores]
    memo: dict[str, Any] = {}
    async with db:
        await db.provision()
        for name, call in calls.items():
            for store in stores:
                store.clear()
            await call(db, memo)
            for each, store in zip(found, stores, strict=True):
                each[name] = (dict(store.calls), dict(+store.items))
    return found


async def beside_one(calls: dict[str, Call], number: int = 2, **options: Any) -> list[dict[str, Counts]]:
    """What a store alone was asked, and each of several."""
    alone, *several = [CountingStore(MemoryStore(f"memory://{n}")) for n in range(number + 1)]
    return [
        *await counted(connect(alone), [alone], calls),
        *await counted(connect(*several, **options), several, calls),
    ]


@pytest.mark.parametrize("acks", [1, "all"])
@pytest.mark.parametrize("number", [2, 3])
@virtual
async def test_every_store_is_asked_what_a_store_alone_is_asked(number: int, acks: Acks) -> None:
    alone, *several = await beside_one(CALLS, number, acks=acks)
    assert [name for name, (calls, _) in alone.items() if not calls] == []
    differing = {
        name: (counts, [each[name] for each in several])
        for name, counts in alone.items()
        if any(each[name] != counts for each in several)
    }
    part, anew = ({"write": 2, "get": 1},) * 2, ({"write": 1},) * 2
    assert differing == {
        # It creates the trace, unless it is there, by the newest on all stores; that refusal the primary alone gives.
        "a part of a trace": (part, [({"write": 2 if place == 0 else 1, "get": 2},) * 2 for place in range(number)]),
        # A tombstone is written over only when all stores have seen the deletion.
        "a session created anew": (anew, [({"write": 2},) * 2] * number),
    }


@virtual
async def test_an_atomic_write_costs_one_read_more_on_each_store() -> None:
    alone, *several = await beside_one({"transaction": lambda db, memo: _transaction(db)})
    assert alone["transaction"] == ({"write": 1}, {"write": 2})
    for each in several:
        assert each["transaction"] == ({"get": 1, "write": 1}, {"get": 2, "write": 2})


@virtual
async def test_what_the_primary_refuses_for_good_is_sent_to_no_other_store() -> None:
    calls = CALLS.copy()
    calls = {name: calls[name] for name in ("a new session", "a session again")}
    calls["conflict"] = lambda db, memo: _conflict(
        db.sessions.upsert(memo["s1"], expected_version="000000000001-0000-000000000000")
    )
    alone, first, second = await beside_one(calls)
    assert alone["conflict"] == first["conflict"] == ({"write": 1}, {"write": 1})
    assert second["conflict"] == ({}, {})


@virtual
async def test_a_creation_of_what_is_there_costs_one_read_on_each_store() -> None:
    create: Call = lambda db, memo: db.evals.create(EvalRun(run_id="e1", eval_type="accuracy", eval_data={}))  # noqa: E731
    alone, first, second = await beside_one({"first": create, "again": lambda db, memo: _conflict(create(db, memo))})
    assert alone["again"] == ({"write": 1}, {"write": 1})
    assert first["again"] == ({"write": 1, "get": 1}, {"write": 1, "get": 1})
    assert second["again"] == ({"get": 1}, {"get": 1})


@pytest.mark.parametrize("reads", ["primary", "fastest"])
@virtual
async def test_read_alone_one_store_is_asked_what_a_store_alone_is_asked(reads: ReadPolicy) -> None:
    world = World()
    async with world.node(reads=reads) as node:
        await node.put()
        await node.fanout.reconcile()
        await ready(node)
        await node.read()
        assert sum(asked(node)) == 1
        await between_rounds(node)
        await node.listed()
        assert sum(asked(node)) == 1


@virtual
async def test_nothing_is_asked_in_the_background_of_a_healthy_fanout_that_merges() -> None:
    world = World()
    async with world.node() as node:
        await node.put()
        node.clear()
        await asyncio.sleep(3600)
        assert node.calls() == [{}, {}]
