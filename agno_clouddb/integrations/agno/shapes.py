"""Shapes: agno's rows, and the records that keep them."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from agno.db.utils import CustomJSONEncoder

from agno_clouddb.errors import InvalidRecord
from agno_clouddb.stores.items import is_encodable

__all__ = ["bound", "moment", "now", "plain_json", "seconds"]

_log = logging.getLogger(__name__)


def moment(seconds: float | None, name: str = "created_at") -> datetime | None:
    """Seconds since the epoch, as agno has them, as a moment; None for None.

    Raises:
        InvalidRecord: what is called ``name`` is no number, or is beyond the year 9999, as milliseconds are.
    """
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise InvalidRecord(name, f"is {seconds!r}, not seconds since the epoch before the year 10000") from error


def bound(seconds: float | None) -> datetime | None:
    """The bound of a filter by time, as a moment: one beyond all years is the first or the last of them."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)


def seconds(moment: datetime | None) -> int | None:
    """A moment in whole seconds since the epoch, as agno has them."""
    return None if moment is None else int(moment.timestamp())


def now() -> int:
    """Whole seconds since the epoch."""
    return int(time.time())


def plain_json(value: Any) -> Any:
    """A value as agno's own databases keep it: moments, ids and metrics as JSON has them, keys as texts.

    What no cloud can hold is replaced, and a warning is logged: lone surrogates by U+FFFD, NaN and infinities by None.
    A model may answer with the one, and a tool with the other; the run is not to be lost for it.

    Raises:
        TypeError, ValueError: it has something that agno cannot encode either.
    """
    text = json.dumps(value, cls=CustomJSONEncoder, ensure_ascii=False)
    if not is_encodable(text):
        _log.warning("a lone surrogate, which is no character, is stored as U+FFFD")
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.loads(text, parse_constant=_no_number)


def _no_number(name: str) -> None:
    _log.warning("%s, which JSON has not, is stored as null", name)
