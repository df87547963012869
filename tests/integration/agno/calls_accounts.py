"""Calls about service accounts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES: list[tuple[str, str]] = []

_CREATED = 1_700_000_000
IDS = ("a1", "a2", "a3", "a4")
NAMES = ("robot", "import", "rob ü", "long\n" * 120)
HASHES = ("h1", "h2", "h3", "h4", "h5")
USERS = (None, "ann", "bob", "")

ids = st.sampled_from((*IDS, "none"))
users = st.sampled_from((None, None, "ann", "bob", ""))


@st.composite
def creations(draw: st.DrawFn) -> Call:
    key = draw(st.sampled_from(IDS))
    place = IDS.index(key)
    row: dict[str, Any] = {
        "id": key,
        "name": draw(st.sampled_from(NAMES)),
        "token_hash": draw(st.sampled_from(HASHES)),
        "token_prefix": "agno_pat_x",
        "scopes": draw(st.sampled_from(([], ["agents:read", "agents:run"], None, {"agents": "read"}))),
        "user_id": draw(st.sampled_from(USERS)),
        "created_at": _CREATED + 10 * place,
        "expires_at": draw(st.sampled_from((None, _CREATED + 100 - place))),
        "last_used_at": None,
        "revoked_at": draw(st.sampled_from((None, None, None, _CREATED))),
        "created_by": draw(st.sampled_from((None, "eve"))),
    }
    if draw(st.booleans()):
        row = {name: value for name, value in row.items() if value is not None}
    if draw(st.integers(0, 9)) == 0:
        del row[draw(st.sampled_from(("name", "token_hash", "token_prefix", "created_at")))]
    return Call("create_service_account", {"account_data": row})


@st.composite
def updates(draw: st.DrawFn) -> Call:
    changes: dict[str, Any] = draw(
        st.sampled_from(
            (
                {"last_used_at": _CREATED + 500},
                {"last_used_at": None},
                {"revoked_at": _CREATED + 600},
                {"revoked_at": _CREATED + 700},
                {"revoked_at": _CREATED + 600, "last_used_at": _CREATED + 600},
                {"revoked_at": None},
                {"name": "other"},
                {},
            )
        )
    )
    return Call(
        "update_service_account",
        {"service_account_id": draw(ids), "return_record": draw(st.booleans()), **changes},
    )


@st.composite
def listings(draw: st.DrawFn) -> Call:
    column = draw(st.sampled_from(("created_at", "created_at", "nothing", "name", "expires_at", "last_used_at")))
    # By the others several may be equal, which have no order.
    ordered = column in ("created_at", "nothing")
    limit, page = draw(st.sampled_from(((0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (20, 1), (20, 2), (-1, 1))))
    arguments = {
        "include_revoked": draw(st.booleans()),
        "limit": limit if ordered else 20,
        "page": page if ordered else 1,
        "sort_by": column,
        "sort_order": draw(st.sampled_from(("asc", "desc", "other"))),
        "user_id": draw(users),
    }
    return Call("get_service_accounts", arguments, ordered)


def call(method: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Call(method, drawn))


CALLS = [
    creations(),
    creations(),
    creations(),
    call("get_service_account", service_account_id=ids, user_id=users),
    call("get_service_account_by_token_hash", token_hash=st.sampled_from((*HASHES, "none"))),
    call("get_service_account_by_name", name=st.sampled_from((*NAMES, "none")), include_revoked=st.booleans()),
    listings(),
    listings(),
    updates(),
    updates(),
    call("delete_service_account", service_account_id=ids),
]
"""Strategies of calls."""
