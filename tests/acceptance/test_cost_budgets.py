"""The counted budgets of a turn, held by what the benchmarks count on the recorded conversations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agno_clouddb.cli.conversations import Conversation, load
from benchmarks.budgets import BUDGETS
from benchmarks.cost import rows_of, turns_of_sessions
from benchmarks.options import SHIPPED
from benchmarks.subjects import ours
from tests.acceptance.clouds import show

TURNS = [budget for budget in BUDGETS if not budget.listed]


async def replayed(subject: str, urls: Mapping[str, str], conversations: list[Conversation]) -> list[dict[str, Any]]:
    """What replaying the conversations through ``db.sessions`` costs, as the benchmarks report it."""
    consistency: Any = "eventual" if subject.endswith("eventual") else "strong"
    async with ours(urls, consistency=consistency) as own:
        return rows_of(subject, "sessions", await turns_of_sessions(own.database, own.meter, conversations))


@pytest.mark.dynamodb_local
@pytest.mark.firestore
async def test_turns_of_the_recorded_conversations_are_within_every_budget(
    dynamodb_local_url: str, firestore_url: str
) -> None:
    conversations = load(SHIPPED)
    dynamodb, firestore = {"dynamodb": dynamodb_local_url}, {"firestore": firestore_url}
    subjects = {
        "agno_clouddb": [dynamodb, firestore],
        "agno_clouddb, eventual": [dynamodb],
        "agno_clouddb, both": [{**dynamodb, **firestore}],
    }
    rows = [
        row for name, each in subjects.items() for urls in each for row in await replayed(name, urls, conversations)
    ]
    reached = {budget.name: budget.reached({"turns": rows}) for budget in TURNS}
    for budget in TURNS:
        show(f"{budget.what}: {reached[budget.name]:g}, at most {budget.most:g}")
    assert len(rows) == 5
    assert all(reached.values()), "everything that has a budget is counted"
    assert [budget.name for budget in TURNS if reached[budget.name] > budget.most] == []
    assert {row["most_requests"] for row in rows} == {4}
