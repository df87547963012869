"""StoreConformance: what a store must do to be a store, as a class of pytest cases to subclass."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agno_clouddb.testing.conformance_base import ConformanceBase
from agno_clouddb.testing.conformance_collections import CollectionCases, ProvisionCases
from agno_clouddb.testing.conformance_conditions import ConditionCases
from agno_clouddb.testing.conformance_filters import AnyOfCases, FilterCases, TallyCases
from agno_clouddb.testing.conformance_ids import IdCases, InvalidCases
from agno_clouddb.testing.conformance_items import AtomicCases, BulkCases, ItemCases
from agno_clouddb.testing.conformance_payloads import PayloadCases
from agno_clouddb.testing.conformance_queries import IndexCases, PageCases
from agno_clouddb.testing.conformance_scan import ReplicationCases, ScanCases
from agno_clouddb.testing.conformance_tasks import CancellationCases, ConcurrencyCases, LifecycleCases
from agno_clouddb.testing.statemachine import run_state_machine

__all__ = ["StoreConformance"]


class MachineCases(ConformanceBase):
    """The store beside the reference model, under random sequences of calls."""

    examples: ClassVar[int] = 50
    """How many sequences are tried: new ones in every run, or with Hypothesis's profile ``ci`` the same ones."""

    steps: ClassVar[int] = 30
    """How many calls a sequence has at most."""

    async def test_the_store_answers_as_the_reference_model_does(self) -> None:
        # The state machine drives an event loop of its own, which needs a thread of its own.
        await asyncio.to_thread(run_state_machine, self.make_store, examples=self.examples, steps=self.steps)


class StoreConformance(
    ItemCases,
    BulkCases,
    AtomicCases,
    ConditionCases,
    IdCases,
    InvalidCases,
    PayloadCases,
    IndexCases,
    FilterCases,
    AnyOfCases,
    TallyCases,
    PageCases,
    CollectionCases,
    ProvisionCases,
    ScanCases,
    ReplicationCases,
    ConcurrencyCases,
    CancellationCases,
    LifecycleCases,
    MachineCases,
):
    """Holds a store against the port: every promise in the docstrings of ``agno_clouddb.stores.base``.

    Subclass it in a test module and say how a store is made; pytest then finds the cases. They need pytest,
    pytest-asyncio (in either mode) and Hypothesis, which ``agno_clouddb[testing]`` installs::

        class TestMyStore(StoreConformance):
            async def make_store(self) -> Store:
                return MyStore(namespace=secrets.token_hex(4))

    Most cases share one store and keep apart by the keys and values of their items; those that need an empty store,
    or one that is not provisioned, make their own. Most need ``collections`` only, and a few go over all that there
    are. Set ``needs_provision = False`` where a call before ``provision`` does not fail, implement ``reopen`` where
    items outlive the store object, and lower ``examples`` and ``steps`` where a call takes long.

    A list must show a write as soon as that is acknowledged, as the engines for development do; an index of a cloud
    that lags behind fails some of the cases about lists.
    """
