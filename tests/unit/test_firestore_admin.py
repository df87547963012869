"""Waiting for composite indexes, against an Admin API that answers as each test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

import grpc.aio
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore_admin_v1.types import (
    Field,
    Index,
    ListFieldsRequest,
    ListFieldsResponse,
    ListIndexesRequest,
    ListIndexesResponse,
)
from google.cloud.firestore_v1.async_client import AsyncClient
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport
from google.cloud.firestore_v1.types import document, firestore

from agno_clouddb.errors import ConfigurationError, IndexNotReady, InvalidRecord, StoreUnavailable, Throttled
from agno_clouddb.stores.firestore import FirestoreStore
from agno_clouddb.stores.firestore.admin import MAX_WAIT_SECONDS, State, await_indexes
from agno_clouddb.stores.firestore.indexes import Composite, composite_indexes, group_indexes

BY_USER = Composite("x_memories", "user_id", "updated_at", True)
BY_TEAM = Composite("x_memories", "team_id", "updated_at", True)
WANTED = [BY_USER, BY_TEAM]


class Service:
    """Answers with one state after another, the last one for ever, and notes what happens."""

    def __init__(self, *answers: Mapping[Composite, State]) -> None:
        self.answers = list(answers)
        self.said: list[str] = []
        self.pauses: list[float] = []

    async def states(self) -> Mapping[Composite, State]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def wait(self) -> None:
        await await_indexes(self.states, WANTED, "firestore://p", self.said.append, pause=self.pause)


async def test_indexes_that_are_built_are_not_waited_for() -> None:
    service = Service({BY_USER: "ready", BY_TEAM: "ready"})
    await service.wait()
    assert service.pauses == []
    assert service.said == ["firestore://p: 2 of 2 indexes are ready"]


async def test_each_change_is_told_once_until_all_are_ready() -> None:
    service = Service(
        {BY_USER: "building", BY_TEAM: "building"},
        {BY_USER: "building", BY_TEAM: "building"},
        {BY_USER: "building", BY_TEAM: "ready"},
        {BY_USER: "ready", BY_TEAM: "ready"},
    )
    await service.wait()
    assert service.said == [
        f"{BY_USER}: building, 0 of 2 ready",
        f"{BY_TEAM}: building, 0 of 2 ready",
        f"{BY_TEAM}: ready, 1 of 2 ready",
        f"{BY_USER}: ready, 2 of 2 ready",
    ]
    assert str(BY_USER) == "x_memories (user_id, updated_at DESCENDING)"
    assert service.pauses == [1, 2, 4]


async def test_every_missing_index_is_named_at_once() -> None:
    service = Service({Composite("x_memories", "user_id", "updated_at", False): "ready"})
    with pytest.raises(IndexNotReady, match="2 of 2 indexes are missing") as caught:
        await service.wait()
    assert caught.value.index == f"{BY_USER}; {BY_TEAM}"
    assert "agno-clouddb schema" in str(caught.value)
    assert caught.value.store == "firestore://p"
    assert service.pauses == []


async def test_an_index_that_failed_is_not_waited_for() -> None:
    service = Service({BY_USER: "building", BY_TEAM: "needs repair"})
    with pytest.raises(IndexNotReady, match="deleted and deployed anew") as caught:
        await service.wait()
    assert caught.value.index == str(BY_TEAM)


async def test_waiting_ends_some_time() -> None:
    service = Service({BY_USER: "ready", BY_TEAM: "building"})
    with pytest.raises(IndexNotReady, match="still being built after") as caught:
        await service.wait()
    assert caught.value.index == str(BY_TEAM)
    assert MAX_WAIT_SECONDS <= sum(service.pauses) < MAX_WAIT_SECONDS + max(service.pauses)
    assert max(service.pauses) == 15


def index(group: str, *fields: tuple[str, str], state: str = "READY", scope: str = "COLLECTION") -> Index:
    name = f"projects/p/databases/(default)/collectionGroups/{group}/indexes/1"
    parts = [Index.IndexField(field_path=path, order=order) for path, order in fields]
    return Index(name=name, query_scope=scope, state=state, fields=parts)


def deployed(each: Composite, state: str = "READY") -> Index:
    assert each.field is not None
    return index(each.group, (each.field, "ASCENDING"), (each.sort, each.order), ("__name__", each.order), state=state)


def overridden(group: str, *indexes: tuple[str, str], state: str = "READY", path: str = "version") -> Field:
    """A field of a collection group with the indexes, by scope and order, that it has instead of the automatic ones."""
    own = [index(group, (path, order), scope=scope, state=state) for scope, order in indexes]
    name = f"projects/p/databases/(default)/collectionGroups/{group}/fields/{path}"
    return Field(name=name, index_config=Field.IndexConfig(indexes=own))


class Server:
    """A server with the methods that provisioning calls, on a port of its own."""

    def __init__(self) -> None:
        self.pages: list[list[Index]] = []
        self.fields: list[list[Field]] = [[]]
        self.fields_asked: list[tuple[str, str]] = []
        self.requests: list[tuple[str, str]] = []
        self.code: grpc.StatusCode | None = None
        self._server = grpc.aio.server()
        methods: dict[str, tuple[Callable[..., Any], Any, Any]] = {
            "/google.firestore.v1.Firestore/GetDocument": (
                self._get,
                firestore.GetDocumentRequest,
                document.Document,
            ),
            "/google.firestore.admin.v1.FirestoreAdmin/ListIndexes": (
                self._list,
                ListIndexesRequest,
                ListIndexesResponse,
            ),
            "/google.firestore.admin.v1.FirestoreAdmin/ListFields": (
                self._list_fields,
                ListFieldsRequest,
                ListFieldsResponse,
            ),
        }
        for path, (call, request, response) in methods.items():
            service, method = path[1:].split("/")
            handler = grpc.unary_unary_rpc_method_handler(
                call, request_deserializer=request.deserialize, response_serializer=response.serialize
            )
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def _get(self, request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, f'"{request.name}" not found')

    async def _list(self, request: Any, context: Any) -> ListIndexesResponse:
        if self.code is not None:
            await context.abort(self.code, "no")
        routed = dict(context.invocation_metadata())["x-goog-request-params"]
        self.requests.append((request.parent, routed))
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(self.pages) else ""
        return ListIndexesResponse(indexes=self.pages[page], next_page_token=following)

    async def _list_fields(self, request: Any, context: Any) -> ListFieldsResponse:
        self.fields_asked.append((request.parent, request.filter))
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(self.fields) else ""
        return ListFieldsResponse(fields=self.fields[page], next_page_token=following)

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as running:
        yield running


@pytest.fixture
async def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    """A client that takes the server for the service, not for an emulator."""
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    made = AsyncClient(project="p", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
    made._firestore_api_internal = FirestoreAsyncClient(transport=FirestoreGrpcAsyncIOTransport(channel=channel))
    yield made
    await channel.close()


@pytest.fixture
async def store(client: AsyncClient) -> AsyncIterator[FirestoreStore]:
    async with FirestoreStore(client=client, prefix="x_") as opened:
        yield opened


async def test_the_indexes_of_the_chosen_collections_are_asked_for_on_every_page(
    store: FirestoreStore, server: Server
) -> None:
    wanted = composite_indexes(["memories"], "x_")
    server.pages = [[deployed(each) for each in wanted[:2]], [], [deployed(each) for each in wanted[2:]]]
    said: list[str] = []
    await store.provision(["memories"], wait_for_indexes=True, progress=said.append)
    assert said == [f"firestore://p: {len(wanted)} of {len(wanted)} indexes are ready"]
    parent = "projects/p/databases/(default)/collectionGroups/-"
    assert [asked for asked, _ in server.requests] == [parent] * 3
    assert all(routed.startswith("parent=projects/p/databases/") for _, routed in server.requests)


async def test_indexes_of_another_kind_do_not_count(store: FirestoreStore, server: Server) -> None:
    first, *others = composite_indexes(["memories"], "x_")
    field, sort = (str(first.field), "ASCENDING"), (first.sort, first.order)
    server.pages = [
        [
            *map(deployed, others),
            index("x_memories", field, sort, scope="COLLECTION_GROUP"),
            index("memories", field, sort),
            index("x_memories", field, sort, ("__name__", "DESCENDING")),
            index("x_memories", field, sort, ("created_at", "ASCENDING")),
            index("x_memories", sort),
        ]
    ]
    with pytest.raises(IndexNotReady) as caught:
        await store.provision(["memories"], wait_for_indexes=True)
    assert caught.value.index == str(first)


@pytest.mark.parametrize("order", ["ready first", "ready last"])
async def test_an_index_with_the_equality_field_the_other_way_serves_too(
    store: FirestoreStore, server: Server, order: str
) -> None:
    first, *others = composite_indexes(["memories"], "x_")
    both = [
        index("x_memories", (str(first.field), "DESCENDING"), (first.sort, first.order)),
        deployed(first, state="CREATING"),
    ]
    server.pages = [[*map(deployed, others), *(both if order == "ready first" else reversed(both))]]
    await store.provision(["memories"], wait_for_indexes=True)
    assert len(server.requests) == 1


async def test_a_collection_without_composite_indexes_is_not_asked_about(store: FirestoreStore, server: Server) -> None:
    await store.provision(["runs", "spans"], wait_for_indexes=True)
    await store.provision(["memories"])
    assert server.requests == []


GROUP, COLLECTION = "COLLECTION_GROUP", "COLLECTION"


async def test_a_store_of_a_fan_out_waits_for_its_own_collection_and_the_versions_of_children(
    store: FirestoreStore, server: Server
) -> None:
    wanted = [*composite_indexes(["memories", "replication"], "x_"), *group_indexes(["runs", "spans"], "x_")]
    server.pages = [[deployed(each) for each in wanted if not each.whole_group]]
    automatic = [(COLLECTION, "ASCENDING"), (COLLECTION, "DESCENDING")]
    server.fields = [
        [overridden("runs", *automatic, (GROUP, "ASCENDING"))],
        [],
        [overridden("x_runs", path="data"), overridden("spans", *automatic, (GROUP, "ASCENDING"))],
    ]
    said: list[str] = []
    names = ["memories", "runs", "spans"]
    await store.provision(names, replicated=True, wait_for_indexes=True, progress=said.append)
    assert said == [f"firestore://p: {len(wanted)} of {len(wanted)} indexes are ready"]
    parent = "projects/p/databases/(default)/collectionGroups/-"
    assert server.fields_asked == [(parent, "indexConfig.usesAncestorConfig:false")] * 3


@pytest.mark.parametrize(
    "field",
    [
        overridden("runs", (COLLECTION, "ASCENDING"), (GROUP, "DESCENDING")),
        overridden("runs", (GROUP, "ASCENDING"), path="generation"),
        overridden("x_runs", (GROUP, "ASCENDING")),
    ],
    ids=["another order", "another field", "another group"],
)
async def test_a_version_of_children_without_an_index_of_the_group_is_named(
    store: FirestoreStore, server: Server, field: Field
) -> None:
    server.pages = [[deployed(each) for each in composite_indexes(["replication"], "x_")]]
    server.fields = [[field]]
    with pytest.raises(IndexNotReady, match="1 of 3 indexes are missing") as caught:
        await store.provision(["runs"], replicated=True, wait_for_indexes=True)
    assert caught.value.index == "collection group runs (version ASCENDING)"


async def test_an_index_of_a_group_that_has_failed_is_not_waited_for(store: FirestoreStore, server: Server) -> None:
    server.pages = [[deployed(each) for each in composite_indexes(["replication"], "x_")]]
    server.fields = [[overridden("runs", (GROUP, "ASCENDING"), state="NEEDS_REPAIR")]]
    with pytest.raises(IndexNotReady, match="deployed anew") as caught:
        await store.provision(["runs"], replicated=True, wait_for_indexes=True)
    assert caught.value.index == "collection group runs (version ASCENDING)"


async def test_fields_are_asked_about_only_for_children(store: FirestoreStore, server: Server) -> None:
    server.pages = [[deployed(each) for each in composite_indexes(["memories", "replication"], "x_")]]
    await store.provision(["memories"], replicated=True, wait_for_indexes=True)
    await store.provision(["memories"], wait_for_indexes=True)
    assert (len(server.requests), server.fields_asked) == (2, [])


async def test_a_permission_that_is_missing_is_named(store: FirestoreStore, server: Server) -> None:
    server.code = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(ConfigurationError, match=r"datastore\.indexes\.list") as caught:
        await store.provision(wait_for_indexes=True)
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.UNAVAILABLE, StoreUnavailable), (grpc.StatusCode.RESOURCE_EXHAUSTED, Throttled)],
)
async def test_an_admin_service_that_does_not_answer_is_an_error_in_time(
    client: AsyncClient, server: Server, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    server.code = code
    async with FirestoreStore(client=client, prefix="x_", deadline=0.3) as store:
        with pytest.raises(kind):
            await store.provision(wait_for_indexes=True)


async def test_a_collection_that_does_not_exist_is_refused_before_anything_is_sent(store: FirestoreStore) -> None:
    with pytest.raises(InvalidRecord, match="nonsense"):
        await store.provision(["nonsense"], wait_for_indexes=True)
    assert store.usage.requests.total() == 0
