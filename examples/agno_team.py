"""An agno team whose sessions, with the runs of its members, are in one cloud.

    pip install "agno_clouddb[agno]"
    python examples/agno_team.py                          # a SQLite file stands for the cloud

On an emulator, or on a cloud with its usual credentials:

    python examples/agno_team.py "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:8000"
    python examples/agno_team.py firestore://my-project

The URL may also be in the environment, as AGNO_CLOUDDB_URL. The models answer by scripts, so that no key is needed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from agno.agent import Agent
from agno.models.message import Message
from agno.session import TeamSession
from agno.team import Team

from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.testing.scripted import ScriptedModel, ToolUse


def lead(messages: Sequence[Message]) -> str | Sequence[ToolUse]:
    """The leader's script: each member is asked, and the leader puts together what they say."""
    answers = [str(each.content) for each in messages if each.role == "tool"]
    if messages[-1].role == "tool":
        return " ".join(answers[-2:])
    return [
        ToolUse("delegate_task_to_member", {"member_id": member, "task": "What do you know?"})
        for member in ("trains", "planes")
    ]


def build(db: AsyncCloudDb) -> Team:
    """The team; the line with ``db=`` is all that knows of clouds."""
    return Team(
        id="travel",
        members=[
            Agent(id="trains", name="trains", model=ScriptedModel(script=lambda _: "Trains take 3 hours.")),
            Agent(id="planes", name="planes", model=ScriptedModel(script=lambda _: "Planes take 1 hour.")),
        ],
        model=ScriptedModel(script=lead),
        db=db,
        add_history_to_context=True,
        num_history_runs=3,
    )


async def main(url: str) -> None:
    """Run the example on the given store."""
    db = AsyncCloudDb(url, provision=True)
    team = build(db)
    await db.delete_session("example-team", user_id="ann")  # what is left of the last time
    for message in ("How do I get there?", "And back?"):
        answer = await team.arun(message, session_id="example-team", user_id="ann")
        print(f"{message} {answer.content}")

    session = await db.get_session("example-team")
    assert isinstance(session, TeamSession)
    runs = session.runs or []
    print(f"runs: {sum(run.parent_run_id is None for run in runs)}, ", end="")
    print(f"of members: {sum(run.parent_run_id is not None for run in runs)}")
    await db.close()


if __name__ == "__main__":
    default = os.environ.get("AGNO_CLOUDDB_URL", "sqlite:///example.sqlite")
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else default))
