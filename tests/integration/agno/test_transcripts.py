"""agno's calls about transcripts: what many do at once, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from agno_clouddb import BulkWriteError, Database, RecordTooLarge, StoreUnavailable
from agno_clouddb.integrations.agno.transcripts import TranscriptCalls
from agno_clouddb.stores.base import Cursor, Delete, Limits, Mutation, Outcome, Page, Query
from agno_clouddb.stores.memory import MemoryStore
from tests.integration.agno.competing import WORKERS, all_at_once, alone, databases

__all__ = ["databases"]

MAIN: dict[str, Any] = {"framework": "sdk", "project_key": "p", "session_id": "c1"}


def callers(databases: list[Database]) -> list[TranscriptCalls]:
    return [alone(TranscriptCalls, databases[n % len(databases)]) for n in range(WORKERS)]


def batch(who: int, start: int, length: int) -> list[dict[str, Any]]:
    return [{"uuid": f"{who}-{n}", "who": who, "n": n} for n in range(start, start + length)]


async def left(db: Database) -> int:
    return sum([await db.entries.count(kind=kind) for kind in ("transcript", "transcript_part")])


async def test_16_who_append_at_once_lose_nothing_and_double_nothing(databases: list[Database]) -> None:
    agnos = callers(databases)

    async def append(who: int) -> None:
        for start in (0, 3, 4):
            entries = batch(who, start, 3)  # the one entry that two calls have is kept once
            await agnos[who].append_transcript_entries(**MAIN, entries=entries, agno_session_id=f"s{who}")

    assert await all_at_once([partial(append, who) for who in range(WORKERS)]) == [None] * WORKERS
    for agno in agnos[:4]:
        entries = await agno.get_transcript_entries(**MAIN)
        assert len(entries) == WORKERS * 7
        for who in range(WORKERS):
            assert [each for each in entries if each["who"] == who] == batch(who, 0, 7)
    heads = [each async for each in databases[0].entries.iterate(kind="transcript")]
    assert [(each.data["first"], each.data["next"]) for each in heads] == [(1, 1 + WORKERS * 3)]
    numbers = [each.data["number"] async for each in databases[0].entries.iterate(kind="transcript_part")]
    assert sorted(numbers) == list(range(1, 1 + WORKERS * 3))


async def test_of_16_who_append_the_same_one_counts(databases: list[Database]) -> None:
    agnos = callers(databases)
    append = [
        partial(each.append_transcript_entries, **MAIN, entries=batch(0, 0, 5), agno_session_id="s1") for each in agnos
    ]
    await all_at_once(append)
    assert await agnos[1].get_transcript_entries(**MAIN) == batch(0, 0, 5)


async def test_what_is_deleted_is_gone_and_begins_anew(databases: list[Database]) -> None:
    first, second = alone(TranscriptCalls, databases[0]), alone(TranscriptCalls, databases[1])
    for subpath in (None, "b", "a"):
        for start in (0, 2):
            await first.append_transcript_entries(
                **MAIN, subpath=subpath, entries=batch(1, start, 2), agno_session_id="s1"
            )
    assert await second.list_transcript_subpaths(**MAIN) == ["a", "b"]
    await second.delete_transcript(**MAIN, subpath="a")
    assert await first.get_transcript_entries(**MAIN, subpath="a") == []
    assert await first.get_transcript_entries(**MAIN, subpath="b") == batch(1, 0, 4)
    await all_at_once([partial(each.delete_transcript, **MAIN) for each in (first, second, first)])
    assert await second.get_transcript_entries(**MAIN) == []
    assert await second.list_transcript_sessions("sdk", "p") == []
    assert await second.list_transcript_subpaths(**MAIN) == []
    assert await left(databases[0]) == 0
    await first.append_transcript_entries(**MAIN, entries=batch(1, 1, 1), agno_session_id="s1")
    assert await second.get_transcript_entries(**MAIN) == batch(1, 1, 1)


async def test_what_is_acknowledged_after_a_deletion_is_kept(databases: list[Database]) -> None:
    agnos = callers(databases)
    for each in range(4):
        await agnos[0].append_transcript_entries(**MAIN, entries=batch(99, each, 1), agno_session_id="s")
    deleted = asyncio.Event()

    async def delete() -> None:
        await agnos[0].delete_transcript(**MAIN)
        deleted.set()

    async def append(who: int) -> list[dict[str, Any]]:
        """What was appended once the deletion was over."""
        after: list[dict[str, Any]] = []
        for n in range(4):
            over = deleted.is_set()
            await agnos[who].append_transcript_entries(**MAIN, entries=batch(who, n, 1), agno_session_id="s")
            after += batch(who, n, 1) if over else []
        await deleted.wait()
        await agnos[who].append_transcript_entries(**MAIN, entries=batch(who, 4, 1), agno_session_id="s")
        return after + batch(who, 4, 1)

    _, *appended = await asyncio.gather(delete(), *(append(who) for who in range(1, 6)))
    entries = await agnos[3].get_transcript_entries(**MAIN)
    assert all(each in entries for one in appended for each in one)
    assert not [each for each in entries if each["who"] == 99]


async def test_a_deleted_session_takes_along_what_it_has_appended(databases: list[Database]) -> None:
    agno = alone(TranscriptCalls, databases[0])
    for number, session in enumerate(("s1", "s2", "s1")):
        entries = batch(number, 0, 2)
        await agno.append_transcript_entries(**MAIN, entries=entries, agno_session_id=session)
    await agno.append_transcript_entries(**MAIN, subpath="a", entries=batch(3, 0, 1), agno_session_id="s1")
    await agno._delete_transcripts_of(["none", "s1"])
    assert await agno.get_transcript_entries(**MAIN) == batch(1, 0, 2)
    assert await agno.list_transcript_subpaths(**MAIN) == []
    assert [each["session_id"] for each in await agno.list_transcript_sessions("sdk", "p")] == ["c1"]
    await agno._delete_transcripts_of(["s2"])
    assert await agno.list_transcript_sessions("sdk", "p") == []
    assert await left(databases[0]) == 0


async def test_what_json_text_can_have_comes_back_exactly(databases: list[Database]) -> None:
    agno = alone(TranscriptCalls, databases[0])
    odd: list[dict[str, Any]] = [
        {"half": "\ud83d", "zero": "\x00", "infinite": float("inf"), "big": 2**5000, "order": {"b": 1, "a": 2}},
        {},
        {"uuid": None},
        {"uuid": ""},
        {"long": "word " * 200_000},
    ]
    await agno.append_transcript_entries(**MAIN, entries=odd, agno_session_id="s1")
    found = await agno.get_transcript_entries(**MAIN)
    assert found == odd
    assert list(found[0]["order"]) == ["b", "a"]


class Lagging(MemoryStore):
    """A store whose indexes have not followed yet, as those of DynamoDB follow their tables."""

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Any = "strong"
    ) -> Page:
        return Page(())


async def test_entries_that_no_index_has_yet_are_read_and_deleted() -> None:
    async with Database(Lagging()) as db:
        await db.provision()
        agno = alone(TranscriptCalls, db)
        for n in range(3):
            await agno.append_transcript_entries(**MAIN, entries=batch(1, n, 1), agno_session_id="s1")
        assert await agno.get_transcript_entries(**MAIN) == batch(1, 0, 3)
        await agno.delete_transcript(**MAIN)
        assert isinstance(db.store, MemoryStore)
        assert await agno.get_transcript_entries(**MAIN) == []
        assert not [item for item in db.store.items.values() if item.data is not None and item.live(0)]


class Interrupted(MemoryStore):
    """A store on which something happens while parts of a transcript are listed or deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: Callable[[], Awaitable[None]] | None = None
        self.deleting: Callable[[], Awaitable[None]] | None = None

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Any = "strong"
    ) -> Page:
        page = await super().query(query, limit=limit, cursor=cursor, consistency=consistency)
        if page.items and (happening := self.listed) is not None:
            self.listed = None
            await happening()
        return page

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        deletes = any(isinstance(each, Delete) and "part" in each.key.id for each in mutations)
        if deletes and (happening := self.deleting) is not None:
            await happening()
        return await super().write(mutations, atomic=atomic)


async def test_what_is_appended_while_a_session_is_deleted_is_not_left_behind() -> None:
    store = Interrupted()
    async with Database(store) as db:
        await db.provision()
        agno = alone(TranscriptCalls, db)
        append = partial(agno.append_transcript_entries, **MAIN, agno_session_id="s1")
        await append(entries=batch(1, 0, 1))
        store.listed = partial(append, entries=batch(1, 1, 1))
        await agno._delete_transcripts_of(["s1"])
        assert await agno.get_transcript_entries(**MAIN) == []
        assert await left(db) == 0


async def test_what_is_appended_while_a_transcript_is_deleted_stays() -> None:
    store = Interrupted()
    async with Database(store) as db:
        await db.provision()
        agno = alone(TranscriptCalls, db)
        append = partial(agno.append_transcript_entries, **MAIN, agno_session_id="s1")
        await append(entries=batch(1, 0, 1))

        async def once() -> None:
            store.deleting = None
            assert await agno.get_transcript_entries(**MAIN) == []
            assert await agno.list_transcript_sessions("sdk", "p") == []
            await append(entries=batch(1, 1, 1))

        store.deleting = once
        await agno.delete_transcript(**MAIN)
        assert await agno.get_transcript_entries(**MAIN) == batch(1, 1, 1)
        assert [each["session_id"] for each in await agno.list_transcript_sessions("sdk", "p")] == ["c1"]


async def test_a_deletion_that_fails_half_way_shows_nothing_of_the_transcript() -> None:
    store = Interrupted()
    async with Database(store) as db:
        await db.provision()
        agno = alone(TranscriptCalls, db)
        for n in range(3):
            await agno.append_transcript_entries(**MAIN, entries=batch(1, n, 1), agno_session_id="s1")

        async def fail() -> None:
            raise StoreUnavailable("the service does not answer")

        store.deleting = fail
        with pytest.raises(BulkWriteError):
            await agno.delete_transcript(**MAIN)
        assert await agno.get_transcript_entries(**MAIN) == []
        await agno.append_transcript_entries(**MAIN, entries=batch(1, 3, 1), agno_session_id="s1")
        assert await agno.get_transcript_entries(**MAIN) == batch(1, 3, 1)
        # What could not be deleted then is deleted with the session that has appended it.
        store.deleting = None
        await agno._delete_transcripts_of(["s1"])
        assert await left(db) == 0


async def test_more_than_the_store_holds_leaves_the_transcript_as_it_was() -> None:
    async with Database(MemoryStore(limits=Limits(2_000, 100, 10_000))) as db:
        await db.provision()
        agno = alone(TranscriptCalls, db)
        await agno.append_transcript_entries(**MAIN, entries=batch(1, 0, 1), agno_session_id="s1")
        many = [{"n": str(n**9)} for n in range(2_000)]
        with pytest.raises(RecordTooLarge):
            await agno.append_transcript_entries(**MAIN, entries=many, agno_session_id="s1")
        await agno.append_transcript_entries(**MAIN, entries=batch(1, 1, 1), agno_session_id="s1")
        assert await agno.get_transcript_entries(**MAIN) == batch(1, 0, 2)
