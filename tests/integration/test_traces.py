"""Traces and their spans, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agno_clouddb import (
    BulkWriteError,
    ConflictError,
    Database,
    InvalidRecord,
    NotOwner,
    SessionTraces,
    Span,
    Trace,
    connect,
)
from agno_clouddb.stores.base import Delete, Key, Put, Stored
from agno_clouddb.stores.clock import HybridClock

COLLECTIONS = ("traces", "spans")

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def trace(trace_id: str = "t1", start: float = 0, end: float | None = None, **values: Any) -> Trace:
    """A trace from one second to another."""
    times = {"start_time": START + start * SECOND, "end_time": START + (start if end is None else end) * SECOND}
    return Trace(**{"trace_id": trace_id, "name": "run", **times, **values})


def span(span_id: str, trace_id: str = "t1", start: float = 0, end: float | None = None, **values: Any) -> Span:
    """A span from one second to another."""
    times = {"start_time": START + start * SECOND, "end_time": START + (start if end is None else end) * SECOND}
    return Span(**{"span_id": span_id, "trace_id": trace_id, "name": "step", **times, **values})


async def remove_unseen(db: Database, key: Key) -> None:
    """Delete an item as a deletion that was interrupted right after it would."""
    (item,) = (await db.store.get([key])).items
    assert item is not None
    clock = HybridClock()
    clock.observe(item.version)
    (outcome,) = await db.store.write([Delete(key, clock.stamp())])
    assert isinstance(outcome, Stored)


async def expire(db: Database, record: Trace | Span) -> None:
    """Let a stored record expire at once."""
    clock = HybridClock()
    assert record.version is not None
    clock.observe(record.version)
    (outcome,) = await db.store.write([Put(replace(record.to_item(record.key, clock.stamp()), expires_at=1))])
    assert isinstance(outcome, Stored)


async def stored_ids(db: Database, limit: int = 100, **arguments: Any) -> list[str]:
    """The ids that a list gives, page by page to its end; each page but the last must be full."""
    found: list[str] = []
    cursor = None
    while True:
        page = await db.traces.list(limit=limit, cursor=cursor, **arguments)
        found += [each.trace_id for each in page.items]
        assert not page.degraded
        assert len(page.items) == limit or page.cursor is None
        cursor = page.cursor
        if cursor is None:
            return found


async def span_ids(db: Database, trace_id: str = "t1", limit: int = 100, **arguments: Any) -> list[str]:
    """The spans of a trace, page by page."""
    found: list[str] = []
    cursor = None
    while True:
        page = await db.traces.list_spans(trace_id, limit=limit, cursor=cursor, **arguments)
        found += [each.span_id for each in page.items]
        cursor = page.cursor
        if cursor is None:
            return found


async def test_a_trace_and_a_span_round_trip_with_everything_in_them(db: Database) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2)))
    written = trace(
        name="Flüge 😀",
        start_time=moment,
        end_time=moment + timedelta(microseconds=1_999_999),
        status="OK",
        total_spans=3,
        error_count=1,
        run_id="r",
        session_id="s",
        user_id="ann",
        agent_id="a",
        team_id="t",
        workflow_id="w",
        created_at=moment,
        unheard_of={"kept": [None]},
    )
    stored = await db.traces.upsert(written)
    assert stored.duration_ms == 1999
    read = await db.traces.get("t1")
    assert read == stored
    assert read is not None
    differ = {"version", "duration_ms"}
    assert read.model_dump(exclude=differ) == written.model_dump(exclude=differ)
    assert Trace.model_validate_json(read.model_dump_json()) == read
    step = span(
        "s1",
        name="call",
        start_time=moment,
        end_time=moment,
        parent_span_id="s0",
        span_kind="CLIENT",
        status_code="ERROR",
        status_message="x" * 3000,
        attributes={"deep": [{"a": [1, 2.5, None, True, "", {}, []]}], "big": 2**80},
        unheard_of={"kept": [None]},
    )
    made = await db.traces.create_span(step)
    assert made.duration_ms == 0
    assert made.created_at is not None
    found = await db.traces.get_span("t1", "s1")
    assert found == made
    assert found is not None
    differ = {"version", "duration_ms", "created_at"}
    assert found.model_dump(exclude=differ) == step.model_dump(exclude=differ)
    assert (await db.traces.list_spans("t1")).items == [found]


async def test_what_is_missing_is_none_or_empty(db: Database) -> None:
    assert await db.traces.get("nobody") is None
    assert await db.traces.get_span("nobody", "s") is None
    assert (await db.traces.list_spans("nobody")).items == []
    assert await db.traces.delete("nobody") is False
    assert await db.traces.delete_many(["nobody"]) == 0
    assert await db.traces.count() == 0
    assert await db.traces.stats() == ()
    assert (await db.traces.create_spans([])).stored == 0


async def test_an_object_made_anew_keeps_owner_and_creation(db: Database) -> None:
    first = await db.traces.upsert(trace(user_id="ann"))
    second = await db.traces.upsert(trace(end=5, name="Second", created_at=START))
    assert (second.created_at, second.user_id, second.duration_ms) == (first.created_at, "ann", 5000)
    assert await db.traces.get("t1", user_id="ann") == second
    with pytest.raises(ConflictError) as caught:
        await db.traces.upsert(trace(), expected_version=first.version)
    assert (caught.value.expected, caught.value.found) == (first.version, second.version)
    third = await db.traces.update("t1", lambda each: each.model_copy(update={"name": "Third"}))
    assert third.name == "Third"
    assert await db.traces.get("t1") == third


async def test_another_users_trace_is_neither_seen_nor_changed_nor_deleted(db: Database) -> None:
    stored = await db.traces.upsert(trace(), user_id="ann")
    await db.traces.create_span(span("s1"))
    assert await db.traces.get("t1", user_id="bob") is None
    assert await db.traces.get_span("t1", "s1", user_id="bob") is None
    assert (await db.traces.list_spans("t1", user_id="bob")).items == []
    assert await db.traces.delete("t1", user_id="bob") is False
    assert await db.traces.delete_many(["t1"], user_id="bob") == 0
    writes: list[Callable[[], Awaitable[object]]] = [
        lambda: db.traces.upsert(trace(user_id="bob")),
        lambda: db.traces.upsert(trace(), user_id="bob"),
        lambda: db.traces.update("t1", lambda each: None, user_id="bob"),
    ]
    for write in writes:
        with pytest.raises(NotOwner):
            await write()
    with pytest.raises(NotOwner):
        await db.traces.upsert_trace(trace(name="evil"), user_id="bob")
    with pytest.raises(NotOwner):
        await db.traces.create_span(span("s1", name="evil"), user_id="bob")
    with pytest.raises(BulkWriteError) as failed:
        await db.traces.create_spans([span("s1", name="evil"), span("s3", "bob's")], user_id="bob")
    assert [(position, type(error)) for position, error in failed.value.failed.items()] == [(0, NotOwner)]
    assert await db.traces.get("t1") == stored
    assert (await db.traces.create_span(span("s1"), user_id="ann")).name == span("s1").name
    assert (await db.traces.create_spans([span("s1")], user_id="ann")).stored == 1
    # Spans that came before their trace are nobody's yet.
    assert await db.traces.delete("bob's", user_id="ann") is False
    assert await span_ids(db, "bob's") == ["s3"]
    # A part of the trace leaves it with the user who had it first.
    assert (await db.traces.upsert_trace(trace(user_id="bob"))).user_id == "ann"
    assert await db.traces.get_span("t1", "s1", user_id="ann") is not None
    assert await span_ids(db, user_id="ann") == ["s1"]
    assert await db.traces.get("t1", user_id="ann") != stored
    await db.traces.upsert(trace("nobody's"))
    await db.traces.create_span(span("s2", "nobody's"))
    assert await db.traces.get("nobody's", user_id="ann") is None
    assert await span_ids(db, "nobody's", user_id="ann") == []
    assert await db.traces.delete("nobody's", user_id="ann") is False
    assert await span_ids(db, "nobody's") == ["s2"]
    assert await db.traces.delete_many(["t1", "nobody's", "t1"], user_id="ann") == 1
    assert await stored_ids(db) == ["nobody's"]


def parts() -> list[Trace]:
    """Parts of one trace, as batches of its spans would give them, the first of each level with a name of its own."""
    context = {"run_id": "r", "session_id": "s", "user_id": "ann"}
    return [
        trace(start=4, end=6, name="model", total_spans=2, status="OK", seen="model"),
        trace(start=3, end=9, name="support", total_spans=3, status="OK", agent_id="a", **context),
        trace(start=2, end=10, name="desk", total_spans=1, status="UNSET", team_id="t", session_id="s"),
        trace(start=5, end=8, name="tool", total_spans=4, error_count=2, status="ERROR"),
        trace(start=1, end=9.5, name="morning", total_spans=1, status="OK", workflow_id="w", user_id="ann"),
        trace(start=6, end=12.25, name="cleanup", total_spans=1, status="UNSET"),
    ]


WHOLE = {
    "start_time": START + SECOND,
    "end_time": START + 12.25 * SECOND,
    "duration_ms": 11_250,
    "total_spans": 12,
    "error_count": 2,
    "status": "ERROR",
    "name": "morning",
    "run_id": "r",
    "session_id": "s",
    "user_id": "ann",
    "agent_id": "a",
    "team_id": "t",
    "workflow_id": "w",
    "seen": "model",
}


async def test_parts_of_a_trace_come_to_the_same_whole_in_any_order(db: Database) -> None:
    orders = [parts(), parts()[::-1], *(random.Random(seed).sample(parts(), 6) for seed in range(4))]
    for number, order in enumerate(orders):
        for part in order:
            stored = await db.traces.upsert_trace(part.model_copy(update={"trace_id": f"t{number}"}))
        read = await db.traces.get(f"t{number}")
        assert read == stored
        assert {name: getattr(read, name) for name in WHOLE} == WHOLE
    assert await stored_ids(db, workflow_id="w", status="ERROR") == [f"t{number}" for number in range(6)][::-1]


async def test_parts_of_a_trace_come_to_the_same_whole_at_once(db: Database) -> None:
    await asyncio.gather(*(db.traces.upsert_trace(part) for part in parts() * 4))
    read = await db.traces.get("t1")
    assert {name: getattr(read, name) for name in WHOLE} == WHOLE | {"total_spans": 48, "error_count": 8}


async def test_parts_that_contradict_each_other_leave_what_came_first(db: Database) -> None:
    names = ("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id")
    contexts: list[dict[str, Any]] = [dict.fromkeys(names, each) for each in ("first", "second")]
    first = await db.traces.upsert_trace(trace(name="first", status="OK", **contexts[0]))
    second = await db.traces.upsert_trace(trace(name="second", status="UNSET", **contexts[1]))
    assert [getattr(second, name) for name in names] == ["first"] * 6
    assert (second.name, second.status) == ("first", "OK")
    assert second.created_at == first.created_at
    # What was read is a part like any other, and so is one that names no more than the times.
    third = await db.traces.upsert_trace(second.model_copy(update={"total_spans": 1, "name": "third"}))
    assert (third.total_spans, third.name) == (1, "first")


async def test_of_two_statuses_the_graver_stays(db: Database) -> None:
    for *statuses, kept in (
        ("UNSET", "OK", "OK"),
        ("OK", "ERROR", "ERROR"),
        ("UNSET", "ERROR", "ERROR"),
        ("UNSET", "UNSET", "UNSET"),
        ("PENDING", "UNSET", "PENDING"),
        ("PENDING", "OK", "OK"),
    ):
        for order in (statuses, statuses[::-1]):
            name = "-".join(order)
            for status in order:
                await db.traces.upsert_trace(trace(name, status=status))
            read = await db.traces.get(name)
            assert read is not None
            assert read.status == kept, name
            await db.traces.delete(name)


async def test_what_ends_before_it_starts_is_refused(db: Database) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: db.traces.upsert(trace(start=2, end=1)),
        lambda: db.traces.upsert_trace(trace(start=2, end=1)),
        lambda: db.traces.create_span(span("s", start=2, end=1)),
    ]
    for call in calls:
        with pytest.raises(InvalidRecord, match="is before start_time") as caught:
            await call()
        assert caught.value.path == "end_time"
    with pytest.raises(BulkWriteError) as failed:
        await db.traces.create_spans([span("a"), span("b", start=2, end=1), span("c")])
    assert failed.value.stored == 2
    assert [(number, type(error)) for number, error in failed.value.failed.items()] == [(1, InvalidRecord)]
    assert await span_ids(db) == ["a", "c"]
    assert await db.traces.get("t1") is None
    stored = await db.traces.upsert(trace(end=1))
    with pytest.raises(InvalidRecord, match="is before start_time"):
        await db.traces.update("t1", lambda each: each.model_copy(update={"end_time": START - SECOND}))
    assert await db.traces.get("t1") == stored
    await db.traces.delete("t1")
    # The same moment in two zones is no time at all, in either order.
    there = START.astimezone(timezone(timedelta(hours=9)))
    stored = await db.traces.upsert_trace(trace().model_copy(update={"end_time": there}))
    assert stored.duration_ms == 0


async def test_spans_of_many_traces_are_written_at_once_and_read_in_order(db: Database) -> None:
    written = [
        span(f"s{number:02}", f"t{name}", start=-(number // 3), end=number, parent_span_id="s00" if number else None)
        for number in range(12)
        for name in range(8)
    ]
    told: list[int] = []

    async def shuffled() -> AsyncIterator[Span]:
        for each in random.Random(3).sample(written, len(written)):
            yield each

    result = await db.traces.create_spans(shuffled(), progress=told.append)
    assert result.stored == len(written)
    assert told[-1] == len(written)
    expected = [each.span_id for each in sorted(written[::8], key=lambda each: (each.start_time, each.span_id))]
    for name in range(8):
        for limit in (1, 5, 12, 100):
            assert await span_ids(db, f"t{name}", limit) == expected
    page = await db.traces.list_spans("t0", limit=5)
    with pytest.raises(InvalidRecord, match="cursor"):
        await db.traces.list_spans("t1", cursor=page.cursor)
    for limit in (0, 1_001, True):
        with pytest.raises(InvalidRecord, match="limit"):
            await db.traces.list_spans("t0", limit=limit)


async def test_a_span_may_be_written_before_its_trace_and_again(db: Database) -> None:
    first = await db.traces.create_span(span("s1", name="first"))
    assert await span_ids(db) == ["s1"]
    # Until the trace is there, its spans are no user's.
    assert await span_ids(db, user_id="ann") == []
    assert await db.traces.get_span("t1", "s1", user_id="ann") is None
    await db.traces.upsert_trace(trace(user_id="ann"))
    assert await span_ids(db, user_id="ann") == ["s1"]
    assert await db.traces.get_span("t1", "s1", user_id="ann") == first
    second = await db.traces.create_span(span("s1", start=7, name="second"))
    assert await db.traces.get_span("t1", "s1") == second
    assert (await db.traces.list_spans("t1")).items == [second]
    # Ids of spans are their traces' own.
    other = await db.traces.create_span(span("s1", "t2"))
    assert await db.traces.get_span("t2", "s1") == other
    assert await db.traces.get_span("t1", "s1") == second


async def test_spans_that_are_to_be_kept_are_not_replaced_and_the_others_are_written(db: Database) -> None:
    stored = await db.traces.create_span(span("s1", name="first"))
    result = await db.traces.create_spans([span("s1", name="second"), span("s2"), span("s2", name="third")], keep=True)
    assert (result.stored, [version is None for version in result.versions]) == (1, [True, False, True])
    assert await db.traces.get_span("t1", "s1") == stored
    assert [each.name for each in (await db.traces.list_spans("t1")).items] == ["first", "step"]


async def test_spans_are_counted_and_so_are_those_that_failed(db: Database) -> None:
    codes = ("OK", "ERROR", "OK", "UNSET", "OK")
    await db.traces.create_spans(span(f"s{n}", "t1", status_code=code) for n, code in enumerate(codes))
    await db.traces.create_span(span("s", "t2", status_code="ERROR"))
    assert await db.traces.count_spans("t1") == (5, 1)
    await db.traces.create_span(span("s0", "t1", status_code="ERROR"))
    assert await db.traces.count_spans("t1") == (5, 2)
    assert await db.traces.count_spans("t3") == (0, 0)


async def test_a_span_is_found_in_the_traces_named_and_else_in_the_latest_that_has_it(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agno_clouddb.repositories.spans._TRACES", 2)
    for number in range(5):
        await db.traces.upsert_trace(trace(f"t{number}", start=number))
    for trace_id in ("t0", "t3", "orphan"):
        await db.traces.create_span(span("s", trace_id))
    found = await db.traces.find_span("s")
    assert found is not None
    assert found == await db.traces.get_span("t3", "s")
    for names in (["t1", "t0"], ["t1", "t2", "t0", "t3"], iter(["orphan"])):
        found = await db.traces.find_span("s", traces=names)
        assert found is not None
        assert found.trace_id == ("orphan" if not isinstance(names, list) else "t0")
    assert await db.traces.find_span("none", traces=["t1", "t2", "t3"]) is None
    await db.traces.delete("t3")
    found = await db.traces.find_span("s", traces=["t3"])
    assert found is not None
    assert found.trace_id == "t0"


async def test_parts_are_combined_as_a_caller_wants_and_kept_as_long_as_the_longest(db: Database) -> None:
    soon = datetime.now(UTC) + HOUR
    await db.traces.upsert_trace(trace(name="first", total_spans=3), expires_at=soon)
    combined = await db.traces.upsert_trace(
        trace(name="second", total_spans=4),
        expires_at=soon + HOUR,
        combine=lambda stored, part: stored.model_copy(update={"name": f"{stored.name} and {part.name}"}),
    )
    assert (combined.name, combined.total_spans) == ("first and second", 3)
    assert combined.expires_at is not None
    assert combined.expires_at >= soon + HOUR
    assert await db.traces.get("t1") == combined


async def test_deleting_a_trace_removes_its_spans_and_no_others(db: Database) -> None:
    for name in ("t1", "t10", "t2"):
        await db.traces.upsert_trace(trace(name))
    await db.traces.create_spans(span(f"s{number:03}", name) for number in range(600) for name in ("t1",))
    await db.traces.create_spans(span("s0", name) for name in ("t10", "t2", "t"))
    assert await db.traces.delete("t1") is True
    assert await db.traces.get("t1") is None
    assert await span_ids(db) == []
    assert (await db.store.get([Key("spans", "s000", "t1"), Key("spans", "s599", "t1")])).items == (None, None)
    assert [await span_ids(db, name) for name in ("t10", "t2", "t")] == [["s0"]] * 3
    assert await db.traces.delete_many(["t10", "t2", "nobody"]) == 2
    assert [await span_ids(db, name) for name in ("t10", "t2", "t")] == [[], [], ["s0"]]


async def test_a_deletion_that_was_interrupted_is_completed_by_repeating_it(db: Database) -> None:
    await db.traces.upsert_trace(trace(user_id="ann"))
    await db.traces.create_spans([span("a"), span("b"), span("c")])
    await remove_unseen(db, Key("spans", "b", "t1"))
    assert await db.traces.delete("t1", user_id="ann") is True
    assert await db.traces.get("t1") is None
    await db.traces.create_span(span("c"))
    assert await db.traces.delete("t1") is False
    assert (await db.store.get([Key("spans", each, "t1") for each in "abc"])).items == (None, None, None)


CONTEXT = {"session_id": 5, "user_id": 2, "run_id": 12, "agent_id": 3, "team_id": 2, "workflow_id": 2}
STATUSES = ("OK", "ERROR", "UNSET")


def samples() -> list[Trace]:
    """Traces of which three at a time began at one moment; those with more of a context have more in common."""
    found = []
    for number in range(36):
        context = {name: f"{name[0]}{number % many}" for name, many in CONTEXT.items() if (number + many) % 4}
        start = 3600 * (number // 3)
        found.append(trace(f"t{number:02}", start, start + 600 * (number % 7), status=STATUSES[number % 3], **context))
    return found


def shown(each: Trace, filters: dict[str, Any]) -> bool:
    """Whether a list with these filters should have a trace."""
    for name, value in filters.items():
        moment = each.start_time if name.startswith("started") else each.end_time
        if name.endswith("_from"):
            holds = moment >= value
        elif name.endswith("_to"):
            holds = moment < value
        else:
            holds = getattr(each, name) in ((value,) if isinstance(value, str) else value)
        if not holds:
            return False
    return True


def matching(records: list[Trace], sort: str, **filters: Any) -> list[str]:
    """What a list should give."""
    ordered = sorted(
        (each for each in records if shown(each, filters)), key=lambda each: (each.start_time, each.trace_id)
    )
    return [each.trace_id for each in (ordered[::-1] if sort.startswith("-") else ordered)]


def narrowings() -> Iterator[dict[str, Any]]:
    """Each filter alone, and some together."""
    yield {}
    for name in CONTEXT:
        yield from ({name: value} for value in (f"{name[0]}0", f"{name[0]}1", "nothing"))
    yield from ({"status": value} for value in (*STATUSES, "nothing", ["OK", "ERROR"], {"UNSET"}, ("OK", "nothing")))
    for edge in ("started", "ended"):
        yield {f"{edge}_from": START + 4 * HOUR}
        yield {f"{edge}_to": START + 4 * HOUR}
        yield {f"{edge}_from": START + 3 * HOUR, f"{edge}_to": START + 8 * HOUR}
        yield {f"{edge}_from": START + 8 * HOUR, f"{edge}_to": START + 3 * HOUR}
        yield {f"{edge}_to": START + timedelta(microseconds=1), "status": ["OK", "UNSET"]}
    yield {"started_from": START + 2 * HOUR, "ended_to": START + 6 * HOUR, "user_id": "u0"}
    yield {"session_id": "s1", "agent_id": "a1", "status": "ERROR"}
    yield {"status": ["OK", "ERROR"], "workflow_id": "w1", "ended_from": START + HOUR}


async def test_lists_and_counts_by_every_filter_and_order(db: Database) -> None:
    records = samples()
    await db.traces.upsert_many(records)
    for filters in narrowings():
        for sort, limit in (("-start_time", 4), ("start_time", 3)):
            assert await stored_ids(db, limit, sort=sort, **filters) == matching(records, sort, **filters), filters
        assert await db.traces.count(**filters) == len(matching(records, "start_time", **filters)), filters
    assert await stored_ids(db) == matching(records, "-start_time")
    in_order = [each.trace_id async for each in db.traces.iterate(sort="start_time", page_size=5, agent_id="a1")]
    assert in_order == matching(records, "start_time", agent_id="a1")


async def test_stats_tell_of_each_session_what_its_traces_are(db: Database) -> None:
    records = samples()
    await db.traces.upsert_many(records)
    for filters in narrowings():
        starts: dict[str, list[datetime]] = {}
        for each in records:
            if each.session_id is not None and shown(each, filters):
                starts.setdefault(each.session_id, []).append(each.start_time)
        expected = [SessionTraces(name, len(found), min(found), max(found)) for name, found in starts.items()]
        expected.sort(key=lambda each: (each.last_trace_at, each.session_id), reverse=True)
        assert await db.traces.stats(**filters) == tuple(expected), filters
    unknown: dict[str, Any] = {"colour": "red"}
    with pytest.raises(InvalidRecord, match="colour"):
        await db.traces.stats(**unknown)


async def test_a_cursor_goes_on_in_another_store(db: Database) -> None:
    records = samples()
    steps = [span(f"s{number}", start=number // 2) for number in range(9)]
    async with connect("memory://") as other:
        await other.provision(COLLECTIONS)
        for database in (db, other):
            await database.traces.upsert_many(records)
            await database.traces.create_spans(steps)
        narrowed: list[dict[str, Any]] = [{}, {"status": ["OK", "ERROR"]}, {"user_id": "u1"}]
        for filters in narrowed:
            found: list[str] = []
            cursor = None
            for database in itertools.cycle((db, other)):
                page = await database.traces.list(limit=4, cursor=cursor, **filters)
                found += [each.trace_id for each in page.items]
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == matching(records, "-start_time", **filters)
        found, cursor = [], None
        for database in itertools.cycle((db, other)):
            spans = await database.traces.list_spans("t1", limit=2, cursor=cursor)
            found += [each.span_id for each in spans.items]
            cursor = spans.cursor
            if cursor is None:
                break
        assert found == [each.span_id for each in steps]


async def test_pages_are_full_where_few_records_match(db: Database) -> None:
    records = [
        trace(f"t{number:03}", end=9 if number % 60 == 7 else 1, session_id="s", status="OK") for number in range(240)
    ]
    assert (await db.traces.upsert_many(records)).stored == 240
    filters: dict[str, Any] = {"session_id": "s", "ended_from": START + 5 * SECOND, "status": ["OK", "ERROR"]}
    page = await db.traces.list(sort="start_time", limit=3, **filters)
    assert [each.trace_id for each in page.items] == ["t007", "t067", "t127"]
    page = await db.traces.list(sort="start_time", limit=3, cursor=page.cursor, **filters)
    assert [each.trace_id for each in page.items] == ["t187"]
    assert page.cursor is None
    assert await db.traces.count(**filters) == 4


async def test_bad_list_arguments_name_the_argument_and_what_there_is(db: Database) -> None:
    await db.traces.upsert_many([trace("a"), trace("b")])
    cursor = (await db.traces.list(limit=1)).cursor
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "limit"),
        ({"sort": "created_at"}, "sort"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": cursor, "user_id": "ann"}, "cursor"),
        ({"cursor": cursor, "sort": "start_time"}, "cursor"),
        ({"consistency": "Strong"}, "consistency"),
        ({"started_from": "2026-01-01"}, "started_from"),
        ({"ended_to": datetime(2026, 1, 1)}, "ended_to"),
        ({"status": []}, "status"),
        ({"status": [None]}, "status"),
        ({"status": [f"s{number}" for number in range(31)]}, "status"),
        ({"session_id": ""}, "session_id"),
        ({"run_id": 5}, "run_id"),
    ]
    for arguments, path in wrong:
        with pytest.raises(InvalidRecord) as caught:
            await db.traces.list(**arguments)
        assert caught.value.path == path, arguments
    with pytest.raises(InvalidRecord, match="-start_time, start_time"):
        await db.traces.list(sort="end_time")  # type: ignore[arg-type]
    unknown: dict[str, Any] = {"colour": "red"}
    for call in (db.traces.list, db.traces.count):
        with pytest.raises(InvalidRecord, match=r"colour.*session_id, user_id, .* ended_to"):
            await call(**unknown)
    assert len((await db.traces.list(user_id=None, status=None, started_from=None)).items) == 2


async def test_odd_ids_keep_apart_and_bad_ones_name_the_field(db: Database) -> None:
    ids = ["a/b", "a#b", "a.b", "..", ".", "__x__", "é", "e\u0301", "😀", "x" * 512, "%2F", "a\\b", '"']
    await db.traces.upsert_many([trace(each, session_id=each, user_id=each) for each in ids])
    await db.traces.create_spans([span(name, each, name=each) for each in ids for name in (each, "s")])
    for each in ids:
        assert await db.traces.get(each, user_id=each) is not None
        assert await stored_ids(db, session_id=each) == [each]
        assert sorted(await span_ids(db, each, user_id=each)) == sorted([each, "s"])
        for name in (each, "s"):
            found = await db.traces.get_span(each, name)
            assert found is not None
            assert (found.trace_id, found.name) == (each, each)
    for bad in ("", "x" * 513, "a\x00b", "tab\t", "\ud800", "é" * 257):
        for call, path in (
            (lambda bad=bad: db.traces.upsert(trace(bad)), "trace_id"),
            (lambda bad=bad: db.traces.upsert_trace(trace(bad)), "trace_id"),
            (lambda bad=bad: db.traces.get(bad), "trace_id"),
            (lambda bad=bad: db.traces.delete(bad), "trace_id"),
            (lambda bad=bad: db.traces.list_spans(bad), "trace_id"),
            (lambda bad=bad: db.traces.list_spans(bad, user_id="ann"), "trace_id"),
            (lambda bad=bad: db.traces.get_span(bad, "s"), "trace_id"),
            (lambda bad=bad: db.traces.get_span("t1", bad), "span_id"),
            (lambda bad=bad: db.traces.create_span(span(bad)), "span_id"),
            (lambda bad=bad: db.traces.create_span(span("s", bad)), "trace_id"),
            (lambda bad=bad: db.traces.upsert_trace(trace(session_id=bad)), "session_id"),
            (lambda bad=bad: db.traces.upsert(trace(status=bad)), "status"),
        ):
            with pytest.raises(InvalidRecord) as caught:
                await call()
            assert caught.value.path == path
    assert await db.traces.count() == len(ids)


async def test_odd_values_are_kept_exactly_or_refused_with_their_path(db: Database) -> None:
    exact: list[Any] = [2**80, -0.0, 1e308, "\x00\u2028", "é" * 5000, {"": [[]]}, None, [True, 1, 1.0]]
    for value in exact:
        # What no index holds may be any text.
        await db.traces.create_span(span("s", attributes={"x": value}, status_code="\n" * 600))
        read = await db.traces.get_span("t1", "s")
        assert read is not None
        assert repr(read.attributes) == repr({"x": value})
        assert read.status_code == "\n" * 600
    times = {"start_time": datetime.min.replace(tzinfo=UTC), "end_time": datetime.max.replace(tzinfo=UTC)}
    stored = await db.traces.upsert_trace(trace("all", name="").model_copy(update=times))
    assert await db.traces.get("all") == stored
    refused: list[tuple[dict[str, Any], str]] = [
        ({"start_time": datetime(2026, 1, 1)}, "start_time"),
        ({"end_time": datetime(2026, 1, 1)}, "end_time"),
        ({"end_time": datetime.max.replace(tzinfo=timezone(-HOUR))}, "end_time"),
        ({"created_at": datetime(2026, 1, 1)}, "created_at"),
        ({"name": "\ud800"}, "name"),
        ({"duration_ms": 2**5000}, "duration_ms"),
        ({"unheard_of": float("nan")}, "unheard_of"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"name": None}, "name"),
        ({"duration_ms": 1.5}, "duration_ms"),
    ]
    for values, path in refused:
        for call in (
            lambda values=values: db.traces.upsert(trace("bad").model_copy(update=values)),
            lambda values=values: db.traces.upsert_trace(trace("bad").model_copy(update=values)),
            lambda values=values: db.traces.create_span(span("bad").model_copy(update=values)),
        ):
            with pytest.raises(InvalidRecord) as caught:
                await call()
            assert caught.value.path == path, values
    for attributes, path in (({"x": float("nan")}, "attributes.x"), ({"x": [b"x"]}, "attributes.x[0]")):
        with pytest.raises(InvalidRecord) as caught:
            await db.traces.create_span(span("bad", attributes=attributes))
        assert caught.value.path == path
    assert await db.traces.get("bad") is None
    assert await span_ids(db) == ["s"]
    # A part that cannot be merged changes nothing.
    with pytest.raises(InvalidRecord, match="start_time"):
        await db.traces.upsert_trace(trace("all").model_copy(update={"start_time": datetime(2026, 1, 1)}))
    assert await db.traces.get("all") == stored


async def test_traces_are_listed_and_counted_by_when_they_were_first_written(db: Database) -> None:
    for number in range(6):
        await db.traces.upsert_trace(trace(f"t{number}", start=-number, created_at=START + number * HOUR))
    window: dict[str, Any] = {"created_from": START + HOUR, "created_to": START + 4 * HOUR}
    assert await stored_ids(db, limit=2, **window) == ["t1", "t2", "t3"]
    assert await db.traces.count(**window) == 3


async def test_what_has_expired_is_absent_and_a_trace_begins_anew(db: Database) -> None:
    soon = datetime.now(UTC) + HOUR
    kept = await db.traces.upsert_trace(trace("kept", session_id="s"), expires_at=soon)
    assert kept.expires_at is not None
    assert soon <= kept.expires_at < soon + SECOND
    # A part extends how long the whole is kept, and does not shorten it.
    assert (await db.traces.upsert_trace(trace("kept"), expires_in=60)).expires_at == kept.expires_at
    longer = await db.traces.upsert_trace(trace("kept"), expires_at=soon + HOUR)
    assert longer.expires_at == kept.expires_at + HOUR
    assert (await db.traces.upsert_trace(trace("kept"))).expires_at == longer.expires_at
    # Nor does a part let a trace expire that is kept for good.
    await db.traces.upsert_trace(trace("for good"))
    assert (await db.traces.upsert_trace(trace("for good"), expires_in=60)).expires_at is None
    await db.traces.delete("for good")
    await expire(db, await db.traces.upsert_trace(trace("expired", total_spans=5, user_id="ann", session_id="x")))
    await expire(db, await db.traces.create_span(span("old", "kept")))
    new = await db.traces.create_span(span("new", "kept"), expires_in=60)
    assert new.expires_at is not None
    assert await db.traces.get("expired") is None
    assert await stored_ids(db) == ["kept"]
    assert await span_ids(db, "kept") == ["new"]
    assert await db.traces.get_span("kept", "old") is None
    again = await db.traces.upsert_trace(trace("expired", total_spans=1, user_id="bob"))
    assert (again.total_spans, again.user_id) == (1, "bob")
    assert await db.traces.get("expired") == again


async def test_a_database_keeps_traces_and_their_spans_as_long_as_it_was_told() -> None:
    async with connect("memory://", ttl={"traces": 7}) as db:
        await db.provision(COLLECTIONS)
        before = datetime.now(UTC) + timedelta(days=7)
        stored = await db.traces.upsert_trace(trace())
        step = await db.traces.create_span(span("s"))
        await db.traces.create_spans([span("many")])
        (many,) = [each for each in (await db.traces.list_spans("t1")).items if each.span_id == "many"]
        for record in (stored, step, many):
            assert record.expires_at is not None
            assert before <= record.expires_at <= before + 60 * SECOND
