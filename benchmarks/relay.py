"""Relay: a TCP connection to an engine that takes as long as one to a cloud, and counts what clients send.

It is a process of its own, so that what it computes is not charged to the client that is measured, and so that it goes
on while a client blocks its event loop. Every byte is passed on the same time after it came, in order, and however many
follow it: a round trip takes the latency longer, and the bandwidth is unlimited.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from agno_clouddb.testing.process import HOST

__all__ = ["Relay", "relayed"]

_PORT = re.compile(rf"(?<={re.escape(HOST)}:)\d+")
_CLOSE = b""


class Relay:
    """A relay that runs. ``relayed`` starts one. Its methods block for a moment.

    Args:
        url: of the engine, as ``connect`` takes it.
        process: the relay's own.

    Attributes:
        url: of the relay.
        port: where it listens.
    """

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._read())
        self.url = _PORT.sub(str(self.port), url)

    def latency(self, seconds: float) -> None:
        """Let a round trip take so many seconds longer, half of them each way."""
        self._ask(f"latency {seconds / 2}")

    def sent(self) -> int:
        """How many bytes clients have sent so far, headers and all."""
        return int(self._ask("sent"))

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the relay has ended with status {self._process.wait()}")
        return line


@contextmanager
def relayed(url: str) -> Iterator[Relay]:
    """A relay to an engine of this machine; it ends with the block, or with this process.

    Args:
        url: of the engine, as ``connect`` takes it.
    """
    port = _PORT.search(url)
    assert port is not None, url
    command = [sys.executable, "-m", "benchmarks.relay", port[0]]
    # In a session of its own: Ctrl-C ends it by the end of its input, after those who are connected to it.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield Relay(url, process)
        finally:
            process.terminate()


class _Way:
    """One direction of a connection."""

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._target: asyncio.Transport | None = None

    def attach(self, target: asyncio.Transport) -> None:
        self._target = target
        self._pass_on()

    def send(self, data: bytes) -> None:
        loop, delay = asyncio.get_running_loop(), self._service.delay
        self._waiting.append((loop.time() + delay, data))
        if len(self._waiting) == 1:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._target is None:
            return
        loop = asyncio.get_running_loop()
        while self._waiting:
            due, data = self._waiting[0]
            if due > loop.time():
                loop.call_at(due, self._pass_on)
                return
            self._waiting.popleft()
            if data == _CLOSE:
                self._target.close()
            else:
                self._target.write(data)


class _End(asyncio.Protocol):
    """What one end of a connection receives, and sends on its way to the other."""

    def __init__(self, way: _Way, service: _Service, *, client: bool) -> None:
        self._way = way
        self._service = service
        self._client = client

    def data_received(self, data: bytes) -> None:
        if self._client:
            self._service.sent += len(data)
        self._way.send(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._way.send(_CLOSE)


class _Service:
    """The relay's own process."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.delay = 0.0
        self.sent = 0
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the input ends."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._accept, HOST, 0)
        _say(server.sockets[0].getsockname()[1])
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := await commands.readline():
            name, *arguments = line.decode().split()
            if name == "latency":
                self.delay = float(arguments[0])
            _say(self.sent)

    def _accept(self) -> asyncio.Protocol:
        there, back = _Way(self), _Way(self)
        return _Client(there, back, self)

    def connect(self, there: _Way, back: _Way) -> None:
        """Connect to the engine on behalf of a client."""

        async def connect() -> None:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: _End(back, self, client=False), HOST, self.upstream)
            there.attach(transport)

        task = asyncio.create_task(connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)


class _Client(_End):
    def __init__(self, there: _Way, back: _Way, service: _Service) -> None:
        super().__init__(there, service, client=True)
        self._there = there
        self._back = back

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._back.attach(transport)
        self._service.connect(self._there, self._back)


def _say(value: object) -> None:
    os.write(1, f"{json.dumps(value)}\n".encode())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_Service(int(sys.argv[1])).run())
