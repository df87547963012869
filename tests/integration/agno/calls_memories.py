"""Calls about memories of users."""

from __future__ import annotations

from functools import partial
from typing import Any

from agno.db.schemas.memory import UserMemory
from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES", "FIRST"]

DIFFERENCES = [
    (
        "`topics` and `search_content` of `get_user_memories`",
        "are texts, compared by `str.casefold`; for agno's SQLite `%` and `_` stand for any letters, and what is not "
        "ASCII, or has a quote, is never found",
    ),
    (
        "`upsert_memories(preserve_updated_at=True)` of a memory without `updated_at`",
        "was updated when it was created; agno's SQLite stores none, and shows the same in its memory objects",
    ),
    (
        "order among memories with the same value of the column sorted by",
        "is that of their creation; agno's SQLite has that or its reverse, by the index that it uses",
    ),
]

# Moments of agno's have no fractions, and what is updated twice within a second has no order there: only this memory
# is updated now, and the others at moments which no two of them share.
NOW = "m1"
OTHERS = ("m2", "m3", "m4", "m5", "m6")
MOMENTS = {each: range(1_700_000_000 + 10 * place, 1_700_000_010 + 10 * place) for place, each in enumerate(OTHERS)}

USERS = (None, "ann", "bob")
TEXTS = ("Likes tea", "likes coffee", "has a CAT")
TOPICS: tuple[Any, ...] = (None, [], ["food"], ["Food", "tea"], ["pets"])
# agno types them as text and lists of text, and keeps them in columns of JSON, which take any.
ANY_MEMORY: tuple[Any, ...] = ({"content": "Likes tea", "n": [1, None]}, ["has a CAT", {}], "", None, 5, 1.5, True)
ANY_TOPICS: tuple[Any, ...] = ("food", '["pets"]', [1, "Food"], {"tea": {"pets": [None]}}, 5, True)

users = st.sampled_from(USERS)
ids = st.sampled_from((NOW, *OTHERS, "none"))
flags = st.booleans()


def memory(memory_id: str, place: int) -> UserMemory:
    return UserMemory(
        memory=TEXTS[place % len(TEXTS)],
        memory_id=memory_id,
        topics=TOPICS[place % len(TOPICS)],
        user_id=USERS[place % len(USERS)],
        agent_id="a1" if place % 2 else None,
        updated_at=MOMENTS[memory_id][0] if memory_id in MOMENTS else None,
    )


def first() -> list[UserMemory]:
    return [memory(each, place) for place, each in enumerate(("m4", "m2", "m5", "m3"))]


FIRST = [
    Call("upsert_memories", {"memories": first, "preserve_updated_at": True}),
    Call("upsert_user_memory", {"memory": partial(memory, NOW, 1)}),
]
"""What is there before any sequence."""


@st.composite
def memories(draw: st.DrawFn, id: str) -> Any:
    # Made when it is called, so that it is created then.
    return partial(
        UserMemory,
        memory=draw(st.sampled_from((*TEXTS, *ANY_MEMORY))),
        memory_id=id,
        topics=draw(st.sampled_from((*TOPICS, *ANY_TOPICS))),
        user_id=draw(users),
        agent_id=draw(st.sampled_from((None, "a1"))),
        team_id=draw(st.sampled_from((None, "t1"))),
        input=draw(st.sampled_from((None, "said"))),
        feedback=draw(st.sampled_from((None, "good"))),
        updated_at=draw(st.sampled_from(MOMENTS[id])) if id in MOMENTS else None,
    )


def made(every: list[Any]) -> Any:
    return [each and each() for each in every]


@st.composite
def upserts(draw: st.DrawFn) -> Call:
    how = draw(st.sampled_from(("one", "now", "then", "then", "then")))
    if how == "one":
        return Call("upsert_user_memory", {"memory": draw(memories(NOW)), "deserialize": draw(flags)})
    chosen = [NOW] if how == "now" else draw(st.lists(st.sampled_from(OTHERS), max_size=4))
    every = [draw(memories(each)) for each in chosen]
    if how == "now":
        every += [None] * draw(st.integers(0, 1))
    return Call(
        "upsert_memories",
        {"memories": partial(made, every), "deserialize": draw(flags), "preserve_updated_at": how == "then"},
    )


NARROWED: tuple[dict[str, Any], ...] = (
    *({},) * 4,
    {"agent_id": "a1"},
    {"team_id": "t1"},
    {"topics": []},
    {"topics": ["food"]},
    {"topics": ["tea", "FOOD"]},
    {"topics": ["foo"]},
    {"search_content": ""},
    {"search_content": "likes"},
    {"search_content": "content"},
    {"search_content": '"n": [1, null'},
    {"search_content": "nul"},
    {"search_content": "5"},
    {"topics": ["1"]},
    {"topics": ["pets"]},
    {"search_content": "cat", "agent_id": "a1"},
)


@st.composite
def listings(draw: st.DrawFn) -> Call:
    limit = draw(st.sampled_from((None, 0, 1, 2, 3, 20, -1)))
    column = draw(
        st.sampled_from((None, "nothing", "updated_at", "updated_at", "memory_id", "memory", "topics", "input"))
    )
    return Call(
        "get_user_memories",
        {
            "user_id": draw(st.sampled_from((None, *USERS))),
            **draw(st.sampled_from(NARROWED)),
            "limit": limit,
            "page": draw(st.sampled_from((None, 1, 2, 3, 0) if limit is not None else (*(None,) * 9, 1))),
            "sort_by": column,
            "sort_order": draw(st.sampled_from((None, "asc", "desc"))),
            "deserialize": draw(flags),
        },
    )


@st.composite
def stats(draw: st.DrawFn) -> Call:
    limit = draw(st.sampled_from((None, 1, 2, -1)))
    page = draw(st.sampled_from((None, 1, 2, 3) if limit is not None else (*(None,) * 9, 1)))
    return Call("get_user_memory_stats", {"limit": limit, "page": page, "user_id": draw(users)})


def call(method: str, ordered: bool = True, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn, ordered))


CALLS = [
    upserts(),
    upserts(),
    listings(),
    listings(),
    stats(),
    call("get_all_memory_topics", ordered=False, user_id=users),
    call("get_user_memory", memory_id=ids, user_id=users, deserialize=flags),
    call("delete_user_memory", memory_id=ids, user_id=users),
    call("delete_user_memories", memory_ids=st.lists(ids, max_size=3), user_id=users),
    call("clear_memories"),
]
"""Strategies of calls."""
