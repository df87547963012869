"""Asyncio-native persistence for AI agents on Amazon DynamoDB and Google Cloud Firestore, one of them or both at once.

Importing this package loads neither cloud's SDK; opening a store does.
"""

import logging

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
from agno_clouddb.repositories.traces import SessionTraces

__version__ = "0.1.0"

# What is logged is for the application to show; without a handler of its own, Python would print it.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "BulkResult",
    "BulkWriteError",
    "CloudDBError",
    "ConfigurationError",
    "ConflictError",
    "Database",
    "EvalRun",
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
    "RecordNotFound",
    "RecordTooLarge",
    "Run",
    "Session",
    "SessionTraces",
    "Span",
    "StoreUnavailable",
    "Throttled",
    "Trace",
    "UserMemory",
    "UserStats",
    "connect",
]
