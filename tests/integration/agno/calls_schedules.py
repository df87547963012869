"""Calls about schedules and their runs."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES = [
    (
        "a column that agno does not know, of a schedule, a run of one or an approval",
        "is kept and given back; agno's SQLite refuses to create the row, and answers None to an update",
    ),
    (
        "None in a column that is required, in `update_schedule_run` and `update_approval`",
        "is refused with InvalidRecord; agno's SQLite answers None",
    ),
    (
        "`claim_due_schedule`",
        "tries the next schedule that is due when another worker is faster; agno's SQLite answers None",
    ),
    (
        "schedules that are due at one second, and approvals or runs of one schedule created at one second",
        "are in the order of their ids; agno's SQLite leaves that order open",
    ),
]

_CREATED = 1_700_000_000
_FUTURE = 4_000_000_000

IDS = ("s1", "s2", "s3", "s4")
RUN_IDS = ("r1", "r2", "r3", "r4", "r5")
USERS = (None, "ann", "bob", "")
NAMES = ("daily", "nightly", "Daily")
ENDPOINTS = ("/agents/a1/runs", "/agents/a1/runs/", "/teams/t1/runs", "/other")
WORKERS = ("w1", "w2")

# Distinct, so that SQL has one order only.
CREATED = {key: _CREATED + 10 * place for place, key in enumerate((*IDS, *RUN_IDS))}
PAST = {key: _CREATED - 7 * place for place, key in enumerate(IDS)}
FUTURE = {key: _FUTURE + 7 * place for place, key in enumerate(IDS)}

ids = st.sampled_from((*IDS, "none"))
users = st.sampled_from(USERS)
names = st.sampled_from(NAMES)
crons = st.sampled_from(("* * * * *", ""))
payloads = st.sampled_from((None, {"message": "hi", "deep": [1, {"x": None, "y": 1.5}]}, ["hi"], "hi"))


@st.composite
def due(draw: st.DrawFn, key: str) -> int | None:
    return draw(st.sampled_from((PAST.get(key, _CREATED), PAST.get(key, _CREATED), FUTURE.get(key, _FUTURE), None)))


@st.composite
def schedules(draw: st.DrawFn) -> Call:
    key = draw(st.sampled_from(IDS))
    data: dict[str, Any] = {
        "id": key,
        "name": draw(names),
        "method": "POST",
        "endpoint": draw(st.sampled_from(ENDPOINTS)),
        "payload": draw(payloads),
        "cron_expr": draw(crons),
        "timezone": "UTC",
        "timeout_seconds": 60,
        "max_retries": 0,
        "retry_delay_seconds": 1,
        "enabled": draw(st.booleans()),
        "next_run_at": draw(due(key)),
        "user_id": draw(users),
        "created_at": CREATED[key],
    }
    if draw(st.booleans()):
        data |= {"managed_by": "studio", "target_type": "agent", "target_id": "a1", "updated_at": None}
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.sampled_from(("name", "cron_expr", "created_at", "enabled", "user_id")))]
    return Call("create_schedule", {"schedule_data": data})


@st.composite
def updates(draw: st.DrawFn) -> Call:
    key = draw(ids)
    changes = {
        "name": draw(names),
        "description": draw(st.sampled_from((None, "text"))),
        "endpoint": draw(st.sampled_from(ENDPOINTS)),
        "payload": draw(payloads),
        "cron_expr": draw(crons),
        "enabled": draw(st.booleans()),
        "next_run_at": draw(due(key)),
        "disabled_reason": draw(st.sampled_from((None, "why"))),
        "locked_by": "w1",  # which may not be changed
    }
    chosen = draw(st.lists(st.sampled_from([*sorted(changes), "name", "enabled", "next_run_at"]), max_size=3))
    if draw(st.integers(0, 3)):
        chosen = [each for each in chosen if each != "locked_by"]
    arguments = {"schedule_id": key, "user_id": draw(users), **{each: changes[each] for each in chosen}}
    return Call("update_schedule", arguments)


@st.composite
def releases(draw: st.DrawFn) -> Call:
    key = draw(ids)
    arguments: dict[str, Any] = {"schedule_id": key, "next_run_at": draw(due(key))}
    if draw(st.booleans()):
        arguments["worker_id"] = draw(st.sampled_from(WORKERS))
    if draw(st.integers(0, 4)) == 0:
        arguments["locked_at"] = 5
    return Call("release_schedule", arguments)


@st.composite
def runs(draw: st.DrawFn) -> Call:
    key = draw(st.sampled_from(RUN_IDS))
    data: dict[str, Any] = {
        "id": key,
        "schedule_id": draw(ids),
        "attempt": draw(st.integers(1, 2)),
        "triggered_at": draw(st.sampled_from((None, _CREATED, _CREATED + 1))),
        "completed_at": draw(st.sampled_from((None, _CREATED, _CREATED + 20))),
        "status": "running",
        "input": draw(payloads),
        "user_id": draw(users),
        "created_at": CREATED[key],
    }
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.sampled_from(("attempt", "status", "created_at", "user_id")))]
    return Call("create_schedule_run", {"run_data": data})


@st.composite
def run_updates(draw: st.DrawFn) -> Call:
    changes = {
        "status": draw(st.sampled_from(("success", "failed"))),
        "completed_at": draw(st.sampled_from((None, _CREATED, _CREATED + 20))),
        "triggered_at": draw(st.sampled_from((None, _CREATED, _CREATED + 1))),
        "output": draw(payloads),
        "error": draw(st.sampled_from((None, "text"))),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(changes)), max_size=3, unique=True))
    key = draw(st.sampled_from((*RUN_IDS, "none")))
    return Call("update_schedule_run", {"schedule_run_id": key, **{each: changes[each] for each in chosen}})


@st.composite
def pages(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {}
    return {"limit": draw(st.sampled_from((0, 1, 2, 3))), "page": draw(st.sampled_from((0, 1, 2, 3)))}


def scoped(method: str, name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[Call]:
    return st.builds(lambda value, user: Call(method, {name: value, "user_id": user}), values, users)


run_ids = st.sampled_from((*RUN_IDS, "none"))
targets = st.sampled_from((("agent", "a1"), ("team", "t1"), ("workflow", "none")))
provenances = st.sampled_from(
    ({"managed_by": None}, {"target_type": "team", "target_id": "t1"}, {"updated_by_run_id": "r"}, {"name": "x"}, {})
)

CALLS: list[st.SearchStrategy[Call]] = [
    schedules(),
    schedules(),
    updates(),
    scoped("get_schedule", "schedule_id", ids),
    scoped("get_schedule_by_name", "name", names),
    st.builds(
        lambda enabled, user, page: Call("get_schedules", {"enabled": enabled, "user_id": user, **page}),
        st.sampled_from((None, True, False)),
        users,
        pages(),
    ),
    scoped("delete_schedule", "schedule_id", ids),
    st.builds(
        lambda target, reason: Call(
            "disable_schedules_for_target", {"target_type": target[0], "target_id": target[1], "reason": reason}
        ),
        targets,
        st.sampled_from((None, "archived")),
    ),
    st.builds(lambda key, given: Call("stamp_schedule_provenance", {"schedule_id": key, **given}), ids, provenances),
    st.builds(
        lambda worker, grace: Call("claim_due_schedule", {"worker_id": worker, "lock_grace_seconds": grace}),
        st.sampled_from(WORKERS),
        st.sampled_from((300, 300, 0)),
    ),
    releases(),
    runs(),
    runs(),
    run_updates(),
    scoped("get_schedule_run", "run_id", run_ids),
    st.builds(lambda given: Call("get_latest_schedule_runs", {"schedule_ids": given}), st.lists(ids, max_size=4)),
    st.builds(
        lambda key, user, page: Call("get_schedule_runs", {"schedule_id": key, "user_id": user, **page}),
        ids,
        users,
        pages(),
    ),
    st.builds(
        lambda key, before: Call("delete_schedule_runs", {"schedule_id": key, "before": before}),
        ids,
        st.sampled_from((_CREATED, _CREATED + 1, _CREATED + 100)),
    ),
]
