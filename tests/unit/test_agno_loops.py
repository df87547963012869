"""One object serves one event loop after another, and leaves nothing open in them."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agno.agent import Agent
from agno.db.dynamo import DynamoDb
from agno.db.firestore import FirestoreDb
from agno.db.utils import resolve_db_from_config
from agno.registry import Registry
from agno.session import AgentSession

from agno_clouddb import ConfigurationError, Database, ReadCache, connect
from agno_clouddb.integrations.agno import AsyncCloudDb, AsyncDynamoDb, AsyncFirestoreDb
from agno_clouddb.integrations.agno.loops import Loops
from agno_clouddb.stores.memory import MemoryStore


class Watched(MemoryStore):
    """Knows how often it was opened, provisioned and closed."""

    def __init__(self) -> None:
        super().__init__("memory://watched")
        self.opened = self.closed = self.provisioned = 0

    async def open(self) -> None:
        self.opened += 1
        await super().open()

    async def aclose(self) -> None:
        self.closed += 1
        await super().aclose()

    async def provision(self, *args: object, **kwargs: object) -> None:
        self.provisioned += 1
        await super().provision()


def test_what_one_event_loop_has_written_the_next_one_reads() -> None:
    db = AsyncCloudDb("memory://", provision=True)
    asyncio.run(db.upsert_session(AgentSession(session_id="s", agent_id="a")))
    session = asyncio.run(db.get_session("s"))
    assert isinstance(session, AgentSession)
    assert session.agent_id == "a"


def test_connections_end_with_their_event_loop_and_are_made_anew_in_the_next() -> None:
    stores: list[Watched] = []

    def make() -> Database:
        stores.append(Watched())
        return Database(stores[-1])

    loops = Loops(make, provision=True)
    for _ in range(2):
        asyncio.run(loops.database())
    assert [(each.opened, each.closed) for each in stores] == [(1, 1), (1, 1)]
    assert [each.provisioned for each in stores] == [1, 0]


async def test_calls_that_come_first_together_open_it_once() -> None:
    store = Watched()
    loops = Loops(lambda: Database(store), provision=True)
    first, *others = await asyncio.gather(*(loops.database() for _ in range(20)))
    assert all(each is first for each in others)
    assert (store.opened, store.provisioned) == (1, 1)
    await loops.aclose()
    await loops.aclose()
    assert store.closed == 1


async def test_what_is_closed_is_opened_by_the_next_call() -> None:
    db = AsyncCloudDb("memory://", provision=True)
    await db.upsert_session(AgentSession(session_id="s", agent_id="a"))
    await db.close()
    assert await db.get_session("s") is not None
    await db.close()


async def test_a_first_use_that_fails_can_be_repeated() -> None:
    class Failing(Watched):
        async def open(self) -> None:
            await super().open()
            if self.opened == 1:
                raise ConfigurationError("no credentials")

    store = Failing()
    loops = Loops(lambda: Database(store), provision=True)
    with pytest.raises(ConfigurationError, match="no credentials"):
        await loops.database()
    assert await loops.database() is not None
    await loops.aclose()
    assert store.opened == 2


def test_a_thread_with_an_event_loop_of_its_own_does_not_disturb_the_first() -> None:
    db = AsyncCloudDb("memory://", provision=True)

    async def first() -> None:
        await db.upsert_session(AgentSession(session_id="s", agent_id="a"))
        thread = threading.Thread(target=lambda: asyncio.run(second()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert await db.get_session("t") is not None

    async def second() -> None:
        assert await db.get_session("s") is not None
        await db.upsert_session(AgentSession(session_id="t", agent_id="a"))

    asyncio.run(first())


async def test_a_database_that_is_given_stays_open() -> None:
    async with connect("memory://") as database:
        await database.provision()
        db = AsyncCloudDb(database=database)
        await db.upsert_session(AgentSession(session_id="s", agent_id="a"))
        await db.close()
        assert await database.sessions.get("s") is not None


def test_nothing_is_asked_of_a_cloud_before_the_first_use(tmp_path: Path) -> None:
    AsyncCloudDb("dynamodb://eu-west-1", "firestore://my-project", f"sqlite:///{tmp_path / 'new.sqlite'}")
    assert list(tmp_path.iterdir()) == []


def test_it_is_made_again_from_a_dict() -> None:
    options: dict[str, Any] = {
        "prefix": "mine_",
        "deadline": 3.5,
        "consistency": "eventual",
        "acks": "all",
        "reads": "primary",
        "failover": True,
        "reconcile_every": 60.0,
        "tombstone_retention": 1_000_000.0,
        "max_drift": timedelta(minutes=5),
        "ttl": {"sessions": 90, "traces": timedelta(hours=36)},
        "cache": ReadCache(seconds=5),
    }
    assert {*options} == {*inspect.signature(connect).parameters} - {"stores"}
    db = AsyncCloudDb("dynamodb://eu-west-1", "firestore://p", history_runs=3, **options)
    again = AsyncCloudDb.from_dict(json.loads(json.dumps(db.to_dict())))
    assert again._options == {**options, "max_drift": 300, "ttl": {"sessions": 90, "traces": 1.5}}
    assert again.to_dict() == db.to_dict()
    assert again.to_dict()["history_runs"] == 3
    assert again.id == db.id == AsyncCloudDb("dynamodb://eu-west-1", "firestore://p", prefix="mine_").id
    assert db.id != AsyncCloudDb("dynamodb://eu-west-1", "firestore://p").id


def test_times_are_taken_as_connect_takes_them_and_kept_in_its_dict() -> None:
    kept: dict[str, Any] = {
        "tombstone_retention": timedelta(days=30),
        "max_drift": timedelta(minutes=5),
        "reconcile_every": 60.5,
    }
    again = AsyncCloudDb.from_dict(AsyncCloudDb("dynamodb://eu-west-1", "firestore://p", **kept).to_dict())
    options = json.loads(json.dumps(again.to_dict()))["options"]
    assert {name: options[name] for name in kept} == {
        "tombstone_retention": 30 * 86_400,
        "max_drift": 300,
        "reconcile_every": 60.5,
    }
    with pytest.raises(ConfigurationError, match="tombstone_retention is 60"):
        AsyncCloudDb("dynamodb://eu-west-1", "firestore://p", tombstone_retention=60)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AsyncDynamoDb(region_name="eu-west-1", id="mine"),
        lambda: AsyncFirestoreDb(project_id="p", id="mine"),
        lambda: AsyncCloudDb(database=Database(MemoryStore()), id="mine"),
        lambda: AsyncCloudDb("dynamodb://eu-west-1", MemoryStore(), id="mine"),
    ],
)
def test_what_is_not_made_from_urls_alone_is_found_again_by_its_id(make: Callable[[], AsyncCloudDb]) -> None:
    db = make()
    told = Agent(db=db).to_dict()["db"]
    registry = Registry(dbs=[db])  # type: ignore[list-item]  # agno takes asynchronous ones too
    assert resolve_db_from_config(told, registry) is db
    with pytest.raises(ConfigurationError, match="made from URLs"):
        type(db).from_dict(told)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "URLs"),
        ({"database": Database(MemoryStore()), "reads": "primary"}, "reads"),
        ({"database": Database(MemoryStore()), "session_table": "acme_sessions"}, "session_table"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        AsyncCloudDb(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"db_client": object()}, "db_client"),
        ({"session_table": "conversations"}, "conversations"),
        ({"session_table": "a_sessions", "memory_table": "b_memories"}, "begin differently"),
        ({"aws_access_key_id": "only"}, "go together"),
        ({"project_id": "p"}, "project_id"),
        ({"reads": "primary"}, "reads"),
    ],
)
def test_an_argument_that_makes_no_sense_on_dynamodb_is_refused(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        AsyncDynamoDb(region_name="eu-west-1", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"db_client": object()}, "db_client"),
        ({"session_collection": "conversations"}, "conversations"),
        ({"region_name": "eu-west-1"}, "region_name"),
    ],
)
def test_an_argument_that_makes_no_sense_on_firestore_is_refused(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        AsyncFirestoreDb(project_id="p", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        ({}, "agno_clouddb_"),
        ({"session_table": "acme_sessions", "eval_table": "acme_eval_runs", "memory_table": None}, "acme_clouddb_"),
        ({"prefix": "own_"}, "own_"),
        ({"prefix": "own_", "session_table": "conversations"}, "own_"),
        ({"approvals_table": "acme_approvals", "products_table": "goods"}, "acme_clouddb_"),
    ],
)
def test_tables_are_never_those_of_agnos_own_adapter(names: dict[str, object], prefix: str) -> None:
    assert AsyncDynamoDb(region_name="eu-west-1", **names)._options["prefix"] == prefix  # type: ignore[arg-type]
    assert AsyncCloudDb("dynamodb://eu-west-1", **names)._options["prefix"] == prefix


def test_agno_is_told_what_it_is_that_the_tables_are_called() -> None:
    names: dict[str, Any] = {"session_table": "acme_sessions", "eval_table": "acme_evals"}
    collections: dict[str, Any] = {name.replace("table", "collection"): value for name, value in names.items()}
    for db in (
        AsyncCloudDb("dynamodb://eu-west-1", "firestore://p", **names),
        AsyncDynamoDb(region_name="eu-west-1", **names),
        AsyncFirestoreDb(project_id="p", **collections),
    ):
        assert (db.session_table_name, db.eval_table_name) == ("acme_sessions", "acme_evals")
        assert db.memory_table_name == "agno_memories"
        assert db.to_dict().items() >= names.items()
    told = AsyncCloudDb("dynamodb://eu-west-1", prefix="own_", **names).to_dict()
    again = AsyncCloudDb.from_dict(told)
    assert again.to_dict() == told
    assert again._options["prefix"] == "own_"


@pytest.mark.parametrize(("ours", "theirs"), [(AsyncDynamoDb, DynamoDb), (AsyncFirestoreDb, FirestoreDb)])
def test_arguments_without_names_are_those_of_agnos_own_adapter(
    ours: type[AsyncCloudDb], theirs: type[DynamoDb | FirestoreDb]
) -> None:
    own = inspect.signature(ours).parameters.values()
    positional = [each.name for each in own if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert positional == [*inspect.signature(theirs).parameters][: len(positional)]
    with pytest.raises(ConfigurationError, match="blocks the event loop"):
        ours(object())


@pytest.mark.parametrize(
    "make", [partial(AsyncDynamoDb, region_name="eu-west-1"), partial(AsyncFirestoreDb, project_id="p")]
)
def test_one_cloud_takes_all_options_of_connect_but_those_of_several_stores(make: Callable[..., AsyncCloudDb]) -> None:
    of_several = {"acks", "reads", "failover", "reconcile_every", "tombstone_retention"}
    options: dict[str, object] = {
        name: each.default
        for name, each in inspect.signature(connect).parameters.items()
        if each.kind is each.KEYWORD_ONLY and name not in of_several
    }
    made = make(**options)
    assert made._options == options
    for name in of_several:
        with pytest.raises(ConfigurationError, match=name):
            make(**{name: None})
