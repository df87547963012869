"""A conversation that agno's own DynamoDb has kept moves to AsyncCloudDb, and goes on there.

    pip install "agno_clouddb[agno,testing]"
    python examples/agno_import.py                         # DynamoDB is moto, and a SQLite file stands for the target

On DynamoDB Local, or on AWS with its usual credentials, to any other store. It makes tables of its own in the source,
whose names begin with ``example_``:

    python examples/agno_import.py "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:8000" firestore://my-project

The model answers by a script, so that no key is needed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
from agno.agent import Agent
from agno.db.base import AsyncBaseDb, BaseDb
from agno.db.dynamo import DynamoDb
from agno.db.schemas.memory import UserMemory
from agno.models.message import Message

from agno_clouddb import connect
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.importing import Tally, import_agno
from agno_clouddb.testing import moto
from agno_clouddb.testing.scripted import ScriptedModel, said

TABLES = {kind: f"example_{kind}" for kind in ("sessions", "runs", "memories")}
KINDS = ("sessions", "memories")  # runs come with their sessions
SESSION = "example-moving"


def talk(messages: Sequence[Message]) -> str:
    """The agent's script."""
    *before, _ = said(messages)
    return f"You have said {len(before)} things before."


def build(db: BaseDb | AsyncBaseDb) -> Agent:
    """The agent, the same on either database."""
    return Agent(id="mover", model=ScriptedModel(script=talk), db=db, add_history_to_context=True)


def agnos_own(source: str) -> DynamoDb:
    """agno's own database over the source, with tables of the example's."""
    url = urlsplit(source)
    options: dict[str, Any] = {}
    for endpoint in parse_qs(url.query).get("endpoint_url", ()):
        options = {"endpoint_url": endpoint, "aws_access_key_id": "local", "aws_secret_access_key": "local"}
    client = boto3.client("dynamodb", region_name=url.netloc, **options)
    return DynamoDb(
        client,
        session_table=TABLES["sessions"],
        runs_table=TABLES["runs"],
        memory_table=TABLES["memories"],
    )


async def converse(source: str) -> None:
    """Let agno's own database keep a conversation and a memory."""
    old = agnos_own(source)
    if old.table_exists(TABLES["sessions"]):
        old.delete_session(SESSION)  # what is left of the last time
    agent = build(old)
    for message in ("Hello", "I am moving"):
        answer = await agent.arun(message, session_id=SESSION, user_id="ann")
        print(f"{message}: {answer.content}")
    old.upsert_user_memory(UserMemory(memory="Is moving", memory_id="example-m1", user_id="ann", topics=["plans"]))


def show(title: str, tallies: Mapping[str, Tally], missing: str = "missing") -> None:
    """Print what was found of each kind: an import writes what is missing."""
    for kind, each in tallies.items():
        print(f"{title}: {kind}: {each.read} read, {each.missing} {missing}, {each.equal} equal")


async def move(source: str, target: str) -> None:
    """Import the conversation, twice: the second time there is nothing left to do."""
    async with connect(target, prefix="agno_clouddb_") as db:
        await db.provision()
        await db.sessions.delete(SESSION)
        await db.memories.delete("example-m1")
        dry = await import_agno(source, db, tables=TABLES, kinds=KINDS, dry_run=True)
        show("dry run", dry.imported)
        for title in ("imported", "again"):
            report = await import_agno(source, db, tables=TABLES, kinds=KINDS)
            show(title, report.imported, "written")
        show("verified", report.verified)
        print(f"complete: {report.complete}")


async def go_on(target: str) -> None:
    """The conversation goes on where agno's own database has left it."""
    db = AsyncCloudDb(target)
    answer = await build(db).arun("Here I am", session_id=SESSION, user_id="ann")
    print(f"Here I am: {answer.content}")
    memories = await db.get_user_memories(user_id="ann")
    print(f"remembered: {[each.memory for each in memories if isinstance(each, UserMemory)]}")
    await db.close()


async def main(source: str, target: str) -> None:
    """Run the example from the given DynamoDB to the given store."""
    await converse(source)
    await move(source, target)
    await go_on(target)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
    else:
        with moto() as url:
            asyncio.run(main(url, "sqlite:///example.sqlite"))
