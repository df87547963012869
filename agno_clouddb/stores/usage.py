"""Counting what a store asks of its service, in the terms in which the service bills it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Usage"]


@dataclass(slots=True)
class Usage:
    """What a store has asked of its service since it was made; the counters only grow.

    Args:
        requests: how many, by the service's own name of the call, retries included.
        read_units: DynamoDB read request units, when the store asks the service to report them.
        write_units: DynamoDB write request units, likewise.
        documents_read: Firestore documents returned.
        documents_written: Firestore documents written or deleted.
    """

    requests: Counter[str] = field(default_factory=Counter)
    read_units: float = 0.0
    write_units: float = 0.0
    documents_read: int = 0
    documents_written: int = 0

    def copy(self) -> Usage:
        """The counters as they are now."""
        return Usage(
            Counter(self.requests), self.read_units, self.write_units, self.documents_read, self.documents_written
        )

    def since(self, earlier: Usage) -> Usage:
        """What was added after ``earlier`` was copied."""
        return Usage(
            self.requests - earlier.requests,
            self.read_units - earlier.read_units,
            self.write_units - earlier.write_units,
            self.documents_read - earlier.documents_read,
            self.documents_written - earlier.documents_written,
        )
