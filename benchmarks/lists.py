"""What a page of 20 out of 2,000 records costs, for every list of every repository, by each filter and order.

    python benchmarks/lists.py

Starts DynamoDB Local and the Firestore emulator, writes the records, and prints for each list the requests and read
units that DynamoDB Local reports, and the requests and documents that the Firestore client has counted. A filter
with an index of its own is to cost at most 2 requests and 25 read units, or 20 documents.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from agno_clouddb import (
    Database,
    EvalRun,
    KnowledgeContent,
    Learning,
    Metrics,
    Session,
    Trace,
    UserMemory,
)
from agno_clouddb.stores.dynamodb.store import DynamoDBStore
from agno_clouddb.stores.firestore.store import FirestoreStore
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.testing import dynamodb_local, firestore_emulator

LISTED, RECORDS, VALUES = 20, 2_000, 10
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one page has cost.

    Args:
        list: the repository, the filter and the order.
        partitions: of how many partitions an index the list is read, one for each value of the filter; 0: the filter
            has no index of its own.
        found: how many records the page has.
        requests: how many requests were sent.
        units: read units, on DynamoDB.
        documents: documents read, on Firestore.
    """

    list: str
    partitions: int
    found: int
    requests: int
    units: float
    documents: int

    @property
    def within(self) -> bool:
        """Whether the page is whole, and its cost within the budget of filters with an index of their own.

        Several values cost a request each, at the same time, and one for the records.
        """
        if self.found != (VALUES if "date=" in self.list else LISTED):
            return False
        if not self.partitions:
            return True
        return self.requests <= self.partitions + 1 and self.units <= 25 and self.documents <= LISTED


def records(repository: str) -> Iterator[Any]:
    """Records of a repository, a tenth of which have each value of each field that lists are filtered by."""
    for n in range(RECORDS):
        at = _START + timedelta(minutes=n)
        value, name = str(n * 7 % VALUES), f"{n:04}"
        scope: dict[str, Any] = dict.fromkeys(("user_id", "agent_id", "team_id", "workflow_id"), value)
        if repository == "sessions":
            types = ("agent", "team", "workflow")
            yield Session(session_id=name, user_id=value, component_id=value, session_type=types[n % 3], created_at=at)
        elif repository == "memories":
            yield UserMemory(memory_id=name, memory=f"memory {n}", updated_at=at, **scope)
        elif repository == "evals":
            kind = ("accuracy", "agent_as_judge", "performance", "reliability")[n % 4]
            yield EvalRun(run_id=name, eval_type=kind, eval_data={"n": n}, model_id=value, created_at=at, **scope)
        elif repository == "knowledge":
            owner = value if value != "9" else None
            yield KnowledgeContent(
                id=name, name=name, type=value, status=value, linked_to=value, user_id=owner, created_at=at
            )
        elif repository == "traces":
            yield Trace(
                trace_id=name,
                name=name,
                start_time=at,
                end_time=at,
                status=("OK", "ERROR")[n % 2],
                session_id=value,
                run_id=value,
                **scope,
            )
        elif repository == "learnings":
            more: dict[str, Any] = {"namespace": value, "session_id": value, "entity_type": value}
            yield Learning(
                learning_id=name, learning_type=value, entity_id=value, content={"n": n}, updated_at=at, **scope, **more
            )
        else:
            yield Metrics(date=date(2020, 1, 1) + timedelta(days=n // VALUES), user_id=f"user {value}")


def filters(repository: str, db: Database) -> Iterator[dict[str, Any]]:
    """No filter, and each filter by the value of a field alone."""
    yield {}
    known = {
        "session_type": "team",
        "eval_type": "accuracy",
        "audience": "everyone",
        "status": "OK" if repository == "traces" else "3",
    }
    for name, each in getattr(db, repository).lists.filters.items():
        if each.kind in ("equal", "any"):
            yield {name: known.get(name, "3")}
    if repository == "evals":
        yield {"eval_type": ["accuracy", "performance"]}


async def measure(store: DynamoDBStore | FirestoreStore) -> list[Cost]:
    """Write the records to an empty store, and list them."""
    costs: list[Cost] = []
    async with Database(store) as db:
        await db.provision()
        for repository in ("sessions", "memories", "evals", "knowledge", "traces", "learnings"):
            lists = getattr(db, repository).lists
            await getattr(db, repository).upsert_many(records(repository))
            for narrowed in filters(repository, db):
                for sort in lists.orders:
                    query = lists.listing(narrowed, sort).query
                    values = len(query.any_of.get(query.index.partition, [""]))
                    partitions = values if not narrowed or query.index.partition in narrowed else 0
                    before = store.usage.copy()
                    page = await getattr(db, repository).list(**narrowed, sort=sort, limit=LISTED)
                    costs.append(
                        _cost(f"{repository} {_words(narrowed)} {sort}", partitions, page.items, store, before)
                    )
        await db.metrics.upsert_many(records("metrics"))
        for narrowed in ({}, {"bucket": "user user 3"}, {"date": "2020-01-03"}):
            for sort in ("-aggregation_period", "aggregation_period") if "date" in narrowed else ("-date", "date"):
                query = db.metrics.lists.listing(narrowed, sort).query
                before = store.usage.copy()
                items = (await store.query(query, limit=LISTED)).items
                costs.append(_cost(f"metrics {_words(narrowed)} {sort}", 1, items, store, before))
    return costs


def _words(narrowed: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in narrowed.items()) or "all"


def _cost(name: str, partitions: int, found: Sequence[Any], store: DynamoDBStore | FirestoreStore, before: Any) -> Cost:
    used = store.usage.since(before)
    return Cost(name, partitions, len(found), used.requests.total(), used.read_units, used.documents_read)


async def main() -> int:
    """Measure on both engines and print a table; 1 when a cost is over its budget."""
    over = 0
    prefix = f"bench{secrets.token_hex(4)}_"
    with dynamodb_local() as dynamodb, firestore_emulator() as firestore:
        options = StoreOptions(prefix=prefix)
        stores = [store_from_url(f"{dynamodb}&report_capacity=true", options), store_from_url(firestore, options)]
        measured = []
        for store in stores:
            assert isinstance(store, DynamoDBStore | FirestoreStore)
            measured.append(await measure(store))
    table = Table(
        "list of 20 out of 2,000", "index", "DynamoDB requests", "read units", "Firestore requests", "documents"
    )
    for one, other in zip(*measured, strict=True):
        figures = (str(one.requests), f"{one.units:g}", str(other.requests), str(other.documents))
        table.add_row(one.list, ("filtered", "own", "own, twice")[one.partitions], *figures)
        over += not (one.within and other.within)
    Console(width=140).print(table)
    print(f"{over} over budget" if over else "every page is whole, and no list with an index of its own over budget")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
