"""Waiting for indexes, by the Firestore Admin API. Imported when indexes are waited for.

It lists composite indexes, and those of single fields by the fields whose indexes are not the automatic ones:
https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.admin.v1#listindexesrequest and
#listfieldsrequest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from google.cloud.firestore_admin_v1.types import (
    Index,
    ListFieldsRequest,
    ListFieldsResponse,
    ListIndexesRequest,
    ListIndexesResponse,
)

from agno_clouddb.errors import ConfigurationError, IndexNotReady
from agno_clouddb.stores.base import Progress
from agno_clouddb.stores.firestore.client import Connection
from agno_clouddb.stores.firestore.faults import Fault
from agno_clouddb.stores.firestore.indexes import Composite

__all__ = ["MAX_WAIT_SECONDS", "IndexService", "State", "await_indexes"]

MAX_WAIT_SECONDS = 1800.0
"""How long indexes are waited for. Those of empty collections take minutes."""

State = Literal["building", "ready", "needs repair"]

_SERVICE = "/google.firestore.admin.v1.FirestoreAdmin"
_OVERRIDDEN = "indexConfig.usesAncestorConfig:false"
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 15.0
_STATES: Mapping[int, State] = {
    Index.State.CREATING: "building",
    Index.State.READY: "ready",
    Index.State.NEEDS_REPAIR: "needs repair",
}
_PREFERENCE: Sequence[State] = ("needs repair", "building", "ready")

_List = tuple[str, Any, type[Any]]
_INDEXES: _List = (f"{_SERVICE}/ListIndexes", ListIndexesRequest.pb(), ListIndexesResponse.pb())
_FIELDS: _List = (f"{_SERVICE}/ListFields", ListFieldsRequest.pb(), ListFieldsResponse.pb())

_States = Callable[[], Awaitable[Mapping[Composite, State]]]


class IndexService:
    """Asks the Admin API, over the channel and with the credentials of a store.

    Args:
        connection: where requests go.
        store: the store's name, for errors.
        deadline: seconds within which a request ends.
    """

    def __init__(self, connection: Connection, store: str, deadline: float) -> None:
        self._connection = connection
        self._store = store
        self._deadline = deadline

    async def states(self, wanted: Sequence[Composite]) -> dict[Composite, State]:
        """How far indexes of the database are; those of other kinds than this library deploys are left out.

        Args:
            wanted: what is looked for. Single fields are asked about only where one of these is of a collection group.

        Raises:
            ConfigurationError: the credentials do not allow it.
            NotProvisioned, Throttled, StoreUnavailable: as in reads of the store.
        """
        found = [(index, _composite(index)) for page in await self._pages(_INDEXES) for index in page.indexes]
        if any(each.whole_group for each in wanted):
            fields = [each for page in await self._pages(_FIELDS, filter=_OVERRIDDEN) for each in page.fields]
            found += [(index, _of_group(each, index)) for each in fields for index in each.index_config.indexes]
        states: dict[Composite, State] = {}
        for index, composite in found:
            state = _STATES.get(index.state, "building")
            # Two indexes may serve alike, since an equality field may have either direction.
            if composite is not None and _rank(state) >= _rank(states.get(composite, "needs repair")):
                states[composite] = state
        return states

    async def _pages(self, method: _List, **options: str) -> list[Any]:
        """All pages of a list of the whole database."""
        path, request_type, response_type = method
        request = request_type(parent=f"{self._connection.database}/collectionGroups/-", **options)
        pages = [await self._list(path, request, response_type)]
        while pages[-1].next_page_token:
            request.page_token = pages[-1].next_page_token
            pages.append(await self._list(path, request, response_type))
        return pages

    async def _list(self, path: str, request: Any, response_type: type[Any]) -> Any:
        until = asyncio.get_running_loop().time() + self._deadline
        try:
            return await self._connection.ask(path, request, response_type, until)
        except Fault as fault:
            if fault.code == "PERMISSION_DENIED":
                raise ConfigurationError(
                    f"the indexes cannot be listed; Firestore answered {fault}",
                    store=self._store,
                    remedy="The account needs the permission datastore.indexes.list, which the roles "
                    "roles/datastore.viewer and roles/datastore.indexAdmin have",
                ) from fault.cause
            raise fault.error(self._store) from fault.cause


def _rank(state: State) -> int:
    return _PREFERENCE.index(state)


def _composite(index: Any) -> Composite | None:
    """The index in the terms of this library; None where it is of another kind than those that it deploys."""
    fields = list(index.fields)
    # The service adds `__name__`, which orders as the field before it does unless deployed otherwise.
    if fields and fields[-1].field_path == "__name__":
        name = fields.pop()
        if not fields or name.order != fields[-1].order:
            return None
    ordered = all(each.WhichOneof("value_mode") == "order" for each in fields)
    if index.query_scope != Index.QueryScope.COLLECTION or len(fields) != 2 or not ordered:
        return None
    field, sort = fields
    return Composite(_group(index.name), field.field_path, sort.field_path, _descends(sort))


def _of_group(field: Any, index: Any) -> Composite | None:
    """One of a field's own indexes in the terms of this library, if it orders a collection group."""
    ordered = [each for each in index.fields if each.WhichOneof("value_mode") == "order"]
    if index.query_scope != Index.QueryScope.COLLECTION_GROUP or len(ordered) != 1:
        return None
    return Composite(_group(field.name), None, field.name.rpartition("/")[2], _descends(ordered[0]), whole_group=True)


def _group(name: str) -> str:
    return str(name.split("/collectionGroups/")[1].split("/")[0])


def _descends(field: Any) -> bool:
    return bool(field.order == Index.IndexField.Order.DESCENDING)


async def await_indexes(
    states: _States,
    wanted: Sequence[Composite],
    store: str,
    progress: Progress | None,
    *,
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Return when all indexes are ready.

    Args:
        states: says how far the indexes of the database are; one that it leaves out is missing.
        wanted: the indexes.
        store: the store's name, for errors.
        progress: is told of every index that is not ready, and of every change; or that all are ready.
        pause: waits for some seconds.

    Raises:
        IndexNotReady: one is missing, has failed, or is not built within MAX_WAIT_SECONDS.
    """
    told: dict[Composite, State] = dict.fromkeys(wanted, "ready")
    waited, seconds = 0.0, _FIRST_PAUSE
    while wanted:
        found = await states()
        _require([each for each in wanted if each not in found], wanted, "missing", store)
        failed = [each for each in wanted if found[each] == "needs repair"]
        _require(failed, wanted, "to be deleted and deployed anew", store)
        unfinished = [each for each in wanted if found[each] != "ready"]
        ready = len(wanted) - len(unfinished)
        for each in wanted:
            if progress is not None and told[each] != found[each]:
                progress(f"{each}: {found[each]}, {ready} of {len(wanted)} ready")
            told[each] = found[each]
        if not unfinished:
            if progress is not None and not waited:
                progress(f"{store}: {ready} of {ready} indexes are ready")
            return
        if waited >= MAX_WAIT_SECONDS:
            _require(unfinished, wanted, f"still being built after {waited:.0f} seconds", store)
        await pause(seconds)
        waited += seconds
        seconds = min(seconds * 2, _LONGEST_PAUSE)


def _require(failing: Sequence[Composite], wanted: Sequence[Composite], state: str, store: str) -> None:
    if failing:
        names = "; ".join(map(str, failing))
        raise IndexNotReady(f"{len(failing)} of {len(wanted)} indexes are {state}: {names}", index=names, store=store)
