"""Sessions and runs, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
import base64
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agno_clouddb import (
    CloudDBError,
    ConflictError,
    Database,
    InvalidRecord,
    NotOwner,
    RecordNotFound,
    RecordTooLarge,
    Run,
    Session,
    connect,
)
from agno_clouddb.stores.base import Delete, Key, Stored
from agno_clouddb.stores.clock import HybridClock, wall_clock_millis

COLLECTIONS = ("sessions", "runs")


def session(session_id: str = "s1", **values: Any) -> Session:
    return Session(session_id=session_id, **values)


def run(run_id: str, **data: Any) -> Run:
    return Run(run_id=run_id, status="completed", data=data)


async def test_a_session_round_trips_with_everything_in_it(db: Database) -> None:
    written = session(
        session_type="team",
        component_id="support",
        user_id="ann",
        session_data={"session_name": "Flüge", "deep": [{"a": [1, 2.5, None, True, "", {}, []]}], "big": 2**80},
        metadata={},
        summary={"summary": "x" * 3000},
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2))),
        unheard_of={"kept": [None]},
    )
    stored = await db.sessions.upsert(written)
    read = await db.sessions.get("s1")
    assert read == stored
    assert read is not None
    assert read.session_data == written.session_data
    assert read.metadata == {}
    assert read.summary == written.summary
    assert read.created_at == written.created_at
    assert read.model_extra == {"unheard_of": {"kept": [None]}}
    assert read.version is not None


async def test_a_missing_session_is_none(db: Database) -> None:
    assert await db.sessions.get("nobody") is None
    assert await db.sessions.get_run("nobody", "r1") is None
    assert await db.sessions.delete("nobody") is False


async def test_upserting_an_object_made_anew_keeps_when_the_session_was_created(db: Database) -> None:
    first = await db.sessions.upsert(session(session_data={"turn": 1}))
    second = await db.sessions.upsert(session(session_data={"turn": 2}))
    assert second.created_at == first.created_at
    assert second.generation == first.generation
    assert first.updated_at is not None
    assert second.updated_at is not None
    assert second.updated_at > first.updated_at
    read = await db.sessions.get("s1")
    assert read == second


async def test_a_session_that_went_out_as_json_comes_back_as_what_was_read(db: Database) -> None:
    await db.sessions.upsert(session(user_id="ann", session_data={"n": 1}))
    await db.sessions.append_run("s1", run("r1"))
    read = await db.sessions.get("s1", runs=0)
    assert read is not None
    back = Session.model_validate_json(read.model_dump_json())
    assert back == read
    stored = await db.sessions.upsert(back)
    assert stored.created_at == read.created_at
    again = await db.sessions.get("s1")
    assert again is not None
    assert [each.run_id for each in again.runs] == ["r1"]


async def test_an_expected_version_is_written_only_over_that_version(db: Database) -> None:
    first = await db.sessions.upsert(session(session_data={"n": 1}))
    assert first.version is not None
    second = await db.sessions.upsert(
        first.model_copy(update={"session_data": {"n": 2}}), expected_version=first.version
    )
    with pytest.raises(ConflictError) as caught:
        await db.sessions.upsert(first, expected_version=first.version)
    assert caught.value.expected == first.version
    assert caught.value.found == second.version
    # An object that was not read keeps what the stored session was created with.
    third = await db.sessions.upsert(session(session_data={"n": 3}), expected_version=second.version)
    assert third.created_at == first.created_at
    await db.sessions.delete("s1")
    with pytest.raises(ConflictError):
        await db.sessions.upsert(third, expected_version=third.version)
    with pytest.raises(InvalidRecord, match="expected_version"):
        await db.sessions.upsert(third, expected_version="yesterday")


async def test_the_last_runs_are_given_oldest_first(db: Database) -> None:
    await db.sessions.upsert(session())
    for number in range(7):
        await db.sessions.append_run("s1", run(f"r{9 - number}", n=number))

    async def numbers(runs: Any) -> list[int]:
        read = await db.sessions.get("s1", runs=runs)
        assert read is not None
        return [each.data["n"] for each in read.runs if each.data is not None]

    assert await numbers("all") == list(range(7))
    assert await numbers(3) == [4, 5, 6]
    assert await numbers(7) == list(range(7))
    assert await numbers(100) == list(range(7))
    assert await numbers(0) == []
    for bad in (-1, True, "some"):
        with pytest.raises(InvalidRecord, match="runs"):
            await db.sessions.get("s1", runs=bad)  # type: ignore[arg-type]


async def test_a_run_written_again_keeps_its_place(db: Database) -> None:
    await db.sessions.upsert(session())
    first = await db.sessions.append_run("s1", run("r1", n=1))
    await db.sessions.append_run("s1", run("r2", n=2))
    # Three ways: the object that was returned, an object made anew, and appending once more.
    await db.sessions.upsert_run("s1", first.model_copy(update={"data": {"n": 10}}))
    await db.sessions.upsert_run("s1", run("r1", n=11))
    await db.sessions.append_run("s1", run("r1", n=12))
    await db.sessions.upsert_run("s1", run("r3", n=3))
    read = await db.sessions.get("s1")
    assert read is not None
    assert [(each.run_id, each.data) for each in read.runs] == [("r1", {"n": 12}), ("r2", {"n": 2}), ("r3", {"n": 3})]
    got = await db.sessions.get_run("s1", "r1")
    assert got == read.runs[0]
    assert got is not None
    assert got.session_id == "s1"
    assert got.run_index == first.run_index


async def test_runs_given_with_a_new_session_are_appended_in_order(db: Database) -> None:
    stored = await db.sessions.upsert(session(runs=[run("b", n=1), run("a", n=2)]))
    assert all(each.version for each in stored.runs)
    read = await db.sessions.get("s1")
    assert read is not None
    assert [each.run_id for each in read.runs] == ["b", "a"]
    versions = [each.version for each in read.runs]
    await db.sessions.upsert(read)
    again = await db.sessions.get("s1")
    assert again is not None
    assert [each.version for each in again.runs] == versions


async def test_a_session_with_a_run_that_cannot_be_stored_is_not_written(db: Database) -> None:
    for runs, path in (([run("a"), run("b", x=float("nan"))], "data.x"), ([run("a"), run("a")], "runs")):
        with pytest.raises(InvalidRecord) as caught:
            await db.sessions.upsert(session(runs=runs))
        assert caught.value.path == path
    assert await db.sessions.get("s1") is None


async def test_a_run_left_over_from_an_earlier_session_is_neither_shown_nor_in_the_way(db: Database) -> None:
    await db.sessions.upsert(session(runs=[run("r1", n="old"), run("r2", n="old")]))
    (header,) = (await db.store.get([Key("sessions", "s1")])).items
    assert header is not None
    # A deletion that was interrupted after the header.
    clock = HybridClock()
    clock.observe(header.version)
    (outcome,) = await db.store.write([Delete(header.key, clock.stamp())])
    assert isinstance(outcome, Stored)
    await db.sessions.upsert(session())
    read = await db.sessions.get("s1", runs=1)
    assert read is not None
    assert read.runs == []
    assert await db.sessions.get_run("s1", "r1") is None
    await db.sessions.append_run("s1", run("r3", n="new"))
    await db.sessions.append_run("s1", run("r1", n="new"))
    for read in (await db.sessions.get("s1"), await db.sessions.get("s1", runs=2)):
        assert read is not None
        assert [(each.run_id, each.data) for each in read.runs] == [("r3", {"n": "new"}), ("r1", {"n": "new"})]


async def test_a_deletion_that_was_interrupted_is_completed_by_repeating_it(db: Database) -> None:
    await db.sessions.upsert(session(user_id="ann", runs=[run("r1"), run("r2")]))
    (header,) = (await db.store.get([Key("sessions", "s1")])).items
    assert header is not None
    clock = HybridClock()
    clock.observe(header.version)
    await db.store.write([Delete(header.key, clock.stamp())])
    assert await db.sessions.delete("s1", user_id="ann") is False
    assert (await db.store.get([Key("runs", "r1", "s1"), Key("runs", "r2", "s1")])).items == (None, None)


async def test_clocks_that_differ_neither_keep_a_deleted_run_nor_hide_a_new_one(
    db: Database, urls: tuple[str, ...]
) -> None:
    ahead = Database(db.store, clock=HybridClock(now=lambda: wall_clock_millis() + 300_000))
    behind = Database(db.store, clock=HybridClock(now=lambda: wall_clock_millis() - 300_000))
    for database in (ahead, behind):
        database._connection._loop = asyncio.get_running_loop()  # share the open store
    await ahead.sessions.upsert(session(runs=[run("r1")]))
    await behind.sessions.append_run("s1", run("r2"))
    read = await db.sessions.get("s1")
    assert read is not None
    assert {each.run_id for each in read.runs} == {"r1", "r2"}
    await behind.sessions.append_run("s1", run("r0"))
    await behind.sessions.get("s1", runs=1)
    last = await behind.sessions.append_run("s1", run("r9"))  # who has read a run comes after it, whatever the clocks
    read = await db.sessions.get("s1")
    assert read is not None
    assert read.runs[-1] == last
    assert await behind.sessions.delete("s1") is True
    assert (await db.store.get([Key("runs", "r1", "s1"), Key("runs", "r2", "s1")])).items == (None, None)
    await behind.sessions.upsert(session())
    await behind.sessions.append_run("s1", run("r3"))
    read = await ahead.sessions.get("s1")
    assert read is not None
    assert [each.run_id for each in read.runs] == ["r3"]


async def test_a_run_keeps_when_it_was_first_written(db: Database) -> None:
    await db.sessions.upsert(session())
    first = await db.sessions.append_run("s1", run("r1"))
    assert first.created_at is not None
    again = await db.sessions.append_run("s1", run("r1", n=2))
    assert again.created_at == first.created_at
    given = datetime(2020, 1, 1, tzinfo=UTC)
    kept = await db.sessions.append_run("s1", Run(run_id="r2", created_at=given))
    assert kept.created_at == given


async def test_an_object_without_an_owner_does_not_take_the_owner_away(db: Database) -> None:
    await db.sessions.upsert(session(user_id="ann"))
    stored = await db.sessions.upsert(session(session_data={"n": 1}))
    assert stored.user_id == "ann"
    assert await db.sessions.get("s1", user_id="ann") is not None


async def test_a_value_of_the_wrong_type_is_refused_when_it_is_written(db: Database) -> None:
    stored = await db.sessions.upsert(session(session_data={"n": 1}))
    for name, value in (("metadata", ["x"]), ("session_data", "text"), ("created_at", "yesterday"), ("user_id", 5)):
        changed = stored.model_copy(update={name: value})
        with pytest.raises(InvalidRecord) as caught:
            await db.sessions.upsert(changed)
        assert caught.value.path == name
    with pytest.raises(InvalidRecord, match="name"):
        await db.sessions.rename("s1", 5)  # type: ignore[arg-type]
    assert await db.sessions.get("s1") == stored


async def test_a_run_needs_its_session(db: Database) -> None:
    with pytest.raises(RecordNotFound, match="sessions/nowhere"):
        await db.sessions.append_run("nowhere", run("r1"))


async def test_a_session_id_used_again_shows_no_old_runs(db: Database, urls: tuple[str, ...]) -> None:
    await db.sessions.upsert(session(runs=[run("r1"), run("r2")]))
    assert await db.sessions.delete("s1") is True
    assert await db.sessions.get("s1") is None
    assert await db.sessions.get_run("s1", "r1") is None
    await db.sessions.upsert(session())
    read = await db.sessions.get("s1")
    assert read is not None
    assert read.runs == []
    await db.sessions.append_run("s1", run("r2", n="new"))
    read = await db.sessions.get("s1", runs=5)
    assert read is not None
    assert [each.data for each in read.runs] == [{"n": "new"}]


async def test_another_users_session_is_neither_seen_nor_changed_nor_deleted(db: Database) -> None:
    await db.sessions.upsert(session(user_id="ann", session_data={"n": 1}, runs=[run("r1")]))
    assert await db.sessions.get("s1", user_id="bob") is None
    assert await db.sessions.get_run("s1", "r1", user_id="bob") is None
    assert (await db.sessions.list(user_id="bob")).items == []
    for write in (
        lambda: db.sessions.upsert(session(user_id="bob")),
        lambda: db.sessions.upsert(session(), user_id="bob"),
        lambda: db.sessions.rename("s1", "mine", user_id="bob"),
        lambda: db.sessions.append_run("s1", run("r2"), user_id="bob"),
        lambda: db.sessions.upsert_run("s1", run("r1"), user_id="bob"),
    ):
        with pytest.raises(NotOwner):
            await write()
    assert await db.sessions.delete("s1", user_id="bob") is False
    with pytest.raises(InvalidRecord, match="user_id"):
        await db.sessions.upsert(session(user_id="ann"), user_id="bob")
    read = await db.sessions.get("s1", user_id="ann")
    assert read is not None
    assert read.session_data == {"n": 1}
    assert [each.run_id for each in read.runs] == ["r1"]
    assert await db.sessions.delete("s1", user_id="ann") is True


async def test_a_session_of_nobody_can_be_claimed_but_not_deleted_by_a_user(db: Database) -> None:
    await db.sessions.upsert(session())
    assert await db.sessions.delete("s1", user_id="ann") is False
    claimed = await db.sessions.upsert(session(), user_id="ann")
    assert claimed.user_id == "ann"
    assert await db.sessions.get("s1", user_id="ann") is not None


async def test_lists_filter_sort_and_page(db: Database) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for number in range(12):
        moment = start + timedelta(days=number // 2)
        await db.sessions.upsert(
            session(
                f"s{number:02}",
                session_type=("agent", "team", "workflow")[number % 3],
                component_id=f"c{number % 2}",
                user_id=("ann", "bob")[number % 2],
                session_data={"session_name": f"Trip {number} to {('ROME', 'Oslo')[number % 2]}"},
                created_at=moment,
                updated_at=start + timedelta(days=20 - number),
            )
        )

    async def ids(limit: int = 100, **arguments: Any) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = await db.sessions.list(limit=limit, cursor=cursor, **arguments)
            found += [each.session_id for each in page.items]
            assert not page.degraded
            assert len(page.items) == limit or page.cursor is None
            cursor = page.cursor
            if cursor is None:
                return found

    every = [f"s{number:02}" for number in range(12)]
    for limit in (1, 4, 5, 12, 100):
        assert await ids(limit) == every[::-1]
        assert await ids(limit, sort="created_at") == every
        assert await ids(limit, sort="updated_at") == every[::-1]
        assert await ids(limit, sort="-updated_at", user_id="ann") == every[::2]
        assert await ids(limit, user_id="bob") == every[1::2][::-1]
        assert await ids(limit, session_type="team", component_id="c0") == ["s10", "s04"]
        assert await ids(limit, name="rome") == every[::2][::-1]
        assert await ids(limit, name="TRIP 1") == ["s11", "s10", "s01"]
        assert await ids(limit, user_id="ann", component_id="c1") == []
    third = start + timedelta(days=2)
    assert await ids(created_from=third, created_to=third + timedelta(days=2), sort="created_at") == every[4:8]
    assert await ids(updated_to=start + timedelta(days=10)) == ["s11"]
    assert await ids(updated_from=start + timedelta(days=19), sort="updated_at") == ["s01", "s00"]
    assert await ids(created_from=third, updated_from=start + timedelta(days=16), user_id="ann") == ["s04"]
    assert [each.session_id async for each in db.sessions.iterate(user_id="bob", page_size=2)] == every[1::2][::-1]
    assert await db.sessions.count() == 12
    assert await db.sessions.count(user_id="ann") == 6
    assert await db.sessions.count(session_type="team", component_id="c0") == 2
    assert await db.sessions.count(name="oslo", created_from=third) == 4
    assert await db.sessions.count(updated_from=start + timedelta(days=19)) == 2


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def test_bad_list_arguments_name_the_argument(db: Database) -> None:
    await db.sessions.upsert(session("a"))
    await db.sessions.upsert(session("b"))
    cursor = (await db.sessions.list(limit=1)).cursor
    for arguments, path in (
        ({"limit": 0}, "limit"),
        ({"limit": 1_001}, "limit"),
        ({"sort": "name"}, "sort"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": encoded("[" * 100_000)}, "cursor"),
        ({"cursor": encoded('["sessions by -created_at","\\ud800","a"]')}, "cursor"),
        ({"cursor": encoded('["sessions by -created_at","2026",""]')}, "cursor"),
        ({"created_from": "2026-01-01"}, "created_from"),
        ({"consistency": "Strong"}, "consistency"),
        ({"cursor": cursor, "user_id": "ann"}, "cursor"),
        ({"cursor": cursor, "sort": "created_at"}, "cursor"),
        ({"created_from": datetime(2026, 1, 1)}, "created_from"),
        ({"user_id": ""}, "user_id"),
    ):
        with pytest.raises(InvalidRecord) as caught:
            await db.sessions.list(**arguments)
        assert caught.value.path == path
    with pytest.raises(InvalidRecord, match="colour"):
        await db.sessions.list(colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "bad",
    ["", "x" * 513, "a\x00b", "tab\t", "\ud800", "é" * 257],
    ids=["empty", "513 bytes", "NUL", "tab", "surrogate", "514 bytes"],
)
async def test_bad_ids_name_the_field(db: Database, bad: str) -> None:
    await db.sessions.upsert(session())
    for call, path in (
        (lambda: db.sessions.upsert(session(bad)), "session_id"),
        (lambda: db.sessions.get(bad), "session_id"),
        (lambda: db.sessions.delete(bad), "session_id"),
        (lambda: db.sessions.append_run("s1", run(bad)), "run_id"),
        (lambda: db.sessions.append_run(bad, run("r1")), "session_id"),
        (lambda: db.sessions.upsert(session("s2", user_id=bad)), "user_id"),
        (lambda: db.sessions.upsert(session("s2", component_id=bad)), "component_id"),
    ):
        with pytest.raises(InvalidRecord) as caught:
            await call()
        assert caught.value.path == path
    assert await db.sessions.count() == 1


async def test_strange_ids_keep_apart(db: Database) -> None:
    ids = [
        "a/b",
        "a#b",
        "a.b",
        "..",
        ".",
        "__x__",
        "_",
        "é",
        "e\u0301",
        "😀",
        "x" * 512,
        "a b",
        "%2F",
        "a\\b",
        '"',
        "a.1b",
    ]
    for name in ids:
        await db.sessions.upsert(session(name, user_id=name, component_id=name, session_data={"id": name}))
        await db.sessions.append_run(name, run(name, id=name))
        await db.sessions.append_run(name, run("r", id=name))
    for name in ids:
        read = await db.sessions.get(name, user_id=name)
        assert read is not None
        assert read.session_data == {"id": name}
        assert [(each.run_id, each.data) for each in read.runs] == [(name, {"id": name}), ("r", {"id": name})]
        assert [each.session_id for each in (await db.sessions.list(user_id=name)).items] == [name]
    assert sorted([each.session_id async for each in db.sessions.iterate(page_size=3)]) == sorted(ids)


BAD_VALUES = {
    "NaN": (float("nan"), "session_data.x"),
    "infinity": ([1, float("inf")], "session_data.x[1]"),
    "surrogate": ({"y": "\ud800"}, "session_data.x.y"),
    "surrogate key": ({"\ud800": 1}, "session_data.x"),
    "number as key": ({"y": {1: 2}}, "session_data.x.y"),
    "datetime": (datetime(2026, 1, 1, tzinfo=UTC), "session_data.x"),
    "tuple": ((1, 2), "session_data.x"),
    "bytes": (b"x", "session_data.x"),
    "huge integer": (2**5000, "session_data.x"),
}


@pytest.mark.parametrize("kind", BAD_VALUES)
async def test_what_json_cannot_carry_is_refused_with_its_path(db: Database, kind: str) -> None:
    value, path = BAD_VALUES[kind]
    with pytest.raises(InvalidRecord) as caught:
        await db.sessions.upsert(session(session_data={"x": value}))
    assert caught.value.path == path
    assert await db.sessions.get("s1") is None


async def test_a_thousand_levels_are_refused_and_a_hundred_and_fifty_round_trip(db: Database) -> None:
    def nested(depth: int) -> list[Any]:
        value: list[Any] = []
        for _ in range(depth):
            value = [value]
        return value

    with pytest.raises(InvalidRecord, match="levels deep"):
        await db.sessions.upsert(session(session_data={"x": nested(1000)}))
    await db.sessions.upsert(session(session_data={"x": nested(150)}))
    read = await db.sessions.get("s1")
    assert read is not None
    assert read.session_data == {"x": nested(150)}


async def test_a_datetime_without_a_zone_and_a_wrong_type_are_refused(db: Database) -> None:
    with pytest.raises(InvalidRecord) as caught:
        await db.sessions.upsert(session(created_at=datetime(2026, 1, 1)))
    assert caught.value.path == "created_at"
    with pytest.raises(InvalidRecord) as caught:
        await db.sessions.upsert(session(session_type="robot"))
    assert caught.value.path == "session_type"
    with pytest.raises(InvalidRecord) as caught:
        await db.sessions.upsert(session(session_data={"session_name": "x" * 1001}))
    assert caught.value.path == "session_data.session_name"


async def test_renaming_changes_the_name_and_nothing_else(db: Database) -> None:
    before = await db.sessions.upsert(session(session_data={"lang": "en"}, metadata={"m": 1}, user_id="ann"))
    renamed = await db.sessions.rename("s1", "Holiday", user_id="ann")
    assert renamed.name == "Holiday"
    assert renamed.session_data == {"lang": "en", "session_name": "Holiday"}
    assert renamed.created_at == before.created_at
    assert renamed.metadata == {"m": 1}
    assert (await db.sessions.list(name="holi")).items[0].session_id == "s1"
    with pytest.raises(RecordNotFound):
        await db.sessions.rename("s2", "Nothing")


async def test_deleting_many_counts_those_that_were_there(db: Database) -> None:
    for name in ("a", "b", "c"):
        await db.sessions.upsert(session(name, user_id="ann" if name != "c" else "bob", runs=[run("r")]))
    assert await db.sessions.delete_many(["a", "b", "c", "d", "a"], user_id="ann") == 2
    assert [each.session_id async for each in db.sessions.iterate()] == ["c"]
    assert await db.sessions.delete_many([]) == 0


async def test_a_payload_of_three_megabytes_round_trips_or_is_refused_whole(db: Database) -> None:
    noise = random.Random(7).randbytes(1_500_000).hex()
    await db.sessions.upsert(session())
    await db.sessions.append_run("s1", run("big", noise=noise))
    read = await db.sessions.get("s1", runs=1)
    assert read is not None
    assert read.runs[0].data == {"noise": noise}
    limit = db.store.limits.payload_bytes
    more = random.Random(8).randbytes(limit + 1).hex()
    with pytest.raises(RecordTooLarge) as caught:
        await db.sessions.append_run("s1", run("huge", noise=more))
    assert caught.value.limit == limit
    assert await db.sessions.get_run("s1", "huge") is None
    await db.sessions.upsert_run("s1", run("big", noise="small now"))
    read = await db.sessions.get("s1")
    assert read is not None
    assert [each.data for each in read.runs] == [{"noise": "small now"}]


async def test_sixteen_tasks_appending_lose_no_run_and_agree_on_the_order(db: Database, urls: tuple[str, ...]) -> None:
    await db.sessions.upsert(session())

    async def append(database: Database, task: int) -> None:
        for number in range(50):
            await database.sessions.append_run("s1", run(f"{task}-{number}", task=task, n=number))

    if urls[0].startswith("memory"):
        await asyncio.gather(*(append(db, task) for task in range(16)))
        first = second = await db.sessions.get("s1")
    else:
        async with connect(*urls) as other:
            await asyncio.gather(*(append((db, other)[task % 2], task) for task in range(16)))
            first = await db.sessions.get("s1")
            second = await other.sessions.get("s1")
    assert first is not None
    assert second is not None
    order = [each.run_id for each in first.runs]
    assert order == [each.run_id for each in second.runs]
    assert len(order) == len(set(order)) == 16 * 50
    for task in range(16):
        assert [each for each in order if each.startswith(f"{task}-")] == [f"{task}-{number}" for number in range(50)]


async def test_sixteen_tasks_updating_reach_the_exact_sum(db: Database) -> None:
    await db.sessions.upsert(session(session_data={"n": 0}))

    def increment(found: Session) -> None:
        assert found.session_data is not None
        found.session_data["n"] += 1

    async def work() -> None:
        for _ in range(5):
            await db.sessions.update("s1", increment)

    await asyncio.gather(*(work() for _ in range(16)))
    read = await db.sessions.get("s1")
    assert read is not None
    assert read.session_data == {"n": 80}


async def test_closing_while_calls_are_under_way_leaves_nothing_behind(urls: tuple[str, ...]) -> None:
    before = asyncio.all_tasks()
    db = connect(*urls)
    await db.open()
    await db.provision(COLLECTIONS)
    await db.sessions.upsert(session())
    calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(db.sessions.get("s1")) for _ in range(20)]
    calls += [asyncio.ensure_future(db.sessions.append_run("s1", run(f"r{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    await db.aclose()
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert result is None or isinstance(result, Session | Run | CloudDBError), repr(result)
    assert asyncio.all_tasks() <= before
    if not urls[0].startswith("memory"):
        async with db:
            assert await db.sessions.get("s1") is not None


async def test_a_cancelled_call_leaves_the_database_usable_and_no_task_behind(db: Database) -> None:
    await db.sessions.upsert(session())
    before = asyncio.all_tasks()
    for delay in (0.0, 0.001, 0.003):
        calls: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(db.sessions.append_run("s1", run(f"r{n}", pad="x" * 500))) for n in range(8)
        ]
        calls += [asyncio.ensure_future(db.sessions.get("s1")) for _ in range(4)]
        _, pending = await asyncio.wait(calls, timeout=delay)
        for call in pending:
            call.cancel()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert not isinstance(result, Exception), result
    await db.sessions.append_run("s1", run("last"))
    read = await db.sessions.get("s1")
    assert read is not None
    assert read.runs[-1].run_id == "last"
    assert asyncio.all_tasks() == before
