"""Databases over every store, alone and in a fan-out.

A module that needs some collections only names them in ``COLLECTIONS``: making tables takes most of a test's
time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agno_clouddb import Database, connect

_SINGLE = ("memory", "sqlite", "moto", "dynamodb_local", "firestore")


@pytest.fixture
def urls(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> tuple[str, ...]:
    """The URLs that a Database is opened over, from the parameter of the test: engine names joined by ``+``."""
    found = []
    for position, name in enumerate(request.param.split("+")):
        if name == "memory":
            found.append(f"memory://{position}")
        elif name == "sqlite":
            found.append(f"sqlite:///{tmp_path / f'{position}.sqlite'}?prefix={prefix}")
        else:
            found.append(f"{request.getfixturevalue(f'{name}_url')}&prefix={prefix}&deadline=60")
    return tuple(found)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "urls" in metafunc.fixturenames:
        combinations = (*_SINGLE, "memory+memory", "dynamodb_local+firestore")
        metafunc.parametrize(
            "urls",
            [
                pytest.param(each, id=each, marks=[getattr(pytest.mark, name) for name in set(each.split("+"))])
                for each in combinations
            ],
            indirect=True,
        )


@pytest.fixture
def collections(request: pytest.FixtureRequest) -> tuple[str, ...] | None:
    """The collections that the module of the test needs; None: all."""
    return getattr(request.module, "COLLECTIONS", None)


@pytest.fixture
async def db(urls: tuple[str, ...], collections: tuple[str, ...] | None) -> AsyncIterator[Database]:
    """A Database over each store in turn, and over fan-outs, with the collections of the module provisioned."""
    async with connect(*urls) as database:
        await database.provision(collections)
        yield database
