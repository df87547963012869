"""Metrics: their ids, the arithmetic, what a calculation reads, and random calculations against a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agno_clouddb import Database, InvalidRecord, Metrics, Run, Session, connect
from agno_clouddb.errors import CloudDBError, StoreUnavailable
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.records.metrics import bucket_of
from agno_clouddb.repositories.metrics import DailyMetrics
from agno_clouddb.repositories.metrics_days import GRACE
from agno_clouddb.repositories.metrics_sums import TOKENS, Sums, tokens_of
from agno_clouddb.stores.base import Cursor, Mutation, Outcome, Page, Put, Query
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.items import MAX_ID_BYTES
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing.counting import CountingStore
from agno_clouddb.testing.faults import Fault, FaultyStore, script

DAY = timedelta(days=1)
FIRST = date(2025, 3, 1)


def at(day: int, hour: float = 12) -> datetime:
    """A moment on a day of March 2025, in UTC."""
    return datetime(2025, 3, day, tzinfo=UTC) + timedelta(hours=hour)


async def chat(db: Database, session_id: str, created: datetime, *runs: datetime, user_id: str | None = "ann") -> None:
    """A session written when it was created, with runs."""
    await db.sessions.upsert(Session(session_id=session_id, user_id=user_id, created_at=created, updated_at=created))
    for number, moment in enumerate(runs):
        await db.sessions.append_run(session_id, Run(run_id=f"r{number}", created_at=moment))


async def stored(db: Database) -> list[Metrics]:
    return [each async for each in db.metrics.range()]


# Records


def test_no_two_records_have_one_id() -> None:
    users = ["", "all", "user", "user ", "sha256", " ", "x" * 400, "x" * 401, "é" * 256, "x" * MAX_ID_BYTES]
    users += [f"sha256 {bucket_of(user)}" for user in users] + [bucket_of("x" * 401)]
    records = [Metrics(date=day, user_id=user) for day in (FIRST, FIRST + DAY) for user in users]
    assert len({record.id for record in records}) == len(records)
    for record in records:
        item = record.to_item(record.key, "v")
        assert Metrics.from_item(item) == record.model_copy(update={"version": "v"})


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"user_id": "x" * (MAX_ID_BYTES + 1)}, "user_id"),
        ({"user_id": "\n"}, "user_id"),
        ({"aggregation_period": "daily x"}, "aggregation_period"),
        ({"aggregation_period": ""}, "aggregation_period"),
        ({"date": datetime(2025, 3, 1, tzinfo=UTC)}, "date"),
    ],
)
def test_what_no_store_can_hold_is_named(values: dict[str, Any], path: str) -> None:
    record = Metrics(date=FIRST).model_copy(update=values)
    with pytest.raises(InvalidRecord) as caught:
        record.to_item(record.key, "v")
    assert caught.value.path == path


def test_only_whole_numbers_of_tokens_count() -> None:
    odd = {
        "input_tokens": 3,
        "output_tokens": 2.0,
        "new_tokens": 1,
        "total_tokens": True,
        "reasoning_tokens": "7",
        "cache_read_tokens": 1.5,
        "cache_write_tokens": None,
        "audio_total_tokens": [4],
        "audio_input_tokens": 1e300,
        "audio_output_tokens": 2**60,
        "cost": 5,
        "tokens": 6,
    }
    assert tokens_of(odd) == {"input_tokens": 3, "output_tokens": 2, "new_tokens": 1}
    for nothing in (None, [3], "input_tokens", 3):
        assert tokens_of(nothing) == {}


def test_models_are_in_the_order_of_their_names() -> None:
    sums = Sums(at(1, 0), at(2, 0), at(2, 0))
    for user, model, provider in (("b", "y", "q"), ("a", "y", "p"), ("b", "x", None), ("a", "y", "p")):
        sums.add_run(user, "team", at(1), {"model": model, "model_provider": provider})
    assert [tuple(each.values()) for each in sums.records(FIRST)[""].model_metrics] == [
        ("x", "", 1),
        ("y", "p", 2),
        ("y", "q", 1),
    ]


def test_a_window_has_its_start_and_not_its_end() -> None:
    sums = Sums(at(1, 0), at(2, 0), at(2, 0))
    just_before = timedelta(microseconds=1)
    for moment in (at(1, 0) - just_before, at(1, 0), at(2, 0) - just_before, at(2, 0)):
        sums.add_run("ann", "agent", moment.astimezone(timezone(timedelta(hours=9))), None)
    assert list(sums.days) == [FIRST]
    assert {user: each.agent_runs_count for user, each in sums.records(FIRST).items()} == {"": 2, "ann": 2}
    assert sums.completes(FIRST)
    assert not sums.completes(FIRST + DAY)
    assert sums.records(FIRST + DAY) == {}


# What is read and written


async def test_sessions_that_did_not_change_are_not_read() -> None:
    store = CountingStore(MemoryStore())
    async with Database(store) as db:
        await db.provision()
        for number in range(50):
            await chat(db, f"old{number}", at(1), at(1, 13))
        for number in range(3):
            await chat(db, f"new{number}", at(9), at(9, 13))
        await db.metrics.calculate(until=at(5, 0))
        await chat(db, "bridge", at(7), at(7))
        await db.metrics.calculate(until=at(8, 0))
        store.clear()
        (together, _) = await db.metrics.calculate(until=at(9, 14))
        assert (together.date, together.agent_sessions_count, together.agent_runs_count) == (at(9).date(), 3, 3)
        # The last days of all users, what is stored since, two lists of sessions, the runs of the four that changed.
        assert store.calls["query"] == 2 + 2 + 4
        assert store.items["query"] == 2 + 4 + 3 + 4
        assert store.calls["get"] == store.calls["count"] == 0
        assert store.items["write"] == 2
        store.clear()
        await db.metrics.calculate(until=at(9, 14))
        assert store.calls["write"] == 0


async def test_runs_of_earlier_days_are_not_read_nor_those_of_an_earlier_session() -> None:
    now = at(1)
    memory = MemoryStore()
    store = CountingStore(memory)
    async with Database(store, clock=HybridClock(now=lambda: int(now.timestamp() * 1000))) as db:
        await db.provision()
        session = await db.sessions.upsert(Session(session_id="s1", user_id="ann", created_at=now, updated_at=now))
        for number in range(60):
            await db.sessions.append_run("s1", Run(run_id=f"r{number}"))
        await db.metrics.calculate(until=at(2, 0))
        for moment in (at(2, -0.5), at(2, 1)):  # the first of them behind the time that its run says
            now = moment
            last = await db.sessions.append_run("s1", Run(run_id=f"{moment:%H}", created_at=max(moment, at(2, 0.25))))
        left = last.model_copy(update={"run_id": "left", "generation": "that of a session of the same id"})
        await memory.write([Put(left.to_item(left.key, "v"))])
        await db.sessions.upsert(session)
        store.clear()
        together, ann = await db.metrics.calculate(until=at(3, 0), since=at(2).date())
        assert (together.agent_runs_count, ann.agent_runs_count) == (2, 2)
        assert store.items["query"] == 1 + 1 + 3


async def test_pages_of_sessions_and_runs_are_read_to_their_ends() -> None:
    async with connect("memory://") as db:
        await db.provision()
        await db.sessions.upsert_many(
            Session(session_id=f"s{number}", user_id=f"u{number % 7}", created_at=at(1), updated_at=at(1))
            for number in range(250)
        )
        for number in range(120):
            await db.sessions.append_run("s1", Run(run_id=f"r{number}", created_at=at(1), data={"model": "m"}))
        together, *users = await db.metrics.calculate()
        assert (together.users_count, together.agent_sessions_count, together.agent_runs_count) == (7, 250, 120)
        assert together.model_metrics == [{"model_id": "m", "model_provider": "", "count": 120}]
        assert sum(each.agent_sessions_count for each in users) == 250


class Meanwhile(WrapperStore):
    """Does something else once, after the first call that a test picks, before it answers."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.after: str | None = None
        self.do: Callable[[], Awaitable[Any]] | None = None

    async def _answered(self, call: str) -> None:
        if call == self.after and self.do is not None:
            do, self.do = self.do, None
            await do()

    async def query(self, query: Query, *, limit: int, cursor: Cursor | None = None, **options: Any) -> Page:
        page = await super().query(query, limit=limit, cursor=cursor, **options)
        await self._answered(f"query {query.collection}")
        return page

    async def write(self, mutations: Sequence[Mutation], **options: Any) -> tuple[Outcome, ...]:
        outcomes = await super().write(mutations, **options)
        await self._answered("write")
        return outcomes


@pytest.mark.parametrize("after", ["query metrics", "query sessions", "query runs", "write"])
@pytest.mark.parametrize("known", [False, True])
async def test_results_of_a_newer_calculation_meanwhile_are_not_written_over(after: str, known: bool) -> None:
    memory = MemoryStore()
    store = Meanwhile(memory)
    async with Database(store) as slow, Database(memory) as fast:
        await slow.provision()
        await chat(slow, "s1", at(1, 1), at(1, 2))
        await chat(slow, "s2", at(1, 1), at(1, 2), user_id="bob")
        if known:
            await slow.metrics.calculate(until=at(1, 3))
            await slow.sessions.append_run("s1", Run(run_id="r1", created_at=at(1, 4)))

        async def newer() -> None:
            await fast.sessions.append_run("s1", Run(run_id="late", created_at=at(1, 5)))
            await fast.sessions.delete("s2")
            await chat(fast, "s3", at(1, 5), user_id="cem")
            await fast.metrics.calculate()

        store.after, store.do = after, newer
        answer = await slow.metrics.calculate()
        assert store.do is None
        left = {each.user_id: each for each in await stored(fast)}
        assert left.keys() == {"", "ann", "cem"}
        assert all(each.completed for each in left.values())
        assert left["ann"].agent_runs_count == left[""].agent_runs_count == (3 if known else 2)
        assert left[""].users_count == 2
        assert {each.user_id: each.version for each in answer} == {user: each.version for user, each in left.items()}


async def test_a_record_that_came_back_meanwhile_is_not_deleted() -> None:
    memory = MemoryStore()
    store = Meanwhile(memory)
    async with Database(store) as slow, Database(memory) as fast:
        await slow.provision()
        await chat(slow, "s0", at(1, -2))
        await chat(slow, "s1", at(1, 1), at(1, 2))
        await chat(slow, "s2", at(1, 1), user_id="bob")
        await slow.metrics.calculate(until=at(1, 3))
        await slow.sessions.delete("s2")

        async def newer() -> None:
            # Created before the days that are read, so that only the list that was read already would show it.
            await chat(fast, "s3", at(1, -1), at(1, 6), user_id="bob")
            answers.append(await fast.metrics.calculate(since=FIRST))

        answers: list[tuple[Metrics, ...]] = []
        store.after, store.do = "query runs", newer
        assert await slow.metrics.calculate() == answers[0]
        assert [(each.user_id, each.agent_runs_count) for each in answers[0]] == [("", 2), ("ann", 1), ("bob", 1)]


async def test_only_the_days_after_those_written_are_calculated_anew() -> None:
    memory = MemoryStore()
    store = Meanwhile(memory)
    async with Database(store) as slow, Database(memory) as fast:
        await slow.provision()
        for day in (1, 2):
            await chat(slow, f"s{day}", at(day), at(day))
        told: list[str] = []
        store.after = "query runs"
        store.do = lambda: fast.metrics.upsert(Metrics(date=at(2).date(), user_id="ann"))
        answer = await slow.metrics.calculate(progress=told.append)
        assert answer == tuple(await stored(fast))
        assert [each.agent_runs_count for each in answer] == [1, 1, 1, 1]
        assert [line[:10] for line in told if line.startswith("2025")] == ["2025-03-01", "2025-03-02"]


async def test_a_completed_record_is_not_replaced_by_one_that_is_not() -> None:
    memory = MemoryStore()
    store = Meanwhile(memory)
    async with Database(store) as slow, Database(memory) as fast:
        await slow.provision()
        await chat(slow, "s1", at(1, 1), at(1, 2), at(1, 20))
        await chat(slow, "s2", at(1, 19), user_id="bob")
        store.after, store.do = "query runs", lambda: fast.metrics.calculate(until=at(2, 0))
        answer = await slow.metrics.calculate(until=at(1, 3))
        assert [(each.user_id, each.completed, each.agent_runs_count) for each in answer] == [
            ("", True, 2),
            ("ann", True, 2),
            ("bob", True, 0),
        ]
        assert await slow.metrics.calculate(until=at(1, 3), since=FIRST) == answer
        assert await stored(fast) == list(answer)


async def test_a_call_that_failed_halfway_is_made_good_by_the_next_one() -> None:
    class Failing(WrapperStore):
        left = 3

        async def write(self, mutations: Any, **options: Any) -> tuple[Outcome, ...]:
            if mutations[0].key.collection == "metrics":
                if not self.left:
                    raise CloudDBError("out of order")
                self.left -= 1
            return await super().write(mutations, **options)

    store = Failing(MemoryStore())
    async with Database(store) as db:
        await db.provision()
        for day in (1, 2, 3):
            await chat(db, f"s{day}", at(day), at(day))
        with pytest.raises(CloudDBError, match="out of order"):
            await db.metrics.calculate()
        # The second day has its user's record, and not yet that of all users, which says that it is complete.
        assert [each.id for each in await stored(db)] == [
            "2025-03-01 daily all",
            "2025-03-01 daily user ann",
            "2025-03-02 daily user ann",
        ]
        store.left = 100
        assert {each.date.day for each in await db.metrics.calculate()} == {2, 3}
        assert [(each.date.day, each.completed) for each in await stored(db)] == [
            (day, True) for day in (1, 1, 2, 2, 3, 3)
        ]


async def test_a_day_is_completed_when_it_has_been_over_for_an_hour() -> None:
    now = at(1)
    async with connect("memory://") as db:
        await db.provision()
        metrics = DailyMetrics(db._connection, now=lambda: now)
        await chat(db, "s1", at(1, 1), at(1, 2))
        for moment in (at(2, 0), at(2, 0) + timedelta(seconds=0.1)):
            now = moment
            assert [(each.completed, each.agent_runs_count) for each in await metrics.calculate()] == [(False, 1)] * 2
        await db.sessions.append_run("s1", Run(run_id="late", created_at=at(2, -1 / 30)))
        now = at(2, 0.05)
        assert [(each.completed, each.agent_runs_count) for each in await metrics.calculate()] == [(False, 2)] * 2
        await db.sessions.append_run("s1", Run(run_id="later", created_at=at(2, -1 / 60)))
        now = at(2, 0) + GRACE - timedelta.resolution
        for until in (None, FIRST, at(2, 0)):
            found = await metrics.calculate(until=until)
            assert [(each.completed, each.agent_runs_count) for each in found] == [(False, 3)] * 2
        now = at(2, 0) + GRACE
        assert [(each.completed, each.agent_runs_count) for each in await metrics.calculate()] == [(True, 3)] * 2
        await db.sessions.append_run("s1", Run(run_id="too late", created_at=at(2, -0.01)))
        assert await metrics.calculate() == ()


async def test_nothing_is_written_of_a_completed_day_that_is_calculated_in_part() -> None:
    async with connect("memory://") as db:
        await db.provision()
        await chat(db, "s1", at(1, 1), at(1, 2))
        before = await db.metrics.calculate()
        await chat(db, "s2", at(1, 1), user_id="bob")
        assert await db.metrics.calculate(until=at(1, 3), since=FIRST) == before == tuple(await stored(db))
        assert [each.user_id for each in await db.metrics.calculate(since=FIRST)] == ["", "ann", "bob"]


@pytest.mark.parametrize("recorded", [False, True])
async def test_days_before_the_start_asked_for_are_not_passed_over_where_none_is_completed(recorded: bool) -> None:
    async with connect("memory://") as db:
        await db.provision()
        await chat(db, "s3", at(3))
        if recorded:
            await db.metrics.calculate(until=at(3, 13))
        for day in (1, 2):
            await chat(db, f"s{day}", at(day))
        found = await db.metrics.calculate(since=at(3).date())
        assert [each.date.day for each in found if not each.user_id] == [1, 2, 3]
        assert await db.metrics.calculate() == ()


async def test_nothing_is_completed_from_a_read_without_one_of_the_stores() -> None:
    memory = MemoryStore("memory://second")
    faulty = FaultyStore(memory)
    async with Database(FanOutStore([MemoryStore("memory://first"), faulty])) as db:
        await db.provision()
        await chat(db, "s1", at(1), at(1))
        faulty.plan = lambda *_: Fault("refused", error=StoreUnavailable)
        degraded = await db.metrics.calculate()
        assert [(each.completed, each.degraded) for each in degraded] == [(False, True)] * 2
        faulty.plan = lambda *_: Fault()
        whole = await db.metrics.calculate()
        assert [(each.completed, each.degraded) for each in whole] == [(True, False)] * 2


@pytest.mark.parametrize("completed", [False, True])
async def test_nothing_stored_is_replaced_or_deleted_from_a_read_without_one_of_the_stores(completed: bool) -> None:
    first, second = MemoryStore("memory://first"), MemoryStore("memory://second")
    faulty = FaultyStore(second)
    async with Database(FanOutStore([first, faulty])) as db, Database(second) as alone:
        await db.provision()
        await chat(db, "s1", at(1, 1), at(1, 2))
        await chat(alone, "s2", at(1, 1), at(1, 2), user_id="bob")  # which the other store has missed
        before = await db.metrics.calculate(until=None if completed else at(1, 3))
        assert [(each.user_id, each.completed) for each in before] == [(user, completed) for user in ("", "ann", "bob")]
        await db.sessions.append_run("s1", Run(run_id="r9", created_at=at(1, 4)))
        await chat(db, "s3", at(1, 5), user_id="cem")
        faulty.plan = lambda *_: Fault("refused", error=StoreUnavailable)
        degraded = await db.metrics.calculate(since=FIRST)
        faulty.plan = lambda *_: Fault()
        left = {each.user_id: each for each in await stored(db)}
        assert [left[each.user_id] for each in before] == list(before)
        assert left.keys() - {each.user_id for each in before} == (set() if completed else {"cem"})
        assert all(each.degraded for each in degraded)
        assert {each.user_id: each.version for each in degraded} == {user: each.version for user, each in left.items()}
        whole = await db.metrics.calculate(since=FIRST)
        assert [(each.user_id, each.completed, each.degraded, each.agent_runs_count) for each in whole] == [
            ("", True, False, 3),
            ("ann", True, False, 2),
            ("bob", True, False, 1),
            ("cem", True, False, 0),
        ]


@pytest.mark.parametrize("failing", range(5))
async def test_nothing_is_completed_when_any_one_read_was_without_one_of_the_stores(failing: int) -> None:
    first, second = MemoryStore("memory://first"), MemoryStore("memory://second")
    faulty = FaultyStore(second)
    async with Database(FanOutStore([first, faulty])) as db, Database(second) as alone:
        await db.provision()
        await chat(alone, "s1", at(1))
        await chat(db, "s2", at(2))
        # The completed days, the earliest record, the earliest session, what is stored, the sessions that changed.
        faulty.plan = script(*[None] * failing, Fault("refused", error=StoreUnavailable), on=["query"])
        degraded = await db.metrics.calculate()
        assert degraded
        assert all(each.degraded and not each.completed for each in degraded)
        assert {each.date.day for each in await db.metrics.calculate()} == {1, 2}
        assert all(each.completed for each in await stored(db))


async def test_a_stage_at_a_time_is_told() -> None:
    told: list[str] = []
    async with connect("memory://") as db:
        await db.provision()
        assert await db.metrics.calculate(progress=told.append) == ()
        assert told == []
        await chat(db, "s1", at(1), at(3))
        await db.metrics.calculate(progress=told.append)
    assert told == ["1 sessions read", "2025-03-01: 2 records, 2 written", "2025-03-03: 2 records, 2 written"]


# Against a model

SESSIONS = {"s1": ("ann", "agent"), "s2": ("ann", "team"), "s3": ("bob", "workflow"), "s4": (None, "agent")}
DATA: list[tuple[dict[str, Any] | None, dict[str, int], tuple[str, str] | None]] = [
    (None, {}, None),
    ({"metrics": {"input_tokens": 3, "total_tokens": 4}, "model": "m", "model_provider": "p"},
     {"input_tokens": 3, "total_tokens": 4}, ("m", "p")),
    ({"metrics": {"total_tokens": 2.0, "x_tokens": 5, "cost": 9, "y_tokens": "3"}, "model": "m"},
     {"total_tokens": 2, "x_tokens": 5}, ("m", "")),
    ({"metrics": [1], "model": 7}, {}, None),
]  # fmt: skip
MOMENTS = st.builds(at, st.integers(1, 4), st.sampled_from([0, 11, 23.9]))
ENDS = st.none() | MOMENTS
Values = dict[str, Any]


class MetricsMachine(RuleBasedStateMachine):
    """Writes and deletes sessions and runs, calculates, and holds what is stored against plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.db = connect("memory://")
        self.sessions: dict[str, Values] = {}
        self.records: dict[tuple[date, str], Values] = {}
        self.versions: dict[tuple[date, str], tuple[Values, str | None]] = {}
        self.run(self.db.open())
        self.run(self.db.provision())

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.db.aclose())
        self.runner.close()

    @rule(name=st.sampled_from(sorted(SESSIONS)), created=MOMENTS, updated=MOMENTS)
    def write_session(self, name: str, created: datetime, updated: datetime) -> None:
        user, kind = SESSIONS[name]
        record = Session(session_id=name, user_id=user, session_type=kind, created_at=created, updated_at=updated)
        self.run(self.db.sessions.upsert(record))
        self.sessions.setdefault(name, {"created": created, "runs": {}})["updated"] = updated

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), run_id=st.sampled_from("ab"), created=MOMENTS, contents=st.integers(0, len(DATA) - 1))
    def write_run(self, data: st.DataObject, run_id: str, created: datetime, contents: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.sessions)))
        run = Run(run_id=run_id, created_at=created, data=DATA[contents][0])
        self.run(self.db.sessions.append_run(name, run))
        self.sessions[name]["runs"][run_id] = (created, contents)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def delete_session(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.sessions)))
        self.run(self.db.sessions.delete(name))
        del self.sessions[name]

    @rule(until=ENDS)
    def calculate(self, until: datetime | None) -> None:
        self._calculate(until, None)

    @rule(until=ENDS, day=st.integers(1, 4))
    def calculate_since(self, until: datetime | None, day: int) -> None:
        since = at(day).date()
        if since <= last_day(until):
            self._calculate(until, since)
        else:
            with pytest.raises(InvalidRecord, match="since"):
                self.run(self.db.metrics.calculate(until=until, since=since))

    def _calculate(self, until: datetime | None, since: date | None) -> None:
        answer = self.run(self.db.metrics.calculate(until=until, since=since))
        last = last_day(until)
        first = self._first(last, since)
        if first is None or first > last:
            assert answer == ()
            return
        made = self._made(first, until or datetime.now(UTC))
        kept = {day for (day, user), each in self.records.items() if not user and each["completed"]}
        for key in {*made, *(key for key in self.records if first <= key[0] <= last)}:
            new = made.get(key)
            complete = until is None or datetime.combine(key[0] + DAY, at(1, 0).timetz()) <= until
            if key[0] in kept and not complete:
                continue
            if new is None:
                del self.records[key]
            else:
                self.records[key] = {**new, "completed": complete}
        expected = sorted(key for key in self.records if first <= key[0] <= last)
        assert [(each.date, each.user_id) for each in answer] == expected

    def _first(self, last: date, since: date | None) -> date | None:
        totals = {day: each for (day, user), each in self.records.items() if user == "" and day <= last}
        completed = [day for day, each in totals.items() if each["completed"]]
        days = [since] if since is not None else []
        if completed:
            days.append(max(completed) + DAY)
        else:
            days += totals
            days += [each["created"].date() for each in self.sessions.values()]
        return min(days, default=None)

    def _made(self, first: date, until: datetime) -> dict[tuple[date, str], Values]:
        start = datetime.combine(first, at(1, 0).timetz())
        found: dict[tuple[date, str], Values] = {}

        def add(moment: datetime, user: str | None, count: str, contents: int = 0) -> None:
            if not start <= moment < until:
                return
            for bucket in {"", user or ""}:
                zeros = {**dict.fromkeys(TOKENS, 0), "users": set(), "models": {}}
                each = found.setdefault((moment.date(), bucket), zeros)
                each[count] = each.get(count, 0) + 1
                each["users"] |= {user} - {None}
                _, tokens, model = DATA[contents]
                for name, number in tokens.items():
                    each[name] = each.get(name, 0) + number
                if model is not None:
                    each["models"][model] = each["models"].get(model, 0) + 1

        for name, session in self.sessions.items():
            if session["updated"] < start - DAY and not start <= session["created"] < until:
                continue
            user, kind = SESSIONS[name]
            add(session["created"], user, f"{kind}_sessions_count")
            for moment, contents in session["runs"].values():
                add(moment, user, f"{kind}_runs_count", contents)
        return found

    @invariant()
    def stored_is_what_the_model_has(self) -> None:
        found = {(each.date, each.user_id): each for each in self.run(stored(self.db))}
        assert {key: flat(each) for key, each in found.items()} == {
            key: {**each, "users": len(each["users"])} for key, each in self.records.items()
        }
        for key, each in found.items():
            values, version = self.versions.get(key, ({}, None))
            assert (values == flat(each)) == (version == each.version), "written if, and only if, it differs"
        self.versions = {key: (flat(each), each.version) for key, each in found.items()}


def last_day(until: datetime | None) -> date:
    return ((until or datetime.now(UTC)) - timedelta(microseconds=1)).date()


def flat(record: Metrics) -> Values:
    """A record as the model has it."""
    values = record.model_dump()
    counts = {
        name: value for name, value in values.items() if name.endswith(("sessions_count", "runs_count")) and value
    }
    models = {(each["model_id"], each["model_provider"]): each["count"] for each in record.model_metrics}
    others = {"users": record.users_count, "models": models, "completed": record.completed}
    return {**counts, **record.token_metrics, **others}


TestCalculations = MetricsMachine.TestCase
TestCalculations.settings = settings(max_examples=100, stateful_step_count=25)
