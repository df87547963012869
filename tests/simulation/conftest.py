"""Which schedules a simulation runs."""

from __future__ import annotations

import pytest

SCHEDULES = 400


@pytest.fixture
def simulation_seeds(request: pytest.FixtureRequest) -> range:
    """The seeds to run: the one given by ``--seed``, or the first few hundred."""
    seed = request.config.getoption("--seed")
    return range(SCHEDULES) if seed is None else range(seed, seed + 1)
