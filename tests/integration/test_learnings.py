"""Learnings, on every store and in fan-outs. What they share with memories is tested there in more depth."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agno_clouddb import (
    BulkWriteError,
    ConflictError,
    Database,
    InvalidRecord,
    Learning,
    NotOwner,
    RecordNotFound,
    connect,
)
from agno_clouddb.repositories.reads import UserStats
from agno_clouddb.stores.base import Key, Put, Stored
from agno_clouddb.stores.clock import HybridClock

COLLECTIONS = ("learnings",)

START = datetime(2026, 3, 1, tzinfo=UTC)


def learning(learning_id: str = "l1", learning_type: str = "user_profile", **values: Any) -> Learning:
    values.setdefault("content", {"likes": "tea"})
    return Learning(learning_id=learning_id, learning_type=learning_type, **values)


async def a_dozen(db: Database) -> list[str]:
    """Twelve learnings, a day apart; their ids in the order in which they were last written."""
    await db.learnings.upsert_many(
        learning(
            f"l{number:02}",
            ("user_profile", "session_context", "entity_memory")[number % 3],
            user_id=("ann", "bob")[number % 2],
            namespace=("user", "global")[number % 2],
            agent_id=f"a{number % 4}",
            team_id=f"t{number % 2}",
            workflow_id=f"w{number % 3}",
            session_id=f"s{number // 6}",
            entity_id=f"e{number % 3}" if number % 3 else None,
            entity_type="person" if number % 3 else None,
            content={"n": number, "deep": [{f"key_{number}": ["Straße", {"x": "Sarah_Chen" if number % 4 else None}]}]},
            updated_at=START + timedelta(days=number // 2),
        )
        for number in range(12)
    )
    return [f"l{number:02}" for number in range(12)]


async def listed(db: Database, *others: Database, limit: int = 100, **arguments: Any) -> list[str]:
    """The ids of a list that is paged to its end, each page by the next of the databases."""
    found: list[str] = []
    cursor, turn = None, 0
    while True:
        page = await (db, *others)[turn].learnings.list(limit=limit, cursor=cursor, **arguments)
        found += [each.learning_id for each in page.items]
        assert not page.degraded
        assert len(page.items) == limit or page.cursor is None
        cursor, turn = page.cursor, (turn + 1) % (1 + len(others))
        if cursor is None:
            return found


async def searched(db: Database, text: str, limit: int = 100, **arguments: Any) -> list[str]:
    """The ids of a search that is paged to its end."""
    found: list[str] = []
    cursor = None
    while True:
        page = await db.learnings.search(text, limit=limit, cursor=cursor, **arguments)
        found += [each.learning_id for each in page.items]
        assert len(page.items) == limit or page.cursor is None
        cursor = page.cursor
        if cursor is None:
            return found


async def put_expired(db: Database, learning_id: str, **values: Any) -> None:
    """Store a learning whose expiry has passed, as it stands until the service removes it."""
    record = learning(learning_id, updated_at=START, created_at=START, **values)
    item = record.to_item(record.key, HybridClock().stamp())
    (outcome,) = await db.store.write([Put(replace(item, expires_at=int(time.time()) - 60))])
    assert isinstance(outcome, Stored)


async def test_a_learning_round_trips_with_everything_in_it(db: Database) -> None:
    written = learning(
        content={"Flüge": [{"a": [1, 2.5, None, True, "", {}, []]}], "big": 2**80, "": "x" * 3000},
        namespace="user",
        user_id="ann",
        agent_id="support",
        team_id="crew",
        workflow_id="w",
        session_id="s1",
        entity_id="e1",
        entity_type="person",
        metadata={},
        created_at=START,
        unheard_of={"kept": [None]},
    )
    stored = await db.learnings.upsert(written)
    read = await db.learnings.get("l1")
    assert read == stored
    assert read is not None
    assert read.version is not None
    assert read.updated_at is not None
    left_out = {"version", "updated_at"}
    assert read.model_dump(exclude=left_out) == written.model_dump(exclude=left_out)


async def test_a_learning_without_an_id_gets_one(db: Database) -> None:
    first, second = [await db.learnings.upsert(Learning(learning_type="x", content={})) for _ in range(2)]
    assert first.learning_id != second.learning_id
    assert await db.learnings.get(first.learning_id) == first
    assert await db.learnings.count() == 2
    assert await db.learnings.get("nobody") is None
    assert await db.learnings.delete("nobody") is False


async def test_upserting_an_object_made_anew_keeps_when_it_was_created_and_whose_it_is(db: Database) -> None:
    first = await db.learnings.upsert(learning(user_id="ann", entity_id="e1"))
    second = await db.learnings.upsert(learning(content={"n": 2}))
    assert (second.created_at, second.user_id, second.entity_id) == (first.created_at, "ann", None)
    assert await db.learnings.get("l1") == second
    # What a field selected by is no longer listed there.
    assert await listed(db, entity_id="e1") == []
    assert await listed(db, user_id="ann") == ["l1"]
    third = await db.learnings.upsert(learning(content={"n": 3}), expected_version=second.version)
    assert (third.created_at, third.user_id) == (first.created_at, "ann")
    for stale in (second, learning()):
        with pytest.raises(ConflictError) as caught:
            await db.learnings.upsert(stale, expected_version=second.version)
        assert caught.value.found == third.version
    assert await db.learnings.get("l1") == third


async def test_updating_changes_what_is_stored_and_keeps_the_rest(db: Database) -> None:
    first = await db.learnings.upsert(learning(user_id="ann", metadata={"m": 1}, unheard_of=1))

    def add(found: Learning) -> None:
        found.content["and"] = "coffee"

    changed = await db.learnings.update("l1", add, user_id="ann")
    assert changed.content == {"likes": "tea", "and": "coffee"}
    left_out = {"content", "version", "updated_at"}
    assert changed.model_dump(exclude=left_out) == first.model_dump(exclude=left_out)
    assert await db.learnings.get("l1") == changed
    with pytest.raises(RecordNotFound, match="learnings/l2"):
        await db.learnings.update("l2", add)
    with pytest.raises(NotOwner):
        await db.learnings.update("l1", add, user_id="bob")
    with pytest.raises(InvalidRecord, match="learning_id"):
        await db.learnings.update("l1", lambda found: found.model_copy(update={"learning_id": "l2"}))
    assert await db.learnings.get("l1") == changed


async def test_another_users_learning_is_neither_seen_nor_changed_nor_deleted(db: Database) -> None:
    stored = await db.learnings.upsert(learning(user_id="ann"))
    assert await db.learnings.get("l1", user_id="bob") is None
    assert await listed(db, user_id="bob") == []
    assert await searched(db, "tea", user_id="bob") == []
    assert await db.learnings.count(user_id="bob") == 0
    assert await db.learnings.stats(user_id="bob") == ()
    intruding: list[tuple[Learning, dict[str, Any]]] = [
        (learning(user_id="bob"), {}),
        (learning(), {"user_id": "bob"}),
    ]
    for mine, options in intruding:
        with pytest.raises(NotOwner):
            await db.learnings.upsert(mine, **options)
        with pytest.raises(BulkWriteError) as caught:
            await db.learnings.upsert_many([mine], **options)
        assert isinstance(caught.value.failed[0], NotOwner)
    assert await db.learnings.delete("l1", user_id="bob") is False
    assert await db.learnings.delete_many(["l1"], user_id="bob") == 0
    assert await db.learnings.get("l1", user_id="ann") == stored
    assert await db.learnings.delete("l1", user_id="ann") is True
    assert await db.learnings.get("l1") is None


async def test_a_learning_about_nobody_can_be_claimed_but_not_deleted_by_a_user(db: Database) -> None:
    await db.learnings.upsert(learning())
    assert await db.learnings.get("l1", user_id="ann") is None
    assert await db.learnings.delete("l1", user_id="ann") is False
    claimed = await db.learnings.upsert(learning(), user_id="ann")
    assert await db.learnings.get("l1", user_id="ann") == claimed


async def test_lists_filter_sort_and_page(db: Database) -> None:
    every = await a_dozen(db)
    for limit in (1, 5, 12, 100):
        assert await listed(db, limit=limit) == every[::-1]
        assert await listed(db, limit=limit, sort="updated_at") == every
        assert await listed(db, limit=limit, user_id="ann", sort="updated_at") == every[::2]
        assert await listed(db, limit=limit, learning_type="session_context") == every[1::3][::-1]
        assert await listed(db, limit=limit, entity_id="e2") == every[2::3][::-1]
        assert await listed(db, limit=limit, namespace="global", learning_type="user_profile") == ["l09", "l03"]
    for filters, ids in (
        ({"agent_id": "a1"}, every[1::4]),
        ({"team_id": "t1"}, every[1::2]),
        ({"workflow_id": "w0"}, every[::3]),
        ({"session_id": "s1"}, every[6:]),
        ({"entity_type": "person", "user_id": "ann"}, ["l02", "l04", "l08", "l10"]),
        (
            {"entity_id": "e1", "entity_type": "person", "user_id": "bob", "learning_type": "session_context"},
            every[1::6],
        ),
        ({"updated_from": START + timedelta(days=2), "updated_to": START + timedelta(days=4)}, every[4:8]),
        ({"updated_from": START + timedelta(days=2), "user_id": "ann"}, every[4::2]),
        ({"user_id": None}, every),
        ({"entity_id": "E1"}, []),
    ):
        assert await listed(db, limit=2, sort="updated_at", **filters) == ids, filters
        assert await listed(db, **filters) == ids[::-1], filters
        assert await db.learnings.count(**filters) == len(ids), filters
    found = [each.learning_id async for each in db.learnings.iterate(user_id="bob", page_size=4, sort="updated_at")]
    assert found == every[1::2]


async def test_searching_finds_values_and_names_at_any_depth_whatever_their_case(db: Database) -> None:
    every = await a_dozen(db)
    for limit in (1, 4, 100):
        assert await searched(db, "STRASSE", limit) == every[::-1]
        assert await searched(db, "key_1", limit, sort="updated_at") == ["l01", "l10", "l11"]
        assert await searched(db, "sarah chen", limit, user_id="ann") == ["l10", "l06", "l02"]
        assert await searched(db, "Sarah_Chen", limit, entity_id="e2") == ["l11", "l05", "l02"]
    assert await searched(db, "sarahchen") == []
    # Numbers are no text, and neither are the other attributes.
    assert await searched(db, "11") == ["l11"]
    assert await searched(db, "person") == []
    assert await searched(db, "deep", updated_from=START + timedelta(days=5)) == ["l11", "l10"]


async def test_a_cursor_of_a_search_is_good_for_the_same_text_on_any_store(db: Database) -> None:
    every = await a_dozen(db)
    async with connect("memory://other") as other:
        await other.provision(COLLECTIONS)
        await a_dozen(other)
        assert await listed(db, other, limit=1, sort="updated_at") == every
        assert await listed(other, db, limit=2, user_id="bob") == every[1::2][::-1]
        page = await db.learnings.search("key_1", limit=2)
        rest = await other.learnings.search("key_1", limit=2, cursor=page.cursor)
        assert [each.learning_id for each in (*page.items, *rest.items)] == ["l11", "l10", "l01"]
        for text, options in (("key_2", {}), ("key_1", {"user_id": "ann"}), ("key_1", {"sort": "updated_at"})):
            with pytest.raises(InvalidRecord, match="cursor"):
                await other.learnings.search(text, cursor=page.cursor, **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidRecord, match="cursor"):
            await other.learnings.list(cursor=page.cursor)


async def test_a_full_page_is_found_among_many_that_do_not_match(db: Database) -> None:
    await db.learnings.upsert_many(
        learning(f"l{number:03}", content={"x": "rare" if number % 50 == 7 else "common"}, updated_at=START)
        for number in range(250)
    )
    rare = [f"l{number:03}" for number in range(7, 250, 50)]
    for limit in (1, 2, 5, 6):
        assert await searched(db, "RARE", limit, sort="updated_at") == rare


async def test_stats_tell_how_much_there_is_of_each_user(db: Database) -> None:
    assert await db.learnings.stats() == ()
    await a_dozen(db)
    await db.learnings.upsert(learning("nobodys", updated_at=START + timedelta(days=9)))
    ann = UserStats("ann", 6, START + timedelta(days=5))
    bob = UserStats("bob", 6, START + timedelta(days=5))
    assert await db.learnings.stats() == (bob, ann)
    assert await db.learnings.stats(user_id="ann") == (ann,)
    profiles = await db.learnings.stats(learning_type="user_profile")
    assert profiles == (
        UserStats("bob", 2, START + timedelta(days=4)),
        UserStats("ann", 2, START + timedelta(days=3)),
    )
    assert await db.learnings.stats(user_id="ann", learning_type="user_profile") == profiles[1:]


async def test_bad_list_arguments_name_the_argument(db: Database) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "limit"),
        ({"sort": "created_at"}, "sort"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"updated_from": "2026-01-01"}, "updated_from"),
        ({"consistency": "Strong"}, "consistency"),
        ({"user_id": ""}, "user_id"),
        ({"learning_type": 5}, "learning_type"),
        ({"text": 5}, "text"),
        ({"topics": ["tea"]}, "topics"),
    ]
    for arguments, path in bad:
        with pytest.raises(InvalidRecord) as caught:
            await db.learnings.list(**arguments)
        assert caught.value.path == path, arguments
    with pytest.raises(InvalidRecord, match=r"learning_type, namespace, user_id, agent_id, .*, updated_to, text"):
        await db.learnings.count(topics=["tea"])  # type: ignore[call-arg]
    for text in (5, None, ["tea"]):
        with pytest.raises(InvalidRecord) as caught:
            await db.learnings.search(text)  # type: ignore[arg-type]
        assert caught.value.path == "text"


async def test_what_no_store_can_hold_is_refused_with_its_path(db: Database) -> None:
    stored = await db.learnings.upsert(learning(user_id="ann"))
    for name, value, path in (
        ("content", {"x": float("nan")}, "content.x"),
        ("content", {"x": [{"y": "\ud800"}]}, "content.x[0].y"),
        ("content", {"x": {1: 2}}, "content.x"),
        ("content", {"x": (1, 2)}, "content.x"),
        ("content", {"x": datetime(2026, 1, 1, tzinfo=UTC)}, "content.x"),
        ("content", ["x"], "content"),
        ("content", None, "content"),
        ("metadata", "text", "metadata"),
        ("learning_type", None, "learning_type"),
        ("learning_type", "", "learning_type"),
        ("entity_id", "tab\t", "entity_id"),
        ("entity_id", "x" * 513, "entity_id"),
        ("user_id", "\ud800", "user_id"),
        ("namespace", "\ud800", "namespace"),
        ("namespace", 5, "namespace"),
        ("learning_id", "", "learning_id"),
        ("updated_at", "now", "updated_at"),
    ):
        changed = stored.model_copy(update={name: value})
        with pytest.raises(InvalidRecord) as caught:
            await db.learnings.upsert(changed)
        assert caught.value.path == path, (name, value)
        with pytest.raises(BulkWriteError) as several:
            await db.learnings.upsert_many([changed])
        assert isinstance(several.value.failed[0], InvalidRecord)
    with pytest.raises(InvalidRecord, match="learning"):
        await db.learnings.upsert({"content": {}})  # type: ignore[arg-type]
    assert await db.learnings.get("l1") == stored


async def test_odd_values_that_are_json_come_back_exactly(db: Database) -> None:
    content = {
        "empty": ["", {}, [], None, False],
        "numbers": [0, -0.0, 1e308, 5e-324, 2**4095, -(2**70), 1.0],
        "texts": ["\x00", "\u2028", "e\u0301", "😀", "'\";--", "\ufffe"],
        "": {" ": {"a.b": 1, "$x": 2, "__name__": 3}},
    }
    # What only filters may be any text.
    stored = await db.learnings.upsert(learning(content=content, metadata=content, namespace="x" * 512))
    read = await db.learnings.get("l1")
    assert read is not None
    assert repr((read.content, read.metadata)) == repr((content, content))
    assert read == stored


async def test_strange_ids_keep_apart(db: Database) -> None:
    ids = ["a/b", "a#b", "..", "__x__", "é", "e\u0301", "😀", "x" * 512, "%2F", '"']
    await db.learnings.upsert_many(
        learning(each, each, content={"id": each}, user_id=each, entity_id=each, namespace=each) for each in ids
    )
    for each in ids:
        read = await db.learnings.get(each, user_id=each)
        assert read is not None
        assert read.content == {"id": each}
        for filters in ({"learning_type": each}, {"entity_id": each}, {"namespace": each}):
            assert await listed(db, **filters) == [each]  # type: ignore[arg-type]
    assert sorted(await listed(db, limit=3)) == sorted(ids)
    assert await db.learnings.delete_many([*ids, "none"]) == len(ids)
    assert await db.learnings.count() == 0


async def test_many_are_written_each_on_its_own(db: Database) -> None:
    await db.learnings.upsert(learning("bobs", user_id="bob"))
    records = [learning(f"l{number:02}", user_id="ann") for number in range(30)]
    with pytest.raises(BulkWriteError) as caught:
        await db.learnings.upsert_many([*records, learning("bobs"), learning("bad", content={"x": {1}})], user_id="ann")
    assert caught.value.stored == 30
    assert {position: type(error) for position, error in caught.value.failed.items()} == {
        30: NotOwner,
        31: InvalidRecord,
    }
    assert await db.learnings.count(user_id="ann") == 30
    assert await db.learnings.delete_many([each.learning_id for each in records], user_id="ann") == 30
    assert await listed(db) == ["bobs"]


async def test_what_has_expired_counts_as_absent(
    db: Database, urls: tuple[str, ...], collections: tuple[str, ...]
) -> None:
    await put_expired(db, "l1", user_id="ann", entity_id="e1", learning_type="x")
    assert await db.learnings.get("l1") is None
    for filters in ({}, {"user_id": "ann"}, {"entity_id": "e1"}, {"learning_type": "x"}):
        assert await listed(db, **filters) == []  # type: ignore[arg-type]
    assert await searched(db, "tea") == []
    assert await db.learnings.delete("l1") is False
    stored = await db.learnings.upsert(learning(user_id="bob"), expires_in=3600)
    assert stored.created_at != START
    assert await db.learnings.get("l1", user_id="bob") == stored
    (item,) = (await db.store.get([Key("learnings", "l1")])).items
    assert item is not None
    assert item.expires_at is not None
    assert 3590 < item.expires_at - time.time() <= 3601
    async with connect(*urls, ttl={"learnings": timedelta(hours=1)}) as other:
        await other.provision(collections)
        kept = await other.learnings.upsert(learning("l2"))
        assert kept.expires_at is not None
        assert timedelta(minutes=59) < kept.expires_at - datetime.now(UTC) <= timedelta(hours=1, seconds=1)


async def test_overwriting_keeps_whom_and_what_a_learning_is_about_and_takes_the_rest(db: Database) -> None:
    about = {"namespace": "user", "agent_id": "a1", "team_id": "t1", "workflow_id": "w1", "session_id": "s1"}
    first = await db.learnings.overwrite(learning(user_id="ann", entity_type="person", metadata={"n": 1}, **about))
    second = await db.learnings.overwrite(
        learning(learning_type="other", content={"n": 2}, user_id="bob", entity_id="e1", agent_id="a2", namespace="x")
    )
    assert second == await db.learnings.get("l1")
    assert (second.content, second.metadata) == ({"n": 2}, None)
    changed = {"content", "metadata", "version", "updated_at"}
    assert second.model_dump(exclude=changed) == first.model_dump(exclude=changed)
    assert second.updated_at is not None
    assert first.updated_at is not None
    assert second.updated_at > first.updated_at
    # Whatever version the object has: it counts as made anew.
    third = await db.learnings.overwrite(first.model_copy(update={"user_id": "eve", "content": {"n": 3}}))
    assert (third.user_id, third.content) == ("ann", {"n": 3})
    assert await listed(db, user_id="ann") == ["l1"]
    with pytest.raises(InvalidRecord):
        await db.learnings.overwrite({})  # type: ignore[arg-type]


async def test_clearing_deletes_what_is_of_a_user_and_a_type(db: Database) -> None:
    await a_dozen(db)
    told: list[int] = []
    assert await db.learnings.clear(user_id="ann", learning_type="user_profile", progress=told.append) == 2
    assert told[-1] == 2
    assert await listed(db, user_id="ann", learning_type="user_profile") == []
    assert await db.learnings.count() == 10
    assert await db.learnings.clear(user_id="ann") == 4
    assert await db.learnings.clear(user_id="nobody") == 0
    assert await db.learnings.clear() == 6
    assert await db.learnings.count() == 0
