"""Upkeep: what a fan-out does beside its calls, to keep its stores alike and to know how they are."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from statistics import median

import anyio

from agno_clouddb.concurrency import full_jitter, gather, task_group
from agno_clouddb.errors import CloudDBError, NotProvisioned
from agno_clouddb.fanout import hints
from agno_clouddb.fanout.background import Background
from agno_clouddb.fanout.circuit import PROBE, CircuitStore
from agno_clouddb.fanout.confirmations import Confirmations
from agno_clouddb.fanout.failures import OUTAGES
from agno_clouddb.fanout.health import Health, StoreHealth
from agno_clouddb.fanout.hints import Hint
from agno_clouddb.fanout.lag import Lag
from agno_clouddb.fanout.notes import Notes
from agno_clouddb.fanout.reconcile import Reconciler, Reconciliation, moment
from agno_clouddb.fanout.repair import Repairs
from agno_clouddb.fanout.replay import Replay
from agno_clouddb.fanout.replicas import Replicas
from agno_clouddb.stores.base import Key, Store
from agno_clouddb.stores.clock import version_millis

__all__ = ["Upkeep"]

_LEASE_SECONDS = 60
_LEAST_SECONDS = 1.0  # before a reconciliation that is due
_RETRY_SECONDS = 60.0  # after one that has failed, or that another process is at
_CLOSING_SECONDS = 2.0
_PROBE_PAUSE, _LONGEST_PROBE_PAUSE = 1.0, 30.0  # seconds between two probes of a store
_WATCH_SECONDS = 5.0  # how often stores that are read alone are looked after for hints that others have left


class Upkeep:
    """Probes stores that are down, replays hints, repairs what reads have found different, and reconciles.

    Args:
        replicas: the stores.
        lag: which of them have missed something.
        notes: where coordinators tell each other of their work.
        writing: the keys that are being written here.
        overlap: see ``Reconciler``.
        reconcile_every: seconds between reconciliations in the background; None: none.
        watch: look for hints that other coordinators leave, since stores are read alone.
    """

    def __init__(
        self,
        replicas: Replicas,
        lag: Lag,
        notes: Notes,
        writing: Container[Key],
        *,
        overlap: float,
        reconcile_every: float | None,
        watch: bool,
    ) -> None:
        self._replicas = replicas
        self._lag = lag
        self._notes = notes
        self._every = reconcile_every
        self._watches = watch
        self._holder = secrets.token_hex(8)
        self._background = Background()
        self._repairs = Repairs(replicas, self._background, writing)
        self._confirmations = Confirmations(replicas, self._background, lag, self.catch_up)
        self._replay = Replay(replicas, lag, self._background)
        self._reconciler = Reconciler(replicas, self._replay, notes, overlap=overlap)
        for circuit in replicas.stores.values():
            circuit.opened, circuit.last_resort = self._opened, self._all_down

    def open(self) -> None:
        """Begin what runs all the time."""
        self._background.open()
        for circuit in self._replicas.stores.values():
            if circuit.state != "closed":
                self._opened(circuit)
        if self._watches:
            self._lag.set_compared(compared=False)
            self._background.start("watch", self._watch)
        if self._every is not None:
            pause = min(self._every, _RETRY_SECONDS)
            self._background.start("reconcile", self._reconcile_now_and_then, pause=pause)

    async def aclose(self) -> None:
        """End everything that runs in the background; hints that wait to be confirmed are so before."""
        try:
            with anyio.move_on_after(_CLOSING_SECONDS):
                # Those that are not confirmed are replayed all the same.
                await self._background.attempt("confirm", self._confirmations.run)
        finally:
            await self._background.aclose()

    async def idle(self) -> None:
        """Wait until what is under way has come to its end: for tests."""
        await self._background.idle()

    async def probe(self) -> None:
        """Ask the stores that are left alone whether they answer again, without waiting for the next time."""
        circuits = self._replicas.stores.values()
        await gather([circuit.probe for circuit in circuits if circuit.state != "closed"])

    async def reconcile(
        self,
        *,
        full: bool = False,
        dry_run: bool = False,
        rate: float | None = None,
        progress: Callable[[Reconciliation], None] | None = None,
    ) -> Reconciliation:
        """Make all stores hold the same; see ``Database.reconcile``."""
        await self.probe()
        return await self._reconciler.run(full=full, dry_run=dry_run, rate=rate, progress=progress)

    def unconfirmed(self, name: str, hints: Sequence[Hint]) -> None:
        """Have hints confirmed that went out with writes which the store of this name has stored."""
        self._confirmations.add(name, hints)

    def repair(self, keys: Iterable[Key]) -> None:
        """Have keys mended that were found to differ."""
        self._repairs.add(keys)

    def catch_up(self) -> None:
        """See to it that stores which have missed something are brought it."""
        self._replay.catch_up()

    async def health(self, degraded_reads: int) -> Health:
        """What is known of the stores.

        Args:
            degraded_reads: how many reads were made without one of the stores.
        """
        stores = [await self._store_health(name, circuit) for name, circuit in self._replicas.stores.items()]
        try:
            checkpoint, full = await self._notes.read("checkpoint", "full")
        except (*OUTAGES, NotProvisioned):
            checkpoint, full = {}, {}
        compared = sum(each["compared"] for each in full["collections"].values()) if full else None
        return Health(
            stores=tuple(stores),
            degraded_reads=degraded_reads,
            repaired=self._repairs.mended,
            replayed=self._replay.replayed,
            reconciled_at=moment(checkpoint),
            compared=compared,
            background_error=self._background.last_error,
        )

    async def _store_health(self, name: str, circuit: CircuitStore) -> StoreHealth:
        others = self._others(name)
        (answer,) = (await self._replicas.gather(lambda store: store.get([PROBE]), [name])).values()
        counts = await self._replicas.gather(lambda store: store.count(hints.hints_of(name)), others)
        oldest = await self._replicas.gather(partial(_oldest_hint, target=name), others)
        known = [each for each in counts.values() if not isinstance(each, CloudDBError)]
        pages = [each for each in oldest.values() if not isinstance(each, CloudDBError)]
        since = [version_millis(hint.version) / 1000 for page in pages for hint in page.hints]
        lag = max((self._replicas.now - each for each in since), default=0.0)
        if since:
            # Others may have left them, and have died.
            self._lag.set_behind(name, behind=True)
            self.catch_up()
        return StoreHealth(
            name,
            circuit.state,
            answer if isinstance(answer, CloudDBError) else circuit.last_error,
            latency=median(circuit.latencies) if circuit.latencies else None,
            hints=sum(known) if known else None,
            replication_lag=max(lag, 0.0) if pages else None,
            answers=not isinstance(answer, OUTAGES),
        )

    def _all_down(self) -> bool:
        return all(store.state != "closed" for store in self._replicas.stores.values())

    def _opened(self, circuit: CircuitStore) -> None:
        """Probe a store whose circuit has opened, and bring it what it will have missed."""
        name = next(name for name, each in self._replicas.stores.items() if each is circuit)
        self._lag.set_behind(name, behind=True)
        self._background.start(f"probe {name}", partial(self._probe_until_closed, circuit))
        self._replay.catch_up()

    async def _probe_until_closed(self, circuit: CircuitStore) -> None:
        attempt = 0
        while circuit.state != "closed":
            await anyio.sleep(_PROBE_PAUSE + full_jitter(attempt, _PROBE_PAUSE, _LONGEST_PROBE_PAUSE))
            attempt += 1
            await circuit.probe()

    async def _watch(self) -> None:
        """Look for hints that other coordinators have left for the stores that are read alone."""
        while True:
            for name in self._replicas.stores:
                try:
                    (checkpoint,) = await self._notes.read("checkpoint")
                    self._lag.set_compared(compared=bool(checkpoint))
                    pages = await self._replicas.ask(partial(_oldest_hint, target=name), self._others(name))
                    known = len(pages) == len(self._replicas.stores) - 1
                    behind = not known or any(page.hints for page in pages.values())
                except OUTAGES:
                    behind = True  # as far as is known
                except CloudDBError as error:
                    self._background.note(error)
                    behind = True
                except Exception:
                    self._found_behind(name)
                    raise
                if behind:
                    self._found_behind(name)
            await anyio.sleep(_WATCH_SECONDS)

    def _found_behind(self, name: str) -> None:
        self._lag.set_behind(name, behind=True)
        self.catch_up()

    async def _reconcile_now_and_then(self) -> None:
        every = self._every or 0.0
        seconds = max(_LEASE_SECONDS, int(2 * every))
        while True:
            await anyio.sleep(await self._until_due(every))
            pause = min(every, _RETRY_SECONDS)
            try:
                if await self._notes.lease("lease", self._holder, seconds):
                    # What a store does not take it will not take in a second either.
                    pause = every if await self._reconcile_leased(seconds) else 0.0
            except CloudDBError as error:
                self._background.note(error)
            await anyio.sleep(pause)

    async def _reconcile_leased(self, seconds: int) -> int:
        """Reconcile while the lease is kept, and give how many records could not be mended."""
        failed = 0
        async with task_group() as group:

            async def keep() -> None:
                while True:
                    await anyio.sleep(seconds / 3)
                    if not await self._notes.lease("lease", self._holder, seconds):
                        group.cancel_scope.cancel()  # this process was held up for so long that another one is at it

            group.start_soon(keep)
            report = await self.reconcile()
            failed = report.total.failed
            if report.error is not None:
                self._background.note(report.error)
            group.cancel_scope.cancel()
        return failed

    async def _until_due(self, every: float) -> float:
        """Seconds until the stores are to be compared again, whichever process has done it last."""
        try:
            (checkpoint,) = await self._notes.read("checkpoint")
        except CloudDBError as error:
            self._background.note(error)
            return every
        due = checkpoint["at"] + every - self._replicas.now if checkpoint else 0.0
        return min(max(due, _LEAST_SECONDS), every)

    def _others(self, name: str) -> list[str]:
        return [other for other in self._replicas.stores if other != name]


async def _oldest_hint(store: Store, *, target: str) -> hints.HintPage:
    return await hints.listed(store, target, limit=1)
