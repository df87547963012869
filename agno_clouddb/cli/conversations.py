"""Recorded conversations: read from a file, replayed as an agent runtime would write them, and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agno_clouddb.concurrency import gather
from agno_clouddb.database import Database
from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.repositories.runs import session_key
from agno_clouddb.stores.codec import check_json

__all__ = [
    "COMPONENT",
    "HISTORY",
    "Conversation",
    "Copy",
    "Message",
    "compare",
    "load",
    "read_back",
    "replay",
    "replay_all",
    "user_of",
]

Message = dict[str, Any]
"""A message in OpenAI's chat format."""

COMPONENT = "airline-agent"
"""The component that all the sessions belong to."""

HISTORY = 3
"""How many runs an agent reads before each turn."""

_USERS = ("ana", "ben", "chloe", "dev", "emma")
_NAME_LENGTH = 80  # characters


class Conversation(BaseModel):
    """One recorded conversation.

    Args:
        conversation_id: unique in its file; the id of the session.
        task_id: the task that the user was given.
        trial: which trial of that task.
        reward: 1.0 where the agent solved the task, else 0.0.
        messages: all messages in order; each has a ``role``.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    conversation_id: str
    task_id: int
    trial: int
    reward: float
    messages: list[Message] = Field(min_length=1)

    @property
    def turns(self) -> list[list[Message]]:
        """The messages by turn: each begins with a user message; what comes before the first belongs to the first."""
        turns: list[list[Message]] = [[]]
        seen_user = False
        for message in self.messages:
            if message["role"] == "user":
                if seen_user:
                    turns.append([])
                seen_user = True
            turns[-1].append(message)
        return turns

    @property
    def name(self) -> str:
        """What the session is called: the first line of what the user said, at most 80 characters."""
        for message in self.messages:
            content = message.get("content")
            if message["role"] == "user" and isinstance(content, str) and content.strip():
                return content.strip().splitlines()[0][:_NAME_LENGTH].strip()
        return self.conversation_id

    @property
    def metadata(self) -> dict[str, Any]:
        """What the session keeps of the recording."""
        return {"task_id": self.task_id, "trial": self.trial, "reward": self.reward}


@dataclass(frozen=True, slots=True)
class Copy:
    """What a database holds of recorded conversations.

    Args:
        sessions: how many of the conversations it has.
        runs: their runs.
        messages: the messages in these.
        differences: where it is not equal to the recording, one line a conversation.
    """

    sessions: int
    runs: int
    messages: int
    differences: tuple[str, ...] = ()

    @classmethod
    def of(cls, conversations: Sequence[Conversation]) -> Copy:
        """What a database should hold."""
        turns = sum(len(each.turns) for each in conversations)
        return cls(len(conversations), turns, sum(len(each.messages) for each in conversations))


def load(path: Path) -> list[Conversation]:
    """The conversations in a file of JSON lines; empty lines are passed over.

    Raises:
        InvalidRecord: a line is no conversation, repeats an id, or has a value that no store can hold; its ``path``
            names file, line and field. Or the file has no conversation at all.
        OSError: the file cannot be read.
    """
    conversations: list[Conversation] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        conversation = _parse(line, where)
        if (earlier := lines.setdefault(conversation.conversation_id, number)) != number:
            _refuse(where, "conversation_id", f"{conversation.conversation_id!r} is on line {earlier} too")
        conversations.append(conversation)
    if not conversations:
        raise InvalidRecord(str(path), "holds no conversation")
    return conversations


def user_of(conversation: Conversation) -> str:
    """The user whom a conversation is given to, by its task."""
    return _USERS[conversation.task_id % len(_USERS)]


async def replay(
    db: Database, conversation: Conversation, user_id: str, *, on_turn: Callable[[], object] = lambda: None
) -> None:
    """Write a conversation turn by turn: read the session with its last runs, write the header, append the run.

    Args:
        db: an open database.
        conversation: what to write; writing it again changes nothing but the time of the last update.
        user_id: the user of the session.
        on_turn: called after each turn.

    Raises:
        CloudDBError: as ``get``, ``upsert`` and ``append_run`` do.
    """
    session_id = conversation.conversation_id
    for number, messages in enumerate(conversation.turns, start=1):
        session = await db.sessions.get(session_id, user_id=user_id, runs=HISTORY)
        if session is None:
            session = Session(session_id=session_id, session_type="agent", component_id=COMPONENT, user_id=user_id)
        session.session_data = {"session_name": conversation.name, "turns": number}
        session.metadata = conversation.metadata
        await db.sessions.upsert(session, user_id=user_id)
        run = Run(run_id=f"{session_id}-{number}", status="completed", data={"messages": messages})
        await db.sessions.append_run(session_id, run, user_id=user_id)
        on_turn()


async def replay_all(
    db: Database,
    conversations: Sequence[Conversation],
    *,
    at_once: int,
    on_turn: Callable[[], object] = lambda: None,
) -> None:
    """Replay conversations, ``at_once`` of them at a time, each for the user that ``user_of`` gives."""
    await gather([partial(replay, db, each, user_of(each), on_turn=on_turn) for each in conversations], limit=at_once)


async def read_back(db: Database, conversation_id: str) -> list[Message]:
    """The messages of all runs of a session, in order; none when there is no such session."""
    session = await db.sessions.get(conversation_id)
    return _messages(session) if session is not None else []


async def compare(db: Database, conversations: Sequence[Conversation], *, at_once: int) -> Copy:
    """Read conversations back, ``at_once`` of them at a time, and say where they differ from the recording."""

    async def read(conversation: Conversation) -> Session | None:
        return await db.sessions.get(conversation.conversation_id, user_id=user_of(conversation))

    sessions = await gather([partial(read, each) for each in conversations], limit=at_once)
    found = [session for session in sessions if session is not None]
    differences = (_difference(each, session) for each, session in zip(conversations, sessions, strict=True))
    return Copy(
        len(found),
        sum(len(session.runs) for session in found),
        sum(len(_messages(session)) for session in found),
        tuple(each for each in differences if each),
    )


def _messages(session: Session) -> list[Message]:
    return [message for run in session.runs for message in (run.data or {}).get("messages", [])]


def _difference(conversation: Conversation, session: Session | None) -> str:
    """The first thing in which a session is not as it was recorded; empty when it is equal."""
    name = conversation.conversation_id
    if session is None:
        return f"{name}: not found"
    turns = conversation.turns
    header = {"session_name": conversation.name, "turns": len(turns)}
    if (session.session_data, session.metadata) != (header, conversation.metadata):
        return f"{name}: the header differs"
    if [run.run_id for run in session.runs] != [f"{name}-{number}" for number in range(1, len(turns) + 1)]:
        return f"{name}: {len(session.runs)} runs instead of {len(turns)}, or in another order"
    messages = _messages(session)
    if len(messages) != len(conversation.messages):
        return f"{name}: {len(messages)} messages instead of {len(conversation.messages)}"
    for position, (recorded, stored) in enumerate(zip(conversation.messages, messages, strict=True)):
        if _exact(recorded) != _exact(stored):
            return f"{name}: messages[{position}] differs"
    return ""


def _exact(message: Message) -> str:
    # Python calls 1, 1.0 and True equal; JSON does not.
    return json.dumps(message, sort_keys=True)


def _parse(line: bytes, where: str) -> Conversation:
    try:
        values = json.loads(line)
    except RecursionError as error:
        raise InvalidRecord(where, "is nested too deeply") from error
    except ValueError as error:  # of the JSON or of its encoding
        raise InvalidRecord(where, f"is no JSON in UTF-8: {error}") from error
    if not isinstance(values, dict):
        raise InvalidRecord(where, "is no JSON object")
    try:
        conversation = Conversation.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        _refuse(where, _field(first["loc"]), first["msg"], cause=error)
    for position, message in enumerate(conversation.messages):
        if not isinstance(message.get("role"), str):
            _refuse(where, f"messages[{position}].role", "is missing or no text")
    try:
        session_key(conversation.conversation_id)
        for position, message in enumerate(conversation.messages):
            check_json(message, f"messages[{position}]")
    except InvalidRecord as error:
        field = "conversation_id" if error.path == "session_id" else error.path
        _refuse(where, field, error.problem, cause=error)
    return conversation


def _field(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in location).lstrip(".")


def _refuse(where: str, field: str, problem: str, cause: Exception | None = None) -> NoReturn:
    raise InvalidRecord(f"{where}, {field}", problem) from cause
