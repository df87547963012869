"""The connection to the service: sends requests, by the slim path or the driver, with retries up to a deadline.

Imports the driver, which takes a while: the store loads this module when it is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from agno_clouddb.errors import LifecycleError, StoreUnavailable, Throttled
from agno_clouddb.stores.dynamodb.calls import Call, Reason, Rejected, backoff
from agno_clouddb.stores.dynamodb.driver import open_driver
from agno_clouddb.stores.dynamodb.errors import DRIVER_ERRORS, code_of, error_of, fault_of
from agno_clouddb.stores.dynamodb.expressions import Request
from agno_clouddb.stores.dynamodb.wire import OPERATIONS, Wire, is_genuine
from agno_clouddb.stores.usage import Usage

if TYPE_CHECKING:
    import aioboto3
    from types_aiobotocore_dynamodb import DynamoDBClient

__all__ = ["Client"]

Method = Callable[..., Awaitable[Any]]
"""Sends a request, given by its parameters."""

_UNITS = {
    "get_item": "read",
    "batch_get_item": "read",
    "query": "read",
    "scan": "read",
    "put_item": "write",
    "delete_item": "write",
    "batch_write_item": "write",
    "transact_write_items": "write",
}
"""The calls of the service that report units, and of which kind."""


class Client:
    """Sends requests to DynamoDB. Make one with ``open``.

    Args:
        driver: the driver's client.
        wire: sends the calls that read and write items instead of it; None: the driver sends all.
        stack: closes both.
        store: the store's name, for errors.
        usage: counts requests, and the units that the service reports.
        report_capacity: ask the service to report units.
    """

    def __init__(
        self,
        driver: DynamoDBClient,
        wire: Wire | None,
        stack: AsyncExitStack,
        store: str,
        usage: Usage,
        report_capacity: bool,
    ) -> None:
        self.driver = driver
        self.methods: dict[str, Method] = {
            name: _genuine(getattr(driver, name)) for name in driver.meta.method_to_api_mapping
        }
        if wire is not None:
            self.methods |= {name: _over(wire, operation) for name, operation in OPERATIONS.items()}
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
        slim: bool,
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
            slim: send the calls that read and write items past the driver.
            deadline: seconds that a call of the store may take, which a single request must not outlast.
            usage: counts requests, and the units that the service reports.
            report_capacity: ask the service to report units.

        Raises:
            ConfigurationError: region, credentials, profile or endpoint are missing or malformed.
        """
        stack = AsyncExitStack()
        try:
            driver, wire = await open_driver(
                store,
                stack,
                region=region,
                endpoint_url=endpoint_url,
                local=local,
                session=session,
                deadline=deadline,
                slim=slim,
            )
        except BaseException:
            await stack.aclose()
            raise
        return cls(driver, wire, stack, store, usage, report_capacity)

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
        method = self.methods[operation]
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
                call.met = error_of(
                    error,
                    operation,
                    store=self._store,
                    collection=call.collection,
                    key=call.key,
                    index=request.get("IndexName", ""),
                )
                call.met.__cause__ = error
                if not fault.retry or call.remaining <= delay:
                    raise call.met from error
            else:
                call.unknown, call.met = known, None
                if self._report_capacity:
                    self._count_units(operation, answer)
                return answer
            attempt += 1
            await anyio.sleep(delay)

    async def _attempt(self, method: Method, request: Request, call: Call) -> Any:
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
        call.met = Throttled(reason, store=self._store, collection=call.collection, key=call.key, remedy="Try later")
        if call.remaining <= delay:
            raise call.met
        await anyio.sleep(delay)

    def late(self, call: Call) -> Throttled | StoreUnavailable:
        """The error for a call that has reached its deadline: Throttled where it was sent again for that, for load."""
        message, remedy = "DynamoDB did not answer within the deadline", "Check the network, or allow a longer deadline"
        if call.met is not None:
            message, remedy = f"{message}; before that, {call.met.message}", call.met.remedy
        kind = Throttled if isinstance(call.met, Throttled) else StoreUnavailable
        error = kind(message, store=self._store, collection=call.collection, key=call.key, remedy=remedy)
        error.__cause__ = None if call.met is None else call.met.__cause__ or call.met
        return error

    def unsent(self, call: Call) -> StoreUnavailable:
        """The error for a write whose turn did not come before the deadline of its call."""
        return StoreUnavailable(
            "the write was not sent, since those before it took until the deadline",
            store=self._store,
            collection=call.collection,
            key=call.key,
            remedy="Write fewer records at a time, or allow a longer deadline",
        )


def _over(wire: Wire, operation: str) -> Method:
    def send(**request: Any) -> Awaitable[Any]:
        return wire.send(operation, request)

    return send


def _genuine(method: Method) -> Method:
    """A method of the driver, which itself takes any answer with status 200 for a success."""

    async def send(**request: Any) -> Any:
        answer = await method(**request)
        if not is_genuine(answer["ResponseMetadata"]["HTTPHeaders"]):
            raise ResponseParserError("the answer is not DynamoDB's")
        return answer

    return send


def _reasons(error: BaseException) -> tuple[Reason, ...]:
    if not isinstance(error, boto.ClientError):
        return ()
    response: dict[str, Any] = dict(error.response)
    if "CancellationReasons" in response:
        return tuple(Reason(str(each.get("Code")), each.get("Item")) for each in response["CancellationReasons"])
    return (Reason(code_of(error), response.get("Item")),)
