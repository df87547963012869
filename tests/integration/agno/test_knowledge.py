"""agno's calls about contents of knowledge bases, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import MagicMock

import pytest
from agno.db.schemas.knowledge import KnowledgeRow
from agno.knowledge.knowledge import Knowledge
from agno.vectordb.base import VectorDb

from agno_clouddb import Database, connect
from agno_clouddb.integrations.agno.knowledge import KnowledgeCalls
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing.counting import CountingStore
from tests.integration.agno.competing import WORKERS, alone, databases

__all__ = ["databases"]

COLLECTIONS = ("knowledge",)

CREATED = 1_700_000_000


def row(id: str, **values: Any) -> KnowledgeRow:
    return KnowledgeRow(**{"id": id, "name": "Handbook", "description": "", "created_at": CREATED, **values})


async def test_of_16_who_change_different_columns_none_undoes_what_another_has_changed(
    databases: list[Database],
) -> None:
    await databases[0].provision(COLLECTIONS)
    agnos = [alone(KnowledgeCalls, databases[n % len(databases)]) for n in range(WORKERS)]
    columns = {
        "metadata": {"a": [1]},
        "type": "pdf",
        "size": 7,
        "linked_to": "base",
        "access_count": 3,
        "status": "completed",
        "status_message": "done",
        "external_id": "e1",
    }
    changes = [row("k1", **{name: value}) for name, value in columns.items() for _ in range(2)]
    await asyncio.gather(*(each.upsert_knowledge_content(change) for each, change in zip(agnos, changes, strict=True)))
    stored = await agnos[0].get_knowledge_content("k1")
    assert stored is not None
    assert {name: getattr(stored, name) for name in columns} == columns
    assert stored.created_at == CREATED


async def test_the_moments_are_those_that_were_given_and_none_leaves_them(db: Database) -> None:
    agno: Any = alone(KnowledgeCalls, db)
    await agno.upsert_knowledge_content(row("k1", updated_at=CREATED + 5))
    await agno.upsert_knowledge_content(row("k1", created_at=None, status="completed"))
    stored = await agno.get_knowledge_content("k1")
    assert stored == row("k1", updated_at=CREATED + 5, status="completed")
    await agno.upsert_knowledge_content(row("k1", created_at=CREATED + 1, updated_at=CREATED + 9))
    stored = await agno.get_knowledge_content("k1")
    assert stored == row("k1", created_at=CREATED + 1, updated_at=CREATED + 9, status="completed")


async def test_what_is_shared_or_of_another_user_is_not_written_over(db: Database) -> None:
    agno: Any = alone(KnowledgeCalls, db)
    await agno.upsert_knowledge_content(row("shared"))
    await agno.upsert_knowledge_content(row("anns", user_id="ann"))
    for each, user in (("shared", "ann"), ("anns", "bob")):
        with pytest.raises(ValueError, match="not found"):
            await agno.upsert_knowledge_content(row(each, name="Mine", user_id=user))
        await agno.delete_knowledge_content(each, user_id=user)
    await agno.upsert_knowledge_content(row("anns", name="Any"))
    anns = await agno.get_knowledge_content("anns", user_id="ann")
    assert anns is not None
    assert (anns.name, anns.user_id) == ("Any", "ann")
    assert await agno.get_knowledge_content("anns", user_id="bob") is None
    shared = await agno.get_knowledge_content("shared", user_id="bob")
    assert shared is not None
    assert shared.name == "Handbook"


async def test_pages_hold_what_is_the_users_and_what_is_shared_once_and_nothing_else(db: Database) -> None:
    agno: Any = alone(KnowledgeCalls, db)
    owners = ("ann", None, "bob", None, "ann")
    places = range(50)
    rows = [
        row(f"k{n:02}", user_id=owners[n % 5], created_at=CREATED + n // 2, linked_to="base" if n % 2 else "other")
        for n in places
    ]
    await asyncio.gather(*(agno.upsert_knowledge_content(each) for each in rows))
    narrowed: list[tuple[dict[str, str], list[int]]] = [
        ({}, [*places]),
        ({"user_id": "ann"}, [n for n in places if n % 5 != 2]),
        ({"user_id": "cyd"}, [n for n in places if n % 5 in (1, 3)]),
        ({"user_id": "ann", "linked_to": "base"}, [n for n in places if n % 5 != 2 and n % 2]),
    ]
    for filters, wanted in narrowed:
        for order in ("asc", "desc"):
            found: list[str | None] = []
            for page in range(1, 9):
                contents, total = await agno.get_knowledge_contents(
                    limit=7, page=page, sort_by="created_at", sort_order=order, **filters
                )
                found += [each.id for each in contents]
                assert total == len(wanted)
            assert found == [f"k{n:02}" for n in (wanted if order == "asc" else reversed(wanted))]


async def test_a_page_does_not_read_what_other_users_have() -> None:
    store = CountingStore(MemoryStore())
    async with connect(store) as db:
        await db.provision(COLLECTIONS)
        agno: Any = alone(KnowledgeCalls, db)
        for n, user in enumerate(("bob",) * 40 + ("ann",) * 10 + (None,) * 10 + ("bob",) * 40):
            await agno.upsert_knowledge_content(row(f"k{n}", user_id=user, created_at=CREATED + n))
        store.clear()
        await agno.get_knowledge_contents(limit=5, sort_by="created_at", user_id="ann")
        assert store.items["query"] <= 10
        assert store.calls["query"] == 2


async def test_by_any_other_column_contents_without_a_value_come_first(db: Database) -> None:
    agno: Any = alone(KnowledgeCalls, db)
    for each, size, name in (("k1", 5, "b"), ("k2", None, "c"), ("k3", 7, "a")):
        await agno.upsert_knowledge_content(row(each, size=size, name=name))
    for column, order, ids in (
        ("size", "asc", "k2 k1 k3"),
        ("size", "desc", "k2 k3 k1"),
        ("name", "asc", "k3 k1 k2"),
        ("name", None, "k2 k1 k3"),
    ):
        contents, total = await agno.get_knowledge_contents(sort_by=column, sort_order=order)
        assert ([found.id for found in contents], total) == (ids.split(), 3)


async def test_what_a_knowledge_base_without_a_name_has_is_kept_and_found() -> None:
    async with connect("memory://") as db:
        await db.provision(COLLECTIONS)
        agno: Any = alone(KnowledgeCalls, db)
        base = Knowledge(vector_db=MagicMock(spec=VectorDb), contents_db=agno)
        await base.ainsert(name="doc", text_content="hello")
        await agno.upsert_knowledge_content(row("other", linked_to="base", type="", status=""))
        for linked_to, names in (("", ["doc"]), ("base", ["Handbook"]), (None, ["doc", "Handbook"])):
            found, total = await agno.get_knowledge_contents(linked_to=linked_to)
            assert (sorted(each.name for each in found), total) == (sorted(names), len(names))
        other = await agno.get_knowledge_content("other")
        assert (other.linked_to, other.type, other.status) == ("base", "", "")
