"""Outages of two clouds behind proxies, one after the other, from a seed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from agno_clouddb import Session, connect
from agno_clouddb.testing import Proxy
from tests.outages.comparison import SHARED, port_of, through

__all__ = ["Outages", "behind_proxies", "provisioned"]

_ANSWER = 2_000  # bytes within which a connection is reset in the middle of an answer


class Outages:
    """Lets one cloud fail, or sometimes both.

    Args:
        proxies: what the clouds are reached through.
        seed: decides what happens.
        deadline: seconds within which a call ends; some slow clouds are slower.
        both: how many of the outages are of both clouds, from 0 to 1.
    """

    def __init__(self, proxies: Sequence[Proxy], seed: int, deadline: float, *, both: float = 0.15) -> None:
        self.history: list[str] = []
        self._proxies = proxies
        self._draw = random.Random(seed)
        self._deadline = deadline
        self._both = both

    def number(self, least: int, most: int) -> int:
        """A number of the same seed, such as of the writes in an outage."""
        return self._draw.randint(least, most)

    def begin(self) -> None:
        """Something fails now."""
        down = self._proxies if self._draw.random() < self._both else [self._draw.choice(self._proxies)]
        for proxy in down:
            name, fault = self._fault(proxy)
            self.history.append(f"{'both' if len(down) > 1 else self._proxies.index(proxy)}: {name}")
            fault()

    async def end(self) -> None:
        """Nothing fails any more."""
        self.history.append("healed")
        for proxy in self._proxies:
            await proxy.heal()

    def _fault(self, proxy: Proxy) -> tuple[str, Callable[[], None]]:
        seconds = self._draw.uniform(0.05, 1.5 * self._deadline)
        after = self._draw.randrange(1, _ANSWER)
        faults: list[tuple[str, Callable[[], None]]] = [
            ("cut", proxy.cut),
            ("silent", proxy.black_hole),
            ("answers lost", lambda: proxy.black_hole(requests=False)),
            (f"slower by {seconds:.2f} s each way", lambda: proxy.delay(seconds)),
            ("reset", proxy.reset),
            (f"reset in the middle of an answer, after {after} bytes", lambda: proxy.reset(after=after)),
        ]
        return self._draw.choice(faults)


@asynccontextmanager
async def behind_proxies(urls: Sequence[str]) -> AsyncIterator[tuple[list[Proxy], list[str]]]:
    """A proxy in front of each engine, and the URLs through them."""
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(port_of(url))) for url in urls]
        yield proxies, [through(url, proxy.port) for url, proxy in zip(urls, proxies, strict=True)]


async def provisioned(urls: Sequence[str]) -> None:
    """Make the tables on both engines, and the session that all writers change.

    The first reconciliation of these stores, which always compares everything, is done with here.
    """
    async with connect(*urls) as db:
        await db.provision()
        await db.reconcile()
        await db.sessions.upsert(Session(session_id=SHARED.id, session_data={"markers": []}))
