"""Creating tables and indexes, and waiting until they can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError, ConfigurationError, StoreUnavailable
from agno_clouddb.stores.dynamodb.calls import Call, Rejected
from agno_clouddb.stores.dynamodb.expressions import Request
from agno_clouddb.stores.dynamodb.tables import TTL_ATTRIBUTE, Table, TableIndex, definitions, index_request, key_schema

if TYPE_CHECKING:
    from agno_clouddb.stores.base import Progress
    from agno_clouddb.stores.dynamodb.client import Client

__all__ = ["PROVISION_SECONDS", "provision"]

PROVISION_SECONDS = 1800.0
"""How long tables and indexes may take: the service fills an index that is added to a large table for a while."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between two looks
_TTL_ON = frozenset({"ENABLED", "ENABLING"})
_MISSING = frozenset({"ResourceNotFoundException"})
# Another caller creates the same, or the service changes only so many tables at once: look again.
_BUSY = frozenset({"ResourceInUseException", "LimitExceededException", "ResourceNotFoundException"})
_INVALID = frozenset({"ValidationException"})


async def provision(
    client: Client, tables: Sequence[Table], store: str, deadline: float, progress: Progress | None = None
) -> None:
    """Create what is missing of ``tables``, all at the same time.

    Args:
        client: sends the requests.
        tables: what is to be there.
        store: the store's name, for errors.
        deadline: seconds within which the service must answer each request.
        progress: is told of each table what is done and what is waited for, once each.

    Raises:
        ConfigurationError: a table of that name has other keys or indexes, or the credentials do not allow it.
        StoreUnavailable: the service does not answer, or takes over half an hour.
    """
    await gather([_Provisioning(client, table, store, deadline, progress).run for table in tables])


class _Provisioning:
    """Brings one table into being, step by step, whatever others do with it meanwhile."""

    def __init__(self, client: Client, table: Table, store: str, deadline: float, progress: Progress | None) -> None:
        self._client = client
        self._table = table
        self._store = store
        self._deadline = deadline
        self._progress = progress
        self._told = ""

    async def run(self) -> None:
        with anyio.move_on_after(PROVISION_SECONDS):
            pause = _FIRST_PAUSE
            while not await self._step():
                await anyio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            await self._expire()
            self._tell("ready")
            return
        raise StoreUnavailable(
            f"the table {self._table.name} was not ready after {PROVISION_SECONDS:.0f} seconds",
            store=self._store,
            remedy="Look at the table's state in the console, and provision again",
        )

    async def _step(self) -> bool:
        """Do the next thing to be done; True when there is none."""
        try:
            described = (await self._send("describe_table", {}, _MISSING))["Table"]
        except Rejected:
            self._tell("creating")
            await self._change("create_table", self._table.create_request())
            return False
        self._check(described)
        present = {each["IndexName"]: each for each in described.get("GlobalSecondaryIndexes", ())}
        pending = [name for name, each in present.items() if each.get("IndexStatus", "ACTIVE") != "ACTIVE"]
        if pending or described["TableStatus"] != "ACTIVE":
            self._tell(f"waiting for {', '.join(sorted(pending)) or 'the table'}")
            return False
        missing = [index for index in self._table.global_ if index.name not in present]
        if missing:
            self._tell(f"adding {missing[0].name}")
            await self._add(missing[0], described)
        return not missing

    def _check(self, described: Mapping[str, Any]) -> None:
        self._compare("the table", described["KeySchema"], key_schema(*self._table.keys))
        indexes = ("LocalSecondaryIndexes", "GlobalSecondaryIndexes")
        present = {each["IndexName"]: each for kind in indexes for each in described.get(kind, ())}
        for index in (*self._table.local, *self._table.global_):
            if (found := present.get(index.name)) is None:
                continue
            self._compare(f"the index {index.name}", found["KeySchema"], key_schema(index.partition, index.sort))
            projection = found["Projection"]
            missing = set(index.include) - set(projection.get("NonKeyAttributes", ()))
            if missing and projection["ProjectionType"] != "ALL":
                raise self._mismatch(f"the index {index.name} lacks {', '.join(sorted(missing))}")
        for index in self._table.local:
            if index.name not in present:
                # The service adds no local index to a table that exists.
                raise self._mismatch(f"the index {index.name} is missing and can only be made with the table")

    def _compare(self, what: str, found: Sequence[Mapping[str, str]], wanted: Sequence[Mapping[str, str]]) -> None:
        keys = [{each["KeyType"]: each["AttributeName"] for each in schema} for schema in (found, wanted)]
        if keys[0] != keys[1]:
            raise self._mismatch(f"{what} has the keys {keys[0]} and not {keys[1]}")

    def _mismatch(self, problem: str) -> ConfigurationError:
        return ConfigurationError(
            f"the table {self._table.name} is of another kind: {problem}",
            store=self._store,
            remedy="Use another prefix, or move that table out of the way",
        )

    async def _add(self, index: TableIndex, described: Mapping[str, Any]) -> None:
        create = index_request(index)
        if described.get("BillingModeSummary", {}).get("BillingMode") != "PAY_PER_REQUEST":
            throughput = described.get("ProvisionedThroughput", {})
            units = {name: throughput.get(name) for name in ("ReadCapacityUnits", "WriteCapacityUnits")}
            create |= {"ProvisionedThroughput": units} if all(units.values()) else {}
        request = {
            "AttributeDefinitions": definitions({*self._table.keys, index.partition, index.sort}),
            "GlobalSecondaryIndexUpdates": [{"Create": create}],
        }
        await self._change("update_table", request)

    def _tell(self, line: str) -> None:
        if self._progress is not None and line != self._told:
            self._told = line
            self._progress(f"{self._table.name}: {line}")

    async def _change(self, operation: str, request: Request) -> None:
        try:
            await self._send(operation, request, _BUSY)
        except Rejected:
            return

    async def _expire(self) -> None:
        if await self._expires():
            return
        self._tell("turning on expiry")
        specification = {"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
        try:
            await self._send("update_time_to_live", {"TimeToLiveSpecification": specification}, _INVALID)
        except Rejected as rejected:
            # So the service answers the second of two callers; to others the reason matters.
            if not await self._expires():
                raise CloudDBError(
                    f"expiry cannot be turned on for the table {self._table.name}", store=self._store
                ) from rejected.__cause__

    async def _expires(self) -> bool:
        described = (await self._send("describe_time_to_live", {}, frozenset()))["TimeToLiveDescription"]
        if described.get("TimeToLiveStatus") not in _TTL_ON:
            return False
        if described.get("AttributeName") != TTL_ATTRIBUTE:
            raise self._mismatch(f"its items expire by {described.get('AttributeName')}")
        return True

    async def _send(self, operation: str, request: Request, expect: frozenset[str]) -> Any:
        call = Call(anyio.current_time() + self._deadline)
        with anyio.CancelScope(deadline=call.deadline):
            return await self._client.send(operation, {"TableName": self._table.name, **request}, call, expect=expect)
        raise self._client.late(call)
