"""agno's calls about tool results, on every store and in fan-outs."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agno.db.sqlite.schemas import get_table_schema_definition
from agno.fs import FileSystem
from agno.fs.local import LocalFileSystem

from agno_clouddb import CloudDBError, Database, InvalidRecord
from agno_clouddb.integrations.agno.tool_results import TOOL_RESULTS, ToolResultCalls
from agno_clouddb.stores.memory import MemoryStore
from tests.integration.agno.competing import WORKERS, all_at_once, alone, databases

__all__ = ["databases"]

CREATED = 1_700_000_000


def result(key: str, session_id: str = "s1", **values: Any) -> dict[str, Any]:
    row = dict.fromkeys(TOOL_RESULTS.columns, "x")
    row |= {"result_id": key, "session_id": session_id, "path": f"results/{key}.txt", "namespace": "tool-results/s"}
    numbers = {"size_bytes": 1, "line_count": 1, "created_at": CREATED, "expires_at": None, "user_id": None}
    return {**row, **numbers, **values}


async def test_16_who_write_one_result_leave_a_whole_one(databases: list[Database]) -> None:
    agnos = [alone(ToolResultCalls, databases[n % len(databases)]) for n in range(WORKERS)]
    rows = [result("r1", f"s{n}", run_id=f"run{n}", expires_at=CREATED + n) for n in range(WORKERS)]
    written = await all_at_once([partial(each.upsert_tool_result, row) for each, row in zip(agnos, rows, strict=True)])
    assert not [each for each in written if isinstance(each, CloudDBError)]
    stored = await agnos[0].get_tool_result("r1")
    assert stored in rows
    assert stored is not None
    for n in range(WORKERS):
        listed = await agnos[1].get_tool_results_for_session(f"s{n}")
        assert listed == ([stored] if stored["session_id"] == f"s{n}" else [])
    assert await agnos[2].get_expired_tool_results(stored["expires_at"]) == [stored]
    assert await agnos[2].get_expired_tool_results(stored["expires_at"] - 1) == []
    deleted = await all_at_once([partial(each.delete_tool_results, ["r1", "r1"]) for each in agnos])
    assert {0, 1} == set(deleted)


async def test_the_results_of_a_session_come_the_last_first_and_within_a_second_by_id(
    databases: list[Database],
) -> None:
    agno = alone(ToolResultCalls, databases[0])
    for n in reversed(range(12)):
        await agno.upsert_tool_result(result(f"r{n:02}", created_at=CREATED + n // 5, size_bytes=n))
    await agno.upsert_tool_result(result("other", "s2"))
    wanted = [10, 11, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
    for limit in (None, 0, 1, 2, 3, 6, 12, 99):
        rows = await agno.get_tool_results_for_session("s1", limit)
        assert [each["size_bytes"] for each in rows] == wanted[:limit]


class Broken(LocalFileSystem):
    """A file system that does not let anything be deleted."""

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        raise OSError("read only")


async def test_deleting_sessions_deletes_their_results_and_the_files_that_can_be_reached(
    databases: list[Database], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agno: Any = alone(ToolResultCalls, databases[0])
    files = FileSystem(backend=LocalFileSystem(tmp_path / "files"), namespace="tool-results/s")
    broken = FileSystem(backend=Broken(tmp_path / "broken"), namespace="tool-results/s")
    agno.tool_result_filesystems = [broken, files]
    for key, session in (("r1", "s1"), ("r2", "s1"), ("r3", "s2"), ("r4", "s3")):
        await agno.upsert_tool_result(result(key, session))
        if key != "r2":
            await files.awrite(f"results/{key}.txt", "all of it")
    with caplog.at_level(logging.WARNING, "agno_clouddb"):
        await agno._delete_tool_results_of(["s1", "s2", "none"])
    assert [await agno.get_tool_result(key) is not None for key in ("r1", "r2", "r3", "r4")] == [False] * 3 + [True]
    assert [each.path for each in files.list()] == ["results/r4.txt"]
    assert "the file tool-results/s/results/r1.txt cannot be deleted" in caplog.text
    assert "1 of 2 tool results of a deleted session stay as files: tool-results/s/results/r2.txt" in caplog.text


async def test_a_row_without_what_it_needs_is_refused() -> None:
    async with Database(MemoryStore()) as db:
        await db.provision()
        agno = alone(ToolResultCalls, db)
        for given in (result("r1", run_id=None), result("r1", created_at="now"), result("r1", expires_at="later")):
            with pytest.raises(InvalidRecord):
                await agno.upsert_tool_result(given)
        assert await agno.get_tool_result("r1") is None


def test_rows_have_the_columns_of_agnos_own() -> None:
    theirs = get_table_schema_definition("tool_results")
    assert TOOL_RESULTS.columns == tuple(name for name in theirs if not name.startswith("_"))
