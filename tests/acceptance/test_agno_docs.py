"""docs/agno.md says of every call of agno's what is so. ``--write-docs`` writes its tables anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agno_clouddb.integrations.agno.support import calls, support_table
from tests.integration.agno.test_differential import FAMILIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "agno.md"

ELSEWHERE = re.compile(r"authz|product|project|task|source|component|job|company")
"""Families that stay as agno's base class has them."""


def differences() -> str:
    """The known and wanted differences as a table."""
    rows = [f"| {what} | {reason} |" for family in FAMILIES for what, reason in family.DIFFERENCES]
    return "\n".join(["| what | here, and there |", "| --- | --- |", *dict.fromkeys(rows)])


@pytest.mark.parametrize(("name", "table"), [("calls", support_table), ("differences", differences)])
def test_the_tables_are_those_of_the_code(name: str, table: object, request: pytest.FixtureRequest) -> None:
    assert callable(table)
    document = DOCUMENT.read_text(encoding="utf-8")
    before, start, rest = document.partition(f"<!-- {name} -->\n")
    found, end, after = rest.partition("<!-- end -->")
    assert start
    assert end
    expected = f"\n{table()}\n\n"
    if request.config.getoption("--write-docs"):
        DOCUMENT.write_text(f"{before}{start}{expected}{end}{after}", encoding="utf-8")
        return
    assert found == expected, "run `pytest tests/acceptance/test_agno_docs.py --write-docs`"


def test_every_call_that_is_in_scope_is_carried_out() -> None:
    missing = [name for name, supported in calls().items() if not supported and not ELSEWHERE.search(name)]
    assert missing == []
