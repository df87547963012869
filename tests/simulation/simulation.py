"""Simulation: runs a schedule, and says what came of it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agno_clouddb.errors import CloudDBError
from tests.simulation import library, rules
from tests.simulation.links import OPERATION
from tests.simulation.loop import Stuck, VirtualLoop
from tests.simulation.operations import MEMORY_KEYS, SESSION_KEYS, Operation, end, perform
from tests.simulation.processes import Process
from tests.simulation.schedules import Schedule, Step
from tests.simulation.world import Violation, World

__all__ = ["Result", "run"]

_READS = ("get", "list", "count", "get session")
_QUIET = 30.0  # seconds after healing in which work in the background comes to its end
_PATIENT = 600.0  # the same, without a reconciliation, at the longest pauses between two attempts


@dataclass(slots=True)
class Result:
    """What came of a schedule."""

    violation: Violation | None
    history: list[str]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        """The same for the same history."""
        return hashlib.sha256("\n".join(self.history).encode()).hexdigest()


def run(schedule: Schedule) -> Result:
    """Run a schedule from its beginning to the last check, or to the first violation."""
    loop = VirtualLoop()
    world = World(
        loop,
        schedule.stores,
        0.0,
        schedule.deadline,
        random.Random(schedule.seed),
        calm=True,
        failover=schedule.options["failover"],
    )
    director = _Director(schedule, world)
    try:
        with library.simulated(world, schedule.seed):
            try:
                loop.run_until_complete(director.run())
            except Stuck as error:
                world.fail("clean end", str(error))
            loop.run_until_complete(director.clear())
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    if loop.unhandled:
        world.fail("clean end", loop.unhandled[0])
    counts = Counter[str](each.outcome for each in world.operations)
    counts["operations"] = len(world.operations)
    counts["reads"] = sum(each.step.kind in _READS and each.outcome == "nothing" for each in world.operations)
    counts["crashes"] = director.crashes
    return Result(world.violation, world.history, counts)


class _Stop(Exception):
    """A rule does not hold, so that nothing after it needs to be run."""


class _Director:
    """Makes happen what a schedule says."""

    def __init__(self, schedule: Schedule, world: World) -> None:
        self.schedule = schedule
        self.world = world
        self.rate = schedule.rate
        self.crashes = 0
        self.active = 0
        self.idle = asyncio.Event()
        self.gate = asyncio.Event()
        self.processes: list[Process] = []
        self.all: list[Process] = []

    async def run(self) -> None:
        self.gate.set()
        world, steps = self.world, self.schedule.steps
        await world.open()
        for slot in range(self.schedule.slots):
            self.processes.append(self.made(slot))
            await self.start(self.processes[slot])
        await self.act(Step(0.0, "create", self.schedule.seed))
        if self.schedule.compared:
            await self.reconcile(self.processes[0], full=False)
        world.rate, world.calm = self.schedule.rate, False
        # Operations are in their order where they are due at once.
        clients: dict[tuple[int, int], list[Step]] = {}
        for step in steps:
            clients.setdefault((step.slot if step.client >= 0 else -1, step.client), []).append(step)
        faults = clients.pop((-1, -1), [])
        running = [world.loop.create_task(self.client(each)) for each in clients.values()]
        running += [world.loop.create_task(self.fault(each)) for each in faults]
        try:
            for task in running:
                await task
                if world.violation is not None:
                    return
            await self.finish()
        finally:
            for task in running:
                task.cancel()

    async def client(self, steps: list[Step]) -> None:
        for step in steps:
            await self.until(step.at)
            await self.gate.wait()
            if self.world.violation is not None:
                return
            await self.act(step)

    async def until(self, moment: float) -> None:
        if (left := moment - self.world.loop.time()) > 0:
            await asyncio.sleep(left)

    def made(self, slot: int) -> Process:
        number = len(self.all)
        skew = self.schedule.skews[number % len(self.schedule.skews)]
        process = Process(self.world, number, slot, skew, dict(self.schedule.options))
        self.all.append(process)
        return process

    async def start(self, process: Process) -> None:
        await process.open()
        self.world.tell(f"p{process.number} starts in place {process.slot}, clock {process.skew:+.0f} s")

    async def act(self, step: Step) -> None:
        """One operation of a client, to its end."""
        world, process = self.world, self.processes[step.slot]
        while process.dead or not process.ready.is_set():
            await process.ready.wait()
            process = self.processes[step.slot]
        operation = Operation(len(world.operations), step, process, random.Random(step.seed), world.loop.time())
        world.operations.append(operation)
        context = process.context
        context.run(OPERATION.set, operation)
        self.active += 1
        self.idle.clear()
        task = world.loop.create_task(perform(operation), context=context)
        cancel = step.detail.get("cancel")
        handle = world.loop.call_later(cancel, task.cancel) if cancel is not None else None
        try:
            await asyncio.wait({task})
        finally:
            self.active -= 1
            if not self.active:
                self.idle.set()
            if handle is not None:
                handle.cancel()
        end(operation, "unknown", "cancelled before it began")

    # Faults

    async def fault(self, step: Step) -> None:
        await self.until(step.at)
        world, detail, store = self.world, step.detail, step.detail.get("store", 0)
        world.tell(f"fault {step.kind} place {step.slot} {dict(detail)}")
        if step.kind == "cut":
            await self.during(world.cut, (step.slot, store), detail["seconds"])
        elif step.kind == "down":
            await self.during(world.down, store, detail["seconds"])
        elif step.kind == "hints full":
            await self.during(world.hints_full, store, detail["seconds"])
        elif step.kind == "slow":
            world.slow[store] = detail["latency"]
            await asyncio.sleep(detail["seconds"])
            world.slow.pop(store, None)
        elif step.kind == "flaky":
            world.rate = detail["rate"]
            await asyncio.sleep(detail["seconds"])
            world.rate = self.rate
        elif step.kind == "crash":
            await self.crash(step.slot)
        elif step.kind == "clock":
            process = self.processes[step.slot]
            process.skew = max(-300.0, process.skew - detail["back"])
        elif step.kind == "later":
            await self.jump(detail["seconds"])
        elif step.kind == "sweep":
            world.sweep(store)
        elif step.kind == "outage":
            await self.outage(step, store)

    async def during(self, places: set[Any], place: object, seconds: float) -> None:
        places.add(place)
        await asyncio.sleep(seconds)
        places.discard(place)

    async def crash(self, slot: int) -> None:
        process = self.processes[slot]
        if process.dead:
            return
        self.crashes += 1
        self.world.tell(f"p{process.number} dies")
        for operation in self.world.operations:
            if operation.process is process:
                end(operation, "unknown", "its process died")
        process.dead = True
        self.processes[slot] = self.made(slot)
        await process.crash()
        await self.start(self.processes[slot])

    async def jump(self, seconds: float) -> None:
        """Put all wall clocks on, at a moment at which no operation is under way, nor a write that was given up."""
        while not self.gate.is_set():
            await self.gate.wait()
        self.gate.clear()
        await self.idle.wait()
        await self.world.arrived()
        self.world.jumped += seconds
        self.world.jumped_at = self.world.loop.time()
        self.world.tell(f"it is {seconds:.0f} s later")
        self.gate.set()

    async def outage(self, step: Step, store: int) -> None:
        world, detail = self.world, step.detail
        places: set[Any] = world.cut if detail["cut"] else world.down
        place: object = (step.slot, store) if detail["cut"] else store
        places.add(place)
        await asyncio.sleep(detail["before"])
        await self.jump(detail["days"] * 86_400)
        for each in detail["sweeps"]:
            world.sweep(each)
        await asyncio.sleep(detail["after"])
        places.discard(place)

    # The end

    async def finish(self) -> None:
        """Heal, reconcile and check."""
        world, schedule = self.world, self.schedule
        world.heal()
        world.tell("everything is healed")
        if schedule.waiting and not self.crashes:
            await asyncio.sleep(_PATIENT)
            rules.check_brought(world)
        if schedule.ending:
            await self.close(self.processes)
        last = self.made(0)
        await self.start(last)
        self.processes[0], before = last, self.processes[0]
        await self.reconcile(last, schedule.full)
        await asyncio.sleep(_QUIET)
        if not schedule.ending:
            await self.close((before, *self.processes[1:]))
            await self.reconcile(last, schedule.full)
        if world.violation is None:
            rules.check_end(world)
        settled = rules.snapshot(world)
        await self.reconcile(last, schedule.full)
        if world.violation is None and rules.snapshot(world) != settled:
            world.fail("settled", "another reconciliation has changed something")
        world.swept.clear()
        for key in (*MEMORY_KEYS, *SESSION_KEYS):
            kind = "get" if key.collection == "memories" else "get session"
            if world.violation is None:
                await self.act(Step(0.0, kind, 0, detail={"key": key.id}))
        await last.close()

    async def close(self, processes: Iterable[Process]) -> None:
        """Close processes, and wait until nothing of them is on its way any more."""
        for process in processes:
            await process.close()
        await self.world.arrived()

    async def reconcile(self, process: Process, full: bool) -> None:
        """Reconcile; once more where the first time fails."""
        try:
            await self.world.loop.create_task(process.db.reconcile(full=full), context=process.context)
        except CloudDBError as error:
            self.world.tell(f"reconcile raised {error!r}")
            await asyncio.sleep(_QUIET)
            try:
                await self.world.loop.create_task(process.db.reconcile(full=full), context=process.context)
            except CloudDBError as again:
                self.world.fail("settled", f"a reconciliation with all stores answering raised {again!r}")

    async def clear(self) -> None:
        """End whatever is left."""
        for process in self.all:
            await process._end()
        left = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
        for _ in range(100):
            left = [each for each in left if not each.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
