"""Calls about metrics, and about what they are made of."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.session import AgentSession, TeamSession, WorkflowSession
from hypothesis import strategies as st

from tests.integration.agno.days import DAY, midnight, today
from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES", "FIRST"]

DIFFERENCES = [
    ("the order of `get_metrics`, and of models in them", "is by day, and by run; agno's SQLite names none"),
    (
        "`db.metrics`",
        "has agno's metrics under the period `agno`, beside its own daily ones, which count a run on its own day, and "
        "all users together under the empty `user_id`",
    ),
    ("a failed refresh in `get_metrics`", "is raised; agno's SQLite logs it and answers with what is there"),
]

USERS = (None, "ann", "bob")
IDS = [f"{kind}-day{place}" for kind in "atw" for place in range(3)]
KINDS = {"a": (AgentSession, "agent_id"), "t": (TeamSession, "team_id"), "w": (WorkflowSession, "workflow_id")}
DATA: tuple[Any, ...] = (
    None,
    {},
    {"session_metrics": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "cost": 0.5}},
    {"session_metrics": {"reasoning_tokens": 2, "cache_read_tokens": 5}, "session_name": "first"},
    {"session_metrics": None},
)
MODELS = ((None, None), ("gpt", "OpenAI"), ("gpt", "Azure"), ("llama:8b", "Ollama"), ("gpt", None))

users = st.sampled_from(USERS)


def yesterday_noon() -> int:
    return midnight() - DAY // 2


def created(id: str) -> int:
    """When a session is created: on one of three days, the last of which is yesterday."""
    return yesterday_noon() - (IDS.index(id) % 3) * DAY + IDS.index(id)


def session(id: str, user_id: str | None, data: Any) -> Call:
    kind, component = KINDS[id[0]]
    values: dict[str, Any] = {"session_id": id, component: "c1", "user_id": user_id, "session_data": data}
    return Call("upsert_session", {"session": lambda: kind(**values, created_at=created(id)), "deserialize": False})


FIRST = [session(each, USERS[place // 2 % 3], None) for place, each in enumerate(IDS)]
"""What comes before all other calls, so that there is something to count."""


@st.composite
def todays(draw: st.DrawFn) -> Call:
    """A session of today, whose day is not complete."""
    place, user = draw(st.integers(0, 2)), draw(users)
    values: dict[str, Any] = {"session_id": f"now{place}", "agent_id": "c1", "user_id": user}
    return Call("upsert_session", {"session": lambda: AgentSession(**values, created_at=midnight() + place)})


@st.composite
def runs(draw: st.DrawFn) -> Call:
    session_id = draw(st.sampled_from([*IDS, "now0", "now1"]))
    # All runs of a session have one model: in which order agno's SQLite reads several runs is its own affair.
    model, provider = MODELS[IDS.index(session_id) * 2 % 5] if session_id in IDS else MODELS[1]
    place = draw(st.integers(0, 2))
    values: dict[str, Any] = {
        "run_id": f"{session_id}-r{place}",
        "session_id": session_id,
        "agent_id": "c1",
        "model": model,
        "model_provider": provider,
        "status": RunStatus.completed,
        "created_at": yesterday_noon() - 9 * DAY,
    }
    return Call("upsert_run", {"run": lambda: RunOutput(**values), "session_id": session_id, "run_index": place})


_days = st.integers(-5, 2).map(lambda shift: today() + timedelta(days=shift))
days: st.SearchStrategy[date | None] = st.one_of(
    st.none(), _days, _days, _days.map(lambda day: datetime(day.year, day.month, day.day, 13))
)

CALLS: list[st.SearchStrategy[Call]] = [
    st.builds(session, st.sampled_from(IDS), users, st.sampled_from(DATA)),
    todays(),
    runs(),
    runs(),
    st.sampled_from([*IDS, "now0"]).map(lambda each: Call("delete_session", {"session_id": each})),
    st.just(Call("calculate_metrics", ordered=False)),
    st.tuples(days, days, st.sampled_from((None, "", "ann", "bob", "none"))).map(
        lambda each: Call(
            "get_metrics", {"starting_date": each[0], "ending_date": each[1], "user_id": each[2]}, ordered=False
        )
    ),
]
"""Strategies of calls."""
