"""Learnings: what agents have learned of users, sessions and other entities."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field

from agno_clouddb.records.base import Record, new_id
from agno_clouddb.stores.schema import LEARNINGS, Collection

__all__ = ["Learning"]


class Learning(Record):
    """Something that an agent has learned.

    Args:
        learning_type: such as ``user_profile`` or ``session_context``.
        content: what was learned, any JSON object.
        learning_id: unique in the database; made up when none is given.
        namespace: whom it is for: ``user``, ``global`` or a name of your own.
        user_id: the user that it is about; None: nobody's.
        agent_id: the agent that has learned it.
        team_id: the team that has learned it.
        workflow_id: the workflow that has learned it.
        session_id: the session that it was learned in.
        entity_id: the entity that it is about.
        entity_type: what kind of entity, such as ``person`` or ``company``.
        metadata: any JSON object.
        created_at: when it was first written; set by the library when None.
        updated_at: when it was last written; set by the library.
    """

    collection: ClassVar[Collection] = LEARNINGS

    learning_type: str
    content: dict[str, Any]
    learning_id: str = Field(default_factory=new_id)
    namespace: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    team_id: str | None = None
    workflow_id: str | None = None
    session_id: str | None = None
    entity_id: str | None = None
    entity_type: str | None = None
    metadata: dict[str, Any] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
