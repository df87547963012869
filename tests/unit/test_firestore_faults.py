from __future__ import annotations

import asyncio

import pytest

from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    IndexNotReady,
    NotProvisioned,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.stores.base import Key
from agno_clouddb.stores.firestore.faults import Backoff, Fault

NOT_CONNECTED = "failed to connect to all addresses; last error: connection refused"


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", NOT_CONNECTED, StoreUnavailable),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", StoreUnavailable),
        ("INTERNAL", "", StoreUnavailable),
        ("RESOURCE_EXHAUSTED", "Quota exceeded.", Throttled),
        ("RESOURCE_EXHAUSTED", "Received message larger than max", CloudDBError),
        ("PERMISSION_DENIED", "Missing or insufficient permissions.", ConfigurationError),
        ("UNAUTHENTICATED", "", ConfigurationError),
        ("UNAVAILABLE", "Getting metadata from plugin failed with error: invalid_grant", ConfigurationError),
        ("NOT_FOUND", "The database (default) does not exist", NotProvisioned),
        ("FAILED_PRECONDITION", "The query requires an index.", IndexNotReady),
        ("FAILED_PRECONDITION", "the stored version does not match the required base version", CloudDBError),
        ("INVALID_ARGUMENT", "bad", CloudDBError),
    ],
)
def test_a_status_becomes_the_error_that_says_what_to_do(code: str, details: str, kind: type[CloudDBError]) -> None:
    cause = RuntimeError("from the driver")
    error = Fault(code, details, cause).error("firestore://p", key=Key("sessions", "a"))
    assert type(error) is kind
    assert error.store == "firestore://p"
    assert error.collection == "sessions"
    assert code in str(error)
    assert error.__cause__ is cause


CONSOLE = "https://console.firebase.google.com/v1/r/project/p/firestore/indexes?create_composite=Ckxwcm9q_-A="


@pytest.mark.parametrize(
    ("details", "state", "link"),
    [
        (f"The query requires an index. You can create it here: {CONSOLE}", "missing", CONSOLE),
        (
            "The query requires an index. That index is currently building and cannot be used yet. "
            f"See its status here: {CONSOLE}",
            "still being built",
            CONSOLE,
        ),
        (
            f"The query requires a COLLECTION_DESC index for collection runs and field f. Create it: {CONSOLE}.",
            "missing",
            CONSOLE,
        ),
        ("The query requires an index.", "missing", ""),
    ],
)
def test_an_index_that_is_not_there_is_named_with_the_place_to_look_at(details: str, state: str, link: str) -> None:
    fault = Fault("FAILED_PRECONDITION", details)
    error = fault.error("firestore://p", collection="memories", index="agno_memories (user_id, updated_at DESCENDING)")
    assert isinstance(error, IndexNotReady)
    assert (error.index, error.link) == ("agno_memories (user_id, updated_at DESCENDING)", link)
    assert state in str(error)
    assert error.index in str(error)
    assert str(error).count("https://") == bool(link)
    assert "agno-clouddb schema" in error.remedy
    assert (fault.conflict, fault.transient) == (False, False)


def test_a_precondition_of_a_document_that_failed_is_a_conflict_and_not_an_index() -> None:
    fault = Fault("FAILED_PRECONDITION", "the stored version (17) does not match the required base version (12)")
    assert (fault.conflict, fault.needs_index) == (True, False)


@pytest.mark.parametrize(
    ("fault", "transient", "unknown"),
    [
        (Fault("UNAVAILABLE", "Socket closed"), True, True),
        (Fault("UNAVAILABLE", NOT_CONNECTED), True, False),
        (Fault("DEADLINE_EXCEEDED", "the deadline has passed", sent=False), True, False),
        (Fault("DEADLINE_EXCEEDED", ""), True, True),
        (Fault("ABORTED", "too much contention"), True, False),
        (Fault("RESOURCE_EXHAUSTED", "quota"), True, False),
        (Fault("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 4194304: 5000000"), False, False),
        (Fault("UNAVAILABLE", "Getting metadata from plugin failed"), False, True),
        (Fault("INVALID_ARGUMENT", ""), False, False),
        (Fault("PERMISSION_DENIED", ""), False, False),
    ],
)
def test_which_faults_may_pass_and_which_leave_a_write_unknown(fault: Fault, transient: bool, unknown: bool) -> None:
    assert (fault.transient, fault.unknown) == (transient, unknown)


async def test_a_pause_that_would_outlast_the_deadline_is_not_begun() -> None:
    loop = asyncio.get_running_loop()
    backoff = Backoff(loop.time() - 1)
    assert await backoff.pause() is False


async def test_pauses_grow_up_to_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    longest: list[float] = []

    def draw(_: float, high: float) -> float:
        longest.append(high)
        return 0

    monkeypatch.setattr("agno_clouddb.concurrency.random.uniform", draw)
    backoff = Backoff(asyncio.get_running_loop().time() + 60, initial=0.25, maximum=1)
    assert all([await backoff.pause() for _ in range(4)])
    assert longest == [0.25, 0.5, 1, 1]
