"""The agno-clouddb command: its help, its exit status, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import agno_clouddb
from agno_clouddb.cli import demo, main
from agno_clouddb.cli.commands import app
from agno_clouddb.stores.base import Mutation, Outcome, Put, Store, Stored
from agno_clouddb.stores.dynamodb.templates import cloudformation, terraform
from agno_clouddb.stores.firestore import firestore_indexes
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.urls import StoreOptions
from agno_clouddb.stores.usage import Usage

# A CI service may ask for colours where there is no terminal; typer heeds that for help and usage errors.
_NO_TERMINAL = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")

_TWO_STORES = ("--store", "memory://a", "--store", "memory://b")


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env=_NO_TERMINAL)
    return result.exit_code, _ESCAPES.sub("", result.stdout), _ESCAPES.sub("", result.stderr)


def rows(output: str) -> dict[str, list[str]]:
    """The rows of the tables in ``output``, by their first cell."""
    cells = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in output.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in cells}


def test_the_version_is_that_of_the_library() -> None:
    assert run("--version") == (0, f"agno-clouddb {agno_clouddb.__version__}\n", "")


def test_help_names_the_commands_and_their_options() -> None:
    assert all(name in run("--help")[1] for name in ("demo", "reconcile", "health", "forget", "schema"))
    status, output, _ = run("demo", "--help")
    assert status == 0
    for option in ("--data", "--sessions", "--store"):
        assert option in output


def test_the_demo_shows_that_both_stores_hold_what_was_recorded() -> None:
    status, output, errors = run("demo", *_TWO_STORES)
    assert (status, errors) == (0, "")
    assert "47/47 turns" in output
    assert "Everything was read back as it was recorded." in output
    found = rows(output)
    for name in ("all, merged", "memory://a alone", "memory://b alone"):
        assert found[name] == ["8", "47", "204", "yes"]


def test_the_demo_lists_one_users_newest_sessions_page_by_page() -> None:
    output = run("demo", *_TWO_STORES, "--sessions", "1")[1]
    assert "The newest 3 of 3 sessions of chloe" in output
    listed = [line.split("│")[1:3] for line in output.splitlines() if "airline-" in line]
    # One at a time, in the order of the file: the newest is the last of them.
    assert [(page.strip(), name.strip()) for page, name in listed] == [
        ("1", "airline-002-1"),
        ("1", "airline-042-2"),
        ("2", "airline-012-1"),
    ]


def test_one_store_alone_and_two_of_the_same_name_are_told_apart() -> None:
    status, output, _ = run("demo", "--store", "memory://")
    assert status == 0
    assert "all, merged" not in output
    assert rows(output)["memory:// alone"][-1] == "yes"
    output = run("demo", "--store", "memory://", "--store", "memory://")[1]
    assert rows(output)["memory:// (2) alone"][-1] == "yes"


class ForgetfulStore(MemoryStore):
    """Acknowledges a run that it does not keep."""

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        if any(isinstance(each, Put) and each.key.id == "airline-000-0-3" for each in mutations):
            return tuple(Stored(each.version) for each in mutations)
        return await super().write(mutations, atomic=atomic)


def test_the_demo_fails_when_one_store_has_lost_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(url: str, options: StoreOptions) -> Store:
        return ForgetfulStore(url) if url == "memory://b" else MemoryStore(url)

    monkeypatch.setattr(demo, "store_from_url", make)
    status, output, _ = run("demo", *_TWO_STORES)
    assert status == 1
    assert "Not everything was read back" in output
    found = rows(output)
    assert found["all, merged"][-1] == "yes"
    assert found["memory://a alone"] == ["8", "47", "204", "yes"]
    assert found["memory://b alone"][-1] == "no"
    assert "memory://b alone: airline-000-0: 7 runs instead of 8" in output


class CountedStore(MemoryStore):
    """Counts its writes, and one request before the turns, which must not be counted as theirs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.usage = Usage()

    async def provision(self, *arguments: Any, **options: Any) -> None:
        self.usage.requests["PutItem"] += 470
        await super().provision(*arguments, **options)

    async def write(self, mutations: Sequence[Mutation], *, atomic: bool = False) -> tuple[Outcome, ...]:
        self.usage.requests["PutItem"] += 1
        self.usage.write_units += 1.5
        return await super().write(mutations, atomic=atomic)


def test_the_demo_says_what_a_turn_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "store_from_url", lambda url, options: CountedStore(url))
    output = run("demo", "--store", "memory://a")[1]
    found = rows(output)
    assert (found["requests"], found["- PutItem"], found["write units"]) == (["2.0"], ["2.0"], ["3.0"])
    assert found["read units"] == found["documents read"] == found["documents written"] == ["-"]


def test_a_store_that_does_not_count_shows_dashes() -> None:
    found = rows(run("demo", *_TWO_STORES)[1])
    assert found["requests"] == found["write units"] == found["documents read"] == ["-", "-"]


def test_a_malformed_file_is_named_with_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"conversation_id": "c", "task_id": 1, "trial": 0, "reward": 0.0, "messages": 3}))
    status, output, errors = run("demo", *_TWO_STORES, "--data", str(path))
    assert (status, output) == (2, "")
    assert errors.startswith(f"agno-clouddb: {path}, line 1, messages: ")
    assert "Traceback" not in errors


@pytest.mark.parametrize("arguments", [("--data", "no-such-file"), ("--sessions", "0"), ("--what",)])
def test_a_wrong_argument_is_refused(arguments: tuple[str, ...]) -> None:
    status, _, errors = run("demo", *arguments)
    assert status == 2
    assert arguments[0] in errors


def test_a_wrong_url_is_refused() -> None:
    status, _, errors = run("demo", "--store", "mongodb://x")
    assert status == 2
    assert "mongodb://x" in errors


def test_a_store_that_fails_ends_the_demo_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprovisioned(MemoryStore):
        async def provision(self, *arguments: Any, **options: Any) -> None:
            """Creates nothing."""

    monkeypatch.setattr(demo, "store_from_url", lambda url, options: Unprovisioned(url))
    status, _, errors = run("demo", "--store", "memory://a")
    assert status == 1
    assert errors.startswith("agno-clouddb: sessions are not provisioned (store memory://a, ")


def test_an_interrupted_demo_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(MemoryStore):
        async def provision(self, *arguments: Any, **options: Any) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(demo, "store_from_url", lambda url, options: Interrupted(url))
    status, _, errors = run("demo", "--store", "memory://a")
    assert (status, errors) == (130, "interrupted\n")


@pytest.mark.parametrize("prefix", [None, "mine_"])
@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (("dynamodb",), cloudformation),
        (("dynamodb", "--format", "cloudformation"), cloudformation),
        (("dynamodb", "--format", "terraform"), terraform),
        (("firestore",), firestore_indexes),
    ],
)
def test_schema_prints_what_can_be_deployed(
    arguments: tuple[str, ...], made: Callable[[str], dict[str, Any]], prefix: str | None
) -> None:
    chosen = () if prefix is None else ("--prefix", prefix)
    status, output, errors = run("schema", *arguments, *chosen)
    assert (status, errors) == (0, "")
    assert json.loads(output) == made(prefix or "agno_")


@pytest.mark.parametrize("arguments", [("mongodb",), ("dynamodb", "--format", "pulumi")])
def test_schema_of_what_is_unknown_is_refused(arguments: tuple[str, ...]) -> None:
    status, output, errors = run("schema", *arguments)
    assert (status, output) == (2, "")
    assert arguments[-1] in errors


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_the_command_says_what_to_install(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from agno_clouddb.cli.main import app; app()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f'agno-clouddb needs the package {missing}: run `pip install "agno_clouddb[cli]"`\n'


def test_the_entry_point_runs_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["agno-clouddb", "--version"])
    with pytest.raises(SystemExit) as caught:
        main.app()
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"agno-clouddb {agno_clouddb.__version__}\n"


@pytest.mark.parametrize("service", ["dynamodb", "firestore"])
def test_a_prefix_that_no_name_can_begin_with_is_refused(service: str) -> None:
    for prefix in ("a/b", "x" * 300):
        result = CliRunner().invoke(app, ["schema", service, "--prefix", prefix])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "the prefix" in result.stderr
