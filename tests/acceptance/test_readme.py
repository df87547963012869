"""The README's code runs as it stands there, and the generated files of docs are those that the code generates."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from agno_clouddb import Run, Session, UserMemory, connect
from agno_clouddb.cli.commands import app

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def _parameter(url: str, name: str) -> str:
    return parse_qs(urlsplit(url).query)[name][0]


@pytest.mark.dynamodb_local
@pytest.mark.firestore
def test_the_quick_start_runs_against_both_clouds_engines(dynamodb_local_url: str, firestore_url: str) -> None:
    (quick_start,) = [block for block in BLOCKS if "asyncio.run" in block]
    environment = os.environ | {
        "AWS_ENDPOINT_URL_DYNAMODB": _parameter(dynamodb_local_url, "endpoint_url"),
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "FIRESTORE_EMULATOR_HOST": _parameter(firestore_url, "emulator_host"),
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", quick_start], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "{'messages': ['hello']} False" in result.stdout
    assert result.stderr == ""


async def test_the_functions_on_changing_a_session_do_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in BLOCKS if "count_turn" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    async with connect("memory://") as db:
        await db.provision()
        first = await db.sessions.upsert(Session(session_id="s1"))
        await names["count_turn"](db, "s1")
        await names["count_turn"](db, "s1")
        read = await db.sessions.get("s1")
        assert read is not None
        assert read.session_data == {"turns": 2}
        await names["rename_once"](db, first)
        assert f"somebody wrote {read.version} in between" in capsys.readouterr().out
        await names["rename_once"](db, read)
        read = await db.sessions.get("s1")
        assert read is not None
        assert read.name == "Holiday"


@pytest.mark.dynamodb_local
async def test_the_test_of_an_agent_runs(dynamodb_local_url: str) -> None:
    (block,) = [block for block in BLOCKS if "test_my_agent" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    await names["test_my_agent"](dynamodb_local_url)


async def test_the_function_on_other_records_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in BLOCKS if "other_records" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    async with connect("memory://") as db:
        await db.provision()
        run = Run(run_id="r1", data={"metrics": {"total_tokens": 7}})
        await db.sessions.upsert(Session(session_id="s1", user_id="ann", runs=[run]))
        await names["other_records"](db)
        printed = capsys.readouterr().out.splitlines()
        assert printed[:2] == ["['prefers aisle seats']", "500"]
        assert [line.split()[1:] for line in printed[2:]] == [["all", "1", "7"], ["ann", "1", "7"]]
        content = await db.knowledge.get("k1")
        assert content is not None
        assert content.status == "completed"
        assert await db.memories.get("m1") is None


async def test_the_transaction_in_the_page_on_records_stores_all_three() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "records.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    async with connect("memory://") as db:
        await db.provision()
        memory = await db.memories.upsert(UserMemory(memory_id="m1", memory="tea"))
        await names["turn"](db, Session(session_id="s1"), Run(run_id="r1"), memory)
        session = await db.sessions.get("s1")
        assert session is not None
        assert [run.run_id for run in session.runs] == ["r1"]
        written = await db.memories.get("m1")
        assert written is not None
        assert written.version != memory.version


def test_every_block_of_the_readme_is_run_by_a_test() -> None:
    assert len(BLOCKS) == 4


def test_the_index_file_for_firestore_is_the_one_that_the_schema_gives() -> None:
    printed = CliRunner().invoke(app, ["schema", "firestore"]).output
    stored = (ROOT / "docs" / "firestore.indexes.json").read_text(encoding="utf-8")
    assert stored == printed, "write it anew: agno-clouddb schema firestore > docs/firestore.indexes.json"
