"""Failures: which of a store's errors a fan-out goes on without, and which it does not."""

from __future__ import annotations

from agno_clouddb.errors import (
    ConfigurationError,
    InvalidRecord,
    LifecycleError,
    QueryNotIndexed,
    StoreUnavailable,
    Throttled,
)

__all__ = ["CALLERS_FAULT", "OUTAGES"]

CALLERS_FAULT = (InvalidRecord, QueryNotIndexed, LifecycleError)
"""Errors that say nothing of the store: every store would raise them."""

OUTAGES = (StoreUnavailable, Throttled, ConfigurationError)
"""Failures that are gone on without. Others are mistakes, such as a missing table, which going on would hide."""
