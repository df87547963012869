"""The stores that the demo runs on: engines started on this machine, and SQLite in place of those that are missing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from agno_clouddb.concurrency import gather, uninterrupted
from agno_clouddb.testing.engines import EngineFailed, EngineUnavailable, dynamodb_local, firestore_emulator, moto

__all__ = ["Backend", "started"]


@dataclass(frozen=True, slots=True)
class Backend:
    """A store of the demo.

    Args:
        label: what it is called in the output.
        url: what ``connect`` takes.
    """

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class _Engine:
    label: str
    start: Callable[[], AbstractContextManager[str]]
    parameters: str = ""
    note: str = ""


# By cloud: what it runs on, the best first.
_CLOUDS = {
    "DynamoDB": (
        _Engine("DynamoDB Local", dynamodb_local, "&report_capacity=true", " (its first start fetches 56 MB)"),
        _Engine("moto", moto),
    ),
    "Firestore": (_Engine("Firestore emulator", firestore_emulator),),
}


@asynccontextmanager
async def started(say: Callable[[str], None]) -> AsyncIterator[list[Backend]]:
    """Start an engine for each cloud, both at once, and end them with the block, and when cancelled before it.

    An engine that is missing or does not start is named, and the next best is taken; the last resort, which is always
    there, is a SQLite file in a temporary folder.

    Args:
        say: is called with one line of text for everything that happens, from several threads.
    """
    with ExitStack() as engines:
        folder = Path(engines.enter_context(tempfile.TemporaryDirectory(prefix="agno_clouddb-demo-")))
        starts = [partial(asyncio.to_thread, _start, engines, folder, say, cloud) for cloud in _CLOUDS]
        # Whatever has begun to start is waited for, else nobody would end it.
        yield await uninterrupted(partial(gather, starts))


def _start(engines: ExitStack, folder: Path, say: Callable[[str], None], cloud: str) -> Backend:
    for engine in _CLOUDS[cloud]:
        say(f"starting {engine.label}{engine.note} …")
        try:
            url = engines.enter_context(engine.start())
        except (EngineUnavailable, EngineFailed) as error:
            say(f"no {engine.label}: {error}")
        else:
            say(f"{engine.label} runs: {url}")
            return Backend(engine.label, url + engine.parameters)
    path = folder / f"{cloud.lower()}.sqlite"
    say(f"in place of {cloud}: a SQLite file, {path}")
    return Backend(f"SQLite for {cloud}", f"sqlite:///{quote(path.as_posix())}")
