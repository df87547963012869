"""The proxy passes bytes on, and fails in each way that a network does."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Self

import pytest

from agno_clouddb.testing import Proxy
from agno_clouddb.testing.process import HOST

_HANG = 20.0  # seconds after which something counts as never happening
_SILENCE = 0.1  # seconds in which a silent connection is listened to


class Echo:
    """A service that answers every line with itself, and remembers what it was asked."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.heard = asyncio.Condition()
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(ConnectionError):  # the proxy has cut it
            while line := await reader.readline():
                async with self.heard:
                    self.lines.append(line)
                    self.heard.notify_all()
                writer.write(line)
                await writer.drain()
        writer.close()

    async def has_heard(self, line: bytes) -> None:
        async with asyncio.timeout(_HANG), self.heard:
            await self.heard.wait_for(lambda: line in self.lines)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    service = Echo()
    service.server = await asyncio.start_server(service.serve, HOST, 0)
    service.port = service.server.sockets[0].getsockname()[1]
    yield service
    service.server.close()
    await service.server.wait_closed()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    before = asyncio.all_tasks()
    async with Proxy(echo.port) as proxy:
        yield proxy
    assert not {task for task in asyncio.all_tasks() - before if "Proxy" in repr(task)}
    gc.collect()  # a socket left open would be a ResourceWarning, and so a failure


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        with suppress(ConnectionError):  # as the test wanted
            await self.writer.wait_closed()

    async def ask(self, line: bytes) -> bytes:
        self.writer.write(line)
        return await within(self.reader.readline())

    async def is_silent(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(1), _SILENCE)
        except TimeoutError:
            return True
        return False


async def client(proxy: Proxy) -> Client:
    return Client(*await asyncio.open_connection(HOST, proxy.port))


async def asked(proxy: Proxy, all_requests: bytes) -> None:
    """Wait until the proxy has read so much."""
    async with asyncio.timeout(_HANG):
        while proxy.request_bytes < len(all_requests):  # noqa: ASYNC110  it tells nobody of each byte
            await asyncio.sleep(0)


async def within(call: Awaitable[bytes]) -> bytes:
    return await asyncio.wait_for(call, _HANG)


async def test_bytes_pass_in_both_directions_and_are_counted(proxy: Proxy) -> None:
    async with await client(proxy) as first, await client(proxy) as second:
        assert await first.ask(b"one\n") == b"one\n"
        assert await second.ask(b"three\n") == b"three\n"
        assert (proxy.connections, proxy.request_bytes) == (2, len(b"one\nthree\n"))


async def test_much_passes_as_it_is(proxy: Proxy) -> None:
    line = b"x" * 60_000 + b"\n"
    async with await client(proxy) as each:
        for _ in range(20):
            assert await each.ask(line) == line


async def test_a_client_that_has_asked_all_gets_the_rest_of_the_answer(proxy: Proxy) -> None:
    async with await client(proxy) as each:
        each.writer.write(b"one\ntwo\n")
        each.writer.write_eof()
        assert await within(each.reader.read()) == b"one\ntwo\n"
    await asyncio.wait_for(proxy.idle(), _HANG)


async def test_a_cut_closes_connections_and_refuses_new_ones_until_healed(proxy: Proxy) -> None:
    async with await client(proxy) as each:
        await each.ask(b"one\n")
        port = proxy.port
        proxy.cut()
        assert await within(each.reader.read()) == b""
        with pytest.raises(ConnectionRefusedError):
            await client(proxy)
        await proxy.heal()
        assert proxy.port == port
    async with await client(proxy) as each:
        assert await each.ask(b"two\n") == b"two\n"


async def test_a_black_hole_takes_requests_and_never_answers(proxy: Proxy, echo: Echo) -> None:
    async with await client(proxy) as old:
        await old.ask(b"one\n")
        proxy.black_hole()
        async with await client(proxy) as new:
            old.writer.write(b"lost\n")
            new.writer.write(b"lost\n")
            assert await old.is_silent()
            assert await new.is_silent()
            assert echo.lines == [b"one\n"]
            await proxy.heal()
            with pytest.raises(ConnectionResetError):
                await within(old.reader.read())
            with pytest.raises(ConnectionResetError):
                await within(new.reader.read())
    async with await client(proxy) as each:
        assert await each.ask(b"two\n") == b"two\n"
    assert echo.lines == [b"one\n", b"two\n"]


async def test_a_black_hole_for_answers_lets_requests_take_effect(proxy: Proxy, echo: Echo) -> None:
    proxy.black_hole(requests=False)
    async with await client(proxy) as each:
        each.writer.write(b"one\n")
        await echo.has_heard(b"one\n")
        assert await each.is_silent()


async def test_a_black_hole_hides_that_the_service_has_closed_the_connection(proxy: Proxy, echo: Echo) -> None:
    async with await client(proxy) as each:
        await each.ask(b"one\n")
        proxy.black_hole()
        echo.writers[0].close()
        assert await each.is_silent()


async def test_a_connection_that_lost_nothing_goes_on_after_a_black_hole(proxy: Proxy) -> None:
    async with await client(proxy) as each:
        await each.ask(b"one\n")
        proxy.black_hole()
        await proxy.heal()
        assert await each.ask(b"two\n") == b"two\n"


async def test_a_delay_holds_an_answer_back_until_it_is_over(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    async with await client(proxy) as each:
        await each.ask(b"one\n")
        proxy.delay(0.05)
        before = loop.time()
        assert await each.ask(b"two\n") == b"two\n"
        assert loop.time() - before >= 0.1


async def test_healing_ends_a_delay_at_once(proxy: Proxy) -> None:
    async with await client(proxy) as each:
        await each.ask(b"one\n")
        proxy.delay(10 * _HANG)
        asking = asyncio.ensure_future(each.ask(b"two\n"))
        await asked(proxy, b"one\ntwo\n")
        await proxy.heal()
        assert await asking == b"two\n"


async def test_a_delayed_request_takes_effect_although_its_client_has_gone(proxy: Proxy, echo: Echo) -> None:
    proxy.delay(10 * _HANG)
    async with await client(proxy) as each:
        each.writer.write(b"late\n")
        await asked(proxy, b"late\n")
    assert echo.lines == []
    await proxy.heal()
    await echo.has_heard(b"late\n")


async def test_a_reset_is_seen_as_one(proxy: Proxy) -> None:
    async with await client(proxy) as each:
        await each.ask(b"one\n")
        proxy.reset()
        with pytest.raises(ConnectionResetError) as caught:
            await within(each.reader.read())
        assert caught.value.errno == errno.ECONNRESET
    async with await client(proxy) as each:
        assert await each.ask(b"two\n") == b"two\n"


async def test_a_reset_in_the_middle_of_an_answer_lets_its_beginning_through(proxy: Proxy, echo: Echo) -> None:
    async with await client(proxy) as other, await client(proxy) as each:
        proxy.reset(after=6)
        assert await other.ask(b"one\n") == b"one\n"
        each.writer.write(b"two\n")
        with pytest.raises(ConnectionResetError):
            await within(each.reader.readexactly(4))
        assert echo.lines == [b"one\n", b"two\n"]
        assert await other.ask(b"three\n") == b"three\n"


async def test_without_a_service_connections_are_reset(echo: Echo, proxy: Proxy) -> None:
    assert echo.server is not None
    echo.server.close()
    async with await client(proxy) as each:
        with pytest.raises(ConnectionResetError):
            await within(each.reader.read())


async def test_leaving_closes_what_is_open(echo: Echo) -> None:
    async with Proxy(echo.port) as proxy:
        each = await client(proxy)
        await each.ask(b"one\n")
        proxy.black_hole()
        silent = await client(proxy)
        silent.writer.write(b"lost\n")
        await asked(proxy, b"one\nlost\n")
    for one in (each, silent):
        async with one:
            assert await within(one.reader.read()) == b""
    with pytest.raises(ConnectionRefusedError):
        await client(proxy)
