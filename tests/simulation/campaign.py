"""Runs any number of schedules in two processes: ``nox -s simulate -- --schedules N --seed S``."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter

from tests.simulation.schedules import drawn
from tests.simulation.shrinking import report
from tests.simulation.simulation import run

_PART = 50  # schedules that a worker runs at a time
_TOLD_EVERY = 10.0  # seconds between lines of progress
_COUNTS = ("operations", "acknowledged", "unknown", "refused", "crashes", "reads")


def part(seeds: range) -> tuple[int, Counter[str], list[tuple[str, int]]]:
    """Run some schedules: how many, what happened in them, and the rules that were broken, with the seeds."""
    counts: Counter[str] = Counter()
    broken: list[tuple[str, int]] = []
    for seed in seeds:
        result = run(drawn(seed))
        counts += result.counts
        if result.violation is not None:
            broken.append((result.violation.rule, seed))
    return len(seeds), counts, broken


def main() -> int:
    """Run the schedules that the command line asks for; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=20_000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first")
    parser.add_argument("--workers", type=int, default=2, help="processes that run them")
    parser.add_argument("--all", action="store_true", help="go on after a rule was broken, and count by rule")
    given = parser.parse_args()
    end = given.seed + given.schedules
    parts = [range(first, min(first + _PART, end)) for first in range(given.seed, end, _PART)]
    began = told = time.monotonic()
    done, counts = 0, Counter[str]()
    broken: dict[str, list[int]] = {}
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        for number, some, violations in pool.imap(part, parts):
            done += number
            counts += some
            for rule, seed in violations:
                broken.setdefault(rule, []).append(seed)
                print(f"{rule}: broken with seed {seed}", flush=True)
            if time.monotonic() - told >= _TOLD_EVERY or done == given.schedules:
                told = time.monotonic()
                print(f"{done:,} of {given.schedules:,} schedules, {told - began:.0f} s", flush=True)
            if broken and not given.all:
                break
    totals = ", ".join(f"{counts[name]:,} {name}" for name in _COUNTS)
    print(f"{done:,} schedules, {totals}, {time.monotonic() - began:.1f} seconds")
    for rule, seeds in sorted(broken.items()):
        print(f"{rule}: broken in {len(seeds)} schedules: {', '.join(map(str, seeds[:10]))}")
    if broken:
        seed = min(seed for seeds in broken.values() for seed in seeds)
        print(report(drawn(seed), run(drawn(seed))))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
