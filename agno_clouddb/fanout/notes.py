"""Notes: what coordinators of the same stores tell each other by way of these stores: checkpoints and leases."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout.hints import LAST_VERSION
from agno_clouddb.fanout.replicas import Replicas
from agno_clouddb.stores.base import Condition, Delete, Failed, Item, Key, Outcome, Put, Refused, Store, Stored
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.schema import REPLICATION

__all__ = ["KINDS", "Notes", "note_item", "note_key"]

KINDS = ("checkpoint", "full", "lease")
"""What is noted: how far all stores were compared; how far a full comparison has come; who compares just now."""


_NUMBER = re.compile(r" \(\d+\)$")
"""What tells stores of one name apart, and depends on which of them are there."""


def note_key(kind: str, names: list[str]) -> Key:
    """Where a note about a set of stores is kept, in whatever order they are named."""
    bare = sorted(_NUMBER.sub("", name) for name in names)
    return Key(REPLICATION.name, f"{kind}-{hashlib.sha256(json.dumps(bare).encode()).hexdigest()[:32]}")


def note_item(kind: str, names: list[str], note: Mapping[str, Any], version: str) -> Item:
    """The item that keeps a note; an empty one says that there is none."""
    return Item(note_key(kind, names), version, data=json.dumps(note))


class Notes:
    """Small JSON objects by kind, the newest on any store being what counts.

    Args:
        replicas: the stores.
        clock: stamps them.
    """

    def __init__(self, replicas: Replicas, clock: HybridClock) -> None:
        self._replicas = replicas
        self._clock = clock
        self._names = list(replicas.stores)

    async def read(self, *kinds: str) -> list[dict[str, Any]]:
        """The notes of these kinds, each empty where there is none. Raises CloudDBError when no store answers."""
        keys = [note_key(kind, self._names) for kind in kinds]
        answers = await self._replicas.ask(lambda store: store.get(keys))
        notes: list[dict[str, Any]] = []
        for place in range(len(keys)):
            found = [each for batch in answers.values() if (each := batch.items[place]) is not None]
            for item in found:
                self._clock.observe(item.version)
            notes.append(json.loads(max(found, key=lambda item: item.version).data) if found else {})
        return notes

    async def save(self, kind: str, note: Mapping[str, Any]) -> None:
        """Write a note to all stores. Raises CloudDBError unless one has it."""
        errors: list[CloudDBError] = []
        for name in self._names:
            (answer,) = (await self._replicas.gather(partial(self._replaced, kind, note), [name])).values()
            outcome = Failed(answer) if isinstance(answer, CloudDBError) else answer
            if isinstance(outcome, Failed):
                errors.append(outcome.error)
        if len(errors) == len(self._names):
            raise errors[0]

    async def _replaced(self, kind: str, note: Mapping[str, Any], store: Store) -> Outcome:
        """What a store answers to a note that takes the place of any other, however far ahead that was stamped."""
        item = note_item(kind, self._names, note, self._clock.stamp())
        (outcome,) = await store.write([Put(item)])
        if isinstance(outcome, Refused):
            if not self._clock.observe(outcome.version or ""):
                await store.write([Delete(item.key, LAST_VERSION)])
            (outcome,) = await store.write([Put(replace(item, version=self._clock.stamp()))])
        return outcome

    async def lease(self, kind: str, holder: str, seconds: int) -> bool:
        """Take a lease, or prolong it: of several holders who ask at once, one has it.

        The first store that answers decides. A lease keeps work from being done twice, and what is done under it may
        not depend on it: two stores may be asked by two holders who do not reach the same.

        Args:
            kind: what for.
            holder: who asks.
            seconds: after which it ends unless it is prolonged.

        Returns:
            Whether the holder has it now.

        Raises:
            CloudDBError: no store answers.
        """
        error: CloudDBError | None = None
        for store in self._replicas.stores.values():
            key, expires_at = note_key(kind, self._names), self._replicas.now + seconds
            item = Item(key, self._clock.stamp(), data=holder, expires_at=expires_at)
            (outcome,) = await store.write([Put(item, Condition(absent=True))])
            if isinstance(outcome, Refused):
                self._clock.observe(outcome.version or "")
                held = (await store.get([key])).items[0]
                if held is None or held.data not in (holder, "{}"):
                    return False
                item = Item(key, self._clock.stamp(), data=holder, expires_at=expires_at)
                (outcome,) = await store.write([Put(item, Condition(expected=held.version))])
            if not isinstance(outcome, Failed):
                return isinstance(outcome, Stored)
            error = outcome.error
        assert error is not None
        raise error
