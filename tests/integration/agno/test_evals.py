"""agno's calls about evaluation runs, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from agno.db.schemas.evals import EvalFilterType, EvalRunRecord, EvalType

from agno_clouddb import ConflictError, Database
from agno_clouddb.integrations.agno.evals import EvalCalls
from tests.integration.agno.competing import WORKERS, all_at_once, alone, databases

__all__ = ["databases"]

COLLECTIONS = ("evals",)

CREATED = 1_700_000_000


class Dated(EvalRunRecord):
    """A run that says when it was created and updated."""

    created_at: int = CREATED
    updated_at: int = CREATED


def run(id: str, **values: Any) -> EvalRunRecord:
    return Dated(**{"run_id": id, "eval_type": EvalType.ACCURACY, "eval_data": {"score": 1.5}, **values})


async def test_of_16_who_create_one_run_one_does(databases: list[Database]) -> None:
    await databases[0].provision(COLLECTIONS)
    agnos = [alone(EvalCalls, databases[n % len(databases)]) for n in range(WORKERS)]
    creations = [partial(each.create_eval_run, run("e1", name=f"by {n}")) for n, each in enumerate(agnos)]
    answers = await all_at_once(creations)
    (made,) = [each for each in answers if isinstance(each, EvalRunRecord)]
    assert sum(isinstance(each, ConflictError) for each in answers) == WORKERS - 1
    for each in agnos:
        stored = await each.get_eval_run("e1")
        assert isinstance(stored, EvalRunRecord)
        assert stored.name == made.name


async def test_the_owner_is_set_whoever_it_was_and_the_run_counts_as_updated_when_it_was(db: Database) -> None:
    agno: Any = alone(EvalCalls, db)
    await agno.create_eval_run(run("e1"))
    for user in ("ann", "bob"):
        await agno.update_eval_run_user_id("e1", user)
        found = await agno.get_eval_run("e1", deserialize=False, user_id=user)
        assert isinstance(found, dict)
        assert (found["user_id"], found["updated_at"], found["created_at"]) == (user, CREATED, CREATED)
    assert await agno.get_eval_run("e1", user_id="ann") is None
    assert await agno.rename_eval_run("e1", "Anns", user_id="ann") is None
    renamed = await agno.rename_eval_run("e1", "Bobs", deserialize=False, user_id="bob")
    assert isinstance(renamed, dict)
    assert renamed["name"] == "Bobs"
    assert renamed["updated_at"] > CREATED
    assert await agno.get_eval_run_raw("e1") == renamed
    assert await agno.get_eval_run_raw("none") is None
    await agno.update_eval_run_user_id("none", "ann")
    assert await agno.get_eval_run("none") is None


async def test_pages_hold_the_runs_of_one_kind_of_component_with_the_total_on_each(db: Database) -> None:
    agno: Any = alone(EvalCalls, db)
    kinds = ("agent_id", "team_id", "workflow_id")
    runs = [run(f"e{n:02}", created_at=CREATED + n, **{kinds[n % 3]: f"c{n % 2}"}) for n in range(48)]
    await asyncio.gather(*(agno.create_eval_run(each) for each in runs))
    for place, kind in enumerate((EvalFilterType.AGENT, EvalFilterType.TEAM, EvalFilterType.WORKFLOW)):
        found: list[str] = []
        for page in range(1, 5):
            rows, total = await agno.get_eval_runs(limit=5, page=page, filter_type=kind, deserialize=False)
            assert total == 16
            found += [row["run_id"] for row in rows]
        assert found == [f"e{n:02}" for n in reversed(range(48)) if n % 3 == place]
    by_id, total = await agno.get_eval_runs(limit=2, page=2, sort_by="run_id", sort_order="asc", deserialize=False)
    assert ([row["run_id"] for row in by_id], total) == (["e02", "e03"], 48)
