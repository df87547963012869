"""Names of agno's tables: what users of its own databases give, and what the prefix is taken from here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from agno.db.base import AsyncBaseDb

from agno_clouddb.errors import ConfigurationError

__all__ = ["PREFIX", "TABLES", "prefix_of"]

PREFIX = "agno_clouddb_"
"""What the names of tables and collections begin with by default: those of agno's own adapters begin with ``agno_``."""

TABLES = tuple(name for name in inspect.signature(AsyncBaseDb.__init__).parameters if name.endswith("_table"))
"""The arguments of agno's databases that are names of tables."""

_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "session_table": ("sessions",),
    "runs_table": ("runs",),
    "memory_table": ("memories",),
    "metrics_table": ("metrics",),
    "eval_table": ("eval_runs", "evals"),
    "knowledge_table": ("knowledge", "knowledge_contents"),
    "traces_table": ("traces",),
    "spans_table": ("spans",),
    "learnings_table": ("learnings",),
    "versions_table": ("schema_versions", "versions"),
    "schedules_table": ("schedules",),
    "schedule_runs_table": ("schedule_runs",),
    "approvals_table": ("approvals",),
    "auth_tokens_table": ("auth_tokens",),
    "service_accounts_table": ("service_accounts",),
}
"""How the names of those tables end whose rows are kept here."""


def prefix_of(names: Mapping[str, str]) -> str:
    """What tables and collections are named by, from what agno's tables are called.

    Args:
        names: by argument.

    Returns:
        What all of them begin with and ``clouddb_``; ``PREFIX`` where none is given.

    Raises:
        ConfigurationError: they do not begin alike and end as what they hold.
    """
    found: dict[str, str] = {}
    for argument, name in names.items():
        if argument not in _ENDINGS:
            continue  # of rows that are not kept here
        ending = next((each for each in _ENDINGS[argument] if isinstance(name, str) and name.endswith(each)), None)
        if ending is None:
            raise ConfigurationError(
                f"{name!r} does not end with {_ENDINGS[argument][0]!r}, so that no prefix can be taken from it",
                remedy="Give `prefix=`: the tables are named by it and what they hold",
            )
        found[name.removesuffix(ending)] = name
    if len(found) > 1:
        raise ConfigurationError(
            f"{' and '.join(found.values())} begin differently", remedy="Give `prefix=` instead of single names"
        )
    return f"{next(iter(found))}clouddb_" if found else PREFIX
