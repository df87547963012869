"""What only DynamoDBStore has: requests counted, chunks, lost answers, throttling, credentials, tables and indexes."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest
from botocore import exceptions as boto

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    IndexNotReady,
    InvalidRecord,
    LifecycleError,
    NotProvisioned,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.stores.base import (
    Condition,
    Delete,
    Failed,
    Item,
    Key,
    Mutation,
    Outcome,
    Payload,
    Put,
    Query,
    Range,
    Refused,
    Stored,
    Tally,
)
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.dynamodb import DynamoDBStore
from agno_clouddb.stores.dynamodb.calls import CONCURRENCY
from agno_clouddb.stores.dynamodb.items import shard_of
from agno_clouddb.stores.dynamodb.tables import VERSION_INDEX, layouts
from agno_clouddb.stores.dynamodb.templates import cloudformation
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.schema import COLLECTIONS, DECLARED, REPLICATION, SHARD
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.testing.engines import dynamodb_local

HANG = 30.0  # seconds after which something counts as never happening
KEY = Key("sessions", "a/b")
LARGE = 1_000_000  # bytes: three chunks
ON_ONE_DAY = {"metrics": {"date": "v"}}
MakeStore = Callable[..., DynamoDBStore]

clock = HybridClock()


def item(key: Key = KEY, data: Payload = "{}", *, expires_at: int | None = None, **fields: str) -> Item:
    given = {"created_at": "2025", "updated_at": "2025", "user_id": "ann"} if key.collection == "sessions" else {}
    return Item(key, clock.stamp(), {**given, **fields}, data, expires_at)


def run(number: int) -> Item:
    return item(Key("runs", f"r{number}", KEY.id), run_index=f"{number:08d}")


def filled(collection: str, number: int, **fields: str) -> Item:
    """An item that is in every index of its collection: ``v`` where it selects, its number where it orders."""
    declared = DECLARED[collection]
    sorts = {index.sort for index in declared.indexes}
    values = {name: f"{number:06d}" if name in sorts else "v" for name in declared.fields}
    key = Key(collection, f"{number:06d}", "p" if declared.parent_field is not None else None)
    return Item(key, clock.stamp(), {**values, **fields}, "{}")


async def listed(store: DynamoDBStore, query: Query, limit: int = 7) -> list[str]:
    """The ids of a whole list, page by page."""
    ids: list[str] = []
    cursor = None
    while True:
        page = await store.query(query, limit=limit, cursor=cursor)
        ids += [each.key.id for each in page.items]
        if (cursor := page.cursor) is None:
            return ids


async def scanned(
    store: DynamoDBStore, collection: str, limit: int = 1_000, since: str | None = None
) -> list[tuple[Key, str]]:
    """All keys and versions that a scan meets, part by part."""
    found: list[tuple[Key, str]] = []
    cursor = None
    while True:
        part = await store.scan(collection, limit=limit, since=since, cursor=cursor)
        assert len(part.entries) <= limit
        found += part.entries
        if (cursor := part.cursor) is None:
            return found


def entries(items: Iterable[Item]) -> list[tuple[Key, str]]:
    """What a scan says of items, in order of version."""
    return sorted(((each.key, each.version) for each in items), key=lambda each: each[1])


async def write(store: DynamoDBStore, *mutations: Mutation, atomic: bool = False) -> tuple[Outcome, ...]:
    return await store.write(mutations, atomic=atomic)


async def stored(store: DynamoDBStore, *items: Item) -> None:
    assert await write(store, *map(Put, items)) == tuple(Stored(each.version) for each in items)


async def read(store: DynamoDBStore, key: Key = KEY) -> Item | None:
    return (await store.get([key])).items[0]


async def requests(store: DynamoDBStore, call: Awaitable[object]) -> dict[str, int]:
    before = store.usage.copy()
    await call
    return dict(store.usage.since(before).requests)


def values_of(request: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """The values of a request's expressions, by placeholder."""
    return dict(request["ExpressionAttributeValues"]).items()


def driver(store: DynamoDBStore) -> Any:
    """The driver's client that an open store uses."""
    assert store._opened is not None
    return store._opened.client.driver


async def chunks(store: DynamoDBStore) -> int:
    pages = driver(store).get_paginator("scan").paginate(TableName=store._chunks.name, ConsistentRead=True)
    return sum([len(page["Items"]) async for page in pages])


def refusal(code: str, **more: Any) -> boto.ClientError:
    """An answer of the service with an error code."""
    response: Any = {"Error": {"Code": code, "Message": "injected"}, **more}
    return boto.ClientError(response, "Injected")


class Script:
    """Stands in for what sends an operation: plays one step a call, and then lets every call through.

    A step is an exception to raise instead of the call; ``lose``, which makes the call and drops its answer; or any
    function that gets the method and the request.
    """

    def __init__(self, method: Callable[..., Awaitable[Any]], *steps: Any, forever: bool = False) -> None:
        self.method = method
        self.steps = list(steps)
        self.forever = forever
        self.calls = 0

    async def __call__(self, **request: Any) -> Any:
        self.calls += 1
        if not self.steps:
            return await self.method(**request)
        step = self.steps[0] if self.forever else self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return await step(self.method, request)


async def lose(method: Callable[..., Awaitable[Any]], request: dict[str, Any]) -> Any:
    await method(**request)
    raise boto.ReadTimeoutError(endpoint_url="injected")


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Script]:
    """Puts a Script in place of what sends an operation of the store, by the slim path or the driver."""

    def put(store: DynamoDBStore, name: str, *steps: Any, forever: bool = False) -> Script:
        assert store._opened is not None
        methods = store._opened.client.methods
        script = Script(methods[name], *steps, forever=forever)
        monkeypatch.setitem(methods, name, script)
        return script

    return put


ENGINES = [
    pytest.param("moto_url", id="moto", marks=pytest.mark.moto),
    pytest.param("dynamodb_local_url", id="dynamodb_local", marks=pytest.mark.dynamodb_local),
]


def prefix(store: DynamoDBStore) -> str:
    """What precedes the names of a store's tables."""
    return store._chunks.name.removesuffix("chunks")


def maker(url: str) -> MakeStore:
    """Makes stores on one engine, all with the same tables."""
    prefix = f"t{secrets.token_hex(6)}_"

    def make_store(*, deadline: float = 30.0, **parameters: object) -> DynamoDBStore:
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        store = store_from_url(url + more, StoreOptions(prefix=prefix, deadline=deadline))
        assert isinstance(store, DynamoDBStore)
        return store

    return make_store


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> MakeStore:
    """Makes stores on each engine in turn, all of a test with the same tables."""
    return maker(request.getfixturevalue(request.param))


@pytest.fixture(params=ENGINES)
def make_alone(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    """As ``make``, on a DynamoDB Local that has no other tables: with a hundred, it adds an index in minutes."""
    url: str = request.getfixturevalue(request.param)
    if request.param == "moto_url":
        yield maker(url)
        return
    with dynamodb_local() as alone:
        yield maker(alone)


@pytest.fixture
async def store(make: MakeStore) -> AsyncIterator[DynamoDBStore]:
    """An open store with its tables."""
    async with make() as opened:
        await opened.provision()
        yield opened


class TestRequests:
    """Every call costs as few requests as the service allows, and none asks for a table's description."""

    async def test_a_write_is_one_conditional_request(self, store: DynamoDBStore) -> None:
        first, second = item(), item()
        assert await requests(store, write(store, Put(first, Condition(absent=True)))) == {"PutItem": 1}
        update = Put(second, Condition(expected=first.version, owner="ann"))
        assert await requests(store, write(store, update)) == {"PutItem": 1}
        assert await requests(store, write(store, Delete(KEY, clock.stamp()))) == {"DeleteItem": 1}

    async def test_a_refused_write_is_one_request_too(self, store: DynamoDBStore) -> None:
        await stored(store, item())
        for mutation in (
            Put(item(), Condition(absent=True)),
            Put(item(), Condition(owner="bob")),
            Delete(Key("sessions", "no"), clock.stamp()),
        ):
            assert sum((await requests(store, write(store, mutation))).values()) == 1

    async def test_an_atomic_write_is_one_transaction_unless_it_is_of_one_item(self, store: DynamoDBStore) -> None:
        assert await requests(store, write(store, Put(item()), Put(run(1)), atomic=True)) == {"TransactWriteItems": 1}
        assert await requests(store, write(store, Put(item()), atomic=True)) == {"PutItem": 1}

    async def test_a_get_is_one_request_for_up_to_a_hundred_different_keys(self, store: DynamoDBStore) -> None:
        keys = [Key("sessions", f"{n}") for n in range(101)]
        await stored(store, *(item(key) for key in keys))
        assert await requests(store, store.get([])) == {}
        assert await requests(store, store.get([KEY, KEY])) == {"GetItem": 1}
        assert await requests(store, store.get([*keys[:100], *keys[:100]])) == {"BatchGetItem": 1}
        assert await requests(store, store.get(keys)) == {"BatchGetItem": 2}

    async def test_a_list_is_one_index_query_and_one_batch(self, store: DynamoDBStore) -> None:
        await stored(store, *(item(Key("sessions", f"{n:02d}"), created_at=f"{n:02d}") for n in range(60)))
        query = Query("sessions", "created_at", True, equals={"user_id": "ann"})
        page = await store.query(query, limit=20)
        assert await requests(store, store.query(query, limit=20)) == {"Query": 1, "BatchGetItem": 1}
        within = Query("sessions", "created_at", True, equals={"user_id": "ann"}, ranges=(Range("created_at", "05"),))
        for each in (query, within):
            before = store.usage.copy()
            rest = await store.query(each, limit=20, cursor=page.cursor)
            assert [one.key.id for one in rest.items] == [f"{n:02d}" for n in range(39, 19, -1)]
            assert dict(store.usage.since(before).requests) == {"Query": 1, "BatchGetItem": 1}

    async def test_a_sparse_filter_on_the_index_takes_ever_larger_pages(self, store: DynamoDBStore) -> None:
        names = [Key("sessions", f"{n:03d}") for n in range(400)]
        await stored(store, *(item(key, user_id="bob" if n % 99 == 98 else "ann") for n, key in enumerate(names)))
        query = Query("sessions", "updated_at", equals={"user_id": "bob"})
        before = store.usage.copy()
        page = await store.query(query, limit=4)
        assert [each.key for each in page.items] == names[98::99]
        spent = store.usage.since(before).requests
        assert spent["Query"] <= 6
        assert spent["BatchGetItem"] == 1

    async def test_the_last_runs_are_one_query(self, store: DynamoDBStore) -> None:
        await stored(store, *(run(n) for n in range(6)))
        query = Query("runs", "run_index", True, parent=KEY.id)
        before = store.usage.copy()
        page = await store.query(query, limit=3)
        assert [each.key.id for each in page.items] == ["r5", "r4", "r3"]
        assert store.usage.since(before).requests["Query"] == 1

    async def test_a_count_that_the_index_answers_reads_no_item(self, store: DynamoDBStore) -> None:
        await stored(store, item(), run(1), run(2))
        for query, count in (
            (Query("sessions", "updated_at", equals={"user_id": "ann"}), 1),
            (Query("sessions", "updated_at", equals={"user_id": "bob"}), 0),
            (Query("runs", "run_index", parent=KEY.id), 2),
        ):
            before = store.usage.copy()
            assert await store.count(query) == count
            assert dict(store.usage.since(before).requests) == {"Query": 1}

    async def test_a_list_over_shards_is_merged_in_order(self, make: MakeStore) -> None:
        async with make(shards=3) as sharded:
            await sharded.provision()
            items = [item(Key("sessions", f"{n:02d}"), updated_at=f"{n // 4}") for n in range(30)]
            await stored(sharded, *items)
            for descending in (False, True):
                listed: list[str] = []
                query, cursor = Query("sessions", "updated_at", descending), None
                while not listed or cursor is not None:
                    page = await sharded.query(query, limit=7, cursor=cursor)
                    listed += [each.key.id for each in page.items]
                    cursor = page.cursor
                assert listed == sorted((each.key.id for each in items), reverse=descending)
            assert await sharded.count(Query("sessions", "updated_at")) == 30


class TestSeveralValues:
    """Lists of items with one of several values of a field."""

    EITHER = Query("evals", "created_at", any_of={"eval_type": ("a", "b", "a")})

    async def test_they_are_read_by_one_query_each_and_merged_in_order(self, store: DynamoDBStore) -> None:
        await stored(store, *(filled("evals", n, eval_type="aabc"[n % 4]) for n in range(40)))
        wanted = [f"{n:06d}" for n in range(40) if n % 4 != 3]
        assert await listed(store, self.EITHER) == wanted
        assert await listed(store, replace(self.EITHER, descending=True)) == wanted[::-1]
        spent = await requests(store, store.query(self.EITHER, limit=10))
        assert spent == {"Query": 2, "BatchGetItem": 1}
        before = store.usage.copy()
        assert await store.count(self.EITHER) == 30
        assert dict(store.usage.since(before).requests) == {"Query": 2}

    @pytest.mark.parametrize("limit", [1, 2, 5])
    async def test_an_item_that_an_index_has_under_two_values_is_listed_once(
        self, store: DynamoDBStore, inject: Callable[..., Script], limit: int
    ) -> None:
        await stored(store, *(filled("evals", n, eval_type="a") for n in range(3)))

        async def answer_as_for_a(method: Any, request: dict[str, Any]) -> Any:
            # What an index shows while it follows items whose type has just changed.
            values = {name: {"S": "a"} if value == {"S": "b"} else value for name, value in values_of(request)}
            return await method(**{**request, "ExpressionAttributeValues": values})

        inject(store, "query", answer_as_for_a, forever=True)
        assert await listed(store, self.EITHER, limit) == [f"{n:06d}" for n in range(3)]

    async def test_the_service_filters_by_them_where_the_index_has_the_field(self, store: DynamoDBStore) -> None:
        await stored(store, *(item(Key("sessions", f"{n:02d}"), user_id="abc"[n % 3]) for n in range(30)))
        either = Query("sessions", "updated_at", any_of={"user_id": ("a", "c")})
        assert await listed(store, either) == [f"{n:02d}" for n in range(30) if n % 3 != 1]
        before = store.usage.copy()
        assert await store.count(either) == 20
        assert dict(store.usage.since(before).requests) == {"Query": 1}

    async def test_other_fields_are_filtered_in_the_items(self, store: DynamoDBStore) -> None:
        await stored(store, *(filled("evals", n, model_id="abc"[n % 3]) for n in range(30)))
        either = Query("evals", "created_at", equals={"eval_type": "v"}, any_of={"model_id": ("a", "c")})
        assert await listed(store, either) == [f"{n:06d}" for n in range(30) if n % 3 != 1]
        assert await store.count(either) == 20

    async def test_what_no_item_can_have_costs_no_request(self, store: DynamoDBStore) -> None:
        never = Query("evals", "created_at", equals={"eval_type": "c"}, any_of={"eval_type": ("a", "b")})
        for call in (store.query(never, limit=5), store.count(never), store.tally(never, "eval_type")):
            assert await requests(store, call) == {}


class TestFieldsThatSelectAndOrder:
    """A field may be the partition of one index and the sort key of another."""

    async def test_metrics_are_listed_by_date_and_in_order_of_it(self, store: DynamoDBStore) -> None:
        days = [f"2025-01-{n % 10 + 1:02d}" for n in range(20)]
        items = [filled("metrics", n, date=day, bucket="xy"[n % 2]) for n, day in enumerate(days)]
        await stored(store, *items)
        assert (await store.get([items[3].key])).items == (items[3],)
        on_the_third = Query("metrics", "aggregation_period", equals={"date": days[2]})
        assert await listed(store, on_the_third) == ["000002", "000012"]
        in_order = Query("metrics", "date", ranges=(Range("date", days[2], days[5]),))
        wanted = [each.key.id for each in sorted(items, key=lambda each: (each.fields["date"], each.key.id))][4:10]
        assert await listed(store, in_order, 4) == wanted
        of_one = replace(in_order, equals={"bucket": "x"}, descending=True)
        assert await listed(store, of_one, 2) == [each for each in reversed(wanted) if int(each) % 2 == 0]

    async def test_a_new_date_moves_an_item_in_both_orders(self, store: DynamoDBStore) -> None:
        await stored(store, filled("metrics", 1, date="2025-01-01"), filled("metrics", 2, date="2025-01-02"))
        await stored(store, filled("metrics", 1, date="2025-01-03"))
        assert await listed(store, Query("metrics", "date")) == ["000002", "000001"]
        for day, ids in (("2025-01-01", []), ("2025-01-03", ["000001"])):
            assert await listed(store, Query("metrics", "aggregation_period", equals={"date": day})) == ids


class TestTally:
    """Counting by a field's values reads index entries alone, where they have the field."""

    @pytest.mark.parametrize(
        ("query", "by", "queries"),
        [
            (Query("sessions", "updated_at"), "user_id", 1),
            (Query("sessions", "updated_at", equals={"session_type": "team"}), "user_id", 1),
            (Query("sessions", "updated_at", any_of={"user_id": ("a", "c")}), "user_id", 1),
            (Query("sessions", "updated_at"), "updated_at", 1),
            (Query("sessions", "created_at", any_of={"user_id": ("a", "c")}), "user_id", 2),
            (Query("sessions", "created_at", equals={"component_id": "x"}), "component_id", 1),
            (Query("metrics", "date"), "date", 1),
            (Query("metrics", "aggregation_period", any_of={"date": ("000003", "000004")}), "date", 2),
            (Query("runs", "run_index", parent="p"), "run_index", 1),
        ],
    )
    async def test_an_index_is_enough(self, store: DynamoDBStore, query: Query, by: str, queries: int) -> None:
        items = [
            *(
                filled("sessions", n, user_id="abc"[n % 3], session_type=("team", "agent")[n % 2], component_id="x")
                for n in range(24)
            ),
            *(filled("metrics", n) for n in range(9)),
            *(filled("runs", n) for n in range(9)),
        ]
        await stored(store, *items)
        async with MemoryStore() as model:
            await model.provision()
            await model.write([Put(each) for each in items])
            wanted = await model.tally(query, by)
        assert wanted
        before = store.usage.copy()
        assert await store.tally(query, by) == wanted
        assert dict(store.usage.since(before).requests) == {"Query": queries}

    async def test_entries_are_read_to_the_last(self, store: DynamoDBStore, inject: Callable[..., Script]) -> None:
        await stored(store, *(item(Key("sessions", f"{n}"), user_id="ab"[n % 2], updated_at=f"{n}") for n in range(9)))

        async def answer_two(method: Any, request: dict[str, Any]) -> Any:
            assert "Limit" not in request
            return await method(**request, Limit=2)

        script = inject(store, "query", answer_two, forever=True)
        found = await store.tally(Query("sessions", "updated_at"), "user_id")
        assert found == {"a": Tally(5, "0", "8"), "b": Tally(4, "1", "7")}
        assert script.calls >= 5

    async def test_shards_are_added_up(self, make: MakeStore) -> None:
        async with make(shards=3) as sharded:
            await sharded.provision(["sessions"])
            await stored(sharded, *(item(Key("sessions", f"{n}"), updated_at=f"{n:02d}") for n in range(30)))
            assert await sharded.tally(Query("sessions", "updated_at"), "user_id") == {"ann": Tally(30, "00", "29")}

    @pytest.mark.parametrize(
        ("query", "by", "wanted"),
        [
            (
                Query("evals", "created_at"),
                "eval_type",
                {"a": Tally(5, "000000", "000008"), "b": Tally(4, "000001", "000007")},
            ),
            (Query("evals", "created_at", equals={"eval_type": "a"}), "user_id", {"v": Tally(5, "000000", "000008")}),
            (
                Query("evals", "created_at", equals={"agent_id": "v", "eval_type": "b"}),
                "agent_id",
                {"v": Tally(4, "000001", "000007")},
            ),
            (Query("runs", "run_index", parent="p"), "generation", {"v": Tally(9, "000000", "000008")}),
        ],
    )
    async def test_items_are_read_where_no_index_has_the_field(
        self, store: DynamoDBStore, query: Query, by: str, wanted: dict[str, Tally]
    ) -> None:
        await stored(store, *(filled("evals", n, eval_type="ab"[n % 2]) for n in range(9)))
        await stored(store, *(filled("runs", n) for n in range(9)))
        assert await store.tally(query, by) == wanted

    async def test_a_field_that_the_collection_lacks_is_invalid(self, store: DynamoDBStore) -> None:
        with pytest.raises(InvalidRecord, match="colour"):
            await store.tally(Query("sessions", "updated_at"), "colour")


class TestBudget:
    """What a list costs does not depend on how much is stored."""

    @pytest.mark.parametrize("name", sorted(COLLECTIONS))
    async def test_20_items_by_any_index_cost_two_requests_and_25_read_units(
        self, dynamodb_local_url: str, name: str
    ) -> None:
        declared = COLLECTIONS[name]
        parent = "p" if declared.parent_field is not None else None
        async with maker(dynamodb_local_url)(report_capacity="true") as store:
            await store.provision([name])
            for start in range(0, 300, 100):
                await stored(store, *(filled(name, n) for n in range(start, start + 100)))
            # More than one item on one day, where the day selects.
            await stored(store, *(filled(name, n, **ON_ONE_DAY.get(name, {})) for n in range(30)))
            for index, descending in product(declared.indexes, (False, True)):
                selected = {} if index.partition in (SHARD, declared.parent_field) else {index.partition: "v"}
                query = Query(name, index.sort, descending, parent, equals=selected)
                assert query.index == index
                before = store.usage.copy()
                page = await store.query(query, limit=20)
                spent = store.usage.since(before)
                assert len(page.items) == 20
                assert spent.requests.total() <= 2, query
                assert 0 < spent.read_units <= 25, query


class TestTemplates:
    """Tables deployed from a template are those that the store would have made."""

    @pytest.mark.parametrize("fan_out", [False, True])
    async def test_a_store_works_on_tables_from_cloudformation_and_has_nothing_to_provision(
        self, dynamodb_local_url: str, fan_out: bool
    ) -> None:
        collections = DECLARED if fan_out else COLLECTIONS
        prefix = f"t{secrets.token_hex(6)}_"
        opened = store_from_url(f"{dynamodb_local_url}&prefix={prefix}", StoreOptions(deadline=30.0))
        assert isinstance(opened, DynamoDBStore)
        async with opened as store:
            for resource in cloudformation(prefix, fan_out=fan_out)["Resources"].values():
                properties = dict(resource["Properties"])
                expiry = properties.pop("TimeToLiveSpecification")
                properties.pop("PointInTimeRecoverySpecification")
                await driver(store).create_table(**properties)
                await driver(store).update_time_to_live(
                    TableName=properties["TableName"], TimeToLiveSpecification=expiry
                )
            spent = await requests(store, store.provision(replicated=fan_out))
            assert spent == {"DescribeTable": len(collections) + 1, "DescribeTimeToLive": len(collections) + 1}
            for name, declared in collections.items():
                items = [filled(name, n) for n in range(3)]
                await stored(store, *items)
                assert (await store.get([each.key for each in items])).items == tuple(items)
                parent = "p" if declared.parent_field is not None else None
                for index in declared.indexes:
                    if index.partition in (SHARD, declared.parent_field):
                        query = Query(name, index.sort, parent=parent)
                        assert await listed(store, query) == [each.key.id for each in items]
                if fan_out and name != REPLICATION.name:
                    assert await scanned(store, name, since=items[0].version) == entries(items)


class TestScan:
    """Keys and versions of all that is stored, from the table itself or in order of version."""

    @pytest.fixture
    async def store(self, make: MakeStore) -> AsyncIterator[DynamoDBStore]:
        """An open store as a fan-out needs it, with some of the tables."""
        async with make() as opened:
            await opened.provision(["sessions", "runs"], replicated=True)
            yield opened

    @pytest.mark.parametrize("collection", ["sessions", "runs"])
    async def test_tombstones_and_what_has_expired_are_met_too(self, store: DynamoDBStore, collection: str) -> None:
        items = [filled(collection, n) for n in range(9)]
        items[2] = replace(items[2], expires_at=1)
        items[4] = Item(items[4].key, items[4].version, deleted=True, expires_at=2**33)
        items[6] = Item(items[6].key, items[6].version, deleted=True, expires_at=1)
        items[8] = replace(items[8], data=b"x" * LARGE)
        await stored(store, *items)
        assert sorted(await scanned(store, collection, 2)) == sorted(entries(items))
        for first in (0, 5, 8):
            assert await scanned(store, collection, 2, items[first].version) == entries(items[first:])
        assert await scanned(store, collection, since=clock.stamp()) == []

    async def test_the_children_of_all_parents_are_met(self, store: DynamoDBStore) -> None:
        items = [item(Key("runs", f"r{n}", f"s{n % 3}"), run_index=f"{n}") for n in range(9)]
        await stored(store, *items)
        assert sorted(await scanned(store, "runs", 4)) == sorted(entries(items))
        assert await scanned(store, "runs", 4, items[0].version) == entries(items)

    async def test_a_new_version_takes_the_place_of_the_old_one(self, store: DynamoDBStore) -> None:
        first, second = item(), item()
        await stored(store, first)
        await stored(store, second)
        for since in (None, first.version):
            assert await scanned(store, "sessions", since=since) == [(KEY, second.version)]

    @pytest.mark.parametrize("shards", [1, 3])
    @pytest.mark.parametrize("limit", [1, 2, 5])
    async def test_another_store_goes_on_where_a_scan_has_ended(
        self, make: MakeStore, store: DynamoDBStore, shards: int, limit: int
    ) -> None:
        async with make(shards=shards) as one, make(shards=shards) as other:
            items = [item(Key("runs", f"r{n}", "s"), run_index=f"{n}") for n in range(20)]
            await stored(one, *items)
            for since, wanted in ((None, items), (items[3].version, items[3:])):
                stores, cursor = [one, other], None
                found: list[tuple[Key, str]] = []
                while True:
                    part = await stores[0].scan("runs", limit=limit, since=since, cursor=cursor)
                    assert len(part.entries) <= limit
                    found += part.entries
                    if (cursor := part.cursor) is None:
                        break
                    stores.reverse()
                assert (sorted(found) if since is None else found) == (
                    sorted(entries(wanted)) if since is None else entries(wanted)
                )

    async def test_shards_are_merged_in_order_of_version(self, make: MakeStore, store: DynamoDBStore) -> None:
        async with make(shards=3) as sharded:
            items = [item(Key("sessions", f"{n}")) for n in range(40)]
            # One partition alone has the first versions, so that the others have to wait for it.
            items.sort(key=lambda each: (shard_of(each.key.id, 3), each.key.id))
            items = [replace(each, version=clock.stamp()) for each in items]
            await stored(sharded, *items)
            for limit in (1, 7, 1_000):
                assert await scanned(sharded, "sessions", limit, items[0].version) == entries(items)

    async def test_entries_with_one_version_are_all_met(self, make: MakeStore, store: DynamoDBStore) -> None:
        version = clock.stamp()
        async with make(shards=3) as sharded:
            items = [replace(item(Key("sessions", f"{n}")), version=version) for n in range(12)]
            await stored(sharded, *items)
            for limit in (1, 5):
                assert sorted(await scanned(sharded, "sessions", limit, version)) == sorted(entries(items))

    async def test_what_is_deleted_at_the_place_of_the_cursor_stops_no_scan(self, store: DynamoDBStore) -> None:
        items = [item(Key("sessions", f"{n}")) for n in range(6)]
        await stored(store, *items)
        first = await store.scan("sessions", limit=2, since=items[0].version)
        assert list(first.entries) == entries(items[:2])
        await stored(store, replace(items[1], version=(last := clock.stamp())))
        rest = await store.scan("sessions", limit=10, since=items[0].version, cursor=first.cursor)
        assert [*rest.entries] == [*entries(items[2:]), (items[1].key, last)]

    async def test_each_part_is_one_request_a_partition(self, make: MakeStore, store: DynamoDBStore) -> None:
        items = [item(Key("sessions", f"{n}")) for n in range(10)]
        await stored(store, *items)
        assert await requests(store, store.scan("sessions", limit=3)) == {"Scan": 1}
        assert await requests(store, store.scan("sessions", limit=3, since=items[0].version)) == {"Query": 1}
        async with make(shards=3) as sharded:
            assert await requests(sharded, sharded.scan("sessions", limit=6, since=items[0].version)) == {"Query": 3}

    async def test_a_store_without_the_index_by_version_is_to_be_provisioned_again(self, make: MakeStore) -> None:
        async with make() as alone:
            await alone.provision(["sessions"])
            each = item()
            await stored(alone, each)
            assert await scanned(alone, "sessions") == entries([each])
            with pytest.raises(NotProvisioned, match="shard-version-index") as raised:
                await alone.scan("sessions", limit=1, since=each.version)
            assert "provision()` again" in raised.value.remedy
            assert (raised.value.store, raised.value.collection) == (alone.name, "sessions")
            for since in (None, each.version):
                with pytest.raises(NotProvisioned):
                    await alone.scan("runs", limit=1, since=since)

    async def test_an_index_that_is_still_being_filled_is_not_ready(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        message = "Cannot read from backfilling global secondary index: shard-version-index"
        error: Any = {"Error": {"Code": "ValidationException", "Message": message}}
        inject(store, "query", boto.ClientError(error, "Query"))
        with pytest.raises(IndexNotReady) as raised:
            await store.scan("sessions", limit=1, since=clock.stamp())
        assert (raised.value.index, raised.value.collection) == ("shard-version-index", "sessions")

    async def test_throttling_is_waited_out_until_the_deadline(
        self, make: MakeStore, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        each = item()
        await stored(store, each)
        for name, since in (("scan", None), ("query", each.version)):
            script = inject(store, name, *[refusal("ThrottlingException")] * 2)
            assert await scanned(store, "sessions", since=since) == entries([each])
            assert script.calls == 3
            async with make(deadline=0.3) as hasty:
                inject(hasty, name, refusal("ThrottlingException"), forever=True)
                with anyio.fail_after(HANG), pytest.raises(Throttled):
                    await hasty.scan("sessions", limit=1, since=since)

    @pytest.mark.parametrize("since", [None, "00000000000a-0000-000000000000"])
    async def test_what_cannot_be_scanned_is_invalid(self, store: DynamoDBStore, since: str | None) -> None:
        for call in (
            store.scan("cats", limit=1, since=since),
            store.scan("sessions", limit=0, since=since),
            store.scan("sessions", limit=1, since=since, cursor="x"),
        ):
            with pytest.raises(InvalidRecord):
                await call

    async def test_a_scan_is_counted_in_read_units(self, dynamodb_local_url: str) -> None:
        async with maker(dynamodb_local_url)(report_capacity="true") as store:
            await store.provision(["sessions"], replicated=True)
            items = [item(Key("sessions", f"{n}"), "x" * 4_000) for n in range(4)]
            await stored(store, *items)
            for since, least, most in ((None, 4, 8), (items[0].version, 0.5, 0.5)):
                before = store.usage.copy()
                await store.scan("sessions", limit=10, since=since)
                assert least <= store.usage.since(before).read_units <= most

    async def test_lists_and_counts_do_not_show_tombstones(self, make: MakeStore) -> None:
        async with make() as store:
            await store.provision(replicated=True)
            for name, declared in DECLARED.items():
                live, dead = filled(name, 1), filled(name, 2)
                await stored(store, live, dead)
                await stored(store, Item(dead.key, clock.stamp(), deleted=True, expires_at=2**33))
                for index in declared.indexes:
                    inside = index.partition in (SHARD, declared.parent_field)
                    value = live.fields.get(index.partition, "")
                    query = Query(
                        name, index.sort, parent=live.key.parent, equals={} if inside else {index.partition: value}
                    )
                    assert await listed(store, query) == [live.key.id]
                    assert await store.count(query) == 1


class TestChunks:
    """Payloads over an item's 400 KB are in chunks, which come and go with their item."""

    @pytest.mark.parametrize("size", [399_000, 400_001, 409_600, LARGE, DynamoDBStore.limits.payload_bytes])
    async def test_payloads_of_any_size_come_back(self, store: DynamoDBStore, size: int) -> None:
        for data in (secrets.token_bytes(size), "é" * (size // 2)):
            each = item(data=data)
            await stored(store, each)
            assert await read(store) == each

    async def test_old_chunks_go_with_what_replaces_them(self, store: DynamoDBStore) -> None:
        await stored(store, item(data=b"x" * LARGE))
        assert await chunks(store) == 3
        await stored(store, item(data=b"y" * 500_000))
        assert await chunks(store) == 2
        await stored(store, item())
        assert await chunks(store) == 0

    async def test_chunks_go_with_a_deleted_item(self, store: DynamoDBStore) -> None:
        await stored(store, item(data=b"x" * LARGE))
        gone = clock.stamp()
        assert await write(store, Delete(KEY, gone)) == (Stored(gone),)
        assert await chunks(store) == 0
        await stored(store, item(data=b"x" * LARGE))
        await stored(store, Item(KEY, clock.stamp(), deleted=True))
        assert await chunks(store) == 0

    async def test_a_refused_write_leaves_item_and_chunks_as_they_were(self, store: DynamoDBStore) -> None:
        first = item(data=b"x" * LARGE)
        await stored(store, first)
        for mutation in (
            Put(item(data=b"y" * LARGE), Condition(absent=True)),
            Put(item(), Condition(owner="bob")),
            Delete(KEY, clock.stamp(), Condition(owner="bob")),
        ):
            (outcome,) = await write(store, mutation)
            assert isinstance(outcome, Refused)
            assert outcome.version == first.version
        assert await chunks(store) == 3
        assert await read(store) == first

    async def test_large_and_small_payloads_go_together_in_one_atomic_write(self, store: DynamoDBStore) -> None:
        await stored(store, item(data=b"x" * LARGE))
        new, other = item(data="small"), item(Key("sessions", "other"), b"y" * LARGE)
        outcomes = await write(store, Put(new), Put(other), Delete(Key("sessions", "no"), clock.stamp()), atomic=True)
        assert outcomes == (Refused("atomic"), Refused("atomic"), Refused("absent"))
        assert await chunks(store) == 3
        assert await write(store, Put(new), Put(other), atomic=True) == (Stored(new.version), Stored(other.version))
        assert (await store.get([KEY, other.key])).items == (new, other)
        assert await chunks(store) == 3

    async def test_an_atomic_write_with_more_chunks_than_a_transaction_holds_is_invalid(
        self, store: DynamoDBStore
    ) -> None:
        small = [item(Key("sessions", f"{n}")) for n in range(98)]
        with pytest.raises(InvalidRecord, match="102 actions"):
            await write(store, *map(Put, small), Put(item(data=b"x" * LARGE)), atomic=True)
        assert await requests(store, store.get([small[0].key])) == {"GetItem": 1}
        assert await read(store, small[0].key) is None

    async def test_readers_see_whole_payloads_while_they_are_replaced(self, store: DynamoDBStore) -> None:
        versions = [item(data=bytes([n]) * (LARGE if n % 3 else 10)) for n in range(12)]
        await stored(store, versions[0])
        done = asyncio.Event()
        seen: list[Item] = []

        async def replace_it() -> None:
            for each in versions[1:]:
                await stored(store, each)
            done.set()

        async def read_it() -> None:
            while not done.is_set():
                found = await read(store)
                page = await store.query(Query("sessions", "updated_at"), limit=5)
                assert found is not None
                seen.extend([found, *page.items])

        await gather([replace_it, read_it])
        assert seen
        assert all(each in versions for each in seen)

    @pytest.mark.parametrize("after", ["small", "large", "gone"])
    async def test_an_item_replaced_between_reading_it_and_its_chunks_is_read_again(
        self, store: DynamoDBStore, inject: Callable[..., Script], after: str
    ) -> None:
        await stored(store, item(data=b"x" * LARGE))
        newer = item(data="{}" if after == "small" else b"y" * 500_000)

        async def replace_it_first(method: Any, request: dict[str, Any]) -> Any:
            mutation = Delete(KEY, newer.version) if after == "gone" else Put(newer)
            assert await write(store, mutation) == (Stored(newer.version),)
            return await method(**request)

        script = inject(store, "batch_get_item", replace_it_first)
        assert await read(store) == (None if after == "gone" else newer)
        assert script.calls >= 1

    async def test_missing_chunks_are_an_error_and_never_half_a_payload(self, store: DynamoDBStore) -> None:
        await stored(store, item(data=b"x" * LARGE))
        found = await driver(store).scan(TableName=store._chunks.name)
        key = {name: found["Items"][1][name] for name in store._chunks.keys}
        await driver(store).delete_item(TableName=store._chunks.name, Key=key)
        with pytest.raises(CloudDBError, match="chunks of the payload are missing"):
            await read(store)
        with pytest.raises(CloudDBError, match="chunks of the payload are missing"):
            await store.query(Query("sessions", "updated_at"), limit=5)
        await stored(store, item())
        assert await chunks(store) == 0

    async def test_a_write_that_lost_a_race_for_a_chunked_item_takes_the_new_chunks_along(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        await stored(store, item(data=b"x" * LARGE))
        between, last = item(data=b"y" * LARGE), item()

        async def another_writer_first(method: Any, request: dict[str, Any]) -> Any:
            await stored(store, between)
            return await method(**request)

        inject(store, "transact_write_items", another_writer_first)
        await stored(store, last)
        assert await read(store) == last
        assert await chunks(store) == 0


class TestLostAnswers:
    """A write whose answer is lost is sent again, and its outcome says what is known."""

    @pytest.mark.parametrize("size", [2, LARGE])
    async def test_a_put_that_was_applied_is_found_stored(
        self, store: DynamoDBStore, inject: Callable[..., Script], size: int
    ) -> None:
        each = item(data=b"x" * size)
        script = inject(store, "put_item" if size == 2 else "transact_write_items", lose)
        assert await write(store, Put(each, Condition(absent=True))) == (Stored(each.version),)
        assert script.calls == 2
        assert await read(store) == each

    async def test_a_delete_that_was_applied_is_not_refused_as_absent(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        await stored(store, item())
        inject(store, "delete_item", lose)
        gone = clock.stamp()
        assert await write(store, Delete(KEY, gone)) == (Stored(gone),)
        assert await write(store, Delete(KEY, gone)) == (Refused("absent"),)

    async def test_an_atomic_write_that_was_applied_is_found_stored(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        mutations = [Put(item(), Condition(absent=True)), Put(run(1), Condition(absent=True))]
        inject(store, "transact_write_items", lose)
        assert await write(store, *mutations, atomic=True) == tuple(Stored(each.version) for each in mutations)

    async def test_a_write_never_answered_may_have_been_applied(
        self, make: MakeStore, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        async with make(deadline=0.3) as hasty:
            inject(hasty, "put_item", boto.ReadTimeoutError(endpoint_url="injected"), forever=True)
            (outcome,) = await write(hasty, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, StoreUnavailable)
        assert outcome.applied
        assert outcome.error.key == KEY

    async def test_a_write_overtaken_while_its_answer_was_lost_is_not_called_refused(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        await stored(store, item())

        async def lose_and_overtake(method: Any, request: dict[str, Any]) -> Any:
            await method(**request)
            await stored(store, item())
            raise boto.ConnectionClosedError(endpoint_url="injected")

        inject(store, "put_item", lose_and_overtake)
        (outcome,) = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert outcome.applied
        assert isinstance(outcome.error, StoreUnavailable)

    async def test_a_write_that_surely_was_not_applied_stays_refused(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        first = item()
        await stored(store, first)
        inject(store, "put_item", boto.ReadTimeoutError(endpoint_url="injected"))
        (outcome,) = await write(store, Put(item(), Condition(absent=True)))
        assert outcome == Refused("exists", first.version, first.fields)


class TestLoad:
    """Throttling and partial answers are waited out until the deadline, then raised; never a short success."""

    @pytest.mark.parametrize(
        "error",
        [
            refusal("ProvisionedThroughputExceededException"),
            refusal("ThrottlingException"),
            refusal("InternalServerError", ResponseMetadata={"HTTPStatusCode": 500}),
        ],
        ids=str,
    )
    async def test_what_passes_is_retried(
        self, store: DynamoDBStore, inject: Callable[..., Script], error: boto.ClientError
    ) -> None:
        each = item()
        writes = inject(store, "put_item", error, error)
        await stored(store, each)
        reads = inject(store, "get_item", error, error)
        assert await read(store) == each
        assert (writes.calls, reads.calls) == (3, 3)

    async def test_a_transaction_in_conflict_is_retried(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
        conflict = refusal("TransactionCanceledException", CancellationReasons=reasons)
        script = inject(store, "transact_write_items", conflict, conflict)
        mutations = [Put(item()), Put(run(1))]
        assert await write(store, *mutations, atomic=True) == tuple(Stored(each.version) for each in mutations)
        assert script.calls == 3

    async def test_throttling_to_the_deadline_is_throttled(
        self, make: MakeStore, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        async with make(deadline=0.3) as hasty:
            for name in ("put_item", "get_item", "query", "transact_write_items"):
                inject(hasty, name, refusal("ThrottlingException"), forever=True)
            with anyio.fail_after(HANG):
                with pytest.raises(Throttled) as raised:
                    await read(hasty)
                assert isinstance(raised.value.__cause__, boto.ClientError)
                with pytest.raises(Throttled):
                    await hasty.query(Query("sessions", "updated_at"), limit=1)
                outcomes = [
                    *await write(hasty, Put(item())),
                    *await write(hasty, Put(item()), Put(run(1)), atomic=True),
                ]
        for outcome in outcomes:
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, Throttled)
            assert not outcome.applied

    async def test_unprocessed_keys_are_asked_for_to_the_end(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        items = [item(Key("sessions", f"{n}")) for n in range(6)] + [run(n) for n in range(3)]
        await stored(store, *items)

        async def answer_one(method: Any, request: dict[str, Any]) -> Any:
            table, asked = next(iter(request["RequestItems"].items()))
            rest = {**request["RequestItems"], table: {**asked, "Keys": asked["Keys"][1:]}}
            answer = await method(RequestItems={table: {**asked, "Keys": asked["Keys"][:1]}})
            return {**answer, "UnprocessedKeys": {name: each for name, each in rest.items() if each["Keys"]}}

        async def answer_none(method: Any, request: dict[str, Any]) -> Any:
            return {"Responses": {}, "UnprocessedKeys": request["RequestItems"]}

        script = inject(store, "batch_get_item", answer_one, answer_none, answer_one)
        assert (await store.get([each.key for each in items])).items == tuple(items)
        assert script.calls == 4

    async def test_keys_unprocessed_to_the_deadline_are_throttled(
        self, make: MakeStore, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        async def answer_none(method: Any, request: dict[str, Any]) -> Any:
            return {"Responses": {}, "UnprocessedKeys": request["RequestItems"]}

        async with make(deadline=0.3) as hasty:
            inject(hasty, "batch_get_item", answer_none, forever=True)
            with pytest.raises(Throttled):
                await hasty.get([KEY, Key("sessions", "other")])


class TestUnreachable:
    """An endpoint that does not listen or does not answer is unavailable within the deadline."""

    @pytest.fixture
    async def silent_port(self) -> AsyncIterator[int]:
        """A port that takes requests and never answers."""

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def test_nobody_listens(self, unused_tcp_port: int) -> None:
        async with DynamoDBStore(endpoint_url=f"http://127.0.0.1:{unused_tcp_port}", deadline=1.0) as store:
            with anyio.fail_after(HANG):
                with pytest.raises(StoreUnavailable, match="get_item"):
                    await read(store)
                with pytest.raises(StoreUnavailable):
                    await store.provision()
                (outcome,) = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, StoreUnavailable)

    async def test_nobody_answers(self, silent_port: int) -> None:
        async with DynamoDBStore(endpoint_url=f"http://127.0.0.1:{silent_port}", deadline=0.5) as store:
            with anyio.fail_after(HANG):
                for call in (read(store), store.query(Query("sessions", "updated_at"), limit=1), store.provision()):
                    with pytest.raises(StoreUnavailable):
                        await call
                alone = await write(store, Put(item()))
                together = await write(store, Put(item()), Put(run(1)), atomic=True)
        for outcome in (*alone, *together):
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, StoreUnavailable)
            assert outcome.applied

    @pytest.mark.parametrize(
        ("met", "kind"),
        [(refusal("ThrottlingException"), Throttled), (refusal("InternalServerError"), StoreUnavailable)],
    )
    async def test_a_call_that_is_cut_off_says_what_it_had_met_before(
        self,
        met: boto.ClientError,
        kind: type[CloudDBError],
        make: MakeStore,
        store: DynamoDBStore,
        inject: Callable[..., Script],
    ) -> None:
        async def hang(method: Any, request: dict[str, Any]) -> Any:
            await asyncio.Event().wait()

        async with make(deadline=1.0) as hasty:
            inject(hasty, "get_item", met, hang)
            with pytest.raises(kind, match="within the deadline; before that, get_item failed: ") as raised:
                await read(hasty)
            assert isinstance(raised.value.__cause__, boto.ClientError)
            inject(hasty, "get_item", hang)
            with pytest.raises(StoreUnavailable, match="within the deadline "):
                await read(hasty)

    async def test_many_writes_end_at_the_deadline_and_each_says_what_became_of_it(
        self, make: MakeStore, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        async def pass_on(method: Any, request: dict[str, Any]) -> Any:
            return await method(**request)

        async def hang(method: Any, request: dict[str, Any]) -> Any:
            await asyncio.Event().wait()

        items = [item(Key("sessions", f"{n:04d}")) for n in range(1_000)]
        async with make(deadline=10.0) as hasty:
            inject(hasty, "put_item", *[pass_on] * 40, *[hang] * 1_000)
            with anyio.fail_after(2 * HANG):
                outcomes = await write(hasty, *map(Put, items))
        done = [isinstance(each, Stored) for each in outcomes]
        failed = [each for each in outcomes if isinstance(each, Failed)]
        assert (done.count(True), len(failed)) == (40, 960)
        assert all(isinstance(each.error, StoreUnavailable) for each in failed)
        assert sum(each.applied for each in failed) == CONCURRENCY
        assert sum("was not sent" in str(each.error) for each in failed) == 960 - CONCURRENCY
        found = (await store.get([each.key for each in items])).items
        assert [each is not None for each in found] == done

    async def test_a_call_cancelled_in_the_middle_leaves_no_task_and_a_store_that_works(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        sent = asyncio.Event()

        async def hang(method: Any, request: dict[str, Any]) -> Any:
            sent.set()
            await asyncio.Event().wait()

        for name, call in (
            ("get_item", lambda: read(store)),
            ("batch_get_item", lambda: store.get([Key("sessions", f"{n}") for n in range(250)])),
            ("put_item", lambda: write(store, *(Put(item(Key("sessions", f"{n}"))) for n in range(100)))),
            ("transact_write_items", lambda: write(store, Put(item()), Put(run(1)), atomic=True)),
        ):
            sent.clear()
            before = asyncio.all_tasks()
            script = inject(store, name, hang, forever=True)
            task = asyncio.ensure_future(call())
            await sent.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() <= before
            script.steps.clear()
        await stored(store, item(), run(1))


class TestConfiguration:
    """Region, credentials and tables that are missing are told by what to do about them."""

    @pytest.fixture(autouse=True)
    def bare_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    async def test_no_region(self) -> None:
        with pytest.raises(ConfigurationError, match="no AWS region"):
            await DynamoDBStore().open()

    async def test_no_credentials(self) -> None:
        store = DynamoDBStore("eu-west-1")
        with pytest.raises(ConfigurationError, match="no AWS credentials"):
            await store.open()
        with pytest.raises(LifecycleError):
            await read(store)

    @pytest.mark.parametrize(
        ("region", "endpoint_url", "profile"),
        [("not a region", None, None), ("eu-west-1", "no url", None), ("eu-west-1", None, "nobody")],
    )
    async def test_malformed_settings(
        self, monkeypatch: pytest.MonkeyPatch, region: str, endpoint_url: str | None, profile: str | None
    ) -> None:
        if profile is not None:
            monkeypatch.setenv("AWS_PROFILE", profile)
        with pytest.raises(ConfigurationError):
            await DynamoDBStore(region, endpoint_url=endpoint_url).open()

    @pytest.mark.parametrize("arguments", [{"shards": 0}, {"deadline": 0.0}])
    def test_arguments_out_of_range(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            DynamoDBStore("eu-west-1", **arguments)

    @pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
    async def test_the_environments_region_and_credentials_count(
        self, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "ap-south-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
        async with DynamoDBStore() as store:
            assert store.name == "dynamodb://ap-south-1"
            assert driver(store).meta.region_name == "ap-south-1"
            assert driver(store).meta.endpoint_url == "https://dynamodb.ap-south-1.amazonaws.com"

    async def test_a_profiles_region_and_credentials_count(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "config").write_text(
            "[profile work]\nregion = sa-east-1\naws_access_key_id = one\naws_secret_access_key = two\n"
        )
        monkeypatch.setenv("AWS_PROFILE", "work")
        async with DynamoDBStore() as store:
            assert driver(store).meta.region_name == "sa-east-1"

    async def test_an_emulator_needs_neither(self, make: MakeStore) -> None:
        async with make() as store:
            await store.provision()
            await stored(store, item())

    @pytest.mark.parametrize("code", ["AccessDeniedException", "ExpiredTokenException", "InvalidSignatureException"])
    async def test_a_denied_call_is_a_matter_of_configuration(
        self, store: DynamoDBStore, inject: Callable[..., Script], code: str
    ) -> None:
        reads, writes = (inject(store, name, refusal(code)) for name in ("get_item", "put_item"))
        with pytest.raises(ConfigurationError, match=code):
            await read(store)
        (outcome,) = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ConfigurationError)
        assert not outcome.applied
        assert (reads.calls, writes.calls) == (1, 1)

    async def test_a_missing_table_is_not_provisioned(self, make: MakeStore) -> None:
        async with make() as store:
            calls: Sequence[Awaitable[object]] = (
                read(store),
                store.get([KEY, Key("runs", "r", "s")]),
                store.query(Query("sessions", "updated_at"), limit=1),
                store.count(Query("runs", "run_index", parent="s")),
            )
            for call in calls:
                with pytest.raises(NotProvisioned):
                    await call
            for outcome in (
                *await write(store, Put(item()), Delete(Key("runs", "r", "s"), clock.stamp())),
                *await write(store, Put(item()), Put(run(1)), atomic=True),
                *await write(store, Put(item(data=b"x" * LARGE))),
            ):
                assert isinstance(outcome, Failed)
                assert isinstance(outcome.error, NotProvisioned)
                assert not outcome.applied

    async def test_a_missing_index_is_not_provisioned(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        message = "The table does not have the specified index: x"
        error: Any = {"Error": {"Code": "ValidationException", "Message": message}}
        inject(store, "query", boto.ClientError(error, "Query"))
        with pytest.raises(NotProvisioned, match="specified index"):
            await store.query(Query("sessions", "updated_at"), limit=1)

    async def test_an_index_that_is_still_being_filled_is_not_ready(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        message = "Cannot read from backfilling global secondary index"
        error: Any = {"Error": {"Code": "ValidationException", "Message": message}}
        inject(store, "query", boto.ClientError(error, "Query"))
        with pytest.raises(IndexNotReady, match="backfilling") as raised:
            await store.query(Query("sessions", "updated_at"), limit=1)
        assert (raised.value.index, raised.value.collection) == ("shard-updated_at-index", "sessions")

    def test_importing_the_module_does_not_import_the_driver(self) -> None:
        code = "import sys, agno_clouddb.stores.dynamodb; sys.exit('botocore' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)


class TestProvision:
    """Provisioning creates what is missing, as often and by as many as like to."""

    async def describe(self, store: DynamoDBStore, collection: str = "sessions") -> dict[str, Any]:
        table = store._layouts[collection].table.name
        described: dict[str, Any] = (await driver(store).describe_table(TableName=table))["Table"]
        return described

    async def indexes(self, store: DynamoDBStore, collection: str) -> set[str]:
        described = await self.describe(store, collection)
        kinds = ("LocalSecondaryIndexes", "GlobalSecondaryIndexes")
        return {each["IndexName"] for kind in kinds for each in described.get(kind, ())}

    async def test_tables_have_their_indexes_and_expire_items(self, store: DynamoDBStore) -> None:
        for name, declared in COLLECTIONS.items():
            assert await self.indexes(store, name) == {index.name for index in declared.indexes}
        for table in (store._chunks, *(store._layouts[name].table for name in COLLECTIONS)):
            expiry = await driver(store).describe_time_to_live(TableName=table.name)
            assert expiry["TimeToLiveDescription"]["AttributeName"] == "expires_at"
            assert expiry["TimeToLiveDescription"]["TimeToLiveStatus"] in ("ENABLED", "ENABLING")

    async def test_what_is_there_is_left_alone(self, store: DynamoDBStore) -> None:
        await stored(store, item())
        spent = await requests(store, store.provision())
        assert spent.keys() == {"DescribeTable", "DescribeTimeToLive"}
        assert await read(store) is not None

    async def test_only_the_chosen_collections_have_tables_beside_the_chunks(self, make: MakeStore) -> None:
        async with make() as store:
            await store.provision(["runs"])
            pages = driver(store).get_paginator("list_tables").paginate()
            mine = [name async for page in pages for name in page["TableNames"] if name.startswith(prefix(store))]
            assert sorted(mine) == [f"{prefix(store)}chunks", f"{prefix(store)}runs"]
            large = Item(Key("runs", "r", "s"), clock.stamp(), {"run_index": "1"}, b"x" * LARGE)
            await stored(store, large)
            assert await read(store, large.key) == large
            with pytest.raises(NotProvisioned, match="sessions"):
                await read(store)

    async def test_a_store_of_a_fan_out_has_one_table_more_and_an_index_by_version_on_the_others(
        self, make: MakeStore
    ) -> None:
        async with make() as store:
            await store.provision(replicated=True)
            for name, declared in DECLARED.items():
                own = {index.name for index in declared.indexes}
                by_version = {"shard-version-index"} if name in COLLECTIONS else set()
                assert await self.indexes(store, name) == own | by_version
            expiry = await driver(store).describe_time_to_live(TableName=f"{prefix(store)}replication")
            assert expiry["TimeToLiveDescription"]["AttributeName"] == "expires_at"

    async def test_an_index_by_version_that_the_table_of_hints_has_already_is_left_alone(self, make: MakeStore) -> None:
        async with make() as store:
            layout = layouts(prefix(store))["replication"]
            earlier = replace(layout.table, global_=(*layout.table.global_, VERSION_INDEX))
            await driver(store).create_table(**earlier.create_request())
            each = filled("replication", 1)
            for _ in range(2):
                await store.provision([], replicated=True)
                await stored(store, each)
            assert await self.indexes(store, "replication") == {"target-missed-index", "shard-version-index"}
            assert await scanned(store, "replication") == entries([each])

    async def test_only_a_store_of_a_fan_out_has_the_table_for_it(self, make: MakeStore) -> None:
        async with make() as store:
            await store.provision(["runs"])
            with pytest.raises(NotProvisioned, match="replication"):
                await read(store, Key("replication", "x"))
            await store.provision([], replicated=True)
            each = filled("replication", 1)
            await stored(store, each)
            assert await read(store, each.key) == each
            assert await listed(store, Query("replication", "missed", equals={"target": "v"})) == [each.key.id]

    async def test_a_table_in_use_gets_its_index_by_version_with_what_is_in_it(self, make_alone: MakeStore) -> None:
        async with make_alone() as store:
            await store.provision(["sessions", "runs"])
            items = {
                "sessions": [item(Key("sessions", f"{n}")) for n in range(6)],
                "runs": [run(n) for n in range(6)],
            }
            for name, own in items.items():
                own[3] = Item(own[3].key, own[3].version, deleted=True, expires_at=2**33)
                await stored(store, *own)
                assert "shard-version-index" not in await self.indexes(store, name)
            written = asyncio.Event()

            async def use_it() -> None:
                while not written.is_set():
                    items["runs"].append(run(len(items["runs"])))
                    await stored(store, items["runs"][-1])

            async def provision_it() -> None:
                await store.provision(["sessions", "runs"], replicated=True)
                written.set()

            await gather([use_it, provision_it])
            for name, own in items.items():
                assert await scanned(store, name, 4, own[0].version) == entries(own)
            await store.provision(["sessions", "runs"])
            assert "shard-version-index" in await self.indexes(store, "runs")

    async def test_an_unknown_collection_is_invalid_and_nothing_is_made(self, make: MakeStore) -> None:
        async with make() as store:
            with pytest.raises(InvalidRecord, match="cats"):
                await store.provision(["runs", "cats"])
            with pytest.raises(NotProvisioned):
                await read(store, Key("runs", "r", "s"))

    async def test_progress_is_told_table_by_table_and_each_line_once(
        self, make: MakeStore, inject: Callable[..., Script]
    ) -> None:
        lines: list[str] = []

        async def build_an_index(method: Any, request: dict[str, Any]) -> Any:
            answer = await method(**request)
            for index in answer["Table"].get("GlobalSecondaryIndexes", ()):
                if index["IndexName"] == "user_id-updated_at-index":
                    index["IndexStatus"] = "CREATING"
            return answer

        async with make() as store:
            await store.provision(["memories"])
            inject(store, "describe_table", *[build_an_index] * 5)
            await store.provision(["memories"], progress=lines.append)
            name = store._layouts["memories"].table.name
            told = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]
            assert told == ["waiting for user_id-updated_at-index", "ready"]
            await store.provision(["memories", "spans"], progress=lines.append)
            name = store._layouts["spans"].table.name
            told = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]
            assert (told[0], told[-2:]) == ("creating", ["turning on expiry", "ready"])
            assert len(set(told)) == len(told)

    async def test_several_at_once(self, make: MakeStore) -> None:
        async with make() as one, make() as other:
            await gather([one.provision, other.provision, one.provision])
            await stored(one, item())
            assert await read(other) is not None

    async def test_missing_indexes_are_added_to_a_table_with_items(self, make_alone: MakeStore) -> None:
        async with make_alone() as store:
            wanted = store._layouts["sessions"].table.create_request()
            *_, kept = indexes = wanted["GlobalSecondaryIndexes"]
            used = {each["AttributeName"] for each in (*wanted["KeySchema"], *kept["KeySchema"])}
            wanted["GlobalSecondaryIndexes"] = [kept]
            wanted["AttributeDefinitions"] = [
                each for each in wanted["AttributeDefinitions"] if each["AttributeName"] in used
            ]
            await driver(store).create_table(**wanted)
            await stored(store, item())
            lines: list[str] = []
            spent = await requests(store, store.provision(["sessions"], progress=lines.append))
            assert spent["UpdateTable"] >= len(indexes) - 1
            name = store._layouts["sessions"].table.name
            assert [line for line in lines if line.startswith(f"{name}: adding ")] == [
                f"{name}: adding {each['IndexName']}" for each in indexes[:-1]
            ]
            for query in (
                Query("sessions", "created_at", equals={"user_id": "ann"}),
                Query("sessions", "created_at"),
            ):
                page = await store.query(query, limit=5)
                assert [each.key for each in page.items] == [KEY]

    async def test_a_table_with_other_keys_is_refused(self, make: MakeStore) -> None:
        async with make() as store:
            request = store._layouts["sessions"].table.create_request()
            del request["GlobalSecondaryIndexes"]
            request["KeySchema"] = [{"AttributeName": "id", "KeyType": "HASH"}]
            request["AttributeDefinitions"] = [{"AttributeName": "id", "AttributeType": "S"}]
            await driver(store).create_table(**request)
            with pytest.raises(ConfigurationError, match="another kind"):
                await store.provision()

    async def test_a_table_without_its_local_index_is_refused(self, make: MakeStore) -> None:
        async with make() as store:
            request = store._layouts["runs"].table.create_request()
            del request["LocalSecondaryIndexes"]
            request["AttributeDefinitions"] = [
                each for each in request["AttributeDefinitions"] if each["AttributeName"] != "run_index"
            ]
            await driver(store).create_table(**request)
            with pytest.raises(ConfigurationError, match="can only be made with the table"):
                await store.provision()

    async def test_an_index_that_projects_too_little_is_refused(self, make: MakeStore) -> None:
        async with make() as store:
            request = store._layouts["sessions"].table.create_request()
            for index in request["GlobalSecondaryIndexes"]:
                index["Projection"] = {"ProjectionType": "KEYS_ONLY"}
            await driver(store).create_table(**request)
            with pytest.raises(ConfigurationError, match="lacks component_id, session_type, user_id"):
                await store.provision()

    async def test_a_refusal_to_turn_on_expiry_is_an_error(
        self, store: DynamoDBStore, inject: Callable[..., Script]
    ) -> None:
        async def off(method: Any, request: dict[str, Any]) -> Any:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}

        inject(store, "describe_time_to_live", off, forever=True)
        inject(store, "update_time_to_live", refusal("ValidationException"), forever=True)
        with pytest.raises(CloudDBError, match="expiry cannot be turned on"):
            await store.provision()
