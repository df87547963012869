"""Every store of the library against the conformance suite, the clouds' stores on the engines for development."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from agno_clouddb.stores import cache
from agno_clouddb.stores.base import Batch, Consistency, Cursor, Key, Page, Query, Store
from agno_clouddb.stores.cache import CachingStore, ReadCache
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.stores.wrapper import WrapperStore
from agno_clouddb.testing import StoreConformance
from tests.tables import drop_tables

# The engines share a machine with all else that runs there.
OPTIONS = StoreOptions(deadline=30.0)


@pytest.mark.memory
class TestMemoryStore(StoreConformance):
    async def make_store(self) -> Store:
        return MemoryStore()


class _Eventual(WrapperStore):
    """Asks for what may lag, also where the suite asks for what may not."""

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        return await super().get(keys, consistency="eventual", dead=dead)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        return await super().query(query, limit=limit, cursor=cursor, consistency="eventual")


@pytest.fixture(scope="class")
def lists_kept_at_once() -> Iterator[None]:
    """Also those right after a write, where no index lags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_SETTLING", 0.0)
        yield


@pytest.mark.memory
@pytest.mark.usefixtures("lists_kept_at_once")
class TestCachingStore(StoreConformance):
    """With a read cache, which all reads are answered from that can be: one writer sees no difference."""

    async def make_store(self) -> Store:
        return _Eventual(CachingStore(MemoryStore(), ReadCache(seconds=3600)))


@pytest.mark.memory
class TestCachingStoreStrongly(StoreConformance):
    """With a read cache, past which the suite reads."""

    async def make_store(self) -> Store:
        return CachingStore(MemoryStore(), ReadCache(seconds=3600))


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
    request.cls.url = f"{request.getfixturevalue(request.cls.engine)}&{request.cls.parameters}"


@pytest.mark.sqlite
@pytest.mark.usefixtures("file_url")
class TestSQLiteStore(URLConformance):
    pass


@pytest.mark.usefixtures("engine_url")
class EngineConformance(URLConformance):
    """The same on an engine, where every call is a request."""

    engine: ClassVar[str]
    parameters: ClassVar[str] = ""  # of its stores' URLs, each followed by "&"
    examples = 10
    steps = 25


class DynamoDBConformance(EngineConformance):
    """The same where stores have tables, which the cases drop that made them."""

    @pytest.fixture(autouse=True)
    def tables(self) -> Iterator[None]:
        # The store that all cases share is there already, since the fixtures of a class precede those of a case.
        kept = set(self.made.values())
        yield
        for url in set(self.made.values()) - kept:
            parameters, _, prefix = url.partition("&prefix=")
            drop_tables(parameters.removesuffix(f"&{self.parameters.rstrip('&')}"), prefix)


@pytest.mark.moto
class TestDynamoDBStoreOnMoto(DynamoDBConformance):
    engine = "moto_url"


@pytest.mark.dynamodb_local
class TestDynamoDBStoreOnDynamoDBLocal(DynamoDBConformance):
    engine = "dynamodb_local_url"


@pytest.mark.dynamodb_local
class TestDynamoDBStoreOnDynamoDBLocalOverAioboto3(DynamoDBConformance):
    """The same by the other driver, which the stores above do not use for items."""

    engine = "dynamodb_local_url"
    parameters = "driver=aioboto3&"


@pytest.mark.firestore
class TestFirestoreStore(EngineConformance):
    engine = "firestore_url"
    needs_provision = False
