"""agno's calls about schedules: what many workers do at once, on every store and in fan-outs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from agno.db.sqlite.schemas import get_table_schema_definition
from agno.db.utils import is_unique_violation

from agno_clouddb import ConflictError, Database, RecordNotFound, connect
from agno_clouddb.integrations.agno.schedule_rows import SCHEDULE_RUNS, SCHEDULES
from agno_clouddb.integrations.agno.schedules import ScheduleCalls
from agno_clouddb.integrations.agno.tables import Table
from agno_clouddb.records.entries import Entry
from tests.integration.agno.competing import WORKERS, Interrupted, all_at_once, alone, databases

__all__ = ["databases"]

CREATED = 1_700_000_000


def schedule(key: str, **values: Any) -> dict[str, Any]:
    return {
        "id": key,
        "name": key,
        "method": "POST",
        "endpoint": "/agents/a1/runs",
        "cron_expr": "* * * * *",
        "timezone": "UTC",
        "timeout_seconds": 60,
        "max_retries": 0,
        "retry_delay_seconds": 1,
        "enabled": True,
        "created_at": CREATED,
        **values,
    }


def workers(databases: list[Database]) -> list[ScheduleCalls]:
    return [alone(ScheduleCalls, databases[n % len(databases)]) for n in range(WORKERS)]


async def names_agree(db: ScheduleCalls) -> None:
    """Every schedule is found by its name, and nothing else is reserved."""
    rows, total = await db.get_schedules()
    assert total == len(rows)
    for row in rows:
        found = await db.get_schedule_by_name(row["name"], user_id=row["user_id"])
        assert found == row
    reserved = (await (await db.database()).entries.list(kind="schedule_name", limit=100)).items
    assert sorted(each.data["schedule_id"] for each in reserved) == sorted(row["id"] for row in rows)


async def test_what_is_due_or_was_claimed_too_long_ago_is_claimed_by_one_of_16_workers(
    databases: list[Database],
) -> None:
    agnos = workers(databases)
    for n in range(6):
        await agnos[0].create_schedule(schedule(f"s{n}", next_run_at=CREATED + n))
    await agnos[0].create_schedule(schedule("later", next_run_at=int(time.time()) + 10_000))
    await agnos[0].create_schedule(schedule("off", next_run_at=CREATED, enabled=False))

    async def claim_all(agno: ScheduleCalls, name: str) -> list[dict[str, Any]]:
        claims: list[dict[str, Any]] = []
        while (claim := await agno.claim_due_schedule(name)) is not None and len(claims) < 10:
            claims.append(claim)
        return claims

    found = await all_at_once([partial(claim_all, agno, f"w{n}") for n, agno in enumerate(agnos)])
    claims = [claim for each in found if isinstance(each, list) for claim in each]
    assert [each for each in found if not isinstance(each, list)] == []
    assert sorted(each["id"] for each in claims) == [f"s{n}" for n in range(6)]
    for claim in claims:
        assert await agnos[1].get_schedule(claim["id"]) == claim
    await agnos[0].create_schedule(schedule("old", next_run_at=1, locked_by="gone", locked_at=CREATED))
    again = await all_at_once([partial(each.claim_due_schedule, f"w{n}") for n, each in enumerate(agnos)])
    (old,) = [each for each in again if each is not None]
    assert isinstance(old, dict)
    assert not await agnos[1].release_schedule("old", worker_id="gone", locked_at=CREATED)
    assert await agnos[1].release_schedule("old", CREATED + 5, worker_id=old["locked_by"])
    assert not await agnos[1].release_schedule("old", worker_id=old["locked_by"])
    left = await agnos[2].get_schedule("old")
    assert left is not None
    assert (left["locked_by"], left["locked_at"], left["next_run_at"]) == (None, None, CREATED + 5)


async def test_of_16_who_create_or_rename_to_one_name_one_does(databases: list[Database]) -> None:
    agnos = workers(databases)
    others = [partial(each.create_schedule, schedule(f"s{n}", name="daily")) for n, each in enumerate(agnos)]
    found = await all_at_once(others)
    errors = [each for each in found if not isinstance(each, dict)]
    assert len(errors) == WORKERS - 1
    assert all(isinstance(each, ConflictError) and is_unique_violation(each) for each in errors)
    await agnos[0].create_schedule(schedule("of ann", name="daily", user_id="ann"))
    _, total = await agnos[0].get_schedules()
    assert total == 2
    for n, each in enumerate(agnos):
        await each.create_schedule(schedule(f"r{n}"))
    renamed = await all_at_once([partial(each.update_schedule, f"r{n}", name="weekly") for n, each in enumerate(agnos)])
    assert sum(isinstance(each, dict) for each in renamed) == 1
    assert sum(isinstance(each, ConflictError) for each in renamed) == WORKERS - 1
    await names_agree(agnos[0])


async def test_of_16_who_delete_a_schedule_one_does(databases: list[Database]) -> None:
    agnos = workers(databases)
    await agnos[0].create_schedule(schedule("s0"))
    found = await all_at_once([partial(each.delete_schedule, "s0") for each in agnos])
    assert sorted(found, key=str) == [False] * (WORKERS - 1) + [True]


async def test_names_stay_right_while_schedules_are_renamed_and_deleted_at_once(databases: list[Database]) -> None:
    agnos = workers(databases)
    for n in range(4):
        await agnos[0].create_schedule(schedule(f"s{n}"))
    calls: list[Callable[[], Awaitable[object]]] = [
        partial(each.update_schedule, f"s{n % 4}", name=f"n{n % 3}") for n, each in enumerate(agnos)
    ]
    calls[3:3] = [partial(agnos[0].delete_schedule, "s0"), partial(agnos[1].delete_schedule, "s0")]
    found = await all_at_once(calls)
    assert sum(each is True for each in found) == 1
    assert all(each is None or isinstance(each, dict | bool | ConflictError) for each in found)
    assert await agnos[0].get_schedule("s0") is None
    await names_agree(agnos[0])


async def test_what_changes_while_a_schedule_is_renamed_or_deleted_is_not_lost() -> None:
    store = Interrupted()
    async with Database(store) as db:
        await db.provision()
        agno = alone(ScheduleCalls, db)
        await agno.create_schedule(schedule("s1", next_run_at=CREATED))
        store.before = partial(agno.claim_due_schedule, "w1")
        renamed = await agno.update_schedule("s1", name="daily")
        assert renamed is not None
        assert (renamed["name"], renamed["locked_by"]) == ("daily", "w1")
        store.before = partial(agno.update_schedule, "s1", name="weekly")
        assert await agno.delete_schedule("s1")
        await names_agree(agno)
        store.before = partial(agno.create_schedule, schedule("s2", name="daily"))
        with pytest.raises(ConflictError, match="there is a schedule of this name already"):
            await agno.create_schedule(schedule("s1", name="daily"))
        await names_agree(agno)


async def test_a_name_that_no_schedule_has_any_more_can_be_taken() -> None:
    async with connect("memory://") as db:
        await db.provision()
        agno = alone(ScheduleCalls, db)
        await agno.create_schedule(schedule("s1", name="daily"))
        await db.entries.delete("schedule:s1")
        assert await agno.get_schedule_by_name("daily") is None
        await agno.create_schedule(schedule("s2", name="daily"))
        await agno.create_schedule(schedule("s3", name="weekly"))
        await db.entries.delete("schedule:s2")
        renamed = await agno.update_schedule("s3", name="daily")
        assert renamed is not None
        assert await agno.get_schedule_by_name("daily") == renamed
        assert await agno.get_schedule_by_name("weekly") is None


async def test_runs_go_with_their_schedule_and_need_one(databases: list[Database]) -> None:
    agno = alone(ScheduleCalls, databases[0])
    run = {"attempt": 1, "status": "running", "created_at": CREATED}
    with pytest.raises(RecordNotFound):
        await agno.create_schedule_run({**run, "id": "r", "schedule_id": "s1"})
    await agno.create_schedule(schedule("s1", user_id="ann"))
    for n in range(30):
        run = {**run, "created_at": CREATED + n, "triggered_at": CREATED - n if n < 25 else None}
        await agno.create_schedule_run({**run, "id": f"r{n:02}", "schedule_id": "s1", "user_id": "ann"})
    with pytest.raises(ConflictError) as raised:
        await agno.create_schedule_run({**run, "id": "r00", "schedule_id": "s1"})
    assert is_unique_violation(raised.value)
    latest = await agno.get_latest_schedule_runs(["s1", "none", "s1"])
    assert {key: each["id"] for key, each in latest.items()} == {"s1": "r00"}
    found = []
    for page in (1, 2, 3, 4):
        rows, total = await agno.get_schedule_runs("s1", limit=10, page=page, user_id="ann")
        assert total == 30
        found += [each["id"] for each in rows]
    assert found == [f"r{n:02}" for n in reversed(range(30))]
    assert await agno.get_schedule_runs("s1", user_id="bob") == ([], 0)
    assert await agno.delete_schedule("s1", user_id="ann")
    assert await agno.get_schedule_runs("s1") == ([], 0)
    assert await agno.get_schedule_run("r00") is None


async def test_a_column_of_a_later_agno_survives() -> None:
    async with connect("memory://") as db:
        await db.provision()
        agno = alone(ScheduleCalls, db)
        await agno.create_schedule(schedule("s1", colour="red"))
        updated = await agno.update_schedule("s1", enabled=False)
        assert updated is not None
        assert (updated["colour"], updated["enabled"]) == ("red", False)
        (entry,) = (await db.entries.list(kind="schedule")).items
        assert isinstance(entry, Entry)
        assert entry.due is None


@pytest.mark.parametrize(("table", "kind"), [(SCHEDULES, "schedules"), (SCHEDULE_RUNS, "schedule_runs")])
def test_rows_have_the_columns_of_agnos_own(table: Table, kind: str) -> None:
    theirs = {name: each for name, each in get_table_schema_definition(kind).items() if not name.startswith("_")}
    assert table.columns == tuple(theirs)
    assert table.required == {name for name, each in theirs.items() if not each["nullable"]}
    assert table.json == {name for name, each in theirs.items() if getattr(each["type"], "__name__", "") == "JSON"}
