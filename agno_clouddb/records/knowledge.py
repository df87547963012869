"""Contents of knowledge bases."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field

from agno_clouddb.records.base import Record, new_id
from agno_clouddb.stores.schema import KNOWLEDGE, Collection

__all__ = ["EVERYONE", "KnowledgeContent"]

EVERYONE = "everyone"
"""The audience of a content that belongs to nobody."""


class KnowledgeContent(Record):
    """One content of a knowledge base: a file, page or text, and how far its processing has come.

    Args:
        name: what people call it.
        description: what it is.
        id: unique in the database; made up when none is given.
        metadata: any JSON object.
        type: such as ``pdf`` or ``url``.
        size: bytes of the content.
        linked_to: the knowledge base that it belongs to.
        access_count: how often it was read; ``count_access`` adds to it.
        status: such as ``processing`` or ``completed``; ``set_status`` changes it.
        status_message: why the status is what it is.
        moved_from: the version that ``set_status`` last moved to another status; set by it.
        user_id: who uploaded it; None: nobody's.
        external_id: what it is called elsewhere.
        created_at: when it was first written; set by the library when None.
        updated_at: when it was last written; set by the library.
    """

    collection: ClassVar[Collection] = KNOWLEDGE

    name: str
    description: str = ""
    id: str = Field(default_factory=new_id)
    metadata: dict[str, Any] | None = None
    type: str | None = None
    size: int | None = None
    linked_to: str | None = None
    access_count: int | None = None
    status: str | None = None
    status_message: str | None = None
    moved_from: str | None = None
    user_id: str | None = None
    external_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def derived_fields(self) -> dict[str, str]:
        return {"audience": EVERYONE} if self.user_id is None else {}
