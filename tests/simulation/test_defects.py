"""Every deliberate defect of the coordinator breaks a rule within the schedules that a test run makes."""

from __future__ import annotations

import pytest

from tests.simulation.conftest import SCHEDULES
from tests.simulation.defects import DEFECTS
from tests.simulation.schedules import drawn
from tests.simulation.simulation import run

INCIDENTAL = ("errors", "clean end")
"""Rules that a defect breaks which does not work at all; that it is seen is shown by the others."""


@pytest.mark.memory
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_caught(name: str) -> None:
    for seed in range(SCHEDULES):
        with DEFECTS[name]():
            result = run(drawn(seed))
        if result.violation is None or result.violation.rule in INCIDENTAL:
            continue
        # A rule that is broken without the defect as well says nothing of it.
        if run(drawn(seed)).violation is None:
            print(f"{name}: caught after {seed + 1} schedules, {result.violation}")
            return
    pytest.fail(f"{name} is not caught in {SCHEDULES} schedules")
