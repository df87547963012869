"""Calls about auth tokens."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES = [
    (
        "`upsert_auth_token` without provider, service or `token_data`",
        "raises InvalidRecord; agno's SQLite answers None and leaves a line in the log",
    ),
    (
        "a value that neither JSON nor agno's encoder has, such as a Decimal, bytes or a set",
        "raises TypeError, or InvalidRecord with the name of the field; agno's SQLite raises SQLAlchemy's "
        "StatementError, and for learnings and tokens answers None",
    ),
    (
        "several who delete one auth token, session, run, learning, tool result or transcript in the same moment",
        "may each be told that it was there when the database has several stores: a deletion goes through without one "
        "of them, so that none can decide it alone. agno makes a 404 or a line in the log of the answer, and claims "
        "nothing by it. On one store one caller is told, and of schedules, approvals and service accounts on several "
        "too",
    ),
]

PROVIDERS = ("google", "slack")
SERVICES = ("mail", "calendar")
USERS = (None, "", "ann", "bob ü\n")

place = {
    "provider": st.sampled_from(PROVIDERS),
    "user_id": st.sampled_from(USERS),
    "service": st.sampled_from(SERVICES),
}


@st.composite
def writes(draw: st.DrawFn) -> Call:
    token: dict[str, Any] = {name: draw(each) for name, each in place.items()}
    secrets: tuple[Any, ...] = ({"access": "secret"}, {"access": "other", "expires": 5}, {}, "opaque", None)
    token["token_data"] = draw(st.sampled_from(secrets))
    if token["user_id"] is None and draw(st.booleans()):
        del token["user_id"]
    if draw(st.booleans()):
        token["granted_scopes"] = draw(st.sampled_from((None, [], ["read", "write"])))
    if draw(st.booleans()):
        token["created_at"] = draw(st.sampled_from((1_700_000_000, 1_700_000_100)))
    if draw(st.booleans()):
        token["id"] = "given"
    return Call("upsert_auth_token", {"token": token})


def call(method: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn))


CALLS = [writes(), writes(), call("get_auth_token", **place), call("delete_auth_token", **place)]
"""Strategies of calls."""
