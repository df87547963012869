"""What was acknowledged, what may stand all the same, and what two stores hold in the end.

Every write of a test is begun in a Log before it is sent, with a marker of its own as its payload, and acknowledged
there when its call has returned. A write that was begun and not acknowledged may stand or not, until a later one of the
same record is acknowledged; so each record has one writer at a time. The lists of a shared record only grow: each of
its writers adds its marker to what it has read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from agno_clouddb import Database
from agno_clouddb.records.memories import UserMemory
from agno_clouddb.records.sessions import Run, Session
from agno_clouddb.stores.base import Item, Key, Store
from agno_clouddb.stores.clock import epoch_seconds
from agno_clouddb.stores.schema import COLLECTIONS
from agno_clouddb.stores.urls import StoreOptions, store_from_url

__all__ = ["SHARED", "Log", "Verdict", "compare", "port_of", "through"]

SHARED = Key("sessions", "shared")
"""A session that all writers add markers to."""

_PAGE = 200
_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+")


def through(url: str, port: int) -> str:
    """The URL of an engine, with another port of this machine."""
    return _PORT.sub(str(port), url)


def port_of(url: str) -> int:
    """The port of an engine's URL."""
    found = _PORT.search(url)
    assert found is not None, url
    return int(found[0])


@dataclass(frozen=True, slots=True)
class Attempt:
    """One write of one record.

    Args:
        number: which one, in its log.
        key: the record.
        marker: what it writes; None: it deletes.
    """

    number: int
    key: Key
    marker: str | None

    def line(self) -> str:
        """The attempt as a line of text."""
        return json.dumps(["begun", self.number, self.key.collection, self.key.id, self.key.parent, self.marker])


@dataclass
class Log:
    """The writes of a test, as their callers saw them.

    Args:
        tell: is given a line for each event, which a LogReader understands in another process.
    """

    tell: Callable[[str], object] = lambda line: None
    possible: dict[Key, set[str | None]] = field(default_factory=dict)
    """What may be stored in the end under each key: markers, and None for nothing."""
    versions: dict[str, str] = field(default_factory=dict)
    """The version that an acknowledged marker was given."""
    shared: set[str] = field(default_factory=set)
    """The markers in the shared record that were acknowledged."""
    buried: set[Key] = field(default_factory=set)
    """Runs of sessions whose deletion was acknowledged."""
    doubtful: set[Key] = field(default_factory=set)
    """Runs of deleted sessions that were then written to without knowing all stores."""
    loose: set[Key] = field(default_factory=set)
    """Runs of sessions that somebody has tried to delete: they may be gone, or left where nobody sees them."""
    counts: Counter[str] = field(default_factory=Counter)
    _begun: int = 0

    def begin(self, key: Key, marker: str | None) -> Attempt:
        """A write is about to be sent."""
        self._begun += 1
        attempt = Attempt(self._begun, key, marker)
        self.tell(attempt.line())
        self.add(attempt)
        return attempt

    def acknowledge(self, attempt: Attempt, version: str | None = None, *, done: bool = True) -> None:
        """The call has returned; ``done``: not as one that has found nothing to delete."""
        self.tell(json.dumps(["acknowledged", attempt.number, version, done]))
        self.confirm(attempt, version, done)

    def revive(self, session: Key) -> None:
        """A session is written without knowing all stores: one that was deleted may live on, with its runs."""
        self._tell_of("revived", session)
        self.doubtful.update(self.buried.intersection(self._runs_of(session)))
        self.buried -= self.doubtful

    def begin_anew(self, session: Key) -> None:
        """A session has turned out to be a new one, which must not show the runs of an earlier one."""
        self._tell_of("anew", session)
        self.buried.update(self.doubtful.intersection(self._runs_of(session)))
        self.doubtful -= self.buried

    def of_process(self) -> LogReader:
        """Takes the log of another process over into this one."""
        return LogReader(self)

    def standing(self, key: Key) -> str | None:
        """The marker that must be stored under a key; None where there may be none, or another."""
        possible = self.possible.get(key, {None})
        return next(iter(possible)) if len(possible) == 1 else None

    def add(self, attempt: Attempt) -> None:
        """A write was begun, here or in another process."""
        self.counts["begun"] += 1
        if attempt.key == SHARED:
            return
        self.possible.setdefault(attempt.key, {None}).add(attempt.marker)
        if attempt.marker is None and attempt.key.collection == "sessions":
            self.loose.update(self._runs_of(attempt.key))

    def confirm(self, attempt: Attempt, version: str | None, done: bool) -> None:
        """A write was acknowledged, here or in another process."""
        self.counts["deleted" if attempt.marker is None else "written"] += 1
        if version is not None and attempt.marker is not None:
            self.versions[attempt.marker] = version
        if attempt.key == SHARED:
            assert attempt.marker is not None
            self.shared.add(attempt.marker)
        elif done:
            self.possible[attempt.key] = {attempt.marker}
            if attempt.marker is None and attempt.key.collection == "sessions":
                self.buried.update(self._runs_of(attempt.key))

    def _tell_of(self, event: str, session: Key) -> None:
        self.tell(json.dumps([event, 0, session.id]))

    def _runs_of(self, session: Key) -> list[Key]:
        return [key for key in self.possible if key.collection == "runs" and key.parent == session.id]


class LogReader:
    """Reads what one other process has told of its log.

    What that has begun, and not acknowledged when it ends, may stand or not.

    Args:
        log: takes it over.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._begun: dict[int, Attempt] = {}

    def read(self, line: str) -> bool:
        """Take over the event of one line; whether it was an acknowledgement."""
        event, number, *rest = json.loads(line)
        if event == "begun":
            collection, record, parent, marker = rest
            self._begun[number] = Attempt(number, Key(collection, record, parent), marker)
            self._log.add(self._begun[number])
            return False
        if event in ("revived", "anew"):
            tell = self._log.revive if event == "revived" else self._log.begin_anew
            tell(Key("sessions", *rest))
            return False
        version, done = rest
        self._log.confirm(self._begun.pop(number), version, done)
        return True


@dataclass
class Verdict:
    """What was found in the end.

    Args:
        log: what it was compared with.
        lost: acknowledged writes that a store does not hold.
        resurrected: what a store holds although its deletion was acknowledged.
        differences: what one store holds otherwise than another.
        items: how many items the stores hold, tombstones too.
    """

    log: Log
    lost: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    items: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing is lost, resurrected or different, in a test that has seen both writes and deletions."""
        return not (self.lost or self.resurrected or self.differences) and all(
            self.log.counts[each] for each in ("written", "deleted")
        )

    def __str__(self) -> str:
        counts = self.log.counts
        acknowledged = counts["written"] + counts["deleted"]
        return (
            f"begun {counts['begun']}, acknowledged {acknowledged} ({counts['deleted']} deletions), "
            f"items {self.items}: acknowledged writes lost {len(self.lost)}, resurrected {len(self.resurrected)}, "
            f"differences {len(self.differences)}"
        )

    def details(self) -> str:
        """All that was found, a line each."""
        found = {"lost": self.lost, "resurrected": self.resurrected, "different": self.differences}
        return "\n".join([str(self), *(f"{what}: {each}" for what, many in found.items() for each in many)])


async def compare(db: Database, urls: Iterable[str], log: Log) -> Verdict:
    """Hold what each store has against the others, and against the log.

    Args:
        db: over the stores, to see what its users see.
        urls: of the engines themselves.
        log: the writes.
    """
    verdict = Verdict(log)
    held: dict[str, dict[Key, Item]] = {}
    for url in urls:
        async with store_from_url(url, StoreOptions()) as store:
            held[store.name] = await _everything(store)
    verdict.items = max(map(len, held.values()))
    verdict.differences += _differences(held)
    now = epoch_seconds()
    for name, items in held.items():
        _check(verdict, name, {key: item for key, item in items.items() if item.live(now)})
    await _check_runs_shown(verdict, db)
    return verdict


async def _everything(store: Store) -> dict[Key, Item]:
    """All items of a store, tombstones too, but for what has expired."""
    found: dict[Key, Item] = {}
    for collection in COLLECTIONS:
        cursor: str | None = None
        while True:
            scan = await store.scan(collection, limit=_PAGE, cursor=cursor)
            keys = [key for key, _ in scan.entries]
            items = (await store.get(keys, dead=True)).items
            found.update(zip(keys, [item for item in items if item is not None], strict=True))
            if (cursor := scan.cursor) is None:
                break
    now = epoch_seconds()
    return {key: item for key, item in found.items() if item.expires_at is None or item.expires_at > now}


def _differences(held: Mapping[str, Mapping[Key, Item]]) -> list[str]:
    (name, first), *others = held.items()
    return [
        f"{key}: {name} has {first.get(key)}, {other} has {second.get(key)}"
        for other, second in others
        for key in sorted(first.keys() | second.keys(), key=str)
        if first.get(key) != second.get(key)
    ]


def _check(verdict: Verdict, store: str, live: Mapping[Key, Item]) -> None:
    log = verdict.log
    for key, possible in log.possible.items():
        item = live.get(key)
        marker = _marker(item) if item is not None else None
        if key in log.loose:
            continue  # what is left of a deleted session is looked at through the Database
        if marker not in possible:
            found = f"{key} on {store}: {marker} ({item.version if item else 'nothing'}), not one of {possible}"
            (verdict.resurrected if possible == {None} else verdict.lost).append(found)
        elif item is not None and marker is not None and item.version < log.versions.get(marker, ""):
            verdict.lost.append(f"{key} on {store}: version {item.version} of {marker}, not {log.versions[marker]}")
    kept = Session.from_item(live[SHARED]).session_data if SHARED in live else None
    missing = log.shared - set((kept or {}).get("markers", ()))
    verdict.lost += [f"{SHARED} on {store}: without {each}" for each in sorted(missing)]
    strange = {key for key in live if key.collection in ("sessions", "memories")} - {*log.possible, SHARED}
    verdict.differences += [f"{key} on {store}: nobody has written it" for key in sorted(strange)]


async def _check_runs_shown(verdict: Verdict, db: Database) -> None:
    """No run of a deleted session is shown in a later session of the same id."""
    for parent in {key.parent for key in verdict.log.buried}:
        assert parent is not None
        session = await db.sessions.get(parent)
        for run in session.runs if session is not None else ():
            if Key("runs", run.run_id, parent) in verdict.log.buried:
                verdict.resurrected.append(f"run {run.run_id} is shown in {parent}, deleted before")


def _marker(item: Item) -> str | None:
    """What the writer of an item put into it."""
    if item.key.collection == "sessions":
        value = (Session.from_item(item).session_data or {}).get("marker")
    elif item.key.collection == "runs":
        value = (Run.from_item(item).data or {}).get("marker")
    else:
        value = UserMemory.from_item(item).memory
    return value if isinstance(value, str) else None
