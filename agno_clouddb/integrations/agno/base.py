"""What all families of calls of the agno database share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Self

from agno.db.base import AsyncBaseDb
from agno.utils.string import generate_id

from agno_clouddb.database import Database, connect
from agno_clouddb.errors import ConfigurationError
from agno_clouddb.integrations.agno.loops import Loops
from agno_clouddb.integrations.agno.names import TABLES, prefix_of
from agno_clouddb.integrations.agno.pages import Bookmarks
from agno_clouddb.integrations.agno.unapproved import Unapproved
from agno_clouddb.repositories.entries import Entries
from agno_clouddb.stores.base import Store
from agno_clouddb.stores.cache import ReadCache
from agno_clouddb.stores.memory import MemoryStore

__all__ = ["Family"]


class Family(AsyncBaseDb):
    """The base of the families of calls: where the Database of the running event loop comes from.

    Args:
        *stores: URLs, as ``connect`` takes them; or Stores, which serve one event loop at a time; or functions that
            make a Store for each event loop.
        database: a Database that you open and close yourself, instead of stores.
        provision: create missing tables, collections and indexes before the first use.
        history_runs: how many of a session's runs are read for a turn, at least; None: all. See AsyncCloudDb.
        id: what agno knows this database by; by default the same for the same URLs.
        **options: of ``connect``, such as ``prefix``, ``reads``, ``acks`` or ``ttl``; and the names that agno's own
            databases take, such as ``session_table``: what agno is told that the tables are called, and from which the
            prefix is taken where none is given.

    Raises:
        ConfigurationError: neither stores nor a Database are given, or both; an option is wrong, also as ``connect``
            says.
    """

    def __init__(
        self,
        *stores: str | Store | Callable[[], Store],
        database: Database | None = None,
        provision: bool = False,
        history_runs: int | None = None,
        id: str | None = None,
        **options: Any,
    ) -> None:
        if (database is None) is (not stores):
            raise ConfigurationError("give either URLs of stores, or `database`")
        if database is not None and options:
            raise ConfigurationError(f"{', '.join(sorted(options))} cannot be given with `database`, which has its own")
        if history_runs is not None and (type(history_runs) is not int or history_runs < 1):
            raise ConfigurationError(f"history_runs is {history_runs!r}, not a number from 1 on, or None")
        self._history_runs = history_runs
        self._urls = [each for each in stores if isinstance(each, str)]
        self._from_urls = len(self._urls) == len(stores) > 0
        names = {name: given for name in TABLES if (given := options.pop(name, None)) is not None}
        self._options = options if "prefix" in options else {"prefix": prefix_of(names), **options}
        named = " ".join(self._urls) if self._urls and "memory://" not in self._urls else ""
        named_by = f"{named} {self._options['prefix']}"
        super().__init__(id=id or (generate_id(named_by) if named else None), **names)
        self._given = database
        # What is kept in memory is the same for all event loops, whatever becomes of the connections.
        kept = [_Lasting(each) if isinstance(each, str) and each.startswith("memory://") else each for each in stores]
        self._loops = Loops(
            lambda: connect(*(each() if callable(each) else each for each in kept), **self._options),
            provision=provision,
        )
        self._provision = provision
        self._bookmarks = Bookmarks()
        self._unapproved = Unapproved()
        if database is None:
            self._loops.check()

    async def database(self) -> Database:
        """The Database behind this one in the running event loop, open: for what agno has no call for.

        Raises:
            ConfigurationError: region, project or credentials are missing or malformed.
            StoreUnavailable: a store cannot be opened.
        """
        if self._given is not None:
            await self._given.open()
            return self._given
        return await self._loops.database()

    async def close(self) -> None:
        """Give back the connections of the running event loop. A later call opens them again.

        What is open in another loop is closed when that loop ends, as by ``asyncio.run``. A Database that was given is
        left open to whoever has opened it.
        """
        await self._loops.aclose()

    def to_dict(self) -> dict[str, Any]:
        """What this database is made from, as JSON, without credentials.

        Of one that is not made from URLs alone it has what agno's own DynamoDb and FirestoreDb tell of themselves: the
        id, by which agno finds it again in a registry, and the names of agno's tables.
        """
        known = super().to_dict()
        if not self._from_urls:
            return known
        options = {name: _in_seconds(value) for name, value in self._options.items() if value is not None}
        if "ttl" in options:
            options["ttl"] = {name: _days(kept) for name, kept in options["ttl"].items()}
        if "cache" in options:
            options["cache"] = asdict(options["cache"])
        own = {"type": "async_cloud", "urls": self._urls, "provision": self._provision, "options": options}
        return {**known, **own, "history_runs": self._history_runs}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The database that ``to_dict`` tells of.

        Raises:
            ConfigurationError: it was not made from URLs alone.
        """
        if "urls" not in data:
            raise ConfigurationError("only a database that is made from URLs can be made again from a dict")
        options = dict(data.get("options", {}))
        if "cache" in options:
            options["cache"] = ReadCache(**options["cache"])
        own = {name: data.get(name) for name in ("history_runs", "id", *TABLES)}
        return cls(*data["urls"], provision=data.get("provision", False), **own, **options)

    async def _entries(self) -> Entries:
        return (await self.database()).entries


def _in_seconds(option: Any) -> Any:
    """An option of ``connect`` with its time, if it is one, as JSON has it."""
    return option.total_seconds() if isinstance(option, timedelta) else option


def _days(kept: float | timedelta) -> float:
    return kept / timedelta(days=1) if isinstance(kept, timedelta) else kept


class _Lasting(MemoryStore):
    """A store in memory that goes on when one of the event loops that use it has ended."""

    async def aclose(self) -> None:
        """Stay open."""
