"""Decided: writes that one store decides, the primary, before they are copied to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from agno_clouddb.concurrency import gather
from agno_clouddb.errors import CloudDBError, ConflictError
from agno_clouddb.fanout.flow import ATTEMPTS, Flow, in_place_of
from agno_clouddb.fanout.sending import Answers
from agno_clouddb.stores.base import Condition, Failed, Mutation, Outcome, Put, Refused, Stored, decide

__all__ = ["Decided"]

_CONCURRENCY = 16  # how many writes of one call are looked into at once

_FIRST_VERSION = "000000000000-0000-000000000000"


@dataclass(slots=True)
class _Case:
    """One put and how far it has come.

    Args:
        put: the put.
        known: the version up to which what other stores hold is out of date.
        answers: what the stores have answered.
        decider: the store that has decided; None: none yet.
    """

    put: Put
    known: str
    answers: Answers = field(default_factory=dict)
    decider: str | None = None


class Decided(Flow):
    """Writes that expect a version, so that of several one is stored, and creations of which only one may succeed.

    While the primary is down, creations are decided by the next store, and so are the others with ``failover``; else
    they fail.
    """

    async def write(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        """What each mutation comes to, in their order."""
        cases = [_case(self._as_put(each)) for each in mutations]
        for name in self._names:
            asked = [each for each in cases if each.decider is None and self._may_decide(name, each)]
            if asked:
                await self._decide(name, asked)
        await self._copy([each for each in cases if _stored(each)])
        return await gather([partial(self._finished, each) for each in cases], limit=_CONCURRENCY)

    def _may_decide(self, name: str, case: _Case) -> bool:
        return name == self._names[0] or self._options.failover or case.put.condition.exclusive

    async def _decide(self, name: str, cases: Sequence[_Case]) -> None:
        """Let one store decide; a refusal that the newest on all stores does not bear out is overruled."""
        answers = (await self._sending.send([name], [_offer(each.put) for each in cases]))[name]
        for case, answer in zip(cases, answers, strict=True):
            case.answers[name] = answer
            if not isinstance(answer, Failed):
                case.decider = name
        refused = [each for each in cases if isinstance(each.answers[name], Refused)]
        await gather([partial(self._decide_again, name, each) for each in refused], limit=_CONCURRENCY)

    async def _decide_again(self, name: str, case: _Case) -> None:
        """Decide what a store has refused against the newest on all stores, since this one may have missed it."""
        put, as_asked = case.put, True
        for _ in range(ATTEMPTS):
            refused = case.answers[name]
            if not isinstance(refused, Refused) or refused.reason == "older":
                return
            if as_asked and refused.reason == "version":
                return  # written since the version that is expected, whatever others hold
            try:
                (copies,) = await self._replicas.copies([put.key])
            except CloudDBError as error:
                case.answers[name] = Failed(error)
                return
            # An attempt of which the answer was lost does not forbid the next.
            top = copies.newest_but(put.version)
            found = top.version if top is not None else ""
            if as_asked and refused.reason != "dead" and (refused.version or "") >= found:
                return
            decision = decide(put, top, self._replicas.now)
            if isinstance(decision, Refused):
                case.answers[name] = decision
                return
            case.known = max(case.known, found)
            case.answers[name] = await self._send(name, Put(put.item, in_place_of(refused)))
            as_asked = False
        if isinstance(case.answers[name], Refused):
            problem = "the item kept changing"
            case.answers[name] = Failed(ConflictError(None, None, problem=problem, key=put.key))

    async def _copy(self, cases: Sequence[_Case]) -> None:
        """Copy what was decided to the stores that were not asked yet, as long as they hold nothing later."""
        by_decider: dict[tuple[str, ...], list[_Case]] = {}
        for case in cases:
            rest = tuple(name for name in self._names if name not in case.answers)
            by_decider.setdefault(rest, []).append(case)
        for names, group in by_decider.items():
            copies = [Put(each.put.item, _copied_over(each)) for each in group]
            for case, answers in zip(group, await self._answers(names, copies), strict=True):
                case.answers |= answers

    async def _finished(self, case: _Case) -> Outcome:
        """What a put comes to, once what stores hold that have missed something is overruled."""
        if not _stored(case):
            return self._undecided(case)
        put, answers = case.put, case.answers
        try:
            conflicting = await self._conflicting(case)
        except CloudDBError as error:
            return Failed(error, applied=True)
        if conflicting:
            return await self._conflict(case, conflicting)
        for name, each in answers.items():
            if isinstance(each, Refused) and (each.version or "") < put.version:
                held = each.reason in ("version", "exists")
                over = Condition(expected=each.version) if held else Condition()
                answers[name] = await self._send(name, Put(put.item, over))
        done = {name: Stored(put.version) if isinstance(each, Refused) else each for name, each in answers.items()}
        return await self._settled_copy(put, {name: done[name] for name in self._names})

    async def _conflicting(self, case: _Case) -> dict[str, Refused]:
        """The stores that hold what the deciding store has missed and what forbids the put."""
        put = case.put
        refused = {name: each for name, each in case.answers.items() if isinstance(each, Refused)}
        buried = max((each.version or "" for each in refused.values() if each.reason == "dead"), default="")
        # What is older than what is known is out of date, and what is newer than the put has been written later.
        between = {n: each for n, each in refused.items() if case.known < (each.version or "") < put.version}
        live = {n: each for n, each in between.items() if each.reason != "dead" and (each.version or "") > buried}
        if live:
            others = [n for n, each in case.answers.items() if n not in live and not isinstance(each, Failed)]
            late = await self._missed_later(put, live, others)
            live = {name: each for name, each in live.items() if name not in late}
        dead = {n: each for n, each in between.items() if each.reason == "dead"} if put.condition.expected else {}
        return {**live, **dead}

    async def _conflict(self, case: _Case, conflicting: dict[str, Refused]) -> Outcome:
        """Undo what the deciding store has stored, since it had missed what others hold.

        But only when all stores have answered, of which another may hold what is newer still.
        """
        failed = [each for each in case.answers.values() if isinstance(each, Failed)]
        if failed:
            return Failed(failed[0].error, applied=True)
        holder = max(conflicting, key=lambda name: conflicting[name].version or "")
        found = conflicting[holder]
        if found.reason == "dead":
            refusal = Refused("absent", found.version)
        else:
            expected = case.put.condition.expected is not None
            refusal = Refused("version" if expected else "exists", found.version, found.fields)
        return await self._restored(case.put, {**case.answers, holder: refusal}, holder)

    def _undecided(self, case: _Case) -> Outcome:
        """What a put comes to that no store has stored, as far as is known."""
        failed = [each for each in case.answers.values() if isinstance(each, Failed)]
        refused = [each for each in case.answers.values() if isinstance(each, Refused)]
        if refused and not any(each.applied for each in failed):
            return refused[0]
        return Failed(failed[0].error, applied=any(each.applied for each in failed))


def _case(put: Put) -> _Case:
    return _Case(put, put.condition.expected or _FIRST_VERSION)


def _offer(put: Put) -> Put:
    """What the deciding store is sent: of a creation, not over what is dead, so that its version is known."""
    if put.condition.exclusive:
        return replace(put, condition=replace(put.condition, over_dead=False))
    return put


def _stored(case: _Case) -> bool:
    return case.decider is not None and isinstance(case.answers[case.decider], Stored)


def _copied_over(case: _Case) -> Condition:
    """What other stores may hold when they are sent a copy of what was decided, so that a conflict shows."""
    if case.put.condition.expected is None:
        # Where nothing was known, a tombstone tells which of the others has missed a deletion.
        return Condition(absent=True, over_dead=case.known != _FIRST_VERSION)
    return Condition(expected=case.known, over_dead=False)
