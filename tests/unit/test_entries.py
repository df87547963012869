"""What the repository of entries does, on MemoryStore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agno_clouddb import ConflictError, Database, InvalidRecord, QueryNotIndexed, RecordNotFound, connect
from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.transactions import Transaction

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def db() -> AsyncIterator[Database]:
    async with connect("memory://") as database:
        await database.provision()
        yield database


def entry(number: int, **values: Any) -> Entry:
    made = {"kind": "job", "data": {"n": number}, "created_at": START + timedelta(seconds=number), **values}
    return Entry(id=f"job:{number}", **made)


async def ids(db: Database, **arguments: Any) -> list[str]:
    return [each.id async for each in db.entries.iterate(**{"page_size": 1, **arguments})]


async def test_an_entry_is_created_once_and_keeps_whatever_it_has(db: Database) -> None:
    given = entry(1, data={"deep": [1, {"x": None}], "text": ""}, extra={"kept": True})
    stored = await db.entries.create(given)
    assert stored == await db.entries.get("job:1")
    assert (stored.data, stored.created_at, stored.model_extra) == (
        given.data,
        START + timedelta(seconds=1),
        {"extra": {"kept": True}},
    )
    with pytest.raises(ConflictError, match="there is a record of this id already"):
        await db.entries.create(entry(1))
    assert await db.entries.delete("job:1")
    assert (await db.entries.create(entry(1))).data == {"n": 1}


async def test_several_are_read_in_the_order_of_their_ids(db: Database) -> None:
    for number in (1, 2):
        await db.entries.create(entry(number))
    found = await db.entries.get_many(["job:2", "none", "job:1", "job:2"])
    assert [each and each.id for each in found] == ["job:2", None, "job:1", "job:2"]
    assert await db.entries.get_many([]) == []
    with pytest.raises(InvalidRecord):
        await db.entries.get_many("job:1")
    with pytest.raises(InvalidRecord):
        await db.entries.get_many(["job:1", ""])
    with pytest.raises(InvalidRecord):
        await db.entries.get_many(["job:1"], consistency="weak")  # type: ignore[arg-type]


async def test_lists_are_narrowed_by_kind_group_and_state_in_either_order(db: Database) -> None:
    for number in range(6):
        await db.entries.create(entry(number, group=f"job:{number % 2}", state=f"job:{number % 3}"))
    await db.entries.create(Entry(id="other:1", kind="other", data={}))
    assert await ids(db, kind="job") == [f"job:{number}" for number in reversed(range(6))]
    assert await ids(db, kind="job", group="job:1", sort="created_at") == ["job:1", "job:3", "job:5"]
    assert await ids(db, state="job:2") == ["job:5", "job:2"]
    assert await ids(db, group="job:0", state="job:1") == ["job:4"]
    assert await db.entries.count(kind="job", group="job:0") == 3
    assert await db.entries.count(kind="none") == 0


async def test_what_is_due_is_listed_in_order_up_to_a_moment_as_text(db: Database) -> None:
    for number, due in enumerate(("05", None, "02", "09", "02")):
        await db.entries.create(entry(number, due=due))
    assert await ids(db, kind="job", sort="due") == ["job:2", "job:4", "job:0", "job:3"]
    assert await ids(db, kind="job", sort="due", due_to="05") == ["job:2", "job:4"]
    assert await ids(db, kind="job", sort="-due", due_to="06") == ["job:0", "job:4", "job:2"]
    assert await db.entries.count(kind="job", due_to="06") == 3
    await db.entries.update("job:2", lambda each: each.model_copy(update={"due": None}))
    assert await ids(db, kind="job", sort="due", due_to="05") == ["job:4"]
    with pytest.raises(InvalidRecord, match="due_to"):
        await db.entries.list(kind="job", sort="due", due_to=START)  # type: ignore[arg-type]


async def test_a_list_of_everything_or_of_what_is_due_of_any_kind_is_refused(db: Database) -> None:
    with pytest.raises(QueryNotIndexed):
        await db.entries.list()
    with pytest.raises(QueryNotIndexed):
        await db.entries.list(group="job:1", sort="due")
    with pytest.raises(QueryNotIndexed):
        await db.entries.count()


async def test_of_16_who_take_an_entry_by_update_one_does(db: Database) -> None:
    class Late(Exception):
        pass

    await db.entries.create(entry(1))

    async def take(worker: int) -> int | None:
        def change(each: Entry) -> None:
            if each.state is not None:
                raise Late
            each.state = f"job:{worker}"

        try:
            await db.entries.update("job:1", change)
        except Late:
            return None
        return worker

    (winner,) = [each for each in await asyncio.gather(*map(take, range(16))) if each is not None]
    stored = await db.entries.get("job:1")
    assert stored is not None
    assert (stored.state, stored.created_at) == (f"job:{winner}", START + timedelta(seconds=1))


async def write(db: Database, *changes: Callable[[Transaction], None]) -> None:
    async with db.transaction() as tx:
        for change in changes:
            change(tx)


async def test_entries_are_written_in_transactions_all_or_none(db: Database) -> None:
    first = await db.entries.create(entry(1))
    taken = first.model_copy(update={"state": "job:x"})

    def take(tx: Transaction) -> None:
        tx.upsert(taken, expected_version=first.version)

    await write(db, lambda tx: tx.create(entry(2)), take)
    assert await ids(db, state="job:x") == ["job:1"]
    with pytest.raises(ConflictError) as raised:
        await write(db, lambda tx: tx.create(entry(3)), take)
    assert raised.value.key == first.key
    assert await db.entries.get("job:3") is None
    await write(db, lambda tx: tx.delete(Entry, "job:1"))
    with pytest.raises(RecordNotFound):
        await write(db, lambda tx: tx.delete(Entry, "job:1"), lambda tx: tx.delete(Entry, "job:2"))
    assert await ids(db, kind="job") == ["job:2"]
