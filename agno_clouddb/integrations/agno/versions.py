"""agno's calls about tables and the versions of their schemas."""

from __future__ import annotations

from agno_clouddb.errors import InvalidRecord, NotProvisioned
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.ids import absent
from agno_clouddb.records.entries import Entry
from agno_clouddb.stores.base import Key
from agno_clouddb.stores.schema import COLLECTIONS

__all__ = ["VersionCalls"]

_KIND = "schema_version"
_UNKNOWN = "2.0.0"

_COLLECTIONS = {
    "session_table_name": "sessions",
    "runs_table_name": "runs",
    "memory_table_name": "memories",
    "metrics_table_name": "metrics",
    "eval_table_name": "evals",
    "knowledge_table_name": "knowledge",
    "trace_table_name": "traces",
    "span_table_name": "spans",
    "learnings_table_name": "learnings",
    "versions_table_name": "entries",
    "schedules_table_name": "entries",
    "schedule_runs_table_name": "entries",
    "approvals_table_name": "entries",
    "tool_results_table_name": "entries",
    "transcripts_table_name": "entries",
    "auth_tokens_table_name": "entries",
    "service_accounts_table_name": "entries",
}
"""The collection that has the rows of each of agno's tables, by the attribute with the table's name."""


class VersionCalls(Family):
    """Tables and versions of schemas. agno's migrations have nothing to do here, but note how far they have come."""

    async def table_exists(self, table_name: str) -> bool:
        """Whether what agno keeps in a table has its place here: the collection is provisioned. One request."""
        names = {getattr(self, attribute): collection for attribute, collection in _COLLECTIONS.items()}
        name = names.get(table_name)
        if name is None:
            return False
        parent = None if COLLECTIONS[name].parent is None else "-"
        try:
            await (await self.database()).store.get([Key(name, "-", parent)], consistency="eventual")
        except NotProvisioned:
            return False
        return True

    async def _create_all_tables(self) -> None:
        """Open the database, and create what is missing where this one was made with ``provision``: AgentOS calls it
        when it starts.
        """
        await self.database()

    async def get_latest_schema_version(self, table_name: str) -> str:
        """The version that was noted for a table; 2.0.0 when none was, so that agno's migrations look at all."""
        noted = f"{_KIND}:{table_name}"
        entry = None if absent(noted) else await (await self._entries()).get(noted)
        return _UNKNOWN if entry is None else str(entry.data["version"])

    async def upsert_schema_version(self, table_name: str, version: str) -> None:
        """Note the version of a table's schema.

        Raises:
            InvalidRecord: the version is no text.
        """
        if not isinstance(version, str):
            raise InvalidRecord("version", f"is of type {type(version).__name__}, not text", collection="entries")
        entry = Entry(id=f"{_KIND}:{table_name}", kind=_KIND, data={"table_name": table_name, "version": version})
        await (await self._entries()).upsert(entry)

    async def cleanup_legacy_runs_field(self, force: bool = False) -> bool:
        """Drop runs that sessions of agno 2 had inside; there never are any here, as an import writes them as runs.

        Returns:
            False: there was nothing to drop.
        """
        return False
