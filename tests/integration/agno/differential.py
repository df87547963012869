"""The same calls made of agno's AsyncSqliteDb and of AsyncCloudDb: each must give what the other gives."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from agno.db.base import AsyncBaseDb
from hypothesis import strategies as st

from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.pages import Bookmarks

__all__ = ["STRANGE", "Call", "Difference", "compare", "normalised", "strayed"]

STRANGE = ("", "a\nb", "x" * 600)
"""What no record can have as an id, and agno's SQLite may be asked for."""

_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SLACK = 1_000  # seconds from now within which a moment counts as now
_STRAYS = ("get_", "list_", "delete_", "rename_session", "cancel_pending_run")
_READS = ("get_", "list_", "search_", "table_exists")


@dataclass(frozen=True)
class Call:
    """One call of an agno database.

    Args:
        method: its name.
        arguments: by name; a function without arguments makes the value anew for each database.
        ordered: whether a list that it answers, alone or with a total, has an order.
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ordered: bool = True

    @property
    def writes(self) -> bool:
        """Whether it may change what is stored."""
        return not self.method.startswith(_READS)

    def __str__(self) -> str:
        return f"{self.method}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


@st.composite
def strayed(draw: st.DrawFn, calls: st.SearchStrategy[Call]) -> Call:
    """Calls, of which one in eight that read or delete by ids has one that no record can have."""
    call = draw(calls)
    ids = [name for name in call.arguments if name.endswith(("id", "ids")) or name == "linked_to"]
    # Spans of whatever trace have no order.
    if not call.method.startswith(_STRAYS) or call.method == "get_spans" or not ids or draw(st.integers(0, 7)):
        return call
    name, strange = draw(st.sampled_from(ids)), draw(st.sampled_from(STRANGE))
    given = call.arguments[name]
    return replace(call, arguments={**call.arguments, name: [*given, strange] if isinstance(given, list) else strange})


class Difference(AssertionError):
    """Two databases have answered differently."""


async def compare(calls: Sequence[Call], theirs: AsyncBaseDb, ours: AsyncCloudDb) -> None:
    """Make all calls of both, one after the other.

    A page of ours goes on where the page before it ended, and agno's are counted anew: what is written in between makes
    a difference, so ours forgets then where pages ended.

    Raises:
        Difference: one was answered differently; tells the calls up to it, and both answers.
    """
    for number, call in enumerate(calls):
        if call.writes:
            ours._bookmarks = Bookmarks()
        expected, found = await _answer(call, theirs), await _answer(call, ours)
        if expected != found:
            before = "\n  ".join(map(str, calls[: number + 1]))
            raise Difference(f"after\n  {before}\nagno answers\n  {expected!r}\nand this library\n  {found!r}")


async def _answer(call: Call, db: AsyncBaseDb) -> Any:
    arguments = {name: value() if callable(value) else value for name, value in call.arguments.items()}
    try:
        answer = normalised(await getattr(db, call.method)(**arguments))
        return answer if call.ordered else _unordered(answer)
    except Exception as error:  # what both raise must be alike, whatever it is
        return f"raises {_kind(error)}"


def _unordered(answer: Any) -> Any:
    if isinstance(answer, tuple):
        return tuple(map(_unordered, answer))
    return sorted(answer, key=repr) if isinstance(answer, list) else answer


def _kind(error: Exception) -> str:
    """What an error comes to: the databases have classes of their own for the same."""
    return "ValueError" if isinstance(error, ValueError) else "an error"


def normalised(value: Any) -> Any:
    """An answer without what differs by nature: moments that are about now, made up ids, the kinds of sequences."""
    if isinstance(value, bool | None):
        return value
    if isinstance(value, str):
        if _UUID.fullmatch(value):
            return "id"  # made up
        # agno writes moments as ISO text too, in the time of the place.
        return normalised(datetime.fromisoformat(value).timestamp()) if _ISO.fullmatch(value) else value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, int | float):
        now = time.time()
        return "now" if abs(value - now) < _SLACK or abs(value / 1_000 - now) < _SLACK else value
    if isinstance(value, Mapping):
        return {key: normalised(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(normalised(each) for each in value)
    if isinstance(value, Iterable):
        return [normalised(each) for each in value]
    if hasattr(value, "to_dict"):
        return type(value).__name__, normalised(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, normalised(dataclasses.asdict(value))
    return repr(value)
