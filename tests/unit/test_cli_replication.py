"""agno-clouddb reconcile, health and forget: what they print, and their exit status."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agno_clouddb import Database, RecordTooLarge, Session, StoreUnavailable, connect
from agno_clouddb.cli import report
from agno_clouddb.cli.commands import app
from agno_clouddb.cli.comparing import Comparing
from agno_clouddb.fanout.reconcile import Compared, Reconciliation
from agno_clouddb.stores.base import Failed, Mutation, Outcome, Scan
from agno_clouddb.stores.sqlite import SQLiteStore
from agno_clouddb.testing import FaultyStore

# A CI service may ask for colours where there is no terminal.
_NO_TERMINAL = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None}
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

Urls = tuple[str, str]


def run(*arguments: str, typed: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env=_NO_TERMINAL, input=typed)
    return result.exit_code, _ESCAPES.sub("", result.stdout), _ESCAPES.sub("", result.stderr)


def rows(output: str) -> dict[str, list[str]]:
    """The rows of the tables in ``output``, by their first cell."""
    cells = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in output.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in cells}


def done(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Carry out work in a loop of its own, as another process would."""
    asyncio.run(work())


@pytest.fixture
def urls(tmp_path: Path) -> Urls:
    """Two stores that hold the same and were compared once."""
    first, second = f"sqlite:///{tmp_path / 'first.sqlite'}", f"sqlite:///{tmp_path / 'second.sqlite'}"

    async def work() -> None:
        async with connect(first, second) as db:
            await db.provision()
            await db.sessions.upsert(Session(session_id="both"))
            await db.reconcile()

    done(work)
    return first, second


def write(url: str, *ids: str) -> None:
    """Write sessions to one store alone."""

    async def work() -> None:
        async with connect(url) as db:
            for session_id in ids:
                await db.sessions.upsert(Session(session_id=session_id))

    done(work)


def held(url: str) -> set[str]:
    """The sessions that one store holds."""
    found: set[str] = set()

    async def work() -> None:
        async with connect(url) as db:
            found.update([each.session_id async for each in db.sessions.iterate()])

    done(work)
    return found


def miss(urls: Urls, *ids: str) -> None:
    """Write sessions while the second store is down, so that hints are left."""

    async def work() -> None:
        second = FaultyStore(connect(urls[1]).store)
        async with connect(urls[0], second) as db:
            second.down()
            for session_id in ids:
                await db.sessions.upsert(Session(session_id=session_id))

    done(work)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where whatever started the tests lets it be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_reconcile_mends_what_differs_and_reports_it_by_collection(urls: Urls) -> None:
    write(urls[0], "a", "b")
    write(urls[1], "c", "both")
    status, output, errors = run("reconcile", *urls)
    assert status == 0
    assert rows(output)["sessions"] == ["5", "3", "1", "4", "0"]
    assert rows(output)["all"] == ["5", "3", "1", "4", "0"]
    assert "0 hints were replayed. The stores hold the same now." in output
    assert held(urls[0]) == held(urls[1]) == {"a", "b", "c", "both"}
    assert "Traceback" not in errors


def test_reconcile_replays_hints_and_says_how_many(urls: Urls) -> None:
    miss(urls, "a", "b")
    status, output, _ = run("reconcile", *urls)
    assert status == 0
    assert "2 hints were replayed." in output
    assert held(urls[1]) == {"a", "b", "both"}


def test_reconcile_compares_what_was_written_or_everything_as_it_is_asked(urls: Urls) -> None:
    assert "Compared: what was written since the last time" in run("reconcile", *urls)[1]
    assert "Compared: everything" in run("reconcile", *urls, "--full")[1]


def test_a_dry_run_that_finds_something_changes_nothing_and_exits_with_1(urls: Urls) -> None:
    write(urls[0], "a")
    status, output, _ = run("reconcile", *urls, "--dry-run")
    assert status == 1
    assert "1 records differ, and 0 hints are kept of what stores have missed. Nothing was changed." in output
    assert held(urls[1]) == {"both"}
    assert run("reconcile", *urls)[0] == 0
    status, output, _ = run("reconcile", *urls, "--dry-run")
    assert (status, output.splitlines()[-1]) == (0, "The stores hold the same.")


def test_a_dry_run_counts_hints_as_differences(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    miss(urls, "a")
    write(urls[1], "a")  # later than what it has missed: the hint is out of date, but stands

    async def alike(self: SQLiteStore, *arguments: Any, **options: Any) -> Scan:
        return Scan((), None)

    monkeypatch.setattr(SQLiteStore, "scan", alike)
    status, output, _ = run("reconcile", *urls, "--dry-run")
    assert status == 1
    assert "0 records differ, and 1 hints are kept of what stores have missed." in output


def test_what_cannot_be_mended_is_reported_with_exit_status_1(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    write(urls[0], "a")
    real = SQLiteStore.write

    async def refusing(
        self: SQLiteStore, mutations: Sequence[Mutation], *, atomic: bool = False
    ) -> tuple[Outcome, ...]:
        if any(each.key.collection == "sessions" for each in mutations):
            return (Failed(RecordTooLarge(9, 8, store=self.name)),) * len(mutations)
        return await real(self, mutations, atomic=atomic)

    monkeypatch.setattr(SQLiteStore, "write", refusing)
    status, output, _ = run("reconcile", *urls)
    assert status == 1
    assert rows(output)["sessions"] == ["2", "1", "0", "0", "1"]
    assert "1 records could not be mended, and 0 hints are left." in output
    assert "not mended, for one: the encoded payload is 9 bytes" in output
    status, output, _ = run("reconcile", *urls, "--json")
    assert (status, json.loads(output)["total"]["failed"]) == (1, 1)
    assert json.loads(output)["error"].startswith("the encoded payload is 9 bytes")


def test_hints_that_cannot_be_replayed_are_reported_with_exit_status_1(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    miss(urls, "a")

    async def unreplayed(self: Database, **options: Any) -> Reconciliation:
        return Reconciliation("incremental", done=True)

    monkeypatch.setattr(Database, "reconcile", unreplayed)
    status, output, _ = run("reconcile", *urls)
    assert status == 1
    assert "0 records could not be mended, and 1 hints are left." in output


def test_reconcile_prints_json(urls: Urls) -> None:
    write(urls[0], "a")
    status, output, _ = run("reconcile", *urls, "--json")
    printed = json.loads(output)
    assert status == 0
    assert printed["collections"]["sessions"] == {"compared": 2, "missing": 1, "stale": 0, "mended": 1, "failed": 0}
    assert printed["total"]["mended"] == 1
    assert (printed["alike"], printed["kind"], printed["done"], printed["error"]) == (True, "incremental", True, None)
    assert (printed["dry_run"], printed["replayed"], printed["hints"]) == (False, 0, 0)
    write(urls[0], "b")
    status, output, _ = run("reconcile", *urls, "--json", "--dry-run")
    assert (status, json.loads(output)["alike"], json.loads(output)["dry_run"]) == (1, False, True)


def test_without_a_terminal_progress_is_a_line_a_collection_on_stderr(urls: Urls) -> None:
    _, output, errors = run("reconcile", *urls, "--full")
    assert "comparing" not in output
    lines = errors.splitlines()
    assert lines[0] == "0 hints replayed: 0 compared, 0 differ, 0 mended"
    assert [line.split(":")[0] for line in lines[1:4]] == ["comparing sessions", "comparing runs", "comparing memories"]
    assert lines[1].startswith("comparing sessions: 1 compared, 0 differ, 0 mended")


def test_the_prefix_is_that_of_the_stores(tmp_path: Path) -> None:
    stores = [f"sqlite:///{tmp_path / name}" for name in ("first.sqlite", "second.sqlite")]

    async def work() -> None:
        async with connect(*stores, prefix="mine_") as db:
            await db.provision()

    done(work)
    assert run("reconcile", *stores, "--prefix", "mine_")[0] == 0
    assert run("health", *stores, "--prefix", "mine_")[0] == 0
    assert run("forget", f"{stores[1]}?prefix=mine_", stores[0], "--prefix", "mine_", "--yes")[0] == 0
    assert run("reconcile", *stores)[0] == 2
    assert "cannot be read: call `await db.provision()` once\n" in run("health", *stores)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("reconcile",), "URL"),
        (("reconcile", "memory://"), "name two stores or more"),
        (("health", "memory://"), "name two stores or more"),
        (("reconcile", "memory://", "mongodb://x"), "the scheme of 'mongodb://x' is unknown. Use one of dynamodb://"),
        (("reconcile", "memory://a", "memory://b", "--rate", "0"), "rate: is 0.0"),
        (("reconcile", "memory://a", "memory://b", "--rate", "much"), "--rate"),
        (("reconcile", "memory://a", "memory://b"), "Call `await db.provision()` once"),
        (("forget", "memory://c", "memory://a", "--yes"), "since the store was never one of several"),
        (("forget", "memory://c", "memory://a", "memory://b", "--yes"), "Call `await db.provision()` once"),
        (("forget", "memory://a", "memory://a", "--yes"), "memory://a is a store of this database. Connect without it"),
        (("forget", "memory://a", "--yes"), "URL"),
    ],
)
def test_what_is_wrong_is_said_on_stderr_with_exit_status_2(arguments: Sequence[str], words: str) -> None:
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert words in errors
    assert "Traceback" not in errors


def unreachable(path: str, monkeypatch: pytest.MonkeyPatch, *, after_pages: int = 0) -> None:
    """Cut off the SQLite file: each of its calls fails, once it has been scanned so often."""
    pages = [0]

    def broken(name: str) -> None:
        real = getattr(SQLiteStore, name)

        async def call(self: SQLiteStore, *arguments: Any, **options: Any) -> Any:
            if self.name.endswith(path):
                if pages[0] >= after_pages:
                    raise StoreUnavailable("no route to host", store=self.name, remedy="Try again")
                pages[0] += name == "scan"
            return await real(self, *arguments, **options)

        monkeypatch.setattr(SQLiteStore, name, call)

    for name in ("get", "query", "count", "scan", "write"):
        broken(name)


def test_reconcile_says_which_store_does_not_answer(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable("second.sqlite", monkeypatch)
    status, output, errors = run("reconcile", *urls)
    assert (status, output) == (2, "")
    assert errors.startswith("agno-clouddb: no route to host (store sqlite:///")
    assert errors.rstrip().endswith("second.sqlite). Try again")


def test_a_store_that_goes_away_meanwhile_lets_the_next_run_go_on(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    write(urls[0], "a")
    with monkeypatch.context() as patch:
        unreachable("second.sqlite", patch, after_pages=2)
        status, _, errors = run("reconcile", *urls, "--full")
        assert status == 2
        assert "what was mended stays, and the next run goes on from there" in errors
    status, output, _ = run("reconcile", *urls)
    assert status == 0
    assert "Compared: everything" in output  # it was not the full comparison that it was asked for, but went on
    assert rows(output)["sessions"] == ["2", "1", "0", "1", "0"]  # with what was counted before


def interrupt_at(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process SIGINT, as Ctrl-C does, when a page is read, and wait there."""
    real, pages = SQLiteStore.scan, [0]

    async def scan(self: SQLiteStore, *arguments: Any, **options: Any) -> Scan:
        pages[0] += 1
        if pages[0] == page:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        return await real(self, *arguments, **options)

    monkeypatch.setattr(SQLiteStore, "scan", scan)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupted_full_comparison_goes_on_with_the_next_run(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    write(urls[0], "a")
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        status, output, errors = run("reconcile", *urls, "--full")
    assert (status, output) == (130, "")
    assert errors.endswith("interrupted; what was mended stays, and the next run goes on from there\n")
    assert "a full comparison is under way or was stopped: 2 records so far" in run("health", *urls)[1]
    status, output, errors = run("reconcile", *urls)
    assert status == 0
    assert rows(output)["sessions"] == ["2", "1", "0", "1", "0"]
    assert "comparing sessions" not in errors  # they were done
    assert threading.active_count() == 1  # nothing of the database is left open


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "interrupted; what was mended stays, and the next run compares the same again\n"),
        (("--full", "--dry-run"), "interrupted; nothing was changed\n"),
    ],
)
def test_an_interruption_says_what_holds(
    urls: Urls, monkeypatch: pytest.MonkeyPatch, options: Sequence[str], words: str
) -> None:
    interrupt_at(1, monkeypatch)
    status, _, errors = run("reconcile", *urls, *options)
    assert status == 130
    assert errors.endswith(words)


def test_health_of_stores_that_hold_the_same(urls: Urls) -> None:
    status, output, errors = run("health", *urls)
    assert (status, errors) == (0, "")
    assert output.count("in use") == 2
    assert output.count("nothing is known") == 2
    assert re.search(r"reconciled up to: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, \d+ seconds ago\n", output)
    assert "full comparison" not in output


def test_health_of_a_store_that_has_missed_writes(urls: Urls) -> None:
    miss(urls, "a", "b", "c")
    status, output, _ = run("health", *urls, "--json")
    printed = json.loads(output)
    assert (status, printed["ok"]) == (1, False)
    assert [(each["name"], each["state"], each["hints"]) for each in printed["stores"]] == [
        (urls[0], "closed", 0),
        (urls[1], "closed", 3),
    ]
    assert printed["stores"][1]["replication_lag"] >= 0
    assert datetime.fromisoformat(printed["reconciled_at"]).tzinfo is not None
    assert (printed["compared"], printed["stores"][0]["last_error"]) == (None, None)
    status, output, _ = run("health", *urls)
    assert status == 1
    assert re.search(r"│\s+3 │ by \d+ seconds", output)


def test_health_of_stores_that_were_never_compared(tmp_path: Path) -> None:
    stores = [f"sqlite:///{tmp_path / name}" for name in ("first.sqlite", "second.sqlite")]

    async def work() -> None:
        async with connect(*stores) as db:
            await db.provision()

    done(work)
    status, output, _ = run("health", *stores)
    assert status == 1
    assert "reconciled up to: never\n" in output
    assert json.loads(run("health", *stores, "--json")[1])["reconciled_at"] is None


def test_health_of_a_store_that_does_not_answer(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable("second.sqlite", monkeypatch)
    status, output, errors = run("health", *urls)
    assert (status, errors) == (1, "")
    assert output.count("in use") == 1
    assert output.count("does not answer") == 1
    assert re.search(r"\nsqlite:///\S+second.sqlite: no route to host \(store ", output)
    assert "unknown" in output  # what the first has missed, since only the second could tell
    printed = json.loads(run("health", *urls, "--json")[1])
    assert not printed["ok"]
    assert printed["stores"][0]["hints"] is None
    assert [each["answers"] for each in printed["stores"]] == [True, False]
    assert "no route to host" in printed["stores"][1]["last_error"]


def test_health_fails_when_one_of_three_does_not_answer(
    urls: Urls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = (*urls, f"sqlite:///{tmp_path / 'third.sqlite'}")

    async def work() -> None:
        async with connect(*three) as db:
            await db.provision()
            await db.reconcile()

    done(work)
    assert run("health", *three)[0] == 0
    unreachable("third.sqlite", monkeypatch)  # what each has missed is known from another all the same
    assert run("health", *three)[0] == 1


def test_forget_discards_the_hints_of_a_store_that_has_left(urls: Urls) -> None:
    miss(urls, "a", "b")
    assert run("forget", urls[1], urls[0], "--yes") == (0, "2 hints discarded\n", "")
    assert run("forget", urls[1], urls[0], "--yes") == (0, "0 hints discarded\n", "")
    status, output, _ = run("health", *urls)
    assert status == 1
    assert "reconciled up to: never\n" in output


def test_forget_of_a_name_for_which_nothing_is_kept_says_for_which_there_is(urls: Urls) -> None:
    miss(urls, "a")
    status, output, errors = run("forget", f"{urls[1]}x", urls[0], "--yes")
    assert (status, output) == (2, "")
    assert f"nothing is kept for {urls[1]}x" in errors
    assert f"hints are kept for {urls[1]}. " in errors
    assert run("forget", urls[1], urls[0], "--yes") == (0, "1 hints discarded\n", "")


def test_forget_asks_first(urls: Urls) -> None:
    miss(urls, "a")
    status, output, _ = run("forget", urls[1], urls[0], typed="n\n")
    assert status == 1
    assert f"Discard what is kept for {urls[1]}?" in output
    assert "discarded" not in output
    status, output, _ = run("forget", urls[1], urls[0], typed="y\n")
    assert status == 0
    assert output.endswith("1 hints discarded\n")


@pytest.mark.usefixtures("interrupts")
def test_an_interrupted_forget_says_that_there_is_more(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    miss(urls, "a")

    async def forget_store(self: Database, name: str, *, progress: Callable[[int], None]) -> int:
        progress(100)
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()
        return 100

    monkeypatch.setattr(Database, "forget_store", forget_store)
    assert run("forget", urls[1], urls[0], "--yes") == (130, "", "interrupted; run it again to discard the rest\n")


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_counts_without_what_an_earlier_run_has_compared(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, markup=False, highlight=False)
    clock, told = Clock(), Reconciliation("full", replayed=3)
    with Comparing(console, clock=clock) as shown:
        shown(told)
        told.collections["sessions"] = Compared(compared=5_000, missing=2, stale=1, mended=3)
        shown(told)
        clock.seconds += 10
        told.of("sessions").compared += 2_500
        shown(told)
    assert isinstance(console.file, io.StringIO)
    printed = _ESCAPES.sub("", console.file.getvalue())
    assert "comparing sessions" in printed
    assert "7,500 compared, 3 differ, 3 mended, 250/s" in printed
    assert terminal or printed.startswith("3 hints replayed: 0 compared, 0 differ, 0 mended\n")


def test_lines_of_progress_come_at_most_every_ten_seconds_in_one_collection() -> None:
    console = Console(file=io.StringIO(), width=120, markup=False, highlight=False)
    clock, told = Clock(), Reconciliation("incremental", dry_run=True)
    with Comparing(console, clock=clock) as shown:
        for page in range(25):
            told.of("runs").compared += 100
            shown(told)
            clock.seconds = 101.0 + page
    assert isinstance(console.file, io.StringIO)
    assert [line.split(",")[0] for line in console.file.getvalue().splitlines()] == [
        "comparing runs: 100 compared",
        "comparing runs: 1",
        "comparing runs: 2",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7_199, "120 minutes"),
        (7_200, "2 hours"),
        (172_800, "2 days"),
        (86_400 * 1_234, "1,234 days"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert report.duration(seconds) == words


def test_a_moment_of_a_clock_that_runs_ahead_was_now() -> None:
    assert report.when(datetime.now(UTC) + timedelta(minutes=3)).endswith("UTC, 0 seconds ago")
