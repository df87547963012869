"""What the models of agents, memory managers and summaries answer in tests."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agno.models.message import Message

from agno_clouddb.testing.scripted import ScriptedModel, ToolUse, said

__all__ = ["answering", "remembering", "summing_up", "using"]


def using(*uses: ToolUse) -> ScriptedModel:
    """A model that first calls tools, and then says what came of it."""

    def script(messages: Sequence[Message]) -> str | Sequence[ToolUse]:
        if messages[-1].role == "tool":
            return f"So: {messages[-1].get_content_string()}"
        return uses

    return ScriptedModel(script=script)


def answering(text: str) -> ScriptedModel:
    """A model that always says the same."""
    return ScriptedModel(script=lambda messages: text)


def remembering() -> ScriptedModel:
    """A memory manager's model, which makes a memory of what the user says."""

    def script(messages: Sequence[Message]) -> str | Sequence[ToolUse]:
        if messages[-1].role == "tool":
            return "Remembered."
        return [ToolUse("add_memory", {"memory": f"Has said: {said(messages)[-1]}", "topics": ["talk"]})]

    return ScriptedModel(script=script)


def summing_up() -> ScriptedModel:
    """A summary manager's model: how much the user has said."""

    def script(messages: Sequence[Message]) -> str:
        count = messages[0].get_content_string().count("User: ")
        return json.dumps({"summary": f"The user has spoken {count} times.", "topics": ["talk"]})

    return ScriptedModel(script=script)
