"""Asyncio-native persistence for AI agents on Amazon DynamoDB and Google Cloud Firestore, one of them or both at once.

Importing this package loads neither cloud's SDK; opening a store does.
"""

import logging

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

# What is logged is for the application to show; without a handler of its own, Python would print it.
logging.getLogger(__name__).addHandler(logging.NullHandler())

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
