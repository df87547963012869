"""agno's calls about tables and the versions of their schemas, on every store."""

from __future__ import annotations

from typing import Any

import pytest
from agno.db.migrations.manager import MigrationManager
from agno.run.agent import RunOutput
from agno.session import AgentSession

from agno_clouddb import InvalidRecord
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.learnings import LearningCalls
from agno_clouddb.integrations.agno.versions import VersionCalls


def agno_db(url: str, *families: type, provision: bool = False) -> Any:
    made: Any = type("Alone", families, {})
    made.__abstractmethods__ = frozenset()
    return made(url, provision=provision)


async def test_tables_exist_once_they_are_provisioned(backend: str) -> None:
    db = agno_db(backend, VersionCalls)
    assert await db.table_exists(db.session_table_name) is backend.startswith("firestore")
    await (await db.database()).provision()
    for name in ("session", "runs", "memory", "eval", "knowledge", "trace", "span", "learnings", "approvals"):
        assert await db.table_exists(getattr(db, f"{name}_table_name"))
    assert not await db.table_exists("agno_else")
    await db.close()


async def test_creating_all_tables_provisions_where_that_was_asked_for(backend: str) -> None:
    db = agno_db(backend, VersionCalls, provision=True)
    await db._create_all_tables()
    assert await db.table_exists("agno_learnings")
    await db.close()


async def test_agnos_migrations_run_and_note_how_far_they_came(backend: str) -> None:
    db = agno_db(backend, VersionCalls, LearningCalls, provision=True)
    latest = MigrationManager(db).latest_schema_version.public
    assert await db.get_latest_schema_version("agno_sessions") == "2.0.0"
    await MigrationManager(db).up()
    for table in ("agno_sessions", "agno_learnings", "agno_schedules"):
        assert await db.get_latest_schema_version(table) == latest
    await db.upsert_schema_version("agno_sessions", "2.5.0")
    assert await db.get_latest_schema_version("agno_sessions") == "2.5.0"
    with pytest.raises(InvalidRecord):
        await db.upsert_schema_version("agno_sessions", None)
    await db.close()


async def test_there_are_no_runs_of_agno_2_to_drop() -> None:
    db = AsyncCloudDb("memory://", provision=True)
    run = RunOutput(run_id="r", agent_id="a", session_id="s")
    await db.upsert_session(AgentSession(session_id="s", agent_id="a"))
    await db.upsert_run(run, "s")
    assert not await db.cleanup_legacy_runs_field(force=True)
    session = await db.get_session("s")
    assert isinstance(session, AgentSession)
    assert [each.run_id for each in session.runs or []] == ["r"]
    await db.close()
