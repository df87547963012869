"""Every store of the library against the conformance suite, the clouds' stores on the engines for development."""

from __future__ import annotations

import secrets
from typing import ClassVar

import pytest

from agno_clouddb.stores.base import Store
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.testing import StoreConformance

# The engines share a machine with all else that runs there.
OPTIONS = StoreOptions(deadline=30.0)


@pytest.mark.memory
class TestMemoryStore(StoreConformance):
    async def make_store(self) -> Store:
        return MemoryStore()


class URLConformance(StoreConformance):
    """Makes stores by URL, each with a prefix of its own."""

    url: ClassVar[str]
    made: ClassVar[dict[Store, str]] = {}

    async def make_store(self) -> Store:
        return self.connect(f"{self.url}prefix=t{secrets.token_hex(4)}_")

    async def reopen(self, store: Store) -> Store:
        return self.connect(self.made[store])

    def connect(self, url: str) -> Store:
        store = store_from_url(url, OPTIONS)
        self.made[store] = url
        return store


@pytest.fixture(scope="class")
def file_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Gives a class a file for its stores."""
    request.cls.url = f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'store.sqlite'}?"


@pytest.fixture(scope="class")
def engine_url(request: pytest.FixtureRequest) -> None:
    """Gives a class the URL of its engine."""
    request.cls.url = request.getfixturevalue(request.cls.engine) + "&"


@pytest.mark.sqlite
@pytest.mark.usefixtures("file_url")
class TestSQLiteStore(URLConformance):
    pass


@pytest.mark.usefixtures("engine_url")
class EngineConformance(URLConformance):
    """The same on an engine, where every call is a request."""

    engine: ClassVar[str]
    examples = 10
    steps = 25


@pytest.mark.moto
class TestDynamoDBStoreOnMoto(EngineConformance):
    engine = "moto_url"


@pytest.mark.dynamodb_local
class TestDynamoDBStoreOnDynamoDBLocal(EngineConformance):
    engine = "dynamodb_local_url"


@pytest.mark.firestore
class TestFirestoreStore(EngineConformance):
    engine = "firestore_url"
    needs_provision = False
