"""A service on one cloud adds a second one while it serves, makes that the primary, and leaves the first.

    python examples/joining.py                                      # two SQLite files stand for the clouds

On the emulators (``agno_clouddb.testing`` starts them, or start them yourself):

    python examples/joining.py "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:8000" \\
        "firestore://test-project?emulator_host=127.0.0.1:8080"

On the clouds, with their usual credentials (an AWS profile or role, Google's application default credentials):

    python examples/joining.py dynamodb://eu-west-1 firestore://my-project

The URLs may also be in the environment, as AGNO_CLOUDDB_URLS, with a blank between: the old one, and the new one.
docs/dual-write.md says what each step is for, and what to heed.
"""

from __future__ import annotations

import asyncio
import os
import sys

from agno_clouddb import Database, Run, Session, connect


async def main(old_url: str, new_url: str) -> None:
    """Run the example on the two stores."""
    # Usually URLs are given each time. Here the stores are made once, so that memory:// keeps what it holds.
    old, new = connect(old_url).store, connect(new_url).store

    async with connect(old) as db:
        await db.provision()
        for number in range(1, 4):
            run = Run(run_id=f"run-{number}", data={"text": "written to the old cloud"})
            await db.sessions.upsert(Session(session_id=f"example-{number}", user_id="ann", runs=[run]))

    async with connect(old, new) as db:  # the old one first: it has everything
        await db.provision()
        await db.sessions.append_run("example-1", Run(run_id="run-4", data={"text": "written to both"}))
        print(f"at once, of both: {await listed(db)}")
        report = await db.reconcile()  # of stores that were never compared, the first is always a full one
        print(f"reconciled: {report.kind}, {report.total.failed} failed")
        print(f"health: {'ok' if (await db.health()).ok else 'not ok'}")

    async with connect(new, old) as db:  # the new one is the primary
        await db.sessions.rename("example-1", "Moved")
        await db.sessions.delete("example-3")
        await db.reconcile()
        health = await db.health()
        print(f"health: {'ok' if health.ok else 'not ok'}")
        name = health.stores[1].name

    async with connect(new) as db:  # the old one is left for good
        print(f"the new cloud alone: {await listed(db)}")
        session = await db.sessions.get("example-1")
        assert session is not None
        print(f"example-1: {session.name}, {', '.join(run.run_id for run in session.runs)}")
        print(f"hints discarded: {await db.forget_store(name)}")


async def listed(db: Database) -> str:
    """The sessions of one user, the oldest first."""
    page = await db.sessions.list(user_id="ann", sort="created_at")
    return ", ".join(session.session_id for session in page.items)


if __name__ == "__main__":
    default = os.environ.get("AGNO_CLOUDDB_URLS", "sqlite:///old.sqlite sqlite:///new.sqlite").split()
    asyncio.run(main(*(sys.argv[1:3] if len(sys.argv) > 2 else default)))
