"""An agno agent, a team and a workflow on two clouds at once, and what an outage of one looks like: like nothing.

    pip install "agno_clouddb[agno]"
    python examples/agno_both_clouds.py                   # two SQLite files stand for the clouds

On the emulators, or on the clouds with their usual credentials:

    python examples/agno_both_clouds.py "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:8000" \\
        "firestore://test-project?emulator_host=127.0.0.1:8080"
    python examples/agno_both_clouds.py dynamodb://eu-west-1 firestore://my-project

The URLs may also be in the environment, as AGNO_CLOUDDB_URLS, with a blank between. The first is the primary.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from agno.agent import Agent
from agno.team import Team
from agno.workflow import Step, Workflow

from agno_clouddb import connect
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.testing import FaultyStore
from agno_clouddb.testing.scripted import ScriptedModel, ToolUse

SESSIONS = ("example-agent", "example-crew", "example-flow")


def build(db: AsyncCloudDb) -> Sequence[Agent | Team | Workflow]:
    """What talks to the user."""
    agent = Agent(id="agent", model=ScriptedModel(), db=db, add_history_to_context=True, num_history_runs=3)
    member = Agent(id="member", name="member", model=ScriptedModel())
    asking = [ToolUse("delegate_task_to_member", {"member_id": "member", "task": "Hello"})]
    leader = ScriptedModel(script=lambda messages: str(messages[-1].content) if messages[-1].role == "tool" else asking)
    team = Team(id="crew", model=leader, members=[member], db=db)
    step = Step(name="step", agent=Agent(name="stepper", model=ScriptedModel()))
    return agent, team, Workflow(id="flow", name="flow", steps=[step], db=db)


async def main(primary_url: str, second_url: str) -> None:
    """Run the example on the two stores."""
    # Usually this is AsyncCloudDb(primary_url, second_url). Here the second is wrapped, so that it can be cut off.
    second = FaultyStore(connect(second_url, prefix="agno_clouddb_").store)
    async with connect(connect(primary_url, prefix="agno_clouddb_").store, second) as database:
        await database.provision()
        db = AsyncCloudDb(database=database)
        await db.delete_sessions(list(SESSIONS), user_id="ann")  # what is left of the last time
        for message in ("before", "in the outage", "after"):
            if message == "in the outage":
                second.down()
            else:
                second.up()
            for talker, session_id in zip(build(db), SESSIONS, strict=True):
                answer = await talker.arun(message, session_id=session_id, user_id="ann")
                print(f"{message}, {talker.id}: {answer.status.value}")
        report = await database.reconcile()
        print(f"reconciled: {report.total.failed} failed")

    for url in (primary_url, second_url):
        alone = AsyncCloudDb(url)
        runs = {}
        for each in SESSIONS:
            session = await alone.get_session(each, deserialize=False)
            runs[each] = len(session["runs"]) if isinstance(session, dict) else 0
        print(f"{url} alone: {runs}")
        await alone.close()


if __name__ == "__main__":
    default = os.environ.get("AGNO_CLOUDDB_URLS", "sqlite:///first.sqlite sqlite:///second.sqlite").split()
    asyncio.run(main(*(sys.argv[1:3] if len(sys.argv) > 2 else default)))
