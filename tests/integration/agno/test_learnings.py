"""agno's calls about learnings, on every store: what the differential test cannot show."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agno.db.sqlite.async_sqlite import AsyncSqliteDb
from agno.db.sqlite.schemas import get_table_schema_definition

from agno_clouddb import InvalidRecord
from agno_clouddb.integrations.agno.learnings import LearningCalls, learning_row
from agno_clouddb.records.learnings import Learning
from tests.integration.agno.differential import Call, compare


def agno_db(*urls: str) -> Any:
    made: Any = type("Alone", (LearningCalls,), {})
    made.__abstractmethods__ = frozenset()
    return made(*urls, provision=True)


@pytest.fixture
async def db(backend: str) -> AsyncIterator[Any]:
    made = agno_db(backend)
    yield made
    await made.close()


@pytest.fixture
async def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncSqliteDb]:
    """agno's own database, for which a second passes at each look at the clock: it orders by seconds."""
    seconds = iter(range(int(time.time()) - 500, 2**40))
    monkeypatch.setattr("agno.db.sqlite.async_sqlite.time", SimpleNamespace(time=lambda: next(seconds)))
    made = AsyncSqliteDb(db_file=str(tmp_path / "agno.db"))
    yield made
    await made.close()


def write(id: str, user_id: str | None, type: str = "user_profile", **values: Any) -> Call:
    values.setdefault("content", {"n": id})
    return Call("upsert_learning", {"id": id, "learning_type": type, "user_id": user_id, **values})


async def test_lists_and_pages_are_in_the_order_of_agnos_own(db: Any, theirs: AsyncSqliteDb) -> None:
    users = ("ann", None, "bob", "ann", "ann", None, "bob")
    calls = [write(f"l{n}", user, ("user_profile", "x")[n % 3 == 0]) for n, user in enumerate(users)]
    calls += [write("l1", "eve", content={"again": True}), Call("update_learning", {"id": "l2", "content": {}})]
    for column in (None, "created_at", "learning_id", "nothing"):
        for order in (None, "asc"):
            for page in (1, 2, 4):
                given = {"sort_by": column, "sort_order": order, "limit": 2, "page": page}
                calls.append(Call("list_learnings", given))
                calls.append(Call("list_learnings", {**given, "user_id": "ann"}))
                if column != "nothing":
                    calls.append(Call("list_learnings", {**given, "user_id": "ann", "include_global": True}))
    for limit in (None, 0, 1, 3, -1):
        calls.append(Call("get_learnings", {"limit": limit}))
        calls.append(Call("get_learnings", {"limit": limit, "user_id": "ann", "learning_type": "user_profile"}))
    for order in (None, "asc"):
        for page in (1, 2, 3):
            calls.append(Call("get_learnings_user_stats", {"sort_order": order, "limit": 1, "page": page}))
    calls.append(Call("delete_learning", {"id": "l4"}))
    calls.append(Call("list_learnings", {"limit": 2, "page": 2}))
    await compare(calls, theirs, db)


async def test_a_page_that_follows_a_write_is_read_anew(db: Any) -> None:
    for n in range(4):
        await db.upsert_learning(f"l{n}", "x", {})
    assert [each["learning_id"] for each in (await db.list_learnings(limit=2, page=1))[0]] == ["l3", "l2"]
    await db.upsert_learning("l0", "x", {})
    assert [each["learning_id"] for each in (await db.list_learnings(limit=2, page=2))[0]] == ["l2", "l1"]


async def test_a_search_finds_text_in_both_its_forms_the_last_written_first(db: Any) -> None:
    for n, content in enumerate(
        ({"name": "Sarah Chen"}, {"id": "sarah_chen"}, {"deep": [{"SARAH CHEN": 1}]}, {"x": 1})
    ):
        await db.upsert_learning(f"l{n}", "x", content, user_id=("ann", "bob")[n % 2], session_id="s")

    async def found(query: str, **filters: Any) -> list[str]:
        return [each["learning_id"] for each in await db.search_learnings(query, **filters)]

    assert await found("sarah chen") == ["l2", "l1", "l0"]
    assert await found(" sarah chen ", limit=2) == ["l2", "l1"]
    assert await found("sarah chen", user_id="ann", session_id="s") == ["l2", "l0"]
    assert await found("sarah chen", user_id="") == []
    assert await found("100%") == await found(" _ %") == await found("") == []


async def test_what_an_external_writer_has_set_is_in_the_row(db: Any) -> None:
    database = await db.database()
    await database.learnings.upsert(Learning(learning_id="l1", learning_type="x", content={}, workflow_id="w"))
    (row,) = await db.get_learnings(workflow_id="w")
    assert row["workflow_id"] == "w"
    assert await db.get_learning("x", workflow_id="w") == {"content": {}}
    assert await db.get_learning("x", workflow_id="v") is None


async def test_two_clouds_keep_one_learning() -> None:
    db = agno_db("memory://", "memory://")
    await db.upsert_learning("l1", "x", {"n": 1}, user_id="ann")
    await db.upsert_learning("l1", "y", {"n": 2}, user_id="bob")
    assert [(row["learning_type"], row["user_id"], row["content"]) for row in await db.get_learnings()] == [
        ("x", "ann", {"n": 2})
    ]
    with pytest.raises(InvalidRecord):
        await db.upsert_learning("", "x", {})
    await db.close()


def test_rows_have_the_columns_of_agnos_own() -> None:
    theirs = get_table_schema_definition("learnings")
    assert tuple(learning_row(Learning(learning_type="x", content={}))) == tuple(theirs)
