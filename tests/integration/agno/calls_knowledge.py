"""Calls about contents of knowledge bases."""

from __future__ import annotations

from functools import partial
from typing import Any

from agno.db.schemas.knowledge import KnowledgeRow
from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES", "FIRST"]

DIFFERENCES = [
    (
        "`get_knowledge_contents(sort_by=)` a column of text, such as `name`",
        "is in that order; agno's SQLite multiplies the column by a number, and so sorts by numbers alone",
    ),
    (
        "order of contents without a sort, or with the same value of the column sorted by",
        "is that of their creation; agno's SQLite has none, by the index that it uses",
    ),
    (
        "a content without `created_at` or `updated_at`, which agno's `Knowledge` never writes",
        "has the moment of its writing",
    ),
]

IDS = ("k1", "k2", "k3", "k4", "k5", "k6")
# No two contents share a moment, so that there is one order by it.
MOMENTS = {each: range(1_700_000_000 + 10 * place, 1_700_000_010 + 10 * place) for place, each in enumerate(IDS)}
USERS = (None, "ann", "bob")
LONG = "a name of two lines\n" * 40

users = st.sampled_from(USERS)
ids = st.sampled_from((*IDS, "none"))


FIRST = [
    Call(
        "upsert_knowledge_content",
        {
            "knowledge_row": partial(
                KnowledgeRow,
                id=each,
                name="first",
                description="",
                created_at=MOMENTS[each][3],
                updated_at=MOMENTS[each][3],
                linked_to=("base", "other", "")[place % 3],
                user_id=(None, "ann", "bob")[place // 2],
            )
        },
    )
    for place, each in enumerate(("k4", "k1", "k6", "k3", "k2"))
]
"""What is there before any sequence."""


@st.composite
def rows(draw: st.DrawFn) -> Any:
    content_id = draw(st.sampled_from(IDS))
    return partial(
        KnowledgeRow,
        id=content_id,
        created_at=draw(st.sampled_from(MOMENTS[content_id])),
        updated_at=draw(st.sampled_from(MOMENTS[content_id])),
        name=draw(st.sampled_from(("first", "second"))),
        description=draw(st.sampled_from(("", "what it is"))),
        metadata=draw(st.sampled_from((None, {}, {"a": [1, 2.5, None, True], "b": {"c": "d"}}))),
        type=draw(st.sampled_from((None, "", "pdf"))),
        size=draw(st.sampled_from((None, 0, 5, 7))),
        linked_to=draw(st.sampled_from((None, "", "base", "other", LONG))),
        access_count=draw(st.sampled_from((None, 0, 3))),
        status=draw(st.sampled_from((None, "", "processing", "completed"))),
        status_message=draw(st.sampled_from((None, "", "why"))),
        user_id=draw(users),
        external_id=draw(st.sampled_from((None, "e1"))),
    )


@st.composite
def listings(draw: st.DrawFn) -> Call:
    column = draw(st.sampled_from(("created_at", "created_at", "updated_at", None, "size", "access_count", "nothing")))
    ordered = column in ("created_at", "updated_at")
    limit = draw(st.sampled_from((None, None, 0, 1, 2, 3, 20, -1))) if ordered else None
    return Call(
        "get_knowledge_contents",
        {
            "limit": limit,
            "page": draw(st.sampled_from((None, 1, 2, 3))) if limit is not None else None,
            "sort_by": column,
            "sort_order": draw(st.sampled_from((None, "asc", "desc"))),
            "linked_to": draw(st.sampled_from((None, None, "base", "", LONG))),
            "user_id": draw(users),
        },
        ordered,
    )


def call(method: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn))


CALLS = [
    call("upsert_knowledge_content", knowledge_row=rows()),
    call("upsert_knowledge_content", knowledge_row=rows()),
    listings(),
    listings(),
    call("get_knowledge_content", id=ids, user_id=users),
    call("delete_knowledge_content", id=ids, user_id=users),
]
"""Strategies of calls."""
