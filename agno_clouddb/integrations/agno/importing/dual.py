"""DualRunDb: agno's own database and AsyncCloudDb at once, to move from the one to the other without downtime."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from agno.db.base import AsyncBaseDb, BaseDb

from agno_clouddb.errors import CloudDBError
from agno_clouddb.integrations.agno.database import AsyncCloudDb

__all__ = ["DualRunDb"]

_READS = (
    "get_session",
    "get_sessions",
    "get_run",
    "get_runs",
    "get_user_memory",
    "get_user_memories",
    "get_all_memory_topics",
    "get_user_memory_stats",
    "get_metrics",
    "get_knowledge_content",
    "get_knowledge_contents",
    "get_eval_run",
    "get_eval_runs",
    "get_trace",
    "get_traces",
    "get_trace_stats",
    "get_span",
    "get_spans",
)
_WRITES = (
    "upsert_session",
    "upsert_sessions",
    "rename_session",
    "delete_session",
    "delete_sessions",
    "upsert_run",
    "delete_run",
    "delete_runs",
    "upsert_user_memory",
    "upsert_memories",
    "delete_user_memory",
    "delete_user_memories",
    "clear_memories",
    "upsert_knowledge_content",
    "delete_knowledge_content",
    "create_eval_run",
    "rename_eval_run",
    "update_eval_run_user_id",
    "delete_eval_runs",
    "upsert_trace",
    "create_span",
    "create_spans",
    "calculate_metrics",
)
_REFUSED = ("cancel_pending_run", "reassign_session_owner", "get_span_stats")
"""What agno's own databases refuse, so that it must not be decided by what the new one alone has."""

_ABSENT = ("insert_session_if_absent", "append_run_to_session_if_absent", "update_run_in_session")
"""What agno does by other calls, which go to both, where a database has it not."""

_REFUSED_BY_NONE = frozenset({"upsert_session", "rename_session", "rename_eval_run"})


class DualRunDb(AsyncCloudDb):
    """Reads what agno's own database holds, and writes to it and then to this library's.

    What agno's DynamoDb and FirestoreDb know is so: sessions, runs, memories, metrics, evaluations, contents, traces
    and spans. All else, such as learnings and schedules, is kept by this library alone. What the old database raises is
    raised, and what it refuses the new one is not asked for; its calls run in threads. What they have not of a session,
    as ``cancel_pending_run``, there is not, so that agno does as it does with them.

    Args:
        *stores: as for AsyncCloudDb.
        old: agno's own database, which counts.
        on_error: is told what could not be written to the new one: the name of the call, and the error; the call has
            succeeded then. A later import brings what is missing, but does not delete. By default the error is raised,
            after the old database was written.
        **options: as for AsyncCloudDb.
    """

    def __init__(
        self, *stores: Any, old: BaseDb, on_error: Callable[[str, CloudDBError], None] | None = None, **options: Any
    ) -> None:
        super().__init__(*stores, **options)
        self._old = old
        self._on_error = on_error

    async def delete_eval_run(self, eval_run_id: str) -> None:
        """Delete a run of both: agno's DynamoDb has no call for one alone."""
        await self.delete_eval_runs([eval_run_id])

    async def get_eval_run_raw(self, eval_run_id: str) -> dict[str, Any] | None:
        """The row of a run, of the old database."""
        row: dict[str, Any] | None = await self.get_eval_run(eval_run_id, deserialize=False)  # type: ignore[assignment]
        return row

    async def _of_old(self, name: str, *args: Any, **arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(self._old, name), *args, **arguments)

    async def _in_both(self, name: str, write: Callable[[], Awaitable[Any]], *args: Any, **arguments: Any) -> Any:
        answer = await self._of_old(name, *args, **arguments)
        if answer is None and name in _REFUSED_BY_NONE:
            return None
        try:
            await write()
        except CloudDBError as error:
            if self._on_error is None:
                raise
            self._on_error(name, error)
        return answer


def _reading(name: str) -> Callable[..., Awaitable[Any]]:
    async def call(self: DualRunDb, *args: Any, **arguments: Any) -> Any:
        return await self._of_old(name, *args, **arguments)

    return call


def _writing(name: str) -> Callable[..., Awaitable[Any]]:
    new = getattr(AsyncCloudDb, name)

    async def call(self: DualRunDb, *args: Any, **arguments: Any) -> Any:
        return await self._in_both(name, partial(new, self, *args, **arguments), *args, **arguments)

    return call


for _names, _make in ((_READS, _reading), (_WRITES, _writing)):
    for _name in _names:
        setattr(DualRunDb, _name, _make(_name))

for _name in _REFUSED:
    setattr(DualRunDb, _name, getattr(AsyncBaseDb, _name))
for _name in _ABSENT:
    setattr(DualRunDb, _name, None)
