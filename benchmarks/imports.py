"""What an import and the first opening of a store take, each in a fresh interpreter, in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.options import Options

__all__ = ["LIMIT", "run"]

LIMIT = 80
"""Milliseconds that ``import agno_clouddb`` may take beyond ``import pydantic`` alone."""

_ROUNDS, _ROUNDS_FULL = 15, 40
_SHOWN = 12  # packages

_NAMES = "from agno_clouddb import connect, Session"  # without such a name the package loads next to nothing
_OPEN = """
import asyncio, agno_clouddb

async def main():
    async with agno_clouddb.connect({url!r}):
        pass

asyncio.run(main())
"""
_URLS = {
    "memory": "memory://",
    "SQLite": "sqlite:////tmp/agno_clouddb-never-written.sqlite",
    "DynamoDB": "dynamodb://us-east-1?endpoint_url=http://127.0.0.1:9",
    "Firestore": "firestore://project?emulator_host=127.0.0.1:9",
}
_CODE: Mapping[str, str] = {
    "import pydantic": "import pydantic",
    "from pydantic import BaseModel": "from pydantic import BaseModel",
    "import agno_clouddb": "import agno_clouddb",
    _NAMES: _NAMES,
    **{f"import and open {name}": _OPEN.format(url=url) for name, url in _URLS.items()},
    "import boto3": "import boto3",
    "import google.cloud.firestore": "import google.cloud.firestore",
}
_BEYOND = {"import agno_clouddb": "import pydantic", _NAMES: "from pydantic import BaseModel"}
_TIMED = """
import time
wall, processor = time.perf_counter(), time.process_time()
{code}
print(time.perf_counter() - wall, time.process_time() - processor)
"""


def run(options: Options) -> dict[str, Any]:
    """Measure it all.

    Returns:
        ``times``: by what is run, medians in milliseconds, on the clock and of the processor; ``beyond``: of two of
        them, the median of the differences, round by round; ``by_package``: whose modules take the import's time.
    """
    rounds = _ROUNDS_FULL if options.full else _ROUNDS
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in _CODE}
    with tempfile.TemporaryDirectory() as byte_code:
        for number in range(rounds + 1):
            options.say(f"import: round {number} of {rounds}")
            for name, code in _CODE.items():
                timed = _python(byte_code, "-c", _TIMED.format(code=code))
                wall, processor = map(float, timed.stdout.split())
                if number:  # the first round warms the caches of files and byte code
                    times[name].append((1000 * wall, 1000 * processor))
        log = _python(byte_code, "-X", "importtime", "-c", _NAMES).stderr
    return {
        "rounds": rounds,
        "limit": LIMIT,
        "times": {name: _medians(each) for name, each in times.items()},
        "beyond": {f"{own} beyond {base}": _beyond(times[own], times[base]) for own, base in _BEYOND.items()},
        "by_package": _packages(log),
    }


def _beyond(own: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]]) -> dict[str, float]:
    return _medians([(one[0] - other[0], one[1] - other[1]) for one, other in zip(own, base, strict=True)])


def _medians(measured: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "wall": round(median(each[0] for each in measured), 1),
        "cpu": round(median(each[1] for each in measured), 1),
    }


def _packages(log: str) -> dict[str, float]:
    """What an import has taken by package, in milliseconds, the most first; without what Python always imports."""
    took: Counter[str] = Counter()
    for line in log.splitlines():
        own, _, module = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            took[module.strip().partition(".")[0]] += int(own)
    return {name: round(each / 1000, 1) for name, each in took.most_common(_SHOWN)}


def _python(byte_code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with byte code kept in a folder, as an installed package has it, whatever the environment says."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": byte_code}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment)
