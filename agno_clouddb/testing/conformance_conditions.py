"""Conformance: every condition against everything that can be stored, by a table written by hand."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal, cast

import pytest

from agno_clouddb.stores.base import Condition, Delete, Item, Mutation, Put, Refused, Store, Stored, decide
from agno_clouddb.testing.conformance_base import (
    FAR_FUTURE,
    LONG_PAST,
    ConformanceBase,
    Samples,
    expect,
    stamp,
)

__all__ = ["ConditionCases"]

Mode = Literal["single", "bulk", "atomic"]
Reason = Literal["older", "exists", "absent", "version", "owner", "dead"]

WRITE = 10
"""The number of every write's stamp; what is stored has an older (5), the same or a newer (15) one."""

CONDITIONS = {
    "none": Condition(),
    "absent": Condition(absent=True),
    "expected what is stored": Condition(expected=stamp(5)),
    "expected an older one": Condition(expected=stamp(4)),
    "expected a newer one": Condition(expected=stamp(20)),
    "owner": Condition(owner="ann"),
    "owner and expected": Condition(owner="ann", expected=stamp(5)),
    "owner and absent": Condition(owner="ann", absent=True),
    "nothing dead": Condition(over_dead=False),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A state of the store, and what every condition comes to in it, in the order of CONDITIONS.

    Args:
        put: an outcome's word for each put.
        delete: the same for each delete.
        version: the number of the stored stamp; None when nothing is stored.
        owner: the owner stored.
        expires_at: the expiry stored, in seconds since the epoch.
        deleted: whether a tombstone is stored.
    """

    put: str
    delete: str
    version: int | None
    owner: str | None = "ann"
    expires_at: int | None = None
    deleted: bool = False

    def item(self, samples: Samples, name: str) -> Item | None:
        """The item that is stored."""
        if self.version is None:
            return None
        return samples.item(
            name, self.version, data="old", owner=self.owner, expires_at=self.expires_at, deleted=self.deleted
        )


ANEW = "applied applied absent  absent  absent  applied absent  applied applied"
OVER = "applied exists  applied version applied applied applied exists  applied"
PAST = "older   exists  version version older   older   version exists  older"
SAME = "stored  stored  stored  stored  stored  stored  stored  stored  stored"
GONE = "absent  absent  absent  absent  absent  absent  absent  absent  absent"
DEAD = "applied applied absent  absent  absent  applied absent  applied dead"
DEAD_PAST = "older   older   absent  absent  absent  older   absent  older   dead"
DEAD_GONE = "absent  absent  absent  absent  absent  absent  absent  absent  dead"
THEIRS = "applied exists  applied version applied owner   owner   owner   applied"
THEIRS_PAST = "older   exists  version version older   owner   owner   owner   older"

TABLE = {
    "nothing": Row(ANEW, GONE, None),
    "older": Row(OVER, OVER, 5),
    "older, to expire": Row(OVER, OVER, 5, expires_at=FAR_FUTURE),
    "newer": Row(PAST, PAST, 15),
    "same": Row(SAME, SAME, 10),
    "another's, older": Row(THEIRS, THEIRS, 5, "bob"),
    "another's, newer": Row(THEIRS_PAST, THEIRS_PAST, 15, "bob"),
    "nobody's": Row(OVER, THEIRS, 5, None),
    "tombstone, older": Row(DEAD, DEAD_GONE, 5, deleted=True),
    "tombstone, newer": Row(DEAD_PAST, DEAD_GONE, 15, deleted=True),
    "tombstone, same": Row(SAME, SAME, 10, deleted=True),
    "tombstone of another's": Row(DEAD, DEAD_GONE, 5, "bob", deleted=True),
    "expired, older": Row(DEAD, DEAD_GONE, 5, expires_at=LONG_PAST),
    "expired, newer": Row(DEAD_PAST, DEAD_GONE, 15, expires_at=LONG_PAST),
    "expired, another's": Row(DEAD, DEAD_GONE, 5, "bob", expires_at=LONG_PAST),
}


async def carry_out(store: Store, mutations: list[Mutation], mode: Mode) -> list[object]:
    if mode == "bulk":
        return list(await store.write(mutations))
    answers = await asyncio.gather(*(store.write([each], atomic=mode == "atomic") for each in mutations))
    return [outcome for (outcome,) in answers]


def expected_outcome(word: str, mutation: Mutation, found: Item | None) -> Stored | Refused:
    """The outcome that a word of the table stands for."""
    if word in ("applied", "stored"):
        return Stored(mutation.version)
    version = found.version if found is not None else None
    fields = dict(found.fields) if found is not None and word not in ("absent", "dead") else {}
    return Refused(cast("Reason", word), version, fields)


class ConditionCases(ConformanceBase):
    """What a put or delete comes to: alone, in bulk and as an atomic write, always the same."""

    @pytest.mark.parametrize("mode", ["single", "bulk", "atomic"])
    @pytest.mark.parametrize("kind", ["put", "delete"])
    @pytest.mark.parametrize("row", TABLE)
    async def test_condition_against_what_is_stored(
        self, store: Store, samples: Samples, row: str, kind: str, mode: Mode
    ) -> None:
        found = [TABLE[row].item(samples, str(place)) for place in range(len(CONDITIONS))]
        await store.write([Put(item) for item in found if item is not None])
        mutations: list[Mutation] = []
        for place, condition in enumerate(CONDITIONS.values()):
            new = samples.item(str(place), WRITE, data="new", owner="ann", session_name="renamed")
            mutations.append(Put(new, condition) if kind == "put" else Delete(new.key, new.version, condition))
        words = (TABLE[row].put if kind == "put" else TABLE[row].delete).split()
        wanted = [
            expected_outcome(word, mutation, item) for word, mutation, item in zip(words, mutations, found, strict=True)
        ]
        now = int(time.time())
        assert wanted == [
            decide(mutation, item, now) or Stored(mutation.version)
            for mutation, item in zip(mutations, found, strict=True)
        ], "the table and the port's rules disagree"

        outcomes = await carry_out(store, mutations, mode)

        assert dict(zip(CONDITIONS, outcomes, strict=True)) == dict(zip(CONDITIONS, wanted, strict=True))
        await self._expect_left(store, words, mutations, found, now)

    async def _expect_left(
        self, store: Store, words: list[str], mutations: list[Mutation], found: list[Item | None], now: int
    ) -> None:
        left = {
            mutation.key: item if word != "applied" else mutation.item if isinstance(mutation, Put) else None
            for word, mutation, item in zip(words, mutations, found, strict=True)
        }
        await expect(store, left, dead=True)
        await expect(store, {key: item if item is not None and item.live(now) else None for key, item in left.items()})
