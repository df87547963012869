"""Parallel: writes that go to all stores at once, with one version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError
from agno_clouddb.fanout.flow import ATTEMPTS, Flow, may_have
from agno_clouddb.fanout.hints import hint_key
from agno_clouddb.fanout.policy import gravest
from agno_clouddb.fanout.sending import Answers
from agno_clouddb.stores.base import Condition, Failed, Mutation, Outcome, Put, Refused, Stored
from agno_clouddb.stores.clock import version_millis

__all__ = ["Parallel"]

_TOGETHER_MILLIS = 900_000
"""How far apart the stamps of two writes may be that were under way at the same time: as far as clocks may differ."""

_CONCURRENCY = 16  # how many writes of one call are looked into at once


class Parallel(Flow):
    """Writes that every store decides for itself. Where they disagree, the one that holds the newest is right."""

    async def write(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        """What each mutation comes to, in their order.

        Nothing dead is written over at first: where a store that missed a deletion forbids what another store lets
        through over a tombstone, or over nothing, only the tombstone tells which of them is out of date.
        """
        puts = [self._as_put(each) for each in mutations]
        answers = await self._answers(self._names, [_not_over_the_dead(put) for put in puts])
        disputed = {n for n, by_store in enumerate(answers) if _binding(by_store)}
        agreed = [n for n in range(len(puts)) if n not in disputed]
        outcomes: dict[int, Outcome] = {}
        settled = await self._sending.settle([puts[n] for n in agreed], [answers[n] for n in agreed])
        outcomes |= zip(agreed, settled, strict=True)
        calls = [partial(self._settled_dispute, puts[n], answers[n]) for n in sorted(disputed)]
        outcomes |= zip(sorted(disputed), await gather(calls, limit=_CONCURRENCY), strict=True)
        return [outcomes[n] for n in range(len(puts))]

    async def _settled_dispute(self, put: Put, by_store: Answers) -> Outcome:
        """What a put comes to that some stores refuse; a failure where it cannot be told whose refusal counts."""
        try:
            return await self._resolved(put, by_store)
        except CloudDBError as error:
            return Failed(error, applied=any(map(may_have, by_store.values())))

    async def _resolved(self, put: Put, by_store: Answers) -> Outcome:
        """What a put comes to that some stores refuse for what they hold."""
        for name, each in by_store.items():
            if isinstance(each, Failed) and each.applied:
                by_store[name] = _either(await self._send(name, put))
        for _ in range(ATTEMPTS):
            overruled = await self._overruled(put, by_store)
            if not overruled:
                break
            calls = [partial(self._sent_again, put, name, condition) for name, condition in overruled.items()]
            by_store |= zip(overruled, await gather(calls), strict=True)
        binding = _binding(by_store)
        if binding:
            return await self._refused(put, by_store, await self._holder(put, by_store, binding))
        (outcome,) = await self._sending.settle([put], [by_store])
        return outcome

    async def _sent_again(self, put: Put, name: str, condition: Condition) -> Outcome:
        """What a store answers to a put that it has refused, on another condition."""
        answer = await self._send(name, Put(put.item, condition))
        if isinstance(answer, Refused) and answer.reason == "version":
            answer = await self._send(name, _not_over_the_dead(put))  # what it holds now decides
        return answer

    async def _holder(self, put: Put, by_store: Answers, binding: Mapping[str, Refused]) -> str:
        """The store whose refusal counts."""
        holder, primary = gravest(binding), self._names[0]
        foreign = {name: each for name, each in binding.items() if each.reason == "owner"}
        own = primary in binding and binding[primary].reason == "exists"
        return primary if own and foreign and await self._first_comes(put, by_store, foreign) else holder

    async def _refused(self, put: Put, by_store: Answers, holder: str) -> Outcome:
        """What a put comes to that the store ``holder`` refuses."""
        refusal = by_store[holder]
        failed = [each for each in by_store.values() if isinstance(each, Failed)]
        stored = _any_stored(by_store)
        if stored and not failed:
            return await self._restored(put, by_store, holder)
        if put.removes and put.condition.owner is not None and failed:
            return Failed(failed[0].error, applied=any(each.applied for each in failed))
        applied = any(each.applied for each in failed)
        if applied and not stored and isinstance(refusal, Refused) and refusal.reason == "exists":
            # What was to be absent is written once more by the writer who learns that it is not, and later than this.
            return replace(refusal, applied=True)
        if stored or applied:
            # It may stand, and is not undone: the store that has not answered may hold what is newer than the refusal.
            return Failed(failed[0].error, applied=True)
        return refusal

    async def _overruled(self, put: Put, by_store: Answers) -> dict[str, Condition]:
        """The stores whose refusal does not count, with the condition on which they are sent the put again."""
        binding = _binding(by_store)
        dead = {name: each for name, each in binding.items() if each.reason in ("dead", "absent")}
        live = {name: each for name, each in binding.items() if name not in dead}
        buried = max((each.version or "" for each in dead.values()), default="")
        others = [name for name, each in by_store.items() if name not in live and not isinstance(each, Failed)]
        late = {name for name, each in live.items() if (each.version or "") < buried}
        if others and len(late) < len(live):
            late |= await self._missed_later(put, live, others)
        if len(late) < len(live) and not await self._first_comes(put, by_store, live):
            return {}
        if put.removes and put.condition.owner is not None and not _any_stored(by_store):
            return {}  # whose it is, only a store knows that has it
        over = Condition() if put.removes else put.condition
        if put.removes and len(dead) == len(by_store):
            return {}  # nothing is there to delete, on any store
        return {name: Condition(expected=live[name].version) for name in live} | dict.fromkeys(dead, over)

    async def _first_comes(self, put: Put, by_store: Answers, live: Mapping[str, Refused]) -> bool:
        """Whether the primary has let a put through that others refuse for what was written at the same time.

        Two writers may each find one store empty that the other has written to; then the primary is right. But not
        where it has missed what forbids the put, of which a hint tells; nor where that is older, since a primary that
        was added, and is being filled, may lack it without a hint.

        Raises:
            CloudDBError: a hint cannot be read, so that nobody knows.
        """
        answer = by_store.get(primary := self._names[0])
        own = isinstance(answer, Stored) or (isinstance(answer, Refused) and answer.reason == "exists")
        together = all(
            abs(version_millis(e.version or put.version) - version_millis(put.version)) < _TOGETHER_MILLIS
            for e in live.values()
        )
        if put.removes or primary in live or not together or not own:
            return False
        kept = [hint_key(primary, put.key, certain=certain) for certain in (True, False)]
        answers = await self._replicas.gather(lambda store: store.get(kept), list(live))
        for name, each in answers.items():
            if isinstance(each, CloudDBError):
                raise each
            # A hint of something older tells nothing of what forbids the put.
            if any(hint is not None and hint.version >= (live[name].version or "") for hint in each.items):
                return False
        return True


def _binding(by_store: Answers) -> dict[str, Refused]:
    """The refusals that a later stamp does not change."""
    return {name: each for name, each in by_store.items() if isinstance(each, Refused) and each.reason != "older"}


def _not_over_the_dead(put: Put) -> Put:
    return put if put.removes else replace(put, condition=replace(put.condition, over_dead=False))


def _any_stored(by_store: Answers) -> bool:
    return any(isinstance(each, Stored) for each in by_store.values())


def _either(later: Outcome) -> Outcome:
    """What an attempt has come to of which the answer was lost, as a later one shows."""
    return Failed(later.error, applied=True) if isinstance(later, Failed) else later
