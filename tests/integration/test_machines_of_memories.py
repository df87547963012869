"""Memories and learnings against models in plain Python, under random sequences of calls, on every store.

When an answer differs, Hypothesis prints the shortest sequence that shows it as code, with a blob: put
``reproduce_failure(version, blob)(Machine)`` before the run to run that sequence again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from agno_clouddb import (
    BulkWriteError,
    CloudDBError,
    ConflictError,
    Database,
    InvalidRecord,
    Learning,
    NotOwner,
    RecordNotFound,
    UserMemory,
    connect,
)
from agno_clouddb.records.base import Record
from agno_clouddb.stores.base import Put, Stored
from agno_clouddb.stores.clock import HybridClock

R = TypeVar("R", bound=Any)

# Small pools, so that calls meet each other's records.
IDS = ("a", "a/b", "b", "é", "e\u0301", "\ufffd", "😀", "z")
USERS = ("ann", "É#")
MOMENTS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(4)]
TOPICS = ("Tea", "STRASSE", "straße", "")
TEXTS = ("mag Straße und Tee", "Sarah_Chen", "", "x" * 400)

users = st.none() | st.sampled_from(USERS)
moments = st.none() | st.sampled_from(MOMENTS)
sorts = st.sampled_from(["updated_at", "-updated_at"])
NOW = object()
"""What a moment is that the library sets."""


class Machine(RuleBasedStateMachine, Generic[R]):
    """Makes the same calls to a repository and to a dictionary, and compares every answer.

    Args:
        db: open and provisioned, with nothing in the collection; it is left so.
        run: carries a call out in the event loop of the database.
    """

    kind: type[R]
    name: str
    fields: tuple[str, ...]
    """Fields that lists filter on, beside the owner and the last write."""

    def __init__(self, db: Database, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        super().__init__()
        self.db = db
        self.repository: Any = getattr(db, self.name)
        self.id_field = self.kind.collection.id_field
        self.model: dict[str, R] = {}
        self.expired: dict[str, R] = {}
        self.seen: list[R] = []
        self._run = run

    # What is drawn, and what is expected

    def content(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
        raise NotImplementedError

    def narrow(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[dict[str, Any], Callable[[R], bool]]:
        """Filters that only the records show, and their test."""
        raise NotImplementedError

    def record(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> R:
        values: dict[str, Any] = {each: draw(st.none() | st.sampled_from("xy")) for each in self.fields}
        values |= self.content(draw)
        values |= {self.id_field: draw(st.sampled_from(IDS)), "user_id": draw(users)}
        values |= {"created_at": draw(moments), "updated_at": draw(moments), "unheard_of": draw(st.integers(0, 9))}
        record: R = self.kind(**{name: value for name, value in values.items() if value is not None})
        return record

    def id_of(self, record: R) -> str:
        return str(getattr(record, self.id_field))

    def wanted(self, record: R, user: str | None, expected: str | None = None) -> R | type[CloudDBError]:
        """What an upsert comes to; moments that the library sets are NOW."""
        if user is not None and record.user_id not in (None, user):
            return InvalidRecord
        owner = user or record.user_id
        found = self.model.get(self.id_of(record))
        if found is not None and owner is not None and found.user_id not in (None, owner):
            return NotOwner
        if expected is not None and (found is None or found.version > expected):
            return ConflictError
        update: dict[str, Any] = {"user_id": owner, "created_at": record.created_at or NOW, "updated_at": NOW}
        if record.version is None:
            update["updated_at"] = record.updated_at or NOW
            if found is not None:
                update |= {"created_at": found.created_at, "user_id": owner or found.user_id}
        changed: R = record.model_copy(update=update)
        return changed

    def check_stored(self, stored: R, wanted: R, since: datetime) -> None:
        for name in ("created_at", "updated_at"):
            moment, expected = getattr(stored, name), getattr(wanted, name)
            assert since <= moment <= datetime.now(UTC) if expected is NOW else moment == expected
        assert plain(stored) == plain(wanted)
        assert stored.version is not None
        self.keep(stored)

    def keep(self, stored: R) -> None:
        self.model[self.id_of(stored)] = stored
        self.expired.pop(self.id_of(stored), None)
        self.seen.append(stored)

    def upsert(self, record: R, user: str | None, expected: str | None = None) -> None:
        since, wanted = datetime.now(UTC), self.wanted(record, user, expected)
        if isinstance(wanted, type):
            with pytest.raises(wanted):
                self._run(self.repository.upsert(record, user_id=user, expected_version=expected))
        else:
            stored = self._run(self.repository.upsert(record, user_id=user, expected_version=expected))
            self.check_stored(stored, wanted, since)

    # Writes

    @initialize(data=st.data())
    def begin_with_records(self, data: st.DataObject) -> None:
        for key in IDS:
            self.upsert(self.record(data.draw).model_copy(update={self.id_field: key}), None)

    @rule(data=st.data(), user=users)
    def upsert_an_object_made_anew(self, data: st.DataObject, user: str | None) -> None:
        self.upsert(self.record(data.draw), user)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), user=users, expecting=st.booleans(), anew=st.booleans())
    def upsert_what_was_seen(self, data: st.DataObject, user: str | None, expecting: bool, anew: bool) -> None:
        seen = data.draw(st.sampled_from(self.seen))
        if anew:
            changed = self.record(data.draw).model_copy(update={self.id_field: self.id_of(seen)})
        else:
            changed = seen.model_copy(update=self.content(data.draw))
        self.upsert(changed, user, seen.version if expecting else None)

    @rule(data=st.data(), count=st.integers(1, 6), user=users)
    def upsert_many(self, data: st.DataObject, count: int, user: str | None) -> None:
        records = [self.record(data.draw) for _ in range(count)]
        since, failed = datetime.now(UTC), {}
        try:
            versions = self._run(self.repository.upsert_many(records, user_id=user)).versions
        except BulkWriteError as error:
            versions, failed = error.versions, error.failed
        for position, record in enumerate(records):
            wanted = self.wanted(record, user)
            if isinstance(wanted, type):
                assert isinstance(failed.pop(position), wanted)
                assert versions[position] is None
                continue
            # What is written over within the call cannot be read any more: its moments are as wanted or about now.
            update = {name: since for name in ("created_at", "updated_at") if getattr(wanted, name) is NOW}
            self.keep(wanted.model_copy(update={**update, "version": versions[position]}))
        assert failed == {}
        for key in {self.id_of(record) for record in records} & self.model.keys():
            read, kept = self._run(self.repository.get(key)), self.model[key]
            for name in ("created_at", "updated_at"):
                moment, about = getattr(read, name), getattr(kept, name)
                assert about <= moment <= datetime.now(UTC) if about == since else moment == about
            assert plain(read) == plain(kept)
            assert read.version == kept.version
            self.keep(read)

    @rule(data=st.data(), key=st.sampled_from(IDS), user=users, anew=st.booleans())
    def update(self, data: st.DataObject, key: str, user: str | None, anew: bool) -> None:
        found, changes = self.model.get(key), self.content(data.draw)
        made = self.kind(**{self.id_field: key, **changes}) if anew else None

        def function(record: R) -> R:
            changed: R = made if made is not None else record.model_copy(update=changes)
            return changed

        since = datetime.now(UTC)
        if found is None or (user is not None and found.user_id != user):
            with pytest.raises(RecordNotFound if found is None else NotOwner):
                self._run(self.repository.update(key, function, user_id=user))
            return
        kept = {"created_at": found.created_at, "updated_at": NOW, "user_id": found.user_id}
        self.check_stored(
            self._run(self.repository.update(key, function, user_id=user)),
            function(found).model_copy(update=kept),
            since,
        )

    @rule(key=st.sampled_from(IDS), user=users)
    def delete(self, key: str, user: str | None) -> None:
        there = self.owned(key, user)
        assert self._run(self.repository.delete(key, user_id=user)) is there
        if there:
            del self.model[key]

    @rule(keys=st.lists(st.sampled_from(IDS), max_size=6), user=users)
    def delete_many(self, keys: list[str], user: str | None) -> None:
        there = {key for key in keys if self.owned(key, user)}
        assert self._run(self.repository.delete_many(keys, user_id=user)) == len(there)
        for key in there:
            del self.model[key]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def let_expire(self, data: st.DataObject) -> None:
        """Store a record anew with an expiry that has passed."""
        record = self.model.pop(data.draw(st.sampled_from(sorted(self.model))))
        clock = HybridClock()
        clock.observe(record.version)
        item = replace(record.to_item(record.key, clock.stamp()), expires_at=int(time.time()) - 60)
        (outcome,) = self._run(self.db.store.write([Put(item)]))
        assert isinstance(outcome, Stored)
        self.expired[self.id_of(record)] = record

    def owned(self, key: str, user: str | None) -> bool:
        found = self.model.get(key)
        return found is not None and user in (None, found.user_id)

    # Reads

    @rule(key=st.sampled_from(IDS), user=users)
    def get(self, key: str, user: str | None) -> None:
        read = self._run(self.repository.get(key, user_id=user))
        assert read == (self.model[key] if self.owned(key, user) else None)

    @rule(data=st.data(), sort=sorts, limit=st.integers(1, 3))
    def list(self, data: st.DataObject, sort: str, limit: int) -> None:
        filters, matches = self.filters(data.draw)
        found: list[R] = []
        cursor = None
        while True:
            page = self._run(self.repository.list(sort=sort, limit=limit, cursor=cursor, **filters))
            found += page.items
            cursor = page.cursor
            assert not page.degraded
            assert len(page.items) == limit or cursor is None
            if cursor is None:
                break
        wanted = [each for each in self.model.values() if matches(each)]
        wanted.sort(key=lambda each: (each.updated_at, self.id_of(each).encode()), reverse=sort.startswith("-"))
        assert found == wanted
        # A service may count what has expired and is not removed yet.
        also = sum(map(matches, self.expired.values()))
        assert len(wanted) <= self._run(self.repository.count(**filters)) <= len(wanted) + also

    def filters(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[dict[str, Any], Callable[[R], bool]]:
        kinds = draw(st.sets(st.sampled_from(["owner", "field", "moments", "record"]), max_size=2))
        equals: dict[str, Any] = {"user_id": draw(users)} if "owner" in kinds else {}
        if "field" in kinds:
            equals[draw(st.sampled_from(self.fields))] = draw(st.sampled_from("xy"))
        low, high = (draw(moments), draw(moments)) if "moments" in kinds else (None, None)
        others, test = self.narrow(draw) if "record" in kinds else ({}, lambda _: True)

        def matches(record: R) -> bool:
            return (
                all(value is None or getattr(record, name) == value for name, value in equals.items())
                and (low is None or record.updated_at >= low)
                and (high is None or record.updated_at < high)
                and test(record)
            )

        return {**equals, **others, "updated_from": low, "updated_to": high}, matches

    @rule(user=users)
    def stats(self, user: str | None) -> None:
        found = {each.user_id: each for each in self._run(self.repository.stats(user_id=user))}
        owners = {each.user_id for each in self.model.values()} - {None}
        for owner in owners & ({user} if user is not None else owners):
            moments = [each.updated_at for each in self.model.values() if each.user_id == owner]
            also = [each.updated_at for each in self.expired.values() if each.user_id == owner]
            assert len(moments) <= found[owner].count <= len(moments) + len(also)
            assert found.pop(owner).last_updated_at in (max(moments), *also)
        assert found.keys() <= {each.user_id for each in self.expired.values()}

    def teardown(self) -> None:
        async def clean() -> None:
            # What has expired is made live first, since it cannot be deleted.
            await self.repository.upsert_many(
                [each.model_copy(update={"version": None}) for each in self.expired.values()]
            )
            await self.repository.delete_many(IDS)

        self._run(clean())


class MemoriesMachine(Machine[UserMemory]):
    kind = UserMemory
    name = "memories"
    fields = ("agent_id", "team_id")

    def content(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
        topics = draw(st.none() | st.lists(st.sampled_from(TOPICS), max_size=2))
        return {"memory": draw(st.sampled_from(TEXTS)), "topics": topics}

    def narrow(
        self, draw: Callable[[st.SearchStrategy[Any]], Any]
    ) -> tuple[dict[str, Any], Callable[[UserMemory], bool]]:
        if draw(st.booleans()):
            text = draw(st.sampled_from(["STRASSE", "chen", "y"]))
            return {"text": text}, lambda each: text.casefold() in each.memory.casefold()
        topics = draw(st.lists(st.sampled_from(("tea", "strasse")), max_size=2))
        return {"topics": topics}, lambda each: set(topics) <= {topic.casefold() for topic in each.topics or ()}

    @rule(user=users)
    def topics(self, user: str | None) -> None:
        wanted = {topic for each in self.model.values() if user in (None, each.user_id) for topic in each.topics or ()}
        assert self._run(self.db.memories.topics(user_id=user)) == tuple(sorted(wanted))

    @rule(user=users)
    def clear(self, user: str | None) -> None:
        mine = [key for key in self.model if self.owned(key, user)]
        assert self._run(self.db.memories.clear(user_id=user)) == len(mine)
        for key in mine:
            del self.model[key]


class LearningsMachine(Machine[Learning]):
    kind = Learning
    name = "learnings"
    fields = ("namespace", "agent_id", "team_id", "workflow_id", "session_id", "entity_id", "entity_type")

    def content(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
        return {
            "learning_type": draw(st.sampled_from("xy")),
            "content": draw(
                st.dictionaries(
                    st.sampled_from(("likes", "Straße")),
                    st.sampled_from(TEXTS) | st.lists(st.sampled_from((None, 5, {"deep": ["Tee"]})), max_size=2),
                    max_size=2,
                )
            ),
        }

    def narrow(
        self, draw: Callable[[st.SearchStrategy[Any]], Any]
    ) -> tuple[dict[str, Any], Callable[[Learning], bool]]:
        text = draw(st.sampled_from(["STRASSE", "sarah chen", "tee", "deep", "none"]))

        def matches(record: Learning) -> bool:
            # No text of the pool is found in what JSON adds.
            whole = repr(record.content).replace("None", "").casefold()
            return text.casefold() in whole or text.casefold().replace(" ", "_") in whole

        return {"text": text}, matches


def plain(record: Record) -> dict[str, Any]:
    """A record without what the library sets."""
    return record.model_dump(exclude={"version", "created_at", "updated_at"})


@pytest.mark.parametrize("machine", [MemoriesMachine, LearningsMachine])
def test_random_calls_answer_as_the_model(
    urls: tuple[str, ...], machine: type[MemoriesMachine | LearningsMachine]
) -> None:
    near = all(url.startswith(("memory", "sqlite")) for url in urls)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:

        async def begin() -> Database:
            database = connect(*urls)
            await database.open()
            await database.provision([machine.name])
            return database

        db = runner.run(begin())

        class OnThisStore(machine):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                super().__init__(db, runner.run)

        try:
            run_state_machine_as_test(
                OnThisStore,
                settings=settings(
                    max_examples=40 if near else 6,
                    stateful_step_count=25,
                    print_blob=True,
                    report_multiple_bugs=False,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        finally:
            runner.run(db.aclose())
