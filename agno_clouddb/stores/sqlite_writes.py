"""Writes that wait for one SQLite file, so that those of several tasks share a transaction and its flush to the disk.

Whoever has the connection begins a transaction and takes along what waits behind. Each call is decided as it would be
after those before it: a call that writes what another in the same transaction writes waits for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agno_clouddb.errors import CloudDBError
from agno_clouddb.stores.base import Failed, Item, Key, Mutation, Outcome, Put, Refused, Stored, decide

__all__ = ["PendingWrite", "WriteQueue"]

_MUTATIONS, _BYTES = 500, 8 * 1024 * 1024  # in one transaction of several calls, so that it is over soon


@dataclass(slots=True, eq=False)
class PendingWrite:
    """One call of ``Store.write``.

    Args:
        mutations: the writes.
        checked: of each, what is known without asking the file; None: nothing.
        atomic: all or none.
        decided: what each comes to once the transaction is committed that is under way.
        outcomes: what each has come to; None while that is open.
        taken: a transaction has it that may be committed.
        alone: a transaction that it shared has failed, maybe for another's sake, so that it shares none any more.
    """

    mutations: Sequence[Mutation]
    checked: Sequence[Outcome | None]
    atomic: bool
    decided: tuple[Outcome, ...] = ()
    outcomes: tuple[Outcome, ...] | None = None
    taken: bool = False
    alone: bool = False

    @property
    def size(self) -> int:
        """Bytes of the payloads."""
        return sum(each.item.size for each in self.mutations if isinstance(each, Put))

    def decide(self, found: Mapping[Key, Item], missing: Mapping[str, Failed], now: int) -> list[Mutation]:
        """Decide the call; the mutations that are to be applied.

        Args:
            found: what is stored under its keys.
            missing: the collections that have no table.
            now: seconds since the epoch.
        """
        outcomes = [
            early or missing.get(mutation.key.collection) or decide(mutation, found.get(mutation.key), now)
            for early, mutation in zip(self.checked, self.mutations, strict=True)
        ]
        if self.atomic and any(isinstance(each, Refused | Failed) for each in outcomes):
            self.decided = tuple(each if isinstance(each, Refused | Failed) else Refused("atomic") for each in outcomes)
            return []
        pairs = list(zip(self.mutations, outcomes, strict=True))
        self.decided = tuple(outcome or Stored(mutation.version) for mutation, outcome in pairs)
        return [mutation for mutation, outcome in pairs if outcome is None]

    def fail(self, error: CloudDBError) -> None:
        """Note that the call has failed, unless its outcomes are known."""
        if self.outcomes is None:
            self.outcomes = tuple(early or Failed(error, self.taken) for early in self.checked)


class WriteQueue:
    """The calls that wait for the connection, in their order."""

    def __init__(self) -> None:
        self._waiting: dict[PendingWrite, None] = {}

    @contextmanager
    def joined(self, pending: PendingWrite) -> Iterator[None]:
        """Let a call wait within a block, so that another may take it along."""
        self._waiting[pending] = None
        try:
            yield
        finally:
            self._waiting.pop(pending, None)

    @contextmanager
    def taken(self, first: PendingWrite) -> Iterator[list[PendingWrite]]:
        """The calls that share the transaction of the first: up to one that writes what another of them writes.

        When the block fails, all are free again but ``first``: it ends with the error, unless that may be another's.
        """
        group = list(self._together(first))
        for each in group:
            each.taken = True
        try:
            yield group
        except BaseException as error:
            for each in group:
                each.taken = False
                # An interruption is the first one's own.
                each.alone = each.alone or (len(group) > 1 and isinstance(error, Exception))
            raise

    def settle(self, group: Sequence[PendingWrite], commit: asyncio.Task[None]) -> None:
        """Give each call its outcomes once the transaction's commit has come to its end."""
        error = commit.exception() if not commit.cancelled() else None
        for each in group:
            self._waiting.pop(each, None)
            if isinstance(error, CloudDBError):
                each.fail(error)
            elif error is None and not commit.cancelled():
                each.outcomes = each.decided

    def _together(self, first: PendingWrite) -> Iterator[PendingWrite]:
        yield first
        keys: set[Key] = {each.key for each in first.mutations}
        count, size = len(first.mutations), first.size
        for each in () if first.alone else self._waiting:
            if each is first:
                continue
            count, size = count + len(each.mutations), size + each.size
            if each.alone or each.taken or count > _MUTATIONS or size > _BYTES:
                return
            own = {mutation.key for mutation in each.mutations}
            if not keys.isdisjoint(own):
                return
            keys |= own
            yield each
