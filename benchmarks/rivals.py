"""What the library is measured beside: agno's own adapters, as they are and in a pool of threads.

agno's adapters are synchronous: an agent's ``arun`` calls them on the event loop, which stands still meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

import boto3
import grpc
from agno.db.base import AsyncBaseDb, BaseDb
from agno.db.dynamo import DynamoDb
from agno.db.firestore import FirestoreDb
from botocore.config import Config
from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore import Client

from agno_clouddb.stores.usage import Usage

__all__ = ["agno_dynamodb", "agno_firestore", "endpoint_of", "host_of", "in_threads"]

_KINDS = ("sessions", "runs", "memories", "evals")
_ARGUMENTS = {"sessions": "session", "memories": "memory", "evals": "eval", "runs": "runs"}
_READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
_WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"})


def endpoint_of(url: str) -> str:
    """The HTTP endpoint in a URL of DynamoDB Local."""
    return url.partition("endpoint_url=")[2].partition("&")[0]


def host_of(url: str) -> tuple[str, str]:
    """The project and the host with its port in a URL of the Firestore emulator."""
    project, _, host = url.removeprefix("firestore://").partition("?emulator_host=")
    return project, host.partition("&")[0]


@contextmanager
def agno_dynamodb(
    url: str, prefix: str, *, connections: int = 10, count: bool = True
) -> Iterator[tuple[BaseDb, Usage]]:
    """agno's DynamoDb with tables of its own, made, and what it asks for.

    Args:
        url: of DynamoDB Local.
        prefix: of the tables' names.
        connections: how many its client keeps; 10 is boto's own choice.
        count: ask the engine for the units that each request uses, which agno does not.
    """
    usage = Usage()
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=endpoint_of(url),
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(max_pool_connections=connections),
    )
    db = DynamoDb(client, **{f"{_ARGUMENTS[kind]}_table": f"{prefix}{kind}" for kind in _KINDS})
    try:
        for kind in _KINDS:
            db._get_table(kind)
        if count:
            _count_dynamodb(client, usage)
        yield db, usage
    finally:
        client.close()


def _count_dynamodb(client: Any, usage: Usage) -> None:
    """Count all requests of a boto client from now on."""

    def ask(params: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name in _READS | _WRITES:
            params["ReturnConsumedCapacity"] = "TOTAL"

    def sending(event_name: str, **_: Any) -> None:
        usage.requests[event_name.rpartition(".")[2]] += 1

    def answered(parsed: dict[str, Any], model: Any, **_: Any) -> None:
        reported = parsed.get("ConsumedCapacity", [])
        units = sum(each["CapacityUnits"] for each in (reported if isinstance(reported, list) else [reported]))
        if model.name in _WRITES:
            usage.write_units += units
        else:
            usage.read_units += units

    events = client.meta.events
    events.register("before-parameter-build.dynamodb", ask)
    events.register("before-send.dynamodb", sending)
    events.register("after-call.dynamodb", answered)


@contextmanager
def agno_firestore(url: str, prefix: str) -> Iterator[tuple[BaseDb, Usage]]:
    """agno's FirestoreDb with collections of its own, and what it asks for.

    agno makes composite indexes at the first use of a collection, for which it looks for credentials that an emulator
    has not; that is left out.

    Args:
        url: of the emulator.
        prefix: of the collections' names.
    """
    project, host = host_of(url)
    usage = Usage()
    client = _CountedClient(project, host, usage)
    names = {kind: f"{prefix}{kind}" for kind in _KINDS}
    db = FirestoreDb(client, **{f"{_ARGUMENTS[kind]}_collection": name for kind, name in names.items()})
    for name in names.values():
        setattr(db, f"_{name}_initialized", True)
    try:
        yield db, usage
    finally:
        client.close()  # type: ignore[no-untyped-call]


class _CountedClient(Client):
    """A client of an emulator that counts what it asks for."""

    def __init__(self, project: str, host: str, usage: Usage) -> None:
        super().__init__(project=project, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
        self._emulator_host = host
        self._usage = usage

    def _emulator_channel(self, transport: Any) -> Any:
        return _CountedChannel(super()._emulator_channel(transport), self._usage)  # type: ignore[no-untyped-call]


class _CountedChannel(grpc.Channel):  # type: ignore[misc]
    """Counts requests as they are made into bytes, and documents as they are made from them."""

    def __init__(self, channel: Any, usage: Usage) -> None:
        self._channel = channel
        self._usage = usage

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any
    ) -> Any:
        return self._channel.unary_unary(method, self._asked(method, request_serializer), response_deserializer)

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any
    ) -> Any:
        return self._channel.unary_stream(
            method, self._asked(method, request_serializer), self._answered(response_deserializer)
        )

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._channel.stream_unary(*arguments, **options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._channel.stream_stream(*arguments, **options)

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, method: str, serializer: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        name = method.rpartition("/")[2]

        def serialize(request: Any) -> bytes:
            self._usage.requests[name] += 1
            self._usage.documents_written += len(getattr(request, "writes", ()))
            return serializer(request)

        return serialize

    def _answered(self, deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def deserialize(data: bytes) -> Any:
            answer = deserializer(data)
            # One that is missing is billed like one that is found.
            found = any(getattr(answer, each, None) for each in ("document", "found", "missing"))
            self._usage.documents_read += bool(found)
            return answer

        return deserialize


def in_threads(db: BaseDb, pool: ThreadPoolExecutor) -> AsyncBaseDb:
    """agno's adapter as an asynchronous database: every call runs in a thread of the pool.

    Nobody ships this; it is what a user can write in an hour against a blocked event loop.
    """

    def call(name: str) -> Callable[..., Any]:
        async def called(self: object, *args: Any, **kwargs: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(pool, partial(getattr(db, name), *args, **kwargs))

        return called

    names = [name for name in dir(AsyncBaseDb) if not name.startswith("_")]
    calls = {name: call(name) for name in names if iscoroutinefunction(getattr(AsyncBaseDb, name))}
    made: AsyncBaseDb = type("InThreads", (AsyncBaseDb,), calls)(id=db.id)
    return made
