"""The demo on real engines, on what there is without them, and interrupted."""

from __future__ import annotations

import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agno_clouddb.cli.commands import app
from agno_clouddb.cli.demo import recorded_conversations

_HANG = 180.0  # seconds after which a program counts as hanging


# A CI service may ask for colours where there is no terminal.
_NO_TERMINAL = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None}


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["demo", *arguments], catch_exceptions=False, env=_NO_TERMINAL)
    return result.exit_code, result.stdout, result.stderr


def rows(output: str) -> dict[str, list[str]]:
    """The rows of the tables in ``output``, by their first cell."""
    cells = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in output.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in cells}


def assert_equal_everywhere(output: str, *stores: str) -> None:
    found = rows(output)
    for name in ("all, merged", *(f"{store} alone" for store in stores)):
        assert found[name] == ["8", "47", "204", "yes"]


def units(cells: list[str], *, of: str) -> float:
    """A number that only one of the two clouds has."""
    dynamodb, firestore = cells
    assert (firestore if of == "DynamoDB" else dynamodb) == "-"
    return float(dynamodb if of == "DynamoDB" else firestore)


def ports(output: str) -> list[int]:
    return [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", output)]


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_both_clouds_hold_what_was_recorded_and_a_turn_keeps_to_its_budget(
    dynamodb_local_url: str, firestore_url: str
) -> None:
    prefix = f"prefix=t{secrets.token_hex(6)}_"
    dynamodb = f"{dynamodb_local_url}&{prefix}&report_capacity=true"
    status, output, errors = run("--store", dynamodb, "--store", f"{firestore_url}&{prefix}")
    assert (status, errors) == (0, "")
    names = [url.partition("?")[0] for url in (dynamodb, firestore_url)]
    assert_equal_everywhere(output, *names)
    costs = rows(output)
    dynamodb_requests, firestore_requests = map(float, costs["requests"])
    assert 1 < dynamodb_requests <= 4
    assert 1 < firestore_requests <= 4
    assert 0 < units(costs["read units"], of="DynamoDB") <= 5
    assert 0 < units(costs["write units"], of="DynamoDB") <= 9
    assert 0 < units(costs["documents read"], of="Firestore") <= 5
    assert 0 < units(costs["documents written"], of="Firestore") <= 2


@pytest.mark.usefixtures("dynamodb_local_url", "firestore_url")  # they skip where an engine is missing
def test_the_demo_starts_both_engines_and_ends_them() -> None:
    status, output, errors = run()
    assert (status, errors) == (0, "")
    assert_equal_everywhere(output, "DynamoDB Local", "Firestore emulator")
    assert len(ports(output)) == 2
    assert not any(listening(port) for port in ports(output))


@pytest.mark.usefixtures("moto_url")
def test_without_java_and_gcloud_the_demo_runs_on_moto_and_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    status, output, errors = run()
    assert (status, errors) == (0, "")
    assert "no DynamoDB Local: DynamoDB Local needs Java (`java`). Install a Java runtime" in output
    assert "no Firestore emulator: the Firestore emulator needs the Google Cloud CLI (`gcloud`). Install it" in output
    assert_equal_everywhere(output, "moto", "SQLite for Firestore")


def test_without_any_engine_the_demo_runs_on_two_sqlite_files_and_removes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "moto", None)
    status, output, errors = run()
    assert (status, errors) == (0, "")
    assert 'no moto: moto needs the Python package moto[server]. Run `pip install "moto[server]"`' in output
    assert_equal_everywhere(output, "SQLite for DynamoDB", "SQLite for Firestore")
    files = re.findall(r"a SQLite file, (.+)", output)
    assert len(files) == 2
    assert not any(Path(file).parent.exists() for file in files)


def _heed_interrupts() -> None:
    # A shell lets what it runs in the background ignore them, and all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.usefixtures("moto_url")
@pytest.mark.parametrize("moment", ["starting moto", "moto runs", "replaying"])
def test_an_interrupted_demo_ends_its_engines_and_exits_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setenv("PATH", "")
    data = tmp_path / "many.jsonl"
    recorded = json.loads(recorded_conversations().read_text().splitlines()[0])
    many = (json.dumps({**recorded, "conversation_id": f"c-{number}"}) for number in range(2_000))
    data.write_text("\n".join(many))
    command = [sys.executable, "-m", "agno_clouddb.cli.main", "demo", "--data", str(data)]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_heed_interrupts
    )
    watchdog = threading.Timer(_HANG, program.kill)
    watchdog.start()
    with program:
        assert program.stdout is not None
        output = ""
        while moment not in output:
            line = program.stdout.readline()
            assert line, output
            output += line
        program.send_signal(signal.SIGINT)
        output += program.stdout.read()
    watchdog.cancel()
    assert program.returncode == 130, output
    assert output.endswith("interrupted\n")
    assert "Traceback" not in output
    assert not any(listening(port) for port in ports(output))
