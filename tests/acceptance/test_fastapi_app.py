"""The chat service of the examples, over HTTP: by uvicorn in this process, and started as its docstring says."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from agno_clouddb import Database, Session, connect
from agno_clouddb.stores.base import Mutation, Outcome
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing import FaultyStore, MemoryStore
from agno_clouddb.testing.process import free_port
from examples.fastapi_app import app as service
from examples.fastapi_app.app import create_app
from examples.fastapi_app.model import Model, ScriptedModel

_ROOT = Path(__file__).parents[2]
_PATIENCE = 60.0  # seconds after which what is waited for counts as failed
_ANN, _BOB = {"X-User": "ann"}, {"X-User": "bob"}


class GatedModel:
    """Says a word for each time that it is let to; ends after ``words`` of them, or fails there."""

    def __init__(self, words: int = 1_000, failure: Exception | None = None) -> None:
        self._words = words
        self._failure = failure
        self.gate = asyncio.Semaphore(0)
        self.closed = asyncio.Event()

    async def answer(
        self, message: str, *, history: Sequence[str], memories: Sequence[str]
    ) -> AsyncGenerator[str, None]:
        try:
            for number in range(self._words):
                await self.gate.acquire()
                yield f"word-{number} "
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed.set()


class HeldStore(WrapperStore):
    """Writes runs only after it is let to."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        if any(each.key.collection == "runs" for each in mutations):
            self.reached.set()
            await self.go.wait()
        return await super().write(mutations, atomic=atomic)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while True:
            if true():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[str]:
    """The URL of an app that uvicorn serves on a free port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="on", ws="none", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or serving.done())
        assert not serving.done(), "uvicorn has not started"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, _PATIENCE)


def made(database: Database, model: Model | None = None) -> FastAPI:
    return create_app(lambda: database, model or ScriptedModel(pause=0))


def visitor(url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE)


async def begin(client: httpx.AsyncClient, name: str | None = None) -> dict[str, Any]:
    answer = await client.post("/sessions", json={"name": name})
    assert answer.status_code == 201, answer.text
    session: dict[str, Any] = answer.json()
    return session


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """The server-sent events of a streamed answer, each with its data."""
    kind = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


async def say(client: httpx.AsyncClient, session_id: str, message: str) -> list[tuple[str, Any]]:
    async with client.stream("POST", f"/sessions/{session_id}/messages", json={"message": message}) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return [each async for each in events(answer)]


async def turns(client: httpx.AsyncClient, session_id: str) -> list[tuple[str, str, str]]:
    """Status, message and answer of each stored turn."""
    runs = (await client.get(f"/sessions/{session_id}")).json()["runs"]
    return [(each["status"], each["message"], each["answer"]) for each in runs]


async def test_a_conversation_is_streamed_and_stored_on_every_engine(backend: str) -> None:
    app = made(connect(backend))
    async with running(app) as url, visitor(url, _ANN) as ann:
        assert (await ann.get("/health")).json() == {"status": "ok"}
        remembered = await ann.post("/memories", json={"memory": "Prefers aisle seats", "topics": ["Travel"]})
        session_id = (await begin(ann, "A trip"))["session_id"]
        first = await say(ann, session_id, "Book a flight")
        assert [kind for kind, _ in first] == ["word"] * (len(first) - 1) + ["done"]
        answer = "You say: Book a flight (this is the first thing). I remember: Prefers aisle seats."
        assert "".join(data for _, data in first[:-1]) == f"{answer} "
        assert first[-1][1]["status"] == "completed"
        assert "before that: Book a flight" in "".join(data for _, data in (await say(ann, session_id, "Soon"))[:-1])

        stored = (await ann.get(f"/sessions/{session_id}")).json()
        assert stored["runs"][0]["run_id"] == first[-1][1]["run_id"]
        assert (await turns(ann, session_id))[0] == ("completed", "Book a flight", answer)
        assert [each["message"] for each in stored["runs"]] == ["Book a flight", "Soon"]
        assert stored["degraded"] is False

        assert [each["name"] for each in (await ann.get("/sessions")).json()["items"]] == ["A trip"]
        assert [each["memory"] for each in (await ann.get("/memories?topic=travel")).json()["items"]] == [
            "Prefers aisle seats"
        ]
        assert (await ann.delete(f"/memories/{remembered.json()['memory_id']}")).status_code == 204
        assert (await ann.delete(f"/sessions/{session_id}")).status_code == 204
        assert (await ann.get(f"/sessions/{session_id}")).status_code == 404


async def test_errors_have_their_statuses_on_every_engine(backend: str) -> None:
    app = made(connect(backend))
    async with (
        running(app) as url,
        visitor(url, _ANN) as ann,
        visitor(url, _BOB) as bob,
    ):
        session = await begin(ann, "Hers")
        path, version = f"/sessions/{session['session_id']}", session["version"]
        memory = (await ann.post("/memories", json={"memory": "Hers"})).json()["memory_id"]

        absent = await bob.get("/sessions/none")
        for foreign in (
            await bob.get(path),
            await bob.patch(path, json={"name": "His", "version": version}),
            await bob.patch(path, json={"name": "His", "version": version.replace(version[:2], "00", 1)}),
            await bob.delete(path),
            await bob.post(f"{path}/messages", json={"message": "Hello"}),
            await bob.delete(f"/memories/{memory}"),
        ):
            assert (foreign.status_code, foreign.content) == (404, absent.content)
        assert (await bob.get("/sessions")).json()["items"] == []
        assert (await bob.get("/memories")).json()["items"] == []
        assert (await ann.get(path)).json() == session | {"runs": [], "degraded": False}

        renamed = await ann.patch(path, json={"name": "Newer", "version": version})
        assert renamed.status_code == 200
        stale = await ann.patch(path, json={"name": "Stale", "version": version})
        assert (stale.status_code, stale.json()["code"]) == (409, "conflict")
        assert renamed.json()["version"] not in stale.text
        assert (await ann.get(path)).json()["name"] == "Newer"

        for invalid in (
            await ann.post("/sessions", json={"name": "x" * 1_001}),
            await ann.patch(path, json={"name": "Newer", "version": "1"}),
            await ann.get("/sessions?cursor=none"),
        ):
            assert (invalid.status_code, invalid.json()["code"]) == (422, "invalid_record")
        assert (await ann.post(f"{path}/messages", json={"message": ""})).status_code == 422  # FastAPI's own
        assert (await ann.get("/sessions", headers={"X-User": ""})).status_code == 401


async def test_a_client_that_leaves_in_the_middle_of_an_answer_leaves_what_was_said_on_every_engine(
    backend: str,
) -> None:
    model = GatedModel()
    app = made(connect(backend), model)
    async with running(app) as url:
        async with visitor(url, _ANN) as ann:
            session_id = (await begin(ann))["session_id"]
            assert await turns(ann, session_id) == []
        await until(lambda: not app.state.turns)
        before = await settled_tasks()

        async with (
            visitor(url, _ANN) as leaving,
            leaving.stream("POST", f"/sessions/{session_id}/messages", json={"message": "Tell me"}) as answer,
        ):
            received = []
            heard = events(answer)
            for _ in range(3):
                model.gate.release()
                received.append(await anext(heard))
            assert len(app.state.turns) == 1
        assert received == [("word", f"word-{number} ") for number in range(3)]

        await until(lambda: not app.state.turns)
        assert model.closed.is_set()
        await until(lambda: asyncio.all_tasks() <= before)
        async with visitor(url, _ANN) as ann:
            assert await turns(ann, session_id) == [("cancelled", "Tell me", "word-0 word-1 word-2")]


async def settled_tasks() -> set[asyncio.Task[Any]]:
    """The tasks that stay when connections of clients that left are closed."""
    last: set[asyncio.Task[Any]] = set()
    while (now := asyncio.all_tasks()) != last:
        last = now
        for _ in range(10):
            await asyncio.sleep(0)
    return now


async def test_a_client_that_leaves_while_the_answer_is_stored_leaves_one_completed_turn() -> None:
    store, model = HeldStore(), GatedModel(words=2)
    app = made(connect(store), model)
    async with running(app) as url, visitor(url, _ANN) as ann:
        session_id = (await begin(ann))["session_id"]
        async with ann.stream("POST", f"/sessions/{session_id}/messages", json={"message": "Tell me"}):
            model.gate.release()
            model.gate.release()
            await until(store.reached.is_set)
            store.reached.clear()
        await until(store.reached.is_set)  # again, as the first write was cancelled
        store.go.set()
        await until(lambda: not app.state.turns)
        assert await turns(ann, session_id) == [("completed", "Tell me", "word-0 word-1")]


async def test_a_client_that_does_not_take_the_answer_and_leaves_is_no_different() -> None:
    model, stuck = GatedModel(), asyncio.Event()
    app = made(connect("memory://"), model)

    async def send(message: dict[str, Any]) -> None:
        if b"word-1" in message.get("body", b""):
            stuck.set()
            await asyncio.Event().wait()

    async with app.router.lifespan_context(app):
        await app.state.clouddb.sessions.upsert(Session(session_id="s1", user_id="ann"))
        for _ in range(2):
            model.gate.release()
        async with asyncio.timeout(_PATIENCE):
            await app(_request("/sessions/s1/messages"), _client(stuck), send)  # type: ignore[arg-type]
        assert model.closed.is_set()
        session = await app.state.clouddb.sessions.get("s1")
        assert [(run.status, run.data["answer"]) for run in session.runs] == [("cancelled", "word-0 word-1")]


async def test_a_middleware_that_cancels_all_that_it_runs_does_not_cancel_the_storing() -> None:
    store, model, heard = HeldStore(), GatedModel(), asyncio.Event()
    app = made(connect(store), model)

    async def send(message: dict[str, Any]) -> None:
        if b"word-0" in message.get("body", b""):
            heard.set()

    async with app.router.lifespan_context(app), asyncio.timeout(_PATIENCE):
        await app.state.clouddb.sessions.upsert(Session(session_id="s1", user_id="ann"))
        model.gate.release()
        async with anyio.create_task_group() as group:
            group.start_soon(app, _request("/sessions/s1/messages"), _client(asyncio.Event()), send)  # type: ignore[arg-type]
            await heard.wait()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(store.reached.is_set)
                for _ in range(10):
                    await asyncio.sleep(0)  # in which a scope that is not shielded is cancelled again
            store.go.set()
        session = await app.state.clouddb.sessions.get("s1")
        assert [(run.status, run.data["answer"]) for run in session.runs] == [("cancelled", "word-0")]


def _client(leaves: asyncio.Event) -> Callable[[], Awaitable[dict[str, Any]]]:
    """What an app receives of a client that says something, and leaves when it is told to."""
    requests: list[dict[str, Any]] = [{"type": "http.request", "body": b'{"message": "Tell me"}'}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    return receive


def _request(path: str) -> dict[str, Any]:
    headers = [(b"x-user", b"ann"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    return {**scope, "headers": headers, "asgi": {"version": "3.0", "spec_version": "2.3"}}


async def test_a_model_that_fails_in_the_middle_breaks_the_answer_off_and_leaves_what_was_said() -> None:
    model = GatedModel(words=1, failure=RuntimeError("the model is out of order"))
    app = made(connect("memory://"), model)
    async with running(app) as url, visitor(url, _ANN) as ann:
        session_id = (await begin(ann))["session_id"]
        model.gate.release()
        with pytest.raises(httpx.RemoteProtocolError):
            await say(ann, session_id, "Tell me")
        assert await turns(ann, session_id) == [("cancelled", "Tell me", "word-0")]


async def test_an_answer_that_cannot_be_stored_ends_with_an_error_and_not_with_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, model = FaultyStore(MemoryStore()), GatedModel(words=1)
    app = made(connect(store), model)
    async with running(app) as url, visitor(url, _ANN) as ann:
        session_id = (await begin(ann))["session_id"]
        async with ann.stream("POST", f"/sessions/{session_id}/messages", json={"message": "Tell me"}) as answer:
            store.down()
            model.gate.release()
            received = [each async for each in events(answer)]
        assert [kind for kind, _ in received] == ["word", "error"]
        assert received[-1][1]["code"] == "unavailable"
        assert f"a turn of session {session_id} is not stored" in caplog.text
        refused = await ann.get(f"/sessions/{session_id}")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert (await ann.get("/health")).status_code == 503
        store.up()
        assert await turns(ann, session_id) == []
        assert (await ann.get("/health")).status_code == 200


async def test_conversations_of_many_users_at_once_stay_apart() -> None:
    app = made(connect("memory://"))
    async with running(app) as url:

        async def converse(user: str) -> None:
            async with visitor(url, {"X-User": user}) as client:
                session_id = (await begin(client, user))["session_id"]
                for number in range(3):
                    await say(client, session_id, f"{user} {number}")
                assert [message for _, message, _ in await turns(client, session_id)] == [
                    f"{user} {number}" for number in range(3)
                ]
                assert [each["name"] for each in (await client.get("/sessions")).json()["items"]] == [user]

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(converse(f"user-{number}"))


# As its docstring says


def _command() -> list[str]:
    """The first command of the docstring that starts the service."""
    assert service.__doc__ is not None
    line = next(each for each in service.__doc__.splitlines() if each.strip().startswith("uvicorn "))
    return shlex.split(line, comments=True)


@contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The service, started in an empty folder, and its URL."""
    port = free_port()
    command = [sys.executable, "-m", *_command(), "--app-dir", str(_ROOT), "--port", str(port)]
    command += ["--timeout-graceful-shutdown", "1"]
    log = (folder / "log").open("w")
    with log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def answering(process: subprocess.Popen[str], url: str) -> None:
    """Wait until the service answers."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=_PATIENCE).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("the service does not answer")


def test_the_service_runs_as_its_docstring_says_and_stores_what_was_said_when_it_is_stopped(tmp_path: Path) -> None:
    with started(tmp_path) as (process, url), httpx.Client(base_url=url, headers=_ANN, timeout=_PATIENCE) as ann:
        answering(process, url)
        session_id = ann.post("/sessions", json={"name": "A trip"}).json()["session_id"]
        long = {"message": "word " * 1_000}  # a minute's answer
        with ann.stream("POST", f"/sessions/{session_id}/messages", json=long) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: word"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.TransportError):
                for _ in lines:
                    pass
        process.wait(_PATIENCE)
        log = (tmp_path / "log").read_text()
        assert "Application shutdown complete" in log
        assert "Database" not in log
        assert {each.name for each in tmp_path.iterdir()} == {"example.sqlite", "log"}

    with started(tmp_path) as (process, url):
        answering(process, url)
        (run,) = httpx.get(f"{url}/sessions/{session_id}", headers=_ANN, timeout=_PATIENCE).json()["runs"]
        assert run["status"] == "cancelled"
        assert run["answer"].startswith("You")


# The document


async def test_the_app_in_the_document_does_what_the_document_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = (_ROOT / "docs" / "fastapi.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    async with running(names["app"]) as url, visitor(url, {}) as client:
        version = (await client.put("/sessions/s1", headers=_ANN)).json()
        assert (await client.get("/sessions/s1", headers=_ANN)).json()["version"] == version
        assert (await client.get("/sessions/s1", headers=_BOB)).status_code == 404
        assert (await client.put("/sessions/s1", headers=_BOB)).status_code == 404
        assert (await client.get("/sessions/s1")).status_code == 401
        assert (await client.get("/statistics")).json() == 1
        assert (await client.get("/health")).json() == {"status": "ok"}
