"""Writing to the stores of a fan-out: in which way each mutation goes, and what is common to all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import anyio

from agno_clouddb.concurrency import gather
from agno_clouddb.fanout.atomic import Atomic
from agno_clouddb.fanout.decided import Decided
from agno_clouddb.fanout.parallel import Parallel
from agno_clouddb.fanout.replicas import Replicas
from agno_clouddb.fanout.sending import WriteOptions
from agno_clouddb.stores.base import Key, Mutation, Outcome, Refused

__all__ = ["Writer", "Writing"]


class Writing:
    """The keys that are being written here, under which stores may differ for the moment."""

    def __init__(self) -> None:
        self._keys: dict[Key, int] = {}
        self._ended = anyio.Event()

    async def done(self) -> None:
        """Wait until nothing is being written."""
        while self._keys:
            await self._ended.wait()

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    @contextmanager
    def of(self, keys: Sequence[Key]) -> Iterator[None]:
        """Note that keys are being written within a block."""
        for key in keys:
            self._keys[key] = self._keys.get(key, 0) + 1
        try:
            yield
        finally:
            for key in keys:
                self._keys[key] -= 1
                if not self._keys[key]:
                    del self._keys[key]
            if not self._keys:
                self._ended.set()
                self._ended = anyio.Event()


class Writer:
    """Carries mutations out on all stores.

    Args:
        replicas: the stores, the first of them the primary.
        options: how.
        writing: is told of the keys.
    """

    def __init__(self, replicas: Replicas, options: WriteOptions, writing: Writing) -> None:
        self._replicas = replicas
        self._options = options
        self._writing = writing

    async def write(
        self, mutations: Sequence[Mutation], checked: Sequence[Outcome | None], *, atomic: bool
    ) -> tuple[Outcome, ...]:
        """What each mutation comes to, in their order.

        Args:
            mutations: the writes.
            checked: of each, what is known without asking a store; None: nothing.
            atomic: all or none.
        """
        outcomes = {n: each for n, each in enumerate(checked) if each is not None}
        asked = {n: each for n, each in enumerate(mutations) if n not in outcomes}
        with self._writing.of([each.key for each in asked.values()]):
            if not atomic:
                outcomes |= await self._each(asked)
            elif not outcomes:
                outcomes = await self._carried_out(Atomic(self._replicas, self._options), asked)
        return tuple(outcomes.get(n, Refused("atomic")) for n in range(len(mutations)))

    async def _each(self, mutations: Mapping[int, Mutation]) -> dict[int, Outcome]:
        """What is decided by one store goes there first, and everything else to all stores at once."""
        decided = {n: each for n, each in mutations.items() if _needs_decision(each)}
        shared = {n: each for n, each in mutations.items() if n not in decided}
        outcomes: dict[int, Outcome] = {}
        flows = ((Parallel(self._replicas, self._options), shared), (Decided(self._replicas, self._options), decided))
        for each in await gather([partial(self._carried_out, flow, group) for flow, group in flows if group]):
            outcomes |= each
        return outcomes

    async def _carried_out(
        self, flow: Parallel | Decided | Atomic, mutations: Mapping[int, Mutation]
    ) -> dict[int, Outcome]:
        return dict(zip(mutations, await flow.write(list(mutations.values())), strict=True))


def _needs_decision(mutation: Mutation) -> bool:
    return mutation.condition.exclusive or mutation.condition.expected is not None
