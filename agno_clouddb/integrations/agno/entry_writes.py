"""Writes of entries: ids made of several texts, and rows that are written whether they are there or not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from agno_clouddb.integrations.agno.kept import indexed
from agno_clouddb.integrations.agno.taken import repeated
from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.entries import Entries

__all__ = ["digest", "named", "written"]


def digest(*texts: str) -> str:
    """What stands for several texts in an id: they may be long, and any text, or must not be shown.

    Returns:
        64 hexadecimal digits, SHA-256.
    """
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def named(kind: str, name: str) -> str:
    """What stands for a name, which may be any text, in an id or a field: its digest, where none can have the name."""
    text = f"{kind}:{name}"
    return text if indexed(text) is not None else f"{kind}:{digest(name)}"


async def written(entries: Entries, entry: Entry, change: Callable[[Entry], Entry]) -> Entry:
    """Write an entry where none is of its id, and change the one that is, in two requests.

    Args:
        entries: where.
        entry: what is written over nothing.
        change: makes of the stored entry what is written over it; it keeps the version.

    Returns:
        What is stored.

    Raises:
        ConflictError: others kept writing in between, for a hundred attempts.
    """

    async def write() -> Entry:
        stored = await entries.get(entry.id, consistency="strong")
        if stored is None:
            return await entries.create(entry)
        return await entries.upsert(change(stored), expected_version=stored.version)

    return await repeated(write)
