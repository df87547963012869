"""Sessions and runs on one store: write, read the last runs, list with a cursor, and meet a conflict.

    python examples/one_cloud.py                                    # a SQLite file, example.sqlite
    python examples/one_cloud.py memory://

On an emulator (``agno_clouddb.testing`` starts them, or start one yourself):

    python examples/one_cloud.py "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:8000"
    python examples/one_cloud.py "firestore://test-project?emulator_host=127.0.0.1:8080"

On the clouds, with their usual credentials (an AWS profile or role, Google's application default credentials):

    python examples/one_cloud.py dynamodb://eu-west-1
    python examples/one_cloud.py firestore://my-project

The URL may also be in the environment, as AGNO_CLOUDDB_URL. Running it again writes the same sessions again.
"""

from __future__ import annotations

import asyncio
import os
import sys

from agno_clouddb import ConflictError, RecordNotFound, Run, Session, connect


async def main(url: str) -> None:
    """Run the example on the store that ``url`` names."""
    async with connect(url) as db:
        await db.provision()  # creates the tables and indexes that are missing

        # A conversation: a session, and one run for each thing that the user said.
        session = await db.sessions.upsert(
            Session(
                session_id="example-1",
                component_id="support-agent",
                user_id="ann",
                session_data={"session_name": "A refund"},
            )
        )
        print(f"stored {session.session_id} as version {session.version}")
        for number in range(1, 6):
            messages = [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "answer"}]
            run = Run(run_id=f"run-{number}", status="completed", data={"messages": messages})
            await db.sessions.append_run("example-1", run)

        # What an agent reads before it answers: the session with its last runs, oldest first.
        found = await db.sessions.get("example-1", user_id="ann", runs=3)
        assert found is not None
        print("the last 3 runs:", ", ".join(run.run_id for run in found.runs))
        print("seen by another user:", await db.sessions.get("example-1", user_id="ben"))

        # Lists come in full pages; the cursor goes on where a page ended, on whichever store.
        for number in (2, 3):
            await db.sessions.upsert(Session(session_id=f"example-{number}", user_id="ann"))
        page = await db.sessions.list(user_id="ann", limit=2, sort="created_at")
        print("page 1:", ", ".join(session.session_id for session in page.items))
        page = await db.sessions.list(user_id="ann", limit=2, sort="created_at", cursor=page.cursor)
        print("page 2:", ", ".join(session.session_id for session in page.items))

        # Two workers change one session: the second is told, and neither change is lost.
        stale = session
        await db.sessions.upsert(
            session.model_copy(update={"metadata": {"worker": 1}}), expected_version=session.version
        )
        try:
            await db.sessions.upsert(stale, expected_version=stale.version)
        except ConflictError as error:
            print(f"conflict: expected version {error.expected}, found {error.found}")
        updated = await db.sessions.update("example-1", add_tag)  # reads, changes, writes; again after a conflict
        print("metadata:", updated.metadata)

        try:
            await db.sessions.append_run("no-such-session", Run(run_id="run-1"))
        except RecordNotFound as error:
            print(f"error: {error}")


def add_tag(session: Session) -> Session:
    """The session with one thing more in its metadata."""
    return session.model_copy(update={"metadata": {**(session.metadata or {}), "tag": "refund"}})


if __name__ == "__main__":
    default = os.environ.get("AGNO_CLOUDDB_URL", "sqlite:///example.sqlite")
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else default))
