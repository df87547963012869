"""Writes: mutations with conditions, what they come to, and the rules that every store keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agno_clouddb.errors import CloudDBError, StoreUnavailable
from agno_clouddb.stores.items import Item, Key
from agno_clouddb.stores.schema import OWNER

__all__ = [
    "NEWER",
    "Condition",
    "Delete",
    "Failed",
    "Mutation",
    "Outcome",
    "Put",
    "Refused",
    "Stored",
    "decide",
    "settled",
]


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of the stored item, beyond being older than the write.

    Args:
        absent: nothing is stored; a tombstone or an expired item counts as nothing.
        expected: an item is stored, and its version is this one or an older one (a replica that lags is no conflict).
        owner: the stored item, if any, belongs to this user. A put may also claim an item without an owner; a delete,
            or the put of a tombstone, may not.
        over_dead: False: neither a tombstone nor an expired item is stored. A fan-out asks for it, to learn of a
            deletion that another store has missed before it is written over.
        exclusive: with ``absent``: of several writers who ask for it at once, one succeeds also in a fan-out, which
            lets its primary decide before it writes to the others. A single store pays no attention to it.
    """

    absent: bool = False
    expected: str | None = None
    owner: str | None = None
    over_dead: bool = True
    exclusive: bool = False


NEWER = Condition()
"""No condition but the rule of every write: newer than what is stored."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write the whole item, replacing what is stored under its key."""

    item: Item
    condition: Condition = NEWER

    @property
    def key(self) -> Key:
        return self.item.key

    @property
    def version(self) -> str:
        return self.item.version

    @property
    def removes(self) -> bool:
        """Whether nothing live is left by it: a tombstone is put."""
        return self.item.deleted


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the item for good; refused as ``absent`` when nothing is stored.

    Args:
        key: the item's key.
        version: the stamp of the deletion; what is stored is removed only when it is older.
        condition: what must hold besides.
    """

    key: Key
    version: str
    condition: Condition = NEWER

    @property
    def removes(self) -> bool:
        """Whether nothing live is left by it: always."""
        return True


Mutation = Put | Delete


@dataclass(frozen=True, slots=True)
class Stored:
    """The mutation stands: it was applied now, or this very version had been applied before.

    Args:
        version: the mutation's.
        partial: some stores of a fan-out did not answer, so that what they hold has had no say.
    """

    version: str
    partial: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The condition did not hold and nothing was changed.

    Args:
        reason: ``older``: the stored version is newer than the write's. ``exists``: the item was to be absent.
            ``absent``: there is nothing to delete or to replace. ``version``: the stored version is newer than the
            expected one. ``owner``: the item belongs to another user. ``dead``: there is a tombstone or an expired
            item. ``atomic``: another mutation of the same atomic write was refused or failed.
        version: the version found; None when nothing is stored.
        fields: the fields found.
        applied: the mutation may come to stand all the same, on a store of a fan-out that has not answered.
    """

    reason: Literal["older", "exists", "absent", "version", "owner", "dead", "atomic"]
    version: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    applied: bool = False

    @property
    def owner(self) -> str | None:
        """The owner found."""
        return self.fields.get(OWNER)


@dataclass(frozen=True, slots=True)
class Failed:
    """The store did not carry the mutation out, or did not say that it did.

    Args:
        error: why.
        applied: True when it may have been applied all the same, as after a time-out; False when it surely was not.
    """

    error: CloudDBError
    applied: bool = False


Outcome = Stored | Refused | Failed


def decide(mutation: Mutation, found: Item | None, now: int) -> Stored | Refused | None:
    """What a mutation comes to against the item found under its key; None when it is to be applied.

    The one statement of the rules of this port: stores that can look at the stored item call it, and a store that
    sends a condition expression instead calls it to explain a refusal.

    Args:
        mutation: the write.
        found: what is stored under its key, be it expired or a tombstone; its payload is not looked at.
        now: seconds since the epoch, to tell what has expired.
    """
    live = found if found is not None and found.live(now) else None
    condition = mutation.condition
    if found is not None and found.version == mutation.version:
        return Stored(found.version)
    version, fields = (found.version, found.fields) if found is not None else (None, {})
    if found is not None and live is None and not condition.over_dead:
        return Refused("dead", version)
    if live is not None and condition.owner not in (None, live.owner):
        claims = live.owner is None and not mutation.removes
        if not claims:
            return Refused("owner", version, fields)
    if condition.absent and live is not None:
        return Refused("exists", version, fields)
    if live is None and (condition.expected is not None or isinstance(mutation, Delete)):
        return Refused("absent", version)
    if live is not None and condition.expected is not None and live.version > condition.expected:
        return Refused("version", version, fields)
    if version is not None and version > mutation.version:
        return Refused("older", version, fields)
    return None


def settled(mutation: Mutation, outcome: Stored | Refused, store: str) -> Outcome:
    """What an outcome means when the answer to an earlier attempt of the same write was lost.

    The earlier attempt may have been applied and then overwritten: a refusal by what is newer cannot tell, and must
    not be reported as one.

    Args:
        mutation: the write.
        outcome: what a later attempt came to.
        store: the store's name, for the error.
    """
    if isinstance(outcome, Stored):
        return outcome
    if isinstance(mutation, Delete) and outcome.reason == "absent":
        return Stored(mutation.version)
    if outcome.version is not None and outcome.version < mutation.version:
        # Had the attempt been applied, nothing older could be stored.
        return outcome
    error = StoreUnavailable(
        "the answer to a write was lost, and the item has been written by others since",
        store=store,
        key=mutation.key,
        remedy="Read the record to see what is stored",
    )
    return Failed(error, applied=True)
