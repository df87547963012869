"""Calls about learnings."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES = [
    ("`search_learnings`", "is served; agno's SQLite leaves it to its callers, who then read all learnings"),
    ("`upsert_learning` with an empty text as an id, user or the like", "is refused with InvalidRecord"),
]

IDS = ("l1", "l2", "l3", "l4")
TYPES = ("user_profile", "entity_memory")
COLUMNS = ("learning_id", "namespace", "session_id", "entity_id", "content", "nothing")

ids = st.sampled_from((*IDS, "none"))
users = st.sampled_from((None, "ann", "bob"))
types = st.sampled_from(TYPES)
contents: st.SearchStrategy[Any] = st.sampled_from(
    ({}, {"likes": "tea", "deep": [1, {"x": None}]}, {"ü": 1.5}, None, [], ["tea", 1], "tea", 5)
)
metadata: st.SearchStrategy[Any] = st.sampled_from((None, {}, {"from": ["s1"]}, ["s1"], "s1"))
pages = st.sampled_from((1, 1, 2, 3))
orders = st.sampled_from((None, "asc", "desc"))

described: dict[str, Any] = {
    "namespace": st.sampled_from((None, "user", "global")),
    "agent_id": st.sampled_from((None, "a1")),
    "team_id": st.sampled_from((None, "t1")),
    "session_id": st.sampled_from((None, "s1", "s2")),
    "entity_id": st.sampled_from((None, "e1")),
    "entity_type": st.sampled_from((None, "person")),
}
"""What a learning is about."""

filters: dict[str, Any] = {
    "user_id": st.sampled_from((None, None, "ann", "bob", "")),
    "namespace": st.sampled_from((None, None, "user", "global")),
    "agent_id": st.sampled_from((None, None, None, "a1")),
    "team_id": st.sampled_from((None, None, None, "t1")),
    "session_id": st.sampled_from((None, None, None, "s1")),
    "entity_id": st.sampled_from((None, None, None, "e1")),
    "entity_type": st.sampled_from((None, None, None, "person", "place")),
}
some_types = st.sampled_from((None, *TYPES))
some_workflows = st.sampled_from((None, None, None, "w1"))


def call(method: str, ordered: bool = True, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn, ordered))


@st.composite
def listings(draw: st.DrawFn) -> Call:
    both = draw(st.booleans())
    arguments = {
        **{name: draw(each) for name, each in filters.items()},
        "learning_type": draw(some_types),
        "include_global": both,
        # What was updated within one second has no order there. What SQLite puts together of a user's and nobody's has
        # one by ids alone.
        "sort_by": "learning_id" if both else draw(st.sampled_from(COLUMNS)),
        "sort_order": draw(orders),
        "limit": draw(st.sampled_from((0, 1, 2, 100, -1))),
        "page": draw(pages),
    }
    return Call("list_learnings", arguments)


@st.composite
def listings_by_time(draw: st.DrawFn) -> Call:
    arguments = {**{name: draw(each) for name, each in filters.items()}, "learning_type": draw(some_types)}
    arguments |= {"sort_by": draw(st.sampled_from((None, "updated_at"))), "sort_order": draw(orders)}
    return Call("list_learnings", arguments, ordered=False)


writes = call(
    "upsert_learning",
    id=st.sampled_from(IDS),
    learning_type=types,
    content=contents,
    user_id=users,
    metadata=metadata,
    **described,
)

CALLS = [
    writes,
    writes,
    writes,
    call("update_learning", id=ids, content=contents, metadata=metadata),
    call("delete_learning", id=ids),
    call("delete_user_learnings", user_id=st.sampled_from(("ann", "bob", "eve", "", None)), learning_type=some_types),
    call("get_learning", learning_type=types, workflow_id=some_workflows, **filters),
    call(
        "get_learnings",
        ordered=False,
        learning_type=some_types,
        workflow_id=some_workflows,
        limit=st.sampled_from((None, 0, -1, 100)),
        **filters,
    ),
    call("get_learning_by_id", id=ids),
    listings(),
    listings_by_time(),
    call(
        "get_learnings_user_stats",
        learning_type=some_types,
        limit=st.sampled_from((None, 1, 2, 0)),
        page=st.sampled_from((None, 0, 1, 2)),
        user_id=st.sampled_from((None, None, "ann", "")),
        sort_by=st.just("user_id"),
        sort_order=orders,
    ),
    call("get_learnings_user_stats", ordered=False, learning_type=some_types, sort_order=orders),
]
"""Strategies of calls."""
