"""Ids and filters that no record can have: read, listed and deleted by as on agno's AsyncSqliteDb."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agno.db.schemas.evals import EvalRunRecord, EvalType
from agno.db.schemas.knowledge import KnowledgeRow
from agno.db.schemas.memory import UserMemory
from agno.db.sqlite import AsyncSqliteDb
from agno.run.base import RunStatus
from agno.session import AgentSession

from agno_clouddb import InvalidRecord
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.support import calls
from tests.integration.agno.differential import STRANGE, Call, Difference, compare

# What agno does with SQLAlchemy and is warned for would be an error here, and agno's answer.
pytestmark = pytest.mark.filterwarnings("ignore")

REQUIRED: dict[str, Any] = {
    "session_type": None,
    "session_name": "new",
    "reason": "stopped",
    "name": "none",
    "before": 5,
    "framework": "f",
    "project_key": "p",
    "provider": "p",
    "service": "s",
    "token_hash": "h",
    "learning_type": "user_profile",
    "previous_user_id": "ann",
    "run_status": RunStatus.completed,
}
"""What a call must be given, where that is no id."""

ALSO = (
    "rename_session",
    "cancel_pending_run",
    "reassign_session_owner",
    "update_schedule",
    "release_schedule",
    "stamp_schedule_provenance",
    "update_schedule_run",
    "update_approval",
    "update_approval_run_status",
    "update_service_account",
)
"""Changes of what has an id, which is not there."""

FILTERS = ("linked_to", "namespace", "learning_type", "entity_type", "status", "name", "table_name")


def asked() -> Iterator[Call]:
    """Each read and deletion by each of its ids and filters in turn, of which one is none that a record can have."""
    for method, supported in calls().items():
        if not supported or not hasattr(AsyncSqliteDb, method):
            continue
        if not method.startswith(("get_", "list_", "delete_")) and method not in ALSO:
            continue
        parameters = [*inspect.signature(getattr(AsyncCloudDb, method)).parameters.values()][1:]
        plain = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
        given = {each.name: REQUIRED.get(each.name, "none") for each in plain if each.default is each.empty}
        given |= {name: ["none"] for name in given if name.endswith("ids")}
        for each in plain:
            if not each.name.endswith(("id", "ids")) and each.name not in FILTERS:
                continue
            for value in (*STRANGE, None) if each.default is each.empty else STRANGE:
                yield Call(method, {**given, each.name: ["none", value] if each.name.endswith("ids") else value})


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[AsyncSqliteDb, AsyncCloudDb]]:
    """agno's database and ours, each with a record of a user and one of nobody in some of the families."""
    theirs, ours = AsyncSqliteDb(db_file=str(tmp_path / "agno.sqlite")), AsyncCloudDb("memory://", provision=True)
    await theirs._create_all_tables()  # type: ignore[no-untyped-call]
    for db in (theirs, ours):
        for number, user in enumerate(("ann", None)):
            own: dict[str, Any] = {"agent_id": "a", "user_id": user}
            await db.upsert_session(AgentSession(session_id=f"s{number}", created_at=10 + number, **own))
            await db.upsert_run({"run_id": f"r{number}", "status": "PENDING"}, f"s{number}", user, 0)
            await db.upsert_user_memory(UserMemory(memory="Tea", memory_id=f"m{number}", **own))
            row = KnowledgeRow(id=f"k{number}", name="file", description="", user_id=user, created_at=10, updated_at=10)
            await db.upsert_knowledge_content(row)
            await db.create_eval_run(EvalRunRecord(run_id=f"e{number}", eval_type=EvalType.ACCURACY, eval_data={}))
            await db.upsert_learning(f"l{number}", "user_profile", {}, **own)
    yield theirs, ours
    await theirs.close()
    await ours.close()


async def test_what_no_record_can_have_is_answered_as_what_none_has(both: tuple[AsyncSqliteDb, AsyncCloudDb]) -> None:
    different: list[str] = []
    asked_of: set[str] = set()
    for call in asked():
        asked_of.add(call.method)
        try:
            await compare([call], *both)
        except Difference as difference:
            different.append(str(difference))
    assert not different, "\n\n".join(different)
    assert len(asked_of) >= 60


@pytest.mark.parametrize("strange", [*STRANGE, None])
async def test_what_no_record_can_have_leaves_the_rest_of_a_deletion_alone(
    strange: str | None, both: tuple[AsyncSqliteDb, AsyncCloudDb]
) -> None:
    ids: dict[str, tuple[str, list[Any]]] = {
        "delete_runs": ("run_ids", [strange, "r0"]),
        "delete_user_memories": ("memory_ids", ["m0", strange]),
        "delete_eval_runs": ("eval_run_ids", [strange, "e0", "e1"]),
        "delete_sessions": ("session_ids", [strange, "s1"]),
        "delete_tool_results": ("result_ids", [strange]),
    }
    deletions = [Call(method, {name: given}) for method, (name, given) in ids.items()]
    left = ("get_sessions", "get_user_memories", "get_eval_runs")
    await compare([*deletions, *(Call(method, {"deserialize": False}) for method in left)], *both)
    rows: Any = await both[1].get_sessions(deserialize=False)
    assert [(row["session_id"], row["runs"]) for row in rows[0]] == [("s0", [])]


async def test_learnings_about_nobody_are_deleted_where_no_user_is_named(
    both: tuple[AsyncSqliteDb, AsyncCloudDb],
) -> None:
    nobody: Any = None
    left = Call("list_learnings", {"sort_by": "learning_id"})
    await compare([Call("delete_user_learnings", {"user_id": nobody, "learning_type": "none"}), left], *both)
    await compare([Call("delete_user_learnings", {"user_id": nobody}), left], *both)
    assert await both[1].get_learning_by_id("l0") is not None


async def test_a_session_and_a_run_with_the_longest_ids_are_deleted_with_all_that_is_theirs() -> None:
    db = AsyncCloudDb("memory://", provision=True)
    longest = "x" * 512
    await db.upsert_session(AgentSession(session_id=longest, agent_id="a"))
    await db.upsert_run({"run_id": longest}, longest)
    assert await db.update_approval_run_status(longest, RunStatus.completed) == 0
    await db.delete_sessions([longest])
    assert await db.get_session(longest) is None
    await db.upsert_session(AgentSession(session_id=longest, agent_id="a"))
    assert await db.delete_session(longest)
    await db.close()


@pytest.mark.parametrize("strange", STRANGE)
async def test_what_no_record_can_have_is_refused_where_it_is_written(strange: str) -> None:
    db = AsyncCloudDb("memory://", provision=True)
    await db.upsert_session(AgentSession(session_id="s", agent_id="a"))
    with pytest.raises(InvalidRecord):
        await db.upsert_session(AgentSession(session_id=strange, agent_id="a"))
    with pytest.raises(InvalidRecord):
        await db.upsert_run({"run_id": strange}, "s")
    await db.close()
