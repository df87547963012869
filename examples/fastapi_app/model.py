"""The model of the chat service: what it needs of one, and one that answers by a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

__all__ = ["Model", "ScriptedModel"]


class Model(Protocol):
    """What answers."""

    def answer(self, message: str, *, history: Sequence[str], memories: Sequence[str]) -> AsyncGenerator[str, None]:
        """The pieces of an answer, as they come.

        Args:
            message: what the user says.
            history: what the user has said before, oldest first.
            memories: what is remembered of the user.
        """


class ScriptedModel:
    """Answers by repeating what it was given, a word at a time.

    Args:
        pause: seconds before each word.
    """

    def __init__(self, pause: float = 0.05) -> None:
        self._pause = pause

    async def answer(
        self, message: str, *, history: Sequence[str], memories: Sequence[str]
    ) -> AsyncGenerator[str, None]:
        """See ``Model.answer``."""
        known = "; ".join(memories) or "nothing"
        before = f"before that: {history[-1]}" if history else "this is the first thing"
        for word in f"You say: {message} ({before}). I remember: {known}.".split():
            await asyncio.sleep(self._pause)
            yield f"{word} "
