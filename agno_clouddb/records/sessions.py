"""Sessions and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.base import Record
from agno_clouddb.stores.clock import is_version
from agno_clouddb.stores.schema import RUNS, SESSIONS, Collection

__all__ = ["ANY_GENERATION", "MAX_NAME_BYTES", "SESSION_TYPES", "Run", "Session"]

ANY_GENERATION = "000000000000-0000-000000000000"
"""The generation of a session that was written over nothing while a store which might have it did not answer: it shows
the runs of every generation, so that those of the other store are not hidden when it is back."""

SESSION_TYPES = ("agent", "team", "workflow")

MAX_NAME_BYTES = 1_000
"""The longest session name, in bytes of UTF-8: it is kept beside the payload, where lists filter on it."""


class Run(Record):
    """One run of a session: what a user said and everything up to the next thing that the user said.

    Args:
        run_id: unique in its session.
        session_id: the session; set when the run is written.
        status: such as ``running`` or ``completed``.
        data: the run itself, any JSON object.
        created_at: when the run was first written; set by the library when None.
        run_index: its place in the session, a stamp set when the run is first written and kept ever after.
        generation: that of its session, set by the library: a run of an earlier session of the same id is not shown.
    """

    collection: ClassVar[Collection] = RUNS

    run_id: str
    session_id: str | None = None
    status: str | None = None
    data: dict[str, Any] | None = None
    created_at: datetime | None = None
    run_index: str | None = None
    generation: str | None = None


class Session(Record):
    """A conversation with an agent, team or workflow. Its runs are stored one by one beside it.

    Args:
        session_id: unique in the database.
        session_type: ``agent``, ``team`` or ``workflow``.
        component_id: the id of that agent, team or workflow.
        user_id: the owner; None: nobody's.
        session_data: any JSON object; its ``session_name`` is the name that lists filter on.
        metadata: any JSON object.
        summary: any JSON object.
        runs: those that were asked for, oldest first.
        created_at: when the session was first written; set by the library when None.
        updated_at: when the session was last written; set by the library.
        generation: the version of the session's first write, which tells it from an earlier one of the same id; or
            ``ANY_GENERATION`` when it is not known whether there was one.
    """

    collection: ClassVar[Collection] = SESSIONS
    unstored: ClassVar[frozenset[str]] = frozenset({"runs"})
    lasting: ClassVar[tuple[str, ...]] = ("created_at", "generation")

    session_id: str
    session_type: str = "agent"
    component_id: str | None = None
    user_id: str | None = None
    session_data: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    runs: list[Run] = Field(default_factory=list)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    generation: str | None = None

    @property
    def name(self) -> str | None:
        """The session's name, ``session_data["session_name"]``."""
        name = (self.session_data or {}).get("session_name")
        return name if isinstance(name, str) else None

    @property
    def is_stored(self) -> bool:
        return self.version is not None and self.generation is not None and is_version(self.generation)

    def first_written(self, version: str) -> Session:
        return self.model_copy(update={"generation": version})

    def unconfirmed(self) -> Session | None:
        return self.model_copy(update={"generation": ANY_GENERATION})

    def kept(self, fields: Mapping[str, str]) -> dict[str, object]:
        return {**super().kept(fields), "generation": fields.get("generation")}

    def derived_fields(self) -> dict[str, str]:
        if self.session_type not in SESSION_TYPES:
            raise InvalidRecord("session_type", f"is {self.session_type!r}, not one of {', '.join(SESSION_TYPES)}")
        if self.name is None:
            return {}
        if len(self.name.encode(errors="replace")) > MAX_NAME_BYTES:
            raise InvalidRecord("session_data.session_name", f"is over the limit of {MAX_NAME_BYTES} bytes")
        return {"session_name": self.name}
