"""Contents of knowledge bases, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agno_clouddb import ConflictError, Database, InvalidRecord, KnowledgeContent, NotOwner, RecordNotFound, connect
from agno_clouddb.stores.base import Put, Stored
from agno_clouddb.stores.clock import HybridClock

COLLECTIONS = ("knowledge",)

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def content(id: str = "k1", **values: Any) -> KnowledgeContent:
    return KnowledgeContent(**{"id": id, "name": "Handbook", **values})


async def expire(db: Database, record: KnowledgeContent) -> None:
    """Let a stored record expire at once."""
    clock = HybridClock()
    assert record.version is not None
    clock.observe(record.version)
    (outcome,) = await db.store.write([Put(replace(record.to_item(record.key, clock.stamp()), expires_at=1))])
    assert isinstance(outcome, Stored)


async def stored_ids(db: Database, limit: int = 100, **arguments: Any) -> list[str]:
    """The ids that a list gives, page by page to its end; each page but the last must be full."""
    found: list[str] = []
    cursor = None
    while True:
        page = await db.knowledge.list(limit=limit, cursor=cursor, **arguments)
        found += [each.id for each in page.items]
        assert not page.degraded
        assert len(page.items) == limit or page.cursor is None
        cursor = page.cursor
        if cursor is None:
            return found


async def test_a_content_round_trips_with_everything_in_it(db: Database) -> None:
    written = content(
        name="Flüge 😀",
        description="x" * 3000,
        metadata={"deep": [{"a": [1, 2.5, None, True, "", {}, []]}], "big": 2**80},
        type="pdf",
        size=2**40,
        linked_to="base",
        access_count=7,
        status="processing",
        status_message="page 3\nof 9\x00",
        user_id="ann",
        external_id="e/1",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2))),
        unheard_of={"kept": [None]},
    )
    stored = await db.knowledge.upsert(written)
    read = await db.knowledge.get("k1")
    assert read == stored
    assert read is not None
    assert read.model_dump(exclude={"version", "updated_at"}) == written.model_dump(exclude={"version", "updated_at"})
    back = KnowledgeContent.model_validate_json(read.model_dump_json())
    assert back == read
    changed = await db.knowledge.set_status("k1", "completed")
    assert (changed.status, changed.status_message, changed.moved_from) == ("completed", None, read.version)
    same = {"version", "updated_at", "status", "status_message", "moved_from"}
    assert changed.model_dump(exclude=same) == read.model_dump(exclude=same)
    assert changed.model_extra == {"unheard_of": {"kept": [None]}}
    assert await db.knowledge.get("k1") == changed


async def test_a_content_without_an_id_gets_one_of_its_own(db: Database) -> None:
    first = await db.knowledge.upsert(KnowledgeContent(name="a"))
    second = await db.knowledge.upsert(KnowledgeContent(name="a"))
    assert first.id != second.id
    assert await db.knowledge.get(first.id) == first
    assert await db.knowledge.count() == 2


async def test_what_is_missing_is_none_false_or_not_found(db: Database) -> None:
    assert await db.knowledge.get("nobody") is None
    assert await db.knowledge.delete("nobody") is False
    assert await db.knowledge.delete_many(["nobody"]) == 0
    assert await db.knowledge.count() == 0
    with pytest.raises(RecordNotFound, match="knowledge/nobody"):
        await db.knowledge.set_status("nobody", "completed")
    with pytest.raises(RecordNotFound):
        await db.knowledge.count_access("nobody")


async def test_an_object_made_anew_keeps_owner_and_creation(db: Database) -> None:
    first = await db.knowledge.upsert(content(user_id="ann", status="processing"))
    second = await db.knowledge.upsert(content(name="Second", created_at=START))
    assert (second.created_at, second.user_id) == (first.created_at, "ann")
    # All else is replaced.
    assert second.status is None
    assert await db.knowledge.get("k1", user_id="ann") == second
    with pytest.raises(ConflictError) as caught:
        await db.knowledge.upsert(content(), expected_version=first.version)
    assert (caught.value.expected, caught.value.found) == (first.version, second.version)
    third = await db.knowledge.upsert(second, expected_version=second.version)
    assert await db.knowledge.get("k1") == third


async def test_another_users_content_is_neither_seen_nor_changed_nor_deleted(db: Database) -> None:
    stored = await db.knowledge.upsert(content(status="processing"), user_id="ann")
    assert stored.user_id == "ann"
    assert await db.knowledge.get("k1", user_id="bob") is None
    assert await db.knowledge.delete("k1", user_id="bob") is False
    assert await db.knowledge.delete_many(["k1"], user_id="bob") == 0
    writes: list[Callable[[], Awaitable[object]]] = [
        lambda: db.knowledge.upsert(content(user_id="bob")),
        lambda: db.knowledge.upsert(content(), user_id="bob"),
        lambda: db.knowledge.set_status("k1", "completed", user_id="bob"),
        # Whose it is comes first: another user does not learn the status.
        lambda: db.knowledge.set_status("k1", "completed", expected="failed", user_id="bob"),
        lambda: db.knowledge.count_access("k1", user_id="bob"),
    ]
    for write in writes:
        with pytest.raises(NotOwner):
            await write()
    assert await db.knowledge.get("k1", user_id="ann") == stored
    await db.knowledge.upsert(content("shared"))
    assert await db.knowledge.get("shared", user_id="ann") is None
    assert await db.knowledge.delete("shared", user_id="ann") is False
    with pytest.raises(NotOwner):
        await db.knowledge.count_access("shared", user_id="ann")
    assert await db.knowledge.set_status("k1", "completed", user_id="ann") is not None
    assert await db.knowledge.count_access("k1", user_id="ann") == 1
    assert await db.knowledge.delete_many(["k1", "shared", "k1"], user_id="ann") == 1
    assert await stored_ids(db) == ["shared"]


async def test_a_status_moves_only_from_one_that_is_expected(db: Database) -> None:
    first = await db.knowledge.upsert(content())
    with pytest.raises(ConflictError, match="status is None, not 'processing'") as caught:
        await db.knowledge.set_status("k1", "completed", expected="processing")
    assert (caught.value.expected, caught.value.found) == (None, first.version)
    begun = await db.knowledge.set_status("k1", "processing", expected=[None], message="begun")
    assert (begun.status, begun.status_message) == ("processing", "begun")
    with pytest.raises(ConflictError, match="not 'failed' or None") as caught:
        await db.knowledge.set_status("k1", "completed", expected=(None, "failed"), expected_version=first.version)
    assert (caught.value.expected, caught.value.found) == (first.version, begun.version)
    # The version guards by itself too, also where the status is an expected one.
    for expected in (None, "processing"):
        with pytest.raises(ConflictError) as caught:
            await db.knowledge.set_status("k1", "failed", expected=expected, expected_version=first.version)
        assert (caught.value.expected, caught.value.found) == (first.version, begun.version)
        assert "status" not in caught.value.message
    done = await db.knowledge.set_status("k1", "completed", expected={"processing"}, expected_version=begun.version)
    assert await db.knowledge.get("k1") == done
    anything = await db.knowledge.set_status("k1", "completed")
    assert (anything.status, anything.version != done.version) == ("completed", True)
    assert await stored_ids(db, status="completed") == ["k1"]
    assert await stored_ids(db, status="processing") == []


async def test_bad_statuses_name_the_argument(db: Database) -> None:
    stored = await db.knowledge.upsert(content())
    for status in (None, 5, "", "x" * 513, "\ud800", "a\nb"):
        with pytest.raises(InvalidRecord) as caught:
            await db.knowledge.set_status("k1", status)  # type: ignore[arg-type]
        assert caught.value.path == "status"
    for expected in (5, [5], [["processing"]]):
        with pytest.raises(InvalidRecord) as caught:
            await db.knowledge.set_status("k1", "completed", expected=expected)  # type: ignore[arg-type]
        assert caught.value.path == "expected"
    for arguments, path in (
        ({"expected_version": "yesterday"}, "expected_version"),
        ({"message": 5}, "status_message"),
        ({"message": "\ud800"}, "status_message"),
    ):
        with pytest.raises(InvalidRecord) as caught:
            await db.knowledge.set_status("k1", "completed", **arguments)
        assert caught.value.path == path
    assert await db.knowledge.get("k1") == stored


async def test_of_eight_who_move_a_status_at_once_one_wins(db: Database) -> None:
    for told in (False, True):
        begun = await db.knowledge.upsert(content(f"told {told}", status="processing"))
        version = begun.version if told else None

        async def move(number: int, begun: KnowledgeContent = begun, version: str | None = version) -> Any:
            return await db.knowledge.set_status(
                begun.id, "completed", expected="processing", expected_version=version, message=f"by {number}"
            )

        results = await asyncio.gather(*(move(number) for number in range(8)), return_exceptions=True)
        (winner,) = (each for each in results if isinstance(each, KnowledgeContent))
        assert winner.status_message is not None
        assert results[int(winner.status_message.removeprefix("by "))] is winner
        assert await db.knowledge.get(begun.id) == winner
        losers = [each for each in results if each is not winner]
        for loser in losers:
            assert isinstance(loser, ConflictError), repr(loser)
            # Who has read it while it was processing, or was told that version, says so.
            assert loser.expected == begun.version or (loser.expected is None and not told)
            assert loser.found == winner.version
            assert "'completed'" in loser.message


async def test_who_has_seen_the_expected_status_names_its_version_when_it_has_gone(db: Database) -> None:
    begun = await db.knowledge.upsert(content(status="processing"))
    read = asyncio.Event()
    moved = asyncio.Event()
    get = db.store.get

    async def slow(*arguments: Any, **options: Any) -> Any:
        batch = await get(*arguments, **options)
        if not read.is_set():
            read.set()
            await moved.wait()
        return batch

    db.store.get = slow  # type: ignore[method-assign]
    late = asyncio.ensure_future(db.knowledge.set_status("k1", "failed", expected="processing"))
    await read.wait()
    done = await db.knowledge.set_status("k1", "completed", expected="processing")
    moved.set()
    with pytest.raises(ConflictError) as caught:
        await late
    assert (caught.value.expected, caught.value.found) == (begun.version, done.version)
    assert await db.knowledge.get("k1") == done


async def test_sixteen_tasks_on_two_databases_count_every_access(db: Database, urls: tuple[str, ...]) -> None:
    await db.knowledge.upsert(content(user_id="ann"))
    other = connect(*urls)
    if urls[0].startswith("memory"):
        other = Database(db.store)  # what a memory store holds is this process's alone
    async with other:

        async def access(database: Database) -> list[int]:
            return [await database.knowledge.count_access("k1", user_id="ann") for _ in range(10)]

        counts = await asyncio.gather(*(access((db, other)[task % 2]) for task in range(16)))
        assert sorted(itertools.chain(*counts)) == list(range(1, 161))
        read = await db.knowledge.get("k1")
        assert read is not None
        assert read.access_count == 160
        assert await other.knowledge.get("k1") == read


async def test_an_access_is_counted_from_whatever_is_stored(db: Database) -> None:
    await db.knowledge.upsert(content(access_count=41))
    assert await db.knowledge.count_access("k1") == 42
    await db.knowledge.upsert(content())
    assert await db.knowledge.count_access("k1") == 1


FIELDS = {"type": ("pdf", "url"), "status": ("processing", "completed"), "linked_to": ("base", "other")}


def samples() -> list[KnowledgeContent]:
    """Contents of which three at a time were created at one moment."""
    return [
        content(
            f"k{number:02}",
            user_id=("ann", "bob", None)[number % 3],
            created_at=START + (number // 3) * DAY,
            **{name: values[number % 2] for name, values in FIELDS.items() if (number + len(name)) % 3},
        )
        for number in range(24)
    ]


def matching(records: list[KnowledgeContent], sort: str, **filters: Any) -> list[str]:
    """What a list should give."""

    def shown(each: KnowledgeContent) -> bool:
        low, high = filters.get("created_from", START), filters.get("created_to", START + 1000 * DAY)
        equal = all(getattr(each, name) == value for name, value in filters.items() if not name.startswith("created"))
        assert each.created_at is not None
        return equal and low <= each.created_at < high

    ordered = sorted(filter(shown, records), key=lambda each: (each.created_at, each.id))
    return [each.id for each in (ordered[::-1] if sort.startswith("-") else ordered)]


def narrowings() -> Iterator[dict[str, Any]]:
    """Each filter alone, and some together."""
    yield {}
    for name, values in {**FIELDS, "user_id": ("ann", "bob")}.items():
        yield from ({name: value} for value in (*values, "nothing"))
    yield {"created_from": START + 2 * DAY, "created_to": START + 5 * DAY}
    yield {"created_from": START + 5 * DAY, "created_to": START + 2 * DAY}
    yield {"created_to": START + DAY, "type": "pdf"}
    yield {"type": "pdf", "status": "processing", "linked_to": "base", "user_id": "ann"}
    yield {"status": "completed", "user_id": "bob", "created_from": START + DAY + timedelta(microseconds=1)}


async def test_lists_and_counts_by_every_filter_and_order(db: Database) -> None:
    records = samples()
    await db.knowledge.upsert_many(records)
    for filters in narrowings():
        for sort, limit in (("-created_at", 4), ("created_at", 3)):
            assert await stored_ids(db, limit, sort=sort, **filters) == matching(records, sort, **filters), filters
        assert await db.knowledge.count(**filters) == len(matching(records, "created_at", **filters)), filters
    assert await stored_ids(db) == matching(records, "-created_at")
    in_order = [each.id async for each in db.knowledge.iterate(sort="created_at", page_size=5, status="completed")]
    assert in_order == matching(records, "created_at", status="completed")


async def test_a_cursor_goes_on_in_another_store(db: Database) -> None:
    records = samples()
    async with connect("memory://") as other:
        await other.provision(COLLECTIONS)
        for database in (db, other):
            await database.knowledge.upsert_many(records)
        narrowed: list[dict[str, Any]] = [{}, {"status": "completed"}, {"user_id": "bob", "type": "url"}]
        for filters in narrowed:
            found: list[str] = []
            cursor = None
            for database in itertools.cycle((db, other)):
                page = await database.knowledge.list(limit=2, cursor=cursor, **filters)
                found += [each.id for each in page.items]
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == matching(records, "-created_at", **filters)


async def test_pages_are_full_where_few_records_match(db: Database) -> None:
    records = [
        content(f"k{number:03}", user_id="ann", status="failed" if number % 60 == 7 else "completed", created_at=START)
        for number in range(240)
    ]
    assert (await db.knowledge.upsert_many(records)).stored == 240
    page = await db.knowledge.list(user_id="ann", status="failed", sort="created_at", limit=3)
    assert [each.id for each in page.items] == ["k007", "k067", "k127"]
    page = await db.knowledge.list(user_id="ann", status="failed", sort="created_at", limit=3, cursor=page.cursor)
    assert [each.id for each in page.items] == ["k187"]
    assert page.cursor is None
    assert await db.knowledge.count(user_id="ann", status="failed") == 4


async def test_bad_list_arguments_name_the_argument_and_what_there_is(db: Database) -> None:
    await db.knowledge.upsert_many([content("a"), content("b")])
    cursor = (await db.knowledge.list(limit=1)).cursor
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "limit"),
        ({"sort": "updated_at"}, "sort"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": cursor, "user_id": "ann"}, "cursor"),
        ({"cursor": cursor, "sort": "created_at"}, "cursor"),
        ({"consistency": "Strong"}, "consistency"),
        ({"created_from": "2026-01-01"}, "created_from"),
        ({"created_to": datetime(2026, 1, 1)}, "created_to"),
        ({"status": ["completed"]}, "status"),
        ({"type": ""}, "type"),
        ({"linked_to": 5}, "linked_to"),
    ]
    for arguments, path in wrong:
        with pytest.raises(InvalidRecord) as caught:
            await db.knowledge.list(**arguments)
        assert caught.value.path == path, arguments
    with pytest.raises(InvalidRecord, match="-created_at, created_at"):
        await db.knowledge.list(sort="name")  # type: ignore[arg-type]
    unknown: dict[str, Any] = {"colour": "red"}
    for call in (db.knowledge.list, db.knowledge.count):
        with pytest.raises(InvalidRecord, match=r"colour.*type, status, .* created_to"):
            await call(**unknown)
    assert len((await db.knowledge.list(user_id=None, status=None)).items) == 2


async def test_odd_ids_keep_apart_and_bad_ones_name_the_field(db: Database) -> None:
    ids = ["a/b", "a#b", "a.b", "..", ".", "__x__", "é", "e\u0301", "😀", "x" * 512, "%2F", "a\\b", '"']
    await db.knowledge.upsert_many([content(each, name=each, linked_to=each, status=each) for each in ids])
    for each in ids:
        read = await db.knowledge.get(each)
        assert read is not None
        assert (read.name, read.status) == (each, each)
        assert await stored_ids(db, linked_to=each) == [each]
        assert await stored_ids(db, status=each) == [each]
    for bad in ("", "x" * 513, "a\x00b", "tab\t", "\ud800", "é" * 257):
        for call, path in (
            (lambda bad=bad: db.knowledge.upsert(content(bad)), "id"),
            (lambda bad=bad: db.knowledge.get(bad), "id"),
            (lambda bad=bad: db.knowledge.delete(bad), "id"),
            (lambda bad=bad: db.knowledge.set_status(bad, "x"), "id"),
            (lambda bad=bad: db.knowledge.count_access(bad), "id"),
            (lambda bad=bad: db.knowledge.upsert(content(user_id=bad)), "user_id"),
            (lambda bad=bad: db.knowledge.upsert(content(type=bad)), "type"),
            (lambda bad=bad: db.knowledge.upsert(content(status=bad)), "status"),
        ):
            with pytest.raises(InvalidRecord) as caught:
                await call()
            assert caught.value.path == path
    assert await db.knowledge.count() == len(ids)


async def test_odd_values_are_kept_exactly_or_refused_with_their_path(db: Database) -> None:
    exact: list[Any] = [2**80, -0.0, 1e308, "\x00\u2028", "é" * 5000, {"": [[]]}, None, [True, 1, 1.0]]
    for value in exact:
        await db.knowledge.upsert(content(metadata={"x": value}, size=0, access_count=-1))
        read = await db.knowledge.get("k1")
        assert read is not None
        assert repr(read.metadata) == repr({"x": value})
        assert (read.size, read.access_count) == (0, -1)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"metadata": {"x": float("nan")}}, "metadata.x"),
        ({"metadata": {"x": [1, float("inf")]}}, "metadata.x[1]"),
        ({"metadata": {"x": {"\ud800": 1}}}, "metadata.x"),
        ({"metadata": {"x": (1, 2)}}, "metadata.x"),
        ({"metadata": {"x": START}}, "metadata.x"),
        ({"name": "\ud800"}, "name"),
        ({"size": 2**5000}, "size"),
        ({"created_at": datetime(2026, 1, 1)}, "created_at"),
        ({"unheard_of": b"x"}, "unheard_of"),
    ]
    for values, path in refused:
        with pytest.raises(InvalidRecord) as caught:
            await db.knowledge.upsert(content("bad", **values))
        assert caught.value.path == path, values
    assert await db.knowledge.get("bad") is None
    stored = await db.knowledge.upsert(content("typed"))
    for name, wrong in (("name", None), ("metadata", ["x"]), ("size", 1.5), ("access_count", True), ("status", 5)):
        with pytest.raises(InvalidRecord) as caught:
            await db.knowledge.upsert(stored.model_copy(update={name: wrong}))
        assert caught.value.path == name


async def test_what_has_expired_is_absent_and_can_be_written_again(db: Database) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    kept = await db.knowledge.upsert(content("kept"), expires_at=soon)
    assert kept.expires_at is not None
    assert soon <= kept.expires_at < soon + timedelta(seconds=1)
    assert (await db.knowledge.set_status("kept", "completed")).expires_at == kept.expires_at
    await db.knowledge.count_access("kept")
    read = await db.knowledge.get("kept")
    assert read is not None
    assert read.expires_at == kept.expires_at
    await expire(db, await db.knowledge.upsert(content("expired", user_id="ann", status="processing", access_count=5)))
    assert await db.knowledge.get("expired") is None
    assert await stored_ids(db) == ["kept"]
    assert await stored_ids(db, status="processing") == []
    assert await db.knowledge.delete("expired") is False
    with pytest.raises(RecordNotFound):
        await db.knowledge.set_status("expired", "completed")
    with pytest.raises(RecordNotFound):
        await db.knowledge.count_access("expired")
    again = await db.knowledge.upsert(content("expired", user_id="bob"))
    assert await db.knowledge.get("expired", user_id="bob") == again
    with pytest.raises(InvalidRecord, match="expires_in"):
        await db.knowledge.upsert(content(), expires_in=0)


async def test_a_list_of_what_a_user_sees_merges_its_own_and_what_is_nobodys(db: Database) -> None:
    owners = ("ann", None, "bob")
    for n in range(18):
        await db.knowledge.upsert(content(f"k{n:02}", user_id=owners[n % 3], created_at=START + n // 4 * DAY))
    seen = [f"k{n:02}" for n in range(18) if n % 3 != 2]
    for limit in (1, 2, 5, 100):
        assert await stored_ids(db, limit, visible_to="ann", sort="created_at") == seen
        assert await stored_ids(db, limit, visible_to="ann") == seen[::-1]
    assert await db.knowledge.count(visible_to="ann") == 12
    assert [each.id async for each in db.knowledge.iterate(visible_to="cyd", page_size=4)] == seen[1::2][::-1]
    assert await stored_ids(db, audience="everyone", sort="created_at") == seen[1::2]
    await db.knowledge.upsert(content("k01", user_id="bob"))  # claims it
    await db.knowledge.update("k00", lambda each: each.model_copy(update={"user_id": None}))
    assert await stored_ids(db, visible_to="cyd", sort="created_at") == ["k00", *seen[3::2]]


async def test_a_list_of_what_a_user_sees_takes_neither_an_owner_nor_the_cursor_of_another_list(db: Database) -> None:
    for n in range(3):
        await db.knowledge.upsert(content(f"k{n}", user_id="ann"))
    with pytest.raises(InvalidRecord, match="cannot be given with user_id"):
        await db.knowledge.list(visible_to="ann", user_id="ann")
    merged = (await db.knowledge.list(visible_to="ann", limit=2)).cursor
    alone = (await db.knowledge.list(user_id="ann", limit=2)).cursor
    with pytest.raises(InvalidRecord, match="cursor"):
        await db.knowledge.list(user_id="ann", limit=2, cursor=merged)
    with pytest.raises(InvalidRecord, match="cursor"):
        await db.knowledge.list(visible_to="ann", limit=2, cursor=alone)
    assert [each.id for each in (await db.knowledge.list(visible_to="ann", limit=2, cursor=merged)).items] == ["k0"]


async def test_a_content_is_created_once(db: Database) -> None:
    stored = await db.knowledge.create(content("k1"), user_id="ann")
    with pytest.raises(ConflictError, match="already"):
        await db.knowledge.create(content("k1", name="Other"))
    assert await db.knowledge.get("k1") == stored
    assert stored.user_id == "ann"


async def test_an_update_may_leave_the_moment_of_the_last_change(db: Database) -> None:
    stored = await db.knowledge.upsert(content("k1", updated_at=START))
    changed = await db.knowledge.update("k1", lambda each: each.model_copy(update={"size": 1}), keep_updated_at=True)
    assert (changed.size, changed.updated_at, changed.created_at) == (1, START, stored.created_at)
    assert (await db.knowledge.update("k1", lambda each: None)).updated_at != START
