"""agno's calls about metrics, on every store and in fan-outs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from agno_clouddb import Database, Run, Session, connect
from agno_clouddb.errors import StoreUnavailable
from agno_clouddb.integrations.agno.metrics import PERIOD, MetricCalls, metrics_record, metrics_row
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import FaultyStore
from tests.integration.agno.competing import WORKERS, all_at_once, alone, databases
from tests.integration.agno.days import today, wait_for_midnight

__all__ = ["databases"]

COLLECTIONS = ("metrics", "sessions", "runs")

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def within_a_day() -> None:
    wait_for_midnight()


async def converse(db: Database, session_id: str, user_id: str | None, days_ago: int = 0, **values: Any) -> None:
    """A session of so many days ago with two runs of today."""
    tokens = {"session_metrics": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}}
    created = datetime.now(UTC) - days_ago * DAY
    await db.sessions.upsert(
        Session(session_id=session_id, user_id=user_id, session_data=tokens, created_at=created, **values)
    )
    for number in range(2):
        data = {"model": "gpt", "model_provider": "OpenAI"}
        await db.sessions.append_run(session_id, Run(run_id=f"{session_id}-{number}", data=data))


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    names = ("user_id", "users_count", "agent_sessions_count", "agent_runs_count", "completed")
    return [((today() - row["date"]).days, *(row[name] for name in names)) for row in rows]


async def test_each_user_has_a_record_a_day_and_so_has_what_belongs_to_nobody(db: Database) -> None:
    agno = alone(MetricCalls, db)
    assert await agno.calculate_metrics() is None
    await converse(db, "s1", "ann", 2)
    await converse(db, "s2", None, 2)
    await converse(db, "s3", "ann")
    await converse(db, "s4", "ann", session_type="team")
    calculated = await agno.calculate_metrics()
    assert calculated is not None
    assert sorted(short(calculated)) == [
        (0, "ann", 1, 1, 2, False),
        (2, "", 0, 1, 2, True),
        (2, "ann", 1, 1, 2, True),
    ]
    rows, latest = await agno.get_metrics()
    assert [row["date"] for row in rows] == [today() - 2 * DAY, today() - 2 * DAY, today()]
    assert sorted(map(str, (row["user_id"] for row in rows))) == ["None", "ann", "ann"]
    assert latest == max(row["updated_at"] for row in rows)
    (latest_day,), _ = await agno.get_metrics(starting_date=today(), user_id="ann")
    assert (latest_day["team_sessions_count"], latest_day["team_runs_count"]) == (1, 2)
    assert latest_day["token_metrics"]["total_tokens"] == 30
    assert latest_day["model_metrics"] == [{"model_id": "gpt", "model_provider": "OpenAI", "count": 4}]
    (unowned,), _ = await agno.get_metrics(user_id="")
    assert (unowned["user_id"], unowned["agent_sessions_count"]) == (None, 1)
    assert await agno.get_metrics(ending_date=today() - 3 * DAY) == ([], None)


async def test_a_complete_day_is_not_calculated_again_and_one_that_is_not_keeps_when_it_first_was(db: Database) -> None:
    agno = alone(MetricCalls, db)
    await converse(db, "s1", "ann", 1)
    await converse(db, "s2", "ann")
    first = {row["date"]: row for row in await agno.calculate_metrics() or []}
    await converse(db, "s3", "ann", 1)
    await converse(db, "s4", "ann")
    rows, _ = await agno.get_metrics()
    assert short(rows) == [(1, "ann", 1, 1, 2, True), (0, "ann", 1, 1, 2, False)]  # was calculated within the minute
    (again,) = await alone(MetricCalls, db).calculate_metrics() or []
    assert short([again]) == [(0, "ann", 1, 2, 4, False)]
    assert (again["id"], again["created_at"]) == (first[today()]["id"], first[today()]["created_at"])
    # The library's own metrics, which count otherwise, are left alone.
    assert [each async for each in db.metrics.range()] == []


async def test_16_that_calculate_at_once_leave_one_record_a_day_and_user(databases: list[Database]) -> None:
    await databases[0].provision(COLLECTIONS)
    for number in range(6):
        await converse(databases[0], f"s{number}", f"u{number % 3}", number % 2)
    agnos = [alone(MetricCalls, databases[n % len(databases)]) for n in range(WORKERS)]
    answers = await all_at_once([partial(agno.calculate_metrics) for agno in agnos])
    expected = sorted((day, f"u{user}", 1, 1, 2, day == 1) for day in (0, 1) for user in range(3))
    assert all(isinstance(answer, list) and set(short(answer)) <= set(expected) for answer in answers)
    rows, _ = await agnos[0].get_metrics()
    assert sorted(short(rows)) == expected


async def test_while_one_of_two_stores_does_not_answer_only_today_is_calculated_and_no_day_is_passed_over() -> None:
    first, second = MemoryStore(), MemoryStore()
    failing = FaultyStore(second)
    async with connect(first, failing) as db:
        await db.provision(COLLECTIONS)
        await converse(db, "s1", "ann")
        await alone(MetricCalls, db).calculate_metrics()
        await converse(db, "s2", "ann")
        failing.down()
        rows = await alone(MetricCalls, db).calculate_metrics()
        assert short(rows or []) == [(0, "ann", 1, 2, 4, False)]
    async with connect(first, second) as db:
        await db.metrics.delete(today(), user_id="ann", period=PERIOD)
        await converse(db, "s3", "ann", 1)
    async with connect(first, failing) as db:
        assert await alone(MetricCalls, db).calculate_metrics() == []
    async with connect(first, second) as db:
        rows = await alone(MetricCalls, db).calculate_metrics()
        assert short(rows or []) == [(1, "ann", 1, 1, 2, True), (0, "ann", 1, 2, 4, False)]


async def test_what_fails_is_raised_and_not_tried_again_by_every_read() -> None:
    store = FaultyStore(MemoryStore())
    async with connect(store) as db:
        await db.provision(COLLECTIONS)
        await converse(db, "s1", "ann")
        agno = alone(MetricCalls, db)
        store.down()
        with pytest.raises(StoreUnavailable):
            await agno.get_metrics()
        store.up()
        assert await agno.get_metrics() == ([], None)
        await agno.calculate_metrics()
        assert short((await agno.get_metrics())[0]) == [(0, "ann", 1, 1, 2, False)]


def test_a_row_of_agnos_table_survives() -> None:
    counts = [f"{kind}_{what}_count" for kind in ("agent", "team", "workflow") for what in ("runs", "sessions")]
    row = {
        **{name: place for place, name in enumerate(counts)},
        "date": today(),
        "user_id": "ann",
        "users_count": 1,
        "token_metrics": {"total_tokens": 3},
        "model_metrics": [{"model_id": "m", "model_provider": "p", "count": 1}],
        "completed": True,
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_001,
        "aggregation_period": "daily",
    }
    kept = metrics_row(metrics_record({**row, "id": "its own"}))
    assert {name: kept[name] for name in row} == row
