"""Filters and orders of lists, and the queries that they come to."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_clouddb import InvalidRecord, Learning, UserMemory
from agno_clouddb.repositories.learnings import Learnings
from agno_clouddb.repositories.listing import Filter, Lists, contains
from agno_clouddb.repositories.memories import Memories
from agno_clouddb.stores.base import MAX_ANY_OF, Cursor, Query, Range

# One filter of each kind, over a collection that has fields for them.
LISTS = Lists(
    UserMemory,
    filters={
        "user_id": Filter("equal", "user_id"),
        "teams": Filter("any", "team_id"),
        "agent": Filter("contains", "agent_id"),
        "created_from": Filter("from", "created_at"),
        "created_to": Filter("to", "created_at"),
        "updated_from": Filter("from", "updated_at"),
        "updated_to": Filter("to", "updated_at"),
        "long": Filter("test", "memory", lambda name, length: lambda record: len(record.memory) >= length),
    },
    sorts=("updated_at", "created_at"),
)


class Team(StrEnum):
    RED = "red"


def memory(text: str = "x", **values: Any) -> UserMemory:
    return UserMemory(memory=text, **values)


def test_each_kind_of_filter_becomes_its_part_of_the_query() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=1)))
    listing = LISTS.listing(
        {
            "user_id": "ann",
            "teams": ["red", "blue", "red"],
            "agent": "SUPP",
            "created_from": moment,
            "updated_to": date(2026, 2, 1),
            "updated_from": None,
            "long": 3,
        },
        "-updated_at",
    )
    assert listing.query == Query(
        "memories",
        sort="updated_at",
        descending=True,
        equals={"user_id": "ann"},
        any_of={"team_id": ("red", "blue")},
        contains={"agent_id": "SUPP"},
        ranges=(
            Range("created_at", "2026-01-02T02:04:05.000006Z", None),
            Range("updated_at", None, "2026-02-01"),
        ),
    )
    assert [test(memory("four")) for test in listing.tests] == [True]
    assert [test(memory("no")) for test in listing.tests] == [False]


def test_what_is_none_does_not_narrow() -> None:
    listing = LISTS.listing(dict.fromkeys(LISTS.filters), "updated_at")
    assert listing.query == Query("memories", sort="updated_at")
    assert listing.tests == ()
    assert LISTS.listing({"agent": ""}, "updated_at").query == Query("memories", sort="updated_at")


def test_members_of_an_enumeration_of_texts_stand_for_their_texts() -> None:
    query = LISTS.listing({"user_id": Team.RED, "teams": [Team.RED]}, "updated_at").query
    assert type(query.equals["user_id"]) is str
    assert query.any_of == {"team_id": ("red",)}


def test_one_text_is_a_list_of_one_and_sets_and_tuples_are_lists() -> None:
    for values in ("red", ["red"], ("red",), {"red"}, frozenset({"red"})):
        assert LISTS.listing({"teams": values}, "updated_at").query.any_of == {"team_id": ("red",)}
    with pytest.raises(InvalidRecord, match="teams: is of type int"):
        LISTS.listing({"teams": 5}, "updated_at")
    with pytest.raises(InvalidRecord, match="teams: is of type int"):
        LISTS.listing({"teams": ["red", 5]}, "updated_at")
    for values, problem in ([], "none is given"), ([str(n) for n in range(MAX_ANY_OF + 1)], "over the limit of 30"):
        with pytest.raises(InvalidRecord, match=problem):
            LISTS.listing({"teams": values, "user_id": "ann"}, "updated_at").query.check()


def test_an_unknown_filter_or_order_names_the_known_ones() -> None:
    known = "user_id, teams, agent, created_from, created_to, updated_from, updated_to, long"
    with pytest.raises(InvalidRecord, match=f"colour, size: is no filter of memories; there are {known}"):
        LISTS.listing({"size": None, "colour": "red"}, "updated_at")
    orders: list[Any] = ["user_id", "--updated_at", "", None, ["updated_at"], "updated_at "]
    for order in orders:
        with pytest.raises(
            InvalidRecord, match="not one of -updated_at, updated_at, -created_at, created_at"
        ) as caught:
            LISTS.listing({}, order)
        assert caught.value.path == "sort"


@pytest.mark.parametrize(
    "bad", ["2026-01-01", 5, datetime(2026, 1, 1), datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))]
)
def test_a_moment_that_is_none_names_the_filter(bad: Any) -> None:
    with pytest.raises(InvalidRecord) as caught:
        LISTS.listing({"updated_from": bad}, "updated_at")
    assert caught.value.path == "updated_from"


def test_a_count_goes_by_the_order_whose_range_is_given() -> None:
    now = datetime.now(UTC)
    assert LISTS.count_order({}) == "updated_at"
    assert LISTS.count_order({"created_to": now}) == "created_at"
    assert LISTS.count_order({"created_to": now, "updated_from": now}) == "updated_at"
    assert LISTS.count_order({"created_to": None, "user_id": "ann"}) == "updated_at"


def test_a_cursor_is_good_for_the_same_filters_and_order_alone() -> None:
    one = Memories.lists.listing({"user_id": "ann", "topics": ["b", "a"], "text": "x"}, "-updated_at")
    same = Memories.lists.listing({"text": "x", "topics": iter(("a", "b")), "user_id": "ann"}, "-updated_at")
    place = Cursor("2026", "m1")
    text = place.encode(one.query, one.also)
    assert Cursor.decode(text, same.query, same.also) == place
    for filters, order in (
        ({"user_id": "ann", "topics": ["b", "a"]}, "-updated_at"),
        ({"user_id": "ann", "topics": ["a"], "text": "x"}, "-updated_at"),
        ({"user_id": "ann", "topics": ["b", "a"], "text": "y"}, "-updated_at"),
        ({"user_id": "ann", "topics": ["b", "a"], "text": "x"}, "updated_at"),
        ({"topics": ["b", "a"], "text": "x"}, "-updated_at"),
    ):
        other = Memories.lists.listing(filters, order)
        with pytest.raises(InvalidRecord, match="cursor"):
            Cursor.decode(text, other.query, other.also)


@given(st.text(), st.text(), st.text())
def test_a_text_is_found_in_what_it_is_a_part_of_whatever_the_case(before: str, text: str, after: str) -> None:
    whole = before + text + after
    for form in (text, text.casefold()):
        assert contains(form, None, whole)
        assert contains(form, whole.casefold())


def test_case_is_compared_by_its_full_folding() -> None:
    assert contains("STRASSE", "die straße")
    assert contains("ﬁ", "FISH")
    assert contains("ΣΊΣΥΦΟΣ", "σίσυφος")
    assert not contains("é", "e\u0301")  # which are not the same text
    assert not contains("x", None, "y")


def shown(lists: Lists[Any], record: Any, **filters: Any) -> bool:
    return all(test(record) for test in lists.listing(filters, "updated_at").tests)


def test_memories_with_all_of_some_topics_are_found_whatever_their_case() -> None:
    one = memory(topics=["Straße", "TEA", ""])
    for topics in (["tea"], ["STRASSE", "Tea"], "tea", {"tea"}, iter(["TEA", "tea"]), [], [""]):
        assert shown(Memories.lists, one, topics=topics)
    for topics in (["tea", "coffee"], ["te"], ["t", "e", "a"]):
        assert not shown(Memories.lists, one, topics=topics)
    assert not shown(Memories.lists, memory(), topics=["tea"])
    assert shown(Memories.lists, memory(), topics=[])
    for bad in (5, ["tea", 5], b"tea", [None]):
        with pytest.raises(InvalidRecord) as caught:
            shown(Memories.lists, one, topics=bad)
        assert caught.value.path == "topics"


def test_a_learning_is_found_by_texts_and_names_in_its_content_alone() -> None:
    one = Learning(learning_type="kind", content={"Name": ["Sarah_Chen", 42, None, {"deep": {"x": "Straße nach Rom"}}]})
    for text in ("name", "sarah chen", "SARAH_CHEN", "deep", "strasse NACH", "", "x"):
        assert shown(Learnings.lists, one, text=text)
    for text in ("42", "kind", "sarahchen", "none", "chen42"):
        assert not shown(Learnings.lists, one, text=text)
    # An underscore that is looked for is no space.
    assert not shown(Learnings.lists, one, text="nach_rom")
