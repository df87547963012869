"""What the chat service takes and gives: never more of a record than its user is to see."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from agno_clouddb import Run, Session, UserMemory

__all__ = [
    "Memories",
    "Memory",
    "Message",
    "NewMemory",
    "NewSession",
    "Renaming",
    "SessionHeader",
    "SessionWithRuns",
    "Sessions",
    "StoredTurn",
]


class NewSession(BaseModel):
    """A conversation to begin."""

    name: str | None = None


class Renaming(BaseModel):
    """A conversation's new name, and the version that its user has read."""

    name: str
    version: str


class Message(BaseModel):
    """What a user says."""

    message: str = Field(min_length=1, max_length=10_000)


class NewMemory(BaseModel):
    """What is to be remembered."""

    memory: str = Field(min_length=1, max_length=10_000)
    topics: list[str] | None = None


class SessionHeader(BaseModel):
    """A conversation without its turns."""

    session_id: str
    name: str | None
    version: str | None
    created_at: datetime | None
    updated_at: datetime | None

    @classmethod
    def of(cls, session: Session) -> Self:
        """What is shown of a session."""
        return cls.model_validate(session, from_attributes=True)


class StoredTurn(BaseModel):
    """What was said once, and answered; ``cancelled`` where the answer was broken off."""

    run_id: str
    status: str | None
    message: str
    answer: str
    created_at: datetime | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """What is shown of a run."""
        data = run.data or {}
        return cls(
            run_id=run.run_id,
            status=run.status,
            message=data.get("message", ""),
            answer=data.get("answer", ""),
            created_at=run.created_at,
        )


class SessionWithRuns(SessionHeader):
    """A conversation with its last turns, oldest first."""

    runs: list[StoredTurn]
    degraded: bool

    @classmethod
    def of(cls, session: Session) -> Self:
        """What is shown of a session and its runs."""
        header = SessionHeader.of(session)
        return cls(**header.model_dump(), runs=[StoredTurn.of(run) for run in session.runs], degraded=session.degraded)


class Sessions(BaseModel):
    """A page of conversations."""

    items: list[SessionHeader]
    cursor: str | None
    degraded: bool


class Memory(BaseModel):
    """What is remembered."""

    memory_id: str
    memory: str
    topics: list[str] | None
    updated_at: datetime | None

    @classmethod
    def of(cls, memory: UserMemory) -> Self:
        """What is shown of a memory."""
        return cls.model_validate(memory, from_attributes=True)


class Memories(BaseModel):
    """A page of memories."""

    items: list[Memory]
    cursor: str | None
    degraded: bool
