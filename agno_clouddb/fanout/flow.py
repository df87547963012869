"""Flow: what the ways of writing have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agno_clouddb.errors import CloudDBError, PartialWrite
from agno_clouddb.fanout.hints import LAST_VERSION, hint_key
from agno_clouddb.fanout.replicas import Replicas
from agno_clouddb.fanout.sending import Answers, Sending, WriteOptions
from agno_clouddb.stores.base import Condition, Failed, Item, Mutation, Outcome, Put, Refused, Stored, decide
from agno_clouddb.stores.clock import just_after

__all__ = ["ATTEMPTS", "Flow", "as_put", "in_place_of", "may_have"]

ATTEMPTS = 5
"""How often a write is decided again when the item changes under it."""


def as_put(mutation: Mutation, replicas: Replicas) -> Put:
    """A mutation as the put that stores are sent; of a deletion, the tombstone, where something live is stored."""
    if isinstance(mutation, Put):
        return mutation
    condition = replace(mutation.condition, absent=False, expected=mutation.condition.expected or LAST_VERSION)
    return Put(replicas.tombstone(mutation.key, mutation.version), condition)


def in_place_of(refused: Refused) -> Condition:
    """That a store still holds what it has refused a write for, which is out of date."""
    nothing = refused.reason in ("dead", "absent")
    return Condition(absent=True, exclusive=True) if nothing else Condition(expected=refused.version)


def may_have(outcome: Outcome) -> bool:
    """Whether a store that has answered so may have stored the put."""
    return isinstance(outcome, Stored) or (isinstance(outcome, Failed) and outcome.applied)


def _is_later(outcome: Outcome, owner: str | None) -> bool:
    """Whether a store has dropped a copy for something later that belongs to an owner."""
    return (
        isinstance(outcome, Refused)
        and outcome.reason == "older"
        and outcome.owner is not None
        and outcome.owner == owner
    )


class Flow:
    """One call on its way to the stores.

    Args:
        replicas: the stores, the first of them the primary.
        options: how.
    """

    def __init__(self, replicas: Replicas, options: WriteOptions) -> None:
        self._replicas = replicas
        self._names = list(replicas.stores)
        self._options = options
        self._sending = Sending(replicas.stores, options)

    def _as_put(self, mutation: Mutation) -> Put:
        return as_put(mutation, self._replicas)

    async def _send(self, name: str, put: Put) -> Outcome:
        """What one store answers to one put."""
        return (await self._sending.send([name], [put]))[name][0]

    async def _answers(self, names: Sequence[str], puts: Sequence[Put]) -> list[Answers]:
        """What stores answer, put by put."""
        sent = await self._sending.send(names, puts)
        return [{name: answers[place] for name, answers in sent.items()} for place in range(len(puts))]

    async def _missed_later(self, put: Put, refused: Mapping[str, Refused], others: Sequence[str]) -> set[str]:
        """Which of the stores that refused a put have missed a later write of its key, as hints in others tell.

        Raises:
            CloudDBError: a hint cannot be read, so that nobody knows which refusal is out of date.
        """
        asked = [hint_key(name, put.key, certain=True) for name in refused]
        answers = await self._replicas.gather(lambda store: store.get(asked), others)
        late: set[str] = set()
        for batch in answers.values():
            if isinstance(batch, CloudDBError):
                raise batch
            for place, name in enumerate(refused):
                hint = batch.items[place]
                if hint is not None and hint.version > (refused[name].version or ""):
                    late.add(name)
        return late

    async def _restored(self, put: Put, by_store: Answers, holder: str) -> Outcome:
        """Put back what a store holds that forbade a put, on stores that missed it and have let the put through.

        Without this a user could take over another user's record while a store lags. The store that forbade the put
        decides, so that what others write to it meanwhile is not lost.

        Args:
            put: what was refused.
            by_store: what the stores have answered to it.
            holder: the store whose refusal counts.

        Returns:
            The refusal, once the put stands nowhere; else a failure that says that it may.
        """
        refusal: Outcome = by_store[holder]
        error: CloudDBError | None = CloudDBError("the item kept changing", key=put.key)
        for _ in range(ATTEMPTS):
            (read,) = (await self._replicas.gather(lambda store: store.get([put.key], dead=True), [holder])).values()
            if isinstance(read, CloudDBError):
                error = read
                break
            item = read.items[0]
            held: Outcome
            decision = decide(put, item, self._replicas.now)
            if item is not None and item.version == put.version:
                return await self._spread(put, by_store, holder)
            # What the store has refused the put for may have expired by this clock, and not by the store's.
            changed = item is not None and isinstance(refusal, Refused) and item.version != refusal.version
            if item is not None and changed and not (isinstance(decision, Refused) and decision.reason != "older"):
                # What forbade the put is gone: it is to be stamped and sent once more.
                return Refused("older", max(item.version, put.version), item.fields)
            if item is not None and item.version > put.version:
                # Written since, and later than the put, which it takes the place of everywhere.
                back, held, refusal = item, Stored(item.version), decision or refusal
            else:
                back, condition = self._put_back(put, item)
                held = await self._send(holder, Put(back, condition))
            if isinstance(held, Failed):
                error = held.error
                break
            if isinstance(held, Stored):
                error = await self._copied_back(put, Put(back), held, by_store, holder)
                break
        return refusal if error is None else self._not_undone(put, by_store, holder, error)

    async def _spread(self, put: Put, by_store: Answers, holder: str) -> Outcome:
        """What a put comes to that somebody who has compared the stores has brought where it was refused.

        They may not have brought it yet to the others that have refused it.
        """
        rest = [name for name, each in by_store.items() if name != holder and not isinstance(each, Stored)]
        (copies,) = await self._answers(rest, [Put(put.item)])
        return await self._settled_copy(put, {**dict.fromkeys(by_store, Stored(put.version)), **copies})

    async def _copied_back(
        self, put: Put, back: Put, held: Stored, by_store: Answers, holder: str
    ) -> CloudDBError | None:
        """Copy what a store holds over a put that others have let through.

        Args:
            put: the put.
            back: what is copied.
            held: that the store has it.
            by_store: what the stores have answered to the put.
            holder: the store.

        Returns:
            None once the put stands nowhere; else why it may.
        """
        (copies,) = await self._answers([name for name in self._names if name != holder], [back])
        settled = await self._settled_copy(back, {holder: held, **copies})
        if isinstance(settled, Failed):
            return settled.error
        if back.item.owner != put.item.owner and any(_is_later(each, put.item.owner) for each in copies.values()):
            # Its owner's write, which was refused in turn for this put, has put it back there before.
            return CloudDBError("another write has put it back", key=put.key)
        # A hint of what was put back is not enough where the put may stand: it would be read from there.
        let_through = [name for name in copies if name in by_store and may_have(by_store[name])]
        failed = (each.error for name in let_through if isinstance(each := copies[name], Failed))
        return next(failed, None)

    def _not_undone(self, put: Put, by_store: Answers, holder: str, error: CloudDBError) -> Failed:
        """The failure of a put that a store refuses, and that may stand on others all the same."""
        refused = CloudDBError(
            f"the write is refused for what is stored there, which could not be put back on the other stores: {error}",
            store=self._replicas.stores[holder].name,
            key=put.key,
        )
        refused.__cause__ = error
        acked = tuple(name for name, each in by_store.items() if isinstance(each, Stored))
        return Failed(PartialWrite(acked, {holder: refused}, key=put.key), applied=True)

    def _put_back(self, put: Put, item: Item | None) -> tuple[Item, Condition]:
        """An item as it is written over a put, with the condition that it is there still.

        It is no later than it must be: what others have written since they have seen the put stands.
        """
        if item is not None and not item.deleted:
            back = replace(item, version=just_after(put.version, item.version))
            return back, Condition(expected=item.version)
        version = just_after(put.version, item.version if item is not None else "")
        return self._replicas.tombstone(put.key, version), Condition(absent=True)

    async def _settled_copy(self, put: Put, answers: Answers) -> Outcome:
        """What a put comes to that is decided; a copy refused as older is done, since a later one was there before."""
        done: Answers = {
            name: Stored(put.version) if isinstance(each, Refused) and each.reason == "older" else each
            for name, each in answers.items()
        }
        (outcome,) = await self._sending.settle([put], [done])
        return outcome
