"""Atomic: writes that are carried out all or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError, StoreUnavailable
from agno_clouddb.fanout.flow import ATTEMPTS, Flow, in_place_of
from agno_clouddb.fanout.sending import Answers
from agno_clouddb.stores.base import Delete, Failed, Mutation, Outcome, Put, Refused, Stored, decide

__all__ = ["Atomic"]


class Atomic(Flow):
    """First decided against the newest on all stores, then by the primary; what it has stored is copied.

    The read before it makes that what the primary has missed forbids a write, too; what the primary holds that is older
    forbids none. A store that does not answer that read has no say.
    """

    async def write(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        """What each mutation comes to, in their order."""
        try:
            found = await self._replicas.copies([each.key for each in mutations])
        except CloudDBError as error:
            return [Failed(error)] * len(mutations)
        outcomes: list[Outcome | None] = []
        puts: list[Put] = []
        for mutation, copies in zip(mutations, found, strict=True):
            top = copies.newest
            decision = decide(mutation, top, self._replicas.now)
            # Also where a store has this very version: it is sent again since others may not have it. And what is to
            # be deleted may be on a store that has not answered.
            unseen = isinstance(mutation, Delete) and not copies.complete
            refused = isinstance(decision, Refused) and not (unseen and decision.reason == "absent")
            outcomes.append(decision if refused else None)
            puts.append(self._asked(mutation, top.version if top is not None and decision is None else ""))
            lives = top is not None and top.live(self._replicas.now)
            if mutation.condition.owner is not None and not copies.complete and not lives:
                problem = "whose the record is, only a store may know that does not answer"
                outcomes[-1] = Failed(StoreUnavailable(problem, key=mutation.key))
        if any(outcomes):
            return [each or Refused("atomic") for each in outcomes]
        versions = [each.newest.version if each.newest is not None else "" for each in found]
        return await self._stored_at_once(puts, versions)

    def _asked(self, mutation: Mutation, version: str) -> Put:
        """The put of a mutation; of a deletion, that what it removes is there still, so that of several only one is."""
        put = self._as_put(mutation)
        if not isinstance(mutation, Delete) or mutation.condition.expected is not None:
            return put
        return replace(put, condition=replace(put.condition, expected=version or None))

    async def _stored_at_once(self, puts: Sequence[Put], found: Sequence[str]) -> list[Outcome]:
        decider, outcomes = await self._by_decider(puts, found)
        if not all(isinstance(each, Stored) for each in outcomes):
            return outcomes
        others = [name for name in self._names if name != decider]
        copies = {n: Put(put.item) for n, put in enumerate(puts)}
        copied = await gather([partial(self._copy, name, copies) for name in others])
        answers: list[Answers] = []
        for n, outcome in enumerate(outcomes):
            by_store = {decider: outcome, **{name: each[n] for name, each in zip(others, copied, strict=True)}}
            answers.append({name: by_store[name] for name in self._names})
        return await self._sending.settle(list(copies.values()), answers)

    async def _by_decider(self, puts: Sequence[Put], found: Sequence[str]) -> tuple[str, list[Outcome]]:
        """What the primary decides, or with ``failover`` the next store that answers."""
        outcomes: list[Outcome] = []
        for name in self._names if self._options.failover else self._names[:1]:
            before = outcomes
            outcomes = await self._at_once(name, puts, found)
            failed = [each for each in outcomes if isinstance(each, Failed)]
            if before and failed:
                outcomes = before
            if not failed:
                return name, outcomes
            if any(each.applied for each in failed):
                break  # it may stand there: another store is not to decide otherwise
        return self._names[0], outcomes

    async def _at_once(self, name: str, puts: Sequence[Put], found: Sequence[str]) -> list[Outcome]:
        """What one store decides; what it holds that is older than what was found forbids nothing."""
        asked, outcomes = list(puts), list[Outcome]()
        for _ in range(ATTEMPTS):
            outcomes = list((await self._sending.send([name], asked, atomic=True))[name])
            refused = {n: each for n, each in enumerate(outcomes) if isinstance(each, Refused)}
            for n, each in refused.items():
                if asked[n] is not puts[n] and each.reason != "atomic":
                    # Somebody else has written to the store since: what they wrote decides.
                    asked[n] = puts[n]
                elif each.reason != "atomic" and (each.version or "") < found[n]:
                    asked[n] = Put(puts[n].item, in_place_of(each))
                elif each.reason != "atomic":
                    return outcomes
            if not refused:
                break
        return outcomes

    async def _copy(self, name: str, copies: Mapping[int, Put]) -> dict[int, Outcome]:
        """Copy to one store what was decided, atomically, but for what is replaced there already."""
        outcomes: dict[int, Outcome] = {}
        rest = dict(copies)
        while rest:
            sent = await self._sending.send([name], list(rest.values()), atomic=True)
            answers = dict(zip(rest, sent[name], strict=True))
            older = {n for n, each in answers.items() if isinstance(each, Refused) and each.reason == "older"}
            if not older:
                failure = next((each for each in answers.values() if isinstance(each, Failed)), None)
                for n, each in answers.items():
                    refused = isinstance(each, Refused)
                    outcomes[n] = failure or self._uncopied(name, copies[n], each) if refused else each
                return outcomes
            # A copy refused as older is done, a later write was there before it; the others are still to be stored.
            outcomes.update({n: Stored(copies[n].version) for n in older})
            rest = {n: copy for n, copy in rest.items() if n not in older}
        return outcomes

    def _uncopied(self, name: str, copy: Put, answer: Outcome) -> Failed:
        store = self._replicas.stores[name].name
        return Failed(CloudDBError(f"the copy of a write was answered with {answer}", store=store, key=copy.key))
