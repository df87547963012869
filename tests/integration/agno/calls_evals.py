"""Calls about evaluation runs."""

from __future__ import annotations

from typing import Any

from agno.db.schemas.evals import EvalFilterType, EvalRunRecord, EvalType
from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES", "FIRST"]

DIFFERENCES = [
    (
        "order among evaluations created within one second",
        "is that in which they were written; agno's SQLite has that or its reverse, by the index that it uses",
    ),
]

IDS = ("e1", "e2", "e3", "e4", "e5", "e6")
CREATED = {each: 1_700_000_000 + 10 * place for place, each in enumerate(("e2", "e4", "e6", "e1", "e5", "e3"))}
USERS = (None, "ann", "bob")

users = st.sampled_from(USERS)
owners = st.sampled_from(("ann", "bob"))
ids = st.sampled_from((*IDS, "none"))
flags = st.booleans()
names = st.sampled_from((None, "first", "second"))


class Dated(EvalRunRecord):
    """A run that says when it was created: what is created within one second has no order there."""

    created_at: int


FIRST = [
    *(
        Call(
            "create_eval_run",
            {
                "eval_run": Dated(
                    run_id=each,
                    created_at=CREATED[each],
                    eval_type=[*EvalType][place % 2],
                    eval_data={"place": place},
                    agent_id="a1" if place % 2 else None,
                    team_id=None if place % 2 else "t1",
                )
            },
        )
        for place, each in enumerate(("e3", "e1", "e2", "e5", "e6"))
    ),
    Call("update_eval_run_user_id", {"eval_run_id": "e1", "user_id": "ann"}),
    Call("update_eval_run_user_id", {"eval_run_id": "e5", "user_id": "ann"}),
    Call("update_eval_run_user_id", {"eval_run_id": "e2", "user_id": "bob"}),
]
"""What is there before any sequence."""


@st.composite
def runs(draw: st.DrawFn) -> EvalRunRecord:
    run_id = draw(st.sampled_from(IDS))
    return Dated(
        run_id=run_id,
        created_at=CREATED[run_id],
        eval_type=draw(st.sampled_from(EvalType)),
        eval_data=draw(st.sampled_from(({}, {"score": 1.5, "deep": [None, True, {"x": "y"}]}))),
        eval_input=draw(st.sampled_from((None, {}, {"question": "why"}))),
        name=draw(names),
        agent_id=draw(st.sampled_from((None, "a1"))),
        team_id=draw(st.sampled_from((None, None, "t1"))),
        workflow_id=draw(st.sampled_from((None, None, "w1"))),
        model_id=draw(st.sampled_from((None, "gpt"))),
        model_provider=draw(st.sampled_from((None, "OpenAI"))),
        evaluated_component_name=draw(st.sampled_from((None, "Agent"))),
    )


NARROWED: tuple[dict[str, Any], ...] = (
    *({},) * 4,
    {"agent_id": "a1"},
    {"team_id": "t1"},
    {"workflow_id": "w1"},
    {"model_id": "gpt"},
    *({"filter_type": each} for each in EvalFilterType),
    {"eval_type": []},
    {"eval_type": [EvalType.ACCURACY]},
    {"eval_type": [*EvalType][1:]},
    {"eval_type": [*EvalType][:2], "agent_id": "a1", "filter_type": EvalFilterType.AGENT},
)


@st.composite
def listings(draw: st.DrawFn) -> Call:
    limit = draw(st.sampled_from((None, None, 0, 1, 2, 3, 20, -1)))
    # By a column of which two may be alike, the order is left open.
    column, order = draw(
        st.sampled_from(
            (
                (None, None),
                (None, "asc"),
                ("created_at", None),
                ("created_at", "asc"),
                ("created_at", "desc"),
                ("run_id", "asc"),
                ("run_id", "desc"),
            )
        )
    )
    return Call(
        "get_eval_runs",
        {
            "limit": limit,
            "page": draw(st.sampled_from((None, 1, 2, 3))) if limit is not None else None,
            "sort_by": column,
            "sort_order": order,
            **draw(st.sampled_from(NARROWED)),
            "deserialize": draw(flags),
            "user_id": draw(st.sampled_from((None, *USERS))),
        },
    )


@st.composite
def unsorted(draw: st.DrawFn) -> Call:
    column = draw(st.sampled_from(("name", "eval_data", "eval_input", "updated_at", "user_id", "nothing")))
    return Call("get_eval_runs", {"sort_by": column, "user_id": draw(users)}, ordered=False)


def call(method: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn))


CALLS = [
    call("create_eval_run", eval_run=runs()),
    call("create_eval_run", eval_run=runs()),
    call("create_eval_run", eval_run=runs()),
    call("update_eval_run_user_id", eval_run_id=ids, user_id=owners),
    call("update_eval_run_user_id", eval_run_id=ids, user_id=owners),
    listings(),
    listings(),
    unsorted(),
    call("get_eval_run", eval_run_id=ids, user_id=users, deserialize=flags),
    call(
        "rename_eval_run",
        eval_run_id=ids,
        name=st.sampled_from(("third", "fourth", "", None)),
        user_id=users,
        deserialize=flags,
    ),
    call("delete_eval_run", eval_run_id=ids),
    call("delete_eval_runs", eval_run_ids=st.lists(ids, max_size=3), user_id=users),
]
"""Strategies of calls."""
