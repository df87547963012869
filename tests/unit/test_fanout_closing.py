"""A fan-out that is closed leaves no task, no thread and no file open, whatever was under way."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agno_clouddb import CloudDBError, Database, Session, connect
from agno_clouddb.stores.sqlite import SQLiteStore
from agno_clouddb.testing import FaultyStore
from tests.unit.fanouts import hanging

SECONDS = 5.0
"""In which a thread ends that was told to."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed by Linux alone")


def open_files(folder: Path) -> set[str]:
    """What this process has open in a folder."""

    def targets() -> Iterator[str]:
        for each in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                yield os.readlink(each)

    return {target for target in targets() if target.startswith(str(folder))}


def ended(threads: set[threading.Thread]) -> bool:
    """Whether threads end that have been told to."""
    for thread in threads:
        thread.join(SECONDS)
    return not any(thread.is_alive() for thread in threads)


def drivers(before: set[threading.Thread]) -> set[threading.Thread]:
    """The threads that were started since, without those of the event loop's executor, which end with the loop."""
    return {each for each in set(threading.enumerate()) - before if not each.name.startswith("asyncio_")}


def fanout(folder: Path, deadline: float = 10.0) -> tuple[Database, list[FaultyStore]]:
    links = [FaultyStore(SQLiteStore(folder / f"{name}.sqlite")) for name in "ab"]
    return connect(*links, reads="fastest", reconcile_every=60, deadline=deadline), links


async def work(db: Database, links: list[FaultyStore]) -> None:
    """Calls after which there is work in the background: one store has missed the last."""
    await db.provision()
    for number in range(10):
        await db.sessions.upsert(Session(session_id=f"s{number}", session_type="agent"))
    await db.reconcile()
    links[1].down()
    await db.sessions.upsert(Session(session_id="s1", session_type="agent"))
    await db.sessions.list(limit=5)
    assert len(asyncio.all_tasks()) > 1


@pytest.mark.parametrize("times", [1, 3])
def test_nothing_is_left_of_two_files(tmp_path: Path, times: int) -> None:
    before = set(threading.enumerate())

    async def use() -> None:
        db, links = fanout(tmp_path)
        for _ in range(times):
            links[1].up()
            async with db:
                await work(db, links)
                assert len(drivers(before)) == 4  # one that reads and one that writes, of each file
                assert len(open_files(tmp_path)) >= 4
            assert len(asyncio.all_tasks()) == 1
            assert ended(drivers(before))
            assert open_files(tmp_path) == set()

    asyncio.run(use())
    assert ended(set(threading.enumerate()) - before)


def test_nothing_is_left_when_the_caller_is_cancelled_in_a_write(tmp_path: Path) -> None:
    before = set(threading.enumerate())

    async def use() -> None:
        db, links = fanout(tmp_path, deadline=2)

        async def serve() -> None:
            async with db:
                await work(db, links)
                links[1].up()
                links[1].plan = hanging
                asyncio.get_running_loop().call_later(0.1, serving.cancel)
                await db.sessions.upsert(Session(session_id="s2", session_type="agent"))
                await asyncio.sleep(3600)

        serving = asyncio.ensure_future(serve())
        await asyncio.wait([serving])
        assert serving.cancelled()
        assert len(asyncio.all_tasks()) == 1
        assert ended(drivers(before))
        assert open_files(tmp_path) == set()

    asyncio.run(use())
    assert ended(set(threading.enumerate()) - before)


def test_nothing_is_left_of_a_file_when_the_other_cannot_be_opened(tmp_path: Path) -> None:
    before = set(threading.enumerate())

    async def use() -> None:
        db = connect(f"sqlite:///{tmp_path / 'a.sqlite'}", f"sqlite:///{tmp_path / 'no folder' / 'b.sqlite'}")
        with pytest.raises(CloudDBError, match="unable to open"):
            await db.open()
        assert len(asyncio.all_tasks()) == 1
        assert ended(drivers(before))
        assert open_files(tmp_path) == set()

    asyncio.run(use())
    assert ended(set(threading.enumerate()) - before)
