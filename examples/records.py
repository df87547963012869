"""The other records: memories, evaluations, knowledge, traces, learnings and metrics, on one store or several.

    python examples/records.py                       # a SQLite file, example.sqlite
    python examples/records.py memory://
    python examples/records.py dynamodb://eu-west-1 firestore://my-project

Running it again writes the same records again.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta

from agno_clouddb import (
    BulkWriteError,
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


async def remember(db: Database) -> None:
    """Memories: filters, bulk writes with an error in them, and expiry."""
    await db.memories.upsert(UserMemory(memory_id="m1", memory="Prefers aisle seats", topics=["Travel"], user_id="ann"))
    await db.memories.upsert(UserMemory(memory_id="m2", memory="Asked for a receipt"), expires_in=timedelta(days=30))
    try:
        await db.memories.upsert_many(
            UserMemory(memory_id=f"b{n}", memory=f"Memory {n}" if n != 7 else "\ud800", user_id="bob")
            for n in range(50)
        )
    except BulkWriteError as error:
        print(f"stored {error.stored}, failed {sorted(error.failed)}: {error.failed[7]}")
    page = await db.memories.list(user_id="ann", topics=["travel"], text="AISLE")
    print("ann's:", [memory.memory for memory in page.items])
    print("each user has:", {stats.user_id: stats.count for stats in await db.memories.stats()})


async def evaluate(db: Database) -> None:
    """Evaluations: one of several types, and a name."""
    for n, kind in enumerate(("accuracy", "reliability", "performance")):
        await db.evals.upsert(EvalRun(run_id=f"e{n}", eval_type=kind, eval_data={"score": n}, agent_id="support"))
    print("renamed:", (await db.evals.rename("e0", "Nightly")).name)
    page = await db.evals.list(agent_id="support", eval_type=["accuracy", "reliability"], sort="created_at")
    print("evaluations:", [run.run_id for run in page.items])


async def learn(db: Database) -> None:
    """Knowledge: a transition that only one worker makes, and a counter. Learnings: a search."""
    await db.knowledge.upsert(KnowledgeContent(id="k1", name="fares.pdf", type="pdf", status="waiting"))
    workers = [db.knowledge.set_status("k1", "processing", expected="waiting") for _ in range(3)]
    answers = await asyncio.gather(*workers, return_exceptions=True)
    print("turned away:", sum(isinstance(answer, ConflictError) for answer in answers))
    print("read so often:", await db.knowledge.count_access("k1"))
    content = {"name": "Sarah Chen", "likes": ["trains"]}
    await db.learnings.upsert(Learning(learning_id="l1", learning_type="user_profile", content=content, user_id="ann"))
    print("found:", [learning.learning_id for learning in (await db.learnings.search("sarah chen")).items])


async def trace(db: Database) -> None:
    """Traces: spans that come in two batches, and the trace that both are part of."""
    start = datetime(2026, 1, 1, 12, tzinfo=UTC)
    await db.traces.delete("t1")
    for batch in range(2):
        begin = start + timedelta(seconds=batch)
        spans = [
            Span(span_id=f"s{batch}{n}", trace_id="t1", name="tool", start_time=begin, end_time=begin) for n in range(3)
        ]
        await db.traces.create_spans(spans)
        part = Trace(trace_id="t1", name="run", start_time=begin, end_time=begin, total_spans=3, session_id="s1")
        whole = await db.traces.upsert_trace(part)
    print(f"the trace: {whole.total_spans} spans in {whole.duration_ms} ms")
    print("its spans:", [span.span_id for span in (await db.traces.list_spans("t1")).items])


async def finish(db: Database) -> None:
    """A transaction: its calls collect and are not awaited; the end of the block sends them, all or none."""
    session = Session(session_id="s1", user_id="ann")
    run = Run(run_id="r1", data={"model": "gpt-4o", "model_provider": "OpenAI", "metrics": {"total_tokens": 120}})
    async with db.transaction() as tx:
        tx.upsert(session)
        tx.append_run(session, run)
        tx.delete(UserMemory, "m2")
    print("written together:", [type(each).__name__ for each in tx.results if each is not None])
    for metrics in await db.metrics.calculate():
        print(f"today, {metrics.user_id or 'all'}: {metrics.token_metrics['total_tokens']} tokens")


async def main(*urls: str) -> None:
    """Run the example on the stores that ``urls`` name."""
    async with connect(*urls) as db:
        await db.provision()
        for part in (remember, evaluate, learn, trace, finish):
            await part(db)


if __name__ == "__main__":
    asyncio.run(main(*(sys.argv[1:] or ["sqlite:///example.sqlite"])))
