"""Statuses of gRPC as errors of the library.

Source: https://cloud.google.com/firestore/docs/understand-error-codes for what each status means and which of them
may be retried.
"""

from __future__ import annotations

import asyncio
import re

from agno_clouddb.concurrency import full_jitter
from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    IndexNotReady,
    NotProvisioned,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.stores.base import Key

__all__ = ["Backoff", "Fault"]

_CONFLICTS = frozenset({"FAILED_PRECONDITION", "ALREADY_EXISTS", "NOT_FOUND", "ABORTED"})
_TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED", "ABORTED"})
_THROTTLED = "RESOURCE_EXHAUSTED"
_LATE = "DEADLINE_EXCEEDED"
_MESSAGE_TOO_LARGE = ("larger than max", "exceeds maximum size")
_NOT_CONNECTED = "failed to connect to all addresses"
_NO_CREDENTIALS = "Getting metadata from plugin failed"
_NEEDS_INDEX = re.compile(r"\brequires\b.*\bindex(es)?\b")
_BUILDING = "currently building"
_LINK = re.compile(r"https://\S*[^\s.,;)]")


class Fault(Exception):
    """One request was answered with a status other than OK, or not at all; never leaves the adapter.

    Args:
        code: the name of the status, such as ``UNAVAILABLE``.
        details: what the service said.
        cause: the driver's own exception, where there is one.
        sent: whether the request may have left this process.
    """

    def __init__(self, code: str, details: str, cause: BaseException | None = None, *, sent: bool = True) -> None:
        self.sent = sent and _NOT_CONNECTED not in details
        self.code = code
        self.details = details
        self.cause = cause
        super().__init__(f"{code}: {details}")

    @property
    def conflict(self) -> bool:
        """Whether a commit was refused because a document is not as its precondition says."""
        return self.code in _CONFLICTS and not self.needs_index

    @property
    def needs_index(self) -> bool:
        """Whether a query was refused because an index is missing or still being built."""
        return self.code == "FAILED_PRECONDITION" and _NEEDS_INDEX.search(self.details) is not None

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        if self.code == _THROTTLED:
            return not any(text in self.details for text in _MESSAGE_TOO_LARGE)
        return self.code in _TRANSIENT and _NO_CREDENTIALS not in self.details

    @property
    def unknown(self) -> bool:
        """Whether a commit that ended so may have been applied all the same."""
        return self.sent and self.code in _TRANSIENT and self.code != "ABORTED"

    def after(self, met: Fault | None) -> Fault:
        """This fault of a call that has met another one before, which says why when this one is that time ran out."""
        if met is None or self.code != _LATE:
            return self
        return Fault(met.code, f"{met.details}; then the deadline passed", met.cause or self.cause, sent=met.sent)

    def error(
        self, store: str, *, collection: str | None = None, key: Key | None = None, index: str = ""
    ) -> CloudDBError:
        """This fault as an error of the library, with the driver's exception as its cause.

        Args:
            store: the store's name.
            collection: the collection that was asked.
            key: the record that was asked for.
            index: the indexes that the query needs, in words.
        """
        where = collection if key is None else key.collection
        error = self._index_error(store, where, index) if self.needs_index else self._error(store, where, key)
        error.__cause__ = self.cause
        return error

    def _index_error(self, store: str, collection: str | None, index: str) -> CloudDBError:
        link = _LINK.search(self.details)
        state = "is still being built" if _BUILDING in self.details else "is missing"
        return IndexNotReady(
            f"Firestore answered {self.code}: the index {index} {state}",
            index=index,
            link=link[0] if link is not None else "",
            store=store,
            collection=collection,
        )

    def _error(self, store: str, collection: str | None, key: Key | None) -> CloudDBError:
        said = f"Firestore answered {self.code}: {self.details}"
        if self.code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or _NO_CREDENTIALS in self.details:
            kind: type[CloudDBError] = ConfigurationError
            remedy = "Check project, database and credentials; the account needs the role roles/datastore.user"
        elif self.code == "NOT_FOUND":
            return NotProvisioned(f"the database is not there; {said}", store=store, collection=collection)
        elif self.code == _THROTTLED and self.transient:
            kind = Throttled
            remedy = "Try again later; ramp traffic up gradually, or raise the quota of the project"
        elif self.transient:
            kind = StoreUnavailable
            remedy = "Try again later; check that the service can be reached from here"
        else:
            kind, remedy = CloudDBError, ""
        return kind(said, store=store, collection=collection, key=key, remedy=remedy)


class Backoff:
    """Exponential pauses with full jitter between attempts, up to a deadline.

    Args:
        until: the deadline, in seconds of the event loop's clock.
        initial: the longest first pause in seconds; it doubles with every attempt.
        maximum: the longest pause in seconds.
    """

    def __init__(self, until: float, *, initial: float = 0.02, maximum: float = 1.0) -> None:
        self._until = until
        self._initial = initial
        self._maximum = maximum
        self._attempt = 0

    async def pause(self) -> bool:
        """Wait before the next attempt; False at once when the deadline would have passed by then."""
        delay = full_jitter(self._attempt, self._initial, self._maximum)
        self._attempt += 1
        if asyncio.get_running_loop().time() + delay >= self._until:
            return False
        await asyncio.sleep(delay)
        return True
