"""Transactions: writes of several records, all or none, on every store and in fan-outs."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agno_clouddb import (
    ConflictError,
    Database,
    EvalRun,
    InvalidRecord,
    KnowledgeContent,
    LifecycleError,
    NotOwner,
    RecordNotFound,
    RecordTooLarge,
    Run,
    Session,
    Span,
    StoreUnavailable,
    Trace,
    UserMemory,
    connect,
)
from agno_clouddb.records.base import Record
from agno_clouddb.repositories.transactions import Transaction
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import CountingStore, FaultyStore
from agno_clouddb.testing.faults import Fault, script

COLLECTIONS = ("sessions", "runs", "memories", "knowledge", "traces", "spans")
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
async def db(urls: tuple[str, ...]) -> AsyncIterator[Database]:
    async with connect(*urls) as database:
        await database.provision(COLLECTIONS)
        yield database


def memory(memory_id: str, **values: Any) -> UserMemory:
    return UserMemory(memory_id=memory_id, **{"memory": "likes tea", **values})


async def write(db: Database, *records: Record) -> tuple[Any, ...]:
    async with db.transaction() as tx:
        for record in records:
            tx.upsert(record)
    return tx.results


async def test_records_of_several_kinds_are_stored_together(db: Database) -> None:
    session = Session(session_id="s1", user_id="ann")
    async with db.transaction() as tx:
        tx.upsert(session)
        tx.append_run(session, Run(run_id="r1", data={"n": 1}))
        tx.append_run(session, Run(run_id="r2", data={"n": 2}))
        tx.create(memory("m1", user_id="ann"))
        tx.upsert(KnowledgeContent(id="k1", name="a"))
        tx.upsert(Trace(trace_id="t1", name="t", start_time=NOW, end_time=NOW + timedelta(seconds=1)))
        tx.upsert(Span(span_id="p1", trace_id="t1", name="p", start_time=NOW, end_time=NOW))
    stored = await db.sessions.get("s1")
    assert stored is not None
    assert [run.data for run in stored.runs] == [{"n": 1}, {"n": 2}]
    assert [stored.model_copy(update={"runs": []}), *stored.runs] == list(tx.results[:3])
    assert await db.memories.get("m1") == tx.results[3]
    assert await db.knowledge.get("k1") == tx.results[4]
    trace = await db.traces.get("t1")
    assert trace == tx.results[5]
    assert trace is not None
    assert trace.duration_ms == 1000
    assert (await db.traces.list_spans("t1")).items == [tx.results[6]]


async def test_one_that_is_refused_keeps_all_from_being_stored(db: Database) -> None:
    mine = await db.memories.upsert(memory("mine", user_id="ann"))
    await db.memories.upsert(mine.model_copy(update={"memory": "newer"}))
    await db.memories.upsert(memory("theirs", user_id="bob"))

    async def attempt(then: Callable[[Transaction], None]) -> None:
        async with db.transaction() as tx:
            tx.upsert(memory("new"))
            then(tx)

    with pytest.raises(ConflictError) as caught:
        await attempt(lambda tx: tx.upsert(mine, expected_version=mine.version))
    assert caught.value.expected == mine.version
    with pytest.raises(ConflictError, match="memories/mine"):
        await attempt(lambda tx: tx.create(memory("mine")))
    with pytest.raises(NotOwner, match="memories/theirs"):
        await attempt(lambda tx: tx.upsert(memory("theirs", memory="taken"), user_id="ann"))
    with pytest.raises(RecordNotFound, match="memories/gone"):
        await attempt(lambda tx: tx.delete(UserMemory, "gone"))
    assert await db.memories.get("new") is None
    stored = await db.memories.get("mine")
    assert stored is not None
    assert stored.memory == "newer"


async def test_deleting_and_moving_at_once(db: Database) -> None:
    old = await db.memories.upsert(memory("old", user_id="ann"))
    async with db.transaction() as tx:
        tx.delete(UserMemory, "old", user_id="ann", expected_version=old.version)
        tx.create(old.model_copy(update={"memory_id": "new", "version": None}))
    assert await db.memories.get("old") is None
    assert (await db.memories.list(user_id="ann")).items == [tx.results[1]]
    assert tx.results[0] is None


async def test_an_object_made_anew_keeps_what_is_kept(db: Database) -> None:
    first = await db.memories.upsert(memory("m1", user_id="ann", created_at=NOW))
    session = await db.sessions.upsert(Session(session_id="s1", created_at=NOW, runs=[Run(run_id="r1")]))
    again = Session(session_id="s1", session_data={"n": 2})
    async with db.transaction() as tx:
        tx.upsert(memory("m1", memory="again"))
        tx.upsert(again)
        tx.append_run(again, Run(run_id="r2"))
        tx.append_run(again, Run(run_id="r1", data={"again": True}))
    stored = await db.memories.get("m1")
    assert stored is not None
    assert (stored.memory, stored.created_at, stored.user_id) == ("again", first.created_at, "ann")
    read = await db.sessions.get("s1")
    assert read is not None
    assert (read.generation, read.created_at) == (session.generation, NOW)
    assert [(run.run_id, run.data) for run in read.runs] == [("r1", {"again": True}), ("r2", None)]


async def test_what_is_too_large_is_refused_before_it_is_sent(db: Database) -> None:
    noise = base64.b64encode(random.Random(1).randbytes(db.store.limits.payload_bytes)).decode()
    with pytest.raises(RecordTooLarge):
        await write(db, memory("small"), memory("large", memory=noise))
    with pytest.raises(InvalidRecord, match="mutations"):
        await write(db, *(memory(f"m{n}") for n in range(db.store.limits.atomic_items + 1)))
    assert await db.memories.count() == 0


async def test_a_block_that_raises_sends_nothing() -> None:
    store = CountingStore(MemoryStore())
    async with Database(store) as db:
        await db.provision()
        tx = db.transaction()
        with pytest.raises(ZeroDivisionError):
            await _fail_in(tx)
        async with db.transaction():
            pass
        assert store.calls["write"] == 0
        with pytest.raises(LifecycleError):
            tx.upsert(memory("m1"))
        with pytest.raises(LifecycleError, match="before"):
            await tx.__aenter__()


async def _fail_in(tx: Transaction) -> None:
    async with tx:
        tx.upsert(memory("m1"))
        raise ZeroDivisionError


async def test_bad_arguments_are_named_when_they_are_given() -> None:
    async with connect("memory://") as db:
        await db.provision()
        async with db.transaction() as tx:
            tx.upsert(memory("m1"))
            calls: tuple[tuple[Callable[[], None], str], ...] = (
                (lambda: tx.upsert(memory("m1")), "memories/m1"),
                (lambda: tx.upsert(memory("")), "memory_id"),
                (lambda: tx.upsert(Run(run_id="r")), "record"),
                (lambda: tx.upsert({"memory_id": "m2"}), "record"),  # type: ignore[arg-type]
                (lambda: tx.upsert(memory("m2"), expected_version="1"), "expected_version"),
                (lambda: tx.upsert(memory("m2"), expires_in=-1), "expires_in"),
                (lambda: tx.upsert(Session(session_id="s", runs=[Run(run_id="r")])), "runs"),
                (lambda: tx.append_run(Session(session_id="s"), Run(run_id="r")), "session"),
                (lambda: tx.delete(Session, "s"), "kind"),
                (lambda: tx.delete(UserMemory, ""), "memory_id"),
            )
            for call, path in calls:
                with pytest.raises(InvalidRecord) as caught:
                    call()
                assert caught.value.path == path
        assert await db.memories.count() == 1
        for bad in (memory("m2", memory="\ud800"), EvalRun(run_id="e", eval_type="odd", eval_data={})):
            with pytest.raises(InvalidRecord):
                await write(db, memory("m3"), bad)
        assert await db.memories.get("m3") is None


async def test_what_is_refused_as_older_is_stamped_anew() -> None:
    ahead = Database(MemoryStore("memory://a"))
    async with ahead:
        await ahead.provision()
        for _ in range(5):
            await ahead.memories.upsert(memory("m1"))
        behind = Database(ahead.store)
        async with behind:
            behind._connection.clock._now = lambda: 1_700_000_000_000
            behind._connection.clock._max_drift = 10**13
            async with behind.transaction() as tx:
                tx.upsert(memory("m1", memory="later"))
                tx.upsert(memory("m2"))
            stored = await behind.memories.get("m1")
    assert stored is not None
    assert stored.memory == "later"


async def test_a_lost_answer_is_an_error_and_not_a_refusal() -> None:
    store = FaultyStore(MemoryStore(), script(Fault("response lost"), on=["write"]))
    async with Database(store) as db:
        await db.provision()
        with pytest.raises(StoreUnavailable):
            await write(db, memory("m1"), memory("m2"))
        assert await db.memories.count() == 2
