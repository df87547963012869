"""Memories of users."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import Field

from agno_clouddb.records.base import Record, new_id
from agno_clouddb.stores.schema import MEMORIES, Collection

__all__ = ["UserMemory"]


class UserMemory(Record):
    """Something that an agent remembers of a user.

    Args:
        memory: what is remembered.
        memory_id: unique in the database; made up when none is given.
        topics: what it is about.
        user_id: the user; None: nobody's.
        agent_id: the agent that remembers it.
        team_id: the team that remembers it.
        input: what the user said.
        feedback: what the user said of the memory.
        created_at: when it was first written; set by the library when None.
        updated_at: when it was last written; set by the library.
    """

    collection: ClassVar[Collection] = MEMORIES

    memory: str
    memory_id: str = Field(default_factory=new_id)
    topics: list[str] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    team_id: str | None = None
    input: str | None = None
    feedback: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
