"""What the tests have counted is printed at the end of the run."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was acknowledged through outages, and what became of it."""
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if report.when == "call"
        for name, value in report.user_properties
        if name == "verdict"
    ]
    if lines:
        terminalreporter.section("acknowledged writes through outages")
        terminalreporter.write_line("\n".join(lines))
