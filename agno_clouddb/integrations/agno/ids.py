"""Ids: those that agno may ask for though no record can have them. They are answered as those of absent records are."""

from __future__ import annotations

from collections.abc import Iterable

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.records.base import plain
from agno_clouddb.repositories.records import checked_ids
from agno_clouddb.stores.items import check_id

__all__ = ["absent", "excluded", "possible"]


def absent(*ids: object) -> bool:
    """Whether no record has one of some ids, since none can: it is None, empty, too long or has control characters.

    What is of another type is left to whoever reads by it, who refuses it.
    """
    return any(each is None or not _possible(each) for each in ids)


def excluded(*filters: object) -> bool:
    """Whether no record matches some filters, since one of them is a text as no field has it; None: it is not given."""
    return any(each is not None and not _possible(each) for each in filters)


def possible(ids: Iterable[str]) -> list[str]:
    """Those of some ids that a record can have.

    Raises:
        InvalidRecord: they are one text, and no list.
    """
    return [each for each in checked_ids(ids) if not absent(each)]


def _possible(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        check_id("id", plain(value), "")
    except InvalidRecord:
        return False
    return True
