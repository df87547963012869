"""What all simulated processes share: the stores, the faults, the true time, and what has happened."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agno_clouddb.stores import codec
from agno_clouddb.stores.base import Item, Key
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.schema import REPLICATION
from tests.simulation.loop import VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.operations import Operation

__all__ = ["Effect", "Violation", "World", "mark", "writer_of"]

_EPOCH_MILLIS = 1_760_000_000_000
_MARK = re.compile(r"op:(\d+);")


class Violation(Exception):
    """A rule does not hold.

    Args:
        rule: its name.
        problem: what was seen.
    """

    def __init__(self, rule: str, problem: str) -> None:
        self.rule = rule
        self.problem = problem
        super().__init__(f"{rule}: {problem}")


@dataclass(frozen=True, slots=True)
class Effect:
    """A write that a store has applied.

    Args:
        at: when, in seconds of the loop.
        store: the number of the store.
        item: what is stored since.
        operation: the number of the operation in whose course it was written; None: in the background.
    """

    at: float
    store: int
    item: Item
    operation: int | None


@dataclass
class World:
    """Stores, faults, time and history of one schedule.

    Args:
        loop: the loop, whose time is the true time.
        number: how many stores.
        rate: how probable it is that a call of a store fails.
        deadline: seconds after which a coordinator gives a call of a store up.
    """

    loop: VirtualLoop
    number: int
    rate: float
    deadline: float
    rng: random.Random
    jumped: float = 0.0
    """Seconds by which all wall clocks have been put on."""
    jumped_at: float = 0.0
    """When that was last, in seconds of the loop."""
    down: set[int] = field(default_factory=set)
    cut: set[tuple[int, int]] = field(default_factory=set)
    """Slots of processes, and stores that they do not reach."""
    slow: dict[int, float] = field(default_factory=dict)
    hints_full: set[int] = field(default_factory=set)
    calm: bool = False
    """Whether all calls are answered, and at once."""
    failover: bool = False
    effects: dict[Key, list[Effect]] = field(default_factory=dict)
    swept: set[Key] = field(default_factory=set)
    """Keys of which a service has removed something expired."""
    operations: list[Operation] = field(default_factory=list)
    by_key: dict[Key, list[Operation]] = field(default_factory=dict)
    """The writes of each key, in the order in which they began."""
    history: list[str] = field(default_factory=list)
    _late: set[asyncio.Task[None]] = field(default_factory=set)
    """Writes on their way that nobody waits for any more."""
    violation: Violation | None = None
    stores: list[MemoryStore] = field(init=False)

    def __post_init__(self) -> None:
        self.stores = [MemoryStore(f"memory://{'abc'[n]}", now=lambda: int(self.wall())) for n in range(self.number)]

    async def open(self) -> None:
        for store in self.stores:
            await store.open()
            await store.provision(replicated=True)

    def wall(self) -> float:
        """The true wall clock, in seconds since the epoch."""
        return _EPOCH_MILLIS / 1000 + self.jumped + self.loop.time()

    def arrives(self, call: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Let what nobody waits for any more happen so many seconds from now."""

        async def later() -> None:
            await asyncio.sleep(seconds)
            await call()

        task = self.loop.create_task(later(), context=Context())  # it belongs to no process
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def arrived(self) -> None:
        """Wait until all such writes have happened."""
        while self._late:
            await asyncio.wait(self._late)

    def tell(self, line: str | Callable[[], str]) -> None:
        text = line if isinstance(line, str) else line()
        self.history.append(f"{self.loop.time():9.3f} {text}")

    def fail(self, rule: str, problem: str) -> None:
        """Note a violation; the first counts."""
        if self.violation is None:
            self.violation = Violation(rule, problem)
            self.tell(f"VIOLATION {rule}: {problem}")

    def reaches(self, slot: int, store: int) -> bool:
        return store not in self.down and (slot, store) not in self.cut

    def applied(self, store: int, item: Item, operation: Operation | None) -> None:
        """Enter what a store has applied."""
        number = operation.number if operation is not None else None
        self.effects.setdefault(item.key, []).append(Effect(self.loop.time(), store, item, number))

    def heal(self) -> None:
        self.down.clear()
        self.cut.clear()
        self.slow.clear()
        self.hints_full.clear()
        self.calm = True

    def sweep(self, store: int) -> None:
        """Remove what has expired, as the services do; what a fan-out keeps for itself has no expiry."""
        now = int(self.wall())
        items = self.stores[store].items
        for key in [key for key, item in items.items() if item.expires_at is not None and item.expires_at <= now]:
            del items[key]
            if key.collection != REPLICATION.name:
                self.swept.add(key)

    def held(self, key: Key) -> list[Item | None]:
        """What each store holds under a key now."""
        return [store.items.get(key) for store in self.stores]

    def newest(self, key: Key) -> Item | None:
        """The newest version that any store holds."""
        found = [item for item in self.held(key) if item is not None]
        return max(found, key=lambda item: item.version, default=None)


def mark(number: int) -> str:
    """What a payload carries to tell which operation wrote it."""
    return f"op:{number};"


def writer_of(item: Item) -> int | None:
    """The number of the operation whose payload an item has; None for a tombstone."""
    if item.deleted:
        return None
    text = item.data if isinstance(item.data, str) else str(codec.decode(item.data))
    found = _MARK.search(text)
    return int(found.group(1)) if found else None
