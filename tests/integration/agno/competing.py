"""Workers that compete: several Databases over the same stores, as in several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from agno_clouddb import CloudDBError, Database, connect
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.stores.base import Mutation, Outcome, Store
from agno_clouddb.stores.memory import MemoryStore

__all__ = ["WORKERS", "Interrupted", "all_at_once", "alone", "databases"]

T = TypeVar("T")
F = TypeVar("F", bound=Family)

WORKERS = 16
_DATABASES = 4
# Without moto, which undoes a refused transaction by putting back the whole table as it was before, so that what others
# have written meanwhile is gone.
_STORES = ("memory", "sqlite", "dynamodb_local", "firestore", "memory+sqlite", "dynamodb_local+firestore")


@pytest.fixture(
    params=[pytest.param(each, marks=[getattr(pytest.mark, name) for name in each.split("+")]) for each in _STORES]
)
async def databases(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> AsyncIterator[list[Database]]:
    """Four Databases over one store, or over the same fan-out, with the collection of entries provisioned."""
    shared: dict[str, str | Store] = {"memory": MemoryStore(), "sqlite": f"sqlite:///{tmp_path}/x.sqlite"}
    stores: list[str | Store] = []
    for name in request.param.split("+"):
        if name in shared:
            stores.append(shared[name])
        else:
            stores.append(f"{request.getfixturevalue(f'{name}_url')}&prefix={prefix}&deadline=60")
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(connect(*stores)) for _ in range(_DATABASES)]
        await made[0].provision(["entries"])
        yield made


class Interrupted(MemoryStore):
    """A store on which something else happens right before the next transaction."""

    before: Callable[[], Awaitable[object]] | None = None

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        if atomic and self.before is not None:
            happens, self.before = self.before, None
            await happens()
        return await super().write(mutations, atomic=atomic)


def alone(calls: Callable[..., F], database: Database) -> F:
    """One family of calls by itself, of which the class is abstract."""
    made: Any = type("Alone", (cast(Any, calls),), {})
    made.__abstractmethods__ = frozenset()
    family: F = made(database=database)
    return family


async def all_at_once(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T | CloudDBError]:
    """What each of some calls answers, or the error of this library that it raises."""

    async def answer(call: Callable[[], Awaitable[T]]) -> T | CloudDBError:
        try:
            return await call()
        except CloudDBError as error:
            return error

    return await asyncio.gather(*map(answer, calls))
