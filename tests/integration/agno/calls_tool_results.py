"""Calls about tool results."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES = [
    (
        "`upsert_tool_result` of two results in one file",
        "is not refused; agno names the file after the result, so that it never happens",
    ),
    (
        "the files of the results of a deleted session",
        "are deleted in the file systems that a `ResultStore` has used in this process; agno's SQLite looks in its own "
        "table of files too",
    ),
]

_CREATED = 1_700_000_000
IDS = ("r1", "r2", "r3", "r4", "r5")
SESSIONS = ("s1", "s2")

ids = st.sampled_from((*IDS, "none"))
sessions = st.sampled_from((*SESSIONS, "none"))


@st.composite
def writes(draw: st.DrawFn) -> Call:
    key = draw(st.sampled_from(IDS))
    row: dict[str, Any] = {
        "result_id": key,
        "namespace": f"tool-results/{key}",
        "path": f"results/{draw(st.sampled_from('ab'))}.txt",
        "session_id": draw(st.sampled_from(SESSIONS)),
        "run_id": "run",
        "tool_call_id": "call",
        "tool_name": draw(st.sampled_from(("search", "read"))),
        "args_hash": "",
        "content_type": "text",
        "size_bytes": draw(st.sampled_from((0, 2**40))),
        "line_count": 1,
        "preview": "first\nsecond ü",
        "user_id": draw(st.sampled_from((None, "ann", ""))),
        "created_at": _CREATED + draw(st.sampled_from((0, 0, 1))),
        "expires_at": draw(st.sampled_from((None, -1, 0, _CREATED, _CREATED + 0.5, _CREATED + 1))),
    }
    for name in ("user_id", "expires_at"):
        if draw(st.integers(0, 3)) == 0:
            del row[name]
    if draw(st.integers(0, 9)) == 0:
        del row[draw(st.sampled_from(("namespace", "session_id", "preview", "created_at")))]
    return Call("upsert_tool_result", {"row": row})


def call(method: str, ordered: bool = True, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn, ordered))


CALLS = [
    writes(),
    writes(),
    writes(),
    call("get_tool_result", result_id=ids),
    call("get_tool_results_for_session", session_id=sessions, limit=st.sampled_from((None, -1, 0, 1, 2, 3))),
    call("delete_tool_results", result_ids=st.lists(ids, max_size=3)),
    call(
        "delete_sessions",  # of which none is there itself
        session_ids=st.lists(sessions, max_size=2),
        user_id=st.sampled_from((None, None, "ann")),
    ),
    call(
        "get_expired_tool_results",
        ordered=False,
        now=st.sampled_from((-2, -1, 0, 5, _CREATED - 1, _CREATED, _CREATED + 1, 10**13)),
    ),
]
"""Strategies of calls."""
