"""Schedules: what happens when, drawn from a seed as data, so that steps can be left out and the rest be run again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["COUNTER", "KEYS", "LASTING", "PASSING", "USERS", "Schedule", "Step", "drawn"]

KEYS = ("m0", "m1", "m2")
COUNTER = "c0"
LASTING, PASSING = "s0", "s1"
"""A session that is never deleted, and one that is."""
USERS = ("ann", "bob")

_DAY = 86_400.0

_ACTS = {
    "upsert": 14,
    "rewrite": 9,
    "expect": 9,
    "count up": 11,
    "delete": 9,
    "expire": 6,
    "get": 15,
    "list": 9,
    "count": 2,
    "append": 11,
    "get session": 8,
    "upsert session": 5,
    "delete session": 3,
    "transact": 5,
    "reconcile": 1,
}
_FAULTS = {
    "cut": 5,
    "down": 4,
    "slow": 2,
    "hints full": 2,
    "crash": 4,
    "clock": 2,
    "flaky": 2,
    "later": 2,
    "sweep": 1,
    "outage": 2,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens: an operation of a client, or a fault.

    Args:
        at: the earliest moment, in seconds of the loop.
        kind: which operation or fault.
        seed: from which all that is drawn in its course is drawn.
        slot: the process.
        client: which of its clients; -1: a fault.
        detail: what else there is to know.
    """

    at: float
    kind: str
    seed: int
    slot: int = 0
    client: int = -1
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        who = f"p{self.slot}.c{self.client}" if self.client >= 0 else "fault"
        return f"{self.at:9.3f} {who} {self.kind} " + " ".join(f"{name}={each}" for name, each in self.detail.items())


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that is decided before it runs.

    Args:
        seed: where it was drawn from.
        stores: how many.
        options: those of the coordinators.
        deadline: seconds within which a coordinator waits for a store.
        rate: how probable it is that a call of a store fails.
        skews: of each process that starts, in turn, the seconds by which its wall clock is ahead.
        slots: how many processes there are at once.
        full: whether the last reconciliation looks at everything.
        compared: whether the stores are compared at first, so that a later comparison is of what changed since.
        ending: whether the processes end before the last one starts.
        waiting: whether what was missed is brought before anything is reconciled.
        steps: in the order of their time.
    """

    seed: int
    stores: int
    options: Mapping[str, Any]
    deadline: float
    rate: float
    skews: tuple[float, ...]
    slots: int
    full: bool
    compared: bool
    ending: bool
    waiting: bool
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        skews = ", ".join(f"{each:+.0f}" for each in self.skews[: self.slots])
        return (
            f"seed {self.seed}: {self.stores} stores, {dict(self.options)}, deadline {self.deadline} s, "
            f"failing calls {self.rate:.0%}, clocks of {self.slots} processes {skews} s, full {self.full}"
        )


def drawn(seed: int) -> Schedule:
    """The schedule of a seed."""
    draw = random.Random(seed)
    slots = draw.choice((1, 1, 2, 2, 2, 3))
    stores = 2 if draw.random() < 0.8 else 3
    options = {
        "acks": 1 if draw.random() < 0.85 else "all",
        "reads": draw.choice(("merge", "merge", "merge", "primary", "fastest")),
        "failover": draw.random() < 0.15,
    }
    length = draw.uniform(3, 25)
    clients = [(slot, client) for slot in range(slots) for client in range(draw.randrange(1, 4))]
    steps = [_act(draw, length, *draw.choice(clients)) for _ in range(draw.randrange(12, 36))]
    steps += [_fault(draw, length, slots, stores) for _ in range(draw.choice((0, 1, 2, 3, 4, 6)))]
    if draw.random() < 0.2:
        steps += _long_outage(draw, length, clients, slots, stores)
    if draw.random() < 0.4:
        steps += _missed_write(draw, length, clients, stores)
    late = random.Random(f"late hint {seed}")
    if late.random() < 0.15:
        steps += _late_hint(late, length, clients, stores)
    return Schedule(
        seed,
        stores,
        options,
        deadline=draw.choice((1.0, 2.0, 5.0)),
        rate=draw.choice((0.0, 0.0, 0.03, 0.1)),
        skews=tuple(draw.choice((0.0, draw.uniform(-300, 300))) for _ in range(slots + 12)),
        slots=slots,
        full=draw.random() < 0.3,
        compared=draw.random() < 0.7,
        ending=draw.random() < 0.5,
        waiting=seed % 4 != 0,
        steps=tuple(sorted(steps, key=lambda step: step.at)),
    )


def _act(draw: random.Random, length: float, slot: int, client: int, kind: str = "") -> Step:
    kind = kind or draw.choices(tuple(_ACTS), tuple(_ACTS.values()))[0]
    detail: dict[str, Any] = {}
    if kind in ("upsert", "rewrite", "expect", "delete", "expire", "get", "transact"):
        detail["key"] = draw.choice(KEYS)
    if kind in ("upsert", "expire", "list", "count", "transact") or (kind in ("delete", "get") and draw.random() < 0.2):
        # Mostly the user that the key belongs to, so that most writes are not refused.
        detail["user"] = USERS[0] if draw.random() < 0.85 else USERS[1]
    if kind == "get" and draw.random() < 0.25:
        detail["key"] = COUNTER
    if kind == "expire":
        detail["seconds"] = draw.choice((30.0, 900.0, 1800.0, 5 * _DAY, 30 * _DAY))
    if kind == "list":
        detail["limit"] = draw.choice((1, 2, 3, 20))
        detail["sort"] = draw.choice(("-updated_at", "updated_at"))
        detail["iterate"] = draw.random() < 0.4
        detail["topics"] = draw.random() < 0.3
    if kind in ("append", "get session"):
        detail["key"] = LASTING if draw.random() < 0.7 else PASSING
        detail["again"] = draw.random() < 0.15
    if kind == "upsert session":
        detail["key"] = PASSING if draw.random() < 0.8 else LASTING
    if kind == "reconcile":
        detail["full"] = draw.random() < 0.3
    if draw.random() < 0.06:
        detail["cancel"] = draw.choice((draw.uniform(0, 0.08), draw.uniform(0, 3)))
    return Step(draw.uniform(0, length), kind, draw.getrandbits(32), slot, client, detail)


def _long_outage(
    draw: random.Random, length: float, clients: list[tuple[int, int]], slots: int, stores: int
) -> list[Step]:
    """A store misses what is removed meanwhile: it is down from the first of these steps on, and for days."""
    at, store = draw.uniform(0, length), draw.randrange(stores)
    before = draw.uniform(3, 6)
    detail: dict[str, Any] = {
        "store": store,
        "days": draw.uniform(8, 40),
        "cut": False,
        "before": before,
        "after": draw.uniform(0, 4),
    }
    detail["sweeps"] = _swept(draw, stores)
    steps = [Step(at, "outage", draw.getrandbits(32), draw.randrange(slots), -1, detail)]
    other = (store + 1) % stores
    if draw.random() < 0.4:
        full = {"store": other, "seconds": draw.uniform(0.2, before)}
        steps.append(Step(at + draw.uniform(0, 2), "hints full", draw.getrandbits(32), 0, -1, full))
    if draw.random() < 0.4:
        crash = at + draw.uniform(0, before)
        steps.append(Step(crash, "crash", draw.getrandbits(32), draw.randrange(slots), -1))
    for _ in range(draw.randrange(2, 7)):
        kind = draw.choice(("upsert", "delete", "delete", "expire", "rewrite", "upsert"))
        act = _act(draw, length, *draw.choice(clients), kind)
        steps.append(replace(act, at=at + draw.uniform(0, before)))
    if draw.random() < 0.5:
        act = _act(draw, length, *draw.choice(clients), "reconcile")
        steps.append(replace(act, at=at + before + draw.uniform(0.1, 2)))
    return steps


def _missed_write(draw: random.Random, length: float, clients: list[tuple[int, int]], stores: int) -> list[Step]:
    """A store misses a write or two, and the same is read, listed and written before it is brought them."""
    at, seconds = draw.uniform(1, length + 1), draw.uniform(0.05, 0.3)
    down = {"store": draw.randrange(stores), "seconds": seconds}
    steps = [Step(at, "down", draw.getrandbits(32), 0, -1, down)]
    client, key = draw.choice(clients), draw.choice(KEYS)
    first = _act(draw, length, *client, "upsert")
    steps.append(_of(replace(first, detail={**first.detail, "user": USERS[0]}), key, at - 0.3))
    for _ in range(draw.randrange(1, 3)):
        act = _act(draw, length, *client, draw.choice(("delete", "upsert", "rewrite")))
        steps.append(_of(act, key, at + draw.uniform(0, seconds)))
    for _ in range(draw.randrange(2, 5)):
        client = client if draw.random() < 0.5 else draw.choice(clients)
        act = _act(draw, length, *client, draw.choice(("list", "get", "get", "upsert")))
        if act.kind == "upsert" and draw.random() < 0.5:
            act = replace(act, detail={**act.detail, "user": USERS[1]})
        steps.append(_of(act, key, at + seconds + draw.uniform(0, 1)))
    return steps


def _of(act: Step, key: str, at: float) -> Step:
    """An operation at a moment, of a key if it is of one."""
    return replace(act, at=at, detail={**act.detail, "key": key} if "key" in act.detail else act.detail)


def _late_hint(draw: random.Random, length: float, clients: list[tuple[int, int]], stores: int) -> list[Step]:
    """While one store is known to be down, another takes so long that it keeps hints when nobody waits for them."""
    gone, slow = draw.sample(range(stores), 2)
    at, client = draw.uniform(1, length + 1), draw.choice(clients)
    steps = [
        Step(at, "down", draw.getrandbits(32), 0, -1, {"store": gone, "seconds": draw.uniform(5, 8)}),
        Step(at + 4, "slow", draw.getrandbits(32), 0, -1, {"store": slow, "seconds": 2.0, "latency": 20.0}),
    ]
    for after in (0.1, 0.7, 1.4, 4.1, 4.4, 5.0):
        client = client if after < 4 else draw.choice(clients)
        steps.append(replace(_act(draw, length, *client, "upsert"), at=at + after))
    return steps


def _swept(draw: random.Random, stores: int) -> tuple[int, ...]:
    """The stores whose service removes what has expired; one may take its time."""
    return tuple(store for store in range(stores) if draw.random() < 0.75)


def _fault(draw: random.Random, length: float, slots: int, stores: int) -> Step:
    kind = draw.choices(tuple(_FAULTS), tuple(_FAULTS.values()))[0]
    at, slot, store = draw.uniform(0, length), draw.randrange(slots), draw.randrange(stores)
    seconds = draw.choice((draw.uniform(0.1, 3), draw.uniform(2, 15)))
    detail: dict[str, Any] = {}
    if kind in ("cut", "down", "slow", "hints full"):
        detail |= {"store": store, "seconds": seconds}
    if kind == "slow":
        detail["latency"] = draw.choice((0.3, 1.0, 4.0))
    if kind == "flaky":
        detail |= {"seconds": seconds, "rate": draw.choice((0.15, 0.4))}
    if kind == "clock":
        detail["back"] = draw.uniform(1, 300)
    if kind == "later":
        detail["seconds"] = draw.choice((120.0, 1200.0, 4000.0))
    if kind == "sweep":
        detail["store"] = store
    if kind == "outage":
        # A store is away for days, in which the services remove what expires.
        detail |= {
            "store": store,
            "days": draw.uniform(8, 40),
            "cut": draw.random() < 0.3,
            "before": draw.uniform(0, 4),
        }
        detail |= {"after": draw.uniform(0, 4), "sweeps": _swept(draw, stores)}
    return Step(at, kind, draw.getrandbits(32), slot, -1, detail)
