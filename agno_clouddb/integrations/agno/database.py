"""AsyncCloudDb: agno's asynchronous database over one cloud, or over several at once."""

from __future__ import annotations

from collections.abc import Sequence

from agno_clouddb.concurrency import gather
from agno_clouddb.integrations.agno.accounts import AccountCalls
from agno_clouddb.integrations.agno.approvals import ApprovalCalls
from agno_clouddb.integrations.agno.evals import EvalCalls
from agno_clouddb.integrations.agno.knowledge import KnowledgeCalls
from agno_clouddb.integrations.agno.learnings import LearningCalls
from agno_clouddb.integrations.agno.memories import MemoryCalls
from agno_clouddb.integrations.agno.metrics import MetricCalls
from agno_clouddb.integrations.agno.schedules import ScheduleCalls
from agno_clouddb.integrations.agno.sessions import SessionCalls
from agno_clouddb.integrations.agno.tokens import TokenCalls
from agno_clouddb.integrations.agno.tool_results import ToolResultCalls
from agno_clouddb.integrations.agno.traces import TraceCalls
from agno_clouddb.integrations.agno.transcripts import TranscriptCalls
from agno_clouddb.integrations.agno.versions import VersionCalls

__all__ = ["AsyncCloudDb"]


class AsyncCloudDb(
    SessionCalls,
    MemoryCalls,
    MetricCalls,
    EvalCalls,
    KnowledgeCalls,
    TraceCalls,
    LearningCalls,
    ScheduleCalls,
    ApprovalCalls,
    ToolResultCalls,
    TranscriptCalls,
    AccountCalls,
    TokenCalls,
    VersionCalls,
):
    """An asynchronous database for agno's agents, teams and workflows: on DynamoDB, on Firestore, or on both at once.

    It is made anywhere, also at import time, and connects at its first use in the event loop that runs then; each loop
    has connections of its own, which end with it or with ``close``.

    Args:
        *stores: URLs, as ``connect`` takes them, such as ``dynamodb://eu-west-1`` and ``firestore://my-project``;
            several make a fan-out. Or Stores, which serve one event loop at a time; or functions that make one.
        database: a Database that you open and close yourself, instead of stores.
        provision: create missing tables, collections and indexes before the first use.
        history_runs: how many of a session's runs are read for a turn, so that it costs the same however long the
            conversation is: at least as many as ``num_history_runs`` of the agents. None: all runs, as agno's own
            databases do. The rest stays where it is; docs/agno.md says what agno no longer sees of it.
        id: what agno knows this database by; by default the same for the same URLs.
        **options: of ``connect``, such as ``reads``, ``acks`` or ``ttl``. ``prefix`` is ``agno_clouddb_`` by default,
            so that the tables of agno's own adapters are left alone.

    Raises:
        ConfigurationError: neither stores nor a Database are given, or both; or as ``connect`` says.
    """

    async def _delete_attached(self, session_ids: Sequence[str]) -> None:
        await gather(
            [lambda: self._delete_tool_results_of(session_ids), lambda: self._delete_transcripts_of(session_ids)]
        )
