"""The commands that import what agno's own databases have written: agno-dynamodb and agno-firestore."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from agno_clouddb.cli import report
from agno_clouddb.cli.exits import FAILED, USAGE, exits, failure
from agno_clouddb.database import connect

if TYPE_CHECKING:
    from agno_clouddb.integrations.agno.importing import ImportReport

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)

_LINE_SECONDS = 10.0  # between two lines about one kind, where there is no terminal

_Targets = Annotated[
    list[str], typer.Argument(metavar="URL...", help="Where to: the stores of the Database, as `connect` takes them.")
]
_Names = Annotated[
    list[str] | None,
    typer.Option(
        "--table",
        metavar="KIND=NAME",
        help="The table or collection of a kind, where it is not agno's own: sessions, runs, memories, knowledge, "
        "evals, metrics, traces or spans. Give it several times for several.",
    ),
]
_Only = Annotated[
    list[str] | None,
    typer.Option(metavar="KIND", help="Import this kind only; several times for several. Runs come with sessions."),
]
_Prefix = Annotated[
    str, typer.Option(metavar="TEXT", help="What precedes the names of the target's tables, unless a URL says so.")
]
_CheckpointFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        help="Where to keep how far it has come, to go on there after a stop. By default a file in this folder, named "
        "after source and target. It is removed at the end.",
    ),
]
_Rate = Annotated[float | None, typer.Option(metavar="RECORDS", help="Records read a second, at most.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only compare; write nothing.")]
_NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not compare all of it after the import.")]
_Provision = Annotated[bool, typer.Option("--provision", help="Create the target's missing tables before.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command("agno-dynamodb")
def agno_dynamodb(
    targets: _Targets,
    source: Annotated[
        str, typer.Option(metavar="URL", help="Where agno's tables are: dynamodb://REGION[?endpoint_url=…].")
    ],
    table: _Names = None,
    only: _Only = None,
    prefix: _Prefix = "agno_clouddb_",
    checkpoint: _CheckpointFile = None,
    rate: _Rate = None,
    dry_run: _DryRun = False,
    no_verify: _NoVerify = False,
    provision: _Provision = False,
    as_json: _Json = False,
) -> None:
    """Import the tables that agno's DynamoDb has written. They are only read.

    What is newer in the target stays, so that it may be run again, and while both are in use. Exits with 0 when all
    that the source has is in the target; with 1 when something is not or, with --dry-run, not yet; with 2 when an
    argument is wrong, or a service does not answer: run it again to go on.
    """
    options = _Options(targets, source, table, only, prefix, checkpoint, rate, dry_run, no_verify, provision)
    _import("dynamodb://", options, as_json)


@app.command("agno-firestore")
def agno_firestore(
    targets: _Targets,
    source: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Where agno's collections are: firestore://PROJECT[/DATABASE][?emulator_host=…]."
        ),
    ],
    table: _Names = None,
    only: _Only = None,
    prefix: _Prefix = "agno_clouddb_",
    checkpoint: _CheckpointFile = None,
    rate: _Rate = None,
    dry_run: _DryRun = False,
    no_verify: _NoVerify = False,
    provision: _Provision = False,
    as_json: _Json = False,
) -> None:
    """Import the collections that agno's FirestoreDb has written. They are only read.

    What is newer in the target stays, so that it may be run again, and while both are in use. Exits with 0 when all
    that the source has is in the target; with 1 when something is not or, with --dry-run, not yet; with 2 when an
    argument is wrong, or a service does not answer: run it again to go on.
    """
    options = _Options(targets, source, table, only, prefix, checkpoint, rate, dry_run, no_verify, provision)
    _import("firestore://", options, as_json)


class _Options:
    """The arguments of either command."""

    def __init__(
        self,
        targets: Sequence[str],
        source: str,
        table: Sequence[str] | None,
        only: Sequence[str] | None,
        prefix: str,
        checkpoint: Path | None,
        rate: float | None,
        dry_run: bool,
        no_verify: bool,
        provision: bool,
    ) -> None:
        self.targets, self.source, self.prefix = targets, source, prefix
        self.tables = _named(table or ())
        self.only = only
        self.rate, self.dry_run, self.verify, self.provision = rate, dry_run, not no_verify, provision
        named = json.dumps([source, sorted(self.tables.items()), sorted(targets), prefix, only, dry_run])
        default = Path(f"agno-import-{sha256(named.encode()).hexdigest()[:12]}.json")
        self.checkpoint = checkpoint if checkpoint is not None else default


def _named(pairs: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for pair in pairs:
        kind, equals, name = pair.partition("=")
        if not equals or not name:
            raise failure(f"--table {pair}: write KIND=NAME, such as sessions=my_sessions", USAGE)
        names[kind] = name
    return names


def _import(scheme: str, options: _Options, as_json: bool) -> None:
    if not options.source.startswith(scheme):
        raise failure(f"--source {options.source}: this command reads {scheme}…", USAGE)
    try:
        from agno_clouddb.integrations.agno.importing import KINDS, import_agno
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "agno_clouddb":
            raise
        raise failure(f'this needs the package {package}: run `pip install "agno_clouddb[agno,cli]"`', USAGE) from error
    shown = _Shown(report.console(stderr=True))
    if options.checkpoint.exists():
        typer.echo(f"going on from {options.checkpoint}", err=True)

    async def run() -> ImportReport:
        async with connect(*options.targets, prefix=options.prefix) as db:
            if options.provision and not options.dry_run:
                await db.provision()
            return await import_agno(
                options.source,
                db,
                tables=options.tables,
                kinds=options.only or KINDS,
                checkpoint=options.checkpoint,
                rate=options.rate,
                dry_run=options.dry_run,
                verify=options.verify,
                progress=shown,
            )

    with exits(USAGE, afterwards=lambda: _afterwards(shown.report, options)):
        done = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps({"complete": done.complete, **asdict(done)}, indent=2))
    else:
        _print(done)
    raise typer.Exit(0 if done.complete else FAILED)


def _afterwards(last: ImportReport | None, options: _Options) -> str:
    if last is None or last.dry_run:
        return ""
    return f"what was written stays, and the same command goes on from {options.checkpoint}"


class _Shown:
    """Shows how far an import has come, a line now and then.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.report: ImportReport | None = None
        self._console = console
        self._line_of = ""
        self._line_at = 0.0

    def __call__(self, told: ImportReport) -> None:
        self.report = told
        if told.phase == "done" or not told.under_way:
            return
        kind = next(reversed([each for each in told.under_way if each != "runs"]), "")
        doing = f"{'comparing' if told.dry_run or told.phase == 'verification' else 'importing'} {kind}"
        now = time.monotonic()
        if doing != self._line_of or now - self._line_at >= _LINE_SECONDS:
            self._line_of, self._line_at = doing, now
            counts = [f"{told.under_way[each].read:,} {each}" for each in told.under_way]
            self._console.print(f"{doing}: {', '.join(counts)} read", soft_wrap=True)


def _print(done: ImportReport) -> None:
    console = report.console()
    console.print(_table("Compared; nothing was written" if done.dry_run else "Imported", done, done.imported))
    if done.verified:
        console.print(_table("Read again and compared", done, done.verified))
    if done.absent:
        console.print(f"The source has no table of {', '.join(done.absent)}.", soft_wrap=True)
    if done.without_session:
        console.print(
            f"{done.without_session:,} runs in the source have no session there, and are not imported.", soft_wrap=True
        )
    for each in done.failures:
        console.print(f"{each.kind} {each.id}: {each.error}", style="red", soft_wrap=True)
    if done.complete:
        said = "All that the source has is in the target."
    elif done.dry_run:
        said = "Not all that the source has is in the target."
    else:
        said = "Not all that the source has is in the target: run it again, or see above what it cannot hold."
    console.print(said, soft_wrap=True)


def _table(title: str, done: ImportReport, tallies: Any) -> Table:
    written = not done.dry_run and tallies is done.imported
    table = Table(title=title, title_justify="left")
    table.add_column("kind")
    headings = ("written", "replaced") if written else ("missing", "different")
    for heading in ("read", *headings, "equal", "newer there", "skipped", "invalid"):
        table.add_column(heading, justify="right")
    for kind, each in tallies.items():
        wrong = each.invalid or (not written and (each.missing or each.older))
        numbers = (each.read, each.missing, each.older, each.equal, each.newer, each.skipped, each.invalid)
        table.add_row(kind, *(f"{number:,}" for number in numbers), style="red" if wrong else None)
    return table
