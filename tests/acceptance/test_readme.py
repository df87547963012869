"""The README's code runs as it stands there, and the generated files of docs are those that the code generates."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from agno.db.base import AsyncBaseDb
from typer.testing import CliRunner

from agno_clouddb import Run, Session, StoreUnavailable, UserMemory, connect
from agno_clouddb.cli.commands import app
from agno_clouddb.testing import FaultyStore, MemoryStore

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


async def test_the_function_on_two_clouds_says_what_is_sure_and_mends_what_differs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = [block for block in BLOCKS if "two_clouds" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    stores = [FaultyStore(MemoryStore(name)) for name in ("memory://a", "memory://b")]
    async with connect(*stores) as db:
        await db.provision()
        assert await names["two_clouds"](db, Session(session_id="s1", user_id="ann")) is True
        lines = ["complete", "1 for sure", "1 compared, 0 mended, 0 failed"]
        lines += ["memory://a closed 0 0.0", "memory://b closed 0 0.0"]
        assert capsys.readouterr().out.splitlines() == lines
        stores[1].down()
        with pytest.raises(StoreUnavailable):
            await names["two_clouds"](db, Session(session_id="s2", user_id="ann"))
        assert capsys.readouterr().out.splitlines() == ["a store did not answer", "2 as far as can be seen"]
        stores[0].down()
        with pytest.raises(StoreUnavailable):
            await names["two_clouds"](db, Session(session_id="s3", user_id="ann"))
        assert capsys.readouterr().out.splitlines() == ["stored nowhere, as far as is known"]


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


def test_the_database_for_agno_is_made_without_asking_a_cloud() -> None:
    (block,) = [block for block in BLOCKS if "AsyncCloudDb" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    assert isinstance(names["db"], AsyncBaseDb)


async def test_the_app_of_fastapi_answers_with_what_its_database_holds() -> None:
    (block,) = [block for block in BLOCKS if "add_error_handlers" in block]
    db = connect("memory://")
    names: dict[str, Any] = {"db": db}
    exec(block.replace('connect("dynamodb://eu-west-1")', "db"), names)
    async with names["app"].router.lifespan_context(names["app"]):
        await db.provision()
        await db.sessions.upsert(Session(session_id="s1", user_id="ann"))
        transport = httpx.ASGITransport(app=names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            answer = await client.get("/sessions/s1")
    assert answer.status_code == 200
    assert answer.json()["user_id"] == "ann"


def test_every_block_of_the_readme_is_run_by_a_test() -> None:
    assert len(BLOCKS) == 7


def test_the_index_file_for_firestore_is_the_one_that_the_schema_gives() -> None:
    printed = CliRunner().invoke(app, ["schema", "firestore"]).output
    stored = (ROOT / "docs" / "firestore.indexes.json").read_text(encoding="utf-8")
    assert stored == printed, "write it anew: agno-clouddb schema firestore > docs/firestore.indexes.json"
