"""Calls about transcripts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES = [
    (
        "`append_transcript_entries` of what is there already",
        "counts in `mtime`, and keeps it for a second session of agno's that has appended it when the first is deleted",
    ),
]

FRAMEWORKS = ("sdk", "other")
PROJECTS = ("p1", "p/2 ü")
SESSIONS = ("c1", "c2")
SUBPATHS = (None, "", "sub/a", "sub/b")

place = {
    "framework": st.sampled_from(FRAMEWORKS),
    "project_key": st.sampled_from(PROJECTS),
    "session_id": st.sampled_from(SESSIONS),
}
subpaths = st.sampled_from(SUBPATHS)


@st.composite
def appends(draw: st.DrawFn) -> Call:
    owner = draw(st.sampled_from(("s1", "s2")))
    entries = [
        {
            "uuid": draw(st.sampled_from((None, "", f"{owner}-1", f"{owner}-2", f"{owner}-3"))),
            "n": draw(st.integers(0, 9)),
            "text": draw(st.sampled_from(("", "ü", "\ud83d", "\x00", None, [1.5, {"deep": True}]))),
        }
        for _ in range(draw(st.integers(0, 4)))
    ]
    for entry in entries:
        if entry["uuid"] is None and draw(st.booleans()):
            del entry["uuid"]
    arguments: dict[str, Any] = {name: draw(each) for name, each in place.items()}
    return Call(
        "append_transcript_entries",
        {**arguments, "subpath": draw(subpaths), "entries": entries, "agno_session_id": owner},
    )


def call(method: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn))


CALLS = [
    appends(),
    appends(),
    appends(),
    call("get_transcript_entries", **place, subpath=subpaths),
    call("list_transcript_sessions", framework=place["framework"], project_key=place["project_key"]),
    call("list_transcript_subpaths", **place),
    call("delete_transcript", **place, subpath=subpaths),
    call(
        "delete_sessions",  # of which none is there itself
        session_ids=st.lists(st.sampled_from(("s1", "s2")), max_size=2),
        user_id=st.sampled_from((None, None, "ann")),
    ),
]
"""Strategies of calls."""
