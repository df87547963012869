"""The counted budgets: what a turn and a list may cost at most. Tests hold them, and the document shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BUDGETS", "Budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that something may cost.

    Args:
        name: for tests.
        what: for readers.
        most: how much.
        subject: which rows of the results it is held against: of this adapter,
        cloud: on this cloud,
        figure: and this figure of them.
        listed: it is of a list of 20 sessions, at every size; else of a turn through ``db.sessions``, the mean of those
            that do not begin a conversation.
    """

    name: str
    what: str
    most: float
    subject: str
    cloud: str
    figure: str
    listed: bool = False

    def reached(self, cost: Mapping[str, Any]) -> float:
        """What recorded conversations have cost: the mean of the turns after the first, or the dearest list."""
        if self.listed:
            rows = [each for each in cost["lists"] if each["what"] == "20 newest sessions" and each["way"] == "own"]
        else:
            rows = [each for each in cost["turns"] if each["way"] == "sessions"]
        chosen = [each for each in rows if (each["subject"], each["cloud"]) == (self.subject, self.cloud)]
        return max(float(each.get("later", each).get(self.figure, 0)) for each in chosen)


_OWN, _EVENTUAL, _BOTH = "agno_clouddb", "agno_clouddb, eventual", "agno_clouddb, both"

BUDGETS = (
    Budget("requests_dynamodb", "a turn: requests to DynamoDB", 4, _OWN, "dynamodb", "total"),
    Budget("requests_firestore", "a turn: requests to Firestore", 4, _OWN, "firestore", "total"),
    Budget("round_trips_dynamodb", "a turn: round trips to DynamoDB", 3, _OWN, "dynamodb", "round_trips"),
    Budget("round_trips_firestore", "a turn: round trips to Firestore", 3, _OWN, "firestore", "round_trips"),
    Budget("read_units", "a turn: read units, strong", 5, _OWN, "dynamodb", "read_units"),
    Budget("read_units_eventual", "a turn: read units, eventual", 2.5, _EVENTUAL, "dynamodb", "read_units"),
    Budget("documents_read", "a turn: documents read", 5, _OWN, "firestore", "documents_read"),
    Budget("write_units", "a turn: write units, one store", 6, _OWN, "dynamodb", "write_units"),
    Budget("write_units_fan_out", "a turn: write units, in a fan-out", 9, _BOTH, "dynamodb", "write_units"),
    Budget("documents_written", "a turn: documents written", 2, _OWN, "firestore", "documents_written"),
    Budget("list_requests_dynamodb", "20 newest sessions: requests to DynamoDB", 2, _OWN, "dynamodb", "total", True),
    Budget("list_requests_firestore", "20 newest sessions: requests to Firestore", 1, _OWN, "firestore", "total", True),
    Budget("list_read_units", "20 newest sessions: read units", 25, _OWN, "dynamodb", "read_units", True),
    Budget("list_documents", "20 newest sessions: documents read", 20, _OWN, "firestore", "documents_read", True),
)
"""What docs/performance.md shows. The others are ratios of times, and no tests."""
