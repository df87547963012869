"""What a turn of an agent, a list and a deletion cost, counted by the engines and the clients; nothing is timed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from agno.db.base import AsyncBaseDb, BaseDb, SessionType
from agno.db.schemas.evals import EvalRunRecord, EvalType
from agno.db.schemas.memory import UserMemory
from agno.models.message import Message
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.session import AgentSession

from agno_clouddb import Database
from agno_clouddb.cli.conversations import Conversation, replay, user_of
from agno_clouddb.concurrency import gather
from benchmarks.counting import CLOUDS, Cost, Meter
from benchmarks.options import Options
from benchmarks.replayed import Replayed
from benchmarks.subjects import Agno, Engines, Ours, agno, engines, ours

__all__ = ["rows_of", "run", "turns_of_agent", "turns_of_sessions"]

LISTED = 20
SIZES = (20, 200, 2_000)
_CREATED = 1_700_000_000
_AT_ONCE = 16

Call = Callable[[], Awaitable[object]]
Turns = Sequence[Sequence[Mapping[str, Cost]]]
"""What each turn of each conversation has cost, by cloud."""


def run(options: Options) -> dict[str, Any]:
    """Measure it all.

    Returns:
        ``turns``: what a turn costs on average, one entry for each adapter, way and cloud; ``lists``: what each list
        and deletion costs at each size.
    """
    with engines() as relays:
        return asyncio.run(_measure(options, relays))


async def _measure(options: Options, relays: Engines) -> dict[str, Any]:
    recorded = options.recorded()
    turns: list[dict[str, Any]] = []
    lists: list[dict[str, Any]] = []
    for cloud in CLOUDS:
        options.say(f"cost: turns and lists on {cloud}")
        with agno(cloud, relays[cloud].url, relay=relays[cloud]) as rival:
            found = await turns_of_agent(rival.db, rival.meter, recorded)
            turns += rows_of(rival.name, "agent", found)
            lists += await _lists(cloud, rival, options)
        async with ours({cloud: relays[cloud].url}, relays=relays) as own:
            turns += await _own_turns("agno_clouddb", own, recorded)
            lists += await _lists(cloud, own, options)
        if cloud == "dynamodb":
            async with ours({cloud: relays[cloud].url}, relays=relays, consistency="eventual") as own:
                turns += await _own_turns("agno_clouddb, eventual", own, recorded)
    options.say("cost: turns on both clouds at once")
    async with ours({cloud: relay.url for cloud, relay in relays.items()}, relays=relays) as own:
        turns += await _own_turns("agno_clouddb, both", own, recorded)
    return {"conversations": len(recorded), "turns": turns, "lists": lists}


async def _own_turns(name: str, own: Ours, recorded: Sequence[Conversation]) -> list[dict[str, Any]]:
    of_agent = rows_of(name, "agent", await turns_of_agent(own.agno, own.meter, recorded))
    renamed = [each.model_copy(update={"conversation_id": f"{each.conversation_id}~"}) for each in recorded]
    return of_agent + rows_of(name, "sessions", await turns_of_sessions(own.database, own.meter, renamed))


async def turns_of_agent(db: AsyncBaseDb | BaseDb, meter: Meter, conversations: Sequence[Conversation]) -> Turns:
    """Let an agent of agno replay conversations, each in a session of its own."""
    found: list[list[Mapping[str, Cost]]] = []
    for conversation in conversations:
        costs: list[Mapping[str, Cost]] = []
        found.append(costs)
        replayed = Replayed(conversation)
        agent = replayed.agent(db)
        for message, answer in zip(replayed.said, replayed.answers, strict=True):
            meter.mark()
            done = await agent.arun(message, session_id=conversation.conversation_id, user_id=user_of(conversation))
            if done.content != answer:
                raise RuntimeError(f"the agent has answered {done.content!r} and not {answer!r}")
            costs.append(meter.cost())
    return found


async def turns_of_sessions(db: Database, meter: Meter, conversations: Sequence[Conversation]) -> Turns:
    """Replay conversations through ``db.sessions``: read with 3 runs, write the header, append the run."""
    found: list[list[Mapping[str, Cost]]] = []

    def turned() -> None:
        found[-1].append(meter.cost())
        meter.mark()

    for conversation in conversations:
        found.append([])
        meter.mark()
        await replay(db, conversation, user_of(conversation), on_turn=turned)
    return found


def rows_of(subject: str, way: str, turns: Turns) -> list[dict[str, Any]]:
    """Means over all turns, and ``later``: over those that are not the first of their conversation."""
    every = [turn for conversation in turns for turn in conversation]
    later = [turn for conversation in turns for turn in conversation[1:]]
    return [
        {
            "subject": subject,
            "way": way,
            "cloud": cloud,
            "turns": len(every),
            **Cost.mean([each[cloud] for each in every]).as_json(),
            "most_requests": max(each[cloud].total for each in every),
            "later": Cost.mean([each[cloud] for each in later]).as_json(),
        }
        for cloud in every[0]
    ]


async def _lists(cloud: str, subject: Agno | Ours, options: Options) -> list[dict[str, Any]]:
    """What lists and deletions cost at each size, through agno's calls and, of the library, through its own."""
    rows: list[dict[str, Any]] = []
    if isinstance(subject, Agno):
        name, db = subject.name, subject.threaded
    else:
        name, db = "agno_clouddb", subject.agno
    loaded = Loaded(db, options.recorded()[0])
    for size in SIZES:
        options.say(f"cost: {name} on {cloud}, lists out of {size:,}")
        ways: dict[str, Mapping[str, Call]] = {"agno": _agno_calls(db, loaded)}
        if isinstance(subject, Ours):
            ways["own"] = _own_calls(subject.database, loaded)
        for way, calls in ways.items():
            with subject.unasked() if isinstance(subject, Agno) else nullcontext():
                await loaded.up_to(size)
            for what, call in calls.items():
                subject.meter.mark()
                await call()
                rows.append(
                    {
                        "subject": name,
                        "way": way,
                        "cloud": cloud,
                        "what": what,
                        "size": size,
                        **subject.meter.cost()[cloud].as_json(),
                    }
                )
    return rows


class Loaded:
    """Sessions with a run each, memories and evaluations, as agno writes them.

    Args:
        db: where to.
        conversation: what the runs hold.
    """

    def __init__(self, db: AsyncBaseDb, conversation: Conversation) -> None:
        self._db = db
        said = [each for each in conversation.turns[1] if isinstance(each.get("content"), str)]
        self._messages = [Message(role=each["role"], content=each["content"]) for each in said]
        self._there: set[int] = set()
        self._deleted = 0

    async def up_to(self, size: int) -> None:
        """Write what is missing of so many of each kind."""
        missing = [number for number in range(size) if number not in self._there]
        await gather([partial(self._write, number) for number in missing], limit=_AT_ONCE)
        self._there.update(missing)

    def some(self) -> list[int]:
        """The numbers of those that are deleted next, which are missing from then on."""
        chosen = sorted(self._there)[:LISTED]
        self._there.difference_update(chosen)
        return chosen

    async def _write(self, number: int) -> None:
        db, session_id = self._db, f"session-{number:05}"
        created = _CREATED + number
        session = AgentSession(session_id=session_id, agent_id="support", user_id="ann", created_at=created)
        session.session_data = {"session_name": f"Talk {number}"}
        await db.upsert_session(session)
        run = RunOutput(
            run_id=f"run-{number:05}",
            session_id=session_id,
            agent_id="support",
            user_id="ann",
            status=RunStatus.completed,
            content=f"answer {number}",
            messages=self._messages,
            created_at=created,
        )
        await db.upsert_run(run, session_id=session_id, user_id="ann", run_index=0)
        await db.upsert_user_memory(
            UserMemory(memory=f"likes {number}", memory_id=f"memory-{number:05}", topics=["food"], user_id="ann")
        )
        await db.create_eval_run(
            EvalRunRecord(
                run_id=f"eval-{number:05}",
                eval_type=EvalType.ACCURACY,
                eval_data={"score": number / 7},
                name=f"evaluation {number}",
                agent_id="support",
                model_id="scripted",
            )
        )


def _agno_calls(db: AsyncBaseDb, loaded: Loaded) -> dict[str, Call]:
    page: dict[str, Any] = {"limit": LISTED, "page": 1, "sort_order": "desc", "deserialize": False}

    async def listed(call: Callable[..., Awaitable[Any]], **filters: Any) -> None:
        rows, _ = await call(**page, **filters)
        if len(rows) != LISTED:
            raise RuntimeError(f"a list of {LISTED} has {len(rows)}")

    async def delete() -> None:
        await db.delete_eval_runs([f"eval-{number:05}" for number in _some])

    _some: list[int] = []

    async def delete_session() -> None:
        _some[:] = loaded.some()
        await db.delete_session(f"session-{_some[0]:05}")

    return {
        "20 newest sessions": partial(listed, db.get_sessions, session_type=SessionType.AGENT, sort_by="created_at"),
        "20 newest memories of a user": partial(listed, db.get_user_memories, user_id="ann", sort_by="updated_at"),
        "20 newest evaluations": partial(listed, db.get_eval_runs, sort_by="created_at"),
        "delete a session with its run": delete_session,
        "delete a memory": lambda: db.delete_user_memory(f"memory-{_some[0]:05}"),
        "delete 20 evaluations": delete,
    }


def _own_calls(db: Database, loaded: Loaded) -> dict[str, Call]:
    async def listed(call: Callable[..., Awaitable[Any]], **filters: Any) -> None:
        page = await call(limit=LISTED, **filters)
        if len(page.items) != LISTED:
            raise RuntimeError(f"a list of {LISTED} has {len(page.items)}")

    some: list[int] = []

    async def delete_session() -> None:
        some[:] = loaded.some()
        await db.sessions.delete(f"session-{some[0]:05}")

    return {
        "20 newest sessions": partial(listed, db.sessions.list, session_type="agent", sort="-created_at"),
        "20 newest memories of a user": partial(listed, db.memories.list, user_id="ann", sort="-updated_at"),
        "20 newest evaluations": partial(listed, db.evals.list, sort="-created_at"),
        "delete a session with its run": delete_session,
        "delete a memory": lambda: db.memories.delete(f"memory-{some[0]:05}"),
        "delete 20 evaluations": lambda: db.evals.delete_many([f"eval-{number:05}" for number in some]),
    }
