"""The operations of ``overhead`` on Firestore: google-cloud-firestore's AsyncClient beside this library."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore import AsyncClient
from google.cloud.firestore_v1.base_query import FieldFilter
from google.cloud.firestore_v1.types import firestore

from agno_clouddb.stores.base import Item, Key, Outcome, Put, Query, Stored
from agno_clouddb.stores.firestore import FirestoreStore
from agno_clouddb.stores.firestore.documents import writes_for
from agno_clouddb.stores.firestore.names import Layout
from benchmarks.canned_firestore import canned_firestore
from benchmarks.overhead import LISTED, SIZES, Case, Rival, item_of

__all__ = ["PROJECT", "document_of", "firestore_cases"]

PROJECT = "test-project"
_LAYOUT = Layout(f"projects/{PROJECT}/databases/(default)/documents", "agno_")
_SECONDS = 1_760_000_000


def firestore_cases() -> list[Case]:
    """What is compared on Firestore."""
    return [
        *(Case(f"get {size} KB", 0.7, partial(_get, size)) for size in SIZES),
        *(Case(f"put {size} KB", 0.7, partial(_put, size)) for size in SIZES),
        Case(f"list of {LISTED} sessions", 0.7, _list),
    ]


async def _opened(stack: AsyncExitStack, answers: Mapping[str, Sequence[bytes]]) -> tuple[Any, FirestoreStore]:
    """The bare client's collection of sessions, and a store of this library, beside a server with these answers."""
    host = await stack.enter_async_context(canned_firestore(answers))
    bare = AsyncClient(project=PROJECT, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    bare._emulator_host = host
    stack.push_async_callback(bare._firestore_api.transport.close)
    store = await stack.enter_async_context(FirestoreStore(PROJECT, emulator_host=host, deadline=30))
    return bare.collection("agno_sessions"), store


def document_of(item: Item) -> Any:
    """An item as the service answers it."""
    document = writes_for(Put(item), None, _LAYOUT)[0][0].update
    document.create_time.seconds = document.update_time.seconds = _SECONDS
    return document


def _session(kilobytes: int, number: int = 1) -> Item:
    return item_of(Key("sessions", f"s{number:02d}"), kilobytes, binary=True)


async def _get(kilobytes: int, stack: AsyncExitStack) -> list[Rival]:
    item = _session(kilobytes)
    document = document_of(item)
    found = firestore.BatchGetDocumentsResponse.pb()(found=document)
    found.read_time.seconds = _SECONDS
    answers = {"BatchGetDocuments": [found.SerializeToString()], "GetDocument": [document.SerializeToString()]}
    bare, store = await _opened(stack, answers)
    assert (await store.get([item.key])).items == (item,)
    assert (await bare.document(item.key.id).get()).get("version") == item.version
    return [
        Rival("AsyncClient", bare.document(item.key.id).get),
        Rival("agno_clouddb", partial(store.get, [item.key])),
    ]


async def _put(kilobytes: int, stack: AsyncExitStack) -> list[Rival]:
    item = _session(kilobytes)
    answer = firestore.CommitResponse.pb()()
    answer.write_results.add().update_time.seconds = _SECONDS
    answer.commit_time.seconds = _SECONDS
    bare, store = await _opened(stack, {"Commit": [answer.SerializeToString()]})
    values = {**item.fields, "version": item.version, "data": item.data}
    numbers = itertools.count()

    async def put() -> tuple[Outcome, ...]:
        # A record of its own each time: a version that is there already is not written again.
        return await store.write([Put(replace(item, key=Key("sessions", f"s{next(numbers)}")))])

    assert isinstance((await put())[0], Stored)
    return [Rival("AsyncClient", partial(bare.document(item.key.id).set, values)), Rival("agno_clouddb", put)]


async def _list(stack: AsyncExitStack) -> list[Rival]:
    items = [_session(1, number) for number in range(LISTED)]
    answers = []
    for item in items:
        answer = firestore.RunQueryResponse.pb()(document=document_of(item))
        answer.read_time.seconds = _SECONDS
        answers.append(answer.SerializeToString())
    bare, store = await _opened(stack, {"RunQuery": answers})
    query = Query("sessions", "created_at", equals={"user_id": "ann"})
    assert (await store.query(query, limit=LISTED)).items == tuple(items)

    async def call() -> None:
        filtered = bare.where(filter=FieldFilter("user_id", "==", "ann"))
        found = await filtered.order_by("created_at").limit(LISTED).get()
        assert len(found) == LISTED

    return [Rival("AsyncClient", call), Rival("agno_clouddb", partial(store.query, query, limit=LISTED))]
