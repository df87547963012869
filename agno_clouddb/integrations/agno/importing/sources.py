"""Sources: where agno's own adapters have written, read page by page and never written to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from agno_clouddb.errors import ConfigurationError

__all__ = ["IDS", "KINDS", "TABLES", "Row", "Rows", "Source", "source_from_url", "tables"]

Row = dict[str, Any]
"""What agno has stored of one thing, by its own names of columns."""

TABLES: Mapping[str, str] = MappingProxyType(
    {
        "sessions": "agno_sessions",
        "runs": "agno_runs",
        "memories": "agno_memories",
        "knowledge": "agno_knowledge",
        "evals": "agno_eval_runs",
        "metrics": "agno_metrics",
        "traces": "agno_traces",
        "spans": "agno_spans",
    }
)
"""By kind, the name that agno gives its table or collection unless it is told another."""

KINDS = ("sessions", "memories", "knowledge", "evals", "metrics", "traces", "spans")
"""What is imported, in this order. The runs come with their sessions."""

IDS: Mapping[str, str] = MappingProxyType(
    {
        "sessions": "session_id",
        "runs": "run_id",
        "memories": "memory_id",
        "knowledge": "id",
        "evals": "run_id",
        "metrics": "id",
        "traces": "trace_id",
        "spans": "span_id",
    }
)
"""By kind, the column that tells its rows apart."""


def tables(names: Mapping[str, str]) -> dict[str, str]:
    """The names of a source's tables by kind.

    Args:
        names: those that differ from agno's own. Where sessions are kept under another name and runs are not named,
            the runs are where agno keeps them then, under the name of the sessions with ``_runs``.

    Raises:
        ConfigurationError: there is no such kind, or a name is empty.
    """
    if unknown := sorted(names.keys() - TABLES.keys()):
        raise ConfigurationError(f"agno has no table of {', '.join(unknown)}", remedy=f"Use {', '.join(TABLES)}")
    if empty := [kind for kind, name in names.items() if not name]:
        raise ConfigurationError(f"the table of {empty[0]} has no name")
    chosen = {**TABLES, **names}
    if "sessions" in names and "runs" not in names:
        chosen["runs"] = f"{names['sessions']}_runs"
    return chosen


@dataclass(frozen=True, slots=True)
class Rows:
    """One page of a table.

    Args:
        rows: what is on it, in no particular order.
        place: where to go on; None at the end.
    """

    rows: tuple[Row, ...]
    place: str | None


class Source(ABC):
    """What agno has written. All calls are reads.

    Attributes:
        name: such as ``dynamodb://eu-west-1``: equal to that of a store which keeps its records in the same place.
        tables: the names of its tables or collections, by kind.
    """

    name: str
    tables: Mapping[str, str]

    @abstractmethod
    async def open(self) -> None:
        """Connect to the running event loop. Raises ConfigurationError when credentials or the like are missing."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back all connections. Closing twice is harmless."""

    @abstractmethod
    async def there(self, kind: str) -> bool:
        """Whether the table of a kind is there; where collections are made by their first document: has a document."""

    @abstractmethod
    async def page(self, kind: str, place: str | None) -> Rows:
        """One page of a table.

        Args:
            kind: which table.
            place: where the page before has ended; None: from the beginning.

        Raises:
            ConfigurationError: the place is none of this table.
            CloudDBError: the service does not answer, or the table is not there.
        """

    @abstractmethod
    def runs(self, session_id: str, *, order_only: bool = False) -> AsyncGenerator[tuple[Row, ...], None]:
        """The rows of a session's runs, some at a time, in no particular order; none where there is no such table.

        Args:
            session_id: which session.
            order_only: only the columns that order them: ``run_id``, ``run_index`` and ``created_at``.
        """

    @abstractmethod
    async def count(self, kind: str) -> int:
        """How many rows a table has; 0 where it is not there. Costs what reading them costs on DynamoDB."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


_PARAMETERS = {"dynamodb": "endpoint_url", "firestore": "emulator_host"}


def source_from_url(url: str, names: Mapping[str, str] = MappingProxyType({})) -> Source:
    """The source that a URL names, not open yet.

    Args:
        url: ``dynamodb://REGION[?endpoint_url=…]`` or ``firestore://PROJECT[/DATABASE][?emulator_host=…]``.
        names: names of tables or collections by kind, where they are not agno's own.

    Raises:
        ConfigurationError: the scheme, a parameter or a kind is unknown, or a value is malformed.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a URL: {error}") from error
    parameter = _PARAMETERS.get(parts.scheme)
    if parameter is None:
        raise ConfigurationError(
            f"agno's own tables cannot be read from {url!r}", remedy="Use dynamodb://REGION or firestore://PROJECT"
        )
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(given.keys() - {parameter}):
        raise ConfigurationError(
            f"the URL of a source has no parameter {', '.join(unknown)}",
            remedy=f"Use {parameter}, and give names of tables by kind",
        )
    place, path = unquote(parts.netloc) or None, unquote(parts.path.strip("/"))
    if parts.scheme == "dynamodb":
        from agno_clouddb.integrations.agno.importing.dynamodb import DynamoDBSource

        if path:
            raise ConfigurationError(f"{url!r} has a path, which dynamodb URLs have not")
        return DynamoDBSource(place, endpoint_url=given.get(parameter), names=names)
    from agno_clouddb.integrations.agno.importing.firestore import FirestoreSource

    if "/" in path:
        raise ConfigurationError(f"{url!r} has a path of several parts", remedy="Write PROJECT/DATABASE")
    return FirestoreSource(place, path or "(default)", emulator_host=given.get(parameter), names=names)
