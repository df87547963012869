"""The commands that look after the stores of a fan-out: reconcile, health and forget."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.status import Status

from agno_clouddb.cli import report
from agno_clouddb.cli.comparing import Comparing
from agno_clouddb.cli.exits import FAILED, USAGE, exits, failure
from agno_clouddb.database import connect
from agno_clouddb.fanout.health import Health
from agno_clouddb.fanout.reconcile import Reconciliation

__all__ = ["COMMANDS", "forget", "health", "reconcile"]

_Urls = Annotated[
    list[str], typer.Argument(metavar="URL...", help="The stores of the fan-out, as `connect` takes them.")
]
_Prefix = Annotated[
    str, typer.Option(metavar="TEXT", help="What precedes the names of tables and collections, unless a URL says so.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def reconcile(
    urls: _Urls,
    prefix: _Prefix = "agno_",
    full: Annotated[
        bool, typer.Option("--full", help="Compare everything, not only what was written since the last time.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report; change nothing.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(metavar="UNITS", help="Items read and written a second, over all stores, at most."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make the stores hold the same: bring them what they are known to have missed, then compare and mend.

    The first one of these stores always compares everything, and one that was stopped goes on where it was. It may run
    while the stores are in use. Exits with 0 when all stores hold the same now; with 1 when something could not be
    mended or, with --dry-run, differs; with 2 when an argument is wrong, or a store does not answer.
    """
    _require_several(urls)
    shown = Comparing(report.console(stderr=True))

    async def run() -> tuple[Reconciliation, Health]:
        async with connect(*urls, prefix=prefix) as db:
            done = await db.reconcile(full=full, dry_run=dry_run, rate=rate, progress=shown)
            return done, await db.health()

    with exits(USAGE, afterwards=lambda: _afterwards(shown.report)), shown:
        done, after = asyncio.run(run())
    waiting = _hints(after)
    alike = waiting == 0 and not (_differing(done) if dry_run else done.total.failed)
    if as_json:
        typer.echo(json.dumps(_as_json(done, waiting, alike), indent=2))
    else:
        console = report.console()
        console.print(report.reconciliation_table(done))
        console.print(_sum(done, waiting, alike), soft_wrap=True)
        if done.error is not None:
            console.print(f"not mended, for one: {done.error}", style="red", soft_wrap=True)
    raise typer.Exit(0 if alike else FAILED)


def health(urls: _Urls, prefix: _Prefix = "agno_", as_json: _Json = False) -> None:
    """Print how the stores are: in use or not, what each has missed and since when, and when they were compared.

    Exits with 0 when every store answers, has missed nothing, and was compared with the others once; with 1 when not;
    with 2 when an argument is wrong.
    """
    _require_several(urls)

    async def run() -> Health:
        async with connect(*urls, prefix=prefix) as db:
            return await db.health()

    with exits(USAGE):
        found = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps(_health_as_json(found), indent=2))
    else:
        console = report.console()
        console.print(report.health_table(found))
        for store in found.stores:
            if store.last_error is not None:
                console.print(f"{store.name}: {store.last_error}", style="red", soft_wrap=True)
        if _hints(found) is None and all(store.answers for store in found.stores):
            console.print("What stores have missed cannot be read: call `await db.provision()` once", style="red")
        at = found.reconciled_at
        console.print(f"reconciled up to: {report.when(at) if at is not None else 'never'}", soft_wrap=True)
        if found.compared is not None:
            console.print(f"a full comparison is under way or was stopped: {found.compared:,} records so far")
    raise typer.Exit(0 if found.ok else FAILED)


def forget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The store that has left, by its name in `health`.")],
    urls: _Urls,
    prefix: _Prefix = "agno_",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Discard what the stores keep for another that was removed for good: the hints of what it has missed.

    Connected again later, that store is compared whole. Empty it before, or what was deleted meanwhile comes back.
    Doing it twice does no harm. A name for which nothing was ever kept is an error that says for which names there is
    something. Exits with 0 when it is done; with 1 when you say no; with 2 when an argument is wrong, or a store does
    not answer.
    """
    if not yes:
        typer.confirm(f"Discard what is kept for {name}? It cannot be brought what it has missed any more.", abort=True)
    discarded = 0

    async def run(status: Status) -> int:
        def tell(count: int) -> None:
            nonlocal discarded
            discarded = count
            status.update(f"{count:,} hints discarded")

        async with connect(*urls, prefix=prefix) as db:
            return await db.forget_store(name, progress=tell)

    with (
        exits(USAGE, afterwards=lambda: "run it again to discard the rest" if discarded else ""),
        report.console(stderr=True).status("connecting …") as status,
    ):
        count = asyncio.run(run(status))
    typer.echo(f"{count:,} hints discarded")


COMMANDS = (reconcile, health, forget)


def _require_several(urls: list[str]) -> None:
    if len(urls) < 2:
        raise failure("name two stores or more: one alone has nothing to be compared with", USAGE)


def _hints(found: Health) -> int | None:
    """How many hints are kept of writes that stores have missed; None: not all could be counted."""
    counts = [store.hints for store in found.stores]
    return None if None in counts else sum(count for count in counts if count is not None)


def _differing(done: Reconciliation) -> int:
    return done.total.missing + done.total.stale


def _sum(done: Reconciliation, waiting: int | None, alike: bool) -> str:
    """The result in a sentence or two."""
    known = "an unknown number of" if waiting is None else f"{waiting:,}"
    if done.dry_run:
        found = f"{_differing(done):,} records differ, and {known} hints are kept of what stores have missed."
        return f"{found} Nothing was changed." if not alike else "The stores hold the same."
    replayed = f"{done.replayed:,} hints were replayed."
    if alike:
        return f"{replayed} The stores hold the same now."
    return f"{replayed} {done.total.failed:,} records could not be mended, and {known} hints are left."


def _afterwards(last: Reconciliation | None) -> str:
    """What holds after a reconciliation that has not come to its end."""
    if last is None:
        return ""
    if last.dry_run:
        return "nothing was changed"
    if last.kind == "full":
        return "what was mended stays, and the next run goes on from there"
    return "what was mended stays, and the next run compares the same again"


def _as_json(done: Reconciliation, waiting: int | None, alike: bool) -> dict[str, Any]:
    return {
        "alike": alike,
        "kind": done.kind,
        "dry_run": done.dry_run,
        "replayed": done.replayed,
        "collections": {name: asdict(each) for name, each in done.collections.items()},
        "error": str(done.error) if done.error is not None else None,
        "done": done.done,
        "total": asdict(done.total),
        "hints": waiting,
    }


def _health_as_json(found: Health) -> dict[str, Any]:
    stores = [
        {
            "name": store.name,
            "state": store.state,
            "answers": store.answers,
            "last_error": str(store.last_error) if store.last_error is not None else None,
            "latency": store.latency,
            "hints": store.hints,
            "replication_lag": store.replication_lag,
        }
        for store in found.stores
    ]
    at = found.reconciled_at
    return {
        "ok": found.ok,
        "stores": stores,
        "reconciled_at": at.isoformat() if at is not None else None,
        "compared": found.compared,
    }
