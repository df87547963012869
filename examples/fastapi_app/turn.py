"""One turn of a conversation: streamed as it is made, stored as one run when it ends, however it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from uuid import uuid4

import anyio
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agno_clouddb import CloudDBError, Run
from agno_clouddb.integrations.fastapi import UserScope, error_response

__all__ = ["Turn", "ending_turns"]

_log = logging.getLogger(__name__)


@asynccontextmanager
async def ending_turns(app: FastAPI) -> AsyncIterator[None]:
    """A lifespan that ends when all turns have: those that the server cancels as it stops are stored before."""
    turns: set[asyncio.Task[object]] = set()
    app.state.turns = turns
    yield
    if turns:
        await asyncio.wait(turns)


class Turn(StreamingResponse):
    """Answers with server-sent events: ``word`` for each piece, and ``done``, or ``error``, at the end.

    The run is written once, by one request, so that no half of it is ever stored: as ``completed`` before ``done`` is
    sent, or as ``cancelled`` when the client leaves, the server stops or the model fails in the middle, with what the
    model had said up to there. A client that leaves while the whole answer is being stored leaves it ``completed``.
    A server that is killed stores nothing.

    Args:
        mine: the repositories of the user.
        session_id: a session of the user.
        message: what the user says.
        words: what the model answers.
    """

    media_type = "text/event-stream"

    def __init__(self, mine: UserScope, session_id: str, message: str, words: AsyncGenerator[str, None]) -> None:
        self._mine = mine
        self._session_id = session_id
        self._message = message
        self._words = words
        self._said: list[str] = []
        self._run_id = str(uuid4())
        self._status = "cancelled"  # until the answer is whole
        self._settled = False  # stored, or the client is told that it is not
        self._events = self._answer()
        super().__init__(self._events, headers={"Cache-Control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        turns, task = scope["app"].state.turns, asyncio.current_task()
        turns.add(task)
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Whoever cancels the request does not cancel this. A generator that nobody goes on with would stay open.
            with anyio.CancelScope(shield=True):
                try:
                    await self._events.aclose()
                    if not self._settled:
                        await self._store()
                finally:
                    turns.discard(task)

    async def _answer(self) -> AsyncGenerator[str, None]:
        async with aclosing(self._words) as words:
            async for word in words:
                self._said.append(word)
                yield _event("word", json.dumps(word))
        self._status = "completed"
        try:
            await self._store()
        except CloudDBError as error:
            self._settled = True
            _log.error("a turn of session %s is not stored", self._session_id, exc_info=error)
            yield _event("error", bytes(error_response(error).body).decode())
        else:
            yield _event("done", json.dumps({"run_id": self._run_id, "status": self._status}))

    async def _store(self) -> None:
        """Write the run; the second time, after a cancelled first one, over what that may have written."""
        run = Run(
            run_id=self._run_id,
            status=self._status,
            data={"message": self._message, "answer": "".join(self._said).strip()},
        )
        await self._mine.sessions.append_run(self._session_id, run)
        self._settled = True


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {data}\n\n"
