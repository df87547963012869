"""What AsyncCloudDb supports of agno's calls, as a table for the documents: ``python -m`` this module prints it."""

from __future__ import annotations

import inspect

from agno.db.base import AsyncBaseDb

from agno_clouddb.integrations.agno.database import AsyncCloudDb

__all__ = ["calls", "support_table"]


def calls() -> dict[str, bool]:
    """agno's coroutines by name, in alphabetical order, and whether AsyncCloudDb carries them out."""
    base = {name for name, each in vars(AsyncBaseDb).items() if inspect.iscoroutinefunction(each) and name[0] != "_"}
    own = {name for name, each in inspect.getmembers(AsyncCloudDb, inspect.iscoroutinefunction) if name[0] != "_"}
    return {name: _carried_out(name) for name in sorted(base | own - {"database"})}


def support_table() -> str:
    """The table in Markdown: call, whether it is supported, and the first sentence of its documentation."""
    rows = ["| call | supported | |", "| --- | --- | --- |"]
    for name, supported in calls().items():
        note = _sentence(getattr(AsyncCloudDb, name)) if supported else "as agno's base class has it"
        rows.append(f"| `{name}` | {'yes' if supported else 'no'} | {note} |")
    return "\n".join(rows)


def _carried_out(name: str) -> bool:
    return getattr(AsyncCloudDb, name) is not getattr(AsyncBaseDb, name, None)


def _sentence(call: object) -> str:
    paragraph = " ".join((inspect.getdoc(call) or "").partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    print(support_table())
