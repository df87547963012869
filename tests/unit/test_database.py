"""connect, URLs and the life of a Database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agno_clouddb import (
    ConfigurationError,
    Database,
    LifecycleError,
    NotProvisioned,
    Run,
    Session,
    StoreUnavailable,
    connect,
)
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import FaultyStore


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://localhost", "scheme"),
        ("nonsense", "scheme"),
        ("dynamodb://eu-west-1?prefx=a_", "prefx"),
        ("firestore://project?endpoint_url=http://127.0.0.1:1", "endpoint_url"),
        ("dynamodb://eu-west-1?shards=many", "shards"),
        ("dynamodb://eu-west-1?shards=0", "shards"),
        ("dynamodb://eu-west-1/table", "path"),
        ("memory://a/b", "path"),
        ("firestore://p/a/b", "path"),
        ("dynamodb://[bad", "not a URL"),
        ("dynamodb://eu-west-1?report_capacity=yes", "report_capacity"),
        ("dynamodb://eu-west-1?driver=boto3", r"boto3.*slim, aioboto3"),
        ("sqlite://", "names no file"),
        ("sqlite://file.db", "names no file"),
        ("memory://?deadline=-1", "deadline"),
        ("memory://?deadline=soon", "deadline"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        connect(url)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        connect()
    with pytest.raises(ConfigurationError, match="deadline"):
        connect("memory://", deadline=0)
    with pytest.raises(ConfigurationError, match="consistency"):
        connect("memory://", consistency="maybe")  # type: ignore[arg-type]


def test_urls_name_their_stores() -> None:
    assert connect("memory://a").store.name == "memory://a"
    assert connect("sqlite:///some%20file.db").store.name == "sqlite:///some file.db"
    assert connect("sqlite:////tmp/x.db").store.name == "sqlite:////tmp/x.db"
    assert connect("dynamodb://eu-west-1").store.name == "dynamodb://eu-west-1"
    assert connect("firestore://my-project").store.name == "firestore://my-project"
    assert connect("firestore://my-project/other").store.name == "firestore://my-project/other"
    two = connect("memory://a", "memory://b").store
    assert isinstance(two, FanOutStore)
    assert two.name == "memory://a + memory://b"


def test_importing_the_package_loads_no_sdk() -> None:
    code = (
        "import sys, agno_clouddb\n"
        "db = agno_clouddb.connect('dynamodb://eu-west-1', 'firestore://p', 'sqlite:///x.db')\n"
        "print([name for name in ('boto3', 'botocore', 'aioboto3', 'aiobotocore', 'google.cloud', 'grpc', 'aiosqlite')"
        " if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


IMPORTS = """
import asyncio, sys, threading
from agno_clouddb import connect

class Finder:
    def find_spec(self, name, path=None, target=None):
        (held if threading.current_thread() is threading.main_thread() else threaded).append(name)

async def main():
    async with database:
        pass

held, threaded = [], []
database = connect(sys.argv[1])
sys.meta_path.insert(0, Finder())
asyncio.run(main())
print("anyio._backends._asyncio" in threaded, [name for name in held if name.startswith(("anyio", "agno_clouddb"))])
"""


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "sqlite:///{path}/store.sqlite",
        "dynamodb://eu-west-1?endpoint_url=http://127.0.0.1:9",
        "firestore://p?emulator_host=127.0.0.1:9",
    ],
)
def test_what_a_database_opens_with_is_not_imported_on_the_event_loop(url: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", IMPORTS, url.format(path=tmp_path)]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True []"


async def test_a_database_is_of_no_use_before_open_and_after_close() -> None:
    db = connect("memory://")
    calls = (
        lambda: db.provision(),
        lambda: db.sessions.get("s1"),
        lambda: db.sessions.upsert(Session(session_id="s1")),
        lambda: db.sessions.append_run("s1", Run(run_id="r1")),
        lambda: db.sessions.list(),
        lambda: db.sessions.count(),
        lambda: db.sessions.delete("s1"),
    )
    for call in calls:
        with pytest.raises(LifecycleError, match="not open yet"):
            await call()
    await db.aclose()
    async with db:
        await db.open()
        await db.provision()
        await db.sessions.upsert(Session(session_id="s1"))
    for call in calls:
        with pytest.raises(LifecycleError, match="closed"):
            await call()
    await db.aclose()
    async with db:
        assert await db.sessions.get("s1") is not None


def test_a_database_used_from_another_event_loop_says_so() -> None:
    db = connect("memory://")

    async def opened() -> None:
        await db.open()
        await db.provision()

    async def used() -> None:
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: db.sessions.get("s1"),
            db.open,
            db.aclose,
            db.provision,
        )
        for call in calls:
            with pytest.raises(LifecycleError, match="another event loop"):
                await call()

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        first.run_until_complete(opened())
        second.run_until_complete(used())
        first.run_until_complete(db.aclose())
        # Closed in its own loop, it can be opened in another one.
        second.run_until_complete(opened())
        second.run_until_complete(db.aclose())
    finally:
        first.close()
        second.close()


async def test_tasks_that_open_at_once_open_the_store_once() -> None:
    class Counting(MemoryStore):
        opened = 0

        async def open(self) -> None:
            await asyncio.sleep(0)
            self.opened += 1
            await super().open()

    store = Counting()
    db = Database(store)
    await asyncio.gather(*(db.open() for _ in range(5)))
    assert store.opened == 1
    await db.aclose()


async def test_without_tables_every_call_says_to_provision(tmp_path: Path) -> None:
    for url in ("memory://", f"sqlite:///{tmp_path / 'x.sqlite'}"):
        async with connect(url) as db:
            for call in (
                lambda: db.sessions.get("s1"),
                lambda: db.sessions.upsert(Session(session_id="s1")),
                lambda: db.sessions.append_run("s1", Run(run_id="r1")),
                lambda: db.sessions.list(),
                lambda: db.sessions.count(),
                lambda: db.sessions.delete("s1"),
            ):
                with pytest.raises(NotProvisioned, match=r"provision\(\)"):
                    await call()


async def test_a_database_over_a_store_of_ones_own() -> None:
    store = MemoryStore("memory://mine")
    async with Database(store) as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="s1"))
    assert [str(key) for key in store.items] == ["sessions/s1"]


async def test_the_health_of_a_single_store_is_whether_it_answers() -> None:
    store = FaultyStore(MemoryStore())
    async with Database(store) as db:
        await db.provision()
        health = await db.health()
        assert health.ok
        assert [(each.answers, each.last_error) for each in health.stores] == [(True, None)]
        store.down()
        health = await db.health()
        assert not health.ok
        assert not health.stores[0].answers
        assert isinstance(health.stores[0].last_error, StoreUnavailable)
        store.up()
        assert (await db.health()).ok


async def test_a_single_store_without_its_tables_is_not_well(tmp_path: Path) -> None:
    async with connect(f"sqlite:///{tmp_path / 'new.sqlite'}") as db:
        health = await db.health()
        assert not health.ok
        assert isinstance(health.stores[0].last_error, NotProvisioned)
        await db.provision()
        assert (await db.health()).ok
