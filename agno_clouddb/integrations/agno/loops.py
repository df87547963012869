"""Loops: one Database for each event loop that uses it, opened at its first use and closed when the loop ends.

The clients of the clouds belong to the event loop that made them, but an agno database is made at import time and then
used from one loop after another: ``asyncio.run`` twice, a loop for each test, a thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, MutableMapping
from weakref import WeakKeyDictionary

from agno_clouddb.database import Database

__all__ = ["Loops"]


class Loops:
    """Databases by event loop.

    Args:
        make: makes a Database, which is not opened yet.
        provision: create what is missing before the first use.
    """

    def __init__(self, make: Callable[[], Database], *, provision: bool) -> None:
        self._make = make
        self._provision = provision
        self._lifetimes: MutableMapping[asyncio.AbstractEventLoop, _Lifetime] = WeakKeyDictionary()

    def check(self) -> None:
        """Raise ConfigurationError for what no Database can be made from."""
        self._make()

    async def database(self) -> Database:
        """The Database of the running event loop, open.

        Raises:
            ConfigurationError, StoreUnavailable, NotProvisioned: as ``Database.open`` and ``Database.provision`` say.
        """
        loop = asyncio.get_running_loop()
        lifetime = self._lifetimes.get(loop)
        if lifetime is None:
            lifetime = self._lifetimes[loop] = _Lifetime(self._make(), provision=self._provision)
        database = await lifetime.database()
        self._provision = False
        return database

    async def aclose(self) -> None:
        """Close the Database of the running event loop; those of other loops end with these."""
        lifetime = self._lifetimes.pop(asyncio.get_running_loop(), None)
        if lifetime is not None:
            await lifetime.end()


class _Lifetime:
    """A Database from its first use to the end of its event loop."""

    def __init__(self, database: Database, *, provision: bool) -> None:
        self._database = database
        self._provision = provision
        self._ready = False
        self._opening = asyncio.Lock()
        self._course: AsyncGenerator[Database, None] | None = None

    async def database(self) -> Database:
        if not self._ready:
            async with self._opening:
                if not self._ready:
                    await self._begin()
        return self._database

    async def end(self) -> None:
        if self._course is not None:
            await self._course.aclose()

    async def _begin(self) -> None:
        if self._course is None:
            # An event loop closes the asynchronous generators that are left when it ends: as asyncio.run does, and
            # whoever calls loop.shutdown_asyncgens().
            course = _open(self._database)
            await anext(course)
            self._course = course
        if self._provision:
            await self._database.provision()
        self._ready = True


async def _open(database: Database) -> AsyncGenerator[Database, None]:
    async with database:
        yield database
