"""Tools for testing code that uses this library, and stores of one's own.

* ``StoreConformance``: subclass it in a test module, and pytest holds your store against the port.
* ``StoreMachine`` and ``run_state_machine``: the same by random sequences of calls, beside the reference model.
* ``FaultyStore`` and ``CountingStore``: wrap a store to let it fail on purpose, or to count its calls. ``script``,
  ``RandomFaults`` and ``Unprocessed`` say which calls fail.
* ``Proxy``: a connection to a service that can be cut, fall silent, slow down or be reset.
* ``MemoryStore``: the reference model, a quick store for unit tests.
* ``moto``, ``dynamodb_local``, ``firestore_emulator``: start an engine on a free port of this machine and stop it;
  EngineUnavailable says why one cannot run.

The conformance suite needs pytest, pytest-asyncio and Hypothesis, which ``agno_clouddb[testing]`` installs; nothing
here is imported before it is asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agno_clouddb.stores.memory import MemoryStore
    from agno_clouddb.testing.conformance import StoreConformance
    from agno_clouddb.testing.counting import CountingStore
    from agno_clouddb.testing.engines import EngineUnavailable, dynamodb_local, firestore_emulator, moto
    from agno_clouddb.testing.faults import Fault, FaultyStore, RandomFaults, Unprocessed, script
    from agno_clouddb.testing.proxy import Proxy
    from agno_clouddb.testing.statemachine import StoreMachine, run_state_machine

__all__ = [
    "CountingStore",
    "EngineUnavailable",
    "Fault",
    "FaultyStore",
    "MemoryStore",
    "Proxy",
    "RandomFaults",
    "StoreConformance",
    "StoreMachine",
    "Unprocessed",
    "dynamodb_local",
    "firestore_emulator",
    "moto",
    "run_state_machine",
    "script",
]

_MODULES = {
    "CountingStore": "testing.counting",
    "EngineUnavailable": "testing.engines",
    "Fault": "testing.faults",
    "FaultyStore": "testing.faults",
    "MemoryStore": "stores.memory",
    "Proxy": "testing.proxy",
    "RandomFaults": "testing.faults",
    "StoreConformance": "testing.conformance",
    "StoreMachine": "testing.statemachine",
    "Unprocessed": "testing.faults",
    "dynamodb_local": "testing.engines",
    "firestore_emulator": "testing.engines",
    "moto": "testing.engines",
    "run_state_machine": "testing.statemachine",
    "script": "testing.faults",
}

_ASSERTING = (
    "conformance",
    "conformance_base",
    "conformance_collections",
    "conformance_conditions",
    "conformance_filters",
    "conformance_ids",
    "conformance_items",
    "conformance_payloads",
    "conformance_queries",
    "conformance_tasks",
    "statemachine",
)

if (_pytest := sys.modules.get("pytest")) is not None:
    # pytest explains a failed assert only in modules that it has rewritten, and must be told before their import.
    _pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _ASSERTING))


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"agno_clouddb.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
