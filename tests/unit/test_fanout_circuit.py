"""A store of a fan-out that has failed is waited for a moment only, until it answers again."""

from __future__ import annotations

import logging

import pytest

from agno_clouddb import NotProvisioned, StoreUnavailable
from agno_clouddb.fanout import circuit
from agno_clouddb.fanout.circuit import CircuitStore
from agno_clouddb.stores.base import Delete, Failed, Key, Query
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import FaultyStore
from agno_clouddb.testing.faults import Fault

KEY = Key("sessions", "s1")
DELETE = Delete(KEY, HybridClock().stamp())
HANGING = Fault(delay=3600)


class Rig:
    """A circuit over a store that fails as told, with a clock that stands still."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.faulty = FaultyStore(MemoryStore("memory://it"))
        self.store = CircuitStore(self.faulty, now=lambda: self.seconds)

    def next(self, fault: Fault | None) -> None:
        self.faulty.plan = lambda call, mutations: fault


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(circuit, "_IMPATIENT", 0.001)
    rig = Rig()
    await rig.store.open()
    await rig.store.provision()
    return rig


async def test_a_store_that_failed_and_then_hangs_is_given_up_soon(rig: Rig) -> None:
    rig.next(Fault("refused"))
    with pytest.raises(StoreUnavailable):
        await rig.store.get([KEY])
    rig.next(HANGING)
    for call in (
        lambda: rig.store.get([KEY]),
        lambda: rig.store.query(Query("sessions", sort="created_at"), limit=1),
        lambda: rig.store.count(Query("sessions", sort="created_at")),
    ):
        with pytest.raises(StoreUnavailable, match="after an earlier failure") as caught:
            await call()
        assert caught.value.store == "memory://it"
    (outcome,) = await rig.store.write([DELETE])
    assert isinstance(outcome, Failed)
    assert outcome.applied


async def test_a_failed_write_counts_as_a_failure_too(rig: Rig) -> None:
    rig.next(Fault("request lost"))
    (outcome,) = await rig.store.write([DELETE])
    assert isinstance(outcome, Failed)
    assert rig.store.failure is outcome.error


async def test_a_store_that_answers_again_is_trusted_at_once(rig: Rig) -> None:
    rig.next(Fault("refused"))
    with pytest.raises(StoreUnavailable):
        await rig.store.get([KEY])
    rig.next(None)
    assert (await rig.store.get([KEY])).items == (None,)
    assert rig.store.failure is None
    # A short delay, longer than the moment that a failed store is given.
    rig.next(Fault(delay=0.02))
    assert (await rig.store.get([KEY])).items == (None,)


async def test_a_slow_store_gets_its_whole_deadline_now_and_then(rig: Rig) -> None:
    rig.next(Fault("refused"))
    with pytest.raises(StoreUnavailable):
        await rig.store.get([KEY])
    rig.next(Fault(delay=0.02))
    with pytest.raises(StoreUnavailable):
        await rig.store.get([KEY])
    rig.seconds += 10.0
    assert (await rig.store.get([KEY])).items == (None,)
    assert rig.store.failure is None


async def test_a_change_is_logged_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    rig.next(Fault("refused"))
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await rig.store.get([KEY])
    rig.next(None)
    for _ in range(3):
        await rig.store.get([KEY])
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "going on without memory",
        "memory",
    ]
    assert "answers again" in caplog.records[1].message


async def test_a_store_without_tables_is_logged_and_not_hurried(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    await rig.store.open()
    with pytest.raises(NotProvisioned):
        await rig.store.get([KEY])
    assert "provision()" in caplog.text
    rig.next(Fault(delay=0.02))
    with pytest.raises(NotProvisioned):
        await rig.store.get([KEY])
