"""Calls about approvals."""

from __future__ import annotations

from typing import Any

from agno.run.base import RunStatus
from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES = [
    (
        "`update_approval(run_id=)` and `(id=)`",
        "are refused with InvalidRecord: the approvals of a run are listed by them; agno's SQLite changes the column",
    ),
]

_CREATED = 1_700_000_000

IDS = ("a1", "a2", "a3", "a4")
CREATED = {key: _CREATED + 10 * place for place, key in enumerate(IDS)}
USERS = (None, "ann", "bob", "")
RUNS = ("r1", "r2", "r3")
STATUSES = ("pending", "approved", "rejected")

ids = st.sampled_from((*IDS, "none"))
users = st.sampled_from(USERS)
run_ids = st.sampled_from(RUNS)
statuses = st.sampled_from(STATUSES)
values: st.SearchStrategy[Any] = st.sampled_from((None, {"args": [1, {"x": None}], "y": 1.5}, [], "text", 5))


@st.composite
def approvals(draw: st.DrawFn) -> Call:
    key = draw(st.sampled_from(IDS))
    data: dict[str, Any] = {
        "id": key,
        "run_id": draw(run_ids),
        "session_id": "s",
        "status": draw(statuses),
        "source_type": draw(st.sampled_from(("agent", "team"))),
        "approval_type": draw(st.sampled_from((None, "required", "audit"))),
        "pause_type": draw(st.sampled_from(("confirmation", "user_input"))),
        "tool_args": draw(values),
        "requirements": draw(values),
        "agent_id": draw(st.sampled_from((None, "x"))),
        "user_id": draw(users),
        "schedule_id": draw(st.sampled_from((None, "s1"))),
        "created_at": CREATED[key],
    }
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.sampled_from(("run_id", "status", "pause_type", "user_id")))]
    if draw(st.booleans()):
        data["updated_at"] = draw(st.sampled_from((None, _CREATED)))
    return Call("create_approval", {"approval_data": data})


@st.composite
def updates(draw: st.DrawFn) -> Call:
    changes = {
        "status": draw(statuses),
        "resolved_by": draw(st.sampled_from((None, "bob"))),
        "resolved_at": draw(st.sampled_from((None, _CREATED))),
        "resolution_data": draw(values),
        "user_id": draw(users),
        "run_status": draw(st.sampled_from((None, "PAUSED"))),
    }
    chosen = draw(st.lists(st.sampled_from([*sorted(changes), "status", "status"]), max_size=3))
    expected = draw(st.sampled_from((None, "pending", "pending", "approved")))
    arguments = {"approval_id": draw(ids), "expected_status": expected, **{each: changes[each] for each in chosen}}
    return Call("update_approval", arguments)


@st.composite
def lists(draw: st.DrawFn) -> Call:
    filters = {
        "status": draw(statuses),
        "source_type": draw(st.sampled_from(("agent", "team"))),
        "approval_type": draw(st.sampled_from(("required", "audit"))),
        "pause_type": draw(st.sampled_from(("confirmation", "user_input"))),
        "agent_id": "x",
        "team_id": "t",
        "user_id": draw(users),
        "schedule_id": "s1",
        "run_id": draw(run_ids),
    }
    weighted = [*sorted(filters), "status", "user_id", "run_id", "run_id"]
    chosen = draw(st.lists(st.sampled_from(weighted), max_size=3))
    page: dict[str, Any] = {}
    if draw(st.booleans()):
        page = {"limit": draw(st.sampled_from((0, 1, 2))), "page": draw(st.sampled_from((0, 1, 2, 3)))}
    return Call("get_approvals", {**{each: filters[each] for each in chosen}, **page})


CALLS: list[st.SearchStrategy[Call]] = [
    approvals(),
    approvals(),
    updates(),
    lists(),
    lists(),
    st.builds(lambda key: Call("get_approval", {"approval_id": key}), ids),
    st.builds(lambda key: Call("delete_approval", {"approval_id": key}), ids),
    st.builds(lambda user: Call("get_pending_approval_count", {"user_id": user}), users),
    st.builds(
        lambda run, status: Call("update_approval_run_status", {"run_id": run, "run_status": status}),
        run_ids,
        st.sampled_from((RunStatus.paused, RunStatus.completed)),
    ),
]
