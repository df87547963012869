"""An agno agent whose sessions, state, summaries and memories are in one cloud.

    pip install "agno_clouddb[agno]"
    python examples/agno_agent.py                         # a SQLite file stands for the cloud

On an emulator, or on a cloud with its usual credentials:

    python examples/agno_agent.py "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:8000"
    python examples/agno_agent.py firestore://my-project

The URL may also be in the environment, as AGNO_CLOUDDB_URL. The model answers by a script, so that no key is needed:
put a model of your own in its place.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from agno.agent import Agent
from agno.memory import MemoryManager
from agno.models.message import Message
from agno.run import RunContext

from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.testing.scripted import ScriptedModel, ToolUse, said


def add_to_cart(run_context: RunContext, item: str) -> str:
    """Adds an item to the user's cart, which is in the session's state."""
    assert run_context.session_state is not None
    run_context.session_state["cart"].append(item)
    return f"{len(run_context.session_state['cart'])} in the cart"


def talk(messages: Sequence[Message]) -> str | Sequence[ToolUse]:
    """The agent's script: what is to be bought is put into the cart."""
    if messages[-1].role == "tool":
        return f"Done: {messages[-1].content}."
    *before, now = said(messages)
    if now.startswith("Buy "):
        return [ToolUse("add_to_cart", {"item": now.removeprefix("Buy ")})]
    return f"You have said {len(before)} things before."


def remember(messages: Sequence[Message]) -> str | Sequence[ToolUse]:
    """The memory manager's script: what the user likes is remembered."""
    now = said(messages)[-1]
    if messages[-1].role == "tool" or not now.startswith("I like "):
        return "Nothing to remember."
    return [ToolUse("add_memory", {"memory": f"Likes {now.removeprefix('I like ')}", "topics": ["taste"]})]


def build(db: AsyncCloudDb) -> Agent:
    """The agent; the line with ``db=`` is all that knows of clouds."""
    return Agent(
        id="shop",
        model=ScriptedModel(script=talk),
        db=db,
        tools=[add_to_cart],
        session_state={"cart": []},
        add_history_to_context=True,
        num_history_runs=3,
        memory_manager=MemoryManager(model=ScriptedModel(script=remember), db=db),
        update_memory_on_run=True,
    )


async def main(url: str) -> None:
    """Run the example on the given store."""
    db = AsyncCloudDb(url, provision=True)
    agent = build(db)
    await db.delete_session("example-1", user_id="ann")  # what is left of the last time
    for message in ("I like tea", "Buy tea", "Buy a cup"):
        answer = await agent.arun(message, session_id="example-1", user_id="ann")
        print(f"{message}: {answer.content}")

    # Another process, or the same one after a restart, goes on where this one was.
    again = build(AsyncCloudDb(database=await db.database()))
    print("streamed: ", end="")
    async for event in again.arun("And now?", session_id="example-1", user_id="ann", stream=True):
        print(getattr(event, "content", None) or "", end="")
    print()
    print(f"the cart: {(await again.aget_session_state(session_id='example-1'))['cart']}")
    memories = await again.aget_user_memories(user_id="ann") or []
    print(f"remembered: {sorted({each.memory for each in memories})}")
    print(f"seen by another user: {await db.get_session('example-1', user_id='bob')}")
    await db.close()


if __name__ == "__main__":
    default = os.environ.get("AGNO_CLOUDDB_URL", "sqlite:///example.sqlite")
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else default))
