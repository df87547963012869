"""An agno workflow whose sessions are in one cloud, with the results of its steps.

    pip install "agno_clouddb[agno]"
    python examples/agno_workflow.py                      # a SQLite file stands for the cloud

On an emulator, or on a cloud with its usual credentials:

    python examples/agno_workflow.py "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:8000"
    python examples/agno_workflow.py firestore://my-project

The URL may also be in the environment, as AGNO_CLOUDDB_URL. The models answer by scripts, so that no key is needed.
"""

from __future__ import annotations

import asyncio
import os
import sys

from agno.agent import Agent
from agno.session import WorkflowSession
from agno.workflow import Step, StepInput, StepOutput, Workflow

from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.testing.scripted import ScriptedModel, said


async def count(step_input: StepInput) -> StepOutput:
    """A step that is a function: it counts the words of what the step before has said."""
    return StepOutput(content=f"{len(str(step_input.previous_step_content).split())} words")


def build(db: AsyncCloudDb) -> Workflow:
    """The workflow; the line with ``db=`` is all that knows of clouds."""
    drafter = Agent(name="drafter", model=ScriptedModel(script=lambda messages: f"A text about {said(messages)[-1]}."))
    return Workflow(
        id="article",
        name="article",
        db=db,
        steps=[Step(name="draft", agent=drafter), Step(name="count", executor=count)],
    )


async def main(url: str) -> None:
    """Run the example on the given store."""
    db = AsyncCloudDb(url, provision=True)
    workflow = build(db)
    await db.delete_session("example-workflow", user_id="ann")  # what is left of the last time
    for subject in ("tea", "cups and saucers"):
        answer = await workflow.arun(subject, session_id="example-workflow", user_id="ann")
        print(f"{subject}: {answer.content}")

    session = await db.get_session("example-workflow")
    assert isinstance(session, WorkflowSession)
    for run in session.runs or []:
        print(", ".join(f"{each.step_name}: {each.content}" for each in run.step_results))  # type: ignore[union-attr]
    await db.close()


if __name__ == "__main__":
    default = os.environ.get("AGNO_CLOUDDB_URL", "sqlite:///example.sqlite")
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else default))
