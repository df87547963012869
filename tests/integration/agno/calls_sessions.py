"""Calls about sessions and their runs."""

from __future__ import annotations

from typing import Any

from agno.db.base import SessionType
from agno.models.message import Message
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.run.team import TeamRunOutput
from agno.session import AgentSession, TeamSession, WorkflowSession
from agno.session.summary import SessionSummary
from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES = [
    (
        "`get_sessions(session_name=)`",
        "is looked for in the session's name, whatever its case; agno's SQLite looks for it anywhere in `session_data`",
    ),
    (
        "one session id under two types, also by `rename_session(session_type=)` of another",
        "the last written counts whole, and a new name changes no type; agno's SQLite keeps the first type, and the "
        "columns of both",
    ),
    (
        "`upsert_sessions` of one id twice",
        "writes the later one; agno's SQLite both, the later one as far as the first one's owner lets it",
    ),
    (
        "`upsert_sessions(preserve_updated_at=True)` of a session without `updated_at`",
        "was updated now; agno's SQLite stores none",
    ),
    (
        "`upsert_run` of a session that is not there",
        "raises RecordNotFound on every store; agno's SQLite raises its IntegrityError",
    ),
    (
        "one run id in two sessions",
        "is two runs, of which the one of the session written last is found; agno's SQLite moves neither",
    ),
    (
        "`upsert_run(run_index=)`, without `history_runs`, of a run that only other processes have read or written",
        "is made in one request: the place, the type, the agent, team and workflow are those given; agno's SQLite "
        "keeps the first ones",
    ),
    (
        "order among sessions that were created or updated within one second",
        "is that of their ids, or of their writes; agno's SQLite has that of its rows",
    ),
    (
        "a page by number after the one before it",
        "goes on where that ended, for a minute; agno's SQLite counts anew, so that what others write moves it",
    ),
    (
        "lone surrogates in texts, NaN and infinities in JSON, which no cloud can hold",
        "are stored as U+FFFD and as null, with a warning in the log; agno's SQLite keeps them",
    ),
    ("`created_at` and `updated_at` beyond the year 9999, as milliseconds are", "are refused with InvalidRecord"),
    (
        "a number as a text, such as `user_id=5`",
        "is refused with InvalidRecord, as PostgreSQL refuses it; agno's SQLite makes a text of it",
    ),
    (
        "an empty `user_id`, ids that are empty, over 512 bytes or with control characters, and a session name over "
        "1,000 bytes",
        "are refused with InvalidRecord where they are written; what reads, lists or deletes by such an id or filter "
        "is answered as by one that no record has",
    ),
    (
        "runs written at once without `run_index` by several processes, or by several `AsyncCloudDb`",
        "may get one place; they then come in the order of `created_at` and of their first writes, the same for all "
        "readers. Of one `AsyncCloudDb` each gets a place of its own; agno's SQLite and PostgreSQL hold a lock",
    ),
]

_CREATED = 1_700_000_000

IDS = {"agent": ("a1", "a2", "a3"), "team": ("t1", "t2"), "workflow": ("w1",)}
EVERY = [*(each for ids in IDS.values() for each in ids), "none"]
CREATED = {each: _CREATED + 10 * place for place, each in enumerate(EVERY)}
USERS = (None, "ann", "bob")
DATA: tuple[dict[str, Any] | None, ...] = (
    None,
    {},
    {"session_name": "first"},
    {"session_state": {"n": 1, "deep": [1, {"x": None}]}, "k": "v"},
)
KINDS = {"agent": AgentSession, "team": TeamSession, "workflow": WorkflowSession}
TYPES = {"agent": SessionType.AGENT, "team": SessionType.TEAM, "workflow": SessionType.WORKFLOW}

users = st.sampled_from(USERS)
ids = st.sampled_from(EVERY)
flags = st.booleans()


@st.composite
def sessions(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(sorted(IDS)))
    session_id = draw(st.sampled_from(IDS[kind]))
    summary = draw(st.sampled_from((None, "short")))
    values: dict[str, Any] = {
        "session_id": session_id,
        f"{kind}_id": draw(st.sampled_from((None, "c1", "c2"))),
        "user_id": draw(users),
        f"{kind}_data": draw(st.sampled_from((None, {"name": "N"}))),
        "session_data": draw(st.sampled_from(DATA)),
        "metadata": draw(st.sampled_from((None, {"m": [1.5, True]}))),
        "created_at": CREATED[session_id],
    }
    if kind == "agent" and summary is not None:
        values["summary"] = SessionSummary(summary=summary)
    return lambda: KINDS[kind](**values)


RUNS = {f"{session}-r{place}": (session, place) for session in EVERY[:-1] for place in range(3)}
STATUSES = (RunStatus.completed, RunStatus.paused, RunStatus.running, RunStatus.pending, RunStatus.error)


@st.composite
def runs(draw: st.DrawFn) -> Call:
    run_id = draw(st.sampled_from(sorted(RUNS)))
    session_id, place = RUNS[run_id]
    team = session_id.startswith("t") and draw(flags)
    values: dict[str, Any] = {
        "run_id": run_id,
        "session_id": session_id,
        "status": draw(st.sampled_from(STATUSES)),
        "created_at": _CREATED + place,
        "content": draw(st.sampled_from((None, "", "said"))),
        "parent_run_id": draw(st.sampled_from((None, None, None, "parent"))),
        "messages": [Message(role="user", content="hello", id="m", created_at=_CREATED)],
    }
    who = draw(st.sampled_from(("c1", "c1", "c2")))
    make = (lambda: TeamRunOutput(team_id=who, **values)) if team else (lambda: RunOutput(agent_id=who, **values))
    index = draw(st.sampled_from((place, place, None)))
    return Call("upsert_run", {"run": make, "session_id": session_id, "user_id": draw(users), "run_index": index})


@st.composite
def several(draw: st.DrawFn) -> Call:
    """Sessions of different ids, written at once: results come by type, and within one in whatever order."""
    chosen = {make().session_id: make for make in draw(st.lists(sessions(), max_size=4))}
    keep = draw(flags)

    def made() -> list[Any]:
        every = [make() for make in chosen.values()]
        for each in every:
            each.updated_at = each.created_at + 5 if keep else None
        return every

    arguments = {"sessions": made, "deserialize": draw(flags), "preserve_updated_at": keep}
    return Call("upsert_sessions", arguments, ordered=False)


def call(method: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn))


@st.composite
def listings(draw: st.DrawFn) -> Call:
    limit = draw(st.sampled_from((None, 0, 1, 2, 20, -1)))
    arguments: dict[str, Any] = {
        "session_type": draw(st.sampled_from((None, *TYPES.values()))),
        "user_id": draw(users),
        "component_id": draw(st.sampled_from((None, None, "c1"))),
        "start_timestamp": draw(st.sampled_from((None, _CREATED + 10))),
        "end_timestamp": draw(st.sampled_from((None, _CREATED + 30))),
        "limit": limit,
        "page": draw(st.sampled_from((None, 1, 2))) if limit is not None else None,
        # What was updated within one second has no order there; the ids have one.
        "sort_by": draw(st.sampled_from(("created_at", "session_id", "nothing"))),
        "sort_order": draw(st.sampled_from((None, "asc", "desc"))),
        "deserialize": draw(flags),
        "include_runs": draw(flags),
    }
    if arguments["sort_by"] == "nothing":
        arguments |= {"limit": None, "page": None, "sort_by": "created_at"}
    if arguments["deserialize"]:
        arguments["session_type"] = draw(st.sampled_from([*TYPES.values()]))
    return Call("get_sessions", arguments)


@st.composite
def run_listings(draw: st.DrawFn) -> Call:
    limit = draw(st.sampled_from((None, 1, 2, -1)))
    return Call(
        "get_runs",
        {
            "session_id": draw(st.sampled_from(EVERY)),
            "user_id": draw(users),
            "agent_id": draw(st.sampled_from((None, None, "c1", "c2"))),
            "team_id": draw(st.sampled_from((None, None, None, "c1"))),
            "status": draw(st.sampled_from((None, None, RunStatus.completed, RunStatus.running))),
            "limit": limit,
            "page": draw(st.sampled_from((None, 1, 2))) if limit is not None else None,
            "sort_by": draw(st.sampled_from((None, "run_id", "created_at"))),
            "sort_order": draw(st.sampled_from((None, "asc", "desc"))),
            "deserialize": draw(flags),
        },
    )


CALLS = [
    sessions().flatmap(
        lambda made: flags.map(lambda flag: Call("upsert_session", {"session": made, "deserialize": flag}))
    ),
    sessions().map(lambda made: Call("upsert_session", {"session": made})),
    several(),
    runs(),
    runs(),
    call(
        "get_session",
        session_id=ids,
        session_type=st.sampled_from((None, *TYPES.values())),
        user_id=users,
        deserialize=flags,
        runs_limit=st.sampled_from((None, 0, 1, 2)),
    ),
    listings(),
    run_listings(),
    call("get_run", run_id=st.sampled_from([*sorted(RUNS), "none"]), deserialize=flags),
    call("delete_run", run_id=st.sampled_from([*sorted(RUNS), "none"])),
    call("delete_runs", run_ids=st.lists(st.sampled_from(sorted(RUNS)), max_size=3)),
    call("delete_session", session_id=ids, user_id=users),
    call("delete_sessions", session_ids=st.lists(ids, max_size=3), user_id=users),
    ids.flatmap(
        lambda session_id: call(
            "rename_session",
            session_id=st.just(session_id),
            session_type=st.sampled_from((None, *(TYPES[kind] for kind, own in IDS.items() if session_id in own))),
            session_name=st.sampled_from(("first", "other")),
            user_id=users,
            deserialize=flags,
        )
    ),
    call(
        "reassign_session_owner",
        session_id=ids,
        previous_user_id=st.sampled_from(("ann", "bob", None)),
        user_id=users,
    ),
    st.sampled_from(sorted(RUNS)).flatmap(
        lambda run_id: call(
            "cancel_pending_run",
            run_id=st.just(run_id),
            session_id=st.sampled_from((RUNS[run_id][0], "none")),
            reason=st.just("stopped"),
            user_id=users,
            expected_status=st.sampled_from(("PENDING", "RUNNING")),
        )
    ),
]
"""Strategies of calls."""
