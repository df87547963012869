"""The processor time of one operation: this library, its own work included, beside bare calls of the cloud's client.

    python -m benchmarks.overhead [--rounds 15] [--json FILE]

The service is a program that gives the same answer again and again (``canned``), in another process, so that only what
the client does is counted. Rivals take turns in short rounds, 64 operations at once; the figure of each is the median
of its rounds, in microseconds of this process's processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig

from agno_clouddb.stores.base import Item, Key, Put, Query
from agno_clouddb.stores.clock import HybridClock
from agno_clouddb.stores.dynamodb import DynamoDBStore
from agno_clouddb.stores.dynamodb.items import data_attribute, to_attributes
from agno_clouddb.stores.dynamodb.tables import layouts
from benchmarks.canned import canned_dynamodb
from benchmarks.options import Options

__all__ = ["Case", "Rival", "dynamodb_cases", "item_of", "measure", "run", "wire"]

AT_ONCE = 64
ROUND = 5 * AT_ONCE  # operations
LISTED = 20
SIZES = (1, 16)  # KB of payload

_clock = HybridClock()
_layouts = layouts("agno_")


@dataclass(frozen=True, slots=True)
class Rival:
    """One way of doing an operation.

    Args:
        name: what the tables call it.
        operate: does it once.
    """

    name: str
    operate: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Case:
    """One operation.

    Args:
        name: what the tables call it.
        limit: what this library may take, as a part of what the first rival takes.
        rivals: opens those who do it: first the bare client, second this library.
    """

    name: str
    limit: float
    rivals: Callable[[AsyncExitStack], Awaitable[Sequence[Rival]]]


async def measure(rivals: Sequence[Rival], rounds: int) -> dict[str, float]:
    """Microseconds of processor time that one operation of each rival takes, by name: the median of its rounds."""
    taken: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    for number in range(rounds + 1):
        for rival in rivals:
            gc.collect()
            began = time.process_time()
            await asyncio.gather(*(_repeat(rival.operate, ROUND // AT_ONCE) for _ in range(AT_ONCE)))
            if number:  # the first round makes the connections
                taken[rival.name].append((time.process_time() - began) / ROUND * 1e6)
    return {name: statistics.median(each) for name, each in taken.items()}


async def _repeat(operate: Callable[[], Awaitable[object]], times: int) -> None:
    for _ in range(times):
        await operate()


def item_of(key: Key, kilobytes: int, *, binary: bool) -> Item:
    """An item with a payload of that size as it is stored: compressed, as nearly all payloads are, or JSON as text."""
    fields = {"created_at": _MOMENT, "updated_at": _MOMENT, "user_id": "ann", "session_type": "agent"}
    if key.parent is not None:
        fields = {"run_index": _clock.stamp()}
    data: str | bytes = secrets.token_bytes(kilobytes * 1024)
    if not binary:
        messages = [{"role": "user", "content": "What is the weather like in Paris?"}] * 100
        data = json.dumps(messages * kilobytes)[: kilobytes * 1024]
    return Item(key, _clock.stamp(), fields, data)


_MOMENT = "2025-11-01T10:00:00.000000Z"


def wire(item: Item, *, encoded: bool) -> dict[str, Any]:
    """An item as attributes; ``encoded``: as the service's JSON has them, with binary values as text."""
    attributes = {**to_attributes(item, _layouts[item.key.collection], 1), **data_attribute(item.data)}
    if encoded and isinstance(item.data, bytes):
        attributes["data"] = {"B": base64.b64encode(item.data).decode()}
    return attributes


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Any]:
    """The driver's client as it is, but for its limit of connections."""
    async with aioboto3.Session().client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=AioConfig(max_pool_connections=AT_ONCE),
    ) as client:
        yield client


async def _opened(stack: AsyncExitStack, answers: Mapping[str, Any]) -> tuple[Any, dict[str, DynamoDBStore]]:
    """The bare client, and stores of this library over both of its drivers, beside a server with these answers."""
    url = await stack.enter_async_context(canned_dynamodb(answers))
    bare = await stack.enter_async_context(_bare(url))
    stores = {
        "agno_clouddb": DynamoDBStore(endpoint_url=url, deadline=30),
        "agno_clouddb, driver=aioboto3": DynamoDBStore(endpoint_url=url, driver="aioboto3", deadline=30),
    }
    for store in stores.values():
        await stack.enter_async_context(store)
    return bare, stores


async def _get(kilobytes: int, binary: bool, stack: AsyncExitStack) -> list[Rival]:
    item = item_of(Key("sessions", "s1"), kilobytes, binary=binary)
    bare, stores = await _opened(stack, {"GetItem": {"Item": wire(item, encoded=True)}})
    table, key = _layouts["sessions"].table.name, {"session_id": {"S": "s1"}}
    for store in stores.values():
        assert (await store.get([item.key])).items == (item,)
    return [
        Rival("aioboto3", partial(bare.get_item, TableName=table, Key=key, ConsistentRead=True)),
        *(Rival(name, partial(store.get, [item.key])) for name, store in stores.items()),
    ]


async def _put(kilobytes: int, binary: bool, stack: AsyncExitStack) -> list[Rival]:
    item = item_of(Key("sessions", "s1"), kilobytes, binary=binary)
    bare, stores = await _opened(stack, {"PutItem": {}})
    table, attributes = _layouts["sessions"].table.name, wire(item, encoded=False)
    return [
        Rival("aioboto3", partial(bare.put_item, TableName=table, Item=attributes)),
        *(Rival(name, partial(store.write, [Put(item)])) for name, store in stores.items()),
    ]


async def _list_children(stack: AsyncExitStack) -> list[Rival]:
    items = [item_of(Key("runs", f"r{n:02d}", "s1"), 1, binary=True) for n in range(LISTED)]
    last = {name: items[-1].key.parent if name == "session_id" else "x" for name in ("session_id", "run_id")}
    answer = {
        "Items": [wire(item, encoded=True) for item in items],
        "Count": LISTED,
        "LastEvaluatedKey": {name: {"S": value} for name, value in last.items()},
    }
    bare, stores = await _opened(stack, {"Query": answer})
    query = Query("runs", "run_index", parent="s1")
    for store in stores.values():
        assert (await store.query(query, limit=LISTED)).items == tuple(items)
    call = partial(
        bare.query,
        TableName=_layouts["runs"].table.name,
        IndexName="session_id-run_index-index",
        KeyConditionExpression="session_id = :s",
        ExpressionAttributeValues={":s": {"S": "s1"}},
        Select="ALL_ATTRIBUTES",
        ConsistentRead=True,
        Limit=LISTED,
    )
    return [
        Rival("aioboto3", call),
        *(Rival(name, partial(store.query, query, limit=LISTED)) for name, store in stores.items()),
    ]


async def _list_by_index(stack: AsyncExitStack) -> list[Rival]:
    items = [item_of(Key("sessions", f"s{n:02d}"), 1, binary=True) for n in range(LISTED)]
    table, keys = _layouts["sessions"].table.name, ("session_id", "user_id", "created_at")
    whole = [wire(item, encoded=True) for item in items]
    answers = {
        "Query": {"Items": [{name: each[name] for name in keys} for each in whole], "Count": LISTED},
        "BatchGetItem": {"Responses": {table: whole}, "UnprocessedKeys": {}},
    }
    bare, stores = await _opened(stack, answers)
    query = Query("sessions", "created_at", equals={"user_id": "ann"})
    for store in stores.values():
        assert (await store.query(query, limit=LISTED)).items == tuple(items)

    async def call() -> None:
        found = await bare.query(
            TableName=table,
            IndexName="user_id-created_at-index",
            KeyConditionExpression="user_id = :u",
            ExpressionAttributeValues={":u": {"S": "ann"}},
            Limit=LISTED + 1,
        )
        wanted = [{"session_id": each["session_id"]} for each in found["Items"]]
        await bare.batch_get_item(RequestItems={table: {"Keys": wanted, "ConsistentRead": True}})

    return [
        Rival("aioboto3", call),
        *(Rival(name, partial(store.query, query, limit=LISTED)) for name, store in stores.items()),
    ]


def dynamodb_cases() -> list[Case]:
    """What is compared on DynamoDB."""
    kinds = ((True, "compressed"), (False, "text"))
    return [
        *(Case(f"get {size} KB, {kind}", 0.5, partial(_get, size, on)) for size in SIZES for on, kind in kinds),
        *(Case(f"put {size} KB, {kind}", 0.5, partial(_put, size, on)) for size in SIZES for on, kind in kinds),
        Case(f"list of {LISTED} runs", 0.7, _list_children),
        Case(f"list of {LISTED} sessions", 0.7, _list_by_index),
    ]


async def compare(
    cases: Sequence[Case], rounds: int, say: Callable[[str], None] = print
) -> dict[str, dict[str, float]]:
    """Measure cases and tell each as soon as it is known."""
    results: dict[str, dict[str, float]] = {}
    for case in cases:
        async with AsyncExitStack() as stack:
            taken = results[case.name] = await measure(await case.rivals(stack), rounds)
        bare, own = list(taken.values())[:2]
        told = ", ".join(f"{name} {each:.0f}" for name, each in taken.items())
        say(f"{case.name}: {told} µs; {own / bare:.2f} of the bare client, at most {case.limit} wanted")
    return results


def run(options: Options) -> dict[str, Any]:
    """Measure it all.

    Returns:
        ``operations``: for each cloud and operation the microseconds of each rival, and what is aimed at; ``fan_out``:
        see ``fan_out_latency``.
    """
    from benchmarks.fan_out import fan_out_latency
    from benchmarks.overhead_firestore import firestore_cases

    rounds = 30 if options.full else 5
    operations: list[dict[str, Any]] = []
    for cloud, cases in (("dynamodb", dynamodb_cases()), ("firestore", firestore_cases())):
        options.say(f"overhead: {cloud}, {rounds} rounds")
        taken = asyncio.run(compare(cases, rounds, lambda line: options.say(f"overhead: {line}")))
        operations += [
            {
                "cloud": cloud,
                "operation": case.name,
                "limit": case.limit,
                "microseconds": {name: round(each) for name, each in taken[case.name].items()},
            }
            for case in cases
        ]
    options.say("overhead: latency of a fan-out")
    latency = asyncio.run(fan_out_latency(2_000 if options.full else 500))
    return {"rounds": rounds, "operations": operations, "fan_out": latency}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="part of the names of the cases")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = [case for case in dynamodb_cases() if options.only in case.name]
    results = asyncio.run(compare(cases, options.rounds))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
