"""Requests to Firestore with the credentials of a google-cloud-firestore AsyncClient.

The client finds project, credentials and emulator. Requests then go over a channel as plain protocol buffers, since the
client's own layers cost more CPU than the request itself and retry for 60 seconds by default. This module is imported
when a store is opened, because importing the client takes a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc.aio
from anyio.lowlevel import checkpoint_if_cancelled
from google.api_core.exceptions import GoogleAPIError
from google.api_core.gapic_v1.routing_header import to_grpc_metadata
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore_v1.async_client import AsyncClient
from google.cloud.firestore_v1.services.firestore.transports.grpc_asyncio import FirestoreGrpcAsyncIOTransport
from google.cloud.firestore_v1.types import document, firestore

from agno_clouddb.errors import ConfigurationError, LifecycleError
from agno_clouddb.stores.firestore.faults import Backoff, Fault
from agno_clouddb.stores.usage import Usage

__all__ = ["Answers", "Connection", "create_client"]

T = TypeVar("T")

Message = Any
"""A protocol buffer; their classes are made at run time and have no types."""

_CHANNEL_OPTIONS = [
    # A connection that has gone silent is noticed, and replaced, within the deadline of the call that waits on it.
    ("grpc.keepalive_time_ms", 4_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_SERVICE = "/google.firestore.v1.Firestore"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def create_client(project: str | None, database: str, emulator_host: str | None) -> AsyncClient:
    """A client for a database; looking for credentials may take seconds and blocks, so call it in a thread.

    Raises:
        ConfigurationError: there are no credentials, or no project is named.
    """
    try:
        credentials = AnonymousCredentials() if emulator_host else None  # type: ignore[no-untyped-call]
        client = AsyncClient(project=project, credentials=credentials, database=database)
    except (GoogleAuthError, GoogleAPIError, OSError, ValueError) as error:
        raise ConfigurationError(
            f"no client for Firestore can be made: {error}",
            store=f"firestore://{project or ''}",
            remedy="Name the project, and set GOOGLE_APPLICATION_CREDENTIALS or run `gcloud auth "
            "application-default login`; for an emulator give emulator_host",
        ) from error
    if emulator_host:
        # The client itself knows an emulator by the environment variable alone.
        client._emulator_host = emulator_host
    return client


def _create_channel(client: AsyncClient) -> Any:
    # The channel that the client makes on demand runs every call in a task of its own, for the sake of logging.
    if client._emulator_host:
        return grpc.aio.insecure_channel(client._emulator_host, options=_CHANNEL_OPTIONS)
    return FirestoreGrpcAsyncIOTransport.create_channel(
        client._target, credentials=client._credentials, options=_CHANNEL_OPTIONS
    )


@dataclass(frozen=True, slots=True)
class Answers:
    """What one read found.

    Args:
        documents: in the order of the answer.
        read_time: the moment at which the documents were as they are here.
    """

    documents: tuple[Message, ...]
    read_time: Message


def _read_time(responses: Sequence[Message]) -> Message | None:
    # The service vouches that no document of the answer has changed up to the read time of a later one.
    return next((each.read_time for each in reversed(responses) if each.HasField("read_time")), None)


@dataclass(frozen=True, slots=True)
class _Method:
    name: str
    call: Callable[..., Any]


_Send = Callable[[_Method, Message, float], Awaitable[T]]


class Connection:
    """Sends requests: reads with retries up to the caller's deadline, writes once.

    Its methods raise Fault, and LifecycleError when the connection is closed meanwhile.

    Args:
        client: has project, database and credentials.
        owned: whether the client is the store's own. One that is the user's lends its channel, with all that the user
            has set up on it, and must not have been used in another event loop.
        name: the store's name, for errors.
        usage: counts requests and documents.
    """

    def __init__(self, client: AsyncClient, *, owned: bool, name: str, usage: Usage) -> None:
        self._usage = usage
        self._owned = owned
        self._name = name
        self._closed = False
        self.database: str = client._database_string
        self.root = f"{self.database}/documents"
        self._channel = _create_channel(client) if owned else client._firestore_api.transport.grpc_channel
        self._metadata = (*client._rpc_metadata, client._client_info.to_grpc_metadata())
        self._commit = self._method("Commit", firestore.CommitRequest, firestore.CommitResponse)
        self._batch_write = self._method("BatchWrite", firestore.BatchWriteRequest, firestore.BatchWriteResponse)
        self._get_document = self._method(
            "GetDocument", firestore.GetDocumentRequest, document.Document, routing="name"
        )
        self._batch_get = self._method(
            "BatchGetDocuments", firestore.BatchGetDocumentsRequest, firestore.BatchGetDocumentsResponse, stream=True
        )
        self._run_query = self._method(
            "RunQuery", firestore.RunQueryRequest, firestore.RunQueryResponse, stream=True, routing="parent"
        )
        self._aggregate = self._method(
            "RunAggregationQuery",
            firestore.RunAggregationQueryRequest,
            firestore.RunAggregationQueryResponse,
            stream=True,
            routing="parent",
        )

    def _method(
        self, name: str, request: Message, response: Message, *, stream: bool = False, routing: str = "database"
    ) -> _Method:
        make = self._channel.unary_stream if stream else self._channel.unary_unary
        call = make(
            f"{_SERVICE}/{name}",
            request_serializer=request.pb().SerializeToString,
            response_deserializer=response.pb().FromString,
        )
        # Requests are routed by database, so that one header does for all documents in it.
        resource = self.database if routing == "database" else self.root
        header: tuple[str, str] = to_grpc_metadata({routing: resource})  # type: ignore[no-untyped-call]
        return _Method(name, partial(call, metadata=(*self._metadata, header)))

    async def aclose(self) -> None:
        """Close the channel, unless the client is the user's. Requests under way end with LifecycleError."""
        if not self._closed:
            self._closed = True
            if self._owned:
                await self._channel.close()

    async def commit(self, writes: Sequence[Message], until: float) -> list[tuple[int, int]]:
        """Apply all writes or none, in one attempt.

        Args:
            writes: Write messages.
            until: the deadline, in seconds of the event loop's clock.

        Returns:
            The update time of each write's document, in seconds and nanoseconds.
        """
        request = firestore.CommitRequest.pb()(database=self.database, writes=writes)
        response = await self._attempt(self._send, self._commit, request, until)
        self._usage.documents_written += len(writes)
        return [(each.update_time.seconds, each.update_time.nanos) for each in response.write_results]

    async def batch_write(self, writes: Sequence[Message], until: float) -> list[tuple[int, int] | Fault]:
        """Apply each write on its own, in one attempt; for each its update time, or why it was not applied."""
        request = firestore.BatchWriteRequest.pb()(database=self.database, writes=writes)
        response = await self._attempt(self._send, self._batch_write, request, until)
        self._usage.documents_written += sum(status.code == 0 for status in response.status)
        return [
            Fault(_CODES.get(status.code, "UNKNOWN"), status.message)
            if status.code
            else (result.update_time.seconds, result.update_time.nanos)
            for result, status in zip(response.write_results, response.status, strict=True)
        ]

    async def get(self, name: str, until: float) -> Message | None:
        """Read one document by name, which costs less CPU than ``batch_get``; None when it does not exist."""
        request = firestore.GetDocumentRequest.pb()(name=name)
        try:
            found = await self._read(self._send, self._get_document, request, until)
        except Fault as fault:
            if fault.code != "NOT_FOUND":
                raise
            if name in fault.details:
                found = None
            else:
                # It may be the database that does not exist.
                answers = await self.batch_get([name], until)
                return answers.documents[0] if answers.documents else None
        self._usage.documents_read += 1
        return found

    async def batch_get(
        self, names: Sequence[str], until: float, *, mask: Sequence[str] = (), read_time: Message | None = None
    ) -> Answers:
        """Read documents by name; those that do not exist are left out.

        Args:
            names: full names, each once.
            until: the deadline, in seconds of the event loop's clock.
            mask: the fields to return; all by default.
            read_time: read the documents as they were then, at most an hour ago.
        """
        request = firestore.BatchGetDocumentsRequest.pb()(database=self.database, documents=names)
        if mask:
            request.mask.field_paths.extend(mask)
        if read_time is not None:
            request.read_time.CopyFrom(read_time)
        responses = [
            each
            for each in await self._read(self._collect, self._batch_get, request, until)
            if each.WhichOneof("result")
        ]
        self._usage.documents_read += len(responses)
        if len(responses) != len(names):
            raise Fault("UNAVAILABLE", f"{len(responses)} of {len(names)} documents were answered")
        found = tuple(each.found for each in responses if each.HasField("found"))
        return Answers(found, _read_time(responses))

    async def run_query(self, parent: str, query: Message, until: float) -> Answers:
        """The documents that a StructuredQuery finds directly under ``parent``, in its order."""
        request = firestore.RunQueryRequest.pb()(parent=parent, structured_query=query)
        responses = await self._read(self._collect, self._run_query, request, until)
        found = tuple(each.document for each in responses if each.HasField("document"))
        self._usage.documents_read += len(found)
        return Answers(found, _read_time(responses))

    async def count(self, parent: str, query: Message, until: float) -> int:
        """How many documents a StructuredQuery finds directly under ``parent``."""
        request = firestore.RunAggregationQueryRequest.pb()(parent=parent)
        aggregation = request.structured_aggregation_query
        aggregation.structured_query.CopyFrom(query)
        aggregation.aggregations.add(alias="n").count.SetInParent()
        for response in await self._read(self._collect, self._aggregate, request, until):
            if response.HasField("result"):
                return int(response.result.aggregate_fields["n"].integer_value)
        raise Fault("UNAVAILABLE", "the count was not answered")

    async def ask(self, path: str, request: Message, response: type[Message], until: float) -> Message:
        """Send a read to another service that the same endpoint has, such as the Admin API.

        Args:
            path: ``/SERVICE/METHOD``.
            request: a message with a ``parent``.
            response: the class of the answer.
            until: the deadline, in seconds of the event loop's clock.
        """
        call = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
        )
        header: tuple[str, str] = to_grpc_metadata({"parent": request.parent})  # type: ignore[no-untyped-call]
        method = _Method(path.rpartition("/")[2], partial(call, metadata=(*self._metadata, header)))
        return await self._read(self._send, method, request, until)

    async def _read(self, send: _Send[T], method: _Method, request: Message, until: float) -> T:
        backoff = Backoff(until)
        met: Fault | None = None
        while True:
            try:
                return await self._attempt(send, method, request, until)
            except Fault as fault:
                met = fault.after(met)
                if not fault.transient or not await backoff.pause():
                    raise met from fault.cause

    async def _attempt(self, send: _Send[T], method: _Method, request: Message, until: float) -> T:
        timeout = until - asyncio.get_running_loop().time()
        if timeout <= 0:
            raise Fault("DEADLINE_EXCEEDED", "the deadline has passed", sent=False)
        self._usage.requests[method.name] += 1
        try:
            return await send(method, request, timeout)
        except grpc.aio.AioRpcError as error:
            raise Fault(error.code().name, error.details() or "", error) from error
        except grpc.aio.UsageError as error:
            raise self._closed_meanwhile() from error
        except asyncio.CancelledError:
            # gRPC replaces the error by which an anyio scope knows its own cancellation; this raises that one again.
            await checkpoint_if_cancelled()
            # Closing the channel cancels the request, but nobody has cancelled this task.
            task = asyncio.current_task()
            if self._closed and (task is None or not task.cancelling()):
                raise self._closed_meanwhile() from None
            raise

    async def _send(self, method: _Method, request: Message, timeout: float) -> Message:
        return await method.call(request, timeout=timeout)

    async def _collect(self, method: _Method, request: Message, timeout: float) -> list[Message]:
        call = method.call(request, timeout=timeout)
        responses: list[Message] = []
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                responses.append(response)
        finally:
            # A task that is cancelled just when its request has been sent would leave the call open until its deadline.
            call.cancel()
        return responses

    def _closed_meanwhile(self) -> LifecycleError:
        return LifecycleError("the store was closed during the call", store=self._name)
