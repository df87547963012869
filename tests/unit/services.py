"""A service of HTTP that plays a script, to see what clients send and how they take what answers."""

from __future__ import annotations

import asyncio
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CUT", "SILENCE", "Received", "Service", "answer", "serving"]

CUT = b""
"""Instead of an answer: end the connection."""

SILENCE = None
"""Instead of an answer: nothing."""

Reply = bytes | None


@dataclass(frozen=True, slots=True)
class Received:
    """A request.

    Args:
        line: its first line.
        headers: by name in lower case.
        body: what followed.
        connection: the number of its connection, from 0.
    """

    line: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Service:
    """What has arrived, and what is still to be answered.

    Args:
        script: the answers in order; the last one is given again and again.
    """

    script: list[Reply]
    url: str = ""
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.split(": ", 1) for line in head[1:] if line)
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.received.append(Received(head[0], headers, body, number))
                reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                if reply is SILENCE:
                    await reader.read()
                    return
                writer.write(reply)
                await writer.drain()
                if not reply or b"Connection: close" in reply:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


def answer(body: Any = None, status: int = 200, *, headers: Mapping[str, str] | None = None, missing: int = 0) -> bytes:
    """An answer as DynamoDB gives it.

    Args:
        body: JSON, or bytes as they are.
        status: of HTTP.
        headers: more of them, or others than usual; an empty one is left out.
        missing: how many bytes less are sent than promised, after which the connection ends.
    """
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    usual = {
        "Content-Type": "application/x-amz-json-1.0",
        "Content-Length": str(len(content)),
        "x-amzn-RequestId": "R" * 52,
        "x-amz-crc32": str(zlib.crc32(content)),
        **({"Connection": "close"} if missing else {}),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in usual.items() if value)
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + content[: len(content) - missing]


@asynccontextmanager
async def serving(*script: Reply, context: ssl.SSLContext | None = None) -> AsyncIterator[Service]:
    """A service on loopback that plays a script; over TLS where a context is given."""
    service = Service(list(script) or [answer()])
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    service.url = f"{'https' if context is not None else 'http'}://127.0.0.1:{port}"
    try:
        yield service
    finally:
        server.close()
        for writer in service.writers:
            writer.close()
        await server.wait_closed()
