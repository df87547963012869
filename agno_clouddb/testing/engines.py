"""The clouds' engines for tests and trials: each a context manager that starts one and yields its URL for ``connect``.

    with dynamodb_local() as url:
        ...  # dynamodb://us-east-1?endpoint_url=http://127.0.0.1:40123

They listen on a free port of loopback (DynamoDB Local, which has no option for it, on all interfaces) and end with the
block, and so do all their child processes, in whatever way the program ends. Every start is an empty engine, unless it
is given a folder.

``dynamodb_local_engine`` and ``firestore_emulator_engine`` yield an Engine, which can be stopped, killed and started
again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agno_clouddb.errors import CloudDBError
from agno_clouddb.testing.process import HOST, EngineFailed, Server, serving, supervised

__all__ = [
    "Engine",
    "EngineFailed",
    "EngineUnavailable",
    "available",
    "cache_folder",
    "dynamodb_local",
    "dynamodb_local_engine",
    "firestore_emulator",
    "firestore_emulator_engine",
    "moto",
]

_REGION = "us-east-1"
_PROJECT = "test-project"
_PACKAGE = "amplify-dynamodb-simulator"  # AWS's own package of the DynamoDB Local jar
_PACKAGE_VERSION = "2.9.30"
_PACKAGE_SHA256 = "3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9"
_FETCH = 600.0  # seconds for 56 MB
_START = 120.0  # seconds; an idle machine needs under 10


class EngineUnavailable(CloudDBError):
    """An engine cannot be started on this machine for want of a program or package; says which and how to get it."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that runs.

    Args:
        url: for ``connect``; stays the same when it is started again.
        server: its process, with ``pause``, ``resume``, ``kill`` and ``start``; all of them block.
    """

    url: str
    server: Server


def available() -> dict[str, EngineUnavailable | None]:
    """What can be started here, by the name of the function that starts it: None, or what is missing.

    Only programs and packages are looked for; nothing is started, downloaded or run.
    """
    missing: dict[str, EngineUnavailable | None] = {}
    for name, check in (
        ("moto", _moto_missing),
        ("dynamodb_local", _dynamodb_local_missing),
        ("firestore_emulator", _firestore_missing),
    ):
        missing[name] = check()
    return missing


@contextmanager
def moto() -> Iterator[str]:
    """moto's DynamoDB, quick to start; it does not enforce DynamoDB's limits and reports no real capacity.

    Yields:
        ``dynamodb://us-east-1?endpoint_url=http://127.0.0.1:PORT``

    Raises:
        EngineUnavailable: ``moto[server]`` is not installed.
        EngineFailed: it did not start.
    """
    _require(_moto_missing())
    command = [sys.executable, "-m", "agno_clouddb.testing.moto_server", HOST]
    with serving("moto", lambda port: [*command, str(port)], within=_START) as port:
        yield _dynamodb_url(port)


@contextmanager
def dynamodb_local() -> Iterator[str]:
    """DynamoDB Local, AWS's own engine, in memory: enforces key, name and size rules and reports consumed capacity.

    The first start fetches it (56 MB) into ``cache_folder()`` with npm; Java runs it.

    It adds an index to a table that exists within a second or two while it holds few tables, and in minutes when it
    holds a hundred: ten threads share that work and the removal of expired items, for which each table takes one of
    them 10 seconds for each 20 items.

    Yields:
        ``dynamodb://us-east-1?endpoint_url=http://127.0.0.1:PORT``

    Raises:
        EngineUnavailable: Java is missing, or npm when it is to be fetched, or it could not be fetched.
        EngineFailed: it did not start.
    """
    with dynamodb_local_engine() as engine:
        yield engine.url


@contextmanager
def dynamodb_local_engine(folder: Path | None = None) -> Iterator[Engine]:
    """DynamoDB Local as an Engine; raises what ``dynamodb_local`` raises.

    Args:
        folder: keeps its data there, in a SQLite file, over ends and starts; None: in memory.
    """
    _require(_dynamodb_local_missing())
    program = _fetched() or _fetch()
    java = ["java", "-Djava.library.path=DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar"]
    data = ["-inMemory"] if folder is None else ["-sharedDb", "-dbPath", str(folder.resolve())]
    command = [*java, *data, "-disableTelemetry", "-port"]
    with supervised("DynamoDB Local", lambda port: [*command, str(port)], within=_START, cwd=program) as server:
        yield Engine(_dynamodb_url(server.port), server)


@contextmanager
def firestore_emulator() -> Iterator[str]:
    """Google's Firestore emulator, started by gcloud.

    It answers queries without composite indexes and refuses messages over 4 MiB.

    Yields:
        ``firestore://test-project?emulator_host=127.0.0.1:PORT``

    Raises:
        EngineUnavailable: gcloud, its emulator component or Java is missing.
        EngineFailed: it did not start.
    """
    with firestore_emulator_engine() as engine:
        yield engine.url


@contextmanager
def firestore_emulator_engine() -> Iterator[Engine]:
    """The Firestore emulator as an Engine, which is empty again when it is started again.

    Raises what ``firestore_emulator`` raises.
    """
    _require(_firestore_missing())
    command = ["gcloud", "emulators", "firestore", "start", "--quiet", "--host-port"]
    with (
        # gcloud writes its settings and logs where this says; the user's own stay as they are.
        tempfile.TemporaryDirectory(prefix="agno_clouddb-gcloud-", ignore_cleanup_errors=True) as config,
        supervised(
            "the Firestore emulator",
            lambda port: [*command, f"{HOST}:{port}"],
            within=_START,
            env={"CLOUDSDK_CONFIG": config, "CLOUDSDK_CORE_PROJECT": _PROJECT},
        ) as server,
    ):
        yield Engine(f"firestore://{_PROJECT}?emulator_host={HOST}:{server.port}", server)


def cache_folder() -> Path:
    """Where fetched engines are kept: ``$AGNO_CLOUDDB_CACHE``, else ``agno_clouddb`` in the user's cache folder."""
    if chosen := os.environ.get("AGNO_CLOUDDB_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agno_clouddb"


def _dynamodb_url(port: int) -> str:
    return f"dynamodb://{_REGION}?endpoint_url=http://{HOST}:{port}"


def _require(missing: EngineUnavailable | None) -> None:
    if missing is not None:
        raise missing


def _moto_missing() -> EngineUnavailable | None:
    if importlib.util.find_spec("moto") and importlib.util.find_spec("flask"):
        return None
    return EngineUnavailable("moto needs the Python package moto[server]", remedy='Run `pip install "moto[server]"`')


def _dynamodb_local_missing() -> EngineUnavailable | None:
    if shutil.which("java") is None:
        return EngineUnavailable("DynamoDB Local needs Java (`java`)", remedy="Install a Java runtime, 17 or later")
    if _fetched() is None and shutil.which("npm") is None:
        return EngineUnavailable(
            f"DynamoDB Local is fetched with npm (`npm`) the first time and is not yet in {cache_folder()}",
            remedy="Install Node.js with npm",
        )
    return None


def _firestore_missing() -> EngineUnavailable | None:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return EngineUnavailable(
            "the Firestore emulator needs the Google Cloud CLI (`gcloud`)",
            remedy="Install it with its component cloud-firestore-emulator",
        )
    platform = Path(gcloud).resolve().parent.parent / "platform"
    if platform.is_dir() and not (platform / "cloud-firestore-emulator").is_dir():
        return EngineUnavailable(
            "the Google Cloud CLI has no Firestore emulator yet",
            remedy="Run `gcloud components install cloud-firestore-emulator`, or install that package of the system",
        )
    if shutil.which("java") is None:
        return EngineUnavailable("the Firestore emulator needs Java", remedy="Install a Java runtime, 17 or later")
    return None


def _unpacked() -> Path:
    return cache_folder() / f"{_PACKAGE}-{_PACKAGE_VERSION}"


def _fetched() -> Path | None:
    folder = _unpacked() / "emulator"
    return folder if folder.is_dir() else None


def _fetch() -> Path:
    """Fetch and unpack DynamoDB Local; several programs may do so at once, and the first one's result counts."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as temporary:
        archive = _pack(Path(temporary))
        with tarfile.open(archive) as package:
            # Python 3.11.0 to 3.11.3 have no filters; the archive's digest is known all the same.
            package.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
            package.extractall(temporary)
        try:
            (Path(temporary) / "package").rename(_unpacked())
        except OSError:
            if _fetched() is None:
                raise
    return _unpacked() / "emulator"


def _pack(folder: Path) -> Path:
    command = ["npm", "pack", f"{_PACKAGE}@{_PACKAGE_VERSION}", "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_FETCH)
    except subprocess.TimeoutExpired as error:
        raise EngineUnavailable(f"npm could not fetch {_PACKAGE} in {_FETCH:.0f} seconds") from error
    archive = folder / f"{_PACKAGE}-{_PACKAGE_VERSION}.tgz"
    if done.returncode or not archive.is_file():
        said = (done.stderr or done.stdout).decode(errors="replace")[-1000:].strip()
        raise EngineUnavailable(
            f"npm could not fetch {_PACKAGE} {_PACKAGE_VERSION}: {said or f'status {done.returncode}'}",
            remedy="Check npm's registry and the network",
        )
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _PACKAGE_SHA256:
        raise EngineUnavailable(f"{archive.name} has the SHA-256 {digest}, not the known {_PACKAGE_SHA256}")
    return archive
