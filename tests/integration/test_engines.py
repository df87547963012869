"""Engines start on a free port, tell what is missing, and leave no process behind however the test run ends."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from agno_clouddb.testing import engines, process
from agno_clouddb.testing.engines import (
    EngineFailed,
    EngineUnavailable,
    available,
    dynamodb_local,
    firestore_emulator,
    moto,
)
from agno_clouddb.testing.process import HOST, serving

_HANG = 60.0  # seconds after which a condition counts as never met
_CONFTEST = Path(__file__).parent.parent / "conftest.py"


def port_of(url: str) -> int:
    query = parse_qs(urlsplit(url).query)
    (address,) = query.get("endpoint_url") or query["emulator_host"]
    return int(address.rpartition(":")[2])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def command_lines() -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(each.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has just ended
    return found


def processes_with(port: int) -> list[str]:
    return [each for each in command_lines() if re.search(rf"\b{port}\b", each)]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _HANG
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {_HANG} seconds: {what}")
        time.sleep(0.02)


@pytest.fixture(params=["moto_url", "dynamodb_local_url", "firestore_url"])
def engine_fixture(request: pytest.FixtureRequest) -> str:
    """The name of an engine's fixture, for a test run of its own."""
    request.getfixturevalue(request.param)  # skips, or fails in CI, where the engine is missing
    name: str = request.param
    return name


@pytest.fixture
def test_run(tmp_path: Path, engine_fixture: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A pytest of its own, in the middle of a test that uses the engine, and the engine's port."""
    shutil.copy(_CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "test_hanging.py").write_text(
        f"import sys, time\n"
        f"def test_hanging({engine_fixture}):\n"
        f"    print({engine_fixture}, flush=True)\n"
        f"    sys.stdin.read()\n"
    )
    run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            "-s",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stdout is not None
        url = next((line.strip() for line in run.stdout if "://" in line), None)
        assert url is not None, "the test run ended before its test had the engine's URL"
        yield run, port_of(url)
    finally:
        run.kill()
        run.communicate()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_no_process_of_the_engine_outlives_a_killed_test_run(
    test_run: tuple[subprocess.Popen[str], int], signum: signal.Signals
) -> None:
    run, port = test_run
    assert listening(port)
    run.send_signal(signum)
    run.communicate(timeout=_HANG)
    wait_until(lambda: not listening(port), f"port {port} is free")
    if Path("/proc").is_dir():
        wait_until(lambda: not processes_with(port), f"all processes of port {port} are gone")


def test_an_exception_in_the_block_ends_the_engine() -> None:
    ports = []

    def fail_within_the_block() -> None:
        with moto() as url:
            ports.append(port_of(url))
            assert listening(ports[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_within_the_block()
    assert not listening(ports[0])


def test_two_engines_of_a_kind_run_side_by_side() -> None:
    with moto() as first, moto() as second:
        assert listening(port_of(first))
        assert listening(port_of(second))
        assert first != second


def test_a_server_that_ends_early_shows_its_log() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such colour')"]
    with (
        pytest.raises(EngineFailed, match=r"(?s)ended with status 1 before.*no such colour"),
        serving("paint", lambda port: command, within=_HANG),
    ):
        pytest.fail("the block must not run")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
def test_a_server_that_never_answers_is_ended() -> None:
    ports = []

    def sleeper(port: int) -> list[str]:
        ports.append(port)
        return [sys.executable, "-c", "import time; time.sleep(600)", str(port)]

    with pytest.raises(EngineFailed, match="did not answer in time"), serving("sleeper", sleeper, within=2):
        pytest.fail("the block must not run")
    (port,) = ports
    assert processes_with(port) == []


def test_a_server_that_ignores_the_end_is_killed() -> None:
    code = (
        "import http.server, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()\n"
    )
    with serving("stubborn", lambda port: [sys.executable, "-c", code, str(port)], within=_HANG) as port:
        assert listening(port)
    assert not listening(port)


@pytest.mark.parametrize("engine", [moto, dynamodb_local, firestore_emulator], ids=lambda each: each.__name__)
def test_another_port_is_tried_when_somebody_takes_the_first(
    engine: Callable[[], AbstractContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := available()[engine.__name__]:
        pytest.skip(str(missing))
    with socket.socket() as other:
        other.bind((HOST, 0))
        taken = other.getsockname()[1]
        ports, free = iter([taken]), process.free_port
        monkeypatch.setattr(process, "free_port", lambda: next(ports, None) or free())
        with engine() as url:
            assert port_of(url) != taken
            assert listening(port_of(url))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AGNO_CLOUDDB_CACHE", str(tmp_path))
    missing = available()
    assert missing["moto"] is None
    assert "`java`" in str(missing["dynamodb_local"])
    assert "`gcloud`" in str(missing["firestore_emulator"])
    (tmp_path / "java").touch(mode=0o755)
    assert "`npm`" in str(available()["dynamodb_local"])
    with pytest.raises(EngineUnavailable, match="Node"), dynamodb_local():
        pytest.fail("the block must not run")


class TestFetching:
    """DynamoDB Local's package is fetched once, whole or not at all."""

    @pytest.fixture
    def npm(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """A folder with an npm that delivers a small archive, and the cache beside it; returns the cache."""
        binaries, cache, package = tmp_path / "bin", tmp_path / "cache", tmp_path / "package"
        (package / "emulator").mkdir(parents=True)
        (package / "emulator" / "DynamoDBLocal.jar").write_text("jar")
        archive = tmp_path / "archive.tgz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(package, "package")
        binaries.mkdir()
        script = binaries / "npm"
        script.write_text(f"#!/bin/sh\ncp {archive} amplify-dynamodb-simulator-2.9.30.tgz\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("AGNO_CLOUDDB_CACHE", str(cache))
        return cache

    def test_several_at_once_get_the_same_folder(self, npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engines, "_PACKAGE_SHA256", _sha256(npm.parent / "archive.tgz"))
        with ThreadPoolExecutor(8) as pool:
            folders = {future.result() for future in [pool.submit(engines._fetch) for _ in range(8)]}
        (folder,) = folders
        assert (folder / "DynamoDBLocal.jar").read_text() == "jar"
        assert [each.name for each in npm.iterdir()] == ["amplify-dynamodb-simulator-2.9.30"]

    def test_a_changed_archive_is_refused(self, npm: Path) -> None:
        with pytest.raises(EngineUnavailable, match="SHA-256"):
            engines._fetch()
        assert list(npm.iterdir()) == []

    def test_a_failing_npm_is_quoted(self, npm: Path) -> None:
        (npm.parent / "bin" / "npm").write_text("#!/bin/sh\necho no route to the registry >&2\nexit 7\n")
        with pytest.raises(EngineUnavailable, match="no route to the registry"):
            engines._fetch()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
