"""FirestoreSource: the collections that agno's FirestoreDb has written. It sends queries only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from datetime import date, datetime
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agno_clouddb.errors import CloudDBError, ConfigurationError, LifecycleError
from agno_clouddb.integrations.agno.importing.sources import Row, Rows, Source, tables
from agno_clouddb.stores.firestore.store import FirestoreStore

if TYPE_CHECKING:
    from google.cloud.firestore_v1.async_client import AsyncClient

__all__ = ["FirestoreSource"]

_PAGE = 50  # documents; one has 1 MiB at most
_DEADLINE = 30.0  # seconds that one page may take
_ORDER = ("run_id", "run_index", "created_at")


class FirestoreSource(Source):
    """Collections of agno's FirestoreDb.

    Args:
        project: the project's id; by default that of the environment.
        database: the database's id.
        client: a ready client, used instead of one of its own and left open; its project and database hold.
        emulator_host: ``HOST:PORT`` of an emulator, which needs no credentials.
        names: names of collections by kind, where they are not agno's own.
    """

    def __init__(
        self,
        project: str | None = None,
        database: str = "(default)",
        *,
        client: AsyncClient | None = None,
        emulator_host: str | None = None,
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        # The store knows what a project is called when none is named.
        self._place = FirestoreStore(project, database, client=client, emulator_host=emulator_host)
        self.name = self._place.name
        self.tables = tables(names)
        self._given = client
        self._client: AsyncClient | None = None

    async def open(self) -> None:
        if self._client is not None:
            return
        await asyncio.to_thread(import_module, "agno_clouddb.stores.firestore.client")
        place = self._place
        self._client = client = await asyncio.to_thread(place._client)
        place._project = client.project
        self.name = place._describe()

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._given is None and client._firestore_api_internal is not None:
            await client._firestore_api_internal.transport.close()

    async def there(self, kind: str) -> bool:
        query = self._collection(kind).select([]).limit(1)
        return bool(await self._get(kind, query))

    async def page(self, kind: str, place: str | None) -> Rows:
        collection = self._collection(kind)
        query = collection.order_by("__name__").limit(_PAGE)
        if place is not None:
            if not place or "/" in place:
                raise ConfigurationError(f"{place!r} is no document", store=self.name, collection=self.tables[kind])
            query = query.start_after({"__name__": collection.document(place)})
        found = await self._get(kind, query)
        rows = tuple(_row(each.to_dict()) for each in found)
        return Rows(rows, found[-1].id if len(found) == _PAGE else None)

    async def runs(self, session_id: str, *, order_only: bool = False) -> AsyncGenerator[tuple[Row, ...], None]:
        from google.cloud.firestore_v1.base_query import FieldFilter

        collection = self._collection("runs")
        base = collection.where(filter=FieldFilter("session_id", "==", session_id))
        if order_only:
            base = base.select(_ORDER)
        query = base.order_by("__name__").limit(_PAGE)
        while True:
            found = await self._get("runs", query)
            yield tuple(_row(each.to_dict()) for each in found)
            if len(found) < _PAGE:
                return
            query = base.order_by("__name__").limit(_PAGE).start_after({"__name__": collection.document(found[-1].id)})

    async def count(self, kind: str) -> int:
        ((result,),) = await self._call(kind, self._collection(kind).count().get(timeout=_DEADLINE))
        return int(result.value)

    def _collection(self, kind: str) -> Any:
        if self._client is None:
            raise LifecycleError("the source is not open", store=self.name)
        return self._client.collection(self.tables[kind])

    async def _get(self, kind: str, query: Any) -> Any:
        return await self._call(kind, query.get(timeout=_DEADLINE))

    async def _call(self, kind: str, call: Any) -> Any:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        try:
            # The client itself would try again for five minutes.
            async with asyncio.timeout(_DEADLINE):
                return await call
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            raise self._error(kind, error) from error

    def _error(self, kind: str, error: Exception) -> CloudDBError:
        from agno_clouddb.stores.firestore.faults import Fault

        status = getattr(error, "grpc_status_code", None)
        code = status.name if status is not None else "UNAVAILABLE"
        details = str(error) or f"no answer within {_DEADLINE:g} seconds"
        return Fault(code, details, error).error(self.name, collection=self.tables[kind])


def _row(document: Mapping[str, Any]) -> Row:
    return {name: _plain(value) for name, value in document.items()}


def _plain(value: Any) -> Any:
    """A value as JSON has it: agno's own moments are numbers and texts, but users' data may have others."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return str(value)
