"""Which schedules a simulation runs."""

from __future__ import annotations

import pytest

SCHEDULES = 500
_PART = 50  # schedules of one test, so that workers share them


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``simulation_seeds``, the seeds to run: the one given by ``--seed``, or the first few hundred in parts."""
    if "simulation_seeds" in metafunc.fixturenames:
        seed = metafunc.config.getoption("--seed")
        if seed is None:
            parts = [range(first, first + _PART) for first in range(0, SCHEDULES, _PART)]
        else:
            parts = [range(seed, seed + 1)]
        metafunc.parametrize("simulation_seeds", parts, ids=[f"{part.start}-{part.stop - 1}" for part in parts])
