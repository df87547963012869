"""Recorded conversations: read with clear errors, cut into turns, replayed and compared exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agno_clouddb import InvalidRecord, Run, connect
from agno_clouddb.cli.conversations import (
    COMPONENT,
    Conversation,
    Copy,
    compare,
    load,
    read_back,
    replay,
    replay_all,
    user_of,
)
from agno_clouddb.cli.demo import recorded_conversations

_RECORDED = {"conversation_id": "c-1", "task_id": 7, "trial": 1, "reward": 1.0, "messages": [{"role": "user"}]}


def conversation(*roles: str, **changes: Any) -> Conversation:
    messages = [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]
    return Conversation.model_validate({**_RECORDED, "messages": messages, **changes})


def write(folder: Path, *lines: object) -> Path:
    path = folder / "recorded.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_a_turn_begins_with_a_user_message_and_the_first_has_what_comes_before() -> None:
    turns = conversation("system", "user", "assistant", "tool", "assistant", "user", "user", "assistant").turns
    assert [[message["role"] for message in turn] for turn in turns] == [
        ["system", "user", "assistant", "tool", "assistant"],
        ["user"],
        ["user", "assistant"],
    ]


def test_a_conversation_without_a_user_message_is_one_turn() -> None:
    assert [len(turn) for turn in conversation("system", "assistant").turns] == [2]


def test_the_turns_of_the_recorded_conversations_put_together_are_their_messages() -> None:
    conversations = load(recorded_conversations())
    assert len(conversations) == 8
    assert len({each.task_id for each in conversations}) > 4
    assert len({each.trial for each in conversations}) > 2
    assert len({user_of(each) for each in conversations}) > 2
    for each in conversations:
        assert [message for turn in each.turns for message in turn] == each.messages


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("\n Hello \nworld", "Hello"),
        ("x" * 200, "x" * 80),
        ("  ", "c-1"),
        ([{"type": "text", "text": "Hello"}], "c-1"),
        (None, "c-1"),
    ],
)
def test_a_session_is_named_by_the_first_line_that_the_user_said(content: object, name: str) -> None:
    assert conversation(messages=[{"role": "user", "content": content}]).name == name


def test_loading_passes_over_empty_lines_and_keeps_unicode_line_separators(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    line = json.dumps({**_RECORDED, "messages": [{"role": "user", "content": text}]}, ensure_ascii=False)
    path = tmp_path / "recorded.jsonl"
    path.write_bytes(b"\n" + line.encode() + b"\r\n\n")
    (found,) = load(path)
    assert found.messages[0]["content"] == text


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        ("{", "", "is no JSON"),
        ('{"conversation_id": "\\ud800"}', "task_id", "required"),
        ("[" * 100_000, "", "nested"),
        ("[]", "", "is no JSON object"),
        ({**_RECORDED, "task_id": "7"}, "task_id", "integer"),
        ({key: value for key, value in _RECORDED.items() if key != "reward"}, "reward", "required"),
        ({**_RECORDED, "reward": float("nan")}, "reward", "finite"),
        ({**_RECORDED, "messages": []}, "messages", "at least 1"),
        ({**_RECORDED, "messages": ["hello"]}, "messages[0]", "dictionary"),
        ({**_RECORDED, "messages": [{"role": "user"}, {"content": "x"}]}, "messages[1].role", "is missing"),
        ({**_RECORDED, "messages": [{"role": 1}]}, "messages[0].role", "no text"),
        ({**_RECORDED, "messages": [{"role": "user", "n": float("inf")}]}, "messages[0].n", "inf"),
        ({**_RECORDED, "messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "surrogate"),
        ({**_RECORDED, "conversation_id": ""}, "conversation_id", "empty"),
        ({**_RECORDED, "conversation_id": "c-0"}, "conversation_id", "is on line 1 too"),
    ],
)
def test_a_malformed_line_is_refused_with_file_line_and_field(
    tmp_path: Path, line: object, field: str, problem: str
) -> None:
    path = write(tmp_path, {**_RECORDED, "conversation_id": "c-0"}, "", line)
    with pytest.raises(InvalidRecord, match=problem) as caught:
        load(path)
    assert caught.value.path == f"{path}, line 3" + (f", {field}" if field else "")


def test_bytes_that_are_no_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_bytes(b'{"conversation_id": "\xff"}')
    with pytest.raises(InvalidRecord, match="line 1: is no JSON in UTF-8"):
        load(path)


def test_a_file_without_conversations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecord, match="holds no conversation"):
        load(write(tmp_path, "", " "))


async def test_a_replayed_conversation_reads_back_message_by_message() -> None:
    recorded = conversation("system", "user", "assistant", "user", "assistant")
    turns: list[None] = []
    async with connect("memory://") as db:
        await db.provision()
        await replay(db, recorded, "ann", on_turn=lambda: turns.append(None))
        session = await db.sessions.get("c-1")
        assert await read_back(db, "c-1") == recorded.messages
        assert await read_back(db, "c-2") == []
    assert len(turns) == 2
    assert session is not None
    assert (session.component_id, session.user_id, session.metadata) == (COMPONENT, "ann", recorded.metadata)
    assert session.session_data == {"session_name": "user 1", "turns": 2}
    assert [(run.run_id, run.status) for run in session.runs] == [("c-1-1", "completed"), ("c-1-2", "completed")]


async def test_replaying_again_changes_nothing() -> None:
    conversations = load(recorded_conversations())
    async with connect("memory://") as db:
        await db.provision()
        for at_once in (1, 32):
            await replay_all(db, conversations, at_once=at_once)
            assert await compare(db, conversations, at_once=at_once) == Copy.of(conversations)


@pytest.mark.parametrize(
    ("stored", "difference"),
    [
        (conversation("user", "assistant", "user"), ""),
        (conversation("user", "assistant", "user", trial=2), "c-1: the header differs"),
        (conversation("user", "assistant"), "c-1: the header differs"),
        (conversation("user", "user", "user"), "c-1: the header differs"),
        (conversation("user", "assistant", "user", conversation_id="c-2"), "c-1: not found"),
        (conversation("user", "tool", "user"), "c-1: messages[1] differs"),
        (conversation("user", "assistant", "tool", "user"), "c-1: 4 messages instead of 3"),
    ],
)
async def test_comparing_names_the_first_difference(stored: Conversation, difference: str) -> None:
    recorded = conversation("user", "assistant", "user")
    recorded.messages[2]["content"] = stored.messages[-1]["content"]
    async with connect("memory://") as db:
        await db.provision()
        await replay(db, stored, user_of(recorded))
        copy = await compare(db, [recorded], at_once=1)
    assert copy.differences == ((difference,) if difference else ())


async def test_comparing_tells_runs_that_are_missing_and_numbers_that_are_only_equal_in_python() -> None:
    messages = [{"role": "user", "content": "x", "n": n} for n in (1, 2)]
    recorded = conversation(messages=messages)
    async with connect("memory://") as db:
        await db.provision()
        await replay(db, recorded, user_of(recorded))
        for n in (1.0, True):
            changed = [{"role": "user", "content": "x", "n": n}]
            await db.sessions.append_run("c-1", Run(run_id="c-1-1", data={"messages": changed}))
            copy = await compare(db, [recorded], at_once=1)
            assert copy.differences == ("c-1: messages[0] differs",)
        await db.sessions.append_run("c-1", Run(run_id="c-1-3", data={"messages": []}))
        copy = await compare(db, [recorded], at_once=1)
    assert copy == Copy(1, 3, 2, ("c-1: 3 runs instead of 2, or in another order",))
