"""One Database over two clouds: written to both at once, read from both and merged, and what an outage looks like.

    python examples/both_clouds.py                                  # two SQLite files stand for the clouds

On the emulators (``agno_clouddb.testing`` starts them, or start them yourself):

    python examples/both_clouds.py "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:8000" \\
        "firestore://test-project?emulator_host=127.0.0.1:8080"

On the clouds, with their usual credentials (an AWS profile or role, Google's application default credentials):

    python examples/both_clouds.py dynamodb://eu-west-1 firestore://my-project

The URLs may also be in the environment, as AGNO_CLOUDDB_URLS, with a blank between. The first is the primary.
"""

from __future__ import annotations

import asyncio
import os
import sys

from agno_clouddb import Database, PartialWrite, Run, Session, connect
from agno_clouddb.testing import FaultyStore


async def main(primary_url: str, second_url: str) -> None:
    """Run the example on the two stores."""
    # Usually this is connect(primary_url, second_url). Here the second is wrapped, so that it can be cut off.
    primary = connect(primary_url).store
    second = FaultyStore(connect(second_url).store)

    async with connect(primary, second) as db:
        await db.provision()
        await db.sessions.upsert(Session(session_id="example-1", user_id="ann"))
        await db.sessions.append_run("example-1", Run(run_id="run-1", data={"text": "written to both"}))

        second.down()  # the second cloud does not answer any more
        await db.sessions.append_run("example-1", Run(run_id="run-2", data={"text": "written to one"}))
        session = await db.sessions.get("example-1")
        assert session is not None
        print(f"during the outage: {len(session.runs)} runs, degraded: {session.degraded}")
        page = await db.sessions.list(user_id="ann")
        print(f"during the outage: {len(page.items)} session listed, degraded: {page.degraded}")

        second.up()
        session = await db.sessions.get("example-1")
        assert session is not None
        print(f"after the outage: {len(session.runs)} runs, degraded: {session.degraded}")

    # Where a write must be on both, or the caller must know: acks="all".
    async with connect(primary, second, acks="all") as db:
        second.down()
        try:
            await db.sessions.append_run("example-1", Run(run_id="run-3"))
        except PartialWrite as error:
            print(f"acknowledged by {len(error.acked)}, failed on {len(error.failed)}: {error}")
        second.up()
        await db.sessions.append_run("example-1", Run(run_id="run-3"))  # repeating it is harmless

    for store in (primary, second):
        async with Database(store) as db:
            alone = await db.sessions.get("example-1")
            print(f"{store.name} alone: {', '.join(run.run_id for run in alone.runs) if alone else 'nothing'}")


if __name__ == "__main__":
    default = os.environ.get("AGNO_CLOUDDB_URLS", "sqlite:///first.sqlite sqlite:///second.sqlite").split()
    asyncio.run(main(*(sys.argv[1:3] if len(sys.argv) > 2 else default)))
