"""docs/agno.md says of every call of agno's what is so. ``--write-docs`` writes its tables anew."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import agno.db
import pytest
from agno.db.postgres import AsyncPostgresDb
from agno.db.sqlite import AsyncSqliteDb

from agno_clouddb.integrations.agno import AsyncCloudDb
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


def test_every_coroutine_of_agnos_mongodb_is_carried_out_with_its_arguments() -> None:
    # From the text, since its module needs a driver.
    text = (Path(agno.db.__file__).parent / "mongo" / "async_mongo.py").read_text(encoding="utf-8")
    (mongo,) = [each for each in ast.parse(text).body if isinstance(each, ast.ClassDef)]
    coroutines = [each for each in mongo.body if isinstance(each, ast.AsyncFunctionDef) and each.name[0] != "_"]
    supported = calls()
    assert len(coroutines) >= 73
    for each in coroutines:
        assert supported.get(each.name), each.name
        named = {argument.arg for argument in (*each.args.args, *each.args.kwonlyargs)}
        assert named <= {*inspect.signature(getattr(AsyncCloudDb, each.name)).parameters}, each.name


@pytest.mark.parametrize("name", [name for name, supported in calls().items() if supported])
def test_a_call_has_the_arguments_and_defaults_of_agnos_own(name: str) -> None:
    theirs = getattr(AsyncSqliteDb, name, None) or getattr(AsyncPostgresDb, name, None)
    if theirs is not None:
        assert arguments(getattr(AsyncCloudDb, name)) == arguments(theirs)


def arguments(call: Callable[..., object]) -> list[tuple[object, ...]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(call).parameters.values()]
