"""Random sequences of calls to evals, knowledge and traces, held against models in plain Python, on every store.

When an answer differs, Hypothesis looks for the shortest sequence that shows it and prints it as code, with a blob;
``reproduce_failure(version, blob)(Machine)`` in ``run_machine`` runs that sequence again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from agno_clouddb import (
    CloudDBError,
    ConflictError,
    Database,
    EvalRun,
    InvalidRecord,
    KnowledgeContent,
    NotOwner,
    RecordNotFound,
    SessionTraces,
    Span,
    Trace,
    connect,
)

Values = dict[str, Any]
Wanted = Values | type[CloudDBError]
Run = Callable[[Coroutine[Any, Any, Any]], Any]

# Small pools, so that calls meet each other's records; ids whose order and escaping stores stumble over.
IDS = st.sampled_from(["a", "a/b", "a#", "é", "😀"])
USERS = st.sampled_from(["ann", "bob"])
FOR = st.none() | st.none() | USERS
"""Whom a call is made for."""
FEW = st.sampled_from(["x", "É#"])
START = datetime(2026, 3, 1, tzinfo=UTC)
MOMENTS = st.sampled_from(
    [START + each for each in (timedelta(), timedelta(microseconds=1), timedelta(1), timedelta(9))]
)
_VALUES: list[Any] = [None, 0, -0.5, 2**70, "é😀\x00", [], {}, {"a": [{"b": None}]}, "x" * 600]
JSON = st.sampled_from(_VALUES)
OBJECTS = st.dictionaries(st.sampled_from(["a", "é"]), JSON, max_size=2)

_EDGES = {"created": "created_at", "started": "start_time", "ended": "end_time"}
_NOT_COMPARED = {"version", "updated_at", "degraded"}


def plain(record: Any) -> Values:
    """What a record holds, apart from what each write makes anew."""
    values: Values = record.model_dump(exclude=_NOT_COMPARED)
    return values


def holds(values: Values, name: str, wanted: Any) -> bool:
    """Whether a filter lets a record through."""
    edge, _, side = name.rpartition("_")
    if edge in _EDGES:
        moment = values[_EDGES[edge]]
        return bool(moment >= wanted if side == "from" else moment < wanted)
    return values[name] in (wanted if isinstance(wanted, list) else [wanted])


def some(required: Mapping[str, Any], optional: Mapping[str, Any]) -> st.SearchStrategy[Values]:
    """Values of a record, some of which may be missing."""
    return st.fixed_dictionaries(dict(required), optional={**optional, "unheard_of": JSON})


class RecordsMachine(RuleBasedStateMachine):
    """Makes the same calls to a repository and to a dictionary, and compares every answer.

    Args:
        db: open and provisioned, holding nothing of the repository; it is left so.
        run: carries a call out in the event loop that the database was opened in.
    """

    record: ClassVar[type[Any]]
    repository: ClassVar[str]
    name: ClassVar[str] = "id"
    sort: ClassVar[str] = "created_at"
    values: ClassVar[st.SearchStrategy[Values]]
    filters: ClassVar[Mapping[str, st.SearchStrategy[Any]]]

    def __init__(self, db: Database, run: Run) -> None:
        super().__init__()
        self.calls: Any = getattr(db, self.repository)
        self.model: dict[str, Values] = {}
        self.versions: dict[str, list[str]] = {}
        self._run = run

    def complete(self, values: Values) -> Values:
        """What is stored of the values of a record."""
        return values

    def forget(self, key: str) -> None:
        """A record was deleted."""
        self.model.pop(key, None)

    def answer(self, call: Coroutine[Any, Any, Any]) -> Any:
        """What a call returns, or the error that it raises."""
        try:
            return self._run(call)
        except CloudDBError as error:
            return error

    def check_written(self, answer: Any, wanted: Wanted) -> None:
        """Hold the answer to a write against what should have been written, and note that."""
        if isinstance(wanted, type):
            assert type(answer) is wanted, answer
            return
        assert isinstance(answer, self.record), answer
        assert plain(answer) == wanted
        versions = self.versions.setdefault(wanted[self.name], [])
        assert all(answer.version > earlier for earlier in versions)
        versions.append(answer.version)
        self.model[wanted[self.name]] = wanted

    def made(self, key: str, values: Values) -> Any:
        return self.record(**{self.name: key, **values})

    def found(self, key: str, user_id: str | None) -> Wanted:
        """The stored record, for a call that needs one of this user."""
        stored = self.model.get(key)
        if stored is None:
            return RecordNotFound
        return NotOwner if user_id is not None and stored["user_id"] != user_id else stored

    def over(self, values: Values, user_id: str | None) -> Wanted:
        """What an object made anew comes to."""
        if user_id is not None and values["user_id"] not in (None, user_id):
            return InvalidRecord
        owner = user_id or values["user_id"]
        stored = self.model.get(values[self.name])
        if stored is None:
            return self.complete({**values, "user_id": owner})
        if owner is not None and stored["user_id"] not in (None, owner):
            return NotOwner
        return self.complete({**values, "user_id": owner or stored["user_id"], "created_at": stored["created_at"]})

    @initialize(data=st.data(), keys=st.lists(IDS, min_size=2, max_size=5, unique=True))
    def begin_with_records(self, data: st.DataObject, keys: list[str]) -> None:
        records = [self.made(key, data.draw(self.values)) for key in keys]
        result = self.answer(self.calls.upsert_many(records))
        assert result.stored == len(keys)
        for record, key, version in zip(records, keys, result.versions, strict=True):
            stored = self.answer(self.calls.get(key))
            assert stored.version == version
            self.check_written(stored, self.complete(plain(record)))

    @rule(data=st.data(), key=IDS, user_id=FOR)
    def upsert_anew(self, data: st.DataObject, key: str, user_id: str | None) -> None:
        record = self.made(key, data.draw(self.values))
        wanted = self.over(plain(record), user_id)
        self.check_written(self.answer(self.calls.upsert(record, user_id=user_id)), wanted)

    @rule(data=st.data(), key=IDS, guarded=st.booleans())
    def upsert_what_was_read(self, data: st.DataObject, key: str, guarded: bool) -> None:
        read = self.answer(self.calls.get(key))
        if read is None:
            return
        changes = data.draw(self.values)
        changed = read.model_copy(update=changes)
        expected = data.draw(st.sampled_from(self.versions[key])) if guarded else None
        wanted: Wanted = self.complete({**self.model[key], **changes})
        if changed.user_id is not None and read.user_id not in (None, changed.user_id):
            wanted = NotOwner
        elif expected not in (None, read.version):
            wanted = ConflictError
        answer = self.answer(self.calls.upsert(changed, expected_version=expected))
        self.check_written(answer, wanted)
        if wanted is ConflictError:
            assert (answer.expected, answer.found) == (expected, read.version)

    @rule(data=st.data(), key=IDS, user_id=FOR)
    def update(self, data: st.DataObject, key: str, user_id: str | None) -> None:
        changes = data.draw(self.values)
        stored = self.found(key, user_id)
        wanted = stored if isinstance(stored, type) else self.complete({**stored, **changes})

        def change(record: Any) -> Any:
            return record.model_copy(update=changes)

        self.check_written(self.answer(self.calls.update(key, change, user_id=user_id)), wanted)

    @rule(key=IDS, user_id=FOR)
    def get(self, key: str, user_id: str | None) -> None:
        stored = self.found(key, user_id)
        answer = self.answer(self.calls.get(key, user_id=user_id))
        assert (None if answer is None else plain(answer)) == (None if isinstance(stored, type) else stored)

    @rule(key=IDS, user_id=FOR)
    def delete(self, key: str, user_id: str | None) -> None:
        assert self.answer(self.calls.delete(key, user_id=user_id)) is self.removed(key, user_id)

    @rule(keys=st.lists(IDS, max_size=3), user_id=FOR)
    def delete_many(self, keys: list[str], user_id: str | None) -> None:
        there = [self.removed(key, user_id) for key in dict.fromkeys(keys)]
        assert self.answer(self.calls.delete_many(keys, user_id=user_id)) == sum(there)

    def removed(self, key: str, user_id: str | None) -> bool:
        """What deleting a record comes to."""
        stored = self.found(key, user_id)
        if not isinstance(stored, type) or user_id is None:
            self.forget(key)
        return not isinstance(stored, type)

    def drawn_filters(self, data: st.DataObject) -> Values:
        names = data.draw(st.sets(st.sampled_from(sorted(self.filters)), max_size=2))
        return {name: data.draw(self.filters[name]) for name in sorted(names)}

    def matching(self, filters: Values) -> list[Values]:
        """What a list should give, the first first."""
        found = [each for each in self.model.values() if all(holds(each, *one) for one in filters.items())]
        return sorted(found, key=lambda each: (each[self.sort], each[self.name].encode()))

    def walk(self, page_after: Callable[[str | None], Coroutine[Any, Any, Any]], limit: int) -> list[Values]:
        """What a list gives, page by page."""
        found: list[Values] = []
        cursor: str | None = None
        while True:
            page = self.answer(page_after(cursor))
            assert len(page.items) == limit or page.cursor is None
            found += map(plain, page.items)
            cursor = page.cursor
            if cursor is None:
                return found

    @rule(data=st.data(), descending=st.booleans(), limit=st.integers(1, 4))
    def list_and_count(self, data: st.DataObject, descending: bool, limit: int) -> None:
        filters = self.drawn_filters(data)
        wanted = self.matching(filters)
        sort = f"-{self.sort}" if descending else self.sort
        found = self.walk(lambda cursor: self.calls.list(sort=sort, limit=limit, cursor=cursor, **filters), limit)
        assert found == (wanted[::-1] if descending else wanted)
        assert self.answer(self.calls.count(**filters)) == len(wanted)

    def teardown(self) -> None:
        self.answer(self.calls.delete_many(list(self.model)))


class EvalMachine(RecordsMachine):
    record, repository, name = EvalRun, "evals", "run_id"
    TYPES = st.sampled_from(["accuracy", "performance", "reliability"])
    COMPONENTS: ClassVar = dict.fromkeys(("agent_id", "team_id", "workflow_id", "model_id"), FEW)
    values = some(
        {"eval_type": TYPES, "eval_data": OBJECTS, "created_at": MOMENTS},
        {**COMPONENTS, "user_id": USERS, "eval_input": OBJECTS, "name": st.sampled_from(["", "n\n"])},
    )
    filters: ClassVar = {
        **COMPONENTS,
        "user_id": USERS,
        "eval_type": TYPES | st.lists(TYPES, min_size=1, max_size=3),
        "created_from": MOMENTS,
        "created_to": MOMENTS,
    }

    @rule(data=st.data(), key=IDS, user_id=FOR)
    def create(self, data: st.DataObject, key: str, user_id: str | None) -> None:
        record = self.made(key, data.draw(self.values))
        wanted: Wanted = {**plain(record), "user_id": user_id or record.user_id}
        if user_id is not None and record.user_id not in (None, user_id):
            wanted = InvalidRecord
        elif key in self.model:
            wanted = ConflictError
        self.check_written(self.answer(self.calls.create(record, user_id=user_id)), wanted)

    @rule(key=IDS, called=st.sampled_from(["", "é"]), user_id=FOR)
    def rename(self, key: str, called: str, user_id: str | None) -> None:
        stored = self.found(key, user_id)
        wanted = stored if isinstance(stored, type) else {**stored, "name": called}
        self.check_written(self.answer(self.calls.rename(key, called, user_id=user_id)), wanted)


class KnowledgeMachine(RecordsMachine):
    record, repository = KnowledgeContent, "knowledge"
    STATUSES = st.sampled_from(["processing", "completed", "failed"])
    FIELDS: ClassVar = {"type": FEW, "linked_to": FEW, "status": STATUSES, "user_id": USERS}
    values = some(
        {"name": st.sampled_from(["", "n"]), "created_at": MOMENTS},
        {**FIELDS, "metadata": OBJECTS, "access_count": st.integers(-1, 2**70)},
    )
    filters: ClassVar = {**FIELDS, "created_from": MOMENTS, "created_to": MOMENTS}

    @rule(
        data=st.data(),
        key=IDS,
        status=STATUSES,
        expected=st.none() | STATUSES | st.lists(st.none() | STATUSES, max_size=3),
        message=st.none() | FEW,
        guarded=st.booleans(),
        user_id=FOR,
    )
    def set_status(
        self,
        data: st.DataObject,
        key: str,
        status: str,
        expected: str | list[str | None] | None,
        message: str | None,
        guarded: bool,
        user_id: str | None,
    ) -> None:
        versions = self.versions.get(key, [])
        version = data.draw(st.sampled_from(versions)) if guarded and versions else None
        wanted = self.found(key, user_id)
        gone = version
        if not isinstance(wanted, type):
            gone = version or wanted.get("moved_from")
            allowed = [expected] if isinstance(expected, str) else expected
            moved = version not in (None, versions[-1])
            if moved or (allowed is not None and wanted["status"] not in allowed):
                wanted = ConflictError
            else:
                wanted = {**wanted, "status": status, "status_message": message, "moved_from": versions[-1]}
        arguments = {"expected": expected, "expected_version": version, "message": message, "user_id": user_id}
        answer = self.answer(self.calls.set_status(key, status, **arguments))
        self.check_written(answer, wanted)
        if wanted is ConflictError:
            assert (answer.expected, answer.found) == (gone, versions[-1])

    @rule(key=IDS, user_id=FOR)
    def count_access(self, key: str, user_id: str | None) -> None:
        stored = self.found(key, user_id)
        answer = self.answer(self.calls.count_access(key, user_id=user_id))
        if isinstance(stored, type):
            assert type(answer) is stored, answer
            return
        assert answer == (stored.get("access_count") or 0) + 1
        self.check_written(self.answer(self.calls.get(key)), {**stored, "access_count": answer})


class TraceMachine(RecordsMachine):
    record, repository, name, sort = Trace, "traces", "trace_id", "start_time"
    CONTEXT: ClassVar = {
        **dict.fromkeys(("run_id", "session_id", "agent_id", "team_id", "workflow_id"), FEW),
        "user_id": USERS,
    }
    STATUSES = st.sampled_from(["OK", "ERROR", "UNSET"])
    COUNTS: ClassVar = dict.fromkeys(("total_spans", "error_count"), st.integers(0, 9))
    values = st.builds(
        lambda moments, rest: {"start_time": min(moments), "end_time": max(moments), "duration_ms": None, **rest},
        st.tuples(MOMENTS, MOMENTS),
        some(
            {"name": st.sampled_from(["", "n", "é"]), "created_at": MOMENTS}, {**CONTEXT, **COUNTS, "status": STATUSES}
        ),
    )
    filters: ClassVar = {
        **CONTEXT,
        "status": STATUSES | st.lists(STATUSES, min_size=1, max_size=3),
        **dict.fromkeys(("started_from", "started_to", "ended_from", "ended_to"), MOMENTS),
    }

    def __init__(self, db: Database, run: Run) -> None:
        super().__init__(db, run)
        self.spans: dict[tuple[str, str], Values] = {}

    def complete(self, values: Values) -> Values:
        microseconds = round((values["end_time"] - values["start_time"]).total_seconds() * 1_000_000)
        return {**values, "duration_ms": microseconds // 1000}

    def forget(self, key: str) -> None:
        super().forget(key)
        self.spans = {name: each for name, each in self.spans.items() if name[0] != key}

    @rule(data=st.data(), key=IDS)
    def upsert_trace(self, data: st.DataObject, key: str) -> None:
        part = self.made(key, data.draw(self.values))
        stored = self.model.get(key)
        wanted = self.complete(plain(part) if stored is None else merged(stored, plain(part)))
        self.check_written(self.answer(self.calls.upsert_trace(part)), wanted)

    @rule(data=st.data(), keys=st.lists(st.tuples(IDS, IDS), max_size=5), at_once=st.booleans())
    def create_spans(self, data: st.DataObject, keys: list[tuple[str, str]], at_once: bool) -> None:
        spans = []
        for trace_id, span_id in keys:
            moments = data.draw(st.tuples(MOMENTS, MOMENTS))
            values = data.draw(some({"name": FEW, "created_at": MOMENTS}, {"attributes": OBJECTS}))
            values |= {"start_time": min(moments), "end_time": max(moments)}
            spans.append(Span(trace_id=trace_id, span_id=span_id, **values))
        if at_once:
            assert self.answer(self.calls.create_spans(spans)).stored == len(spans)
        for span in spans:
            wanted = self.complete(plain(span))
            if not at_once:
                assert plain(self.answer(self.calls.create_span(span))) == wanted
            self.spans[span.trace_id, span.span_id] = wanted

    def sees(self, key: str, user_id: str | None) -> bool:
        """Whether the spans of a trace are shown."""
        return user_id is None or not isinstance(self.found(key, user_id), type)

    @rule(key=IDS, span_id=IDS, user_id=FOR)
    def get_span(self, key: str, span_id: str, user_id: str | None) -> None:
        wanted = self.spans.get((key, span_id)) if self.sees(key, user_id) else None
        answer = self.answer(self.calls.get_span(key, span_id, user_id=user_id))
        assert (None if answer is None else plain(answer)) == wanted

    @rule(key=IDS, limit=st.integers(1, 3), user_id=FOR)
    def list_spans(self, key: str, limit: int, user_id: str | None) -> None:
        wanted = [each for name, each in self.spans.items() if name[0] == key and self.sees(key, user_id)]
        wanted.sort(key=lambda each: (each["start_time"], each["span_id"].encode()))
        found = self.walk(lambda cursor: self.calls.list_spans(key, limit=limit, cursor=cursor, user_id=user_id), limit)
        assert found == wanted

    @rule(data=st.data())
    def stats(self, data: st.DataObject) -> None:
        filters = self.drawn_filters(data)
        starts: dict[str, list[datetime]] = {}
        for each in self.matching(filters):
            if each["session_id"] is not None:
                starts.setdefault(each["session_id"], []).append(each["start_time"])
        wanted = [SessionTraces(name, len(found), found[0], found[-1]) for name, found in starts.items()]
        wanted.sort(key=lambda each: (each.last_trace_at, each.session_id), reverse=True)
        assert self.answer(self.calls.stats(**filters)) == tuple(wanted)

    def teardown(self) -> None:
        self.answer(self.calls.delete_many({*self.model, *(trace_id for trace_id, _ in self.spans)}))


def merged(stored: Values, part: Values) -> Values:
    """What two parts of a trace come to."""

    def level(values: Values) -> int:
        return max([n for n, name in enumerate(("agent_id", "team_id", "workflow_id"), 1) if values[name]], default=0)

    graver = max((stored, part), key=lambda each: ("UNSET", "OK", "ERROR").index(each["status"]))
    return {
        **stored,
        **{name: value for name, value in part.items() if name not in Trace.model_fields},
        **{name: stored[name] or part[name] for name in TraceMachine.CONTEXT},
        "name": part["name"] if level(part) > level(stored) else stored["name"],
        "status": graver["status"],
        "start_time": min(stored["start_time"], part["start_time"]),
        "end_time": max(stored["end_time"], part["end_time"]),
        "total_spans": stored["total_spans"] + part["total_spans"],
        "error_count": stored["error_count"] + part["error_count"],
    }


def run_machine(
    machine: type[RecordsMachine], urls: tuple[str, ...], collections: tuple[str, ...], examples: int, steps: int
) -> None:
    """Run random sequences of calls on one database in one event loop."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        db = connect(*urls, deadline=30.0)  # the engines share a machine with all else that runs there

        async def begin() -> None:
            await db.open()
            await db.provision(collections)

        runner.run(begin())

        class Machine(machine):  # type: ignore[valid-type, misc]
            def __init__(self) -> None:
                super().__init__(db, runner.run)

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    print_blob=True,
                    report_multiple_bugs=False,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        finally:
            runner.run(db.aclose())


@pytest.mark.parametrize(
    ("machine", "collections"),
    [(EvalMachine, ("evals",)), (KnowledgeMachine, ("knowledge",)), (TraceMachine, ("traces", "spans"))],
    ids=["evals", "knowledge", "traces"],
)
def test_random_calls_give_what_the_model_gives(
    machine: type[RecordsMachine], collections: tuple[str, ...], urls: tuple[str, ...]
) -> None:
    local = all(url.startswith(("memory:", "sqlite:")) for url in urls)
    run_machine(machine, urls, collections, examples=50 if local else 10, steps=30 if local else 20)
