"""Writing: one conditional request where one item suffices, a transaction where there are chunks or several items."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import anyio

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError, ConflictError, InvalidRecord, RecordTooLarge
from agno_clouddb.stores.base import Delete, Failed, Mutation, Outcome, Put, Refused, Stored, decide, settled
from agno_clouddb.stores.codec import split
from agno_clouddb.stores.dynamodb.calls import CONCURRENCY, Call, Rejected
from agno_clouddb.stores.dynamodb.expressions import Attribute, Expression, Request, number, render, text
from agno_clouddb.stores.dynamodb.items import (
    CHUNK_BYTES,
    INLINE_BYTES,
    Row,
    chunk_items,
    chunk_keys,
    data_attribute,
    key_attributes,
    row_of,
    size_of,
    to_attributes,
)
from agno_clouddb.stores.dynamodb.tables import TTL_ATTRIBUTE, Layout, Table
from agno_clouddb.stores.schema import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agno_clouddb.stores.dynamodb.client import Client

__all__ = ["TRANSACTION_ACTIONS", "Writer", "condition"]

TRANSACTION_ACTIONS = 100
"""The most actions in one transaction. Source, as of the next: TransactWriteItems in the service's API reference."""

TRANSACTION_BYTES = 4 * 1024 * 1024
"""The most bytes of items in one transaction."""

_ROUNDS = 10  # how often a write is decided again when the item changes under it
_PASSING = ("None", "ConditionalCheckFailed", "TransactionConflict", "Throttling", "ProvisionedThroughputExceeded")
_EXPECTED = frozenset({"ConditionalCheckFailedException", "TransactionCanceledException"})

_VERSION, _EXPIRES, _CHUNKS = Attribute("version"), Attribute(TTL_ATTRIBUTE), Attribute("chunks")
_DELETED, _OWNER = Attribute("deleted"), Attribute(OWNER)


def condition(mutation: Mutation, now: int) -> Expression:
    """What must hold of the stored item for a mutation to be applied: ``decide``, as the service can check it.

    Args:
        mutation: the write.
        now: seconds since the epoch, to tell what has expired.
    """
    asked, older = mutation.condition, _VERSION.below(text(mutation.version))
    present = _VERSION.exists() & _DELETED.missing() & (_EXPIRES.missing() | _EXPIRES.above(number(now)))
    gone = _VERSION.missing() | _DELETED.exists() | _EXPIRES.at_most(number(now))
    # A chunked item takes its chunks along only in a transaction, for which they must be known.
    whole: Expression = (older if isinstance(mutation, Delete) else _VERSION.missing() | older) & _CHUNKS.missing()
    if isinstance(mutation, Delete) or asked.expected is not None:
        whole &= present
    if asked.absent:
        whole &= gone
    if not asked.over_dead:
        whole &= _VERSION.missing() | (_DELETED.missing() & (_EXPIRES.missing() | _EXPIRES.above(number(now))))
    if asked.expected is not None:
        whole &= _VERSION.at_most(text(asked.expected))
    if asked.owner is not None:
        owned = _OWNER.equals(text(asked.owner))
        whole &= gone | owned if mutation.removes else gone | _OWNER.missing() | owned
    return whole


@dataclass(frozen=True, slots=True)
class Action:
    """One item to put, delete or check; alone it is a request, among others a part of a transaction."""

    kind: Literal["Put", "Delete", "ConditionCheck"]
    body: Request
    size: int = 0

    @property
    def operation(self) -> str:
        return "put_item" if self.kind == "Put" else "delete_item"


class Writer:
    """Writes items.

    Args:
        client: sends the requests.
        layouts: by collection.
        chunks: the table of chunks.
        shards: over how many partitions whole collections are spread.
        store: the store's name, for errors.
        payload_limit: bytes of the largest payload, for errors.
        now: the wall clock in seconds since the epoch.
    """

    def __init__(
        self,
        client: Client,
        layouts: Mapping[str, Layout],
        chunks: Table,
        *,
        shards: int,
        store: str,
        payload_limit: int,
        now: Callable[[], int],
    ) -> None:
        self._client = client
        self._layouts = layouts
        self._chunks = chunks
        self._shards = shards
        self._store = store
        self._payload_limit = payload_limit
        self._now = now

    def plan(self, mutation: Mutation, replaced: Row | None = None) -> list[Action]:
        """What must be done for a mutation, the item itself first.

        Args:
            mutation: the write.
            replaced: the chunked item found under its key, which is to be replaced with its chunks.

        Raises:
            RecordTooLarge: with its chunks it is larger than a transaction may be.
        """
        layout = self._layouts[mutation.key.collection]
        same = _VERSION.equals(text(replaced.item.version)) if replaced is not None else None
        body = _conditional(layout, same or condition(mutation, self._now()))
        if isinstance(mutation, Put):
            actions = self._put(mutation, layout, body)
        else:
            actions = [Action("Delete", {**body, "Key": key_attributes(mutation.key, layout)})]
        if replaced is not None:
            old = chunk_keys(mutation.key, replaced.item.version, replaced.chunks)
            actions += [Action("Delete", {"TableName": self._chunks.name, "Key": key}) for key in old]
        return actions

    def _put(self, mutation: Put, layout: Layout, body: Request) -> list[Action]:
        item = mutation.item
        attributes = to_attributes(item, layout, self._shards)
        size = size_of(attributes)
        if size + item.size + len("data") <= INLINE_BYTES:
            attributes |= data_attribute(item.data)
            return [Action("Put", {**body, "Item": attributes}, size + item.size + len("data"))]
        chunks = split(item.data, CHUNK_BYTES)
        attributes["chunks"] = number(len(chunks))
        parts = [
            Action("Put", {"TableName": self._chunks.name, "Item": chunk}, size_of(chunk))
            for chunk in chunk_items(item, chunks)
        ]
        actions = [Action("Put", {**body, "Item": attributes}, size + 32), *parts]
        if sum(action.size for action in actions) > TRANSACTION_BYTES:
            raise RecordTooLarge(item.size + size, self._payload_limit, store=self._store, key=item.key)
        return actions

    async def write(
        self, mutations: Sequence[Mutation], checked: Sequence[Outcome | None], atomic: bool, deadline: float
    ) -> tuple[Outcome, ...]:
        """Carry out mutations, each on its own or all or none; what the service fails to do is an outcome.

        Args:
            mutations: the writes.
            checked: of each, what is known without asking the service; None: nothing.
            atomic: all or none.
            deadline: when to end, by the event loop's clock in seconds.

        Raises:
            InvalidRecord: something cannot be sent; then nothing was.
        """
        if atomic and len(mutations) > 1:
            plans = [each or self._planned(mutation) for each, mutation in zip(checked, mutations, strict=True)]
            ready = _whole(plans)
            if ready is None:
                return tuple(Refused("atomic") if isinstance(each, list) else each for each in plans)
            return await self._at_once(mutations, ready, Call(deadline, mutations[0].key.collection))
        jobs = [
            partial(self._alone, mutation, Call(deadline, mutation.key.collection, mutation.key))
            for mutation, known in zip(mutations, checked, strict=True)
            if known is None
        ]
        outcomes = iter(await gather(jobs, limit=CONCURRENCY))
        return tuple(known or next(outcomes) for known in checked)

    def check(self, mutations: Sequence[Mutation]) -> tuple[Outcome | None, ...]:
        """What each mutation of an atomic write comes to before it is sent; None where it would be sent.

        Raises:
            InvalidRecord: they are more than the service takes in one transaction.
        """
        plans = [self._planned(mutation) for mutation in mutations]
        if _whole(plans) is not None:
            return (None,) * len(plans)
        return tuple(Refused("atomic") if isinstance(each, list) else each for each in plans)

    def _planned(self, mutation: Mutation) -> list[Action] | Failed:
        try:
            return self.plan(mutation)
        except RecordTooLarge as error:
            return Failed(error)

    async def _alone(self, mutation: Mutation, call: Call) -> Outcome:
        if call.remaining <= 0:
            return Failed(self._client.unsent(call))
        try:
            with anyio.CancelScope(deadline=call.deadline):
                # Planned only now, so that thousands of writes neither hold the event loop nor are all in memory twice.
                return await self._write(mutation, self.plan(mutation), call)
        except CloudDBError as error:
            return Failed(error, applied=call.unknown)
        return Failed(self._client.late(call), applied=call.unknown)

    async def _write(self, mutation: Mutation, actions: list[Action], call: Call) -> Outcome:
        row = None
        for attempt in range(_ROUNDS):
            if attempt > 1:
                await self._client.pause(attempt, call, "the item kept changing")
            try:
                await self._send(actions, call)
                return Stored(mutation.version)
            except Rejected as rejected:
                self._require_passing(rejected, mutation)
                found = rejected.reasons[0]
            if not found.condition_failed:
                continue
            row = row_of(found.item, self._layouts[mutation.key.collection]) if found.item else None
            outcome = decide(mutation, row.item if row is not None else None, self._now())
            if outcome is not None:
                return settled(mutation, outcome, self._store) if call.unknown else outcome
            actions = self.plan(mutation, row if row is not None and row.chunks else None)
        raise self._restless(mutation, row)

    async def _at_once(
        self, mutations: Sequence[Mutation], plans: list[list[Action]], call: Call
    ) -> tuple[Outcome, ...]:
        error: CloudDBError
        try:
            with anyio.CancelScope(deadline=call.deadline):
                return await self._write_atomic(mutations, plans, call)
            error = self._client.late(call)
        except CloudDBError as raised:
            error = raised
        return tuple(Failed(error, applied=call.unknown) for _ in mutations)

    async def _write_atomic(
        self, mutations: Sequence[Mutation], plans: list[list[Action]], call: Call
    ) -> tuple[Outcome, ...]:
        for attempt in range(_ROUNDS):
            if attempt > 1:
                await self._client.pause(attempt, call, "the items kept changing")
            try:
                await self._send([action for plan in plans for action in plan], call)
                return tuple(Stored(mutation.version) for mutation in mutations)
            except Rejected as rejected:
                self._require_passing(rejected, mutations[0])
                reasons = iter(rejected.reasons)
            refused: dict[int, Refused] = {}
            for place, mutation in enumerate(mutations):
                own = [next(reasons) for _ in plans[place]]
                if not own[0].condition_failed:
                    continue
                row = row_of(own[0].item, self._layouts[mutation.key.collection]) if own[0].item else None
                outcome = decide(mutation, row.item if row is not None else None, self._now())
                if isinstance(outcome, Refused):
                    refused[place] = outcome
                elif isinstance(outcome, Stored):
                    plans[place] = [self._check(mutation)]
                else:
                    plans[place] = self.plan(mutation, row if row is not None and row.chunks else None)
            if refused:
                return tuple(refused.get(place, Refused("atomic")) for place in range(len(mutations)))
        raise self._restless(mutations[0], None)

    def _check(self, mutation: Mutation) -> Action:
        """That a mutation found applied stays so while the others are."""
        layout = self._layouts[mutation.key.collection]
        body = _conditional(layout, _VERSION.equals(text(mutation.version)))
        return Action("ConditionCheck", {**body, "Key": key_attributes(mutation.key, layout)})

    async def _send(self, actions: Sequence[Action], call: Call) -> None:
        if len(actions) == 1 and actions[0].kind != "ConditionCheck":
            await self._client.send(actions[0].operation, actions[0].body, call, expect=_EXPECTED)
            return
        _check_transaction(actions)
        # With the token, the service answers a repeated request as it did the first one.
        request = {
            "TransactItems": [{action.kind: action.body} for action in actions],
            "ClientRequestToken": secrets.token_hex(16),
        }
        await self._client.send("transact_write_items", request, call, expect=_EXPECTED)

    def _require_passing(self, rejected: Rejected, mutation: Mutation) -> None:
        """Raise unless every reason of a rejection is one after which another attempt may help."""
        lasting = [each.code for each in rejected.reasons if not each.code.startswith(_PASSING)]
        if lasting:
            raise CloudDBError(
                f"DynamoDB cancelled the transaction for {lasting[0]}: {rejected.__cause__}",
                store=self._store,
                key=mutation.key,
            ) from rejected.__cause__

    def _restless(self, mutation: Mutation, found: Row | None) -> ConflictError:
        version = found.item.version if found is not None else None
        return ConflictError(mutation.condition.expected, version, store=self._store, key=mutation.key)


def _conditional(layout: Layout, guard: Expression) -> Request:
    return {
        "TableName": layout.table.name,
        **render(ConditionExpression=guard),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _whole(plans: Sequence[list[Action] | Outcome]) -> list[list[Action]] | None:
    """The plans of one transaction; None unless all are there. Raises InvalidRecord as ``_check_transaction`` does."""
    ready = [each for each in plans if isinstance(each, list)]
    if len(ready) < len(plans):
        return None
    _check_transaction([action for actions in ready for action in actions])
    return ready


def _check_transaction(actions: Sequence[Action]) -> None:
    """Raise InvalidRecord unless the service takes these actions in one transaction."""
    size = sum(action.size for action in actions)
    if len(actions) > TRANSACTION_ACTIONS or size > TRANSACTION_BYTES:
        problem = f"are {len(actions)} actions of {size} bytes with the chunks of large payloads, over the limit of "
        raise InvalidRecord("mutations", f"{problem}{TRANSACTION_ACTIONS} and {TRANSACTION_BYTES} in one transaction")
