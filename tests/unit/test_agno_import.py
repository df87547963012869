"""Importing agno's own tables: from rows to records, the order of runs, checkpoints, and what is newer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from agno.agent import Agent
from agno.db.base import SessionType
from agno.db.dynamo import DynamoDb
from agno.db.firestore import FirestoreDb
from agno.db.in_memory import InMemoryDb
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.run.status_persist import RunPersistOutcome, apersist_run_status
from agno.session import AgentSession

from agno_clouddb import ConfigurationError, Database, InvalidRecord, NotProvisioned, StoreUnavailable
from agno_clouddb.fanout.reconcile import Pace
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.importing import DualRunDb, ImportReport, Source, Tally, import_agno
from agno_clouddb.integrations.agno.importing.dynamodb import decoded
from agno_clouddb.integrations.agno.importing.mapping import in_place, mapped, merged_runs, newer
from agno_clouddb.integrations.agno.importing.sources import IDS, Row, Rows, source_from_url, tables
from agno_clouddb.records.metrics import ALL_USERS
from agno_clouddb.stores.base import Store
from agno_clouddb.stores.clock import is_version
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import FaultyStore

CREATED = 1_700_000_000
PAGE = 3


def session(number: int, **values: Any) -> Row:
    return {
        "session_id": f"s{number}",
        "session_type": "agent",
        "agent_id": "a",
        "user_id": "ann",
        "session_data": {"session_name": f"talk {number}"},
        "created_at": CREATED + number,
        "updated_at": CREATED + number,
        **values,
    }


def run(number: int, **values: Any) -> Row:
    data = {"run_id": f"r{number}", "agent_id": "a", "content": f"answer {number}", "created_at": CREATED}
    row = {"run_id": f"r{number}", "session_id": "s0", "run_type": "agent", "user_id": "ann", "status": "COMPLETED"}
    times = {"created_at": CREATED, "updated_at": CREATED}
    return {**row, **times, "run_index": number, "run_data": data, **values}


def legacy(number: int, **values: Any) -> dict[str, Any]:
    """A run as agno 2 keeps it inside its session."""
    return {"run_id": f"r{number}", "agent_id": "a", "content": f"old answer {number}", "created_at": CREATED, **values}


class Given(Source):
    """A source of rows that are given, three on a page."""

    def __init__(self, **rows: Sequence[Row]) -> None:
        self.name = "dynamodb://given"
        self.tables = tables({})
        self.rows: Mapping[str, Sequence[Row]] = rows
        self.pages: list[tuple[str, str | None]] = []
        self.stops_at: tuple[str, str | None] | None = None

    async def open(self) -> None: ...

    async def aclose(self) -> None: ...

    async def there(self, kind: str) -> bool:
        return kind in self.rows

    async def page(self, kind: str, place: str | None) -> Rows:
        if (kind, place) == self.stops_at:
            raise StoreUnavailable("stopped")
        self.pages.append((kind, place))
        rows, start = self.rows[kind], int(place or 0)
        end = start + PAGE
        return Rows(tuple(rows[start:end]), str(end) if end < len(rows) else None)

    async def runs(self, session_id: str, *, order_only: bool = False) -> AsyncGenerator[tuple[Row, ...], None]:
        found = [row for row in self.rows.get("runs", ()) if row["session_id"] == session_id]
        if order_only:
            found = [{name: row[name] for name in ("run_id", "run_index", "created_at")} for row in found]
        for start in range(0, len(found), PAGE):
            yield tuple(found[start : start + PAGE])

    async def count(self, kind: str) -> int:
        return len(self.rows.get(kind, ()))


@asynccontextmanager
async def provisioned(store: Store | None = None) -> AsyncIterator[Database]:
    async with Database(store or MemoryStore()) as db:
        await db.provision()
        yield db


async def held(db: Database, session_id: str) -> list[str]:
    """The ids of the runs that agno is shown."""
    found = await AsyncCloudDb(database=db).get_session(session_id, deserialize=False)
    assert isinstance(found, dict)
    return [each["run_id"] for each in found["runs"]]


# Rows


def test_only_columns_that_are_json_are_decoded() -> None:
    item = {
        "memory": {"S": '["a"]'},
        "topics": {"S": '["a"]'},
        "metadata": {"S": "no json"},
        "size": {"N": "7"},
        "score": {"N": "1E+2"},
        "completed": {"BOOL": True},
        "agent_id": {"NULL": True},
    }
    assert decoded(item) == {
        "memory": '["a"]',
        "topics": ["a"],
        "metadata": "no json",
        "size": 7,
        "score": 100.0,
        "completed": True,
        "agent_id": None,
    }


def test_a_sessions_times_and_component_come_over_and_an_empty_user_is_nobody() -> None:
    record: Any = mapped("sessions", session(1, user_id="", agent_data={"name": "N"}, runs=[legacy(0)]))
    assert (record.component_id, record.user_id, record.agent_data) == ("a", None, {"name": "N"})
    assert record.created_at == record.updated_at == datetime.fromtimestamp(CREATED + 1, UTC)
    assert record.runs == []


def test_texts_as_times_are_read_as_agno_reads_them() -> None:
    row = {"memory": "m", "memory_id": "1", "created_at": "2023-11-14T22:13:20", "updated_at": "2023-11-14T22:13:21Z"}
    record: Any = mapped("memories", row)
    assert [each.timestamp() for each in (record.created_at, record.updated_at)] == [CREATED, CREATED + 1]


def test_the_metrics_of_nobody_are_those_of_all_users() -> None:
    record: Any = mapped("metrics", {"id": "x", "date": "2026-01-02", "user_id": "", "users_count": 0})
    assert (record.user_id, record.date.isoformat()) == (ALL_USERS, "2026-01-02")


async def test_what_a_record_has_no_room_for_arrives_as_it_was() -> None:
    times = {"created_at": CREATED, "updated_at": CREATED}
    memory = {"memory_id": "m", "memory": {"content": "likes tea"}, "topics": "drinks", "user_id": "ann", **times}
    kept = {"id": "k", "name": "file", "description": "", "linked_to": "", "status": "", "metadata": None, **times}
    moments = dict.fromkeys(("start_time", "end_time", "created_at"), "2024-01-01T00:00:00+00:00")
    trace = {"trace_id": "t", "name": "step", "status": "", "agent_id": "", "duration_ms": 5.5, **moments}
    span = {"span_id": "s", "trace_id": "t", "name": "step", "attributes": '["a"]', "duration_ms": 0.5, **moments}
    async with provisioned() as db:
        for kind, row in (("memories", memory), ("knowledge", kept)):
            await getattr(db, kind).upsert(mapped(kind, row))
        await db.traces.upsert_trace(mapped("traces", trace))  # type: ignore[arg-type]  # a Trace
        await db.traces.create_span(mapped("spans", span))  # type: ignore[arg-type]  # a Span
        agno = AsyncCloudDb(database=db)
        found = await agno.get_user_memory("m", deserialize=False)
        assert isinstance(found, dict)
        assert memory.items() <= found.items()
        (content,), _ = await agno.get_knowledge_contents(linked_to="")
        assert (content.id, content.linked_to, content.status) == ("k", "", "")
        of_trace: Any = await agno.get_trace("t")
        of_span: Any = await agno.get_span("s")
        assert (of_trace.status, of_trace.agent_id, of_trace.duration_ms) == ("", "", 5.5)
        assert (of_span.attributes, of_span.duration_ms) == (["a"], 0.5)


@pytest.mark.parametrize(
    ("kind", "row", "path"),
    [
        ("memories", {"memory_id": "1"}, "memory"),
        ("runs", {"run_id": "1", "session_id": "s"}, "run_data"),
        ("traces", {"trace_id": "1", "name": "n", "start_time": "?", "end_time": "?"}, "trace_id"),
        ("sessions", session(1, summary="a text"), "summary"),
        ("sessions", session(1, created_at="never"), "session_id"),
    ],
)
def test_a_row_that_agno_does_not_write_is_named(kind: str, row: Row, path: str) -> None:
    with pytest.raises(InvalidRecord) as raised:
        mapped(kind, row)
    assert raised.value.path == path


# The order of runs


def test_runs_of_the_table_are_ordered_by_position_and_keep_it() -> None:
    rows = [run(2), run(0), run(1, created_at=CREATED - 5)]
    assert [(row["run_id"], row["run_index"]) for row in merged_runs(session(0), rows)] == [
        ("r0", 0),
        ("r1", 1),
        ("r2", 2),
    ]


def test_runs_inside_a_session_come_first_and_the_table_has_the_later_state_of_them() -> None:
    old = session(0, runs=[legacy(5), legacy(0), legacy(1)])
    rows = merged_runs(old, [run(9, run_index=1), run(0, run_index=0)])
    assert [row["run_id"] for row in rows] == ["r5", "r0", "r1", "r9"]
    assert [row["run_index"] for row in rows] == [0, 1, 2, 3]
    contents = [row["run_data"]["content"] for row in rows]
    assert contents == ["old answer 5", "answer 0", "old answer 1", "answer 9"]


@pytest.mark.parametrize(
    ("runs", "path"), [([{"content": "?"}], "runs[0].run_id"), ({"a": 1}, "runs"), ("{no json", "runs")]
)
def test_runs_inside_a_session_that_are_none_are_named(runs: Any, path: str) -> None:
    with pytest.raises(InvalidRecord) as raised:
        merged_runs(session(0, runs=runs), [])
    assert raised.value.path == path


def test_places_rise_with_the_order_even_where_the_moments_do_not() -> None:
    rows = [run(0), run(1), run(2, created_at=CREATED - 5), run(3, created_at=CREATED + 1), run(4, created_at=None)]
    places = in_place(rows)
    assert list(places.values()) == sorted(set(places.values()))
    assert all(map(is_version, places.values()))
    assert in_place(rows[:2]) == dict(list(places.items())[:2])


# What is newer


@pytest.mark.parametrize(("theirs", "ours", "wins"), [(5, 4, True), (5, 5, True), (4, 5, False), (None, 1, False)])
def test_what_was_written_last_wins_and_within_a_second_the_source(theirs: Any, ours: Any, wins: bool) -> None:
    def content(second: int | None) -> Any:
        return mapped("knowledge", {"id": "1", "name": "n", "description": "", "updated_at": second})

    assert newer(content(theirs), content(ours)) is wins


# Imports


async def test_all_that_is_there_arrives_in_order_and_again_nothing_changes() -> None:
    source = Given(
        sessions=[session(number, runs=[legacy(7)] if number == 1 else None) for number in range(7)],
        runs=[run(2), run(0), run(1), run(0, session_id="s6"), run(0, session_id="gone")],
        memories=[{"memory": "m", "memory_id": str(number), "created_at": CREATED} for number in range(4)],
    )
    async with provisioned() as db:
        report = await import_agno(source, db)
        assert report.complete
        assert report.absent == ["knowledge", "evals", "metrics", "traces", "spans"]
        assert report.without_session == 1
        assert {kind: each.missing for kind, each in report.imported.items()} == {
            "sessions": 7,
            "runs": 5,
            "memories": 4,
        }
        assert [await held(db, f"s{number}") for number in (0, 1, 6, 5)] == [["r0", "r1", "r2"], ["r7"], ["r0"], []]
        again = await import_agno(source, db, verify=False)
        assert {kind: each.equal for kind, each in again.imported.items()} == {"sessions": 7, "runs": 5, "memories": 4}


async def test_runs_of_which_only_some_had_arrived_are_in_order() -> None:
    rows = [run(number) for number in range(9)]
    async with provisioned() as db:
        # As after a kill in the middle of a batch: of the runs any may be missing.
        await import_agno(Given(sessions=[session(0)], runs=[rows[5], rows[2], rows[8]]), db)
        await import_agno(Given(sessions=[session(0)], runs=rows), db)
        assert await held(db, "s0") == [f"r{number}" for number in range(9)]
        stored = await db.sessions.get("s0", runs=2)
        assert stored is not None
        assert [each.run_id for each in stored.runs] == ["r7", "r8"]


async def test_a_session_with_more_runs_than_are_held_at_once_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agno_clouddb.integrations.agno.importing.importer._BYTES_HELD", 100)
    rows = [run(number) for number in (4, 2, 7, 0, 5, 1, 6, 3)]
    source = Given(sessions=[session(0, runs=[legacy(20), legacy(0)])], runs=rows)
    async with provisioned() as db:
        report = await import_agno(source, db)
        assert report.complete
        assert report.imported["runs"].read == 9
        assert await held(db, "s0") == ["r20", *(f"r{number}" for number in range(8))]


async def test_metrics_of_a_whole_day_are_left_out_where_there_are_those_of_its_users() -> None:
    days = [("2026-01-01", None), ("2026-01-02", None), ("2026-01-02", "ann"), ("2026-01-02", "")]
    rows = [{"id": f"{day} {user}", "date": day, "user_id": user, "users_count": 1} for day, user in days]
    source = Given(sessions=[session(0)], metrics=rows)
    async with provisioned() as db:
        report = await import_agno(source, db)
        assert report.complete
        assert (report.imported["metrics"].read, report.imported["metrics"].skipped) == (4, 1)
        assert report.imported["metrics"].missing == 3


async def test_what_no_store_can_hold_is_named_and_the_rest_arrives() -> None:
    rows = [session(0), session(1, metadata={"x": float("nan")}), session(2, session_type="crew"), session(3)]
    async with provisioned() as db:
        report = await import_agno(Given(sessions=rows, runs=[run(0, session_id="s3")]), db)
        assert not report.complete
        assert (report.imported["sessions"].missing, report.imported["sessions"].invalid) == (2, 2)
        assert [(each.kind, each.id) for each in report.failures] == [("sessions", "s1"), ("sessions", "s2")]
        assert await held(db, "s3") == ["r0"]


async def test_a_dry_run_finds_the_same_and_writes_nothing() -> None:
    source = Given(sessions=[session(0), session(1, metadata={"x": float("nan")})], runs=[run(0)])
    async with provisioned() as db:
        report = await import_agno(source, db, dry_run=True)
        assert not report.complete
        assert (report.imported["sessions"].missing, report.imported["sessions"].invalid) == (1, 1)
        assert report.imported["runs"].missing == 1
        assert await db.sessions.get("s0") is None


async def test_an_import_goes_on_with_the_page_where_it_was_stopped(tmp_path: Path) -> None:
    source = Given(sessions=[session(number) for number in range(10)], memories=[])
    checkpoint = tmp_path / "checkpoint.json"
    told: list[ImportReport] = []
    async with provisioned() as db:
        for place in ("3", "6"):
            source.stops_at = ("sessions", place)
            with pytest.raises(StoreUnavailable):
                await import_agno(source, db, checkpoint=checkpoint)
        source.stops_at, source.pages = None, []
        report = await import_agno(source, db, checkpoint=checkpoint, progress=told.append)
    assert source.pages[:2] == [("sessions", "6"), ("sessions", "9")]
    assert report.complete
    assert (report.resumed, report.imported["sessions"].read, report.imported["sessions"].missing) == (2, 10, 10)
    assert told
    assert not checkpoint.exists()


async def test_a_checkpoint_of_another_import_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.json"
    source = Given(sessions=[session(number) for number in range(10)])
    source.stops_at = ("sessions", "3")
    async with provisioned() as db:
        with pytest.raises(StoreUnavailable):
            await import_agno(source, db, checkpoint=checkpoint)
        with pytest.raises(ConfigurationError, match="with another kinds"):
            await import_agno(source, db, kinds=["sessions"], checkpoint=checkpoint)
        checkpoint.write_text("[]")
        with pytest.raises(ConfigurationError, match="no checkpoint"):
            await import_agno(source, db, checkpoint=checkpoint)


async def test_a_rate_is_kept_for_every_record_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[int] = []

    class Counted(Pace):
        async def spend(self, units: int) -> None:
            spent.append(units)

    monkeypatch.setattr("agno_clouddb.integrations.agno.importing.importer.Pace", Counted)
    source = Given(sessions=[session(number) for number in range(5)], runs=[run(0), run(1)])
    async with provisioned() as db:
        report = await import_agno(source, db, rate=1.0)
    tallies = [*report.imported.values(), *report.verified.values()]
    assert sum(spent) == sum(each.read for each in tallies) == 14


async def test_a_target_that_fails_ends_the_import_which_then_goes_on(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    source = Given(sessions=[session(number) for number in range(7)])

    def fail(report: ImportReport) -> None:
        if report.imported.get("sessions", Tally()).read == PAGE:
            store.down()

    async with provisioned(store) as db:
        with pytest.raises(StoreUnavailable):
            await import_agno(source, db, checkpoint=tmp_path / "checkpoint.json", progress=fail)
        store.up()
        report = await import_agno(source, db, checkpoint=tmp_path / "checkpoint.json")
    assert report.complete
    assert report.imported["sessions"].missing == 7


@pytest.mark.parametrize("kinds", [("sessions",), ("sessions", "memories")])
async def test_a_source_without_sessions_is_refused_unless_others_are_asked_for(kinds: Sequence[str]) -> None:
    source = Given(memories=[])
    async with provisioned() as db:
        with pytest.raises(NotProvisioned, match="no table of sessions"):
            await import_agno(source, db, kinds=kinds)
        assert (await import_agno(source, db, kinds=["memories"])).complete


async def test_arguments_that_make_no_sense_are_refused() -> None:
    async with provisioned() as db:
        for options in ({"kinds": ["dreams"]}, {"rate": 0}, {"rate": float("nan")}, {"tables": {"runs": "x"}}):
            with pytest.raises(ConfigurationError):
                await import_agno(Given(sessions=[]), db, **options)


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("sqlite:///x", {}),
        ("dynamodb://us-east-1/path", {}),
        ("dynamodb://us-east-1?prefix=x", {}),
        ("firestore://p/d/x", {}),
        ("dynamodb://us-east-1", {"dreams": "x"}),
        ("dynamodb://us-east-1", {"runs": ""}),
        ("dynamodb://[", {}),
    ],
)
def test_a_malformed_source_is_refused(url: str, names: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        source_from_url(url, names)


def test_runs_are_looked_for_beside_sessions_of_another_name() -> None:
    assert tables({"sessions": "mine"})["runs"] == "mine_runs"
    assert tables({"sessions": "mine", "runs": "r"})["runs"] == "r"
    assert set(tables({})) == set(IDS)


# Both databases at once


def in_memory() -> InMemoryDb:
    return InMemoryDb()  # type: ignore[no-untyped-call]


def talk(**values: Any) -> AgentSession:
    return AgentSession(session_id="s", agent_id="a", created_at=CREATED, **values)


async def test_a_dual_run_writes_both_and_reads_the_old() -> None:
    old = in_memory()
    async with provisioned() as db:
        both: Any = DualRunDb(database=db, old=old)
        await both.upsert_session(talk(metadata={"n": 1}))
        new = AsyncCloudDb(database=db)
        in_new: Any = await new.get_session("s")
        assert in_new.metadata == {"n": 1}
        await new.upsert_session(talk(metadata={"n": 2}))
        assert (await both.get_session("s", SessionType.AGENT)).metadata == {"n": 1}
        await both.delete_session("s")
        assert await new.get_session("s") is None


async def test_a_dual_run_goes_on_without_the_new_database_only_where_somebody_is_told() -> None:
    store = FaultyStore(MemoryStore())
    told: list[str] = []
    async with provisioned(store) as db:
        store.down()
        told_of: Any = DualRunDb(database=db, old=in_memory(), on_error=lambda call, error: told.append(call))
        await told_of.upsert_session(talk())
        assert told == ["upsert_session"]
        raising: Any = DualRunDb(database=db, old=in_memory())
        with pytest.raises(StoreUnavailable):
            await raising.upsert_session(talk())
        assert await raising.get_session("s", SessionType.AGENT) is not None


def test_a_dual_run_asks_the_old_database_for_all_that_it_knows() -> None:
    """What agno's DynamoDb and FirestoreDb have, and AsyncCloudDb has too, goes through both."""
    known = {
        name
        for cls in (DynamoDb, FirestoreDb)
        for name in vars(cls)
        if not name.startswith("_") and hasattr(AsyncCloudDb, name)
    }
    alone = {"table_exists", "get_latest_schema_version", "upsert_schema_version", "cleanup_legacy_runs_field"}
    learnings = {"get_learning", "get_learnings", "upsert_learning", "delete_learning"}  # which both of them refuse
    taken = {name for name in vars(DualRunDb) if not name.startswith("_")} - set(OF_NONE)
    assert known - alone - learnings == taken
    assert {name for name in taken if not hasattr(DynamoDb, name) or not hasattr(FirestoreDb, name)} <= {
        "delete_eval_run",
        "get_eval_run_raw",
    }


OF_NONE = (
    "cancel_pending_run",
    "reassign_session_owner",
    "get_span_stats",
    "insert_session_if_absent",
    "append_run_to_session_if_absent",
    "update_run_in_session",
)


async def test_a_dual_run_changes_no_session_in_the_new_database_alone() -> None:
    """What agno's own databases have not, agno does by calls that go to both, or tells that it cannot."""
    old = in_memory()
    async with provisioned() as db:
        both: Any = DualRunDb(database=db, old=old)
        await both.upsert_session(talk(user_id="ann"))
        run = RunOutput(run_id="r", agent_id="a", session_id="s", user_id="ann", status=RunStatus.running)
        await both.upsert_run(run, session_id="s", user_id="ann")
        agent = Agent(id="a", db=both)
        ended = {"status": "CANCELLED"}
        result = await apersist_run_status(agent, "agent", "s", "r", ended, user_id="ann")
        assert result is RunPersistOutcome.UNAVAILABLE
        with pytest.raises(NotImplementedError):
            await both.cancel_pending_run("r", session_id="s", reason="stop", expected_status="RUNNING")
        with pytest.raises(NotImplementedError):
            await both.reassign_session_owner("s", previous_user_id="ann", user_id="bob")
        stored = await AsyncCloudDb(database=db).get_run("r", deserialize=False)
        assert isinstance(stored, dict)
        assert stored["status"] == "RUNNING"
