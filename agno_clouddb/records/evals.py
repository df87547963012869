"""Evaluation runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.base import Record
from agno_clouddb.stores.schema import EVALS, Collection

__all__ = ["EVAL_TYPES", "EvalRun"]

EVAL_TYPES = ("accuracy", "agent_as_judge", "performance", "reliability")


class EvalRun(Record):
    """The result of one evaluation of an agent, team or workflow.

    Args:
        run_id: unique in the database.
        eval_type: ``accuracy``, ``agent_as_judge``, ``performance`` or ``reliability``.
        eval_data: the result, any JSON object.
        eval_input: what was evaluated, any JSON object.
        name: what people call it.
        agent_id: the agent that was evaluated.
        team_id: the team that was evaluated.
        workflow_id: the workflow that was evaluated.
        model_id: the model that the component runs on.
        model_provider: whose model that is.
        evaluated_component_name: the name of that agent, team or workflow.
        user_id: the owner; None: nobody's.
        created_at: when it was first written; set by the library when None.
        updated_at: when it was last written; set by the library.
    """

    collection: ClassVar[Collection] = EVALS

    run_id: str
    eval_type: str
    eval_data: dict[str, Any]
    eval_input: dict[str, Any] | None = None
    name: str | None = None
    agent_id: str | None = None
    team_id: str | None = None
    workflow_id: str | None = None
    model_id: str | None = None
    model_provider: str | None = None
    evaluated_component_name: str | None = None
    user_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def derived_fields(self) -> dict[str, str]:
        if self.eval_type not in EVAL_TYPES:
            raise InvalidRecord(
                "eval_type", f"is {self.eval_type!r}, not one of {', '.join(EVAL_TYPES)}", collection="evals"
            )
        return {}
