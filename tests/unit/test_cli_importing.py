"""agno-clouddb import: what it prints, and its exit status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agno_clouddb import connect
from agno_clouddb.cli.commands import app
from agno_clouddb.integrations.agno.importing import importer
from tests.unit.test_agno_import import Given, run, session

_PLAIN = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None}


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["import", *arguments], catch_exceptions=False, env=_PLAIN)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Given:
    """What every URL of a source names."""
    given = Given(sessions=[session(number) for number in range(5)], runs=[run(0), run(0, session_id="gone")])
    monkeypatch.setattr(importer, "source_from_url", lambda url, names: given)
    return given


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [each for each in tmp_path.iterdir() if each.suffix == ".new"] == []


def stored(url: str) -> list[str]:
    async def listed() -> list[str]:
        async with connect(url, prefix="agno_clouddb_") as db:
            return [each.session_id async for each in db.sessions.iterate(sort="created_at")]

    return asyncio.run(listed())


def test_an_import_says_what_it_did_and_what_it_left(source: Given, folder: Path) -> None:
    target = f"sqlite:///{folder / 'new.sqlite'}"
    status, out, err = call("agno-dynamodb", "--source", "dynamodb://eu-west-1", "--provision", target)
    assert status == 0, err
    assert "All that the source has is in the target." in out
    assert "1 runs in the source have no session there" in out
    assert "The source has no table of memories, knowledge, evals, metrics, traces, spans." in out
    assert "importing sessions: " in err
    assert "comparing sessions: " in err
    assert stored(target) == [f"s{number}" for number in range(5)]
    assert [each.name for each in folder.glob("*.json")] == []


def test_a_dry_run_exits_with_1_while_something_is_missing_and_with_0_after_the_import(
    source: Given, folder: Path
) -> None:
    line = ("agno-firestore", "--source", "firestore://p", f"sqlite:///{folder / 'new.sqlite'}")
    call(*line, "--provision", "--only", "sessions", "--no-verify")
    source.rows = {**source.rows, "sessions": [*source.rows["sessions"], session(9)]}
    status, out, _ = call(*line, "--dry-run", "--json")
    assert status == 1
    report: dict[str, Any] = json.loads(out)
    assert (report["complete"], report["imported"]["sessions"]["missing"]) == (False, 1)
    assert call(*line)[0] == 0
    assert call(*line, "--dry-run")[0] == 0


def test_a_dry_run_before_the_target_has_tables_says_that_all_is_missing(source: Given, folder: Path) -> None:
    line = ("agno-dynamodb", "--source", "dynamodb://eu-west-1", f"sqlite:///{folder / 'new.sqlite'}")
    status, out, _ = call(*line, "--dry-run", "--json")
    assert status == 1
    imported = json.loads(out)["imported"]
    assert [imported[kind]["missing"] for kind in ("sessions", "runs")] == [5, 1]
    assert call(*line)[0] == 2  # nothing can be written there yet


def test_what_cannot_be_stored_is_named_and_exits_with_1(source: Given, folder: Path) -> None:
    source.rows = {"sessions": [session(0, metadata={"x": float("nan")})]}
    target = f"sqlite:///{folder / 'new.sqlite'}"
    status, out, _ = call("agno-dynamodb", "--source", "dynamodb://eu-west-1", "--provision", target)
    assert status == 1
    assert "sessions s0: " in out
    assert "metadata.x" in out


def test_a_stopped_import_says_where_it_goes_on(source: Given, folder: Path) -> None:
    line = ("agno-dynamodb", "--source", "dynamodb://r", "--provision", f"sqlite:///{folder / 'new.sqlite'}")
    source.stops_at = ("sessions", "3")
    status, _, err = call(*line)
    assert status == 2
    (kept,) = folder.glob("agno-import-*.json")
    assert f"what was written stays, and the same command goes on from {kept.name}" in err
    source.stops_at = None
    status, _, err = call(*line)
    assert (status, f"going on from {kept.name}" in err) == (0, True)
    assert not kept.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("agno-dynamodb", "--source", "firestore://p"), "this command reads dynamodb://"),
        (("agno-firestore", "--source", "firestore://p", "--table", "sessions"), "write KIND=NAME"),
        (("agno-firestore", "--source", "firestore://p", "--table", "dreams=x"), "agno has no table of dreams"),
        (("agno-firestore", "--source", "firestore://p", "--only", "dreams"), "there is no kind dreams"),
        (("agno-dynamodb", "--source", "dynamodb://r", "--rate", "0"), "not a number of records a second"),
        (("agno-dynamodb", "--source", "dynamodb://r?prefix=x"), "has no parameter prefix"),
    ],
)
def test_a_wrong_argument_exits_with_2_and_says_what_is_wrong(arguments: tuple[str, ...], said: str) -> None:
    status, _, err = call(*arguments, "memory://")
    assert status == 2
    assert said in " ".join(err.split())
