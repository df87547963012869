"""Conformance: scans, by which a coordinator learns what a store holds, and the collection that it keeps for itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest
import pytest_asyncio

from agno_clouddb.errors import IndexNotReady, InvalidRecord, NotProvisioned
from agno_clouddb.stores.base import Delete, Item, Key, Put, Query, Store
from agno_clouddb.stores.schema import REPLICATION
from agno_clouddb.testing.conformance_base import (
    FAR_FUTURE,
    LONG_PAST,
    ConformanceBase,
    Samples,
    expect,
    fill,
    ids,
    stamp,
    walk,
)
from agno_clouddb.testing.conformance_ids import HOSTILE, PAIRS

__all__ = ["ReplicationCases", "ScanCases"]

Entries = list[tuple[Key, str]]


async def scanned(
    store: Store, collection: str, limit: int = 100, *, since: str | None = None, cursor: str | None = None
) -> Entries:
    """All entries of a scan, part by part, from a cursor on."""
    entries: Entries = []
    while True:
        part = await store.scan(collection, limit=limit, since=since, cursor=cursor)
        assert len(part.entries) <= limit
        entries += part.entries
        if part.cursor is None:
            return entries
        assert part.cursor != cursor, "the scan does not go on"
        cursor = part.cursor


def entries_of(items: Iterable[Item], collection: str, since: str = "") -> Entries:
    """What a scan has to give of these items, in order of version."""
    found = [(item.key, item.version) for item in items if item.key.collection == collection and item.version >= since]
    return sorted(found, key=lambda entry: (entry[1], entry[0]))


def in_every_state(samples: Samples) -> list[Item]:
    """Sessions and runs, of parents that are stored and of others: live, to expire, expired, tombstones and large."""
    sessions = [
        samples.item("live", 5),
        samples.item("to expire", 3, expires_at=FAR_FUTURE),
        samples.item("expired", 7, expires_at=LONG_PAST),
        samples.item("tombstone", 4, expires_at=FAR_FUTURE, deleted=True),
        samples.item("large", 1, data=b"x" * 1_200_000),
    ]
    runs = [
        samples.run(name, index, 2 + index, parent=parent)
        for index, (parent, name) in enumerate([("live", "a"), ("live", "b"), ("", "a"), ("none", "a"), ("none", "c")])
    ]
    dead = Item(samples.child("dead", "live"), stamp(9), deleted=True, expires_at=FAR_FUTURE)
    return [*sessions, *runs, dead, replace(runs[0], key=samples.child("expired"), expires_at=LONG_PAST)]


class ScanBase(ConformanceBase):
    """A store for scans."""

    @pytest_asyncio.fixture(loop_scope="class")
    async def replica(self) -> AsyncIterator[Store]:
        """A store of one case alone, provisioned as one of a fan-out, which holds nothing."""
        async with await self.make_store() as store:
            await store.provision(self.collections, replicated=True)
            yield store


class ScanCases(ScanBase):
    """A scan gives all that is stored, whatever its state, and one by version only what is not older."""

    @pytest.mark.parametrize("limit", [1, 3, 100])
    async def test_a_scan_gives_everything_once_whatever_its_state(
        self, replica: Store, samples: Samples, limit: int
    ) -> None:
        items = in_every_state(samples)
        await fill(replica, items)
        for collection in ("sessions", "runs"):
            found = await scanned(replica, collection, limit)
            assert sorted(found) == sorted(entries_of(items, collection))
            assert found == await scanned(replica, collection), "another limit gives another order"
        assert await scanned(replica, REPLICATION.name) == []

    async def test_what_is_not_written_meanwhile_is_met_once_whatever_else_is(
        self, replica: Store, samples: Samples
    ) -> None:
        kept = [samples.item(f"{n}") for n in range(0, 20, 2)]
        others = [samples.item(f"{n}") for n in range(1, 20, 2)]
        await fill(replica, [*kept, *others[:5]])
        met: Entries = []
        cursor = None
        for n, other in enumerate(others):
            part = await replica.scan("sessions", limit=2, cursor=cursor)
            met += part.entries
            cursor = part.cursor
            if cursor is None:
                break
            await fill(replica, [replace(other, version=stamp(2))])
            await replica.write([Delete(others[n // 2].key, stamp(3))])
        if cursor is not None:
            met += await scanned(replica, "sessions", 2, cursor=cursor)
        of_kept = {item.key for item in kept}
        assert sorted(entry for entry in met if entry[0] in of_kept) == sorted(entries_of(kept, "sessions"))

    @pytest.mark.parametrize("limit", [1, 3, 100])
    async def test_a_scan_by_version_gives_what_is_not_older_in_order_of_version(
        self, replica: Store, samples: Samples, limit: int
    ) -> None:
        later = [replace(each, version=stamp(5, "0000000000bb")) for each in (samples.item("s"), samples.run("s", 1))]
        items = [*in_every_state(samples), samples.run("x", 1, 5), *later]
        await fill(replica, items)
        for collection in ("sessions", "runs"):
            for since in (stamp(0), stamp(3), stamp(5, "0000000000ab"), stamp(9), stamp(10)):
                found = await scanned(replica, collection, limit, since=since)
                assert sorted(found) == sorted(entries_of(items, collection, since)), since
                assert [version for _, version in found] == sorted(version for _, version in found), since

    async def test_versions_that_are_alike_are_not_lost_between_parts(self, replica: Store, samples: Samples) -> None:
        items = [samples.run(name, 1, 4, parent=parent) for parent in "pq" for name in "abcd"]
        items += [samples.item(name, 4) for name in "abcdefg"]
        await fill(replica, items)
        for collection in ("sessions", "runs"):
            found = await scanned(replica, collection, 2, since=stamp(4))
            assert sorted(found) == sorted(entries_of(items, collection))

    @pytest.mark.parametrize("since", [None, stamp(1)], ids=["all", "by version"])
    async def test_what_is_rewritten_moves_and_what_is_removed_is_gone(
        self, replica: Store, samples: Samples, since: str | None
    ) -> None:
        old = [*(samples.item(name, 2) for name in "abc"), *(samples.run(name, 1, 2) for name in "abc")]
        await fill(replica, old)
        new = [replace(item, version=stamp(3)) for item in old if item.key.id.endswith("a")]
        await fill(replica, new)
        await replica.write([Delete(item.key, stamp(3)) for item in old if item.key.id.endswith("b")])
        left = [*new, *(item for item in old if item.key.id.endswith("c"))]
        for collection in ("sessions", "runs"):
            assert sorted(await scanned(replica, collection, 1, since=since)) == sorted(entries_of(left, collection))
            assert await scanned(replica, collection, 1, since=stamp(3)) == entries_of(new, collection)

    @pytest.mark.parametrize("since", [None, stamp(2)], ids=["all", "by version"])
    async def test_a_scan_goes_on_in_another_store_object(
        self, replica: Store, samples: Samples, since: str | None
    ) -> None:
        items = [samples.run(name, n, 1 + n, parent=parent) for n, name in enumerate("abc") for parent in ("p", "q/r")]
        items += [samples.item(name, n) for n, name in enumerate(("é", "a/b", "😀", ".", "x y"), 1)]
        await fill(replica, items)
        other = await self.reopen(replica)
        if other is None:
            pytest.skip("what this store holds is gone with the object")
        async with other:
            for collection in ("sessions", "runs"):
                whole = await scanned(replica, collection, since=since)
                part = await replica.scan(collection, limit=2, since=since)
                assert part.cursor is not None
                rest = await scanned(other, collection, 2, since=since, cursor=part.cursor)
                assert [*part.entries, *rest] == whole
                assert sorted(whole) == sorted(entries_of(items, collection, since or ""))

    @pytest.mark.parametrize("since", [None, stamp(1)], ids=["all", "by version"])
    async def test_hostile_ids_come_back_exactly(self, replica: Store, since: str | None) -> None:
        keys = [Key("sessions", name) for name in HOSTILE]
        keys += [Key("runs", name, parent) for parent, name in {*PAIRS, *((name, "r") for name in HOSTILE)}]
        await fill(replica, [Item(key, stamp(1 + place % 5)) for place, key in enumerate(keys)])
        for collection in ("sessions", "runs"):
            wanted = [(key, stamp(1 + place % 5)) for place, key in enumerate(keys) if key.collection == collection]
            assert sorted(await scanned(replica, collection, 9, since=since)) == sorted(wanted)

    async def test_stores_in_different_namespaces_do_not_show_in_each_others_scans(
        self, replica: Store, samples: Samples
    ) -> None:
        mine = [*(samples.item(name, 2) for name in "ab"), *(samples.run(name, 1, 4, parent="p") for name in "ab")]
        theirs = [samples.item("b", 3), *(samples.run(name, 1, n, parent="p") for n, name in enumerate("abcde", 1))]
        async with await self.make_store() as other:
            await other.provision(self.collections, replicated=True)
            await fill(replica, mine)
            await fill(other, theirs)
            for store, items in ((replica, mine), (other, theirs)):
                for collection in ("sessions", "runs"):
                    for since in (None, stamp(1), stamp(4)):
                        found = await scanned(store, collection, 1, since=since)
                        assert sorted(found) == sorted(entries_of(items, collection, since or ""))

    async def test_a_scan_that_cannot_be_is_invalid(self, replica: Store, samples: Samples) -> None:
        await fill(replica, [samples.item(name) for name in "abc"])
        for since in (None, stamp(1)):
            cursor = (await replica.scan("sessions", limit=1, since=since)).cursor
            assert cursor is not None
            of_a_list = (await replica.query(samples.query(), limit=1)).cursor
            assert of_a_list is not None
            malformed = ("", "x", "null", "1", "[]", "{}", '["sessions"]', cursor[: len(cursor) // 2])
            for text in (*malformed, of_a_list.encode(samples.query())):
                with pytest.raises(InvalidRecord) as caught:
                    await replica.scan("sessions", limit=1, since=since, cursor=text)
                assert caught.value.path == "cursor", text
        for path, call in {
            "collection": replica.scan("nowhere", limit=1),
            "limit": replica.scan("sessions", limit=0),
            "since": replica.scan("sessions", limit=1, since="1"),
        }.items():
            with pytest.raises(InvalidRecord) as caught:
                await call
            assert caught.value.path == path


class ReplicationCases(ScanBase):
    """What ``provision(replicated=True)`` adds: the coordinator's own collection, and scans by version."""

    async def test_without_provisioning_for_replication_there_is_none(self, samples: Samples) -> None:
        hint = Item(Key(REPLICATION.name, samples.token), stamp(1))
        async with await self.make_store() as store:
            if not self.needs_provision:
                assert await scanned(store, "sessions") == await scanned(store, "sessions", since=stamp(1)) == []
                return
            with pytest.raises(NotProvisioned):
                await store.scan("sessions", limit=1)
            await store.provision(["sessions"])
            await fill(store, [samples.item()])
            assert await scanned(store, "sessions") == [(samples.key(), stamp(1))]
            with pytest.raises((NotProvisioned, IndexNotReady)):
                await store.scan("sessions", limit=1, since=stamp(1))
            for call in (store.scan("runs", limit=1), store.scan(REPLICATION.name, limit=1), store.get([hint.key])):
                with pytest.raises(NotProvisioned):
                    await call

    async def test_what_was_written_before_is_found_by_version_too(self, fresh: Store, samples: Samples) -> None:
        items = [*(samples.item(f"{n}", n) for n in range(1, 6)), *(samples.run(f"{n}", n, n) for n in range(1, 6))]
        await fill(fresh, items)
        for _ in range(2):
            await fresh.provision(self.collections, replicated=True)
        for collection in ("sessions", "runs"):
            assert await scanned(fresh, collection, 2, since=stamp(3)) == entries_of(items, collection, stamp(3))

    async def test_hints_are_listed_and_counted_by_target_in_order_of_what_was_missed(self, replica: Store) -> None:
        def hint(name: str, target: str, missed: int) -> Item:
            return Item(Key(REPLICATION.name, name), stamp(9), {"target": target, "missed": stamp(missed)}, name)

        hints = [hint("b", "east", 2), hint("a", "east", 3), hint("c", "west", 1), hint("sessions/é", "east", 1)]
        lease = Item(Key(REPLICATION.name, "lease"), stamp(1), {"target": "east"}, "held")
        await fill(replica, [*hints, lease])
        await expect(replica, {item.key: item for item in [*hints, lease]})
        east = Query(REPLICATION.name, "missed", equals={"target": "east"})
        assert ids(await walk(replica, east, 2)) == ["sessions/é", "b", "a"]
        assert ids(await walk(replica, replace(east, descending=True), 2)) == ["a", "b", "sessions/é"]
        assert await replica.count(east) == 3
        both = Query(REPLICATION.name, "missed", any_of={"target": ("west", "east", "north")})
        assert ids(await walk(replica, both, 3)) == ["c", "sessions/é", "b", "a"]
        assert await replica.count(both) == 4
        assert sorted(await scanned(replica, REPLICATION.name, 2)) == sorted(
            (item.key, item.version) for item in [*hints, lease]
        )
        await replica.write([Delete(hints[0].key, stamp(10)), Put(replace(hints[2], version=stamp(10)))])
        assert ids(await walk(replica, both, 3)) == ["c", "sessions/é", "a"]
        assert hints[0].key not in dict(await scanned(replica, REPLICATION.name, 3))
