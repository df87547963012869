"""agno's calls about memories, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
from typing import Any

from agno.db.schemas.memory import UserMemory

from agno_clouddb import Database
from agno_clouddb.integrations.agno.memories import MemoryCalls
from tests.integration.agno.competing import alone

COLLECTIONS = ("memories",)

CREATED = 1_700_000_000


def memory(id: str, **values: Any) -> UserMemory:
    return UserMemory(**{"memory": "likes tea", "memory_id": id, "created_at": CREATED, **values})


async def test_of_16_who_write_one_memory_all_succeed_and_the_first_stays_its_owner(db: Database) -> None:
    agno: Any = alone(MemoryCalls, db)
    await agno.upsert_user_memory(memory("m1", user_id="ann"))
    writers = [
        agno.upsert_user_memory(memory("m1", memory=f"by {n}", user_id=f"u{n}", created_at=CREATED + n), False)
        for n in range(16)
    ]
    written = await asyncio.gather(*writers)
    assert {(row["user_id"], row["created_at"]) for row in written} == {("ann", CREATED)}
    assert {row["memory"] for row in written} == {f"by {n}" for n in range(16)}
    (left,), total = await agno.get_user_memories(deserialize=False)
    assert (left["user_id"], left["created_at"], total) == ("ann", CREATED, 1)
    assert left in written
    assert left["updated_at"] > CREATED


async def test_what_belongs_to_nobody_is_not_claimed_by_a_write(db: Database) -> None:
    agno: Any = alone(MemoryCalls, db)
    await agno.upsert_user_memory(memory("m1"))
    await agno.upsert_user_memory(memory("m1", user_id="ann"))
    await agno.upsert_memories([memory("m1", user_id="bob"), memory("m2", user_id="bob"), memory("m2")])
    rows, _ = await agno.get_user_memories(deserialize=False)
    assert [(row["memory_id"], row["user_id"]) for row in rows] == [("m1", None), ("m2", "bob")]


async def test_pages_hold_each_memory_once_with_the_total_on_each(db: Database) -> None:
    agno: Any = alone(MemoryCalls, db)
    every = [
        memory(f"m{n:02}", user_id="ann" if n % 3 else "bob", updated_at=CREATED + n, topics=["tea"]) for n in range(60)
    ]
    await agno.upsert_memories(every, preserve_updated_at=True)
    latest = [f"m{n:02}" for n in reversed(range(60)) if n % 3]
    narrowed: list[dict[str, Any]] = [{}, {"topics": ["TEA"]}, {"search_content": "likes"}]
    for filters in narrowed:
        found: list[str] = []
        for page in range(1, 6):
            rows, total = await agno.get_user_memories(
                user_id="ann", sort_by="updated_at", limit=10, page=page, deserialize=False, **filters
            )
            found += [row["memory_id"] for row in rows]
            assert (len(rows), total) == ((10, 40) if page < 5 else (0, 0))
        assert found == latest
    other: Any = alone(MemoryCalls, db)
    third, _ = await other.get_user_memories(
        user_id="ann", sort_by="updated_at", sort_order="asc", limit=7, page=3, deserialize=False
    )
    assert [row["memory_id"] for row in third] == latest[::-1][14:21]


async def test_without_a_sort_the_order_is_that_of_writing_also_within_a_second(db: Database) -> None:
    agno: Any = alone(MemoryCalls, db)
    ids = [f"m{n}" for n in (5, 3, 9, 1, 7)]
    for each in ids:
        await agno.upsert_user_memory(UserMemory("likes tea", memory_id=each, user_id="ann"))
    await agno.upsert_user_memory(UserMemory("likes coffee", memory_id="m5", user_id="ann"))
    assert [each.memory_id for each in await agno.get_user_memories(user_id="ann")] == ids


async def test_stats_count_each_user_and_tell_the_seconds_of_the_last_write(db: Database) -> None:
    agno: Any = alone(MemoryCalls, db)
    users = ("ann", "ann", "bob", None)
    every = [memory(f"m{n}", user_id=user, updated_at=CREATED + n) for n, user in enumerate(users)]
    await agno.upsert_memories(every, preserve_updated_at=True)
    bob = {"user_id": "bob", "total_memories": 1, "last_memory_updated_at": CREATED + 2}
    ann = {"user_id": "ann", "total_memories": 2, "last_memory_updated_at": CREATED + 1}
    assert await agno.get_user_memory_stats() == ([bob, ann], 2)
    assert await agno.get_user_memory_stats(limit=1, page=2) == ([ann], 2)
    assert await agno.get_user_memory_stats(limit=1, page=3) == ([], 0)
    await agno.clear_memories()
    assert await agno.get_user_memory_stats() == ([], 0)


async def test_a_memory_is_any_json_and_a_search_finds_what_is_in_it(db: Database) -> None:
    agno: Any = alone(MemoryCalls, db)
    given = {"m1": {"content": "likes green tea"}, "m2": ["likes", {"n": 1}], "m3": None, "m4": 7}
    topics = {"m1": "drinks", "m2": ["a", 1], "m3": None, "m4": {"k": "v"}}
    batch = [memory(key, memory=each, topics=topics[key], user_id="ann") for key, each in given.items()]
    assert len(await agno.upsert_memories([None, *batch])) == len(given)
    await agno.upsert_user_memory(batch[0])
    rows, _ = await agno.get_user_memories(user_id="ann", deserialize=False)
    assert {row["memory_id"]: row["memory"] for row in rows} == given
    assert {row["memory_id"]: row["topics"] for row in rows} == topics
    assert (await agno.get_user_memory("m1")).memory == given["m1"]
    assert [each.memory_id for each in await agno.get_user_memories(search_content="GREEN tea")] == ["m1"]
