"""Tables: what a row of agno's has, for the kinds of rows that are kept as entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.integrations.agno.ids import absent
from agno_clouddb.integrations.agno.shapes import moment, plain_json
from agno_clouddb.records.entries import Entry

__all__ = ["ListedBy", "Table"]


class ListedBy(TypedDict, total=False):
    """The fields of an entry that it is listed by; filters of a list of entries too."""

    kind: str
    group: str
    state: str


@dataclass(frozen=True, slots=True)
class Table:
    """A kind of rows.

    Args:
        kind: what its entries are called, the beginning of their ids.
        columns: of every row; one that was not given is None. Others that are given are kept too, so that a row of a
            later agno survives.
        required: the columns that must be given, and not be None unless they have JSON, which has it too.
        json: the columns that have JSON, and not text, a number or a truth value.
    """

    kind: str
    columns: tuple[str, ...]
    required: frozenset[str]
    json: frozenset[str] = frozenset()

    def id(self, id: str) -> str:
        """The id of the entry that keeps a row.

        Raises:
            InvalidRecord: the row's id is no text.
        """
        if not isinstance(id, str):
            raise InvalidRecord("id", f"is of type {type(id).__name__}, not text", collection="entries")
        return f"{self.kind}:{id}"

    def has(self, id: str) -> bool:
        """Whether a row can have an id; None, one that is too long and one with control characters it cannot have."""
        return id is not None and not absent(self.id(id))

    def row(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A whole row of what was given.

        Raises:
            InvalidRecord: a column that is required is None, or one of JSON is not given.
        """
        row = {**dict.fromkeys(self.columns), **given}
        for name in self.required:
            if row[name] is None and not (name in self.json and name in given):
                raise InvalidRecord(name, f"is required in {self.kind}s", collection="entries")
        return {name: plain_json(value) if name in self.json else value for name, value in row.items()}

    def entry(
        self,
        row: Mapping[str, Any],
        *,
        kind: str | None = None,
        group: str | None = None,
        state: str | None = None,
        due: str | None = None,
    ) -> Entry:
        """The entry that keeps a row.

        Args:
            row: a whole one, see ``row``.
            kind: what the entry is listed by as its kind; by default the table's.
            group: see ``Entry``.
            state: see ``Entry``.
            due: see ``Entry``.

        Raises:
            InvalidRecord: a column that is required is None, or its ``created_at`` is no moment.
        """
        whole = self.row(row)
        return Entry(
            id=self.id(whole["id"]),
            kind=kind or self.kind,
            group=group,
            state=state,
            due=due,
            data=whole,
            created_at=moment(whole["created_at"]),
        )
