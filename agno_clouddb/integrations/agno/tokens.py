"""agno's calls about auth tokens: what a user has granted to a tool, such as access to a calendar.

A token is kept as it is given, in no index and in no error or log of this library; the id of its entry is a hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.entry_writes import digest, written
from agno_clouddb.integrations.agno.shapes import now
from agno_clouddb.integrations.agno.tables import Table
from agno_clouddb.records.entries import Entry

__all__ = ["AUTH_TOKENS", "TokenCalls"]

AUTH_TOKENS = Table(
    kind="auth_token",
    columns=("id", "provider", "user_id", "service", "token_data", "granted_scopes", "created_at", "updated_at"),
    required=frozenset({"provider", "service", "token_data", "created_at"}),
    json=frozenset({"token_data", "granted_scopes"}),
)

_REFRESHED = ("token_data", "granted_scopes", "updated_at")


class TokenCalls(Family):
    """Auth tokens, one for each provider, user and service. Reads are strongly consistent."""

    async def get_auth_token(self, provider: str, user_id: str | None, service: str) -> dict[str, Any] | None:
        """A token, in one request; None when there is none. Its ``user_id`` is empty where nobody's was asked for."""
        entry = await (await self._entries()).get(_id(provider, user_id, service), consistency="strong")
        return None if entry is None else dict(entry.data)

    async def upsert_auth_token(self, token: dict[str, Any]) -> dict[str, Any] | None:
        """Write a token, in two requests.

        Of one that is there, ``token_data``, ``granted_scopes`` and ``updated_at`` are replaced.

        Args:
            token: its columns; the id is made up.

        Returns:
            What was given, with the columns that a new token gets.

        Raises:
            InvalidRecord: provider, service or ``token_data`` is missing.
        """
        data = {"created_at": now(), **token, "id": str(uuid4()), "user_id": token.get("user_id") or ""}
        data["updated_at"] = now()
        row = AUTH_TOKENS.row(data)
        own = {"id": _id(row["provider"], row["user_id"], row["service"])}
        entry = AUTH_TOKENS.entry(row).model_copy(update=own)
        await written(await self._entries(), entry, lambda stored: _refreshed(stored, row))
        return data

    async def delete_auth_token(self, provider: str, user_id: str | None, service: str) -> bool:
        """Delete a token, in one request, also while one of several stores is away.

        Returns:
            Whether it was there. On several stores more than one caller may be told so at once: claim nothing by it.
        """
        return await (await self._entries()).delete(_id(provider, user_id, service))


def _id(provider: str, user_id: str | None, service: str) -> str:
    for name, value in (("provider", provider), ("user_id", user_id), ("service", service)):
        if value is not None and not isinstance(value, str):
            raise InvalidRecord(name, f"is of type {type(value).__name__}, not text", collection="entries")
    return f"{AUTH_TOKENS.kind}:{digest(provider, user_id or '', service)}"


def _refreshed(stored: Entry, row: Mapping[str, Any]) -> Entry:
    return stored.model_copy(update={"data": {**stored.data, **{name: row[name] for name in _REFRESHED}}})
