"""Proxy: a TCP connection to a service that fails on purpose: cut, silent, slow, or reset in the middle of an answer.

    async with Proxy(8000) as proxy:
        async with connect(f"dynamodb://us-east-1?endpoint_url=http://127.0.0.1:{proxy.port}") as db:
            proxy.cut()
            ...
            await proxy.heal()

Where a FaultyStore fails the calls of a store, this fails what is below it: the service's own client, with its pool of
connections, its timeouts and its retries, meets what a network does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from functools import partial
from typing import Self

from agno_clouddb.testing.process import HOST, free_port

__all__ = ["Proxy"]

_CHUNK = 65_536  # bytes that are passed on at once
_NO_LINGER = struct.pack("ii", 1, 0)  # closing then sends RST in place of FIN


class Proxy:
    """Passes connections to a port of this machine on to another one, and fails as it is told.

    Faults add up until ``heal``. Belongs to the event loop that entered it, and leaves no task or socket behind.

    Args:
        upstream: the port of the service, on 127.0.0.1.

    Attributes:
        port: where to connect to, on 127.0.0.1; stays the same through cuts.
        request_bytes: how many bytes clients have sent; may be set to 0 at any time.
        connections: how many connections were accepted; may be set to 0 at any time.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.request_bytes = 0
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._healed = asyncio.Event()
        self._moved = asyncio.Event()
        self._lost: frozenset[str] = frozenset()
        self._delay = 0.0
        self._until_reset: int | None = None

    async def __aenter__(self) -> Self:
        self.port = free_port()
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._healed.set()
        if self._links:
            await asyncio.wait(self._links.values())

    def cut(self) -> None:
        """Close all connections, with what is under way on them, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._close_all()

    def black_hole(self, *, requests: bool = True) -> None:
        """Accept connections and read from them, and never answer; those that are open fall silent.

        Args:
            requests: False to lose the answers alone, so that what is asked for still happens.
        """
        self._lost = frozenset({"requests", "answers"} if requests else {"answers"})

    def delay(self, seconds: float) -> None:
        """Pass everything on later by this many seconds, in both directions.

        A request is passed on even when its client has given it up meanwhile, as on a slow network.
        """
        self._delay = seconds

    def reset(self, after: int = 0) -> None:
        """Reset connections (RST): all that are open, or one in the middle of an answer.

        Args:
            after: 0 for all at once; else the one that carries this byte of the answers, counted from now, when it has
                passed on what is before it.
        """
        if after:
            self._until_reset = after
        else:
            self._close_all(reset=True)

    async def heal(self) -> None:
        """End every fault. What was delayed goes on at once; connections that have lost bytes are reset."""
        self._lost, self._delay, self._until_reset = frozenset(), 0.0, None
        for link in self._links:
            if link.has_lost:
                link.close(reset=True)
        self._healed.set()
        self._healed = asyncio.Event()
        if self._server is None:
            await self._listen()

    async def idle(self) -> None:
        """Wait until all that was sent is passed on, and what clients have closed is closed by the service too.

        When all clients are closed, nothing that they have asked for, be it given up, can take effect after this.
        """
        while any(link.is_busy for link in self._links):
            self._moved.clear()
            await self._moved.wait()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()  # it was cut before it was taken
            return
        self.connections += 1
        link = _Link(writer)
        task = asyncio.create_task(self._serve(link, reader))
        self._links[link] = task
        task.add_done_callback(partial(self._forget, link))

    def _forget(self, link: _Link, task: asyncio.Task[None]) -> None:
        del self._links[link]
        self._moved.set()
        if not task.cancelled():
            task.result()  # what nobody expects is reported by the event loop

    async def _serve(self, link: _Link, client: asyncio.StreamReader) -> None:
        try:
            try:
                service, to_service = await asyncio.open_connection(HOST, self.upstream)
            except OSError:
                link.close(reset=True)  # there is no service; the client sees that as soon as it asks
                return
            if not link.attach(to_service):
                return
            await asyncio.gather(
                self._pump(link, "requests", client, to_service),
                self._pump(link, "answers", service, link.writers[0]),
            )
        finally:
            link.close()
            await link.closed()

    async def _pump(
        self, link: _Link, direction: str, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(_CHUNK):
                if direction == "requests":
                    self.request_bytes += len(data)
                link.under_way.add(direction)
                await self._wait(self._delay)
                if direction in self._lost:
                    link.has_lost = True
                elif direction == "answers" and self._resets_within(data):
                    target.write(data[: self._until_reset])
                    self._until_reset = None
                    link.close(reset=True)
                else:
                    target.write(data)
                    await target.drain()
                link.under_way.discard(direction)
                self._moved.set()
            link.under_way.add("end")
            await self._wait(self._delay)
            if direction == "answers" and direction in self._lost:
                # The client must not see that the service has closed the connection.
                link.has_lost = True
                await self._wait(None)
            if target.can_write_eof():
                target.write_eof()
        except OSError:
            link.close()  # one side has gone: so does the other

    def _resets_within(self, data: bytes) -> bool:
        if self._until_reset is None:
            return False
        if self._until_reset <= len(data):
            return True
        self._until_reset -= len(data)
        return False

    async def _wait(self, seconds: float | None) -> None:
        """Wait so long, or until healed; None: until healed."""
        if seconds == 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._healed.wait()
        except TimeoutError:
            return

    def _close_all(self, *, reset: bool = False) -> None:
        for link in self._links:
            link.close(reset=reset)


class _Link:
    """A client's connection and, once it is made, the one to the service."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.has_lost = False
        self.under_way: set[str] = set()
        self._closed = False

    @property
    def is_busy(self) -> bool:
        """Whether bytes wait to be passed on, or one side has closed its connection and the other has not yet."""
        return bool(self.under_way)

    def attach(self, service: asyncio.StreamWriter) -> bool:
        """Take the connection to the service; False, with it closed, when the client's is closed already."""
        self.writers.append(service)
        if self._closed:
            service.transport.abort()
        return not self._closed

    def close(self, *, reset: bool = False) -> None:
        """Close both connections with what is under way on them; ``reset``: the client sees RST."""
        self._closed = True
        connection = self.writers[0].get_extra_info("socket")
        if reset and not self.writers[0].transport.is_closing():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        for writer in self.writers:
            writer.transport.abort()

    async def closed(self) -> None:
        for writer in self.writers:
            try:
                await writer.wait_closed()
            except OSError:
                continue  # it was closed by the other side's reset
