"""FastAPI: a Database for the lifetime of an app, calls bound to a request's user, errors as answers, a health route.

Needs the extra ``fastapi``. Nothing is kept in this module: the Database lives on ``app.state.clouddb``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, cast

from agno_clouddb.database import Database
from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    ConflictError,
    InvalidRecord,
    LifecycleError,
    NotOwner,
    PartialWrite,
    RecordNotFound,
    RecordTooLarge,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.fanout.health import StoreHealth

try:
    from fastapi import APIRouter, Depends, FastAPI, Request
    from fastapi.responses import JSONResponse
    from starlette.requests import HTTPConnection
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("fastapi", "starlette"):
        raise
    raise ImportError(
        f'agno_clouddb.integrations.fastapi needs the package {missing.name}: run `pip install "agno_clouddb[fastapi]"`'
    ) from missing

if TYPE_CHECKING:
    from starlette.types import Lifespan

    from agno_clouddb.repositories.evals import Evals
    from agno_clouddb.repositories.knowledge import Knowledge
    from agno_clouddb.repositories.learnings import Learnings
    from agno_clouddb.repositories.memories import Memories
    from agno_clouddb.repositories.metrics import DailyMetrics
    from agno_clouddb.repositories.reads import Reads
    from agno_clouddb.repositories.sessions import Sessions
    from agno_clouddb.repositories.traces import Traces

__all__ = [
    "AppDatabase",
    "UserScope",
    "add_error_handlers",
    "app_database",
    "error_response",
    "health_router",
    "lifespan",
    "user_scope",
]

_log = logging.getLogger(__name__)

_STATE = "clouddb"  # the attribute of app.state

# The calls that a UserScope has. Named, since a new one is not to be there before somebody has looked what it does.
_CALLS = ("get", "upsert", "upsert_many", "update", "delete", "delete_many")
_LISTS = ("list", "iterate", "count")
_SESSIONS = ("create", "rename", "append_run", "upsert_run", "create_run", "update_run", "get_run", "list_runs")
_KNOWLEDGE = ("create", "set_status", "count_access")
_TRACES = ("upsert_trace", "create_span", "create_spans", "get_span", "list_spans")


def lifespan(
    make: Callable[[], Database], *, provision: bool = False, within: Lifespan[FastAPI] | None = None
) -> Lifespan[FastAPI]:
    """A lifespan for ``FastAPI(lifespan=…)``: a Database is made and opened as the app starts, and closed as it ends.

    Args:
        make: makes the Database, such as ``lambda: connect("dynamodb://eu-west-1")``. It is called in the process and
            the event loop that serve: each worker process needs a Database of its own.
        provision: create missing tables and indexes before the first request; the start fails where that does. Without
            it, an app starts also while its stores do not answer.
        within: a lifespan of your own, which runs while the Database is open, as ``app.state.clouddb``. What it yields
            goes on to the requests' state.

    Raises:
        LifecycleError: as the app starts: it has a Database already.
        ConfigurationError, NotProvisioned, IndexNotReady, Throttled, StoreUnavailable: as the app starts: as
            ``Database.open`` and ``Database.provision`` say.
    """

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        if hasattr(app.state, _STATE):
            raise LifecycleError("the app has a Database already", remedy="Give an app one lifespan of this library")
        async with make() as database:
            if provision:
                await database.provision()
            setattr(app.state, _STATE, database)
            try:
                if within is None:
                    yield None
                else:
                    async with within(app) as state:
                        yield state
            finally:
                delattr(app.state, _STATE)

    # Starlette tells lifespans with a state from those without by what they yield; its type wants one or the other.
    return cast("Lifespan[FastAPI]", opened)


async def app_database(connection: HTTPConnection) -> Database:
    """The dependency that gives a request, or a WebSocket, the Database of its app; see ``AppDatabase``.

    Raises:
        LifecycleError: the app has none: it was made without ``lifespan``, or has not run it.
    """
    database = getattr(connection.app.state, _STATE, None)
    if not isinstance(database, Database):
        raise LifecycleError(
            "the app has no open Database",
            remedy="Make it with FastAPI(lifespan=lifespan(...)); set `state.clouddb` of an app that is mounted in it",
        )
    return database


AppDatabase = Annotated[Database, Depends(app_database)]
"""The type of a parameter that is to be the app's Database: ``async def route(db: AppDatabase)``."""


class UserScope:
    """The repositories of a Database for one user: every call is made with ``user_id=`` of that user.

    ``scope.sessions.get("s1")`` is ``db.sessions.get("s1", user_id=…)``. Calls that are not made for a user, as
    ``sessions.find_run``, are not there: AttributeError. A ``user_id`` of the caller's own is TypeError. Transactions
    and what concerns the whole are on the Database only.

    Args:
        db: where the records are.
        user_id: the user.

    Raises:
        ConfigurationError: ``user_id`` is None, empty, or no text. To the Database, None is everybody.
    """

    def __init__(self, db: Database, user_id: str) -> None:
        if not isinstance(user_id, str) or not user_id:
            raise ConfigurationError(
                f"the user of a request is {user_id!r}, which names nobody",
                remedy="Raise HTTPException(401) where a request has no user",
            )
        self.user_id = user_id
        # Typed as what they stand for, so that arguments and results are checked.
        self.sessions = cast("Sessions", _Bound(db.sessions, user_id, *_LISTS, *_SESSIONS))
        self.memories = cast("Memories", _Bound(db.memories, user_id, *_LISTS, "topics", "stats", "clear"))
        self.evals = cast("Evals", _Bound(db.evals, user_id, *_LISTS, "create", "rename"))
        self.knowledge = cast("Knowledge", _Bound(db.knowledge, user_id, *_LISTS, *_KNOWLEDGE))
        self.traces = cast("Traces", _Bound(db.traces, user_id, *_LISTS, "stats", *_TRACES))
        self.learnings = cast("Learnings", _Bound(db.learnings, user_id, *_LISTS, "search", "stats", "clear"))
        self.metrics = cast("DailyMetrics", _Bound(db.metrics, user_id, "range", "latest"))


class _Bound:
    """The calls of a repository in which ``user_id`` is the user on whose behalf they are made, with that given."""

    def __init__(self, repository: Reads[Any], user_id: str, *own: str) -> None:
        self._repository = repository
        self._user_id = user_id
        self._calls = frozenset((*_CALLS, *own))

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name not in self._calls:
            collection = self._repository.lists.record.collection.name
            raise AttributeError(f"{collection}.{name} is no call that is made for one user; the Database may have it")
        method = getattr(self._repository, name)

        @wraps(method)
        def call(*arguments: object, **options: object) -> object:
            return method(*arguments, **options, user_id=self._user_id)  # given twice, it is a TypeError

        return call


def user_scope(identify: Callable[..., str | Awaitable[str]]) -> Callable[..., Awaitable[UserScope]]:
    """A dependency that gives a request the UserScope of its user.

        MyScope = Annotated[UserScope, Depends(user_scope(current_user))]

    Args:
        identify: a dependency that gives the id of the request's user, ``def current_user(request: Request) -> str`` or
            with whatever parameters FastAPI knows. It raises ``HTTPException(401)`` for a request without one.
    """

    async def scope(db: Database = Depends(app_database), user_id: str = Depends(identify)) -> UserScope:
        return UserScope(db, user_id)

    return scope


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a client is told of a kind of error: nothing that only the server should know, such as keys or causes."""

    status: int
    code: str
    detail: str
    retry: bool = False


_NOT_FOUND = _Answer(404, "not_found", "There is no such record")

_ANSWERS: dict[type[CloudDBError], _Answer] = {
    NotOwner: _NOT_FOUND,  # alike, so that nobody learns what others have
    RecordNotFound: _NOT_FOUND,
    ConflictError: _Answer(409, "conflict", "The record was changed meanwhile, or exists already"),
    RecordTooLarge: _Answer(413, "too_large", "The record is larger than what can be stored"),
    InvalidRecord: _Answer(422, "invalid_record", "A value cannot be stored as it is"),
    Throttled: _Answer(429, "throttled", "There are too many requests", retry=True),
    StoreUnavailable: _Answer(503, "unavailable", "The store does not answer", retry=True),
    PartialWrite: _Answer(503, "partial_write", "The write has reached a part of the stores, where it stands"),
}
_OTHERWISE = _Answer(500, "internal", "Internal Server Error")


def add_error_handlers(app: FastAPI, *, retry_after: int = 1) -> None:
    """Answer the errors that a client can do something about; docs/fastapi.md has the table. Others stay errors: 500.

    What is answered with 429 or 503 is logged as a warning, with its cause, by ``agno_clouddb.integrations.fastapi``.

    Args:
        app: the app.
        retry_after: seconds, 0 or more, of the header Retry-After where a repetition may help.

    Raises:
        ConfigurationError: ``retry_after`` is no such number.
    """
    if isinstance(retry_after, bool) or not isinstance(retry_after, int) or retry_after < 0:
        raise ConfigurationError(f"retry_after is {retry_after!r}, not a whole number of seconds from 0")

    async def answer(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, CloudDBError)
        response = error_response(error, retry_after=retry_after)
        if response.status_code in (429, 503):
            _log.warning("%s is answered with %d: %s", request.url.path, response.status_code, error, exc_info=error)
        return response

    for kind in _ANSWERS:
        app.add_exception_handler(kind, answer)


def error_response(error: CloudDBError, *, retry_after: int = 1) -> JSONResponse:
    """The answer to an error; its ``body`` is also what a stream can end with, when it is too late for a status.

    Args:
        error: any error of the library.
        retry_after: seconds, as in ``add_error_handlers``.

    Returns:
        JSON with ``detail`` and ``code``. InvalidRecord has FastAPI's own list as ``detail``, with the path of the
        value, RecordTooLarge also ``size`` and ``limit`` in bytes. No keys, users, stores or texts of a service.
    """
    answer = next((_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS), _OTHERWISE)
    body: dict[str, object] = {"detail": answer.detail, "code": answer.code}
    if isinstance(error, InvalidRecord):
        # That of an owner may name the other user.
        problem = answer.detail if error.path == "user_id" else error.problem
        body["detail"] = [{"loc": [error.path], "msg": problem, "type": answer.code}]
    elif isinstance(error, RecordTooLarge):
        body |= {"size": error.size, "limit": error.limit}
    headers = {"Retry-After": str(retry_after)} if answer.retry else None
    return JSONResponse(body, answer.status, headers)


def health_router(path: str = "/health", *, details: bool = False) -> APIRouter:
    """A router with one route, GET ``path``: 200 while at least one store answers, 503 when none does.

    The body's ``status`` is ``ok``; ``degraded``, when a store of a fan-out does not answer, has missed something or
    was never compared with the others; or ``down``. It asks the stores: two small lists each for several, and one read
    for one.

    Args:
        path: where.
        details: also give ``stores``, with name, state, hints, seconds of lag and of latency of each. Names tell
            regions and projects: for a route that only you can reach.
    """
    router = APIRouter()

    @router.get(path, response_model=None)
    async def health(db: AppDatabase) -> JSONResponse:
        found = await db.health()
        for each in found.stores:
            if not each.answers:
                _log.warning("%s does not answer: %s", each.name, each.last_error, exc_info=each.last_error)
        answering = any(each.answers for each in found.stores)
        status = "down" if not answering else "ok" if found.ok else "degraded"
        body: dict[str, object] = {"status": status}
        if details:
            body["stores"] = [_described(each) for each in found.stores]
        return JSONResponse(body, 200 if answering else 503, {"Cache-Control": "no-store"})

    return router


def _described(store: StoreHealth) -> dict[str, object]:
    return {
        "name": store.name,
        "answers": store.answers,
        "state": store.state,
        "hints": store.hints,
        "replication_lag": store.replication_lag,
        "latency": store.latency,
    }
