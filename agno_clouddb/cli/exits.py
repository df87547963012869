"""How commands end: their exit status, and what they say in place of a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from agno_clouddb.errors import CloudDBError, ConfigurationError

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "exits", "failure"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def failure(message: str, status: int) -> typer.Exit:
    """Print what is wrong to stderr.

    Returns:
        What is to be raised to end the command with the status.
    """
    typer.echo(f"agno-clouddb: {message}", err=True)
    return typer.Exit(status)


def _nothing() -> str:
    return ""


@contextmanager
def exits(status: int, *, afterwards: Callable[[], str] = _nothing) -> Iterator[None]:
    """End the command with a line on stderr when the block raises an error of the library, or is interrupted.

    Args:
        status: the exit status of errors; that of ConfigurationError, which the arguments cause, is 2 in any case. Of
            an interruption it is 130.
        afterwards: what to say of the work that was done until then; empty: nothing.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("; ".join(filter(None, ("interrupted", afterwards()))), err=True)
        raise typer.Exit(INTERRUPTED) from None
    except CloudDBError as error:
        ended = failure(str(error), USAGE if isinstance(error, ConfigurationError) else status)
        if afterwards():
            typer.echo(afterwards(), err=True)
        raise ended from error
