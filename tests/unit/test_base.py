"""The port's own rules: keys, items, decisions, queries and cursors."""

from __future__ import annotations

import enum
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_clouddb.errors import InvalidRecord, QueryNotIndexed, RecordTooLarge
from agno_clouddb.stores.base import (
    MAX_ANY_OF,
    MAX_ID_BYTES,
    Condition,
    Cursor,
    Delete,
    Failed,
    Item,
    Key,
    Limits,
    Mutation,
    Put,
    Query,
    Range,
    Refused,
    Store,
    Stored,
    Tally,
    check_write,
    chosen,
    decide,
    settled,
)
from agno_clouddb.stores.items import MAX_TEXT_BYTES
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.query import order_of
from agno_clouddb.stores.schema import COLLECTIONS, SHARD

NOW = 1_000
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


def session(version: str = "5", owner: str | None = "ann", **parts: object) -> Item:
    fields = {"created_at": "2024"} | ({"user_id": owner} if owner is not None else {})
    return replace(Item(Key("sessions", "s"), version, fields), **parts)  # type: ignore[arg-type]


class TestKey:
    def test_a_key_reads_as_a_path(self) -> None:
        assert str(Key("sessions", "s")) == "sessions/s"
        assert str(Key("runs", "r", "s")) == "runs/s/r"

    @pytest.mark.parametrize("name", ["a", "é" * (MAX_ID_BYTES // 2), "a/b#c", " ", "..", "😀"])
    def test_any_text_is_an_id(self, name: str) -> None:
        Key("sessions", name).check()
        Key("runs", name, name).check()

    @pytest.mark.parametrize("name", ["", "é" * 257, "a\x00", "a\n", "\x7f", "\ud800", 5, None, b"a"])
    def test_what_cannot_be_an_id_is_invalid(self, name: str) -> None:
        for key, field in [
            (Key("sessions", name), "session_id"),
            (Key("runs", name, "s"), "run_id"),
            (Key("runs", "r", name), "session_id"),
        ]:
            with pytest.raises(InvalidRecord) as caught:
                key.check()
            assert (caught.value.path, caught.value.collection) == (field, key.collection)

    def test_collections_and_parents_must_fit(self) -> None:
        for key, field in [(Key("x", "a"), "collection"), (Key("sessions", "a", "p"), "parent")]:
            with pytest.raises(InvalidRecord) as caught:
                key.check()
            assert caught.value.path == field


class TestItem:
    @pytest.mark.parametrize(("data", "size"), [("", 0), ("abc", 3), ("é😀", 6), (b"\xff\x00", 2)])
    def test_size_is_in_bytes(self, data: str | bytes, size: int) -> None:
        assert session(data=data).size == size

    def test_an_item_lives_until_the_second_of_its_expiry(self) -> None:
        assert session().live(NOW)
        assert session(expires_at=NOW + 1).live(NOW)
        assert not session(expires_at=NOW).live(NOW)
        assert not session(deleted=True).live(NOW)

    def test_the_owner_is_a_field(self) -> None:
        assert session(owner="ann").owner == "ann"
        assert session(owner=None).owner is None

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"colour": "red"}, "colour"),
            ({"user_id": ""}, "user_id"),
            ({"created_at": "x" * (MAX_ID_BYTES + 1)}, "created_at"),
            ({"session_name": "\ud800"}, "session_name"),
            ({"session_name": 5}, "session_name"),
        ],
    )
    def test_a_field_that_no_store_can_hold_is_invalid(self, fields: dict[str, str], path: str) -> None:
        with pytest.raises(InvalidRecord) as caught:
            session(fields=fields).check()
        assert (caught.value.path, caught.value.collection) == (path, "sessions")

    def test_a_field_of_any_text_may_be_long_or_empty(self) -> None:
        for text in ("x" * MAX_TEXT_BYTES, "", "\x00\n"):
            session(fields={"session_name": text}).check()
        for text in ("x" * (MAX_TEXT_BYTES + 1), "ü" * (MAX_TEXT_BYTES // 2 + 1)):
            with pytest.raises(InvalidRecord, match="limit of 2048 bytes"):
                session(fields={"session_name": text}).check()

    def test_a_member_of_an_enumeration_is_no_plain_text(self) -> None:
        class Name(enum.StrEnum):
            ANN = "ann"

        for item in (session(fields={"user_id": Name.ANN}), session(fields={"session_name": Name.ANN})):
            with pytest.raises(InvalidRecord, match="text"):
                item.check()
        with pytest.raises(InvalidRecord, match="text"):
            Key("sessions", Name.ANN).check()


class TestDecide:
    """The cases that the conformance suite's table does not spell out; that table is held against `decide` as well."""

    @pytest.mark.parametrize("mutation", [Put(session("7")), Delete(Key("sessions", "s"), "7")])
    def test_the_same_version_stands_whatever_the_condition(self, mutation: Mutation) -> None:
        unmet = replace(mutation, condition=Condition(absent=True, expected="1", owner="bob"))
        for found in (session("7"), session("7", deleted=True), session("7", expires_at=1)):
            assert decide(unmet, found, NOW) == Stored("7")

    def test_the_owner_is_looked_at_before_all_else(self) -> None:
        condition = Condition(absent=True, expected="1", owner="bob")
        found = session("9")
        assert decide(Put(session("7"), condition), found, NOW) == Refused("owner", "9", found.fields)

    def test_a_refusal_tells_what_was_found(self) -> None:
        found = session("9", owner="ann")
        refused = decide(Put(session("7")), found, NOW)
        assert refused == Refused("older", "9", {"created_at": "2024", "user_id": "ann"})
        assert isinstance(refused, Refused)
        assert refused.owner == "ann"

    def test_expiry_is_by_the_clock_given(self) -> None:
        create = Put(session("7"), Condition(absent=True))
        found = session("5", expires_at=NOW)
        assert decide(create, found, NOW) is None
        assert decide(create, found, NOW - 1) == Refused("exists", "5", found.fields)

    def test_a_lagging_replica_is_no_conflict(self) -> None:
        put = Put(session("7"), Condition(expected="6"))
        assert decide(put, session("4"), NOW) is None
        assert decide(put, session("6"), NOW) is None
        assert decide(put, session("61"), NOW) == Refused("version", "61", session().fields)


class TestCheckWrite:
    LIMITS = Limits(payload_bytes=10, atomic_items=3, atomic_bytes=15)

    def put(self, name: str, size: int) -> Put:
        return Put(Item(Key("sessions", name), "1", {}, "x" * size))

    def test_what_fits_has_no_outcome_yet(self) -> None:
        store = MemoryStore(limits=self.LIMITS)
        mutations: list[Mutation] = [self.put("a", 10), self.put("b", 5), Delete(Key("sessions", "c"), "1")]
        assert check_write(store, mutations, False) == check_write(store, mutations, True) == (None, None, None)

    def test_a_payload_over_the_limit_fails_and_in_an_atomic_write_all_do(self) -> None:
        store = MemoryStore("here", limits=self.LIMITS)
        mutations = [self.put("a", 1), self.put("b", 11)]
        first, second = check_write(store, mutations, False)
        assert first is None
        assert isinstance(second, Failed)
        assert not second.applied
        assert isinstance(second.error, RecordTooLarge)
        assert (second.error.size, second.error.limit, second.error.store) == (11, 10, "here")
        assert second.error.key == mutations[1].key
        assert check_write(store, mutations, True)[0] == Refused("atomic")

    def test_an_atomic_write_over_the_limits_is_invalid(self) -> None:
        store = MemoryStore(limits=self.LIMITS)
        many = [self.put(name, 0) for name in "abcd"]
        large = [self.put("a", 8), self.put("b", 8)]
        for mutations, problem in ((many, "4 in one"), (large, "16 bytes")):
            assert not any(check_write(store, mutations, False))
            with pytest.raises(InvalidRecord, match=problem):
                check_write(store, mutations, True)

    def test_a_key_given_twice_is_invalid(self) -> None:
        with pytest.raises(InvalidRecord, match="twice"):
            check_write(MemoryStore(), [self.put("a", 1), Delete(Key("sessions", "a"), "2")], False)


class TestQuery:
    def test_the_most_selective_index_serves(self) -> None:
        def index(sort: str, *equals: str) -> tuple[str, str]:
            found = Query("sessions", sort, equals=dict.fromkeys(equals, "x")).index
            return found.partition, found.sort

        assert index("created_at", "session_type", "user_id") == ("user_id", "created_at")
        assert index("created_at", "session_type") == ("session_type", "created_at")
        assert index("created_at", "session_name") == (SHARD, "created_at")
        assert index("updated_at", "user_id") == (SHARD, "updated_at")

    def test_an_index_serves_several_values_of_its_partition(self) -> None:
        query = Query("sessions", "created_at", any_of={"user_id": ("ann", "bob")}, equals={"session_type": "agent"})
        assert query.index.partition == "user_id"

    def test_every_declared_index_serves_a_query(self) -> None:
        for declared in COLLECTIONS.values():
            for index in declared.indexes:
                given = {} if index.partition in (SHARD, declared.parent_field) else {index.partition: "x"}
                assert declared.index_for(given, index.sort) == index
                assert index.name == f"{index.partition}-{index.sort}-index"

    def test_a_sort_without_an_index_says_what_to_do(self) -> None:
        with pytest.raises(QueryNotIndexed, match="user_id-session_name-index"):
            Query("sessions", "session_name", equals={"user_id": "ann"}).check()

    @pytest.mark.parametrize(
        ("query", "path"),
        [
            (Query("x", "created_at"), "collection"),
            (Query("runs", "run_index"), "session_id"),
            (Query("sessions", "created_at", equals={"colour": "x"}), "colour"),
            (Query("sessions", "created_at", contains={"colour": "x"}), "colour"),
            (Query("sessions", "created_at", ranges=(Range("colour", "x"),)), "colour"),
            (Query("sessions", "created_at", equals={"user_id": ""}), "user_id"),
            (Query("sessions", "created_at", any_of={"colour": ("x",)}), "colour"),
            (Query("sessions", "created_at", any_of={"user_id": ()}), "user_id"),
            (Query("sessions", "created_at", any_of={"user_id": ("a", "")}), "user_id"),
            (Query("sessions", "created_at", any_of={"user_id": ("a",) * (MAX_ANY_OF + 1)}), "user_id"),
        ],
    )
    def test_what_no_store_can_answer_is_invalid(self, query: Query, path: str) -> None:
        with pytest.raises(InvalidRecord) as caught:
            query.check()
        assert caught.value.path == path

    def test_an_item_must_match_every_part(self) -> None:
        item = session(fields={"created_at": "5", "user_id": "ann", "session_name": "Große Straße"})
        query = Query("sessions", "created_at")
        assert query.matches(item, NOW)
        assert not query.matches(replace(item, deleted=True), NOW)
        assert not query.matches(replace(item, expires_at=NOW), NOW)
        assert not replace(query, sort="updated_at").matches(item, NOW)
        for part, matches in [
            ({"equals": {"user_id": "ann"}}, True),
            ({"equals": {"user_id": "Ann"}}, False),
            ({"equals": {"component_id": "x"}}, False),
            ({"any_of": {"user_id": ("bob", "ann")}}, True),
            ({"any_of": {"user_id": ("bob", "Ann")}}, False),
            ({"any_of": {"user_id": ("ann",), "component_id": ("x",)}}, False),
            ({"contains": {"session_name": "STRASSE"}}, True),
            ({"contains": {"session_name": "gasse"}}, False),
            ({"ranges": (Range("created_at", "5", "6"),)}, True),
            ({"ranges": (Range("created_at", None, "5"),)}, False),
            ({"ranges": (Range("updated_at"),)}, False),
        ]:
            assert replace(query, **part).matches(item, NOW) is matches, part  # type: ignore[arg-type]

    def test_children_match_under_their_parent_only(self) -> None:
        run = Item(Key("runs", "r", "s"), "1", {"run_index": "1"})
        assert Query("runs", "run_index", parent="s").matches(run, NOW)
        assert not Query("runs", "run_index", parent="t").matches(run, NOW)

    def test_ranges_on_the_sort_field_are_intersected(self) -> None:
        ranges = (Range("created_at", "2", "9"), Range("created_at", "3"), Range("updated_at", "5"))
        assert Query("sessions", "created_at", ranges=ranges).sort_range == Range("created_at", "3", "9")
        assert Query("sessions", "created_at").sort_range == Range("created_at")

    @given(st.lists(st.tuples(TEXT, TEXT), min_size=2, max_size=2))
    def test_after_is_the_order_of_utf8_bytes(self, places: list[tuple[str, str]]) -> None:
        (value, name), (other_value, other_name) = places
        item = Item(Key("sessions", name), "1", {"created_at": value})
        cursor = Cursor(other_value, other_name)
        later = (value.encode(), name.encode()) > (other_value.encode(), other_name.encode())
        earlier = (value.encode(), name.encode()) < (other_value.encode(), other_name.encode())
        query = Query("sessions", "created_at")
        assert query.after(item, cursor) is later
        assert replace(query, descending=True).after(item, cursor) is earlier
        assert query.after(item, None)
        assert order_of(query.place(item)) == (value.encode(), name.encode())


class TestSettled:
    """What a later attempt says of a write whose first answer was lost."""

    PUT = Put(session(version="5"))

    def test_a_refusal_by_something_newer_cannot_tell_whether_the_write_was_applied(self) -> None:
        for reason in ("older", "version", "exists"):
            outcome = settled(self.PUT, Refused(reason, "6"), "store")
            assert isinstance(outcome, Failed)
            assert outcome.applied

    def test_a_refusal_by_something_older_proves_that_it_was_not(self) -> None:
        refused = Refused("version", "4")
        assert settled(self.PUT, refused, "store") is refused

    def test_its_own_version_and_nothing_left_to_delete_are_success(self) -> None:
        assert settled(self.PUT, Stored("5"), "store") == Stored("5")
        assert settled(Delete(self.PUT.key, "5"), Refused("absent"), "store") == Stored("5")


class TestCursor:
    QUERY = Query("sessions", "created_at", True, equals={"user_id": "ann"})

    @given(TEXT, TEXT)
    def test_a_cursor_comes_back(self, value: str, name: str) -> None:
        cursor = Cursor(value, name)
        text = cursor.encode(self.QUERY)
        assert text.isascii()
        assert not set(text) & set("=+/ ")
        assert Cursor.decode(text, self.QUERY) == cursor

    @pytest.mark.parametrize(
        "other",
        [
            Query("sessions", "created_at", False, equals={"user_id": "ann"}),
            Query("sessions", "updated_at", True, equals={"user_id": "ann"}),
            Query("sessions", "created_at", True, equals={"user_id": "bob"}),
            Query("sessions", "created_at", True),
            Query("sessions", "created_at", True, any_of={"user_id": ("ann",)}),
            Query("sessions", "created_at", True, equals={"user_id": "ann"}, contains={"session_name": "x"}),
            Query("sessions", "created_at", True, equals={"user_id": "ann"}, ranges=(Range("created_at", "1"),)),
        ],
    )
    def test_a_cursor_of_another_list_is_refused(self, other: Query) -> None:
        with pytest.raises(InvalidRecord, match="belongs to a list of") as caught:
            Cursor.decode(Cursor("1", "a").encode(self.QUERY), other)
        assert caught.value.path == "cursor"

    @pytest.mark.parametrize(
        "text", ["", "x", "!!!", "é", "AAAA", "bnVsbA", "W10", "WzEsMiwzXQ", "eyJhIjoxfQ", "a" * 1001]
    )
    def test_any_other_text_is_invalid(self, text: str) -> None:
        with pytest.raises(InvalidRecord) as caught:
            Cursor.decode(text, self.QUERY)
        assert (caught.value.path, caught.value.collection) == ("cursor", "sessions")

    def test_the_order_and_number_of_the_same_values_make_no_other_list(self) -> None:
        first, second = (
            Query("sessions", "created_at", any_of={"user_id": each}) for each in (("a", "b"), ("b", "a", "b"))
        )
        assert Cursor.decode(Cursor("1", "a").encode(first), second) == Cursor("1", "a")


class TestChosen:
    def test_collections_are_provisioned_a_parent_before_its_children(self) -> None:
        assert chosen(None) == tuple(COLLECTIONS)
        assert chosen({"spans", "runs", "traces", "sessions"}) == ("sessions", "runs", "traces", "spans")
        assert chosen([]) == ()

    def test_an_unknown_one_is_invalid(self) -> None:
        for odd in (["sessions", "colours"], "colours", [1], 123, [["runs"]], b"runs"):
            with pytest.raises(InvalidRecord, match="not among sessions") as caught:
                chosen(odd)  # type: ignore[arg-type]
            assert caught.value.path == "collections"


class TestTally:
    def test_tallies_of_two_lists_add_up(self) -> None:
        assert Tally(2, "b", "d") + Tally(3, "a", "c") == Tally(5, "a", "d")

    async def test_a_store_that_cannot_count_by_value_pages_through_the_list(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agno_clouddb.stores.base._TALLY_PAGE", 3)
        async with MemoryStore() as store:
            await store.provision()
            for n in range(10):
                fields = {"created_at": f"{n}"} | ({"user_id": "ab"[n % 2]} if n != 4 else {})
                await store.write([Put(Item(Key("sessions", f"{n}"), "1", fields))])
            query = Query("sessions", "created_at", descending=True)
            wanted = {"a": Tally(4, "0", "8"), "b": Tally(5, "1", "9")}
            assert await Store.tally(store, query, "user_id") == await store.tally(query, "user_id") == wanted
            with pytest.raises(InvalidRecord):
                await Store.tally(store, query, "colour")


def test_values_of_the_port_are_frozen_and_can_be_pickled() -> None:
    put = Put(session(), Condition(owner="ann"))
    assert pickle.loads(pickle.dumps(put)) == put
    with pytest.raises(AttributeError):
        put.item.version = "6"  # type: ignore[misc]
