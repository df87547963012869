"""What the package exports is loaded when it is asked for, and is what the types say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import agno_clouddb


def test_the_exports_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(agno_clouddb.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {node.module: [each.name for each in node.names] for node in block.body if isinstance(node, ast.ImportFrom)}
    assert typed == agno_clouddb._HOMES
    assert sorted(name for names in typed.values() for name in names) == sorted(agno_clouddb.__all__)
    for name in agno_clouddb.__all__:
        assert getattr(agno_clouddb, name).__module__ in typed


def test_what_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = agno_clouddb.nothing


@pytest.mark.parametrize(
    ("statement", "left_out"),
    [
        ("import agno_clouddb", ["agno_clouddb.database", "pydantic"]),
        ("from agno_clouddb import connect; connect('memory://')", ["agno_clouddb.fanout.store", "aiohttp", "grpc"]),
    ],
)
def test_no_more_is_loaded_than_is_used(statement: str, left_out: list[str]) -> None:
    code = f"import sys; {statement}; print([name for name in {left_out} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
