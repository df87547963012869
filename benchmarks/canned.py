"""Servers that give the same answers again and again, in a process of their own: what clients cost without a service.

    async with canned_dynamodb({"GetItem": {"Item": ...}}) as url:
        ...

As a program, it serves what it reads from its input as JSON, on a free port of loopback that it prints, until its
input ends. A request is answered the given number of seconds after it came.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["HOST", "canned_dynamodb", "running"]

HOST = "127.0.0.1"


@asynccontextmanager
async def canned_dynamodb(answers: Mapping[str, Any], delay: float = 0) -> AsyncIterator[str]:
    """A server that speaks HTTP as DynamoDB does; its URL.

    Args:
        answers: by the name of the operation, as the service's JSON; others are answered by an empty object.
        delay: seconds after which it answers.
    """
    async with running("benchmarks.canned", answers, delay) as port:
        yield f"http://{HOST}:{port}"


@asynccontextmanager
async def running(module: str, answers: Mapping[str, Any], delay: float) -> AsyncIterator[int]:
    """A server that runs as a program and is given its answers; its port.

    Args:
        module: of the program.
        answers: what can be JSON.
        delay: seconds after which it answers.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(delay)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
        start_new_session=True,  # Ctrl-C ends it by the end of its input
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(answers).encode() + b"\n")
        await process.stdin.drain()
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


class _DynamoDB(asyncio.Protocol):
    """One connection. Takes requests that have a length and come one after the other, as those of clients do."""

    def __init__(self, answers: Mapping[bytes, bytes], delay: float) -> None:
        self._answers = answers
        self._delay = delay
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            whole = end + 4 + int(_header(head, b"content-length") or 0)
            if len(self._received) < whole:
                return
            self._received = self._received[whole:]
            operation = _header(head, b"x-amz-target").rpartition(b".")[2]
            response = self._answers.get(operation, _EMPTY)
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._transport.write, response)
            else:
                self._transport.write(response)


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


def _response(body: bytes) -> bytes:
    head = (
        "HTTP/1.1 200 OK\r\nServer: Server\r\nDate: Sat, 01 Nov 2025 00:00:00 GMT\r\n"
        f"Content-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\nConnection: keep-alive\r\n"
        f"x-amzn-RequestId: {'A' * 52}\r\nx-amz-crc32: {zlib.crc32(body)}\r\n\r\n"
    )
    return head.encode() + body


_EMPTY = _response(b"{}")


async def _serve(delay: float) -> None:
    loop = asyncio.get_running_loop()
    answers = json.loads(await asyncio.to_thread(sys.stdin.readline))
    responses = {
        name.lower().encode(): _response(json.dumps(answer, separators=(",", ":")).encode())
        for name, answer in answers.items()
    }
    server = await loop.create_server(lambda: _DynamoDB(responses, delay), HOST, 0)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
