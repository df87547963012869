"""Shapes: agno's rows, and the records that keep them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from agno.db.utils import CustomJSONEncoder

__all__ = ["moment", "plain_json", "seconds"]


def moment(seconds: float | None) -> datetime | None:
    """Seconds since the epoch, as agno has them, as a moment; None for None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def seconds(moment: datetime | None) -> int | None:
    """A moment in whole seconds since the epoch, as agno has them."""
    return None if moment is None else int(moment.timestamp())


def now() -> int:
    """Whole seconds since the epoch."""
    return int(time.time())


def plain_json(value: Any) -> Any:
    """A value as agno's own databases keep it: moments, ids and metrics as JSON has them, keys as texts.

    Raises:
        TypeError, ValueError: it has something that agno cannot encode either.
    """
    return json.loads(json.dumps(value, cls=CustomJSONEncoder))
