"""What calls cost, counted by what the engines and the clients report; nothing here depends on time."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from agno_clouddb import Database, Run, Session
from agno_clouddb.cli.conversations import Conversation
from agno_clouddb.concurrency import gather
from agno_clouddb.stores.dynamodb.store import DynamoDBStore
from agno_clouddb.stores.firestore.store import FirestoreStore
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.stores.usage import Usage
from benchmarks.counting import RoundTrips

LISTS = Path(__file__).parents[2] / "benchmarks" / "lists.py"


@pytest.fixture(
    params=[
        pytest.param(0, id="dynamodb", marks=pytest.mark.dynamodb_local),
        pytest.param(1, id="firestore", marks=pytest.mark.firestore),
    ]
)
def cloud(request: pytest.FixtureRequest, cloud_urls: tuple[str, str]) -> DynamoDBStore | FirestoreStore:
    store = store_from_url(cloud_urls[request.param], StoreOptions())
    assert isinstance(store, DynamoDBStore | FirestoreStore)
    return store


async def turn(db: Database, run: Run) -> None:
    session = await db.sessions.get("s1", runs=3)
    session = await db.sessions.upsert(session or Session(session_id="s1", component_id="support", user_id="ann"))
    await db.sessions.append_run("s1", run)


async def test_a_turn_costs_four_requests_and_three_round_trips_at_turn_1_and_at_turn_50(
    cloud: DynamoDBStore | FirestoreStore, conversations: list[Conversation]
) -> None:
    turns = [messages for each in conversations for messages in each.turns][:50]
    store = RoundTrips(cloud)
    costs: list[Usage] = []
    async with Database(store) as db:
        await db.provision()
        for number, messages in enumerate(turns):
            before, calls, sequential = cloud.usage.copy(), store.calls, store.sequential
            await turn(db, Run(run_id=f"r{number}", status="completed", data={"messages": messages}))
            costs.append(cloud.usage.since(before))
            assert store.calls - calls == costs[-1].requests.total() <= 4, costs[-1]
            assert store.sequential - sequential <= 3
    assert "DescribeTable" not in sum((each.requests for each in costs), start=costs[0].requests)
    for each in costs:
        assert each.documents_read <= 5
        assert each.documents_written <= 2
    later = costs[1:]
    assert sum(each.read_units for each in later) / len(later) <= 5
    assert sum(each.write_units for each in later) / len(later) <= 6


async def test_a_list_of_20_costs_two_requests_out_of_20_and_out_of_2000(
    cloud: DynamoDBStore | FirestoreStore,
) -> None:
    filters: tuple[dict[str, str], ...] = ({}, {"user_id": "ann"}, {"session_type": "agent"}, {"component_id": "c"})
    async with Database(cloud) as db:
        await db.provision()
        for total, already in ((20, 0), (2_000, 20)):
            await gather(
                [
                    lambda n=n: db.sessions.upsert(  # type: ignore[misc]
                        Session(session_id=f"s{n}", component_id="c", user_id="ann", session_data={"n": n})
                    )
                    for n in range(already, total)
                ],
                limit=32,
            )
            for narrowed in filters:
                for sort in ("-created_at", "updated_at"):
                    before = cloud.usage.copy()
                    page = await db.sessions.list(**narrowed, sort=sort, limit=20)  # type: ignore[arg-type]
                    cost = cloud.usage.since(before)
                    assert len(page.items) == 20
                    assert cost.requests.total() <= (1 if isinstance(cloud, FirestoreStore) else 2), (narrowed, sort)
                    assert cost.documents_read <= 20
                    assert cost.read_units <= 25, (narrowed, sort)


async def test_every_list_of_20_out_of_2000_is_within_its_budget(cloud: DynamoDBStore | FirestoreStore) -> None:
    costs = await runpy.run_path(str(LISTS))["measure"](cloud)
    assert len(costs) > 80
    assert [each for each in costs if not each.within] == []
