"""Calls about traces and spans."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from agno.tracing.schemas import Span, Trace
from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES", "FIRST"]

DIFFERENCES = [
    ("a span that is stored already", "stays as it is; agno's SQLite then also drops all others that come with it"),
    (
        "spans of a trace that is not stored",
        "are found by their `trace_id` alone; agno's tracing stores the trace first",
    ),
    ("`get_spans` without `trace_id`", "lists one trace after the other, the earliest first; agno's SQLite as written"),
    ("an invalid `filter_expr`", "raises ValueError, AgentOS's 400; agno's SQLite logs it and answers with nothing"),
    ("CONTAINS and STARTSWITH in `filter_expr`", "ignore the case of all letters; in agno's SQLite of A to Z"),
    ("`duration_ms` of a trace that came in parts", "is a whole number; agno's SQLite has a float"),
    ("moments of a zone other than UTC", "are compared as moments and come back in UTC; agno's SQLite compares text"),
    (
        "a trace or span that ends before it begins, as when a clock is set back",
        "is stored as ending when it begins, with a warning in the log; agno's SQLite keeps the moment",
    ),
    (
        "`get_traces` and `get_trace_stats` by an id that no index can have, such as an empty `user_id`",
        "find nothing; agno's SQLite finds the traces that were given it, and a filter expression does here too",
    ),
]

# SQLite keeps a day as a float: what is a fraction of it by a power of two is exact, and a difference of such too.
_UNIT = timedelta(days=1) / 1024
_START = datetime(2024, 1, 1, tzinfo=UTC)

TRACES = ("t0", "t1", "t2", "t3")
SPANS = {f"{trace}-s{place}": (trace, place) for trace in TRACES for place in range(3)}
BATCHES = {f"{trace}-b{place}": (trace, place) for trace in TRACES for place in range(2)}
NAMES = ("Agent.run", "Team.arun", "step", "POST /runs")
USERS = (None, "ann", "bob")
TYPE = "openinference.span.kind"
ATTRIBUTES: tuple[Any, ...] = (
    {},
    {TYPE: "LLM"},
    {TYPE: "TOOL", "n": [1, None]},
    None,
    ["LLM"],
    {TYPE: True},
    {TYPE: ["LLM", {"ü": 1}]},
)

_created = itertools.count(1)

users = st.sampled_from((None, None, *USERS))
agents, teams, workflows = (st.sampled_from((*[None] * 9, f"{kind}1", f"{kind}2")) for kind in "atw")
sessions = st.sampled_from((*[None] * 4, "x1", "x2"))
runs = st.sampled_from((*[None] * 6, "r1", "r2"))
empty = st.sampled_from((None, None, None, ""))
limits = st.sampled_from((None, 0, 1, 2, 20, 20, -1))
pages = st.sampled_from((None, 0, 1, 1, 2))


def created() -> datetime:
    """When the next row is written: later than all before, since what is first written comes first in agno's tables."""
    return _START + timedelta(seconds=next(_created))


def span_of(id: str, place: int, trace_id: str) -> dict[str, Any]:
    """What a span is, the same whenever it is written."""
    start = _START + (TRACES.index(trace_id) * 64 + 20 + 2 * place) * _UNIT
    return {
        "span_id": id,
        "trace_id": trace_id,
        "parent_span_id": (None, f"{trace_id}-s0", "")[place % 3],
        "name": NAMES[place % len(NAMES)],
        "span_kind": "INTERNAL",
        "status_code": ("OK", "ERROR", "UNSET")[place % 3],
        "status_message": "broken" if place % 3 == 1 else None,
        "start_time": start,
        "end_time": start + place * _UNIT,
        "duration_ms": 17 * place / 2,
        "attributes": ATTRIBUTES[place % len(ATTRIBUTES)],
    }


def fresh_span(id: str, place: int, trace_id: str) -> Callable[[], Span]:
    at = created()
    return lambda: Span(**span_of(id, place, trace_id), created_at=at)


def fresh_trace(trace_id: str, *, part: int = 0, **values: Any) -> Callable[[], Trace]:
    at, base = created(), _START + TRACES.index(trace_id) * 64 * _UNIT
    times = {"start_time": base + part * _UNIT, "end_time": base + (40 + part) * _UNIT}
    # What a part says of its own spans does not matter: they are counted.
    fixed = {"trace_id": trace_id, "duration_ms": 40 * 84_375.0, "total_spans": part, "error_count": part, **times}
    unknown = dict.fromkeys(("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id"))
    return lambda: Trace(**{**unknown, **fixed, **values}, created_at=at)


@st.composite
def traces(draw: st.DrawFn) -> Call:
    return Call(
        "upsert_trace",
        {
            "trace": fresh_trace(
                draw(st.sampled_from(TRACES)),
                part=draw(st.integers(0, 8)),
                name=draw(st.sampled_from(NAMES)),
                status=draw(st.sampled_from(("OK", "ERROR", "UNSET", ""))),
                duration_ms=draw(st.sampled_from((40 * 84_375, 40 * 84_375.5))),
                run_id=draw(empty | runs),
                session_id=draw(empty | sessions),
                user_id=draw(empty | users),
                agent_id=draw(empty | agents),
                team_id=draw(empty | teams),
                workflow_id=draw(empty | workflows),
            )
        },
    )


def made_spans(batch: str) -> Call:
    trace_id, place = BATCHES[batch]
    spans = [fresh_span(f"{batch}-{each}", 3 + 2 * place + each, trace_id) for each in range(2)]
    return Call("create_spans", {"spans": lambda: [make() for make in spans]})


FIRST = [
    Call("upsert_trace", {"trace": fresh_trace("t0", name="Agent.run", status="OK", agent_id="a1", session_id="x1")}),
    Call("upsert_trace", {"trace": fresh_trace("t1", name="Team.arun", status="ERROR", team_id="t1", user_id="ann")}),
    Call("upsert_trace", {"trace": fresh_trace("t2", name="POST /runs", status="UNSET")}),
    Call("upsert_trace", {"trace": fresh_trace("t3", name="step", status="OK", session_id="x2", user_id="bob")}),
    *map(made_spans, sorted(BATCHES)[::2]),
    *(Call("create_span", {"span": fresh_span(name, SPANS[name][1], SPANS[name][0])}) for name in sorted(SPANS)[::3]),
]
"""What comes before all other calls, whose spans are of these traces."""


moments = st.sampled_from((*[None] * 20, *(_START + each * _UNIT for each in (0, 5, 22, 45, 90, 150, 240))))
seconds = st.sampled_from((*[None] * 8, *(_START + timedelta(seconds=each) for each in (1, 3, 5, 20))))

COLUMNS = ("trace_id", "name", "status", "run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id")
texts = st.sampled_from(("t1", "ann", "x1", "a1", "OK", "run", "Agent", "r", "_", "%", "", "9"))
stamps = st.sampled_from(
    (
        _START.isoformat(),
        "2024-01-01T02:00:00+02:00",
        "2024-01-01T01:30:00Z",
        (_START + 64 * _UNIT).isoformat(),
        "2024-01-01",
        "soon",
        (_START + timedelta(seconds=3)).isoformat(),
    )
)
columns = st.one_of(
    st.tuples(st.sampled_from(COLUMNS), texts),
    st.tuples(st.sampled_from(("start_time", "end_time", "created_at")), stamps),
    st.tuples(st.just("duration_ms"), st.sampled_from((0, 3_375_000, 3_375_000.5, "3375000", "84375", "text"))),
    st.tuples(st.sampled_from(("user_id", "name")), st.sampled_from((1, 2.5))),
)
operators = st.sampled_from(("EQ", "EQ", "NEQ", "GT", "GTE", "LT", "LTE", "CONTAINS", "STARTSWITH"))
comparisons = st.tuples(operators, columns).map(lambda each: {"op": each[0], "key": each[1][0], "value": each[1][1]})
memberships = st.tuples(st.sampled_from(COLUMNS), st.lists(texts, max_size=2)).map(
    lambda each: {"op": "IN", "key": each[0], "values": each[1]}
)
expressions = st.recursive(
    st.one_of(comparisons, comparisons, memberships),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(("AND", "OR")), st.lists(inner, min_size=1, max_size=3)).map(
            lambda each: {"op": each[0], "conditions": each[1]}
        ),
        inner.map(lambda each: {"op": "NOT", "condition": each}),
    ),
    max_leaves=4,
)
filters = st.one_of(st.none(), st.none(), expressions)


def call(method: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn))


def stats(group_by: str) -> st.SearchStrategy[Call]:
    return call(
        "get_trace_stats",
        user_id=users,
        agent_id=agents,
        team_id=teams,
        workflow_id=workflows,
        start_time=seconds,
        end_time=seconds,
        limit=limits,
        page=pages,
        filter_expr=filters,
        group_by=st.just(group_by),
    )


_every_span = st.sampled_from(
    [*SPANS, *(f"{batch}-{each}" for batch in BATCHES for each in range(2)), "none"],
)

CALLS: list[st.SearchStrategy[Call]] = [
    traces(),
    traces(),
    st.sampled_from(sorted(SPANS)).map(
        lambda name: Call("create_span", {"span": fresh_span(name, SPANS[name][1], SPANS[name][0])})
    ),
    st.sampled_from(sorted(BATCHES)).map(made_spans),
    call("get_trace", trace_id=st.sampled_from((*TRACES, "none", "", None)), run_id=runs),
    call(
        "get_traces",
        run_id=runs,
        session_id=sessions,
        user_id=users,
        agent_id=agents,
        team_id=teams,
        workflow_id=workflows,
        status=st.sampled_from((*[None] * 4, "OK", "ERROR")),
        start_time=moments,
        end_time=moments,
        limit=limits,
        page=pages,
    ),
    call("get_traces", limit=limits, page=pages, user_id=users, start_time=moments, filter_expr=expressions),
    *map(stats, ("session", "agent", "team", "workflow", "endpoint")),
    call("get_span", span_id=_every_span),
    call(
        "get_spans",
        trace_id=st.sampled_from((*TRACES, "none")),
        parent_span_id=st.sampled_from((None, None, "t0-s0", "t1-s0", "none")),
        limit=st.sampled_from((None, 0, 1, 2, 1000, -1)),
    ),
    call(
        "get_spans", parent_span_id=st.sampled_from(("t0-s0", "t2-s0", "none")), limit=st.sampled_from((None, 1, 1000))
    ),
    st.just(Call("get_spans", {"limit": None}, ordered=False)),
    call(
        "get_span_stats",
        agent_id=agents,
        team_id=teams,
        workflow_id=workflows,
        start_time=moments,
        end_time=moments,
        name=st.sampled_from((*[None] * 9, *NAMES)),
        span_type=st.sampled_from((*[None] * 9, "LLM", "TOOL", "none")),
        limit=limits,
        page=pages,
        sort_by=st.sampled_from(
            ("total_calls", "avg_duration_ms", "max_duration_ms", "error_count", "last_called_at", "p95_duration_ms")
        ),
        sort_order=st.sampled_from(("asc", "desc")),
    ),
]
"""Strategies of calls, of which any number may follow ``FIRST``."""
