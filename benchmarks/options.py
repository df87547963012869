"""What a run of the benchmarks is asked to do."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from agno_clouddb.cli.conversations import Conversation, load

__all__ = ["SHIPPED", "Options"]

SHIPPED = Path(__file__).parents[1] / "examples" / "data" / "airline-conversations.jsonl"
"""The recorded conversations that the project ships."""

_BEGAN = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure.

    Args:
        full: the whole of every grid, which takes over an hour; else what takes about fifteen minutes.
        conversations: recorded conversations, a file of JSON lines.
        cells: of the throughput's grid, only these: sessions and milliseconds.
    """

    full: bool = False
    conversations: Path = SHIPPED
    cells: tuple[tuple[int, int], ...] = ()

    def recorded(self) -> list[Conversation]:
        """The conversations, as they are in the file."""
        return load(self.conversations)

    def say(self, what: str) -> None:
        """Tell how far it is, on standard error."""
        sys.stderr.write(f"{time.perf_counter() - _BEGAN:6.0f} s  {what}\n")
        sys.stderr.flush()
