"""A chat service: sessions and memories of users, answers that are streamed, on one store or several.

    pip install "agno_clouddb[fastapi]" uvicorn
    uvicorn --factory examples.fastapi_app.app:create_app                  # a SQLite file, example.sqlite

On the clouds, or on emulators, by URLs separated by blanks:

    AGNO_CLOUDDB_URL="dynamodb://eu-west-1 firestore://my-project" uvicorn --factory examples.fastapi_app.app:create_app

Then, from another terminal, with the session's id in place of ID; http://127.0.0.1:8000/docs has all routes:

    curl -X POST http://127.0.0.1:8000/memories -H "X-User: ann" --json '{"memory": "Prefers aisle seats"}'
    curl -X POST http://127.0.0.1:8000/sessions -H "X-User: ann" --json '{"name": "A trip"}'
    curl -N http://127.0.0.1:8000/sessions/ID/messages -H "X-User: ann" --json '{"message": "Book me a flight"}'
    curl http://127.0.0.1:8000/sessions/ID -H "X-User: ann"
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request

from agno_clouddb import Database, RecordNotFound, Session, UserMemory, connect
from agno_clouddb.integrations.fastapi import UserScope, add_error_handlers, health_router, lifespan, user_scope

from .model import Model, ScriptedModel
from .shapes import Memories, Memory, Message, NewMemory, NewSession, Renaming, SessionHeader, Sessions, SessionWithRuns
from .turn import Turn, ending_turns

__all__ = ["create_app"]

router = APIRouter()

_HISTORY = 5  # runs that the model is given
_MEMORIES = 20  # memories that it is given


async def current_user(x_user: Annotated[str | None, Header()] = None) -> str:
    """Whose request it is. This service believes a header; yours verifies a token here."""
    if not x_user:
        raise HTTPException(401, "The header X-User says who you are")
    return x_user


async def current_model(request: Request) -> Model:
    """The model of the app."""
    model: Model = request.app.state.model
    return model


Mine = Annotated[UserScope, Depends(user_scope(current_user))]


def create_app(database: Callable[[], Database] | None = None, model: Model | None = None) -> FastAPI:
    """The service.

    Args:
        database: makes the Database; by default one over the URLs in AGNO_CLOUDDB_URL.
        model: what answers; by default one that repeats what it was given.
    """
    app = FastAPI(title="Chat", lifespan=lifespan(database or _connected, provision=True, within=ending_turns))
    app.state.model = model or ScriptedModel()
    add_error_handlers(app)
    app.include_router(health_router())
    app.include_router(router)
    return app


def _connected() -> Database:
    return connect(*os.environ.get("AGNO_CLOUDDB_URL", "sqlite:///example.sqlite").split())


@router.post("/sessions", status_code=201)
async def create_session(mine: Mine, new: NewSession) -> SessionHeader:
    """Begin a conversation. Its id is made here, so that nobody can try out the ids of others."""
    session = Session(session_id=str(uuid4()), component_id="chat", session_data={"session_name": new.name})
    return SessionHeader.of(await mine.sessions.create(session))


@router.get("/sessions")
async def list_sessions(
    mine: Mine, limit: Annotated[int, Query(ge=1, le=100)] = 20, cursor: str | None = None
) -> Sessions:
    """The user's conversations, the last begun first."""
    page = await mine.sessions.list(limit=limit, cursor=cursor)
    return Sessions(items=[SessionHeader.of(each) for each in page.items], cursor=page.cursor, degraded=page.degraded)


@router.get("/sessions/{session_id}")
async def read_session(mine: Mine, session_id: str, runs: Annotated[int, Query(ge=0, le=100)] = 20) -> SessionWithRuns:
    """A conversation with its last turns, oldest first."""
    session = await mine.sessions.get(session_id, runs=runs)
    if session is None:
        raise RecordNotFound("there is no such session")
    return SessionWithRuns.of(session)


@router.patch("/sessions/{session_id}")
async def rename_session(mine: Mine, session_id: str, renaming: Renaming) -> SessionHeader:
    """Name a conversation, unless it has changed since the version that was read."""
    session = await mine.sessions.get(session_id, runs=0)
    if session is None:
        raise RecordNotFound("there is no such session")
    data = {**(session.session_data or {}), "session_name": renaming.name}
    changed = session.model_copy(update={"session_data": data})
    return SessionHeader.of(await mine.sessions.upsert(changed, expected_version=renaming.version))


@router.delete("/sessions/{session_id}", status_code=204, response_model=None)
async def delete_session(mine: Mine, session_id: str) -> None:
    """Delete a conversation and its turns."""
    if not await mine.sessions.delete(session_id):
        raise RecordNotFound("there is no such session")


@router.post("/sessions/{session_id}/messages", response_class=Turn)
async def say(mine: Mine, model: Annotated[Model, Depends(current_model)], session_id: str, said: Message) -> Turn:
    """Say something, and get the answer as it is made; see ``Turn``."""
    session = await mine.sessions.get(session_id, runs=_HISTORY)
    if session is None:
        raise RecordNotFound("there is no such session")
    memories = await mine.memories.list(limit=_MEMORIES)
    words = model.answer(
        said.message,
        history=[str((run.data or {}).get("message")) for run in session.runs],
        memories=[each.memory for each in memories.items],
    )
    return Turn(mine, session_id, said.message, words)


@router.post("/memories", status_code=201)
async def remember(mine: Mine, new: NewMemory) -> Memory:
    """Have something remembered."""
    return Memory.of(await mine.memories.upsert(UserMemory(memory=new.memory, topics=new.topics)))


@router.get("/memories")
async def list_memories(mine: Mine, topic: str | None = None, cursor: str | None = None) -> Memories:
    """What is remembered of the user, the last first."""
    page = await mine.memories.list(topics=[topic] if topic else None, cursor=cursor)
    return Memories(items=[Memory.of(each) for each in page.items], cursor=page.cursor, degraded=page.degraded)


@router.delete("/memories/{memory_id}", status_code=204, response_model=None)
async def forget(mine: Mine, memory_id: str) -> None:
    """Have something forgotten."""
    if not await mine.memories.delete(memory_id):
        raise RecordNotFound("there is no such memory")
