"""The commands and the code of docs/agno-import.md run as they stand there, and so does the example."""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from agno.session import AgentSession

from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.integrations.agno.importing.sources import TABLES
from examples import agno_import
from tests.acceptance.agno_sources import dynamodb_source, firestore_source, write
from tests.acceptance.test_examples import start

PAGE = (Path(__file__).parents[2] / "docs" / "agno-import.md").read_text(encoding="utf-8")
PROGRAM = "agno-clouddb "
SESSIONS = 10
HANG = 300.0  # seconds

# agno's FirestoreDb asks for documents in a way that Google's client warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Detected filter using positional arguments:UserWarning")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@dataclass(frozen=True)
class Clouds:
    """DynamoDB and Firestore as the environment names them, empty."""

    dynamodb: str
    firestore: str
    key: str
    project: str

    def here(self, text: str) -> str:
        """A text of the page, about a project of this test's alone."""
        return text.replace("my-project", self.project)


@pytest.fixture
def clouds(dynamodb_local_url: str, firestore_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clouds:
    """The engines, where a program finds them that names a region and a project alone."""
    key, project = f"key{secrets.token_hex(6)}", f"p{secrets.token_hex(6)}"
    (endpoint,) = parse_qs(urlsplit(dynamodb_local_url).query)["endpoint_url"]
    (host,) = parse_qs(urlsplit(firestore_url).query)["emulator_host"]
    for name, value in {
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": key,
        "FIRESTORE_EMULATOR_HOST": host,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    dynamodb, firestore = f"dynamodb://eu-west-1?endpoint_url={endpoint}", f"firestore://{project}?emulator_host={host}"
    return Clouds(dynamodb, firestore, key, project)


def run(line: str) -> tuple[int, str]:
    """The exit status of a command of the page, and what it prints."""
    program = [sys.executable, "-m", "agno_clouddb.cli.main", *shlex.split(line.removeprefix(PROGRAM))]
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANG, check=False)
    return done.returncode, done.stdout + done.stderr


async def sessions(url: str) -> list[str]:
    db = AsyncCloudDb(url)
    found: Any = await db.get_sessions(deserialize=False, include_runs=False)
    await db.close()
    return sorted(row["session_id"] for row in found[0])


def test_the_commands_bring_what_agno_has_written(clouds: Clouds) -> None:
    (block,) = blocks("sh")
    install, dry, to_both, of_firestore = block.strip().splitlines()
    assert install == 'pip install "agno_clouddb[agno,cli]"'
    with dynamodb_source(clouds.dynamodb, "", named=TABLES, key=clouds.key) as source:
        written = write(source, SESSIONS)
        before = source.everything()
        status, output = run(dry)
        assert (status, "Not all that the source has is in the target." in output) == (1, True), output
        status, output = run(clouds.here(to_both))
        assert (status, "All that the source has is in the target." in output) == (0, True), output
        assert source.everything() == before
    everything = [f"session-{number:05}" for number in range(SESSIONS)]
    assert written["sessions"] == SESSIONS
    for url in ("dynamodb://eu-west-1", f"firestore://{clouds.project}"):
        assert asyncio.run(sessions(url)) == everything
    with firestore_source(clouds.firestore, "", named=TABLES) as source:
        source.db.upsert_session(AgentSession(session_id="of-firestore", agent_id="a", created_at=1_700_000_000))
        status, output = run(clouds.here(of_firestore))
        assert (status, "All that the source has is in the target." in output) == (0, True), output
    assert asyncio.run(sessions(f"firestore://{clouds.project}")) == ["of-firestore", *everything]


def test_the_function_brings_the_same(clouds: Clouds) -> None:
    (block,) = [each for each in blocks("python") if "def bring" in each]
    names: dict[str, Any] = {}
    exec(block, names)
    with dynamodb_source(clouds.dynamodb, "", named=TABLES, key=clouds.key) as source:
        write(source, SESSIONS)
    target = f"firestore://{clouds.project}"
    assert asyncio.run(names["bring"]("dynamodb://eu-west-1", target)) is True
    assert asyncio.run(sessions(target)) == [f"session-{number:05}" for number in range(SESSIONS)]
    assert list(Path.cwd().iterdir()) == []


def test_the_database_of_a_dual_run_writes_both_and_tells_what_the_new_one_has_missed(
    clouds: Clouds, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [each for each in blocks("python") if "DualRunDb" in each]
    names: dict[str, Any] = {}
    exec(block, names)
    db = names["db"]

    async def move() -> None:
        await db.upsert_session(AgentSession(session_id="s1", agent_id="a", created_at=1_700_000_000))
        assert "upsert_session has reached the old database alone: " in capsys.readouterr().out
        await (await db.database()).provision()
        await db.upsert_session(AgentSession(session_id="s2", agent_id="a", created_at=1_700_000_000))
        assert capsys.readouterr().out == ""
        assert sorted(each.session_id for each in await db.get_sessions()) == ["s1", "s2"]
        await db.close()

    asyncio.run(move())
    assert asyncio.run(sessions("dynamodb://eu-west-1")) == ["s2"]


def test_every_block_of_the_page_is_run_by_a_test() -> None:
    assert (len(blocks("sh")), len(blocks("python")), PAGE.count("```")) == (1, 2, 6)


async def test_the_example_moves_a_conversation_to_another_cloud_and_goes_on_there(
    dynamodb_local_url: str, firestore_url: str, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        await agno_import.main(dynamodb_local_url, f"{firestore_url}&prefix={prefix}")
        assert_moved(capsys.readouterr().out)


def test_the_example_runs_without_arguments(tmp_path: Path) -> None:
    assert_moved(start("agno_import", folder=tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["example.sqlite"]


def assert_moved(output: str) -> None:
    assert "dry run: runs: 2 read, 2 missing, 0 equal\n" in output
    assert "imported: sessions: 1 read, 1 written, 0 equal\nimported: runs: 2 read, 2 written, 0 equal\n" in output
    assert "again: runs: 2 read, 0 written, 2 equal\n" in output
    assert "verified: memories: 1 read, 0 missing, 1 equal\ncomplete: True\n" in output
    assert output.endswith("Here I am: You have said 2 things before.\nremembered: ['Is moving']\n")
