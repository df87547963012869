"""Coming from agno's own DynamoDb and FirestoreDb. Needs the extra ``agno``."""

from __future__ import annotations

from agno_clouddb.integrations.agno.importing.dual import DualRunDb
from agno_clouddb.integrations.agno.importing.dynamodb import DynamoDBSource
from agno_clouddb.integrations.agno.importing.firestore import FirestoreSource
from agno_clouddb.integrations.agno.importing.importer import import_agno
from agno_clouddb.integrations.agno.importing.report import Failure, ImportReport, Tally
from agno_clouddb.integrations.agno.importing.sources import KINDS, Source

__all__ = [
    "KINDS",
    "DualRunDb",
    "DynamoDBSource",
    "Failure",
    "FirestoreSource",
    "ImportReport",
    "Source",
    "Tally",
    "import_agno",
]
