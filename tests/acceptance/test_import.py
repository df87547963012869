"""What agno's own databases have written arrives complete, killed and resumed on the way."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from agno.db.base import SessionType
from agno.db.utils import deserialize_session
from agno.session import AgentSession

from agno_clouddb import Database, connect
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.importing import DualRunDb, ImportReport, import_agno
from agno_clouddb.stores.base import Item, Key
from tests.acceptance.agno_sources import RUNS, AgnoSource, dynamodb_source, every, firestore_source, write
from tests.acceptance.clouds import everything, show

SESSIONS = 200  # unless --sessions says otherwise
KILLS = (0.2, 0.4, 0.6)  # of all that is to be read
SECONDS = 4.0  # that reading it all takes at least, so that there is time to kill it
HANG = 300.0  # seconds after which something counts as never happening
_POLL = 0.02

# agno's FirestoreDb asks for documents in a way that Google's client warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Detected filter using positional arguments:UserWarning")

Kinds = dict[str, int]


@pytest.fixture(params=["dynamodb", "firestore"])
def source(
    request: pytest.FixtureRequest, dynamodb_local_url: str, firestore_url: str, prefix: str
) -> Iterator[AgnoSource]:
    """agno's own tables on each cloud in turn, still empty."""
    if request.param == "dynamodb":
        with dynamodb_source(dynamodb_local_url, prefix) as made:
            yield made
    else:
        with firestore_source(firestore_url, prefix) as made:
            yield made


def command(source: AgnoSource, targets: tuple[str, ...], checkpoint: Path, *arguments: str) -> list[str]:
    """The command line of an import."""
    cloud = source.url.partition("://")[0]
    tables = [option for kind, name in source.tables.items() for option in ("--table", f"{kind}={name}")]
    program = [sys.executable, "-m", "agno_clouddb.cli.main", "import", f"agno-{cloud}", "--source", source.url]
    return [*program, *targets, *tables, "--checkpoint", str(checkpoint), "--json", *arguments]


def read(checkpoint: Path) -> int:
    """How many records were read, going by the checkpoint."""
    if not checkpoint.exists():
        return 0
    report = json.loads(checkpoint.read_text("utf-8"))["report"]
    return sum(tally["read"] for name in ("imported", "verified") for tally in report[name].values())


def kill_at(line: list[str], checkpoint: Path, count: int) -> int:
    """Run a command, kill it at any moment after so many records were read, and say how many were."""
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + HANG
        while read(checkpoint) < count:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < until
            _wait(process, _POLL)
        _wait(process, random.uniform(0, 5 * _POLL))
        process.kill()
        process.wait()
    assert process.returncode == -9
    return read(checkpoint)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


def finish(line: list[str]) -> dict[str, Any]:
    """Run a command to its end; what it reports."""
    done = subprocess.run(line, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr + done.stdout
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_sessions_arrive_complete_killed_and_resumed_three_times(
    source: AgnoSource,
    dynamodb_local_url: str,
    firestore_url: str,
    prefix: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    began = time.perf_counter()
    written = write(source, request.config.getoption("--sessions") or SESSIONS)
    show(f"written by agno in {time.perf_counter() - began:.1f} s: {written}")
    before = source.everything()
    # To the other cloud than the one it comes from.
    url = firestore_url if source.url.startswith("dynamodb") else dynamodb_local_url
    target = f"{url}&prefix={prefix}new_"
    checkpoint = tmp_path / "checkpoint.json"
    line = command(source, (target,), checkpoint, "--provision")
    total = 2 * sum(written.values())
    for part in KILLS:
        there = kill_at([*line, "--rate", str(total / SECONDS)], checkpoint, int(part * total))
        show(f"killed when {there:,} of {total:,} records were read, the verification included")
    began = time.perf_counter()
    report = finish(line)
    show(f"went on to the end in {time.perf_counter() - began:.1f} s")
    for name in ("imported", "verified"):
        for kind, tally in report[name].items():
            show(f"{name} {kind}: " + ", ".join(f"{count:,} {what}" for what, count in tally.items() if count))

    assert report["resumed"] == len(KILLS)
    assert report["complete"]
    assert report["without_session"] == 0
    assert not checkpoint.exists()
    assert {kind: tally["read"] for kind, tally in report["imported"].items()} == written
    for kind, tally in report["verified"].items():
        assert {name: count for name, count in tally.items() if count} == {
            "read": written[kind],
            "equal": written[kind],
        }
    assert source.everything() == before
    asyncio.run(compare(source, target, written))


async def compare(source: AgnoSource, target: str, written: Kinds) -> None:
    """What AsyncCloudDb reads is what agno's own database reads."""
    db: Any = AsyncCloudDb(target)
    try:
        ids = [f"session-{number:05}" for number in range(written["sessions"])]
        rows = every(lambda number: source.db.get_session(ids[number], deserialize=False), range(len(ids)))
        for session_id, theirs in zip(ids, rows, strict=True):
            ours = await db.get_session(session_id, deserialize=False)
            assert len(ours["runs"]) == RUNS
            assert whole(theirs) == whole(ours)
            assert deserialize_session(None, theirs).to_dict() == deserialize_session(None, ours).to_dict()
        await compare_lists(source, db)
    finally:
        await db.close()


async def compare_lists(source: AgnoSource, db: Any) -> None:
    memories = source.db.get_user_memories(), await db.get_user_memories()
    theirs, ours = ({each.memory_id: each.to_dict() for each in listed} for listed in memories)
    assert ours["memory-00007"]["memory"] == '["text that looks like JSON"]'
    theirs["memory-00007"]["memory"] = '["text that looks like JSON"]'  # which agno's DynamoDb reads as a list
    assert theirs == ours

    theirs, _ = source.db.get_eval_runs(deserialize=False)
    ours, total = await db.get_eval_runs(deserialize=False)
    assert total == len(theirs)
    assert {row["run_id"]: whole(row) for row in theirs} == {row["run_id"]: whole(row) for row in ours}

    contents, _ = source.db.get_knowledge_contents()
    ours, total = await db.get_knowledge_contents()
    assert total == len(contents)
    assert {row.id: row for row in contents} == {row.id: row for row in ours}

    spans = source.db.get_spans(limit=100_000)
    for trace_id in {span.trace_id for span in spans}:
        assert source.db.get_trace(trace_id=trace_id) == await db.get_trace(trace_id=trace_id)
        of_trace = {span.span_id: span for span in spans if span.trace_id == trace_id}
        assert of_trace == {span.span_id: span for span in await db.get_spans(trace_id=trace_id)}

    metrics, _ = source.db.get_metrics()
    found, _ = await db.get_metrics()
    assert by_day(metrics) == by_day(found)


def whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the columns that are empty, which agno leaves out on one cloud and not on the other."""
    return {name: value for name, value in row.items() if value is not None}


def by_day(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (str(row["date"])[:10], row.get("user_id") or ""): {
            name: value for name, value in row.items() if name not in ("id", "date", "user_id")
        }
        for row in rows
    }


async def held(db: Database) -> dict[Key, Item]:
    return await everything(db.store)


@pytest.fixture
def target_url(source: AgnoSource, dynamodb_local_url: str, firestore_url: str, prefix: str) -> str:
    """The other cloud than the one that the source is on."""
    url = firestore_url if source.url.startswith("dynamodb") else dynamodb_local_url
    return f"{url}&prefix={prefix}new_"


async def bring(source: AgnoSource, db: Database, **options: Any) -> ImportReport:
    return await import_agno(source.url, db, tables=source.tables, **options)


async def next_second() -> None:
    """Wait until nothing written from now on has the time of anything before: agno keeps times in whole seconds."""
    await asyncio.sleep(1 - time.time() % 1)


async def test_a_second_import_changes_nothing_and_a_dry_run_writes_nothing(
    source: AgnoSource, target_url: str
) -> None:
    written = await asyncio.to_thread(write, source, 20)
    async with connect(target_url) as db:
        await db.provision()
        dry = await bring(source, db, dry_run=True)
        assert not dry.complete
        assert {kind: each.missing for kind, each in dry.imported.items()} == written
        assert not await held(db)

        first = await bring(source, db)
        assert first.complete
        assert {kind: each.missing for kind, each in first.imported.items()} == written
        stored = await held(db)

        again = await bring(source, db)
        assert {kind: each.equal for kind, each in again.imported.items()} == written
        assert await held(db) == stored
        assert (await bring(source, db, dry_run=True)).complete


async def test_what_was_written_later_on_either_side_counts(source: AgnoSource, target_url: str) -> None:
    await asyncio.to_thread(write, source, 10)
    async with connect(target_url) as db:
        await db.provision()
        await bring(source, db, kinds=("sessions",))
        ours: Any = AsyncCloudDb(database=db)
        # The new database goes on with one session, agno's own with another and with a run.
        await next_second()
        await ours.rename_session("session-00000", None, "renamed in the new one")
        changed = source.db.get_session("session-00003")
        assert isinstance(changed, AgentSession)
        assert changed.session_data is not None
        assert changed.runs is not None
        changed.session_data["session_name"] = "renamed in the old one"
        await asyncio.to_thread(source.db.upsert_session, changed)
        run = changed.runs[1]
        run.content = "continued"
        await asyncio.to_thread(source.db.upsert_run, run, "session-00003", changed.user_id)

        report = await bring(source, db, kinds=("sessions",))

        assert report.complete
        assert (report.imported["sessions"].older, report.imported["sessions"].newer) == (1, 1)
        assert report.imported["runs"].older == 1
        first, second = await ours.get_session("session-00000"), await ours.get_session("session-00003")
        assert first.session_data["session_name"] == "renamed in the new one"
        assert second.session_data["session_name"] == "renamed in the old one"
        assert [each.content for each in second.runs][1] == "continued"
        assert [each.run_id for each in second.runs] == [f"run-00003-{place}" for place in range(RUNS)]


async def test_runs_that_were_appended_before_the_import_come_after_those_that_it_brings(
    source: AgnoSource, target_url: str
) -> None:
    await asyncio.to_thread(write, source, 1)
    async with connect(target_url) as db:
        await db.provision()
        ours: Any = AsyncCloudDb(database=db)
        session = source.db.get_session("session-00000", SessionType.AGENT)
        await ours.upsert_session(session)
        late = session.runs[-1]
        late.run_id = "appended"
        await ours.upsert_run(late, "session-00000", session.user_id, RUNS)
        await bring(source, db, kinds=("sessions",))
        runs = (await ours.get_session("session-00000")).runs
        assert [run.run_id for run in runs] == [*(f"run-00000-{place}" for place in range(RUNS)), "appended"]
        newest = (await ours.get_session("session-00000", runs_limit=1)).runs
        assert [run.run_id for run in newest] == ["appended"]


async def test_a_dual_run_and_an_import_in_its_course_leave_both_databases_alike(
    source: AgnoSource, target_url: str
) -> None:
    await asyncio.to_thread(write, source, 4)
    async with connect(target_url) as db:
        await db.provision()
        both: Any = DualRunDb(database=db, old=source.db)
        # Before the import a session gets a turn, and a new one is made.
        going_on = await both.get_session("session-00000")
        await both.upsert_session(going_on)
        turn = going_on.runs[-1]
        turn.run_id, turn.content = "turn", "meanwhile"
        await both.upsert_run(turn, "session-00000", going_on.user_id, RUNS)
        await both.upsert_session(AgentSession(session_id="new", agent_id="a", created_at=1_700_000_000))
        assert await both.delete_session("session-00001")

        report = await bring(source, db, kinds=("sessions",))

        assert report.complete
        new: Any = AsyncCloudDb(database=db)
        for session_id in ("session-00000", "session-00002", "session-00003", "new"):
            theirs, ours = source.db.get_session(session_id).to_dict(), (await new.get_session(session_id)).to_dict()
            assert abs(theirs.pop("updated_at") - ours.pop("updated_at")) < 60  # seconds
            assert theirs == ours
        assert await new.get_session("session-00001") is None
        assert [run.run_id for run in (await new.get_session("session-00000")).runs][-1] == "turn"


def test_a_source_without_its_table_and_the_same_tables_on_both_sides_are_refused(
    source: AgnoSource, target_url: str, tmp_path: Path
) -> None:
    line = command(source, (target_url,), tmp_path / "checkpoint.json", "--table", "sessions=nowhere")
    done = subprocess.run(line, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 2
    assert "the source has no table of sessions" in done.stderr
    assert "Traceback" not in done.stderr

    cloud, _, parameters = source.url.partition("?")
    same = f"{cloud}?{parameters}&prefix={source.tables['sessions'].removesuffix('sessions')}"
    done = subprocess.run(
        command(source, (same,), tmp_path / "checkpoint.json"), capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 2
    assert "is a table of the source and of the target" in done.stderr
