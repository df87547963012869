"""Server processes on loopback: started on a free port, waited for, and ended with all their children."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from agno_clouddb.errors import CloudDBError

__all__ = ["HOST", "EngineFailed", "Server", "free_port", "serving", "supervised"]

HOST = "127.0.0.1"

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_PORTS = (20_000, 32_000)
_TAKEN = "already in use"  # what every engine's log says of a port
_ATTEMPTS = 3  # ports that are tried when another program is quicker to take one
_POLL = 0.05  # seconds between two looks at a server that starts
_STOP = 15.0  # seconds; the supervisor itself gives up after 10
_TAIL = 4000  # bytes of the log that an error shows


class EngineFailed(CloudDBError):
    """An engine ended while it started, or did not answer in time; the message carries the end of its log."""


def free_port() -> int:
    """A port that nothing listens on, outside of the range from which systems give ports to whoever asks for any."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


@contextmanager
def serving(
    name: str,
    command: Callable[[int], Sequence[str]],
    *,
    within: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a server that speaks HTTP and yield its port once it answers; it ends with the block or this process.

    Args:
        name: what the server is called in errors.
        command: the command line for a port.
        within: seconds from the start to the first answer.
        cwd: the folder to run it in.
        env: environment variables to add.

    Raises:
        EngineFailed: it ended before it answered, or did not answer in time.
    """
    with supervised(name, command, within=within, cwd=cwd, env=env) as server:
        yield server.port


@contextmanager
def supervised(
    name: str,
    command: Callable[[int], Sequence[str]],
    *,
    within: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """The same with the server itself, which can be stopped, killed and started again; see ``serving``."""
    server = Server(name, command, within, cwd, env)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Server:
    """A server process with all its children. ``supervised`` makes one.

    Args:
        name, command, within, cwd, env: as for ``serving``.

    Attributes:
        port: where it listens; stays the same when it is started again.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        within: float,
        cwd: Path | None,
        env: Mapping[str, str] | None,
    ) -> None:
        self.port = 0
        self._name = name
        self._command = command
        self._within = within
        self._cwd = cwd
        self._env = env
        self._run: _Run | None = None

    def start(self) -> None:
        """Start it, at first on a port that is free and then on the same again, and wait until it answers.

        Raises:
            EngineFailed: it ended before it answered, or did not answer in time.
        """
        deadline = time.monotonic() + self._within
        attempts = 1 if self.port else _ATTEMPTS
        for attempt in range(1, attempts + 1):
            port = self.port or free_port()
            run = _Run(self._command(port), port, self._cwd, self._env)
            try:
                problem = run.wait(deadline)
            except BaseException:
                run.stop()
                raise
            if not problem:
                self.port, self._run = port, run
                return
            log = run.stop()
            if _TAKEN not in log or attempt == attempts:
                break
        raise EngineFailed(f"{self._name} {problem}; the end of its log:\n{log}")

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP): the system goes on accepting its connections, and nothing answers them."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and all its children (SIGKILL), and wait until they are gone."""
        self._signal(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it in order; harmless when it is not running."""
        if self._run is not None:
            self._run.stop()
            self._run = None

    def _signal(self, signum: signal.Signals) -> None:
        if self._run is None:
            raise EngineFailed(f"{self._name} is not running")
        self._run.send(signum, self._name)


class _Run:
    def __init__(self, command: Sequence[str], port: int, cwd: Path | None, env: Mapping[str, str] | None) -> None:
        self.port = port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SUPERVISOR), *command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,  # Ctrl-C in a terminal is for the test run, which then ends this
        )

    def wait(self, deadline: float) -> str:
        """Wait until the server answers; says what went wrong, or nothing."""
        while not _answers(self.port):
            if problem := self._problem():
                return problem
            if time.monotonic() > deadline:
                return "did not answer in time"
            time.sleep(_POLL)
        # Another program may have taken the port and be the one that answered.
        return self._problem()

    def _problem(self) -> str:
        status = self._process.poll()
        if status is not None:
            return f"ended with status {status} before it answered"
        # DynamoDB Local goes on running when it cannot have its port.
        return f"found port {self.port} taken" if _TAKEN in self._tail() else ""

    def _tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        # The server shares the file's position, so that a seek would make it write elsewhere.
        return os.pread(self._log.fileno(), _TAIL, max(0, size - _TAIL)).decode(errors="replace")

    def send(self, signum: signal.Signals, name: str) -> None:
        """Send a signal to the server, which errors call ``name``, and to all its children."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(bytes([signum]))
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise EngineFailed(f"{name} has ended by itself; the end of its log:\n{self._tail()}") from error

    def stop(self) -> str:
        """End the server and all its children; returns the end of its log."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_STOP)
        tail = self._tail()
        self._log.close()
        return tail


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
