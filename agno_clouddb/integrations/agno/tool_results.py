"""agno's calls about tool results: the index of the large results that are kept in files, outside of the runs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agno.fs import FileSystem

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.entry_writes import written
from agno_clouddb.integrations.agno.ids import absent
from agno_clouddb.integrations.agno.schedule_rows import due_text
from agno_clouddb.integrations.agno.tables import Table
from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.entries import Entries

__all__ = ["TOOL_RESULTS", "ToolResultCalls"]

_REQUIRED = (
    "result_id",
    "namespace",
    "path",
    "session_id",
    "run_id",
    "tool_call_id",
    "tool_name",
    "args_hash",
    "content_type",
    "size_bytes",
    "line_count",
    "preview",
)

TOOL_RESULTS = Table(
    kind="tool_result",
    columns=(*_REQUIRED, "user_id", "created_at", "expires_at"),
    required=frozenset({*_REQUIRED, "created_at"}),
)

_STEP = 500

_log = logging.getLogger(__name__)


class ToolResultCalls(Family):
    """Tool results. Reads by id are strongly consistent; lists see what an index has, which on DynamoDB may lag."""

    async def upsert_tool_result(self, row: dict[str, Any]) -> None:
        """Write the row of a result, in two requests.

        Of one that is there, the columns that are not given stay.

        Raises:
            InvalidRecord: a column that is required is missing.
        """
        given = TOOL_RESULTS.row(row)
        await written(await self._entries(), _entry(given), lambda entry: _changed(entry, row))

    async def get_tool_result(self, result_id: str) -> dict[str, Any] | None:
        """The row of a result, in one request; None when it is not there."""
        if not TOOL_RESULTS.has(result_id):
            return None
        entry = await (await self._entries()).get(TOOL_RESULTS.id(result_id))
        return None if entry is None else dict(entry.data)

    async def get_tool_results_for_session(self, session_id: str, limit: int | None = None) -> list[dict[str, Any]]:
        """The rows of a session's results, the last created first; of those of one second, by id. At most ``limit``."""
        if limit == 0 or absent(session_id, _of_session(session_id)):
            return []
        entries = await self._entries()
        size = _STEP if limit is None or limit < 0 else min(limit + 1, _STEP)
        rows: list[dict[str, Any]] = []
        async for entry in entries.iterate(group=_of_session(session_id), page_size=size):
            # What was created within one second is sorted here, so all of it is read.
            if limit is not None and 0 < limit <= len(rows) and entry.data["created_at"] != rows[-1]["created_at"]:
                break
            rows.append(entry.data)
        rows.sort(key=lambda row: (-row["created_at"], row["result_id"]))
        return rows if limit is None or limit < 0 else rows[:limit]

    async def delete_tool_results(self, result_ids: list[str]) -> int:
        """Delete rows, several at once.

        Returns:
            How many there were.

        Raises:
            BulkWriteError: some could not be deleted; says which, and why. The others are.
        """
        ids = [TOOL_RESULTS.id(each) for each in dict.fromkeys(result_ids) if TOOL_RESULTS.has(each)]
        return await (await self._entries()).delete_many(ids)

    async def get_expired_tool_results(self, now: int) -> list[dict[str, Any]]:
        """The rows whose time has passed, the first to expire first. Reads these alone.

        Args:
            now: seconds since the epoch.
        """
        rows: list[dict[str, Any]] = []
        entries = await self._entries()
        async for entry in entries.iterate(kind=TOOL_RESULTS.kind, sort="due", page_size=100):
            if entry.due is None or entry.due > due_text(now):
                break
            if entry.data["expires_at"] <= now:
                rows.append(entry.data)
        return rows

    async def _delete_tool_results_of(self, session_ids: Sequence[str]) -> None:
        """Delete the results of sessions: their files, in the file systems that a ``ResultStore`` on this database has
        used in this process, and their rows.

        A file that is in none of them, or cannot be deleted, is told in a warning, as agno does: what is kept elsewhere
        is no reason for the session to stay.
        """
        entries = await self._entries()
        for session_id in session_ids:
            if absent(_of_session(session_id)):
                continue
            rows = [entry.data async for entry in _results_of(entries, session_id)]
            left = [row for row in rows if not await self._delete_result_file(row)]
            if left:
                places = ", ".join(f"{row['namespace']}/{row['path']}" for row in left[:3])
                _log.warning(
                    "%d of %d tool results of a deleted session stay as files: %s", len(left), len(rows), places
                )
            await entries.delete_many([TOOL_RESULTS.id(row["result_id"]) for row in rows])

    async def _delete_result_file(self, row: Mapping[str, Any]) -> bool:
        """Delete the file of a result wherever it is; whether it was anywhere."""
        there = False
        for known in getattr(self, "tool_result_filesystems", None) or ():
            files = FileSystem(backend=known.backend, namespace=row["namespace"])
            try:
                there = bool(await files.adelete(row["path"])) or there
            except Exception:  # whatever a file system of the user's raises
                _log.warning("the file %s/%s cannot be deleted", row["namespace"], row["path"], exc_info=True)
        return there


def _of_session(session_id: str) -> str:
    return f"{TOOL_RESULTS.kind}:{session_id}"


def _results_of(entries: Entries, session_id: str) -> AsyncIterator[Entry]:
    return entries.iterate(group=_of_session(session_id), page_size=_STEP, consistency="strong")


def _entry(row: Mapping[str, Any]) -> Entry:
    """The entry that keeps a whole row."""
    expires_at = row["expires_at"]
    if expires_at is not None and not isinstance(expires_at, int | float):
        raise InvalidRecord("expires_at", "is no number of seconds since the epoch", collection="entries")
    return TOOL_RESULTS.entry(
        {**row, "id": row["result_id"]},
        group=_of_session(row["session_id"]),
        due=None if expires_at is None else due_text(expires_at),
    ).model_copy(update={"data": dict(row)})


def _changed(entry: Entry, given: Mapping[str, Any]) -> Entry:
    return _entry({**entry.data, **given}).model_copy(update={"version": entry.version})
