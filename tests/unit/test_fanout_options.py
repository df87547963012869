"""How long tombstones are kept, and how far ahead a version may be, as options of ``connect``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agno_clouddb import CloudDBError, ConfigurationError, Session, connect
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import Item, Key
from agno_clouddb.stores.clock import HybridClock, epoch_seconds, wall_clock_millis
from agno_clouddb.stores.memory import MemoryStore
from tests.unit.fanouts import KEY, World, records, virtual

DAY = 24 * 3600


@pytest.mark.parametrize(
    ("given", "seconds"), [(3600, 3600), (2.5 * DAY, 2.5 * DAY), (timedelta(days=30), 30 * DAY), (None, 7 * DAY)]
)
async def test_a_tombstone_is_kept_as_long_as_was_asked_for(given: float | timedelta | None, seconds: float) -> None:
    stores = [MemoryStore("memory://a"), MemoryStore("memory://b")]
    options: dict[str, Any] = {} if given is None else {"tombstone_retention": given}
    async with connect(*stores, **options) as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="s1", session_type="agent"))
        before = epoch_seconds()
        assert await db.sessions.delete("s1")
        for store in stores:
            item = store.items[Key("sessions", "s1")]
            assert item.deleted
            assert item.expires_at is not None
            assert before + seconds <= item.expires_at <= epoch_seconds() + seconds


@virtual
async def test_so_is_that_of_what_has_expired_where_a_store_holds_something_older() -> None:
    world = World()
    async with world.node(tombstone_retention=3600) as node:
        older = await node.put("older")
        await node.put("newer", expires_at=int(world.wall()) + 60)
        world.memories[1].items[KEY] = older
        world.jumped += 61
        assert await node.read() is None
        await node.fanout.idle()
        now = int(world.wall())
        item = records(world.memories[1])[KEY]
        assert item.deleted
        assert item.expires_at is not None
        assert now + 3599 <= item.expires_at <= now + 3600


@pytest.mark.parametrize("stores", [["memory://a"], ["memory://a", "memory://b"]])
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("tombstone_retention", 0, "neither a number of seconds over 0 nor a timedelta"),
        ("tombstone_retention", -1.0, "neither"),
        ("tombstone_retention", True, "neither"),
        ("tombstone_retention", "7 days", "neither"),
        ("tombstone_retention", None, "neither"),
        ("tombstone_retention", float("nan"), "neither"),
        ("tombstone_retention", 3599, "from 1:00:00 to 36500 days"),
        ("tombstone_retention", timedelta(minutes=59), "from 1:00:00"),
        ("tombstone_retention", float("inf"), "from 1:00:00"),
        ("max_drift", 0, "neither"),
        ("max_drift", timedelta(0), "neither"),
        ("max_drift", 0.999, "from 0:00:01 to 365 days"),
        ("max_drift", timedelta(days=366), "from 0:00:01"),
    ],
)
def test_a_time_out_of_range_is_refused(stores: list[str], option: str, value: Any, words: str) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigurationError, match=f"{option} is .*{words}"):
        connect(*stores, **options)


@pytest.mark.parametrize("value", [0, 3599, timedelta(minutes=59), "7 days"])
def test_a_fanout_that_is_made_by_hand_refuses_the_same(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="tombstone_retention is"):
        FanOutStore([MemoryStore("memory://a"), MemoryStore("memory://b")], tombstone_retention=value)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("drift", "ahead", "believed"),
    [
        (None, 3500, True),
        (None, 3700, False),
        (60, 50, True),
        (60, 70, False),
        (timedelta(days=2), DAY, True),
        (timedelta(days=2), 3 * DAY, False),
    ],
)
async def test_a_version_ahead_of_the_clock_is_written_over_up_to_the_limit(
    number: int, drift: float | timedelta | None, ahead: float, believed: bool
) -> None:
    stores = [MemoryStore(f"memory://{n}") for n in range(number)]
    options: dict[str, Any] = {} if drift is None else {"max_drift": drift}
    async with connect(*stores, **options) as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="s1", session_type="agent"))
        fast = HybridClock(now=lambda: wall_clock_millis() + int(ahead * 1000)).stamp()
        for store in stores:
            old = store.items[KEY]
            store.items[KEY] = Item(KEY, fast, old.fields, old.data)
        again = Session(session_id="s1", session_type="agent", session_data={"a": 1})
        if believed:
            assert ((await db.sessions.upsert(again)).version or "") > fast
        else:
            with pytest.raises(CloudDBError, match="too far in the future"):
                await db.sessions.upsert(again)
