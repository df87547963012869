"""agno's calls about approvals: what many do at once, on every store and in fan-outs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from agno.db.sqlite.schemas import get_table_schema_definition
from agno.db.utils import is_unique_violation
from agno.run.base import RunStatus

from agno_clouddb import ConflictError, Database, InvalidRecord, connect
from agno_clouddb.integrations.agno.approvals import APPROVALS, ApprovalCalls
from agno_clouddb.stores.base import Consistency, Cursor, Page, Query
from agno_clouddb.stores.memory import MemoryStore
from tests.integration.agno.competing import WORKERS, Interrupted, all_at_once, alone, databases

__all__ = ["databases"]

CREATED = 1_700_000_000


def approval(key: str, **values: Any) -> dict[str, Any]:
    return {
        "id": key,
        "run_id": "r1",
        "session_id": "s1",
        "status": "pending",
        "source_type": "agent",
        "pause_type": "confirmation",
        "approval_type": "required",
        **values,
    }


def callers(databases: list[Database]) -> list[ApprovalCalls]:
    return [alone(ApprovalCalls, databases[n % len(databases)]) for n in range(WORKERS)]


async def test_of_16_who_resolve_one_approval_one_does(databases: list[Database]) -> None:
    agnos = callers(databases)
    for n in range(3):
        await agnos[0].create_approval(approval(f"a{n}"))
        resolve = [
            partial(each.update_approval, f"a{n}", "pending", status="approved", resolved_by=f"u{who}")
            for who, each in enumerate(agnos)
        ]
        found = await all_at_once(resolve)
        (winner,) = [each for each in found if each is not None]
        assert isinstance(winner, Mapping)
        assert await agnos[1].get_approval(f"a{n}") == winner
    assert await agnos[0].get_pending_approval_count() == 0


async def test_of_16_who_create_one_approval_one_does(databases: list[Database]) -> None:
    agnos = callers(databases)
    found = await all_at_once([partial(each.create_approval, approval("a1")) for each in agnos])
    errors = [each for each in found if not isinstance(each, dict)]
    assert len(errors) == WORKERS - 1
    assert all(isinstance(each, ConflictError) and is_unique_violation(each) for each in errors)
    rows, total = await agnos[0].get_approvals(run_id="r1")
    assert ([each["id"] for each in rows], total) == (["a1"], 1)


async def test_of_16_who_delete_one_approval_one_does(databases: list[Database]) -> None:
    agnos = callers(databases)
    await agnos[0].create_approval(approval("a1"))
    found = await all_at_once([partial(each.delete_approval, "a1") for each in agnos])
    assert sorted(found, key=str) == [False] * (WORKERS - 1) + [True]


async def test_all_approvals_of_a_run_are_listed_whoever_creates_and_deletes_them_at_once(
    databases: list[Database],
) -> None:
    agnos = callers(databases)
    for n in range(0, WORKERS, 2):
        await agnos[0].create_approval(approval(f"a{n:02}", created_at=CREATED + n))
    calls = [
        partial(each.create_approval, approval(f"a{n:02}", created_at=CREATED + n))
        if n % 2
        else partial(each.delete_approval, f"a{n:02}")
        for n, each in enumerate(agnos)
    ]
    found = await all_at_once(calls)
    assert all(each is True or isinstance(each, dict) for each in found)
    left = [f"a{n:02}" for n in reversed(range(1, WORKERS, 2))]
    for agno in agnos[:4]:
        rows, total = await agno.get_approvals(run_id="r1", status="pending", approval_type="required")
        assert ([each["id"] for each in rows], total) == (left, len(left))
    assert await agnos[0].update_approval_run_status("r1", RunStatus.paused) == len(left)
    rows, total = await agnos[1].get_approvals(limit=3, page=2)
    assert ([(each["id"], each["run_status"]) for each in rows], total) == ([(key, "PAUSED") for key in left[3:6]], 8)
    await all_at_once([partial(agnos[0].delete_approval, key) for key in left])
    assert await agnos[0].get_approvals(run_id="r1") == ([], 0)
    assert await databases[0].entries.get("approval_run:r1") is None


async def test_approvals_that_come_and_go_while_one_is_created_or_deleted_are_listed_right() -> None:
    store = Interrupted()
    async with Database(store) as db:
        await db.provision()
        agno = alone(ApprovalCalls, db)
        store.before = partial(agno.create_approval, approval("a1", created_at=CREATED))
        await agno.create_approval(approval("a2"))
        assert [each["id"] for each in (await agno.get_approvals(run_id="r1"))[0]] == ["a2", "a1"]
        store.before = partial(agno.update_approval, "a1", status="approved")
        assert await agno.delete_approval("a1")
        assert [each["id"] for each in (await agno.get_approvals(run_id="r1"))[0]] == ["a2"]
        store.before = partial(agno.delete_approval, "a2")
        assert not await agno.delete_approval("a2")


class Lagging(MemoryStore):
    """A store whose indexes have not followed yet, as those of DynamoDB follow their tables."""

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        return Page(())

    async def count(self, query: Query) -> int:
        return 0


async def test_a_run_is_held_back_by_an_approval_that_no_index_has_yet() -> None:
    async with Database(Lagging()) as db:
        await db.provision()
        agno = alone(ApprovalCalls, db)
        await agno.create_approval(approval("a1"))
        rows, total = await agno.get_approvals(run_id="r1", status="pending", approval_type="required")
        assert ([each["id"] for each in rows], total) == (["a1"], 1)
        assert await agno.update_approval_run_status("r1", RunStatus.paused) == 1
        assert await agno.get_approvals(status="pending") == ([], 0)


async def test_moments_are_set_in_seconds_unless_they_are_given() -> None:
    async with connect("memory://") as db:
        await db.provision()
        agno = alone(ApprovalCalls, db)
        given = await agno.create_approval(approval("a1"))
        row = await agno.get_approval("a1")
        assert row is not None
        assert row.items() >= given.items()
        assert type(row["created_at"]) is int
        await agno.create_approval(approval("a2", created_at=CREATED, updated_at=None, user_id="ann"))
        assert (await agno.get_approvals(user_id="ann"))[0][0]["updated_at"] is None
        assert [each["id"] for each in (await agno.get_approvals())[0]] == ["a1", "a2"]


async def test_what_an_approval_is_listed_by_cannot_be_changed() -> None:
    async with connect("memory://") as db:
        await db.provision()
        agno = alone(ApprovalCalls, db)
        await agno.create_approval(approval("a1"))
        for changes in ({"run_id": "r2"}, {"id": "a2"}, {"status": None}):
            with pytest.raises(InvalidRecord):
                await agno.update_approval("a1", **changes)
        with pytest.raises(InvalidRecord):
            await agno.create_approval(approval("a2", session_id=None))
        assert await agno.update_approval("none", status="approved") is None


def test_rows_have_the_columns_of_agnos_own() -> None:
    theirs = get_table_schema_definition("approvals")
    assert APPROVALS.columns == tuple(theirs)
    assert APPROVALS.required == {name for name, each in theirs.items() if not each["nullable"]}
    assert APPROVALS.json == {name for name, each in theirs.items() if each["type"].__name__ == "JSON"}
