"""What whole conversations are written to, and the conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from agno_clouddb.cli.conversations import Conversation, load

_RECORDED = Path(__file__).parents[2] / "examples" / "data" / "airline-conversations.jsonl"


@pytest.fixture
def cloud_urls(dynamodb_local_url: str, firestore_url: str, prefix: str) -> tuple[str, str]:
    """AWS's and Google's own engines, under a prefix that no other test has."""
    # A deadline within which no engine stalls: requests are counted, and none is to be sent twice.
    options = f"prefix={prefix}&deadline=60"
    return f"{dynamodb_local_url}&{options}&report_capacity=true", f"{firestore_url}&{options}"


@pytest.fixture(scope="session")
def conversations(request: pytest.FixtureRequest) -> list[Conversation]:
    """The recorded conversations, or those in the file given by ``--conversations``; at least 40.

    A short file is repeated under further ids, so that 32 sessions can be written at once.
    """
    recorded = load(Path(request.config.getoption("--conversations") or _RECORDED))
    copies = -(-40 // len(recorded))
    return [
        each if copy == 0 else each.model_copy(update={"conversation_id": f"{each.conversation_id}~{copy}"})
        for copy in range(copies)
        for each in recorded
    ]
