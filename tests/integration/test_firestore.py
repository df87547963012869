"""What only FirestoreStore has, on Google's emulator: tokens, requests and documents counted, chunks, lost answers."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    IndexNotReady,
    InvalidRecord,
    LifecycleError,
    QueryNotIndexed,
    RecordTooLarge,
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
    Page,
    Payload,
    Put,
    Query,
    Range,
    Refused,
    Stored,
    Tally,
)
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.firestore import FirestoreStore
from agno_clouddb.stores.firestore.client import Connection
from agno_clouddb.stores.firestore.faults import Backoff, Fault
from agno_clouddb.stores.firestore.indexes import pairs
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.scans import encode_cursor
from agno_clouddb.stores.schema import DECLARED, Collection

pytestmark = pytest.mark.firestore

HANG = 30.0  # seconds after which something counts as never happening
KEY = Key("sessions", "a/b")
BY_CREATION = Query("sessions", "created_at")
MakeStore = Callable[..., Awaitable[FirestoreStore]]

clock = HybridClock()


def item(key: Key = KEY, data: Payload = "{}", **fields: str) -> Item:
    return Item(key, clock.stamp(), {"created_at": "2025", "user_id": "ann", **fields}, data)


async def write(store: FirestoreStore, *mutations: Mutation, atomic: bool = False) -> tuple[Outcome, ...]:
    return await store.write(mutations, atomic=atomic)


async def stored(store: FirestoreStore, each: Item) -> Item:
    assert await write(store, Put(each)) == (Stored(each.version),)
    return each


async def read(store: FirestoreStore, key: Key = KEY) -> Item | None:
    return (await store.get([key])).items[0]


async def requests(store: FirestoreStore, call: Awaitable[object]) -> dict[str, int]:
    before = store.usage.copy()
    await call
    return dict(store.usage.since(before).requests)


@pytest.fixture
def emulator_host(firestore_url: str) -> str:
    return parse_qs(urlsplit(firestore_url).query)["emulator_host"][0]


@pytest.fixture
def prefix() -> str:
    return f"t{secrets.token_hex(6)}_"


@pytest.fixture
async def make_store(emulator_host: str, prefix: str) -> AsyncIterator[MakeStore]:
    """Makes open stores over the same collections."""
    made: list[FirestoreStore] = []

    async def make(**options: Any) -> FirestoreStore:
        settings = {"emulator_host": emulator_host, "prefix": prefix, "deadline": 60.0, **options}
        made.append(FirestoreStore("test-project", **settings))
        await made[-1].open()
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


@pytest.fixture
async def store(make_store: MakeStore) -> FirestoreStore:
    return await make_store()


@pytest.fixture
async def other(make_store: MakeStore) -> FirestoreStore:
    """Another process, as it were: it shares no tokens with ``store``."""
    return await make_store()


@pytest.fixture
async def client(emulator_host: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Google's own client, which sees documents as they are."""
    from google.cloud.firestore import AsyncClient

    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)
    made = AsyncClient(project="test-project")
    yield made
    await made._firestore_api.transport.close()


@pytest.fixture
def chunks(client: Any, prefix: str) -> Callable[[], Awaitable[list[str]]]:
    """Lists the chunk documents beneath this test's collections."""

    async def paths() -> list[str]:
        found = [each.reference.path async for each in client.collection_group("chunks").select([]).stream()]
        return sorted(path for path in found if path.startswith(prefix))

    return paths


class TestTokens:
    async def test_a_new_document_is_one_commit(self, store: FirestoreStore) -> None:
        assert await requests(store, stored(store, item())) == {"Commit": 1}

    async def test_a_document_written_before_is_one_commit(self, store: FirestoreStore) -> None:
        await stored(store, item())
        assert await requests(store, stored(store, item())) == {"Commit": 1}

    async def test_a_document_read_before_is_one_commit(self, store: FirestoreStore, other: FirestoreStore) -> None:
        await stored(other, item())
        await read(store)
        assert await requests(store, stored(store, item())) == {"Commit": 1}

    async def test_a_document_listed_before_is_one_commit(self, store: FirestoreStore, other: FirestoreStore) -> None:
        await stored(other, item())
        await store.query(BY_CREATION, limit=1)
        assert await requests(store, write(store, Delete(KEY, clock.stamp()))) == {"Commit": 1}

    async def test_a_document_deleted_before_is_one_commit(self, store: FirestoreStore) -> None:
        await stored(store, item())
        await write(store, Delete(KEY, clock.stamp()))
        assert await requests(store, stored(store, item())) == {"Commit": 1}

    async def test_a_lost_race_is_read_and_decided_again(self, store: FirestoreStore, other: FirestoreStore) -> None:
        mine = await stored(store, item())
        await stored(other, item())
        assert await requests(store, stored(store, item())) == {"Commit": 2, "BatchGetDocuments": 1}
        theirs = await stored(other, item())
        assert await write(store, Put(item(), Condition(expected=mine.version))) == (
            Refused("version", theirs.version, theirs.fields),
        )
        assert await read(store) == theirs

    async def test_a_refusal_never_rests_on_what_was_seen_earlier(
        self, store: FirestoreStore, other: FirestoreStore
    ) -> None:
        await stored(store, item())
        await write(other, Delete(KEY, clock.stamp()))
        again = item()
        assert await write(store, Put(again, Condition(absent=True))) == (Stored(again.version),)

    async def test_every_refusal_of_an_atomic_write_is_reported(
        self, store: FirestoreStore, other: FirestoreStore
    ) -> None:
        older, missing = item(), Key("sessions", "none")
        newer = await stored(other, item())
        outcomes = await write(store, Put(older), Delete(missing, clock.stamp()), atomic=True)
        assert outcomes == (Refused("older", newer.version, newer.fields), Refused("absent"))

    async def test_forgotten_tokens_cost_a_read_and_nothing_else(self, make_store: MakeStore) -> None:
        store = await make_store(max_tokens=1)
        await stored(store, item())
        await stored(store, item(Key("sessions", "c")))
        assert await requests(store, stored(store, item())) == {"Commit": 2, "BatchGetDocuments": 1}


class TestBudgets:
    @pytest.fixture(autouse=True)
    async def sessions(self, store: FirestoreStore) -> None:
        puts = [Put(item(Key("sessions", f"{n:03}"), created_at=f"{n:03}")) for n in range(45)]
        assert all(isinstance(each, Stored) for each in await store.write(puts))

    async def test_a_page_is_one_request_and_no_document_more_than_asked_for(self, store: FirestoreStore) -> None:
        before = store.usage.copy()
        query = Query("sessions", "created_at", descending=True, equals={"user_id": "ann"})
        page = await store.query(query, limit=20)
        used = store.usage.since(before)
        assert [each.key.id for each in page.items] == [f"{n:03}" for n in range(44, 24, -1)]
        assert (used.requests, used.documents_read) == (Counter(RunQuery=1), 20)

    async def test_a_page_with_room_left_has_no_cursor(self, store: FirestoreStore) -> None:
        page = await store.query(BY_CREATION, limit=46)
        assert (len(page.items), page.cursor) == (45, None)

    async def test_filters_that_no_index_serves_still_give_full_pages(self, store: FirestoreStore) -> None:
        names = [f"{n:03}" for n in range(0, 45, 9)]
        await store.write([Put(item(Key("sessions", n), created_at=n, session_name="A Chat")) for n in names])
        query = Query("sessions", "created_at", contains={"session_name": "chat"})
        page: Page = await store.query(query, limit=4)
        assert [each.key.id for each in page.items] == names[:4]
        page = await store.query(query, limit=4, cursor=page.cursor)
        assert ([each.key.id for each in page.items], page.cursor) == (names[4:], None)

    async def test_what_is_left_over_of_the_last_documents_read_is_on_the_next_page(
        self, store: FirestoreStore
    ) -> None:
        names = [f"{n:03}" for n in range(40, 45)]
        await store.write([Put(item(Key("sessions", n), created_at=n, session_name="A Chat")) for n in names])
        query = Query("sessions", "created_at", contains={"session_name": "chat"})
        found: list[str] = []
        page = await store.query(query, limit=2)
        while page.cursor is not None:
            found += [each.key.id for each in page.items]
            page = await store.query(query, limit=2, cursor=page.cursor)
        assert found + [each.key.id for each in page.items] == names

    async def test_counting_reads_no_documents_where_an_index_has_all_filters(self, store: FirestoreStore) -> None:
        before = store.usage.copy()
        assert await store.count(Query("sessions", "created_at", equals={"user_id": "ann"})) == 45
        used = store.usage.since(before)
        assert (used.requests, used.documents_read) == (Counter(RunAggregationQuery=1), 0)

    async def test_a_get_of_one_or_several_is_one_request(self, store: FirestoreStore) -> None:
        keys = [Key("sessions", f"{n:03}") for n in (3, 99, 3, 1)]
        assert await requests(store, store.get(keys)) == {"BatchGetDocuments": 1}
        assert await requests(store, store.get(keys[:1])) == {"GetDocument": 1}
        assert await requests(store, store.get(keys[1:2])) == {"GetDocument": 1}

    async def test_several_writes_are_one_request_also_when_not_atomic(self, store: FirestoreStore) -> None:
        puts = [Put(item(Key("sessions", f"{n:03}"))) for n in range(40, 50)]
        assert await requests(store, store.write(puts)) == {"BatchWrite": 1}
        puts = [Put(item(Key("sessions", f"{n:03}"))) for n in range(40, 50)]
        assert await requests(store, store.write(puts, atomic=True)) == {"Commit": 1}

    async def test_more_bytes_than_a_request_takes_are_split(self, store: FirestoreStore) -> None:
        puts: list[Mutation] = [Put(item(Key("sessions", f"wide{n}"), os.urandom(900_000))) for n in range(6)]
        assert await requests(store, store.write(puts)) == {"BatchWrite": 2}
        assert all((await store.get([each.key for each in puts])).items)

    async def test_more_writes_than_a_request_takes_are_split(self, store: FirestoreStore) -> None:
        puts: list[Mutation] = [Put(item(Key("sessions", f"bulk{n}"))) for n in range(501)]
        assert await requests(store, store.write(puts)) == {"BatchWrite": 2}
        found = (await store.get([each.key for each in puts])).items
        assert all(found)


def numbered(declared: Collection, count: int) -> list[Item]:
    """Items of a collection with every field: numbers in a scattered order to sort by, ten values of each other one."""
    sorts = {index.sort for index in declared.indexes}

    def value(name: str, position: int, n: int) -> str:
        return f"{n * 7919 % count:06}" if name in sorts else f"v{n * (position + 1) % 10}"

    parent = "p" if declared.parent else None
    return [
        Item(
            Key(declared.name, f"i{n:05}", parent),
            clock.stamp(),
            {name: value(name, position, n) for position, name in enumerate(declared.fields)},
            "{}",
        )
        for n in range(count)
    ]


def lists(declared: Collection) -> list[Query]:
    """Every list of a collection by one field with an index, and by several of its values, both ways."""
    sorts = {index.sort for index in declared.indexes}
    parent = "p" if declared.parent else None
    shapes: list[tuple[str, dict[str, str], dict[str, tuple[str, ...]]]] = [(sort, {}, {}) for sort in sorts]
    for name, sort in pairs(declared):
        several = ("000003", "000050", "000199") if name in sorts else ("v4", "v2", "v6", "v2")
        shapes += [(sort, {name: several[0]}, {}), (sort, {}, {name: several})]
    queries = [
        Query(declared.name, sort, descending, parent, equals=equals, any_of=any_of)
        for sort, equals, any_of in shapes
        for descending in (False, True)
    ]
    return [each for each in queries if indexed(each)]


def indexed(query: Query) -> bool:
    try:
        query.check()
    except QueryNotIndexed:
        return False
    return True


class TestListsOfEveryCollection:
    @pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
    async def test_a_list_that_an_index_serves_is_one_request_of_no_more_documents_than_asked_for(
        self, store: FirestoreStore, declared: Collection
    ) -> None:
        model = MemoryStore()
        await model.open()
        await model.provision(replicated=True)
        puts = [Put(each) for each in numbered(declared, 200)]
        assert await store.write(puts) == await model.write(puts)
        queries = lists(declared)
        assert len(queries) >= 2
        for query in queries:
            before = store.usage.copy()
            page = await store.query(query, limit=20)
            used = store.usage.since(before)
            expected = await model.query(query, limit=20)
            assert page.items == expected.items, query.scope
            assert used.requests == Counter(RunQuery=1), query.scope
            assert used.documents_read == len(page.items), query.scope
            if expected.cursor is not None:
                page = await store.query(query, limit=20, cursor=page.cursor)
                assert page.items == (await model.query(query, limit=20, cursor=expected.cursor)).items, query.scope
            before = store.usage.copy()
            assert await store.count(query) == await model.count(query), query.scope
            assert store.usage.since(before).documents_read == 0


class TestAnyOf:
    @pytest.fixture(autouse=True)
    async def memories(self, store: FirestoreStore) -> MemoryStore:
        model = MemoryStore()
        await model.open()
        await model.provision()
        puts = [Put(each) for each in numbered(DECLARED["memories"], 120)]
        assert await store.write(puts) == await model.write(puts)
        return model

    @pytest.mark.parametrize(
        "query",
        [
            # 30 values, of which most do not occur.
            Query("memories", "updated_at", any_of={"user_id": tuple(f"v{n}" for n in range(5, 35))}),
            Query("memories", "updated_at", any_of={"user_id": ("v1", "v2", "v3"), "agent_id": ("v2", "v4", "v6")}),
            # 36 disjunctions, more than Firestore takes.
            Query(
                "memories",
                "updated_at",
                descending=True,
                any_of={"user_id": tuple(f"v{n}" for n in range(6)), "agent_id": tuple(f"v{n}" for n in range(1, 7))},
            ),
            Query("memories", "updated_at", equals={"user_id": "v2"}, any_of={"user_id": ("v2", "v3")}),
            Query("memories", "updated_at", equals={"user_id": "v2"}, any_of={"user_id": ("v4", "v3")}),
            Query("memories", "updated_at", equals={"agent_id": "v2"}, any_of={"user_id": ("v1", "v6")}),
            Query("memories", "updated_at", any_of={"created_at": ("000007", "000005")}),
            Query("memories", "updated_at", any_of={"updated_at": ("000050", "000020", "000119")}),
            Query("memories", "updated_at", descending=True, any_of={"updated_at": ("000050", "000050")}),
            Query(
                "memories",
                "updated_at",
                any_of={"user_id": tuple(f"v{n}" for n in range(30))},
                ranges=(Range("updated_at", "000010", "000060"),),
                equals={"agent_id": "v2"},
            ),
        ],
    )
    async def test_any_filters_by_several_values_list_what_the_model_lists(
        self, store: FirestoreStore, memories: MemoryStore, query: Query
    ) -> None:
        expected: list[Item] = []
        found: list[Item] = []
        for source, items in ((memories, expected), (store, found)):
            page = await source.query(query, limit=7)
            items += page.items
            while page.cursor is not None:
                page = await source.query(query, limit=7, cursor=page.cursor)
                items += page.items
        assert found == expected
        assert await store.count(query) == len(expected)
        assert await store.tally(query, "agent_id") == await memories.tally(query, "agent_id")


class TestTally:
    async def test_a_tally_reads_fields_only_and_leaves_out_what_is_expired_or_deleted(
        self, store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agno_clouddb.stores.firestore.reader._SCAN_STEP", 3)
        fields = {"updated_at": "1", "user_id": "ann", "agent_id": "x"}
        items = [
            Item(Key("memories", f"{n}"), clock.stamp(), {**fields, "updated_at": f"{n}"}, os.urandom(300_000))
            for n in range(6)
        ]
        items += [
            Item(Key("memories", "bob"), clock.stamp(), {**fields, "user_id": "bob", "updated_at": "7"}, "{}"),
            Item(Key("memories", "expired"), clock.stamp(), fields, "{}", expires_at=1),
            Item(Key("memories", "lives on"), clock.stamp(), fields, "{}", expires_at=4_102_444_800),
            Item(Key("memories", "tombstone"), clock.stamp(), expires_at=4_102_444_800, deleted=True),
            Item(Key("memories", "nobody's"), clock.stamp(), {"updated_at": "8"}, "{}"),
            Item(Key("memories", "another agent's"), clock.stamp(), {**fields, "agent_id": "y"}, "{}"),
        ]
        assert all(isinstance(each, Stored) for each in await store.write([Put(each) for each in items]))
        sizes: list[int] = []
        run_query = Connection.run_query

        async def sized(*arguments: Any) -> Any:
            answers = await run_query(*arguments)
            sizes.extend(each.ByteSize() for each in answers.documents)
            return answers

        monkeypatch.setattr(Connection, "run_query", sized)
        tally = await store.tally(Query("memories", "updated_at", equals={"agent_id": "x"}), "user_id")
        assert tally == {"ann": Tally(7, "0", "5"), "bob": Tally(1, "7", "7")}
        assert max(sizes) < 1000
        # What was read in part is not taken for the whole when the document is written the next time.
        newer = Item(Key("memories", "0"), clock.stamp(), fields, "{}")
        assert await write(store, Put(newer, Condition(owner="bob"))) == (
            Refused("owner", items[0].version, items[0].fields),
        )

    async def test_a_field_that_the_collection_does_not_have_is_refused(self, store: FirestoreStore) -> None:
        with pytest.raises(InvalidRecord, match="nonsense"):
            await store.tally(Query("memories", "updated_at"), "nonsense")


class TestBulk:
    async def test_thousands_of_writes_in_one_call_are_few_requests(self, store: FirestoreStore) -> None:
        items = numbered(DECLARED["memories"], 3000)
        before = store.usage.copy()
        outcomes = await store.write([Put(each) for each in items])
        assert outcomes == tuple(Stored(each.version) for each in items)
        used = store.usage.since(before)
        assert (used.requests, used.documents_written) == (Counter(BatchWrite=6), 3000)
        assert await store.count(Query("memories", "updated_at")) == 3000

    async def test_writing_over_documents_never_seen_reads_their_heads_once(
        self, store: FirestoreStore, other: FirestoreStore
    ) -> None:
        await other.write([Put(each) for each in numbered(DECLARED["memories"], 700)])
        puts = [Put(each) for each in numbered(DECLARED["memories"], 700)]
        assert await requests(store, store.write(puts)) == {"BatchWrite": 4, "BatchGetDocuments": 3}
        assert all((await store.get([each.key for each in puts])).items)

    async def test_only_the_writes_that_failed_are_sent_again(
        self, store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch_write = Connection.batch_write
        sent: list[list[str]] = []
        codes = {"003": "ABORTED", "011": "UNAVAILABLE", "017": "RESOURCE_EXHAUSTED", "019": "INVALID_ARGUMENT"}

        async def some_fail(connection: Connection, writes: Sequence[Any], until: float) -> Sequence[Any]:
            names = [each.update.name.rpartition("/")[2] for each in writes]
            sent.append(names)
            if len(sent) > 1:
                return await batch_write(connection, writes, until)
            passing = [each for each, name in zip(writes, names, strict=True) if name not in codes]
            results = iter(await batch_write(connection, passing, until))
            return [Fault(codes[name], "said so") if name in codes else next(results) for name in names]

        monkeypatch.setattr(Connection, "batch_write", some_fail)
        puts = [Put(item(Key("sessions", f"{n:03}"))) for n in range(20)]
        outcomes = await store.write(puts)
        assert [len(names) for names in sent] == [20, 3]
        assert sent[1] == ["003", "011", "017"]
        for put, outcome in zip(puts, outcomes, strict=True):
            if put.key.id == "019":
                assert isinstance(outcome, Failed)
                assert outcome.error.key == put.key
            else:
                assert outcome == Stored(put.version)


class TestIndexes:
    async def test_an_emulator_has_no_indexes_to_wait_for(self, store: FirestoreStore) -> None:
        said: list[str] = []
        await store.provision(["memories"], wait_for_indexes=True, progress=said.append)
        assert said == ["firestore://test-project: an emulator needs no indexes"]
        await store.provision(wait_for_indexes=True)

    async def test_a_list_whose_index_is_not_built_names_it(
        self, store: FirestoreStore, monkeypatch: pytest.MonkeyPatch, prefix: str
    ) -> None:
        link = "https://console.firebase.google.com/v1/r/project/p/firestore/indexes?create_composite=C"
        fault = Fault("FAILED_PRECONDITION", f"The query requires an index. You can create it here: {link}")

        async def refuse(*_: Any) -> None:
            raise fault

        monkeypatch.setattr(Connection, "run_query", refuse)
        monkeypatch.setattr(Connection, "count", refuse)
        query = Query("memories", "updated_at", descending=True, any_of={"user_id": ("a", "b")})
        for call in (store.query(query, limit=1), store.count(query), store.tally(query, "agent_id")):
            with pytest.raises(IndexNotReady) as caught:
                await call
            assert caught.value.index == f"{prefix}memories (user_id, updated_at DESCENDING)"
            assert (caught.value.link, caught.value.collection) == (link, "memories")

    async def test_a_scan_by_version_whose_index_is_not_built_names_it(
        self, store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = "The query requires a COLLECTION_GROUP_ASC index for collection runs and field version."

        async def refuse(*_: Any) -> None:
            raise Fault("FAILED_PRECONDITION", said)

        monkeypatch.setattr(Connection, "run_query", refuse)
        with pytest.raises(IndexNotReady) as caught:
            await store.scan("runs", limit=1, since=clock.stamp())
        assert caught.value.index == "collection group runs (version ASCENDING)"
        assert caught.value.collection == "runs"


async def scanned(
    store: FirestoreStore, collection: str, limit: int, since: str | None = None
) -> tuple[list[tuple[Key, str]], int]:
    """All entries of a scan, and how many parts had none."""
    entries: list[tuple[Key, str]] = []
    empty, cursor = 0, None
    while True:
        part = await store.scan(collection, limit=limit, since=since, cursor=cursor)
        entries += part.entries
        empty += not part.entries
        cursor = part.cursor
        if cursor is None:
            return entries, empty


class TestScans:
    @pytest.mark.parametrize("by_version", [False, True], ids=["all", "by version"])
    async def test_a_part_is_one_request_that_reads_as_many_documents_as_are_asked_for(
        self, store: FirestoreStore, by_version: bool
    ) -> None:
        since = clock.stamp() if by_version else None
        for name in "abc":
            await stored(store, item(Key("sessions", name), data="x" * 2_000_000))
        before = store.usage.copy()
        part = await store.scan("sessions", limit=2, since=since)
        used = store.usage.since(before)
        assert [key.id for key, _ in part.entries] == ["a", "b"]
        assert (dict(used.requests), used.documents_read) == ({"RunQuery": 1}, 2)

    async def test_a_part_is_no_longer_than_can_be_read_in_time(self, store: FirestoreStore) -> None:
        names = [f"{number:04}" for number in range(1001)]
        for start in range(0, 1001, 500):
            keys = [Key("memories", name) for name in names[start : start + 500]]
            await write(store, *(Put(Item(key, clock.stamp())) for key in keys))
        part = await store.scan("memories", limit=5_000)
        assert part.cursor is not None
        rest = await store.scan("memories", limit=5_000, cursor=part.cursor)
        assert [key.id for key, _ in (*part.entries, *rest.entries)] == names
        assert (len(part.entries), rest.cursor) == (1000, None)

    async def test_children_of_other_prefixes_and_programs_never_show_and_do_not_end_a_scan(
        self, make_store: MakeStore, client: Any, prefix: str
    ) -> None:
        since = clock.stamp()
        store, *others = [await make_store(prefix=each) for each in (prefix, f"{prefix}0", f"{prefix[:-1]}!")]
        own = [await stored(store, Item(Key("runs", "1", "a"), clock.stamp()))]
        for other in others:
            await write(other, *(Put(Item(Key("runs", str(n), "a"), clock.stamp())) for n in range(5)))
        for path in (f"{prefix}sessions/a/runs/1/runs/1", f"{prefix}sessions/a/notes/1/runs/1", f"{prefix}x/a/runs/1"):
            await client.document(path).set({"version": clock.stamp()})
        own.append(await stored(store, Item(Key("runs", "1", "b"), clock.stamp())))
        wanted = [(each.key, each.version) for each in own]
        for limit in (1, 2, 100):
            in_order, _ = await scanned(store, "runs", limit)
            by_version, empty = await scanned(store, "runs", limit, since)
            assert in_order == by_version == wanted
            assert empty >= 13 // limit - 2

    async def test_children_in_order_of_name_are_looked_for_below_this_prefix_only(
        self, make_store: MakeStore, prefix: str
    ) -> None:
        store, other = await make_store(), await make_store(prefix=f"{prefix}0")
        keys = [Key("runs", "r", parent) for parent in (" ", "a", "\U0010ffff" * 128)]
        for each in (store, other):
            await write(each, *(Put(Item(key, clock.stamp())) for key in keys))
        before = store.usage.copy()
        found, _ = await scanned(store, "runs", 100)
        assert [key for key, _ in found] == keys
        assert store.usage.since(before).documents_read == 3

    async def test_a_document_of_another_program_in_a_collection_is_an_error(
        self, store: FirestoreStore, client: Any, prefix: str
    ) -> None:
        await client.document(f"{prefix}memories/theirs").set({"text": "hello"})
        with pytest.raises(CloudDBError, match="no version") as caught:
            await store.scan("memories", limit=1)
        assert caught.value.key == Key("memories", "theirs")

    @pytest.mark.parametrize("place", ["x/y", "x_sessions/a/runs", "runs", "x_sessions//runs/r", "a/../runs/b"])
    async def test_a_cursor_that_names_no_document_of_the_collection_is_invalid(
        self, store: FirestoreStore, place: str
    ) -> None:
        with pytest.raises(InvalidRecord, match="cursor"):
            await store.scan("runs", limit=1, cursor=encode_cursor("runs", None, (place,)))
        assert store.usage.requests.total() == 0

    async def test_a_scan_ends_within_the_deadline(self, make_store: MakeStore) -> None:
        store = await make_store(deadline=-1.0)
        with pytest.raises(StoreUnavailable) as caught:
            await store.scan("sessions", limit=1)
        assert caught.value.collection == "sessions"


class TestChunks:
    @pytest.mark.parametrize("data", [b"\x00\xff" * 1_500_000, "é" * 1_000_000], ids=["bytes", "text"])
    async def test_a_payload_over_a_documents_limit_comes_back(
        self, store: FirestoreStore, other: FirestoreStore, data: Payload
    ) -> None:
        big = await stored(store, item(data=data))
        assert await read(other) == big
        assert (await other.get([KEY, Key("sessions", "none"), KEY])).items == (big, None, big)
        assert (await other.query(BY_CREATION, limit=5)).items == (big,)

    async def test_no_size_around_the_limit_is_refused(self, store: FirestoreStore) -> None:
        long = Key("runs", "/" * 512, "_" + "." * 511)
        for size in (1_040_000, *range(1_045_000, 1_049_000, 400), 1_048_576 - 89, 1_048_576):
            for key in (KEY, long):
                fields = {"run_index": "1" * 512} if key is long else {"created_at": "c" * 512}
                each = Item(key, clock.stamp(), fields, os.urandom(size))
                await stored(store, each)
                assert await read(store, key) == each

    async def test_replacing_or_deleting_leaves_no_chunk_behind(
        self, store: FirestoreStore, other: FirestoreStore, chunks: Callable[[], Awaitable[list[str]]]
    ) -> None:
        await stored(store, item(data=os.urandom(2_500_000)))
        assert len(await chunks()) == 3
        second = await stored(store, item(data=os.urandom(1_500_000)))
        assert [path.rpartition("/")[2] for path in await chunks()] == [f"{second.version}-{n:04}" for n in range(2)]
        await stored(other, item())
        assert await chunks() == []
        await stored(store, item(data=os.urandom(1_500_000)))
        await write(other, Delete(KEY, clock.stamp()))
        assert await chunks() == []

    async def test_a_refused_write_leaves_chunks_as_they_are(
        self, store: FirestoreStore, other: FirestoreStore, chunks: Callable[[], Awaitable[list[str]]]
    ) -> None:
        older = item(data=os.urandom(1_500_000))
        big = await stored(store, item(data=os.urandom(1_500_000)))
        before = await chunks()
        assert await write(other, Put(older)) == (Refused("older", big.version, big.fields),)
        assert await chunks() == before
        assert await read(store) == big

    async def test_small_and_large_items_go_together(self, store: FirestoreStore) -> None:
        items = [item(Key("sessions", str(n)), os.urandom(1_200_000 if n % 2 else 100)) for n in range(4)]
        assert await store.write([Put(each) for each in items]) == tuple(Stored(each.version) for each in items)
        assert (await store.get([each.key for each in items])).items == tuple(items)

    async def test_reading_never_shows_half_of_a_payload(self, store: FirestoreStore, other: FirestoreStore) -> None:
        await stored(store, item(data=bytes(1_500_000)))
        done = False

        async def read_on() -> int:
            seen: set[bytes] = set()
            while not done:
                found = await read(other)
                page = await other.query(BY_CREATION, limit=1)
                for each in (found, *page.items):
                    assert each is not None
                    assert isinstance(each.data, bytes)
                    assert each.data == each.data[:1] * len(each.data)
                    seen.add(each.data[:1])
            return len(seen)

        reader = asyncio.create_task(read_on())
        for n in range(1, 20):
            await stored(store, item(data=bytes([n]) * (1_000_000 + 50_000 * n)))
        done = True
        assert await reader > 1

    async def test_a_chunk_that_is_missing_is_an_error_and_not_a_short_payload(
        self, store: FirestoreStore, client: Any, chunks: Callable[[], Awaitable[list[str]]]
    ) -> None:
        await stored(store, item(data=os.urandom(2_500_000)))
        await client.document((await chunks())[1]).delete()
        with pytest.raises(CloudDBError, match="1 of 3 chunks") as caught:
            await read(store)
        assert caught.value.key == KEY

    async def test_a_payload_over_the_limit_is_refused_before_anything_is_sent(self, store: FirestoreStore) -> None:
        limit = store.limits.payload_bytes
        before = store.usage.copy()
        [outcome] = await write(store, Put(item(data=bytes(limit + 1))))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, RecordTooLarge)
        assert not outcome.applied
        assert store.usage == before
        largest = await stored(store, item(data=os.urandom(limit)))
        assert await read(store) == largest

    async def test_an_atomic_write_over_a_request_is_refused_before_anything_is_sent(
        self, store: FirestoreStore
    ) -> None:
        before = store.usage.copy()
        data = b"x" * (store.limits.payload_bytes // 500)
        wide = [Put(item(Key("sessions", f"{n}"), data=data, session_name="n" * 2_000)) for n in range(500)]
        with pytest.raises(InvalidRecord, match="in one commit"):
            await store.write(wide, atomic=True)
        assert store.usage == before


class LostAnswers:
    """Lets requests take effect, or not, and fail all the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script: list[Fault | None] = []
        self.applied = True
        self.after: Callable[[], Awaitable[object]] | None = None
        commit = Connection.commit

        async def failing(connection: Connection, writes: Sequence[Any], until: float) -> list[tuple[int, int]]:
            fault = self.script.pop(0) if self.script else None
            if fault is None:
                return await commit(connection, writes, until)
            if self.applied:
                await commit(connection, writes, until)
            if self.after is not None:
                after, self.after = self.after, None
                await after()
            raise fault

        monkeypatch.setattr(Connection, "commit", failing)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> LostAnswers:
    return LostAnswers(monkeypatch)


class TestLostAnswers:
    lost = Fault("UNAVAILABLE", "Socket closed")

    async def test_a_put_whose_answer_was_lost_is_found_stored(
        self, store: FirestoreStore, answers: LostAnswers
    ) -> None:
        answers.script = [self.lost]
        each = await stored(store, item())
        assert await read(store) == each

    async def test_a_delete_whose_answer_was_lost_is_found_done(
        self, store: FirestoreStore, answers: LostAnswers
    ) -> None:
        await stored(store, item())
        answers.script = [self.lost]
        version = clock.stamp()
        assert await write(store, Delete(KEY, version)) == (Stored(version),)
        assert await read(store) is None

    async def test_a_request_that_was_never_applied_is_sent_again(
        self, store: FirestoreStore, answers: LostAnswers
    ) -> None:
        answers.script = [self.lost, Fault("ABORTED", "contention"), Fault("RESOURCE_EXHAUSTED", "quota")]
        answers.applied = False
        each = await stored(store, item())
        assert await read(store) == each

    async def test_an_atomic_write_stands_although_a_part_was_replaced_before_the_answer_was_known(
        self, store: FirestoreStore, other: FirestoreStore, answers: LostAnswers
    ) -> None:
        first, second = item(), item(Key("sessions", "c"))
        answers.script = [self.lost]
        answers.after = lambda: stored(other, item())
        outcomes = await write(store, Put(first), Put(second), atomic=True)
        assert outcomes == (Stored(first.version), Stored(second.version))

    async def test_a_write_that_was_never_sent_was_surely_not_applied(self, make_store: MakeStore) -> None:
        store = await make_store(deadline=-1.0)
        [outcome] = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, StoreUnavailable)
        assert not outcome.applied

    async def test_a_write_without_an_answer_may_have_been_applied(
        self, make_store: MakeStore, answers: LostAnswers
    ) -> None:
        store = await make_store(deadline=0.3)
        answers.script = [self.lost] * 1000
        answers.applied = False
        [outcome] = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, StoreUnavailable)
        assert outcome.applied

    @pytest.mark.parametrize("fault", [Fault("RESOURCE_EXHAUSTED", "quota"), Fault("ABORTED", "contention")])
    async def test_refusals_for_load_until_the_deadline_are_throttling(
        self, make_store: MakeStore, answers: LostAnswers, fault: Fault
    ) -> None:
        store = await make_store(deadline=0.3)
        answers.script = [fault] * 1000
        answers.applied = False
        [outcome] = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, Throttled)
        assert not outcome.applied

    @pytest.mark.parametrize("fault", [Fault("RESOURCE_EXHAUSTED", "quota"), Fault("ABORTED", "contention")])
    async def test_a_write_that_runs_out_of_time_says_what_it_had_met_before(
        self, store: FirestoreStore, answers: LostAnswers, fault: Fault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def late(*_: object, **__: object) -> None:
            raise Fault("DEADLINE_EXCEEDED", "Deadline Exceeded")

        answers.script = [fault]
        answers.applied = False
        monkeypatch.setattr(Connection, "batch_get", late)
        [outcome] = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, Throttled)
        assert f"{fault.details}; then the deadline passed" in str(outcome.error)
        assert not outcome.applied

    @pytest.mark.parametrize(("conflicts", "kind"), [(1, StoreUnavailable), (2, Throttled)])
    async def test_a_write_that_runs_out_of_time_was_held_up_by_others_only_where_it_has_read_what_they_replaced(
        self,
        store: FirestoreStore,
        other: FirestoreStore,
        answers: LostAnswers,
        conflicts: int,
        kind: type[CloudDBError],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        batch_get, reads = Connection.batch_get, 0

        async def late_in_the_end(connection: Connection, names: Sequence[str], until: float, **options: Any) -> Any:
            nonlocal reads
            reads += 1
            if reads == conflicts:
                raise Fault("DEADLINE_EXCEEDED", "Deadline Exceeded")
            return await batch_get(connection, names, until, **options)

        await stored(other, item())
        answers.script = [Fault("FAILED_PRECONDITION", "the stored version does not match")] * conflicts
        answers.applied = False
        monkeypatch.setattr(Connection, "batch_get", late_in_the_end)
        [outcome] = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert type(outcome.error) is kind
        assert not outcome.applied

    async def test_a_read_that_runs_out_of_time_says_what_it_had_met_before(
        self, store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faults = [
            Fault("RESOURCE_EXHAUSTED", "quota", RuntimeError("driver")),
            Fault("DEADLINE_EXCEEDED", "", sent=False),
        ]

        async def attempt(*_: object, **__: object) -> None:
            raise faults.pop(0)

        async def at_once(backoff: Backoff) -> bool:
            return bool(faults)

        monkeypatch.setattr(Connection, "_attempt", attempt)
        monkeypatch.setattr(Backoff, "pause", at_once)
        with pytest.raises(Throttled, match="quota; then the deadline passed") as caught:
            await store.get([KEY])
        assert isinstance(caught.value.__cause__, RuntimeError)

    async def test_what_cannot_succeed_later_is_not_sent_again(
        self, store: FirestoreStore, answers: LostAnswers
    ) -> None:
        answers.script = [Fault("PERMISSION_DENIED", "no"), Fault("INTERNAL", "must not be reached")]
        answers.applied = False
        [outcome] = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ConfigurationError)
        assert outcome.error.key == KEY
        assert len(answers.script) == 1


class TestConcurrency:
    async def test_sixteen_writers_of_one_document_lose_no_update(self, make_store: MakeStore) -> None:
        stores = [await make_store() for _ in range(4)]
        await stored(stores[0], item(data="0"))

        async def add(store: FirestoreStore) -> None:
            outcome: Outcome = Refused("version")
            while isinstance(outcome, Refused):
                found = await read(store)
                assert found is not None
                new = item(data=str(int(str(found.data)) + 1))
                [outcome] = await write(store, Put(new, Condition(expected=found.version)))
            assert isinstance(outcome, Stored)

        await asyncio.gather(*(add(stores[n % 4]) for n in range(16)))
        found = await read(stores[0])
        assert found is not None
        assert found.data == "16"

    async def test_of_sixteen_creators_one_wins(self, make_store: MakeStore) -> None:
        stores = [await make_store() for _ in range(4)]
        puts = [Put(item(), Condition(absent=True)) for _ in range(16)]
        outcomes = await asyncio.gather(*(write(stores[n % 4], put) for n, put in enumerate(puts)))
        assert Counter(type(each) for (each,) in outcomes) == {Stored: 1, Refused: 15}

    async def test_the_newest_of_blind_writes_at_once_remains(self, store: FirestoreStore) -> None:
        puts = [Put(item()) for _ in range(16)]
        outcomes = await asyncio.gather(*(write(store, put) for put in puts))
        assert not [each for (each,) in outcomes if isinstance(each, Failed)]
        assert await read(store) == puts[-1].item

    async def test_cancelled_calls_leave_no_task_and_a_usable_channel(self, store: FirestoreStore) -> None:
        await stored(store, item())
        many = [Put(item(Key("sessions", str(n)))) for n in range(20)]
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.get([KEY]),
            lambda: store.get([KEY, Key("sessions", "1")]),
            lambda: store.query(BY_CREATION, limit=5),
            lambda: store.count(BY_CREATION),
            lambda: store.write([Put(item(data=os.urandom(1_200_000))), *many]),
            lambda: store.write([Put(item())]),
        ]
        for call in calls:
            for attempt in range(100):
                task = asyncio.ensure_future(call())
                await asyncio.wait([task], timeout=attempt * 1e-5)
                task.cancel()
                await asyncio.wait([task])
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            # Well within the deadline, after which every call would have ended by itself.
            _, pending = await asyncio.wait(left, timeout=5)
            assert not pending
        each = await stored(store, item())
        assert await read(store) == each


class TestLifecycle:
    async def test_a_host_that_does_not_listen_is_unavailable_within_the_deadline(
        self, make_store: MakeStore, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Pauses of full length: the last attempt comes well before the deadline, which would else cut it off.
        monkeypatch.setattr("agno_clouddb.concurrency.random.uniform", lambda _, longest: longest)
        store = await make_store(emulator_host=f"127.0.0.1:{unused_tcp_port}", deadline=1.0)
        async with asyncio.timeout(HANG):
            with pytest.raises(StoreUnavailable) as caught:
                await store.get([KEY])
            assert caught.value.__cause__ is not None
            with pytest.raises(StoreUnavailable):
                await store.query(BY_CREATION, limit=1)
            with pytest.raises(StoreUnavailable):
                await store.provision()
            outcomes = await write(store, Put(item()), Delete(Key("sessions", "c"), clock.stamp()))
        for outcome in outcomes:
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, StoreUnavailable)
            assert not outcome.applied

    async def test_a_service_that_never_answers_is_unavailable_within_the_deadline(self, make_store: MakeStore) -> None:
        accepted: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = await make_store(emulator_host=host, deadline=0.3)
        async with asyncio.timeout(HANG):
            with pytest.raises(StoreUnavailable):
                await store.get([KEY])
            [outcome] = await write(store, Put(item()))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, StoreUnavailable)
        assert outcome.applied
        await store.aclose()
        for each in accepted:
            each.close()
        server.close()
        await server.wait_closed()

    async def test_calls_under_way_when_the_store_is_closed_say_so(self, make_store: MakeStore) -> None:
        store = await make_store()
        await stored(store, item(data=os.urandom(3_000_000)))
        sent = store.usage.copy()
        reading = asyncio.create_task(store.get([KEY]))
        writing = asyncio.create_task(write(store, Put(item(data=os.urandom(3_000_000)))))
        async with asyncio.timeout(HANG):
            while store.usage.since(sent).requests.total() < 2:  # noqa: ASYNC110  # no event tells of a request
                await asyncio.sleep(0)
        await store.aclose()
        with pytest.raises(LifecycleError, match="closed during"):
            await reading
        [outcome] = await writing
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LifecycleError)
        assert outcome.applied
        with pytest.raises(LifecycleError, match="not open"):
            await read(store)

    async def test_a_store_can_be_opened_again(self, store: FirestoreStore) -> None:
        each = await stored(store, item())
        await store.aclose()
        await store.aclose()
        await store.open()
        await store.open()
        assert await read(store) == each

    async def test_another_event_loop_is_refused(self, store: FirestoreStore) -> None:
        def elsewhere() -> None:
            asyncio.run(store.get([KEY]))

        with pytest.raises(LifecycleError, match="another event loop"):
            await asyncio.to_thread(elsewhere)

    async def test_a_ready_client_is_used_and_left_open(self, client: Any, prefix: str, store: FirestoreStore) -> None:
        async with FirestoreStore(client=client, prefix=prefix) as lent:
            assert lent.name == "firestore://test-project"
            assert lent.limits == store.limits
            each = await stored(lent, item())
        assert await read(store) == each
        assert (await client.document(f"{prefix}sessions/a.1b").get()).get("version") == each.version

    async def test_a_client_together_with_another_project_is_refused(self, client: Any) -> None:
        with pytest.raises(ConfigurationError, match="another project"):
            FirestoreStore("elsewhere", client=client)


class TestDocuments:
    async def test_a_document_has_native_fields_and_a_timestamp_for_time_to_live(
        self, store: FirestoreStore, client: Any, prefix: str
    ) -> None:
        run = Item(Key("runs", "r.1", "s/1"), clock.stamp(), {"run_index": "00000001"}, b"\x00", 4_102_444_800)
        await stored(store, run)
        document = await client.document(f"{prefix}sessions/s.11/runs/r.01").get()
        fields = document.to_dict()
        assert fields.pop("expires_at").timestamp() == 4_102_444_800
        assert fields == {"run_index": "00000001", "version": run.version, "data": b"\x00"}

    async def test_chunks_expire_with_their_document(
        self, store: FirestoreStore, client: Any, chunks: Callable[[], Awaitable[list[str]]]
    ) -> None:
        await stored(store, Item(KEY, clock.stamp(), {"created_at": "1"}, bytes(1_500_000), 4_102_444_800))
        for path in await chunks():
            assert (await client.document(path).get()).get("expires_at").timestamp() == 4_102_444_800

    async def test_a_tombstone_stands_in_no_list(self, store: FirestoreStore) -> None:
        tombstone = await stored(store, Item(KEY, clock.stamp(), expires_at=4_102_444_800, deleted=True))
        assert await read(store) is None
        assert (await store.get([KEY], dead=True)).items == (tombstone,)
        before = store.usage.copy()
        assert (await store.query(BY_CREATION, limit=5)).items == ()
        assert await store.count(BY_CREATION) == 0
        assert store.usage.since(before).documents_read == 0

    async def test_documents_of_another_program_are_named_and_not_guessed_at(
        self, store: FirestoreStore, client: Any, prefix: str
    ) -> None:
        await client.document(f"{prefix}sessions/a.1b").set({"created_at": "2025"})
        with pytest.raises(CloudDBError, match="has no version") as caught:
            await read(store)
        assert caught.value.key == KEY

    async def test_databases_are_apart(self, make_store: MakeStore, store: FirestoreStore) -> None:
        second = await make_store(database="second")
        await stored(second, item())
        assert await read(store) is None
        assert await read(second) is not None
