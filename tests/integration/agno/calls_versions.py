"""Calls about versions of schemas."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.integration.agno.differential import Call

__all__ = ["CALLS", "DIFFERENCES"]

DIFFERENCES = [
    (
        "`get_latest_schema_version`",
        "is 2.0.0 until one was noted, as on agno's MongoDB; agno's SQLite notes the latest when it makes a table",
    ),
    ("`table_exists`", "knows agno's tables alone, and says whether the collection that keeps their rows is there"),
]

# No tables of agno's own, whose versions its SQLite notes by itself.
TABLES = ("mine", "yours ü")

CALLS = [
    st.builds(
        lambda table, version: Call("upsert_schema_version", {"table_name": table, "version": version}),
        st.sampled_from(TABLES),
        st.sampled_from(("2.5.0", "3.0.0")),
    ),
    st.builds(
        lambda table: Call("get_latest_schema_version", {"table_name": table}), st.sampled_from((*TABLES, "none"))
    ),
    st.just(Call("table_exists", {"table_name": "none"})),
]
"""Strategies of calls."""
