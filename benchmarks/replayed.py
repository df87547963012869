"""Agents that replay recorded conversations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from agno.agent import Agent
from agno.db.base import AsyncBaseDb, BaseDb
from agno.models.message import Message
from agno.tools.function import Function

from agno_clouddb.cli.conversations import Conversation
from agno_clouddb.testing.scripted import ScriptedModel, ToolUse, said

__all__ = ["HISTORY", "Replayed"]

HISTORY = 3
"""How many runs an agent is given as its history."""


class Replayed:
    """A recorded conversation with an agent that says, calls and is answered by its tools what was recorded.

    Args:
        conversation: what was recorded.
        turns: only so many of its turns.
    """

    def __init__(self, conversation: Conversation, turns: int | None = None) -> None:
        self.turns = conversation.turns[:turns]
        spoken = [each for turn in self.turns for each in turn if each["role"] == "assistant"]
        self._results = [each for turn in self.turns for each in turn if each["role"] == "tool"]
        self._used = sorted({call["function"]["name"] for each in spoken for call in each.get("tool_calls") or ()})
        self._system = next((each["content"] for each in conversation.messages if each["role"] == "system"), None)

    @property
    def said(self) -> list[str]:
        """What the user says, turn by turn."""
        return [next(each["content"] for each in turn if each["role"] == "user") for turn in self.turns]

    @property
    def answers(self) -> list[str]:
        """What the agent answers in the end, turn by turn."""
        answers = []
        for turn in self.turns:
            texts = [each["content"] for each in turn if each["role"] == "assistant" and not each.get("tool_calls")]
            answers.append(texts[-1] if texts else _SILENT)
        return answers

    def agent(self, db: AsyncBaseDb | BaseDb) -> Agent:
        """An agent with three runs of history. It must be asked what was said in order, once."""
        results = iter(self._results)

        async def result(**_: Any) -> str:
            return str(next(results)["content"])

        tools = [
            Function(
                name=name,
                description=name,
                parameters={"type": "object", "properties": {}},
                entrypoint=result,
                skip_entrypoint_processing=True,
            )
            for name in self._used
        ]
        return Agent(
            id="airline-agent",
            db=db,
            model=ScriptedModel(script=self._answer),
            tools=tools,
            system_message=self._system,
            add_history_to_context=True,
            num_history_runs=HISTORY,
            telemetry=False,
        )

    def _answer(self, messages: Sequence[Message]) -> str | Sequence[ToolUse]:
        since = list(takewhile(lambda each: each.role != "user", reversed(messages)))
        turn = self._turn(messages)
        steps = [each for each in turn if each["role"] == "assistant"]
        number = sum(each.role == "assistant" for each in since)
        if number >= len(steps):
            return _SILENT
        calls = steps[number].get("tool_calls")
        if not calls:
            return str(steps[number]["content"])
        return [ToolUse(call["function"]["name"], json.loads(call["function"]["arguments"] or "{}")) for call in calls]

    def _turn(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        now = said(messages)[-1]
        return next(turn for turn, words in zip(self.turns, self.said, strict=True) if words == now)


_SILENT = "(nothing)"
