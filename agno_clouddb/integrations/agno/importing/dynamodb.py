"""DynamoDBSource: the tables that agno's DynamoDb has written. It sends Scan, Query and DescribeTable only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio

from agno_clouddb.errors import ConfigurationError, LifecycleError, NotProvisioned, StoreUnavailable
from agno_clouddb.integrations.agno.importing.sources import IDS, Row, Rows, Source, tables
from agno_clouddb.stores.dynamodb.calls import Call, Rejected
from agno_clouddb.stores.dynamodb.store import DynamoDBStore
from agno_clouddb.stores.usage import Usage

if TYPE_CHECKING:
    import aioboto3

    from agno_clouddb.stores.dynamodb.client import Client

__all__ = ["DynamoDBSource", "decoded"]

_PAGE = 100  # items; a page has 1 MB at most
_DEADLINE = 30.0  # seconds that one page may take
_MISSING = "ResourceNotFoundException"
_RUNS_INDEX = "session_id-created_at-index"

_JSON = frozenset(
    {
        "session_data",
        "agent_data",
        "team_data",
        "workflow_data",
        "metadata",
        "summary",
        "runs",
        "run_data",
        "topics",
        "eval_data",
        "eval_input",
        "token_metrics",
        "model_metrics",
        "attributes",
        "extra_data",
    }
)
"""The columns that are JSON, which agno keeps as text. Others are text, even if it looks like JSON."""


class DynamoDBSource(Source):
    """Tables of agno's DynamoDb.

    Args:
        region: the AWS region; by default AWS_REGION's, or the profile's.
        endpoint_url: another address than the region's own; on loopback any credentials do.
        session: the session to take credentials and region from, instead of the environment's.
        names: names of tables by kind, where they are not agno's own.
    """

    def __init__(
        self,
        region: str | None = None,
        *,
        endpoint_url: str | None = None,
        session: aioboto3.Session | None = None,
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        # The store knows what a region is called when none is named, and whether an address is an emulator's.
        place = DynamoDBStore(region, endpoint_url=endpoint_url)
        self.name = place.name
        self.tables = tables(names)
        self._place = place
        self._session = session
        self._client: Client | None = None

    async def open(self) -> None:
        if self._client is not None:
            return
        await asyncio.to_thread(import_module, "agno_clouddb.stores.dynamodb.client")
        from agno_clouddb.stores.dynamodb.client import Client

        self._client = await Client.open(
            self.name,
            region=self._place._region,
            endpoint_url=self._place._endpoint_url,
            local=self._place._local,
            session=self._session,
            slim=False,  # which reads items of this library's own shape
            deadline=_DEADLINE,
            usage=Usage(),
            report_capacity=False,
        )

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def there(self, kind: str) -> bool:
        try:
            await self._send("describe_table", kind, {})
        except Rejected:
            return False
        return True

    async def page(self, kind: str, place: str | None) -> Rows:
        request: dict[str, Any] = {"Limit": _PAGE, "ConsistentRead": True}
        if place is not None:
            request["ExclusiveStartKey"] = _start(place, IDS[kind])
        try:
            answer = await self._send("scan", kind, request)
        except Rejected as rejected:
            raise self._missing(kind) from rejected
        return Rows(tuple(decoded(item) for item in answer["Items"]), _place(answer.get("LastEvaluatedKey")))

    async def runs(self, session_id: str, *, order_only: bool = False) -> AsyncGenerator[tuple[Row, ...], None]:
        # By the index that agno itself reads them by: what is not in it agno does not show either.
        request: dict[str, Any] = {
            "IndexName": _RUNS_INDEX,
            "KeyConditionExpression": "session_id = :id",
            "ExpressionAttributeValues": {":id": {"S": session_id}},
        }
        if order_only:
            request["ProjectionExpression"] = "run_id, run_index, created_at"
        while True:
            try:
                answer = await self._send("query", "runs", request)
            except Rejected:
                return
            yield tuple(decoded(item) for item in answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def count(self, kind: str) -> int:
        total = 0
        request: dict[str, Any] = {"Select": "COUNT"}
        while True:
            try:
                answer = await self._send("scan", kind, request)
            except Rejected:
                return 0
            total += int(answer["Count"])
            if "LastEvaluatedKey" not in answer:
                return total
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _send(self, operation: str, kind: str, request: Mapping[str, Any]) -> Any:
        if self._client is None:
            raise LifecycleError("the source is not open", store=self.name)
        call = Call(anyio.current_time() + _DEADLINE, self.tables[kind])
        try:
            return await self._client.send(
                operation, {"TableName": self.tables[kind], **request}, call, expect=frozenset({_MISSING})
            )
        except StoreUnavailable as error:
            raise await self._unreached(error) from error

    async def _unreached(self, error: StoreUnavailable) -> StoreUnavailable | ConfigurationError:
        """A more telling error where the region is none that the driver knows: its endpoint has no address."""
        assert self._client is not None
        region = self._client.driver.meta.region_name
        if self._place._endpoint_url is not None or region in await _regions():
            return error
        return ConfigurationError(
            f"the AWS region {region} is not known, and does not answer",
            store=self.name,
            remedy="Name the region that agno's tables are in, such as dynamodb://us-east-1",
        )

    def _missing(self, kind: str) -> NotProvisioned:
        return NotProvisioned(
            "the source has no such table",
            store=self.name,
            collection=self.tables[kind],
            remedy=f"Check the region, and name the table of {kind} where it is not agno's own",
        )


async def _regions() -> frozenset[str]:
    import boto3

    def known() -> frozenset[str]:
        session = boto3.Session()
        names = [
            session.get_available_regions("dynamodb", partition_name=partition)
            for partition in session.get_available_partitions()
        ]
        return frozenset(region for each in names for region in each)

    return await asyncio.to_thread(known)


def _place(key: dict[str, Any] | None) -> str | None:
    return None if key is None else str(next(iter(key.values()))["S"])


def _start(place: str, id_column: str) -> dict[str, Any]:
    return {id_column: {"S": place}}


def decoded(item: Mapping[str, Any]) -> Row:
    """An item of agno's tables as a row."""
    return {name: _value(name, attribute) for name, attribute in item.items()}


def _value(name: str, attribute: Mapping[str, Any]) -> Any:
    kind, value = next(iter(attribute.items()))
    match kind:
        case "S":
            return _json(value) if name in _JSON else value
        case "N":
            return _number(value)
        case "NULL":
            return None
        case "M":
            return {key: _value("", each) for key, each in value.items()}
        case "L":
            return [_value("", each) for each in value]
        case "SS":
            return sorted(value)
        case "NS":
            return [_number(each) for each in value]
        case _:
            return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _number(text: str) -> int | float:
    return float(text) if any(mark in text for mark in ".eE") else int(text)
