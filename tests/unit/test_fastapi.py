"""The integration with FastAPI: lifespan, dependencies, user scopes, errors as answers, health."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request, WebSocket

from agno_clouddb import (
    CloudDBError,
    ConfigurationError,
    ConflictError,
    Database,
    EvalRun,
    InvalidRecord,
    LifecycleError,
    NotOwner,
    NotProvisioned,
    PartialWrite,
    RecordNotFound,
    RecordTooLarge,
    Run,
    Session,
    StoreUnavailable,
    Throttled,
    UserMemory,
    connect,
)
from agno_clouddb.integrations.fastapi import (
    AppDatabase,
    UserScope,
    add_error_handlers,
    error_response,
    health_router,
    lifespan,
    user_scope,
)
from agno_clouddb.stores.base import Key
from agno_clouddb.testing import FaultyStore, MemoryStore
from agno_clouddb.testing.faults import Fault

_REPOSITORIES = ("sessions", "memories", "evals", "knowledge", "traces", "learnings", "metrics")
_SECRET = Key("sessions", "secret-session")


async def current_user(x_user: Annotated[str | None, Header()] = None) -> str:
    if x_user is None:
        raise HTTPException(401, "who are you?")
    return x_user


Mine = Annotated[UserScope, Depends(user_scope(current_user))]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that has run its lifespan; what the app raises is raised."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


def raising(error: Exception) -> FastAPI:
    """An app whose only route fails."""
    app = FastAPI()

    @app.get("/")
    async def route() -> None:
        raise error from RuntimeError("secret-cause")

    return app


# Errors as answers


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (NotOwner("secret-text", store="secret-store", key=_SECRET), 404, "not_found", None),
        (RecordNotFound("secret-text", store="secret-store", key=_SECRET), 404, "not_found", None),
        (ConflictError("secret-1", "secret-2", problem="secret-text", key=_SECRET), 409, "conflict", None),
        (RecordTooLarge(500_000, 400_000, store="secret-store", key=_SECRET), 413, "too_large", None),
        (InvalidRecord("memory", "must not be empty", remedy="secret-text"), 422, "invalid_record", None),
        (Throttled("secret-text", store="secret-store", key=_SECRET), 429, "throttled", "7"),
        (StoreUnavailable("secret-text", store="secret-store", key=_SECRET), 503, "unavailable", "7"),
        (
            PartialWrite(("secret-a",), {"secret-b": Throttled("secret-text")}, key=_SECRET),
            503,
            "partial_write",
            None,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_error_is_answered_with_its_status_and_nothing_that_only_the_server_should_know(
    error: CloudDBError, status: int, code: str, retry: str | None
) -> None:
    app = raising(error)
    add_error_handlers(app, retry_after=7)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers.get("Retry-After") == retry
    assert "secret" not in answer.text


def test_a_subclass_of_an_error_is_answered_as_its_base() -> None:
    class Special(ConflictError):
        pass

    assert error_response(Special(None, None)).status_code == 409


async def test_what_belongs_to_another_user_is_answered_exactly_as_what_is_not_there() -> None:
    app = FastAPI(lifespan=lifespan(lambda: connect("memory://"), provision=True))
    add_error_handlers(app)

    @app.get("/{name}")
    async def rename(name: str, mine: Mine) -> str | None:
        return (await mine.sessions.rename(name, "taken over")).name

    async with serving(app) as client:
        await app.state.clouddb.sessions.upsert(Session(session_id="bobs", user_id="bob"))
        foreign = await client.get("/bobs", headers={"X-User": "ann"})
        absent = await client.get("/none", headers={"X-User": "ann"})
        assert (foreign.status_code, foreign.content) == (404, absent.content)
        assert foreign.headers == absent.headers
        assert (await client.get("/bobs", headers={"X-User": "bob"})).json() == "taken over"


async def test_an_invalid_record_is_answered_in_the_form_of_fastapis_own_validation() -> None:
    app = FastAPI(lifespan=lifespan(lambda: connect("memory://"), provision=True))
    add_error_handlers(app)

    @app.post("/")
    async def write(mine: Mine, number: float) -> None:
        await mine.sessions.upsert(Session(session_id="s1", metadata={"scores": [1, number]}))

    async with serving(app) as client:
        answer = await client.post("/", params={"number": "nan"}, headers={"X-User": "ann"})
        own = await client.post("/", params={"number": "x"}, headers={"X-User": "ann"})
    assert answer.status_code == own.status_code == 422
    (detail,) = answer.json()["detail"]
    assert (detail["loc"], detail["type"]) == (["metadata.scores[1]"], "invalid_record")
    assert detail["msg"]
    assert detail.keys() <= own.json()["detail"][0].keys()


async def test_an_invalid_owner_does_not_tell_who_owns_the_record() -> None:
    async with connect("memory://") as db:
        with pytest.raises(InvalidRecord) as raised:
            await UserScope(db, "ann").sessions.upsert(Session(session_id="s1", user_id="secret-bob"))
    assert "secret-bob" in str(raised.value)
    response = error_response(raised.value)
    assert response.status_code == 422
    assert b"secret" not in response.body


async def test_a_mistake_of_the_server_stays_an_error() -> None:
    error = NotProvisioned("there is no table", store="dynamodb://eu-west-1")
    app = raising(error)
    add_error_handlers(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(NotProvisioned):
            await client.get("/")
    assert error_response(error).status_code == 500
    assert b"dynamodb" not in error_response(error).body


async def test_a_throttled_store_is_logged_with_its_cause_and_answered_with_when_to_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FaultyStore(MemoryStore())
    app = FastAPI(lifespan=lifespan(lambda: connect(store), provision=True))
    add_error_handlers(app, retry_after=3)

    @app.get("/memories")
    async def memories(mine: Mine) -> int:
        return await mine.memories.count()

    async with serving(app) as client:
        store.plan = lambda call, mutations: Fault("refused", error=Throttled)
        with caplog.at_level(logging.WARNING, "agno_clouddb.integrations.fastapi"):
            answer = await client.get("/memories", headers={"X-User": "ann"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    (record,) = [each for each in caplog.records if each.name == "agno_clouddb.integrations.fastapi"]
    assert "/memories is answered with 429" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Throttled)


@pytest.mark.parametrize("seconds", [-1, 1.5, True, "1", None])
def test_a_pause_that_is_no_number_of_seconds_is_refused(seconds: int) -> None:
    with pytest.raises(ConfigurationError, match="retry_after"):
        add_error_handlers(FastAPI(), retry_after=seconds)


# Lifespan and dependency


async def test_each_start_of_an_app_makes_a_database_that_its_end_closes() -> None:
    made: list[Database] = []

    def make() -> Database:
        made.append(connect("memory://"))
        return made[-1]

    app = FastAPI(lifespan=lifespan(make, provision=True))

    @app.get("/")
    async def route(db: AppDatabase) -> bool:
        return db is made[-1] and await db.sessions.count() == 0

    assert made == []
    for start in (1, 2):
        async with serving(app) as client:
            assert (await client.get("/")).json() is True
        assert len(made) == start
        assert not hasattr(app.state, "clouddb")
        with pytest.raises(LifecycleError, match="closed"):
            await made[-1].sessions.count()


async def test_a_lifespan_of_the_users_own_runs_while_the_database_is_open_and_hands_on_its_state() -> None:
    counted: list[int] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        counted.append(await app.state.clouddb.sessions.count())
        yield {"greeting": "hello"}
        counted.append(await app.state.clouddb.sessions.count())

    app = FastAPI(lifespan=lifespan(lambda: connect("memory://"), provision=True, within=own))
    async with app.router.lifespan_context(app) as state:
        assert state == {"greeting": "hello"}
        await app.state.clouddb.sessions.upsert(Session(session_id="s1"))
    assert counted == [0, 1]


async def test_a_start_that_fails_within_closes_the_database() -> None:
    db = connect("memory://")

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no start")
        yield

    app = FastAPI(lifespan=lifespan(lambda: db, within=own))
    with pytest.raises(RuntimeError, match="no start"):
        async with app.router.lifespan_context(app):
            pytest.fail("the app has started")
    with pytest.raises(LifecycleError, match="closed"):
        await db.sessions.count()


async def test_an_app_takes_one_database() -> None:
    inner = lifespan(lambda: connect("memory://b"))
    app = FastAPI(lifespan=lifespan(lambda: connect("memory://a"), within=inner))
    with pytest.raises(LifecycleError, match="already"):
        async with app.router.lifespan_context(app):
            pytest.fail("the app has started")


async def test_tables_are_made_on_request_and_a_start_that_cannot_make_them_fails() -> None:
    store = FaultyStore(MemoryStore())
    store.down()
    waiting = FastAPI(lifespan=lifespan(lambda: connect(store)))
    async with waiting.router.lifespan_context(waiting):
        pass
    provisioning = FastAPI(lifespan=lifespan(lambda: connect(store), provision=True))
    with pytest.raises(StoreUnavailable):
        async with provisioning.router.lifespan_context(provisioning):
            pytest.fail("the app has started")


async def test_an_app_without_the_lifespan_says_so() -> None:
    app = FastAPI()

    @app.get("/")
    async def route(db: AppDatabase) -> None:
        pytest.fail("the route was reached")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(LifecycleError, match=r"no open Database.*lifespan"):
            await client.get("/")


async def test_a_websocket_gets_the_database_too() -> None:
    app = FastAPI(lifespan=lifespan(lambda: connect("memory://"), provision=True))

    @app.websocket("/")
    async def talk(socket: WebSocket, db: AppDatabase) -> None:
        await socket.accept()
        await socket.send_text(f"{await db.sessions.count()} sessions")
        await socket.close()

    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)  # type: ignore[arg-type]
    assert [each.get("text") for each in sent if each["type"] == "websocket.send"] == ["0 sessions"]


# Scopes of a user


def test_a_scope_has_every_call_that_is_made_on_behalf_of_a_user_and_no_other() -> None:
    db = connect("memory://")
    scope = UserScope(db, "ann")
    for name in _REPOSITORIES:
        repository, bound = getattr(db, name), getattr(scope, name)
        public = {each for each in dir(repository) if not each.startswith("_") and each != "lists"}
        found = {each for each in public if hasattr(bound, each)}
        wanted = {each for each in public if _for_a_user(getattr(repository, each))}
        assert found == wanted, f"calls of db.{name} that UserScope is to name, after a look at what they do"


def _for_a_user(call: Callable[..., object]) -> bool:
    parameters = inspect.signature(call).parameters
    named = "user_id" in parameters and parameters["user_id"].kind is inspect.Parameter.KEYWORD_ONLY
    return named or "filters" in parameters


async def test_a_scope_neither_sees_nor_changes_what_belongs_to_another_user() -> None:
    async with connect("memory://") as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="bobs", user_id="bob", runs=[Run(run_id="r1")]))
        await db.memories.upsert(UserMemory(memory_id="bobs", memory="likes tea", topics=["tea"], user_id="bob"))
        await db.memories.upsert(UserMemory(memory_id="nobodys", memory="likes milk"))
        mine = UserScope(db, "ann")
        assert await mine.sessions.get("bobs") is None
        assert await mine.sessions.get_run("bobs", "r1") is None
        assert [run async for run in mine.sessions.list_runs("bobs")] == []
        assert (await mine.sessions.list()).items == []
        assert [each async for each in mine.memories.iterate()] == []
        assert (await mine.memories.count(), await mine.memories.topics(), await mine.memories.stats()) == (0, (), ())
        for call in (
            mine.sessions.rename("bobs", "mine"),
            mine.sessions.append_run("bobs", Run(run_id="r2")),
            mine.sessions.upsert(Session(session_id="bobs")),
            mine.memories.update("bobs", lambda memory: memory),
        ):
            with pytest.raises(NotOwner):
                await call
        assert await mine.sessions.delete("bobs") is False
        assert await mine.memories.delete_many(["bobs", "nobodys"]) == 0
        assert await mine.memories.clear() == 0
        session = await db.sessions.get("bobs")
        assert session is not None
        assert [run.run_id for run in session.runs] == ["r1"]
        assert await db.memories.count() == 2


async def test_what_is_written_in_a_scope_belongs_to_its_user() -> None:
    async with connect("memory://") as db:
        await db.provision()
        mine = UserScope(db, "ann")
        await mine.sessions.create(Session(session_id="s1"))
        await mine.sessions.append_run("s1", Run(run_id="r1"))
        await mine.memories.upsert_many(UserMemory(memory=f"memory {n}") for n in range(3))
        await mine.evals.create(EvalRun(run_id="e1", eval_type="accuracy", eval_data={}))
        assert {each.user_id for each in (await db.memories.list()).items} == {"ann"}
        assert [each.session_id for each in (await db.sessions.list(user_id="ann")).items] == ["s1"]
        assert await db.evals.count(user_id="ann") == 1
        assert [run.run_id async for run in mine.sessions.list_runs("s1")] == ["r1"]


async def test_a_scope_cannot_be_made_or_used_for_anybody_else() -> None:
    async with connect("memory://") as db:
        for nobody in (None, "", 7):
            with pytest.raises(ConfigurationError, match="names nobody"):
                UserScope(db, nobody)  # type: ignore[arg-type]
        mine = UserScope(db, "ann")
        with pytest.raises(TypeError, match="user_id"):
            await mine.sessions.get("s1", user_id="bob")
        with pytest.raises(TypeError, match="user_id"):
            await mine.memories.list(user_id=None)
        for call in ("find_run", "delete_run", "_store", "_delete_runs"):
            with pytest.raises(AttributeError, match=call):
                getattr(mine.sessions, call)


async def test_a_request_gets_the_scope_of_the_user_that_the_app_says_it_has() -> None:
    app = FastAPI(lifespan=lifespan(lambda: connect("memory://"), provision=True))

    def by_query(request: Request) -> str:
        return request.query_params.get("user", "")

    @app.get("/header")
    async def header(mine: Mine) -> str:
        return mine.user_id

    @app.get("/query")
    async def query(mine: UserScope = Depends(user_scope(by_query))) -> str:
        return mine.user_id

    async with serving(app) as client:
        assert (await client.get("/header", headers={"X-User": "ann"})).json() == "ann"
        assert (await client.get("/query?user=bob", headers={"X-User": "ann"})).json() == "bob"
        assert (await client.get("/header")).status_code == 401
        with pytest.raises(ConfigurationError, match="names nobody"):
            await client.get("/query")


# Health


async def test_one_store_is_healthy_while_it_answers() -> None:
    store = FaultyStore(MemoryStore())
    app = FastAPI(lifespan=lifespan(lambda: connect(store), provision=True))
    app.include_router(health_router())
    async with serving(app) as client:
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert answer.headers["Cache-Control"] == "no-store"
        store.down()
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()) == (503, {"status": "down"})
        store.up()
        assert (await client.get("/health")).status_code == 200


async def test_several_stores_are_healthy_while_one_of_them_answers() -> None:
    stores = [FaultyStore(MemoryStore(name)) for name in ("memory://a", "memory://b")]
    app = FastAPI(lifespan=lifespan(lambda: connect(*stores), provision=True))
    app.include_router(health_router("/up", details=True))
    async with serving(app) as client:
        assert (await client.get("/up")).json()["status"] == "degraded"  # never compared
        await app.state.clouddb.reconcile()
        answer = await client.get("/up")
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        stores[0].down()
        answer = await client.get("/up")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert [(each["name"], each["answers"]) for each in answer.json()["stores"]] == [
            ("memory://a", False),
            ("memory://b", True),
        ]
        stores[1].down()
        answer = await client.get("/up")
        assert (answer.status_code, answer.json()["status"]) == (503, "down")


# The extra


def test_without_fastapi_the_import_says_which_extra_to_install() -> None:
    program = "import sys; sys.modules['fastapi'] = None; import agno_clouddb.integrations.fastapi"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: agno_clouddb.integrations.fastapi needs the package fastapi: "
        'run `pip install "agno_clouddb[fastapi]"`'
    )
