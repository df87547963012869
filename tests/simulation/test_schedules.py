"""Random schedules of many writers, failing stores, dying processes and wrong clocks, held against the rules.

``nox -s simulate -- --schedules N --seed S`` runs any number of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.schedules import drawn
from tests.simulation.shrinking import report
from tests.simulation.simulation import run

_DIGESTS = """
from tests.simulation.schedules import drawn
from tests.simulation.simulation import run
print(*(run(drawn(seed)).digest for seed in range({first}, {end})))
"""
_FIRST, _END = 7_000, 7_040


@pytest.mark.memory
def test_every_rule_holds_in_every_schedule(simulation_seeds: range) -> None:
    for seed in simulation_seeds:
        schedule = drawn(seed)
        result = run(schedule)
        if result.violation is not None:
            pytest.fail(report(schedule, result), pytrace=False)


@pytest.mark.memory
def test_a_seed_gives_the_same_history_in_every_process() -> None:
    here = [run(drawn(seed)).digest for seed in range(_FIRST, _END)]
    assert [run(drawn(seed)).digest for seed in range(_FIRST, _END)] == here
    assert len(set(here)) == len(here)
    for hash_seed in ("1", "4242"):
        assert _digests_elsewhere(hash_seed) == here, f"another history with PYTHONHASHSEED={hash_seed}"


def _digests_elsewhere(hash_seed: str) -> list[str]:
    code = _DIGESTS.format(first=_FIRST, end=_END)
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.split()
