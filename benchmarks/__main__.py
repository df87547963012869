"""The benchmarks: ``python -m benchmarks [PART …] [--full] [--conversations FILE]``; see README.md beside this file."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path

from benchmarks import results
from benchmarks.options import SHIPPED, Options

_MODULES = {part: part for part in results.PARTS} | {"import": "imports"}


def main() -> int:
    """Run the parts that are asked for, keep their results, and write the document anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the library beside its rivals.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(results.PARTS)}; or render alone")
    parser.add_argument("--full", action="store_true", help="the whole of every grid, which takes over an hour")
    parser.add_argument("--conversations", type=Path, default=SHIPPED, help="recorded conversations, as JSON lines")
    parser.add_argument("--cells", nargs="+", type=_cell, default=(), help="of throughput, as 64x5: sessions and ms")
    given = parser.parse_args()
    wrong = [part for part in given.parts if part not in (*results.PARTS, "render")]
    if wrong:
        parser.error(f"there is no part {wrong[0]!r}")
    options = Options(full=given.full, conversations=given.conversations, cells=tuple(given.cells))
    try:
        for part in given.parts or _present():
            if part != "render":
                measured = importlib.import_module(f"benchmarks.{_MODULES[part]}").run(options)
                options.say(f"{part}: kept in {results.write(part, options, measured).relative_to(Path.cwd())}")
        for file in importlib.import_module("benchmarks.render").write():
            options.say(f"written: {file.relative_to(Path.cwd())}")
    except KeyboardInterrupt:
        options.say("stopped; what was measured before is kept")
        return 130
    return 0


def _cell(text: str) -> tuple[int, int]:
    sessions, _, latency = text.partition("x")
    return int(sessions), int(latency)


def _present() -> list[str]:
    return [part for part in results.PARTS if importlib.util.find_spec(f"benchmarks.{_MODULES[part]}")]


if __name__ == "__main__":
    sys.exit(main())
