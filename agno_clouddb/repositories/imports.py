"""db.imports: records that come from another database, written beside what is in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from agno_clouddb.errors import CloudDBError, ConflictError, InvalidRecord, NotProvisioned, RecordTooLarge
from agno_clouddb.records.base import Record
from agno_clouddb.records.sessions import Run
from agno_clouddb.repositories.base import Repository
from agno_clouddb.repositories.bulk import Bulk
from agno_clouddb.repositories.changes import Change, touched
from agno_clouddb.repositories.runs import belongs, session_key
from agno_clouddb.stores.base import Condition, Item, Key, Mutation, Put

__all__ = ["Arrival", "Imports", "Newer"]

Newer = Callable[[Record, Record], bool]
"""Whether the first record, which comes from elsewhere, is to replace the second, which is stored and differs."""

_ROUNDS = 10
_UNCOMPARED = frozenset({"version", "expires_at", "degraded", "generation", "run_index", "runs"})
_TIMES = ("created_at", "updated_at")
_TRIAL = "0" * 12 + "-0000-" + "0" * 12


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a record that comes from elsewhere was found to be, and became.

    Args:
        state: ``missing``: none was stored. ``older``: what was stored is to be replaced. ``newer``: what is stored
            differs and stays. ``equal``: the same was stored. ``invalid``: no store can hold it.
        error: why it is not stored; None unless it is invalid.
    """

    state: Literal["missing", "older", "newer", "equal", "invalid"]
    error: CloudDBError | None = None


class Imports(Repository):
    """Writes records that another database has, without a change of what is newer here.

    What the records hold of their own times stays: when they were created and last written. Repeating a call is
    harmless. Somebody else may write the same records meanwhile: each is written on the condition that it is still as
    it was when it was compared.
    """

    async def bring(
        self, records: Sequence[Record], newer: Newer, *, dry_run: bool = False
    ) -> tuple[list[Arrival], list[Record | None]]:
        """Write records of one kind, those that are missing, and those that are to replace what is stored.

        Args:
            records: with ids, any number that fits in memory; runs name their session and their place, ``run_index``.
            newer: decides about those that are stored and differ.
            dry_run: only compare; tables that are not there yet hold nothing.

        Returns:
            What each has come to; and what is stored under its key then, as far as it is known: None where it is not.

        Raises:
            NotProvisioned, ConfigurationError, Throttled, StoreUnavailable, PartialWrite: as the stores say. What was
                written stays; the same call goes on from there.
            ConflictError: others kept writing one of them in between.
        """
        arrivals: dict[int, Arrival] = {}
        found: list[Record | None] = [None] * len(records)
        waiting = list(range(len(records)))
        for _ in range(_ROUNDS):
            changes, waiting = await self._compare(records, waiting, newer, arrivals, found, dry_run=dry_run)
            if dry_run:
                for place, change in changes.items():
                    arrivals[place] = self._tried(change)
                changes = {}
            waiting += await self._carry_out(changes, arrivals, found)
            if not waiting:
                return [arrivals[place] for place in range(len(records))], found
        key = records[waiting[0]].key
        raise ConflictError(None, None, problem="others kept writing the record", store=self._store.name, key=key)

    async def _compare(
        self,
        records: Sequence[Record],
        places: Sequence[int],
        newer: Newer,
        arrivals: dict[int, Arrival],
        found: list[Record | None],
        *,
        dry_run: bool,
    ) -> tuple[dict[int, _Bringing], list[int]]:
        """What is to be written, by place, each key once; and the places of further records of the same keys."""
        keyed: dict[Key, int] = {}
        again: list[int] = []
        for place in places:
            try:
                key = records[place].key
            except InvalidRecord as error:
                arrivals[place] = Arrival("invalid", error)
                continue
            if keyed.setdefault(key, place) != place:
                again.append(place)
        stored = await self._stored(list(keyed), dry_run=dry_run) if keyed else {}
        headers = await self._headers([records[place] for place in keyed.values()], dry_run=dry_run)
        changes: dict[int, _Bringing] = {}
        for key, place in keyed.items():
            record, item = records[place], stored[key]
            header = headers.get(key.parent or "") if isinstance(record, Run) else None
            if item is not None and header is not None and not belongs(item, header):
                changes[place] = _Bringing(self._ready(record, None, header), "missing", item.version)
                continue
            if item is None:
                changes[place] = _Bringing(self._ready(record, None, header), "missing", None)
                continue
            there = found[place] = type(record).from_item(item)
            if same(record, there):
                arrivals[place] = Arrival("equal")
            elif newer(record, there):
                changes[place] = _Bringing(self._ready(record, there, header), "older", item.version)
            else:
                arrivals[place] = Arrival("newer")
        return changes, again

    async def _carry_out(
        self, changes: Mapping[int, _Bringing], arrivals: dict[int, Arrival], found: list[Record | None]
    ) -> list[int]:
        """Write, and give the places of those that somebody else has written in between."""
        places = list(changes)
        result = await Bulk(self._store, self._clock).run(changes.values(), lambda change: change)
        again: list[int] = []
        for number, place in enumerate(places):
            error = result.failed.get(number)
            if error is None:
                arrivals[place] = Arrival(changes[place].state)
                found[place] = changes[place].written
            elif isinstance(error, ConflictError):
                again.append(place)
            elif isinstance(error, InvalidRecord | RecordTooLarge):
                arrivals[place] = Arrival("invalid", error)
            else:
                raise error
        return again

    def _tried(self, change: _Bringing) -> Arrival:
        """What a change would come to."""
        try:
            item = change.written.to_item(change.key, _TRIAL)
        except InvalidRecord as error:
            return Arrival("invalid", error)
        limit = self._store.limits.payload_bytes
        if item.size > limit:
            return Arrival("invalid", RecordTooLarge(item.size, limit, store=self._store.name, key=change.key))
        return Arrival(change.state)

    def _ready(self, record: Record, stored: Record | None, header: Item | None) -> Record:
        """A record as it is to be written: over what is stored, in the same place of the same session."""
        update: dict[str, Any] = {}
        if stored is not None:
            kept = ("generation", "run_index")
            update |= {name: getattr(stored, name) for name in kept if name in type(stored).model_fields}
            if stored.expires_at is not None and record.expires_at is None:
                update["expires_at"] = stored.expires_at
        if header is not None:
            update["generation"] = header.fields.get("generation")
        return self._expiring(touched(record.model_copy(update=update), keep=True))

    async def _stored(self, keys: Sequence[Key], *, dry_run: bool) -> dict[Key, Item | None]:
        try:
            batch = await self._store.get(keys)
        except NotProvisioned:
            if not dry_run:
                raise
            return dict.fromkeys(keys)
        for item in batch.items:
            if item is not None:
                self._clock.observe(item.version)
        return dict(zip(keys, batch.items, strict=True))

    async def _headers(self, records: Sequence[Record], *, dry_run: bool) -> dict[str, Item]:
        """By session, the headers of the sessions that runs are of."""
        ids = {record.session_id or "" for record in records if isinstance(record, Run)}
        found = await self._stored([session_key(each) for each in ids], dry_run=dry_run) if ids else {}
        return {key.id: item for key, item in found.items() if item is not None}


class _Bringing(Change[Record]):
    """Write a record over nothing, or over one version.

    Args:
        record: what to write.
        state: what the record was found to be.
        expected: the version that must be stored; None: nothing must be.
    """

    def __init__(self, record: Record, state: Literal["missing", "older"], expected: str | None) -> None:
        self.key = record.key
        self.state = state
        self.expected = expected
        self.written = record

    def mutation(self, version: str) -> Mutation:
        if self.expected is not None:
            return Put(self.written.to_item(self.key, version), Condition(expected=self.expected))
        self.written = self.written.first_written(version)
        return Put(self.written.to_item(self.key, version), Condition(absent=True, exclusive=True))

    def result(self, version: str) -> Record:
        return self.written.model_copy(update={"version": version})


def same(record: Record, stored: Record) -> bool:
    """Whether a stored record holds what one from elsewhere has, its times to the second.

    Times that the record from elsewhere does not name are not compared: the library has set them.
    """
    theirs, ours = _content(record), _content(stored)
    for name in _TIMES:
        if name not in theirs:
            ours.pop(name, None)
    return theirs == ours


def _content(record: Record) -> dict[str, Any]:
    values = {name: value for name, value in record if name not in _UNCOMPARED}
    return {
        name: int(value.timestamp()) if isinstance(value, datetime) and name in _TIMES else value
        for name, value in values.items()
        if value is not None
    }
