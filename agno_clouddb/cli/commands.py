"""The commands of agno-clouddb."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agno_clouddb import __version__
from agno_clouddb.cli import importing, replication, report
from agno_clouddb.cli.backends import Backend, started
from agno_clouddb.cli.conversations import Conversation, load
from agno_clouddb.cli.demo import Demo, recorded_conversations
from agno_clouddb.cli.exits import FAILED, USAGE, exits, failure
from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.dynamodb import templates
from agno_clouddb.stores.firestore import indexes

__all__ = ["app"]

app = typer.Typer(
    help="Persistence for AI agents on Amazon DynamoDB and Google Cloud Firestore, one or both at once.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
schema = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)
app.add_typer(importing.app, name="import", help="Import what agno's own databases have written.")
app.add_typer(schema, name="schema", help="Print tables and indexes, to deploy them by other means than code.")


class TemplateFormat(StrEnum):
    """What a template of tables is for."""

    cloudformation = "cloudformation"
    terraform = "terraform"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agno-clouddb {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run the command that is named."""


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Conversations to replay, one JSON object a line, instead of those that come with the library.",
        ),
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, metavar="N", help="How many conversations at once.")] = 32,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A store to write to instead of engines started for the demo; give it several times for a fan-out.",
        ),
    ] = None,
) -> None:
    """Replay recorded conversations onto both clouds at once and read them back from each.

    Starts DynamoDB Local (or moto) and the Firestore emulator on this machine, with SQLite in place of what is
    missing. Exits with 0 when everything was read back as it was recorded, with 1 when not, with 2 when an argument
    or the file is wrong.
    """
    console = report.console()
    conversations = _load(data or recorded_conversations())

    async def run() -> bool:
        # Within the event loop from the first engine on: an interruption cancels this, and comes nowhere in between.
        async with _backends(store or [], console) as backends:
            replay = Demo(backends, conversations, sessions, console)
            equal = await replay.run()
        if store:
            stays = f"What was written stays, under the prefix {replay.prefix} where a URL names none."
            console.print(stays, soft_wrap=True)
        return equal

    with exits(FAILED):
        equal = asyncio.run(run())
    console.print("Everything was read back as it was recorded." if equal else "Not everything was read back.")
    raise typer.Exit(0 if equal else FAILED)


for command in replication.COMMANDS:
    app.command()(command)


@schema.command("dynamodb")
def schema_dynamodb(
    format: Annotated[TemplateFormat, typer.Option(help="What the template is for.")] = TemplateFormat.cloudformation,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="What precedes the names of tables.")] = "agno_",
    fan_out: Annotated[
        bool, typer.Option("--fan-out", help="Also the table and the indexes that writing to two stores at once needs.")
    ] = False,
) -> None:
    """Print the tables of DynamoDB as a template for CloudFormation, or as a .tf.json file for Terraform."""
    template = {TemplateFormat.cloudformation: templates.cloudformation, TemplateFormat.terraform: templates.terraform}
    _print_schema(partial(template[format], fan_out=fan_out), prefix)


@schema.command("firestore")
def schema_firestore(
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="What precedes the names of collections.")] = "agno_",
) -> None:
    """Print the firestore.indexes.json that `firebase deploy --only firestore:indexes` takes."""
    _print_schema(indexes.firestore_indexes, prefix)


def _print_schema(make: Callable[[str], object], prefix: str) -> None:
    with exits(USAGE):
        typer.echo(json.dumps(make(prefix), indent=2))


def _load(path: Path) -> list[Conversation]:
    try:
        return load(path)
    except InvalidRecord as error:
        raise failure(str(error), USAGE) from error
    except OSError as error:
        raise failure(f"{path}: {error.strerror}", USAGE) from error


@asynccontextmanager
async def _backends(urls: Sequence[str], console: Console) -> AsyncIterator[list[Backend]]:
    """The stores that were named, or engines that end with the block."""
    if urls:
        yield [Backend(url.partition("?")[0], url) for url in urls]
        return

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    async with AsyncExitStack() as engines:
        with console.status("starting the engines …"):
            backends = await engines.enter_async_context(started(say))
        try:
            yield backends
        finally:
            say("stopping the engines …")
