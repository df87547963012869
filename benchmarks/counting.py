"""What calls have cost, counted: requests, round trips, units, documents and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from agno_clouddb.stores.base import Batch, Consistency, Cursor, Key, Mutation, Outcome, Page, Query, Store
from agno_clouddb.stores.usage import Usage
from agno_clouddb.stores.wrapper import WrapperStore
from benchmarks.relay import Relay

__all__ = ["CLOUDS", "Cost", "Meter", "RoundTrips", "Source"]

CLOUDS = ("dynamodb", "firestore")


class RoundTrips(WrapperStore):
    """Counts the calls of a store, and how many of them began when none was under way: sequential round trips.

    That these are round trips to the service holds as long as every call is one request, which tests assert. A list
    on DynamoDB is a call of two requests, one after the other.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls = 0
        self.sequential = 0
        self.under_way = 0

    async def get(self, keys: Sequence[Key], *, consistency: Consistency = "strong", dead: bool = False) -> Batch:
        with self:
            return await super().get(keys, consistency=consistency, dead=dead)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        with self:
            return await super().write(mutations, atomic=atomic)

    async def query(
        self, query: Query, *, limit: int, cursor: Cursor | None = None, consistency: Consistency = "strong"
    ) -> Page:
        with self:
            return await super().query(query, limit=limit, cursor=cursor, consistency=consistency)

    def __enter__(self) -> None:
        self.calls += 1
        self.sequential += self.under_way == 0
        self.under_way += 1

    def __exit__(self, *_: object) -> None:
        self.under_way -= 1


@dataclass(frozen=True)
class Cost:
    """What calls have cost on one cloud.

    Args:
        requests: by the service's own name of the call.
        round_trips: requests that were sent when none was under way; None: not counted.
        read_units: DynamoDB read request units.
        write_units: DynamoDB write request units.
        documents_read: Firestore documents.
        documents_written: Firestore documents written or deleted.
        bytes_sent: through the relay, headers of HTTP included.
    """

    requests: Mapping[str, float] = field(default_factory=dict)
    round_trips: float | None = None
    read_units: float = 0.0
    write_units: float = 0.0
    documents_read: float = 0.0
    documents_written: float = 0.0
    bytes_sent: float = 0.0

    @property
    def total(self) -> float:
        """All requests."""
        return sum(self.requests.values())

    @classmethod
    def mean(cls, costs: Sequence[Cost]) -> Self:
        """The cost of one of several."""
        requests: Counter[str] = Counter()
        for each in costs:
            requests.update(each.requests)
        trips = [each.round_trips for each in costs if each.round_trips is not None]
        number = len(costs)
        return cls(
            {name: count / number for name, count in sorted(requests.items())},
            sum(trips) / number if trips else None,
            sum(each.read_units for each in costs) / number,
            sum(each.write_units for each in costs) / number,
            sum(each.documents_read for each in costs) / number,
            sum(each.documents_written for each in costs) / number,
            sum(each.bytes_sent for each in costs) / number,
        )

    def as_json(self) -> dict[str, Any]:
        """For a file of results: what is not 0."""
        values = {
            "requests": {name: round(count, 2) for name, count in self.requests.items()},
            "total": round(self.total, 2),
            "round_trips": None if self.round_trips is None else round(self.round_trips, 2),
            "read_units": round(self.read_units, 2),
            "write_units": round(self.write_units, 2),
            "documents_read": round(self.documents_read, 2),
            "documents_written": round(self.documents_written, 2),
            "bytes_sent": round(self.bytes_sent),
        }
        return {name: value for name, value in values.items() if value or name == "requests"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where the figures of one cloud come from.

    Args:
        usage: what the client counts.
        round_trips: how many so far.
        relay: through which the client is connected; None: bytes are not counted.
    """

    usage: Usage
    round_trips: Callable[[], int]
    relay: Relay | None = None

    @classmethod
    def blocking(cls, usage: Usage, relay: Relay | None = None) -> Source:
        """Of a client that sends a request when the one before it is answered: each is a round trip."""
        return cls(usage, usage.requests.total, relay)


class Meter:
    """Counts what calls cost on each cloud.

    Args:
        sources: by cloud.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        self.mark()

    def mark(self) -> None:
        """Count anew from here."""
        self._before = {cloud: self._now(source) for cloud, source in self._sources.items()}

    def cost(self) -> dict[str, Cost]:
        """What was asked for since ``mark``, by cloud."""
        found = {}
        for cloud, source in self._sources.items():
            earlier, trips, sent = self._before[cloud]
            usage, now, bytes_now = self._now(source)
            used = usage.since(earlier)
            found[cloud] = Cost(
                dict(used.requests),
                now - trips,
                used.read_units,
                used.write_units,
                used.documents_read,
                used.documents_written,
                bytes_now - sent,
            )
        return found

    def _now(self, source: Source) -> tuple[Usage, int, int]:
        return source.usage.copy(), source.round_trips(), source.relay.sent() if source.relay else 0
