"""The demo: recorded conversations, replayed onto both clouds at once and read back from each of them."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import Console

from agno_clouddb.cli import report
from agno_clouddb.cli.backends import Backend
from agno_clouddb.cli.conversations import Conversation, Copy, compare, replay_all, user_of
from agno_clouddb.database import Database, connect
from agno_clouddb.fanout.names import distinct_names
from agno_clouddb.records.sessions import Session
from agno_clouddb.stores.base import Store
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.stores.usage import Usage

__all__ = ["Demo", "recorded_conversations"]

_DEADLINE = 60.0  # seconds; an emulator that has just started is slow on a busy machine
_PAGE = 2
_LISTED = 10
_SHOWN_DIFFERENCES = 10
_FILE = "airline-conversations.jsonl"


@runtime_checkable
class Metered(Protocol):
    """A store that counts what it asks of its service."""

    usage: Usage


def recorded_conversations() -> Path:
    """The file of conversations that comes with the library: in the installed package, or in the checkout."""
    here = Path(__file__).parent
    packaged = here / "data" / _FILE
    return packaged if packaged.is_file() else here.parents[1] / "examples" / "data" / _FILE


class Demo:
    """One run of the demo.

    Args:
        backends: where everything is written; several make a fan-out, the first is the primary.
        conversations: what is written.
        at_once: how many conversations are replayed at a time.
        console: where the output goes.

    Raises:
        ConfigurationError: a URL is wrong.
    """

    def __init__(
        self, backends: Sequence[Backend], conversations: Sequence[Conversation], at_once: int, console: Console
    ) -> None:
        self.prefix = f"demo_{secrets.token_hex(4)}_"
        self._labels = distinct_names([each.label for each in backends])
        options = StoreOptions(self.prefix, _DEADLINE)
        self._stores: list[Store] = [store_from_url(each.url, options) for each in backends]
        self._conversations = conversations
        self._at_once = at_once
        self._console = console

    async def run(self) -> bool:
        """Replay, read back, and print what came of it.

        Returns:
            Whether everything was read back as it was recorded, from all stores together and from each alone.

        Raises:
            CloudDBError: a store failed.
        """
        recorded = Copy.of(self._conversations)
        found: dict[str, Copy] = {}
        async with connect(*self._stores) as db:
            with self._console.status("creating tables and collections …"):
                await db.provision()
            self._console.print(
                f"replaying {recorded.sessions} conversations in {recorded.runs} turns, "
                f"at most {self._at_once} at once, onto {' and '.join(self._labels)}",
                soft_wrap=True,
            )
            before = [_usage(store) for store in self._stores]
            await self._replay(db, recorded.runs)
            after = [_usage(store) for store in self._stores]
            await self._list_newest(db)
            if len(self._stores) > 1:
                found["all, merged"] = await self._compare(db, "all stores, merged")
        for label, store in zip(self._labels, self._stores, strict=True):
            async with Database(store) as alone:
                found[f"{label} alone"] = await self._compare(alone, f"{label} alone")
        self._print_copies(recorded, found)
        spent = {
            label: late.since(early) if late is not None and early is not None else None
            for label, early, late in zip(self._labels, before, after, strict=True)
        }
        self._console.print(report.usage_table(spent, recorded.runs), "")
        return not any(copy.differences for copy in found.values())

    async def _replay(self, db: Database, turns: int) -> None:
        with report.progress(self._console) as progress:
            task = progress.add_task("replaying", total=turns)
            await replay_all(db, self._conversations, at_once=self._at_once, on_turn=lambda: progress.advance(task))
        self._console.print()

    async def _list_newest(self, db: Database) -> None:
        """List the newest sessions of the user who has most of them, following the cursor."""
        ((user_id, total),) = Counter(user_of(each) for each in self._conversations).most_common(1)
        pages: list[list[Session]] = []
        cursor: str | None = None
        while sum(len(page) for page in pages) < _LISTED:
            page = await db.sessions.list(user_id=user_id, limit=_PAGE, sort="-created_at", cursor=cursor)
            pages.append(page.items)
            cursor = page.cursor
            if cursor is None:
                break
        self._console.print(report.sessions_table(user_id, pages, total), "")

    async def _compare(self, db: Database, where: str) -> Copy:
        with self._console.status(f"reading back from {where} …"):
            return await compare(db, self._conversations, at_once=self._at_once)

    def _print_copies(self, recorded: Copy, found: dict[str, Copy]) -> None:
        self._console.print(report.copies_table(recorded, found))
        for label, copy in found.items():
            for difference in copy.differences[:_SHOWN_DIFFERENCES]:
                self._console.print(f"{label}: {difference}", style="red", soft_wrap=True)
        self._console.print()


def _usage(store: Store) -> Usage | None:
    return store.usage.copy() if isinstance(store, Metered) else None
