"""The examples run on every engine, twice over the same stores, and print what their texts promise."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

_EXAMPLES = Path(__file__).parents[2] / "examples"
_HANG = 120.0  # seconds after which a program counts as hanging


def example(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(_EXAMPLES / f"{name}.py"), run_name=name))


def start(name: str, *arguments: str, folder: Path) -> str:
    """What an example prints when it is run as its docstring says, in an empty folder."""
    command = [sys.executable, str(_EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_HANG)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def test_one_cloud_runs_on_every_engine(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        await example("one_cloud").main(backend)
        output = capsys.readouterr().out
        assert "the last 3 runs: run-3, run-4, run-5\nseen by another user: None\n" in output
        assert "page 1: example-1, example-2\npage 2: example-3\n" in output
        assert "conflict: expected version " in output
        assert "metadata: {'worker': 1, 'tag': 'refund'}\n" in output
        assert "error: there is no such record" in output


async def test_both_clouds_runs_on_every_engine_beside_sqlite(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await example("both_clouds").main(backend, f"sqlite:///{tmp_path / 'second.sqlite'}")
    assert_outage_shown(capsys.readouterr().out)


async def test_both_clouds_runs_on_both_clouds(
    dynamodb_local_url: str, firestore_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = f"&prefix=t{tmp_path.name}_".replace("-", "_")
    await example("both_clouds").main(dynamodb_local_url + prefix, firestore_url + prefix)
    assert_outage_shown(capsys.readouterr().out)


async def test_joining_runs_on_every_engine_beside_sqlite(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await example("joining").main(f"sqlite:///{tmp_path / 'old.sqlite'}", backend)
    assert_joined(capsys.readouterr().out)


async def test_joining_runs_on_both_clouds(cloud_urls: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    # DynamoDB Local takes a minute to add indexes to tables that it has already.
    dynamodb, firestore = cloud_urls
    await example("joining").main(firestore, dynamodb)
    assert_joined(capsys.readouterr().out)


def test_joining_runs_without_arguments_and_takes_its_stores_from_the_command_line(tmp_path: Path) -> None:
    assert_joined(start("joining", folder=tmp_path))
    assert {each.name for each in tmp_path.glob("*.sqlite")} == {"old.sqlite", "new.sqlite"}
    for each in list(tmp_path.iterdir()):
        each.unlink()
    assert_joined(start("joining", "memory://a", "memory://b", folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_records_run_on_every_engine(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        await example("records").main(backend)
        output = capsys.readouterr().out
        assert "stored 49, failed [7]: memory: " in output
        assert "ann's: ['Prefers aisle seats']\neach user has: {'bob': 49, 'ann': 1}\n" in output
        assert "renamed: Nightly\nevaluations: ['e0', 'e1']\n" in output
        assert "turned away: 2\nread so often: " in output
        assert "found: ['l1']\n" in output
        assert "the trace: 6 spans in 1000 ms\n" in output
        assert "its spans: ['s00', 's01', 's02', 's10', 's11', 's12']\n" in output
        assert "written together: ['Session', 'Run']\n" in output
        assert "today, all: 120 tokens\n" in output


def test_the_examples_run_without_arguments_on_sqlite_files(tmp_path: Path) -> None:
    assert "the last 3 runs: run-3, run-4, run-5\n" in start("one_cloud", folder=tmp_path)
    assert "found: ['l1']\n" in start("records", folder=tmp_path)
    assert_outage_shown(start("both_clouds", folder=tmp_path))
    assert {each.name for each in tmp_path.glob("*.sqlite")} == {"example.sqlite", "first.sqlite", "second.sqlite"}


def test_the_examples_take_their_stores_from_the_command_line(tmp_path: Path) -> None:
    assert "(store memory://mine, " in start("one_cloud", "memory://mine", folder=tmp_path)
    output = start("both_clouds", "memory://a", "memory://b", folder=tmp_path)
    assert_outage_shown(output)
    assert "memory://a alone: run-1, run-2, run-3\n" in output
    assert list(tmp_path.iterdir()) == []


def assert_outage_shown(output: str) -> None:
    assert "during the outage: 2 runs, degraded: True\n" in output
    assert "during the outage: 1 session listed, degraded: True\n" in output
    assert "after the outage: 2 runs, degraded: False\n" in output
    assert "acknowledged by 1, failed on 1: " in output


def assert_joined(output: str) -> None:
    assert "at once, of both: example-1, example-2, example-3\nreconciled: full, 0 failed\nhealth: ok\n" in output
    assert "health: ok\nthe new cloud alone: example-1, example-2\n" in output
    assert "example-1: Moved, run-1, run-4\nhints discarded: 0\n" in output
