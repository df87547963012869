"""Memories, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import tenacity

from agno_clouddb import (
    BulkWriteError,
    ConfigurationError,
    ConflictError,
    Database,
    InvalidRecord,
    NotOwner,
    RecordNotFound,
    UserMemory,
    connect,
)
from agno_clouddb.repositories.reads import UserStats
from agno_clouddb.stores.base import Key, Put, Stored
from agno_clouddb.stores.clock import HybridClock

COLLECTIONS = ("memories",)

START = datetime(2026, 3, 1, tzinfo=UTC)


def memory(memory_id: str = "m1", text: str = "likes tea", **values: Any) -> UserMemory:
    return UserMemory(memory=text, memory_id=memory_id, **values)


async def a_dozen(db: Database) -> list[str]:
    """Twelve memories, a day apart; their ids in the order in which they were last written."""
    await db.memories.upsert_many(
        memory(
            f"m{number:02}",
            f"{('Tea', 'Kaffee')[number % 2]} in der Straße {number}",
            user_id=("ann", "bob")[number % 2],
            agent_id=("support", "sales", None)[number % 3],
            team_id=(None, "crew")[number % 2],
            topics=[f"T{number % 4}", ("Drinks", "drinks")[number % 2]],
            updated_at=START + timedelta(days=number // 2),
        )
        for number in range(12)
    )
    return [f"m{number:02}" for number in range(12)]


async def listed(db: Database, *others: Database, limit: int = 100, **arguments: Any) -> list[str]:
    """The ids of a list that is paged to its end, each page by the next of the databases."""
    found: list[str] = []
    cursor, turn = None, 0
    while True:
        page = await (db, *others)[turn].memories.list(limit=limit, cursor=cursor, **arguments)
        found += [each.memory_id for each in page.items]
        assert not page.degraded
        assert len(page.items) == limit or page.cursor is None
        cursor, turn = page.cursor, (turn + 1) % (1 + len(others))
        if cursor is None:
            return found


async def put_expired(db: Database, memory_id: str, **values: Any) -> None:
    """Store a memory whose expiry has passed, as it stands until the service removes it."""
    record = memory(memory_id, updated_at=START, created_at=START, **values)
    item = record.to_item(record.key, HybridClock().stamp())
    (outcome,) = await db.store.write([Put(replace(item, expires_at=int(time.time()) - 60))])
    assert isinstance(outcome, Stored)


async def test_a_memory_round_trips_with_everything_in_it(db: Database) -> None:
    written = memory(
        text="mag Flüge 😀",
        topics=["Reise", ""],
        user_id="ann",
        agent_id="support",
        team_id="crew",
        input="x" * 3000,
        feedback="",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2))),
        unheard_of={"kept": [None, 2**80, 2.5]},
    )
    stored = await db.memories.upsert(written)
    read = await db.memories.get("m1")
    assert read == stored
    assert read is not None
    assert read.version is not None
    assert read.updated_at is not None
    given = written.model_dump(exclude={"version", "updated_at"})
    assert read.model_dump(exclude={"version", "updated_at"}) == given


async def test_a_memory_without_an_id_gets_one(db: Database) -> None:
    first, second = [await db.memories.upsert(UserMemory(memory="x")) for _ in range(2)]
    assert first.memory_id != second.memory_id
    assert await db.memories.get(first.memory_id) == first
    assert await db.memories.count() == 2


async def test_a_missing_memory_is_none(db: Database) -> None:
    assert await db.memories.get("nobody") is None
    assert await db.memories.delete("nobody") is False
    assert await db.memories.delete("nobody", user_id="ann") is False


async def test_upserting_an_object_made_anew_keeps_when_it_was_created_and_whose_it_is(db: Database) -> None:
    first = await db.memories.upsert(memory(user_id="ann"))
    second = await db.memories.upsert(memory(text="likes coffee", created_at=START))
    assert second.created_at == first.created_at
    assert second.user_id == "ann"
    assert first.updated_at is not None
    assert second.updated_at is not None
    assert second.updated_at > first.updated_at
    assert await db.memories.get("m1") == second
    await db.memories.upsert_many([memory(text="likes water")])
    third = await db.memories.get("m1", user_id="ann")
    assert third is not None
    assert third.created_at == first.created_at
    assert third.memory == "likes water"


async def test_an_expected_version_is_written_only_over_that_version(db: Database) -> None:
    with pytest.raises(ConflictError):
        await db.memories.upsert(memory(), expected_version=HybridClock().stamp())
    assert await db.memories.get("m1") is None
    first = await db.memories.upsert(memory(user_id="ann"))
    second = await db.memories.upsert(first.model_copy(update={"memory": "2"}), expected_version=first.version)
    for stale in (first, memory(text="stale")):
        with pytest.raises(ConflictError) as caught:
            await db.memories.upsert(stale, expected_version=first.version)
        assert caught.value.expected == first.version
        assert caught.value.found == second.version
    # An object that was not read keeps what the stored memory was created with.
    third = await db.memories.upsert(memory(text="3"), expected_version=second.version)
    assert third.created_at == first.created_at
    assert third.user_id == "ann"
    assert await db.memories.get("m1") == third
    with pytest.raises(NotOwner):
        await db.memories.upsert(memory(text="4"), user_id="bob", expected_version=third.version)
    with pytest.raises(InvalidRecord, match="expected_version"):
        await db.memories.upsert(third, expected_version="yesterday")
    await db.memories.delete("m1")
    for gone in (third, memory()):
        with pytest.raises(ConflictError):
            await db.memories.upsert(gone, expected_version=third.version)
    assert await db.memories.get("m1") is None


async def test_updating_changes_what_is_stored_and_keeps_the_rest(db: Database) -> None:
    first = await db.memories.upsert(memory(user_id="ann", topics=["tea"], unheard_of=1))
    changed = await db.memories.update("m1", lambda found: found.model_copy(update={"memory": "likes coffee"}))
    assert changed.model_dump(exclude={"memory", "version", "updated_at"}) == first.model_dump(
        exclude={"memory", "version", "updated_at"}
    )

    def in_place(found: UserMemory) -> None:
        found.topics = ["coffee"]

    await db.memories.update("m1", in_place, user_id="ann")
    replaced = await db.memories.update("m1", lambda _: memory(text="made anew"))
    assert (replaced.memory, replaced.topics, replaced.user_id) == ("made anew", None, "ann")
    assert replaced.created_at == first.created_at
    assert await db.memories.get("m1") == replaced
    with pytest.raises(RecordNotFound, match="memories/m2"):
        await db.memories.update("m2", in_place)
    with pytest.raises(NotOwner):
        await db.memories.update("m1", in_place, user_id="bob")
    with pytest.raises(InvalidRecord, match="memory_id"):
        await db.memories.update("m1", lambda found: found.model_copy(update={"memory_id": "m2"}))
    with pytest.raises(InvalidRecord, match="function"):
        await db.memories.update("m1", lambda found: "text")  # type: ignore[arg-type, return-value]
    assert await db.memories.get("m1") == replaced


async def test_eight_tasks_updating_reach_the_exact_sum(db: Database) -> None:
    await db.memories.upsert(memory(n=0))

    def increment(found: UserMemory) -> UserMemory:
        assert found.model_extra is not None
        return found.model_copy(update={"n": found.model_extra["n"] + 1})

    async def work() -> None:
        for _ in range(5):
            await db.memories.update("m1", increment)

    await asyncio.gather(*(work() for _ in range(8)))
    read = await db.memories.get("m1")
    assert read is not None
    assert read.model_extra == {"n": 40}


async def test_another_users_memory_is_neither_seen_nor_changed_nor_deleted(db: Database) -> None:
    stored = await db.memories.upsert(memory(user_id="ann"))
    assert await db.memories.get("m1", user_id="bob") is None
    assert (await db.memories.list(user_id="bob")).items == []
    assert await db.memories.count(user_id="bob") == 0
    assert await db.memories.topics(user_id="bob") == ()
    assert await db.memories.stats(user_id="bob") == ()
    intruding: list[tuple[UserMemory, dict[str, Any]]] = [
        (memory(user_id="bob"), {}),
        (memory(), {"user_id": "bob"}),
        (stored.model_copy(update={"user_id": "bob"}), {}),
    ]
    for mine, options in intruding:
        with pytest.raises(NotOwner):
            await db.memories.upsert(mine, **options)
        with pytest.raises(BulkWriteError) as caught:
            await db.memories.upsert_many([mine], **options)
        assert isinstance(caught.value.failed[0], NotOwner)
    with pytest.raises(InvalidRecord, match="user_id"):
        await db.memories.upsert(stored, user_id="bob")
    assert await db.memories.delete("m1", user_id="bob") is False
    assert await db.memories.delete_many(["m1"], user_id="bob") == 0
    assert await db.memories.clear(user_id="bob") == 0
    assert await db.memories.get("m1", user_id="ann") == stored
    assert await db.memories.delete("m1", user_id="ann") is True
    assert await db.memories.get("m1") is None


async def test_a_memory_of_nobody_can_be_claimed_but_not_deleted_by_a_user(db: Database) -> None:
    await db.memories.upsert(memory())
    assert await db.memories.get("m1", user_id="ann") is None
    assert await db.memories.delete("m1", user_id="ann") is False
    assert await db.memories.delete_many(["m1"], user_id="ann") == 0
    claimed = await db.memories.upsert(memory(), user_id="ann")
    assert claimed.user_id == "ann"
    assert await db.memories.get("m1", user_id="ann") == claimed


async def test_lists_filter_sort_and_page(db: Database) -> None:
    every = await a_dozen(db)
    for limit in (1, 5, 12, 100):
        assert await listed(db, limit=limit) == every[::-1]
        assert await listed(db, limit=limit, sort="updated_at") == every
        assert await listed(db, limit=limit, user_id="ann") == every[::2][::-1]
        assert await listed(db, limit=limit, agent_id="sales", sort="updated_at") == every[1::3]
        assert await listed(db, limit=limit, team_id="crew", user_id="bob", agent_id="support") == ["m09", "m03"]
        assert await listed(db, limit=limit, topics=["DRINKS", "t3"]) == ["m11", "m07", "m03"]
        assert await listed(db, limit=limit, topics="t0", user_id="ann", sort="updated_at") == ["m00", "m04", "m08"]
        assert await listed(db, limit=limit, text="STRASSE 1") == ["m11", "m10", "m01"]
        assert await listed(db, limit=limit, text="tea", user_id="bob") == []
    third = START + timedelta(days=2)
    assert await listed(db, updated_from=third, updated_to=third + timedelta(days=2), sort="updated_at") == every[4:8]
    assert await listed(db, updated_from=third, user_id="ann", limit=2) == every[4::2][::-1]
    assert await listed(db, updated_to=third, text="Kaffee") == ["m03", "m01"]
    assert await listed(db, user_id=None, topics=[], text="") == every[::-1]
    found = [each.memory_id async for each in db.memories.iterate(topics=["t1"], page_size=2, sort="updated_at")]
    assert found == every[1::4]
    assert await db.memories.count() == 12
    assert await db.memories.count(user_id="ann", agent_id="sales") == 2
    assert await db.memories.count(updated_from=third) == 8
    assert await db.memories.count(topics=["t1"]) == 3
    assert await db.memories.count(text="tea", topics=["T2"]) == 3


async def test_a_full_page_is_found_among_many_that_do_not_match(db: Database) -> None:
    await db.memories.upsert_many(
        memory(f"m{number:03}", topics=["rare"] if number % 50 == 7 else None, updated_at=START)
        for number in range(250)
    )
    rare = [f"m{number:03}" for number in range(7, 250, 50)]
    for limit in (1, 2, 5, 6):
        assert await listed(db, limit=limit, topics=["rare"], sort="updated_at") == rare
        assert await listed(db, limit=limit, topics=["rare"]) == rare[::-1]


async def test_a_cursor_goes_on_on_another_store(db: Database) -> None:
    every = await a_dozen(db)
    async with connect("memory://other") as other:
        await other.provision(COLLECTIONS)
        await a_dozen(other)
        assert await listed(db, other, limit=1) == every[::-1]
        assert await listed(other, db, limit=5, sort="updated_at", user_id="bob") == every[1::2]
        assert await listed(db, other, limit=1, topics={"t1", "DRINKS"}, text="straße") == ["m09", "m05", "m01"]


async def test_the_order_of_topics_does_not_matter_to_a_cursor(db: Database) -> None:
    await a_dozen(db)
    page = await db.memories.list(limit=1, topics=iter(["t1", "drinks"]))
    assert page.cursor is not None
    page = await db.memories.list(limit=1, topics=["drinks", "t1"], cursor=page.cursor)
    assert [each.memory_id for each in page.items] == ["m05"]
    with pytest.raises(InvalidRecord, match="cursor"):
        await db.memories.list(limit=1, topics=["t1"], cursor=page.cursor)


async def test_topics_and_stats_tell_what_there_is(db: Database) -> None:
    assert await db.memories.topics() == ()
    assert await db.memories.stats() == ()
    await a_dozen(db)
    await db.memories.upsert(memory("nobodys", topics=["own"], updated_at=START + timedelta(days=9)))
    await put_expired(db, "expired", topics=["late"], user_id="ann")
    assert await db.memories.topics() == ("Drinks", "T0", "T1", "T2", "T3", "drinks", "own")
    assert await db.memories.topics(user_id="ann") == ("Drinks", "T0", "T2")
    bob = UserStats("bob", 6, START + timedelta(days=5))
    last = await db.memories.upsert(memory("m00", user_id="ann"))
    # A service may count what has expired and is not removed yet.
    (ann, second) = await db.memories.stats()
    assert second == bob
    assert (ann.user_id, ann.last_updated_at) == ("ann", last.updated_at)
    assert ann.count in (6, 7)
    assert await db.memories.stats(user_id="bob") == (bob,)


async def test_bad_list_arguments_name_the_argument(db: Database) -> None:
    await db.memories.upsert_many([memory("a"), memory("b")])
    cursor = (await db.memories.list(limit=1)).cursor
    bad: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "limit"),
        ({"limit": 1_001}, "limit"),
        ({"limit": True}, "limit"),
        ({"sort": "memory"}, "sort"),
        ({"sort": None}, "sort"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": cursor, "user_id": "ann"}, "cursor"),
        ({"cursor": cursor, "text": "a"}, "cursor"),
        ({"cursor": cursor, "sort": "updated_at"}, "cursor"),
        ({"updated_from": "2026-01-01"}, "updated_from"),
        ({"updated_to": datetime(2026, 1, 1)}, "updated_to"),
        ({"consistency": "Strong"}, "consistency"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 5}, "user_id"),
        ({"agent_id": "\ud800"}, "agent_id"),
        ({"topics": 5}, "topics"),
        ({"topics": ["a", 5]}, "topics"),
        ({"text": ["a"]}, "text"),
        ({"colour": "red"}, "colour"),
    ]
    for arguments, path in bad:
        with pytest.raises(InvalidRecord) as caught:
            await db.memories.list(**arguments)
        assert caught.value.path == path, arguments
    with pytest.raises(InvalidRecord, match="user_id, agent_id, team_id, topics, text, updated_from, updated_to"):
        await db.memories.list(colour="red")  # type: ignore[call-arg]
    with pytest.raises(InvalidRecord, match="-updated_at, updated_at"):
        await db.memories.list(sort="created_at")  # type: ignore[arg-type]
    for call in (lambda: db.memories.count(colour="red"), lambda: anext(db.memories.iterate(colour="red"))):  # type: ignore[call-arg]
        with pytest.raises(InvalidRecord, match="colour"):
            await call()


async def test_bad_ids_name_the_field(db: Database) -> None:
    stored = await db.memories.upsert(memory())
    for bad in ("", "x" * 513, "a\x00b", "tab\t", "\ud800", "é" * 257):
        for call, path in (
            (lambda bad=bad: db.memories.upsert(memory(bad)), "memory_id"),
            (lambda bad=bad: db.memories.get(bad), "memory_id"),
            (lambda bad=bad: db.memories.delete(bad), "memory_id"),
            (lambda bad=bad: db.memories.delete_many(["m1", bad]), "memory_id"),
            (lambda bad=bad: db.memories.update(bad, lambda _: None), "memory_id"),
            (lambda bad=bad: db.memories.upsert(memory("m2", user_id=bad)), "user_id"),
        ):
            with pytest.raises(InvalidRecord) as caught:
                await call()
            assert caught.value.path == path
    assert await db.memories.get("m1") == stored
    assert await db.memories.count() == 1


async def test_strange_ids_keep_apart(db: Database) -> None:
    ids = ["a/b", "a#b", "..", ".", "__x__", "é", "e\u0301", "😀", "x" * 512, "a b", "%2F", "a\\b", '"', "a.1b"]
    await db.memories.upsert_many(memory(each, text=each, user_id=each, agent_id=each) for each in ids)
    for each in ids:
        read = await db.memories.get(each, user_id=each)
        assert read is not None
        assert (read.memory, read.agent_id) == (each, each)
        assert await listed(db, user_id=each) == [each]
    assert sorted(await listed(db, limit=3)) == sorted(ids)
    assert await db.memories.delete_many(ids) == len(ids)


async def test_what_no_store_can_hold_is_refused_with_its_path(db: Database) -> None:
    stored = await db.memories.upsert(memory(topics=["tea"]))
    for name, value, path in (
        ("x", float("nan"), "x"),
        ("x", [1, float("-inf")], "x[1]"),
        ("x", {"y": "\ud800"}, "x.y"),
        ("x", {1: 2}, "x"),
        ("x", datetime(2026, 1, 1, tzinfo=UTC), "x"),
        ("x", (1, 2), "x"),
        ("x", b"x", "x"),
        ("x", 2**5000, "x"),
        ("memory", None, "memory"),
        ("memory", "\ud800", "memory"),
        ("topics", "tea", "topics"),
        ("topics", ["tea", 5], "topics[1]"),
        ("topics", ("tea",), "topics"),
        ("input", "a\ud800", "input"),
        ("user_id", 5, "user_id"),
        ("created_at", "yesterday", "created_at"),
        ("created_at", datetime(2026, 1, 1), "created_at"),
        ("expires_at", datetime(2126, 1, 1), "expires_at"),
    ):
        changed = stored.model_copy(update={name: value})
        with pytest.raises(InvalidRecord) as caught:
            await db.memories.upsert(changed)
        assert caught.value.path == path, (name, value)
        with pytest.raises(BulkWriteError) as several:
            await db.memories.upsert_many([changed])
        assert isinstance(several.value.failed[0], InvalidRecord)
    with pytest.raises(InvalidRecord, match="usermemory"):
        await db.memories.upsert("text")  # type: ignore[arg-type]
    assert await db.memories.get("m1") == stored


async def test_odd_values_that_are_json_come_back_exactly(db: Database) -> None:
    odd: dict[str, Any] = {
        "empty": ["", {}, [], None, False],
        "numbers": [0, -0.0, 1e308, 5e-324, 2**4095, -(2**70), 1.0],
        "texts": ["\x00", "\u2028", "e\u0301", "😀", "'\";--", "\ufffe"],
        "é": {"": {" ": 1}},
        "model": "not a model's name",
    }
    stored = await db.memories.upsert(memory(text="\x00 line\r\nline", topics=["", "É", "E\u0301"], **odd))
    read = await db.memories.get("m1")
    assert read is not None
    assert repr(read.model_extra) == repr(odd)
    assert read == stored
    assert (read.memory, read.topics) == ("\x00 line\r\nline", ["", "É", "E\u0301"])


async def test_many_are_written_each_on_its_own(db: Database) -> None:
    await db.memories.upsert(memory("bobs", user_id="bob"))
    told: list[int] = []

    async def records() -> AsyncIterator[UserMemory]:
        for number in range(30):
            yield memory(f"m{number:02}", text=str(number), user_id="ann")
        yield memory("bobs", user_id="ann")
        yield memory("bad", x=float("nan"))
        yield memory("m00", text="later")

    with pytest.raises(BulkWriteError) as caught:
        await db.memories.upsert_many(records(), progress=told.append)
    error = caught.value
    assert (error.stored, len(error.versions), set(error.failed)) == (31, 33, {30, 31})
    assert isinstance(error.failed[30], NotOwner)
    assert isinstance(error.failed[31], InvalidRecord)
    assert [n for n, version in enumerate(error.versions) if version is None] == [30, 31]
    assert told[-1] == 31
    read = await db.memories.get("m00")
    assert read is not None
    assert (read.memory, read.version, read.user_id) == ("later", error.versions[32], "ann")
    assert await db.memories.count(user_id="ann") == 30
    result = await db.memories.upsert_many([])
    assert (result.stored, result.versions) == (0, [])


async def test_deleting_many_counts_those_that_were_there(db: Database) -> None:
    await db.memories.upsert_many([memory(name, user_id="ann" if name != "c" else "bob") for name in "abc"])
    told: list[int] = []
    assert await db.memories.delete_many(["a", "b", "c", "d", "a"], user_id="ann", progress=told.append) == 2
    assert told[-1] == 2
    assert await listed(db) == ["c"]
    assert await db.memories.delete_many(iter(["c"])) == 1
    assert await db.memories.delete_many([]) == 0


async def test_clearing_deletes_a_users_memories_or_all(db: Database) -> None:
    every = await a_dozen(db)
    await db.memories.upsert(memory("nobodys"))
    told: list[int] = []
    assert await db.memories.clear(user_id="ann", progress=told.append) == 6
    assert told[-1] == 6
    assert await listed(db, sort="updated_at") == [*every[1::2], "nobodys"]
    with pytest.raises(InvalidRecord, match="user_id"):
        await db.memories.clear(user_id="")
    assert await db.memories.clear() == 7
    assert await listed(db) == []
    assert await db.memories.clear() == 0
    again = await db.memories.upsert(memory("m01", user_id="ann"))
    assert await db.memories.get("m01") == again


async def test_what_has_expired_counts_as_absent(db: Database) -> None:
    await put_expired(db, "m1", user_id="ann", topics=["late"])
    assert await db.memories.get("m1") is None
    assert (await db.memories.list()).items == []
    assert await listed(db, user_id="ann", topics=["late"]) == []
    assert await db.memories.topics() == ()
    assert await db.memories.delete("m1") is False
    with pytest.raises(RecordNotFound):
        await db.memories.update("m1", lambda _: None)
    # Whoever comes now finds nothing to keep.
    stored = await db.memories.upsert(memory(user_id="bob"))
    assert stored.created_at != START
    assert await db.memories.get("m1", user_id="bob") == stored


async def test_a_memory_is_gone_a_second_or_two_after_it_was_to_be_kept_for_one(db: Database) -> None:
    before = datetime.now(UTC)
    stored = await db.memories.upsert(memory(), expires_in=1)
    after = datetime.now(UTC)
    assert stored.expires_at is not None
    assert stored.expires_at.microsecond == 0
    assert before + timedelta(seconds=1) <= stored.expires_at < after + timedelta(seconds=2)
    waiting = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda found: found is not None),
        wait=tenacity.wait_fixed(0.05),
        stop=tenacity.stop_after_delay(10),
    )
    assert await waiting(db.memories.get, "m1") is None
    assert datetime.now(UTC) >= stored.expires_at
    assert (await db.memories.list()).items == []


async def test_an_expiry_is_given_by_the_call_or_by_the_record_and_stays(db: Database) -> None:
    moment = datetime(2126, 1, 1, 12, 0, 0, 1, tzinfo=UTC)
    rounded = datetime(2126, 1, 1, 12, 0, 1, tzinfo=UTC)
    stored = await db.memories.upsert(memory(), expires_at=moment)
    assert stored.expires_at == rounded
    assert await db.memories.get("m1") == stored
    changed = await db.memories.update("m1", lambda found: found.model_copy(update={"memory": "2"}))
    assert changed.expires_at == rounded
    kept = await db.memories.upsert(changed.model_copy(update={"expires_at": None}))
    assert kept.expires_at is None
    assert await db.memories.get("m1") == kept
    await db.memories.upsert_many([memory("m2", expires_at=moment), memory("m3")], expires_in=timedelta(days=1))
    for memory_id in ("m2", "m3"):
        read = await db.memories.get(memory_id)
        assert read is not None
        assert read.expires_at is not None
        assert read.expires_at - datetime.now(UTC) < timedelta(days=1, seconds=1)
    for options, path in (
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": -(10**400)}, "expires_in"),
        ({"expires_in": 10**400}, "expires_in"),
        ({"expires_in": float("nan")}, "expires_in"),
        ({"expires_in": "1"}, "expires_in"),
        ({"expires_at": START}, "expires_at"),
        ({"expires_at": datetime.max.replace(tzinfo=UTC)}, "expires_at"),
        ({"expires_at": moment, "expires_in": 1}, "expires_at"),
    ):
        with pytest.raises(InvalidRecord) as caught:
            await db.memories.upsert(memory("m4"), **options)
        assert caught.value.path == path, options
    assert await db.memories.get("m4") is None


async def test_memories_are_kept_as_long_as_the_database_says(
    urls: tuple[str, ...], collections: tuple[str, ...]
) -> None:
    async with connect(*urls, ttl={"memories": 2}) as db:
        await db.provision(collections)
        far = datetime(2126, 1, 1, tzinfo=UTC)
        stored = await db.memories.upsert(memory())
        await db.memories.upsert_many([memory("m2"), memory("m3", expires_at=far)])
        for memory_id in ("m1", "m2"):
            read = await db.memories.get(memory_id)
            assert read is not None
            assert read.expires_at is not None
            assert timedelta(days=2) <= read.expires_at - datetime.now(UTC) + timedelta(minutes=1)
            assert read.expires_at - datetime.now(UTC) <= timedelta(days=2, seconds=1)
        read = await db.memories.get("m3")
        assert read is not None
        assert read.expires_at == far
        shorter = await db.memories.upsert(memory(), expires_in=60)
        assert shorter.expires_at is not None
        assert stored.expires_at is not None
        assert shorter.expires_at < stored.expires_at
        longer = await db.memories.update("m1", lambda _: None)
        assert longer.expires_at is not None
        assert longer.expires_at >= stored.expires_at
    with pytest.raises(ConfigurationError, match="memorys"):
        connect("memory://", ttl={"memorys": 2})


async def test_a_stored_memory_has_its_key_fields_and_expiry_where_the_schema_says(db: Database) -> None:
    await db.memories.upsert(memory(user_id="ann", agent_id="a"), expires_at=datetime(2126, 1, 1, tzinfo=UTC))
    (item,) = (await db.store.get([Key("memories", "m1")])).items
    assert item is not None
    assert set(item.fields) == {"user_id", "agent_id", "created_at", "updated_at"}
    assert item.expires_at == int(datetime(2126, 1, 1, tzinfo=UTC).timestamp())


async def test_overwriting_keeps_the_owner_and_the_creation_of_what_is_stored(db: Database) -> None:
    first = await db.memories.upsert(UserMemory(memory_id="m1", memory="tea", user_id="ann", topics=["drinks"]))
    (stored,) = await db.memories.overwrite([UserMemory(memory_id="m1", memory="coffee", user_id="bob")])
    assert (stored.memory, stored.user_id, stored.created_at, stored.topics) == (
        "coffee",
        "ann",
        first.created_at,
        None,
    )
    assert await db.memories.get("m1") == stored
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    again = [UserMemory(memory_id=each, memory=f"{n}", user_id=f"u{n}") for n, each in enumerate(("m2", "m1", "m2"))]
    new, old = await db.memories.overwrite(again, updated_at=moment)
    assert (new.memory_id, new.memory, new.user_id) == ("m2", "2", "u0")
    assert (old.memory, old.user_id, old.updated_at) == ("1", "ann", moment)
    assert new.updated_at != moment
    assert {each.memory_id: each async for each in db.memories.iterate()} == {"m1": old, "m2": new}
