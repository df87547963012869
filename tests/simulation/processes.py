"""Process: a simulated process with a clock of its own, which can die between any two awaits."""

from __future__ import annotations

import asyncio
import random
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from agno_clouddb.database import Database
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.clock import HybridClock
from tests.simulation.links import OPERATION, Link
from tests.simulation.loop import PROCESS
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.links import _InFlight

__all__ = ["Process"]

_ROUNDS = 200  # how often the tasks of a dead process are cancelled before one is said not to end


class Process:
    """A Database over links to the shared stores.

    Args:
        world: the shared stores.
        number: which process; its clock's writer.
        slot: the place that it takes; a partition is of a slot and a store.
        skew: seconds by which its wall clock is ahead of the true time.
        options: those of the coordinator.
    """

    def __init__(self, world: World, number: int, slot: int, skew: float, options: dict[str, Any]) -> None:
        self.world = world
        self.number = number
        self.slot = slot
        self.skew = skew
        self.reads: str = options["reads"]
        self.dead = False
        self.troubled = -1.0
        """When a call of a store has last failed, or taken long."""
        self.ready = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []
        self.in_flight: dict[_InFlight, None] = {}
        self.draw = random.Random(world.rng.getrandbits(32))
        self.clock = HybridClock(f"{number:012x}", now=lambda: int(self.wall() * 1000))
        links = [Link(world, self, store) for store in range(world.number)]
        self.fanout = FanOutStore(links, clock=self.clock, now=self.wall, deadline=world.deadline, **options)
        self.db = Database(self.fanout, clock=self.clock)

    def wall(self) -> float:
        """This process's wall clock, in seconds since the epoch."""
        return self.world.wall() + self.skew

    @property
    def context(self) -> Context:
        """Where its code runs."""
        context = copy_context()
        context.run(PROCESS.set, self)
        context.run(OPERATION.set, None)
        return context

    async def open(self) -> None:
        task = self.world.loop.create_task(self.db.open(), context=self.context)
        await asyncio.wait({task})
        self.ready.set()
        if not self.dead:
            task.result()

    async def close(self) -> None:
        """End as a process should, with nothing left pending."""
        if self.dead:
            return
        await self.world.loop.create_task(self.db.aclose(), context=self.context)
        await asyncio.sleep(0)
        left = [each for each in self.tasks if not each.done()]
        if left:
            self.world.fail(
                "clean end", f"p{self.number} left {len(left)} tasks pending at aclose: {left[0].get_coro()}"
            )
        await self._end()

    async def crash(self) -> None:
        """Stop at once: of the calls in flight some have taken effect, and none of its code runs on."""
        self.dead = True
        for call in list(self.in_flight):
            if self.draw.random() < 0.5:
                await call.arrive()
        await self._end()

    async def _end(self) -> None:
        self.dead = True
        for _ in range(_ROUNDS):
            self.tasks = [each for each in self.tasks if not each.done()]
            if not self.tasks:
                return
            for task in self.tasks:
                task.cancel()
            await asyncio.sleep(0)
        self.world.fail(
            "clean end", f"a task of p{self.number} does not end when cancelled: {self.tasks[0].get_coro()}"
        )
