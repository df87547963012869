"""The page on two clouds: its code and commands run, in order, and what it promises and warns of is so."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from typer.testing import CliRunner

from agno_clouddb import Run, Session, connect
from agno_clouddb.cli.commands import app
from agno_clouddb.fanout.names import names_of
from agno_clouddb.stores.base import Store
from agno_clouddb.testing import FaultyStore

_PAGE = (Path(__file__).parents[2] / "docs" / "dual-write.md").read_text(encoding="utf-8")
_OLD, _NEW = "dynamodb://eu-west-1", "firestore://my-project"
_NO_TERMINAL = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None}


def function(name: str) -> Callable[..., Awaitable[Any]]:
    """A function of the page."""
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL) if f"def {name}(" in each]
    names: dict[str, Any] = {}
    exec(block, names)
    found: Callable[..., Awaitable[Any]] = names[name]
    return found


def commands() -> list[list[str]]:
    """The commands of the page in order, but for those of other tools and the output to files."""
    lines = "".join(re.findall(r"```sh\n(.*?)```", _PAGE, re.DOTALL)).splitlines()
    return [shlex.split(line.partition(" >")[0])[1:] for line in lines if line.startswith("agno-clouddb ")]


def command(start: str) -> list[str]:
    """A command of the page, by its beginning and with what is named at its end."""
    return next(each for each in commands() if " ".join(each).startswith(start))


async def run(arguments: list[str], old: str, new: str, *more: str) -> tuple[int, str]:
    """What a command of the page does to these stores, from another process as it were."""
    named = [{_OLD: old, _NEW: new}.get(each, each) for each in arguments]

    def invoke() -> tuple[int, str]:
        result = CliRunner().invoke(app, [*named, *more], catch_exceptions=False, env=_NO_TERMINAL)
        return result.exit_code, result.stdout

    return await to_thread.run_sync(invoke)


async def sessions(*stores: str | Store) -> set[str]:
    async with connect(*stores) as db:
        return {each.session_id async for each in db.sessions.iterate()}


async def write(*session_ids: str, on: tuple[str, ...]) -> None:
    async with connect(*on) as db:
        for session_id in session_ids:
            await db.sessions.upsert(Session(session_id=session_id, runs=[Run(run_id=f"run-of-{session_id}")]))


async def delete(session_id: str, *, on: tuple[str, ...]) -> None:
    async with connect(*on) as db:
        assert await db.sessions.delete(session_id)


@pytest.fixture
def urls(tmp_path: Path) -> tuple[str, str]:
    return f"sqlite:///{tmp_path / 'old.sqlite'}", f"sqlite:///{tmp_path / 'new.sqlite'}"


@pytest.fixture
async def joined(urls: tuple[str, str]) -> tuple[str, str]:
    """Two stores that were compared once."""
    async with connect(*urls) as db:
        await db.provision()
        await db.reconcile()
    return urls


async def walk_through(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with connect(old) as db:
        await db.provision()
    await write("s1", "s2", "s3", on=(old,))

    await function("add")(old, new)
    async with function("serving")(old, new) as db:  # type: ignore[attr-defined]
        await db.sessions.append_run("s1", Run(run_id="later"))
    assert await sessions(old, new) == {"s1", "s2", "s3"}

    assert (await run(command("health"), old, new))[0] == 1
    status, output = await run(command("reconcile"), old, new)
    assert (status, "Compared: everything" in output) == (0, True)
    assert (await run(command("health"), old, new))[0] == 0
    assert await sessions(new) == {"s1", "s2", "s3"}

    await write("s4", on=(new, old))
    async with connect(new, old) as db:
        capsys.readouterr()
        assert await function("compare")(db)
        printed = capsys.readouterr().out
        assert " compared, 0 mended\n" in printed
        assert "\nincremental 0 0 " in printed

    await function("leave")(old, new)
    status, output = await run(command("forget"), name(old), new, "--yes")
    assert (status, output) == (0, "0 hints discarded\n")
    async with connect(new) as db:
        session = await db.sessions.get("s1")
        assert session is not None
        assert [run.run_id for run in session.runs] == ["run-of-s1", "later"]
    assert await sessions(new) == {"s1", "s2", "s3", "s4"}


def name(url: str) -> str:
    """What `health` calls a store."""
    return names_of([connect(url).store])[0]


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def test_the_walk_through_on_files(urls: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    await walk_through(*urls, capsys)


async def test_the_walk_through_on_both_clouds(cloud_urls: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    # DynamoDB Local takes a minute to add indexes to tables that it has already.
    dynamodb, firestore = cloud_urls
    await walk_through(firestore, dynamodb, capsys)


async def test_leaving_brings_the_new_store_everything_first(urls: tuple[str, str]) -> None:
    old, new = urls
    async with connect(old) as db:
        await db.provision()
    await write("s1", on=(old,))
    await function("add")(old, new)
    await function("leave")(old, new)  # which reconciles
    assert await sessions(new) == {"s1"}


@pytest.mark.parametrize(
    ("acks", "said"),
    [
        (1, "None as far as can be seen\n"),
        ("all", "stored on ('sqlite:///{old}',), not on ['sqlite:///{new}']\nNone as far as can be seen\n"),
    ],
)
async def test_what_callers_see_during_an_outage(
    joined: tuple[str, str], acks: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = joined
    second = FaultyStore(connect(new).store)
    async with connect(old, second, acks=acks) as db:
        second.down()
        await function("during_an_outage")(db, Session(session_id="s1"))
        assert capsys.readouterr().out == said.format(old=path_of(old), new=path_of(new))
        session = await db.sessions.get("s1")
        assert session is not None
        assert session.degraded
        second.up()
    assert (await run(command("health"), old, new))[0] == 1
    status, output = await run(command("reconcile"), old, new)
    assert (status, "1 hints were replayed." in output) == (0, True)
    assert await sessions(new) == {"s1"}


async def test_what_is_sure_is_said_while_both_stores_answer(
    joined: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with connect(*joined) as db:
        await function("during_an_outage")(db, Session(session_id="s1"))
    assert capsys.readouterr().out == "None for sure\n"


async def test_what_a_process_of_the_old_version_writes_is_found_by_the_next_comparison(
    joined: tuple[str, str],
) -> None:
    old, new = joined
    await write("s1", on=(old,))
    status, output = await run(command("reconcile"), old, new)
    assert (status, "Compared: what was written since the last time" in output) == (0, True)
    assert await sessions(new) == {"s1"}


async def test_what_a_process_of_the_old_version_deletes_comes_back(joined: tuple[str, str]) -> None:
    await write("s1", on=joined)
    await delete("s1", on=joined[:1])
    assert await sessions(*joined) == {"s1"}


async def test_a_store_that_joins_again_without_being_emptied_brings_back_what_was_deleted(
    joined: tuple[str, str],
) -> None:
    old, new = joined
    await write("s1", "s2", on=joined)
    await delete("s1", on=(new,))
    assert await sessions(new) == {"s2"}
    assert await sessions(new, old) == {"s1", "s2"}


async def test_a_store_that_is_emptied_and_joins_again_is_filled(joined: tuple[str, str]) -> None:
    old, new = joined
    await write("s1", "s2", on=joined)
    await run(command("forget"), name(old), new, "--yes")
    await delete("s1", on=(new,))
    path_of(old).unlink()
    await function("add")(new, old)
    status, output = await run(command("reconcile"), old, new)
    assert (status, "Compared: everything" in output) == (0, True)
    assert await sessions(old) == await sessions(new) == {"s2"}


async def test_only_a_full_comparison_fills_a_store_that_was_restored(joined: tuple[str, str], tmp_path: Path) -> None:
    old, new = joined
    shutil.copyfile(path_of(new), tmp_path / "backup")
    await write("s1", on=joined)
    shutil.copyfile(tmp_path / "backup", path_of(new))
    assert await sessions(new) == set()
    status, output = await run(commands()[-1], old, new)
    assert (status, "Compared: everything" in output) == (0, True)
    assert await sessions(new) == {"s1"}


def test_every_command_of_the_page_is_known_here() -> None:
    assert [" ".join(each) for each in commands()] == [
        "schema firestore",
        f"reconcile {_OLD} {_NEW} --rate 500",
        f"health {_OLD} {_NEW}",
        f"forget {_OLD} {_NEW}",
        f"reconcile {_OLD} {_NEW} --full",
    ]
    assert len(re.findall(r"```python\n", _PAGE)) == 5
