"""The entry point of the agno-clouddb command: says what to install where the extra ``cli`` is missing."""

from __future__ import annotations

import sys

__all__ = ["app"]

_EXTRA = frozenset({"typer", "rich", "click"})


def app() -> None:
    """Run the command line in ``sys.argv`` and exit with its status."""
    try:
        from agno_clouddb.cli.commands import app as commands
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        sys.exit(f'agno-clouddb needs the package {package}: run `pip install "agno_clouddb[cli]"`')
    commands(prog_name="agno-clouddb")


if __name__ == "__main__":
    app()
