"""Shrinking: the fewest steps of a schedule that still break the rule."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.schedules import Schedule
from tests.simulation.simulation import Result, run

__all__ = ["report", "shrunk"]


def shrunk(schedule: Schedule, result: Result, *, attempts: int = 300) -> tuple[Schedule, Result]:
    """Leave steps out, many at a time and then one at a time, while the same rule is broken.

    Args:
        schedule: one that breaks a rule.
        result: what came of it.
        attempts: how often it is run at most.
    """
    assert result.violation is not None
    rule, size = result.violation.rule, max(1, len(schedule.steps) // 2)
    calmer = [replace(schedule, rate=0.0), replace(schedule, skews=(0.0,) * len(schedule.skews))]
    while attempts > 0:
        position, smaller = 0, False
        while position < len(schedule.steps) and attempts > 0:
            steps = schedule.steps[:position] + schedule.steps[position + size :]
            attempts -= 1
            again = run(replace(schedule, steps=steps))
            if again.violation is not None and again.violation.rule == rule:
                schedule, result, smaller = replace(schedule, steps=steps), again, True
            else:
                position += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    for each in calmer:
        candidate = replace(each, steps=schedule.steps)
        again = run(candidate)
        if again.violation is not None and again.violation.rule == rule:
            return candidate, again
    return schedule, result


def report(schedule: Schedule, result: Result) -> str:
    """Which rule is broken, the fewest steps that break it, what happened in them, and how to see it again."""
    least, last = shrunk(schedule, result)
    lines = [
        str(result.violation),
        str(least),
        f"{len(least.steps)} of {len(schedule.steps)} steps suffice:",
        *(f"  {step}" for step in least.steps),
        "what happens in them:",
        *(f"  {line}" for line in last.history),
        f"run it again with --seed {schedule.seed}",
    ]
    return "\n".join(lines)
