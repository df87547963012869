"""The page on guarantees names tests, rules and defects that exist, and every rule of the simulation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.simulation import rules
from tests.simulation.defects import DEFECTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
RULES, FAULTY = "tests/simulation/rules.py", "tests/simulation/defects.py"

_ITEM = re.compile(r"^- `(tests/[a-z_/]+\.py)`:\s((?:\s*`[a-z0-9_ ]+`,?)+)$", re.MULTILINE)
_NAME = re.compile(r"`([a-z0-9_ ]+)`")


def named(text: str) -> Iterator[tuple[str, str]]:
    """The names in a part of the page, each with the file that it is said to be in."""
    for path, names in _ITEM.findall(text):
        for name in _NAME.findall(names):
            yield path, name


def there(path: str) -> set[str]:
    """What a file has to be named: its tests, or the rules or the defects of the simulation."""
    if path == RULES:
        return set(re.findall(r"^- ([a-z ]+): ", rules.__doc__ or "", re.MULTILINE))
    if path == FAULTY:
        return set(DEFECTS)
    nodes = ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    functions = (each.name for each in nodes if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in functions if name.startswith("test_")}


def test_everything_that_the_page_names_exists() -> None:
    missing = [f"{path}: {name}" for path, name in named(PAGE) if name not in there(path)]
    assert missing == []


def test_every_name_of_a_test_in_the_page_is_looked_for() -> None:
    mentioned = re.findall(r"`(test_[a-z0-9_]+)`", PAGE)
    assert mentioned
    assert sorted(mentioned) == sorted(name for _, name in named(PAGE) if name.startswith("test_"))


def test_every_promise_is_shown_by_rules_by_tests_of_units_and_of_engines_and_by_defects_that_are_caught() -> None:
    promises = dict(re.findall(r"^## (P[1-5])\. .*?\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
    assert sorted(promises) == ["P1", "P2", "P3", "P4", "P5"]
    for promise, text in promises.items():
        paths = {path for path, _ in named(text)}
        for kind in (RULES, FAULTY, "tests/unit/", ("tests/integration/", "tests/outages/")):
            assert any(path.startswith(kind) for path in paths), f"{promise} names nothing of {kind}"


def test_every_rule_and_every_defect_of_the_simulation_is_in_the_page() -> None:
    for path in (RULES, FAULTY):
        assert {name for named_in, name in named(PAGE) if named_in == path} == there(path)
