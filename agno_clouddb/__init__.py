"""Asyncio-native persistence for AI agents on Amazon DynamoDB and Google Cloud Firestore, one of them or both at once.

Importing this package loads neither cloud's SDK; opening a store does. What it exports is loaded when it is first
asked for.
"""

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agno_clouddb.database import Database, connect
    from agno_clouddb.errors import (
        BulkWriteError,
        CloudDBError,
        ConfigurationError,
        ConflictError,
        IndexNotReady,
        InvalidRecord,
        LifecycleError,
        NotOwner,
        NotProvisioned,
        PartialWrite,
        QueryNotIndexed,
        RecordNotFound,
        RecordTooLarge,
        StoreUnavailable,
        Throttled,
    )
    from agno_clouddb.fanout.health import Health, StoreHealth
    from agno_clouddb.fanout.reconcile import Compared, Reconciliation
    from agno_clouddb.records.evals import EvalRun
    from agno_clouddb.records.knowledge import KnowledgeContent
    from agno_clouddb.records.learnings import Learning
    from agno_clouddb.records.memories import UserMemory
    from agno_clouddb.records.metrics import Metrics
    from agno_clouddb.records.sessions import Run, Session
    from agno_clouddb.records.traces import Span, Trace
    from agno_clouddb.repositories.base import Page
    from agno_clouddb.repositories.bulk import BulkResult
    from agno_clouddb.repositories.reads import UserStats
    from agno_clouddb.repositories.spans import SpanCounts
    from agno_clouddb.repositories.traces import SessionTraces
    from agno_clouddb.stores.cache import CacheStats, ReadCache

__version__ = "0.1.0"

# What is logged is for the application to show; without a handler of its own, Python would print it.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "BulkResult",
    "BulkWriteError",
    "CacheStats",
    "CloudDBError",
    "Compared",
    "ConfigurationError",
    "ConflictError",
    "Database",
    "EvalRun",
    "Health",
    "IndexNotReady",
    "InvalidRecord",
    "KnowledgeContent",
    "Learning",
    "LifecycleError",
    "Metrics",
    "NotOwner",
    "NotProvisioned",
    "Page",
    "PartialWrite",
    "QueryNotIndexed",
    "ReadCache",
    "Reconciliation",
    "RecordNotFound",
    "RecordTooLarge",
    "Run",
    "Session",
    "SessionTraces",
    "Span",
    "SpanCounts",
    "StoreHealth",
    "StoreUnavailable",
    "Throttled",
    "Trace",
    "UserMemory",
    "UserStats",
    "connect",
]

_HOMES = {
    "agno_clouddb.database": ["Database", "connect"],
    "agno_clouddb.errors": [
        "BulkWriteError",
        "CloudDBError",
        "ConfigurationError",
        "ConflictError",
        "IndexNotReady",
        "InvalidRecord",
        "LifecycleError",
        "NotOwner",
        "NotProvisioned",
        "PartialWrite",
        "QueryNotIndexed",
        "RecordNotFound",
        "RecordTooLarge",
        "StoreUnavailable",
        "Throttled",
    ],
    "agno_clouddb.fanout.health": ["Health", "StoreHealth"],
    "agno_clouddb.fanout.reconcile": ["Compared", "Reconciliation"],
    "agno_clouddb.records.evals": ["EvalRun"],
    "agno_clouddb.records.knowledge": ["KnowledgeContent"],
    "agno_clouddb.records.learnings": ["Learning"],
    "agno_clouddb.records.memories": ["UserMemory"],
    "agno_clouddb.records.metrics": ["Metrics"],
    "agno_clouddb.records.sessions": ["Run", "Session"],
    "agno_clouddb.records.traces": ["Span", "Trace"],
    "agno_clouddb.repositories.base": ["Page"],
    "agno_clouddb.repositories.bulk": ["BulkResult"],
    "agno_clouddb.repositories.reads": ["UserStats"],
    "agno_clouddb.repositories.spans": ["SpanCounts"],
    "agno_clouddb.repositories.traces": ["SessionTraces"],
    "agno_clouddb.stores.cache": ["CacheStats", "ReadCache"],
}
"""The modules that define what is exported: the same as above, for when the program runs."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
