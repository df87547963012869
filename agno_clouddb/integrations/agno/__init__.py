"""The drop-in asynchronous database for agno. Needs the extra ``agno``."""

from __future__ import annotations

try:
    import agno.db.base as _base
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "agno is not installed: pip install 'agno_clouddb[agno]'", name=error.name, path=error.path
    ) from error

from agno_clouddb.integrations.agno.clouds import AsyncDynamoDb, AsyncFirestoreDb
from agno_clouddb.integrations.agno.database import AsyncCloudDb

__all__ = ["AsyncCloudDb", "AsyncDynamoDb", "AsyncFirestoreDb"]

del _base
