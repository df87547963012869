"""The connection to the service: opens the driver's client, and sends requests with retries up to a deadline.

Imports the driver, which takes a while: the store loads this module when it is opened.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aioboto3
import aiobotocore
import anyio
from aiobotocore.config import AioConfig
from botocore import exceptions as boto

from agno_clouddb import __version__
from agno_clouddb.errors import ConfigurationError, LifecycleError, StoreUnavailable, Throttled
from agno_clouddb.stores.dynamodb.calls import CONCURRENCY, Call, Reason, Rejected, backoff
from agno_clouddb.stores.dynamodb.errors import DRIVER_ERRORS, code_of, error_of, fault_of
from agno_clouddb.stores.dynamodb.expressions import Request
from agno_clouddb.stores.usage import Usage

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

__all__ = ["Client"]

_LARGEST_BODY = 1_000_000  # bytes
_LOCAL_CREDENTIAL = "local"

_UNITS = {
    "get_item": "read",
    "batch_get_item": "read",
    "query": "read",
    "put_item": "write",
    "delete_item": "write",
    "batch_write_item": "write",
    "transact_write_items": "write",
}
"""The calls of the service that report units, and of which kind."""


class Client:
    """Sends requests to DynamoDB. Make one with ``open``.

    Args:
        client: the driver's client.
        stack: closes it.
        store: the store's name, for errors.
        usage: counts requests, and the units that the service reports.
        report_capacity: ask the service to report units.
    """

    def __init__(
        self, client: DynamoDBClient, stack: AsyncExitStack, store: str, usage: Usage, report_capacity: bool
    ) -> None:
        self.driver = client
        self._stack = stack
        self._store = store
        self._usage = usage
        self._report_capacity = report_capacity
        self._closed = False
        self._under_way = 0
        self._idle = asyncio.Event()

    @classmethod
    async def open(
        cls,
        store: str,
        *,
        region: str | None,
        endpoint_url: str | None,
        local: bool,
        session: aioboto3.Session | None,
        deadline: float,
        usage: Usage,
        report_capacity: bool,
    ) -> Client:
        """Open the driver's client; no request is sent.

        Args:
            store: the store's name, for errors.
            region: the region; by default that of the environment, the session or its profile.
            endpoint_url: another address than the region's own.
            local: an emulator listens there, which takes any credentials.
            session: the session to use instead of a default one.
            deadline: seconds that a call of the store may take, which a single request must not outlast.
            usage: counts requests, and the units that the service reports.
            report_capacity: ask the service to report units.

        Raises:
            ConfigurationError: region, credentials, profile or endpoint are missing or malformed.
        """
        stack = AsyncExitStack()
        try:
            used = session if session is not None else aioboto3.Session()
            region = region or _region(used, given=session is not None)
            if region is None:
                raise ConfigurationError(
                    "no AWS region is known", store=store, remedy="Name one in the URL or in AWS_REGION"
                )
            client: DynamoDBClient = await stack.enter_async_context(
                used.client(
                    "dynamodb",
                    region_name=region,
                    endpoint_url=endpoint_url,
                    config=_config(deadline),
                    aws_access_key_id=_LOCAL_CREDENTIAL if local else None,
                    aws_secret_access_key=_LOCAL_CREDENTIAL if local else None,
                )
            )
            client.meta.events.register("before-send.dynamodb", _stream)
            if not local:
                await _require_credentials(used, store)
        except BaseException as error:
            await stack.aclose()
            if isinstance(error, ValueError | boto.BotoCoreError):
                raise ConfigurationError(
                    f"the client cannot be made: {error}", store=store, remedy="Check region, profile and endpoint"
                ) from error
            raise
        return cls(client, stack, store, usage, report_capacity)

    async def aclose(self) -> None:
        """Close the connections, when the requests under way have ended; calls that would send more fail."""
        self._closed = True
        if self._under_way:
            await self._idle.wait()
        await self._stack.aclose()

    async def send(self, operation: str, request: Request, call: Call, *, expect: frozenset[str] = frozenset()) -> Any:
        """Send one request, again and again while that may help, and return the service's answer.

        Args:
            operation: the driver's method, such as ``put_item``.
            request: its parameters; repeated unchanged.
            call: the call of the store that it is a part of; learns when an answer stays out.
            expect: codes to raise as Rejected.

        Raises:
            Rejected: the service answered with a code in ``expect``.
            CloudDBError: the library's error for anything else.
        """
        method = getattr(self.driver, operation)
        if self._report_capacity and operation in _UNITS:
            request = {**request, "ReturnConsumedCapacity": "TOTAL"}
        attempt = 0
        while True:
            self._usage.requests[self.driver.meta.method_to_api_mapping[operation]] += 1
            known, call.unknown = call.unknown, True
            try:
                answer = await self._attempt(method, request, call)
            except DRIVER_ERRORS as error:
                fault, code = fault_of(error), code_of(error)
                if not fault.applied:
                    call.unknown = known
                if code in expect and not fault.retry:
                    raise Rejected(code, _reasons(error)) from error
                delay = backoff(attempt)
                if not fault.retry or call.remaining <= delay:
                    raise error_of(
                        error,
                        operation,
                        store=self._store,
                        collection=call.collection,
                        key=call.key,
                        index=request.get("IndexName", ""),
                    ) from error
            else:
                call.unknown = known
                if self._report_capacity:
                    self._count_units(operation, answer)
                return answer
            attempt += 1
            await anyio.sleep(delay)

    async def _attempt(self, method: Callable[..., Awaitable[Any]], request: Request, call: Call) -> Any:
        if self._closed:
            raise LifecycleError("the store was closed", store=self._store, collection=call.collection, key=call.key)
        self._under_way += 1
        try:
            return await method(**request)
        finally:
            self._under_way -= 1
            if self._closed and not self._under_way:
                self._idle.set()

    def _count_units(self, operation: str, answer: dict[str, Any]) -> None:
        reported = answer.get("ConsumedCapacity", [])
        units = sum(each["CapacityUnits"] for each in (reported if isinstance(reported, list) else [reported]))
        if _UNITS.get(operation) == "read":
            self._usage.read_units += units
        else:
            self._usage.write_units += units

    async def pause(self, attempt: int, call: Call, reason: str) -> None:
        """Wait before going on with what the service left undone.

        Raises:
            Throttled: there is no time left to wait.
        """
        delay = backoff(attempt)
        if call.remaining <= delay:
            raise Throttled(reason, store=self._store, collection=call.collection, key=call.key, remedy="Try later")
        await anyio.sleep(delay)

    def late(self, call: Call) -> StoreUnavailable:
        """The error for a call that has reached its deadline."""
        return StoreUnavailable(
            "DynamoDB did not answer within the deadline",
            store=self._store,
            collection=call.collection,
            key=call.key,
            remedy="Check the network, or allow a longer deadline",
        )

    def unsent(self, call: Call) -> StoreUnavailable:
        """The error for a write whose turn did not come before the deadline of its call."""
        return StoreUnavailable(
            "the write was not sent, since those before it took until the deadline",
            store=self._store,
            collection=call.collection,
            key=call.key,
            remedy="Write fewer records at a time, or allow a longer deadline",
        )


def _stream(request: Any, **_: Any) -> None:
    # aiohttp warns of large bodies that are given as bytes, and an error filter would make that a failure.
    if isinstance(request.body, bytes) and len(request.body) > _LARGEST_BODY:
        request.body = io.BytesIO(request.body)


def _region(session: aioboto3.Session, *, given: bool) -> str | None:
    # The driver itself does not read AWS_REGION, which every other SDK and the Lambda runtime use.
    named: str | None = session.region_name
    environment = os.environ.get("AWS_REGION")
    return (named or environment) if given else (environment or named)


def _config(deadline: float) -> AioConfig:
    # One attempt a request: only `send` knows the deadline, and whether a lost answer may have been a write. A silent
    # connection is given up at half of the deadline, so that there is time for another. A fifth of what a small put
    # costs the client would be spent on checking requests that the service checks again, and on composing the same
    # user agent anew each time.
    return AioConfig(
        parameter_validation=False,
        user_agent=f"agno-clouddb/{__version__} aiobotocore/{aiobotocore.__version__}",
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=deadline / 4,
        read_timeout=deadline / 2,
        max_pool_connections=2 * CONCURRENCY,
        tcp_keepalive=True,
    )


async def _require_credentials(session: aioboto3.Session, store: str) -> None:
    credentials: Any = session.get_credentials()
    if await credentials is None:
        raise ConfigurationError(
            "no AWS credentials were found",
            store=store,
            remedy="Set a profile, environment variables or a role, or name an emulator by endpoint_url",
        )


def _reasons(error: BaseException) -> tuple[Reason, ...]:
    if not isinstance(error, boto.ClientError):
        return ()
    response: dict[str, Any] = dict(error.response)
    if "CancellationReasons" in response:
        return tuple(Reason(str(each.get("Code")), each.get("Item")) for each in response["CancellationReasons"])
    return (Reason(code_of(error), response.get("Item")),)
