"""The drivers' own clients behind agno's asynchronous interface, doing the least that makes an agent remember.

A session is read by a get and a query of its last runs at once, and written by a put for the header and one for the
run, each a text of JSON: the same requests as the library's, without versions, conditions, owners or compression.
"""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aioboto3
from agno.db.base import AsyncBaseDb
from agno.run.agent import RunOutput
from agno.session import AgentSession
from aiobotocore.config import AioConfig
from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore import AsyncClient, Query

from benchmarks.replayed import HISTORY
from benchmarks.rivals import endpoint_of, host_of

__all__ = ["bare"]


@asynccontextmanager
async def bare(cloud: str, url: str, prefix: str, *, connections: int) -> AsyncIterator[AsyncBaseDb]:
    """A driver's client as agno's database, with tables or collections of its own.

    Args:
        cloud: ``dynamodb`` or ``firestore``.
        url: of the engine or the relay.
        prefix: of the names of tables or collections.
        connections: how many the client may keep.
    """
    async with AsyncExitStack() as stack:
        if cloud == "dynamodb":
            session = aioboto3.Session(
                aws_access_key_id="local", aws_secret_access_key="local", region_name="us-east-1"
            )
            config = AioConfig(max_pool_connections=connections)
            client = await stack.enter_async_context(
                session.client("dynamodb", endpoint_url=endpoint_of(url), config=config)
            )
            await _make_tables(client, prefix)
            yield _made(_BareDynamoDb)(client, prefix)
        else:
            project, host = host_of(url)
            of_firestore = AsyncClient(project=project, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
            of_firestore._emulator_host = host
            yield _made(_BareFirestoreDb)(of_firestore, prefix)
            await of_firestore._firestore_api.transport.close()


def _made(kind: Any) -> Any:
    """A class without what agno's base leaves abstract and an agent does not call."""

    async def missing(*_: Any, **__: Any) -> Any:
        raise NotImplementedError

    return type(kind.__name__, (kind,), dict.fromkeys(kind.__abstractmethods__, missing))


async def _make_tables(client: Any, prefix: str) -> None:
    for name, keys in (("sessions", ["id"]), ("runs", ["id", "place"])):
        await client.create_table(
            TableName=f"{prefix}{name}",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            KeySchema=[
                {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
        )


class _Bare(AsyncBaseDb):
    """What an agent calls; how a text is kept is the subclass's."""

    async def get_session(self, session_id: str, *_: Any, **__: Any) -> Any:
        header, runs = await asyncio.gather(self._header(session_id), self._runs(session_id))
        if header is None:
            return None
        return AgentSession.from_dict({**json.loads(header), "runs": [json.loads(run) for run in reversed(runs)]})

    async def upsert_session(self, session: Any, *_: Any, **__: Any) -> Any:
        await self._put_header(session.session_id, json.dumps(session.to_dict(include_runs=False)))
        return session

    async def upsert_run(
        self, run: Any, session_id: str, user_id: str | None = None, run_index: int | None = None
    ) -> None:
        text = json.dumps(run.to_dict() if isinstance(run, RunOutput) else run)
        await self._put_run(session_id, f"{run_index or 0:08}", text)

    @abstractmethod
    async def _header(self, session_id: str) -> str | None: ...

    @abstractmethod
    async def _runs(self, session_id: str) -> list[str]: ...

    @abstractmethod
    async def _put_header(self, session_id: str, text: str) -> None: ...

    @abstractmethod
    async def _put_run(self, session_id: str, place: str, text: str) -> None: ...


class _BareDynamoDb(_Bare):
    def __init__(self, client: Any, prefix: str) -> None:
        super().__init__(id="bare")
        self._client = client
        self._sessions = f"{prefix}sessions"
        self._of_runs = f"{prefix}runs"

    async def _header(self, session_id: str) -> str | None:
        answer = await self._client.get_item(
            TableName=self._sessions, Key={"id": {"S": session_id}}, ConsistentRead=True
        )
        text: str | None = answer["Item"]["data"]["S"] if "Item" in answer else None
        return text

    async def _runs(self, session_id: str) -> list[str]:
        answer = await self._client.query(
            TableName=self._of_runs,
            KeyConditionExpression="id = :id",
            ExpressionAttributeValues={":id": {"S": session_id}},
            ScanIndexForward=False,
            Limit=HISTORY,
            ConsistentRead=True,
        )
        return [item["data"]["S"] for item in answer["Items"]]

    async def _put_header(self, session_id: str, text: str) -> None:
        await self._client.put_item(TableName=self._sessions, Item={"id": {"S": session_id}, "data": {"S": text}})

    async def _put_run(self, session_id: str, place: str, text: str) -> None:
        item = {"id": {"S": session_id}, "place": {"S": place}, "data": {"S": text}}
        await self._client.put_item(TableName=self._of_runs, Item=item)


class _BareFirestoreDb(_Bare):
    def __init__(self, client: Any, prefix: str) -> None:
        super().__init__(id="bare")
        self._sessions = client.collection(f"{prefix}sessions")

    async def _header(self, session_id: str) -> str | None:
        found = await self._sessions.document(session_id).get()
        text: str | None = found.get("data") if found.exists else None
        return text

    async def _runs(self, session_id: str) -> list[str]:
        runs = self._sessions.document(session_id).collection("runs")
        found = await runs.order_by("place", direction=Query.DESCENDING).limit(HISTORY).get()
        return [each.get("data") for each in found]

    async def _put_header(self, session_id: str, text: str) -> None:
        await self._sessions.document(session_id).set({"data": text})

    async def _put_run(self, session_id: str, place: str, text: str) -> None:
        run = self._sessions.document(session_id).collection("runs").document(place)
        await run.set({"place": place, "data": text})
