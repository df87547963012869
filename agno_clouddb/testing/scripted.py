"""ScriptedModel: a model for agno's agents that answers by a script: no key, no network, the same answer each time.

    agent = Agent(model=ScriptedModel(), db=AsyncCloudDb("memory://"), add_history_to_context=True)
    answer = await agent.arun("Hello", session_id="s1")

It needs the extra ``agno``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agno.metrics import MessageMetrics
from agno.models.base import Model
from agno.models.message import Message
from agno.models.response import ModelResponse

__all__ = ["Script", "ScriptedModel", "ToolUse", "echo", "said"]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call of a tool, as the answer of a model.

    Args:
        name: of the tool.
        arguments: what it is called with.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


Script = Callable[[Sequence[Message]], "str | Sequence[ToolUse]"]
"""What a model answers to the messages so far: a text, or calls of tools."""


def said(messages: Sequence[Message]) -> list[str]:
    """What the user has said, oldest first: the history that the model was given, and now."""
    return [message.get_content_string() for message in messages if message.role == "user"]


def echo(messages: Sequence[Message]) -> str:
    """Repeats what the user says, and counts what was said before."""
    *before, now = said(messages) or [""]
    return f"You say: {now} ({len(before)} before)"


@dataclass
class ScriptedModel(Model):
    """Answers by a script; in a stream word by word. It is asynchronous only: a synchronous call of it raises.

    Args:
        script: makes each answer of the messages so far, those of tools too.
    """

    id: str = "scripted"
    name: str | None = "Scripted"
    provider: str | None = "Scripted"
    script: Script = echo

    async def ainvoke(self, messages: Sequence[Message], **_: Any) -> ModelResponse:
        """One answer."""
        answer = self.script(messages)
        usage = _usage(messages, answer)
        if isinstance(answer, str):
            return ModelResponse(role="assistant", content=answer, response_usage=usage)
        return ModelResponse(role="assistant", tool_calls=_calls(answer, messages), response_usage=usage)

    async def ainvoke_stream(self, messages: Sequence[Message], **_: Any) -> AsyncIterator[ModelResponse]:
        """One answer, in pieces."""
        whole = await self.ainvoke(messages)
        if isinstance(whole.content, str):
            for piece in whole.content.splitlines(keepends=True) if "\n" in whole.content else _words(whole.content):
                yield ModelResponse(role="assistant", content=piece)
        yield ModelResponse(role="assistant", tool_calls=whole.tool_calls, response_usage=whole.response_usage)

    def invoke(self, *_: Any, **__: Any) -> NoReturn:
        """Not there: it would block the event loop."""
        raise NotImplementedError("a ScriptedModel is asynchronous: use arun")

    def invoke_stream(self, *_: Any, **__: Any) -> Iterator[ModelResponse]:
        """Not there: it would block the event loop."""
        raise NotImplementedError("a ScriptedModel is asynchronous: use arun")

    def _parse_provider_response(self, response: ModelResponse, **_: Any) -> ModelResponse:
        return response

    def _parse_provider_response_delta(self, response: ModelResponse) -> ModelResponse:
        return response


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


def _calls(uses: Sequence[ToolUse], messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call-{len(messages)}-{number}",
            "type": "function",
            "function": {"name": use.name, "arguments": json.dumps(use.arguments)},
        }
        for number, use in enumerate(uses)
    ]


def _usage(messages: Sequence[Message], answer: str | Sequence[ToolUse]) -> MessageMetrics:
    """A word is a token."""
    given = sum(len(message.get_content_string().split()) for message in messages)
    made = len(answer.split()) if isinstance(answer, str) else len(answer)
    return MessageMetrics(input_tokens=given, output_tokens=made, total_tokens=given + made)
