"""Random schedules of writes through a fan-out whose stores fail, held against a model.

Each schedule comes from a seed, which a failure prints with the history; run it again with ``--seed``.
Every call of a store may be refused, lose its request or lose its response, and a store may be down for a while. A
write that both stores miss fails, and then may or may not stand. What must hold at every moment at which both stores
can be read:

- an acknowledged write is read back, unless a later one (acknowledged, or one that may stand) replaced it;
- what was deleted stays deleted;
- the merged lists show exactly the live items, each once, in order, at any page size.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import Condition, Delete, Failed, Item, Key, Mutation, Put, Query, Stored
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import FaultyStore
from agno_clouddb.testing.faults import RandomFaults

KEYS = [Key("sessions", f"s{number}") for number in range(6)]
USERS = ("ann", "bob")
STEPS = 60


@dataclass
class Model:
    """What each key may hold: a version (None: nothing) that was acknowledged, or one that may have been applied."""

    possible: dict[Key, set[str | None]] = field(default_factory=lambda: {key: {None} for key in KEYS})

    def wrote(self, mutation: Mutation, outcome: object) -> None:
        after = mutation.version if isinstance(mutation, Put) else None
        if isinstance(outcome, Stored):
            self.possible[mutation.key] = {after}
        elif isinstance(outcome, Failed) and outcome.applied:
            self.possible[mutation.key].add(after)


class Schedule:
    """One run of the simulation.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.stores = [
            FaultyStore(MemoryStore(f"memory://{name}"), RandomFaults(seed * 2 + position, rate=0.0))
            for position, name in enumerate(("first", "second"))
        ]
        self.clock = HybridClock(writer="a" * 12, now=self.tick)
        self.fanout = FanOutStore(self.stores, clock=self.clock)
        self.model = Model()
        self.millis = 1_750_000_000_000
        self.faults = [RandomFaults(seed * 2 + position, rate=0.25) for position in range(2)]
        self.history: list[str] = []

    def tick(self) -> int:
        self.millis += self.draw.randrange(0, 3)
        return self.millis

    async def run(self) -> None:
        await self.fanout.open()
        await self.fanout.provision()
        for _ in range(STEPS):
            await self.write()
            if self.draw.random() < 0.2:
                await self.check()
        await self.check()
        await self.fanout.aclose()

    async def write(self) -> None:
        for store, faults in zip(self.stores, self.faults, strict=True):
            store.plan = faults
        if self.draw.random() < 0.15:
            store = self.draw.choice(self.stores)
            (store.up if store.is_down else store.down)()
        keys = self.draw.sample(KEYS, self.draw.randrange(1, 3))
        mutations = [self.mutation(key) for key in keys]
        outcomes = await self.fanout.write(mutations, atomic=len(keys) > 1 and self.draw.random() < 0.3)
        for mutation, outcome in zip(mutations, outcomes, strict=True):
            self.history.append(f"{mutation} -> {outcome} (down: {[store.is_down for store in self.stores]})")
            self.model.wrote(mutation, outcome)

    def mutation(self, key: Key) -> Mutation:
        version = self.clock.stamp()
        if self.draw.random() < 0.3:
            return Delete(key, version)
        moment = f"2026-01-{self.draw.randrange(1, 6):02}"
        fields = {
            "session_type": "agent",
            "user_id": self.draw.choice(USERS),
            "created_at": moment,
            "updated_at": moment,
        }
        return Put(Item(key, version, fields, data=version), Condition())

    async def check(self) -> None:
        """Both stores can be read: what is read is what the model allows."""
        down = [store.is_down for store in self.stores]
        for store in self.stores:
            store.plan = None
            store.up()
        await self.fanout.probe()
        batch = await self.fanout.get(KEYS)
        assert not batch.degraded
        for key, item in zip(KEYS, batch.items, strict=True):
            version = item.version if item is not None else None
            self.history.append(f"read {key}: {version}, allowed {self.model.possible[key]}")
            assert version in self.model.possible[key]
        live = [item for item in batch.items if item is not None]
        for user in (None, *USERS):
            for descending in (False, True):
                equals = {"user_id": user} if user else {}
                query = Query("sessions", sort="created_at", descending=descending, equals=equals)
                expected = sorted(
                    (item for item in live if user in (None, item.owner)),
                    key=lambda item: (item.fields["created_at"], item.key.id),
                    reverse=descending,
                )
                assert await self.listed(query) == expected
        for store, was_down in zip(self.stores, down, strict=True):
            if was_down:
                store.down()

    async def listed(self, query: Query) -> list[Item]:
        limit = self.draw.randrange(1, 8)
        found: list[Item] = []
        cursor = None
        while True:
            page = await self.fanout.query(query, limit=limit, cursor=cursor)
            found += page.items
            if page.cursor is None:
                return found
            assert len(page.items) == limit
            cursor = page.cursor


@pytest.mark.memory
async def test_acknowledged_writes_survive_every_schedule(simulation_seeds: range) -> None:
    for seed in simulation_seeds:
        schedule = Schedule(seed)
        try:
            await schedule.run()
        except AssertionError as error:
            history = "\n".join(schedule.history)
            pytest.fail(f"seed {seed} failed; run it again with --seed {seed}\n{history}\n{error}")
