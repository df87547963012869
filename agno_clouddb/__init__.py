"""Asyncio-native persistence for AI agents on Amazon DynamoDB and Google Cloud Firestore, one of them or both at once.

Importing this package loads neither cloud's SDK; opening a store does.
"""

from agno_clouddb.database import Database, connect
from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    ConflictError,
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
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.repositories.base import Page

__version__ = "0.1.0"

__all__ = [
    "CloudDBError",
    "ConfigurationError",
    "ConflictError",
    "Database",
    "InvalidRecord",
    "LifecycleError",
    "NotOwner",
    "NotProvisioned",
    "Page",
    "PartialWrite",
    "QueryNotIndexed",
    "RecordNotFound",
    "RecordTooLarge",
    "Run",
    "Session",
    "StoreUnavailable",
    "Throttled",
    "connect",
]
