"""The rules: what must hold of every schedule, in plain words, each with its check.

Words. An operation is *acknowledged* when it returned and has written; *refused* when it raised ConflictError, NotOwner
or RecordNotFound; of *unknown* outcome when it raised StoreUnavailable, Throttled, PartialWrite or BulkWriteError, was
cancelled, or its process died. The *writer* of an item is the operation whose payload it has, whatever its version:
what was put back after a refused write has a newer version and an older payload. A write is *clean* when every store
has answered every call that was made for it, and has stored it. Of what expires within SLACK of now nothing is asked,
since the clocks of the processes differ.

During a schedule, of every read:

- merged: It is at least as new as what the stores that answered it held when it began (P4).
- acknowledged: Unless it says that it is degraded, it is at least as new as every write acknowledged before it began;
  what is absent was deleted or has expired (P4). Not asked of a key of which something expired has been removed by a
  service before a reconciliation: only hints know of it then.
- own: It is at least as new as the writes that its own process had acknowledged before, under every read policy, when
  it is not degraded or a store that held them answered (P5).
- degraded: It says that it is degraded when a store did not answer, and does not when all did (P5, merged reads).
- deleted: What a clean delete removed, which some store held when the delete began, is not read by an operation that
  begins after it, unless its writer had not ended by then (P3; what a delete removed that was not clean is the business
  of the two rules above). What was given up and reaches a store later is not removed by it.
- refused: It does not show what a refused operation wanted to write, once that has answered.
- lists: A list that is not degraded shows every key that is not written meanwhile exactly once, in its order, if its
  newest version belongs there and else not at all; what it shows is at least as new as what was acknowledged; pages are
  full; a count agrees with the list where stores agree.

Of every acknowledged write:

- order: A clean write without expectations has a greater version than every write to its key that was acknowledged
  before it began, whatever the clocks.
- removal: An acknowledged delete has left a tombstone on some store, or leaves nothing that was there before it began.
- hinted: Of an acknowledged write that a store lacks, another one keeps a hint (P1).
- one of many: Of all writes that expected one version of a key only one is acknowledged.

With failover the rules one of many and counted are not asked: then two stores may decide at once.

After everything is healed, where no process has died:

- brought: Some time later no hint is left, without a reconciliation.

After everything is healed and reconciled:

- survives: The newest item of a key is by the acknowledged write of the greatest version, or by an operation of unknown
  outcome with a greater one. It is absent only where that write is a delete, or where one of them has a greater version
  and is a delete, or has expired (P1).
- counted: Every acknowledged update is counted once, and no refused one (P1).
- runs: Every acknowledged run of a session that was not deleted is in it once; of two appended by one process one after
  the other, the first is before the second (P1).
- refused: Nothing of a refused operation stands.
- atomic: Of a transaction both records stand, each until it is written again, or none.
- equal: All stores hold the same items, tombstones too; what has expired is absent; no hints are left (P2).
- settled: Another reconciliation changes nothing (P2).

Always:

- expired: What has expired is not written to a store any more, as by a repair.
- errors: Only errors that the repositories name are raised, and in the background only CloudDBErrors.
- clean end: A process that closes leaves no task behind, and no task waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agno_clouddb.fanout.hints import hint_key, is_hint
from agno_clouddb.stores.base import Item, Key
from agno_clouddb.stores.schema import REPLICATION
from tests.simulation.world import World, writer_of

if TYPE_CHECKING:
    from agno_clouddb.records.memories import UserMemory
    from agno_clouddb.records.sessions import Session
    from tests.simulation.operations import Operation

__all__ = [
    "SLACK",
    "check_brought",
    "check_count",
    "check_end",
    "check_get",
    "check_list",
    "check_session",
    "check_write",
    "snapshot",
]

SLACK = 700.0
"""Seconds by which clocks differ at most, and some."""

_UNDER_WAY = 4.0
"""Deadlines within which a write that is under way is done: given up after one, sent once more and given up again, it
arrives two later at most."""


def check_get(
    read: Operation, begun: float, key: Key, record: UserMemory | Session | None, *, guarded: bool = False
) -> None:
    """The rules merged, acknowledged, own, degraded, deleted and refused, of one record that was read.

    Args:
        read: the operation.
        begun: when the read began.
        key: what was asked for.
        record: what was answered.
        guarded: None may also mean that the record is another user's.
    """
    world = read.world
    version = record.version or "" if record is not None else ""
    answered = [n for n in range(world.number) if key in read.heard.get(n, ())]
    silent = world.number - len(answered)
    if record is not None:
        check_shown(read, begun, key, version)
    degraded = record.degraded if record is not None else bool(silent or read.failed)
    held = [item for n in answered if (item := read.before[key][n]) is not None]
    merges = read.process.reads == "merge"
    if merges and held:
        _check_new_enough(read, "merged", key, record is not None, version, max(each.version for each in held), guarded)
    if merges and not degraded and key not in world.swept:
        known = max((v for _, v in _acknowledged_before(world, key, begun)), default="")
        _check_new_enough(read, "acknowledged", key, record is not None, version, known, guarded)
    own = max((v for each, v in _acknowledged_before(world, key, begun) if each.process is read.process), default="")
    if key not in world.swept and (not degraded or any(item.version >= own for item in held)):
        _check_new_enough(read, "own", key, record is not None, version, own, guarded)
    if merges and record is not None:
        check_degraded(read, record.degraded, silent)


def check_degraded(read: Operation, degraded: bool, silent: int) -> None:
    """The rule degraded: ``silent`` stores have never answered."""
    if silent and not degraded:
        read.world.fail("degraded", f"{read} was answered without {silent} of the stores and does not say so")
    # A store whose circuit opens meanwhile is left out of a later look, without a call that fails.
    if degraded and not silent and not read.failed and read.process.troubled < read.begun:
        read.world.fail("degraded", f"{read} says that it is degraded, and all stores have answered")


def check_shown(read: Operation, begun: float, key: Key, version: str) -> None:
    """The rules deleted and refused, of one version that a read shows."""
    world = read.world
    writer = _writer_of_version(world, key, version)
    if writer is None:
        return
    if writer.outcome == "refused" and writer.ended is not None and writer.ended < begun:
        world.fail("refused", f"{read} shows {key} by {writer}, which was refused before")
    for delete in world.by_key.get(key, ()):
        if not delete.removes or delete.outcome != "acknowledged" or delete.ended is None or delete.ended >= begun:
            continue
        if _was_there(world, key, version, writer, delete) and delete.clean(key):
            world.fail("deleted", f"{read} shows {key} by {writer}, which {delete} had deleted before")


def check_list(read: Operation, begun: float, found: Sequence[UserMemory], degraded: bool | None) -> None:
    """The rule lists, and those of single records, of a whole list.

    Args:
        read: the operation.
        begun: when it began.
        found: what it showed, in its order.
        degraded: what it said; None: it could not say.
    """
    world, detail = read.world, read.step.detail
    shown = [record.memory_id for record in found]
    # Pages of several stores, one of which lags, may show a record at both of its places.
    if len(set(shown)) < len(shown) and not degraded and not read.failed and read.process.reads == "merge":
        moved = {key.id for key in read.before if _touched(world, key, begun)}
        if twice := {each for each in shown if shown.count(each) > 1} - moved:
            world.fail("lists", f"{read} shows {sorted(twice)} twice")
    places = [(str(record.updated_at), record.memory_id) for record in found]
    if places != sorted(places, reverse=detail["sort"].startswith("-")):
        world.fail("lists", f"{read} is out of order")
    for record in found:
        check_shown(read, begun, record.key, record.version or "")
    if read.process.reads != "merge":
        return
    silent = world.number - len(read.listed)
    steady = len(set(read.listed.values())) == 1 and read.process.troubled < begun
    if degraded is not None and (silent or steady):
        check_degraded(read, degraded, silent)
    if silent or read.failed or not steady:
        return
    for record in found:
        known = max((v for _, v in _acknowledged_before(world, record.key, begun)), default="")
        if (record.version or "") < known and record.key not in world.swept:
            world.fail("lists", f"{read} shows {record.key} at {record.version}, and {known} was known")
    for key, held in read.before.items():
        if not _touched(world, key, begun) and key not in world.swept:
            _check_listed(read, key, held, [record for record in found if record.memory_id == key.id])


def _check_listed(read: Operation, key: Key, held: Sequence[Item | None], shown: Sequence[UserMemory]) -> None:
    world, detail = read.world, read.step.detail
    newest = max((item for item in held if item is not None), key=lambda item: item.version, default=None)
    if newest is None or newest.deleted:
        if shown:
            world.fail("lists", f"{read} shows {key}, which is deleted")
        return
    if _expires(world, newest):
        return
    belongs = newest.owner == detail["user"] and (not detail["topics"] or '"t1"' in str(newest.data))
    if belongs and [each.version for each in shown] != [newest.version]:
        world.fail("lists", f"{read} should show {key} once at {newest.version}: {[each.version for each in shown]}")
    if not belongs and shown:
        world.fail("lists", f"{read} shows {key}, whose newest version does not belong there")


def check_count(read: Operation, begun: float, user: str, number: int) -> None:
    """The rule lists, of a count."""
    world = read.world
    if read.failed or read.process.reads != "merge" or any(_touched(world, key, begun) for key in read.before):
        return
    held = [item for items in read.before.values() for item in items[:1]]
    uncertain = any(item is not None and (item.deleted or item.expires_at is not None) for item in held)
    if uncertain or any(items.count(items[0]) < len(items) for items in read.before.values()):
        return
    expected = sum(item is not None and item.owner == user for item in held)
    if number != expected:
        world.fail("lists", f"{read} gave {number}, and there are {expected}")


def check_session(read: Operation, begun: float, key: Key, session: Session | None) -> None:
    """The rules of a record, of a session's header, and those of its runs."""
    world = read.world
    check_get(read, begun, key, session)
    if session is None:
        return
    shown = [run.run_id for run in session.runs]
    if len(set(shown)) < len(shown):
        world.fail("runs", f"{read} shows a run twice: {shown}")
    for run in session.runs:
        check_shown(read, begun, run.key, run.version or "")
    removals = [each for each in world.by_key.get(key, ()) if each.removes and each.outcome == "acknowledged"]
    for run in session.runs:
        writer = _writer_of_version(world, run.key, run.version or "")
        for delete in removals:
            over = delete.ended is not None and delete.ended < begun and delete.clean(key)
            if over and writer is not None and _was_there(world, run.key, run.version or "", writer, delete):
                world.fail("deleted", f"{read} shows {run.key} by {writer}, which {delete} had deleted before")
    if read.process.reads == "merge" and not session.degraded and not read.failed:
        check_runs(world, key, shown, before=begun, where=str(read))


def check_runs(world: World, session: Key, shown: Sequence[str], *, before: float, where: str) -> None:
    """The rule runs, of a session that is never deleted, as far as its runs were acknowledged before a moment."""
    if any(each.removes for each in world.by_key.get(session, ())) or session.id != "s0":
        return
    appended = [
        each
        for each in world.operations
        if each.step.kind == "append" and each.step.detail["key"] == session.id and each.outcome == "acknowledged"
    ]
    appended = [each for each in appended if each.ended is not None and each.ended < before]
    for each in appended:
        if shown.count(each.writes[0].id) != 1:
            world.fail("runs", f"{where} shows {each.writes[0]} of {each} {shown.count(each.writes[0].id)} times")
            return
    placed = [each for each in appended if _written_once(world, each)]
    for later in placed:
        for earlier in placed:
            if earlier.process is later.process and (earlier.ended or 0) < later.begun:
                first, second = earlier.writes[0].id, later.writes[0].id
                if first != second and shown.index(first) > shown.index(second):
                    world.fail("runs", f"{where} shows {first} of {earlier} after {second} of {later}")


def _written_once(world: World, append: Operation) -> bool:
    """Whether nobody else has tried to write the run of an append, which may have given it another place."""
    return len(world.by_key[append.writes[0]]) == 1


def check_write(write: Operation) -> None:
    """The rules order, removal and one of many, of a write that is acknowledged."""
    world = write.world
    for key, version in write.versions.items():
        if write.removes and not version and _predates(world, key, write):
            world.fail("removal", f"{write} is acknowledged, and has left a tombstone on no store")
        _check_hinted(world, write, key, version)
        if write.expected is None and write.step.kind not in ("count up", "transact") and _ordered(write, key):
            for each, known in _acknowledged_before(world, key, write.begun):
                if known > version:
                    world.fail("order", f"{write} has {version}, older than {known} of {each}, acknowledged before")
        if write.expected is not None and not world.failover:
            for each in world.by_key[key]:
                if each is not write and each.expected == write.expected and each.outcome == "acknowledged":
                    world.fail("one of many", f"{write} and {each} both replaced {write.expected}")


def _ordered(write: Operation, key: Key) -> bool:
    """Whether a write must be later than all before it: not where what was before is gone, with all that told of it."""
    return write.clean(key) and key not in write.world.swept


def _check_hinted(world: World, write: Operation, key: Key, version: str) -> None:
    newest = world.newest(key)
    if newest is None or newest.version != version or _expires(world, newest):
        return
    for store, item in zip(world.stores, world.held(key), strict=True):
        if item is None or item.version < version:
            kept = [hint_key(store.name, key, certain=certain) for certain in (True, False)]
            hints = [each.items.get(kept_at) for each in world.stores for kept_at in kept]
            if not any(hint is not None and hint.version >= version for hint in hints):
                world.fail("hinted", f"{write} is acknowledged, {store.name} lacks {key}, and no hint is kept of it")


def check_copied(world: World, item: Item) -> None:
    """The rule expired, of what a store has applied."""
    settled = world.loop.time() - world.jumped_at > _UNDER_WAY * world.deadline  # since time went on
    if settled and item.expires_at is not None and item.expires_at < world.wall() - SLACK:
        world.fail("expired", f"{item.key} at {item.version} was written after it had expired")


def check_brought(world: World) -> None:
    """The rule brought."""
    left = [key for store in world.stores for key, item in store.items.items() if is_hint(key) and not item.deleted]
    if left:
        world.fail("brought", f"{len(left)} hints are left, such as {left[0]}")


def check_end(world: World) -> None:
    """The rules that hold after everything is healed and reconciled."""
    for key in sorted(world.by_key):
        if key.collection == "runs" and key.parent != "s0":
            continue
        check_survives(world, key)
    check_counted(world)
    for each in world.operations:
        if each.step.kind == "transact" and each.outcome in ("acknowledged", "unknown"):
            _check_atomic(world, each)
    check_equal(world)


def check_survives(world: World, key: Key) -> None:
    """The rules survives and refused, of one key."""
    newest = world.newest(key)
    writes = world.by_key[key]
    acknowledged = [(each.versions[key], each) for each in writes if each.outcome == "acknowledged"]
    last, winner = max(acknowledged, key=lambda each: each[0], default=("", None))
    possible = [each for each in writes if each.outcome == "unknown" and each.wrote.get(key, "") > last]
    if winner is not None:
        possible.append(winner)
    if newest is None or newest.deleted or _expires(world, newest):
        gone = any(each.removes or _expired(world, key, each) for each in possible)
        if winner is not None and not gone:
            world.fail("survives", f"{key} is gone, and was acknowledged at {last} to {winner}")
        return
    number = writer_of(newest)
    writer = world.operations[number] if number is not None else None
    if writer is not None and writer.outcome == "refused":
        world.fail("refused", f"{key} is by {writer}, which was refused")
    elif writer not in possible or newest.version < last:
        world.fail("survives", f"{key} is {newest.version} by {writer}; the last acknowledged is {last} by {winner}")


def check_counted(world: World) -> None:
    """The rule counted."""
    key = Key("memories", "c0")
    newest = world.newest(key)
    if newest is None or world.failover:
        return
    counts = [each for each in world.by_key[key] if each.step.kind == "count up"]
    for each in counts:
        times = str(newest.data).count(f'"{each.number}"')
        allowed = {"acknowledged": (1,), "unknown": (0, 1)}.get(each.outcome, (0,))
        if times not in allowed:
            world.fail("counted", f"{each}, {each.outcome}, is counted {times} times")


def _check_atomic(world: World, transaction: Operation) -> None:
    newest = {key: world.newest(key) for key in transaction.writes}
    stands = [key for key, item in newest.items() if item is not None and writer_of(item) == transaction.number]
    for key, item in newest.items():
        written_again = item is not None and item.version > transaction.wrote.get(key, "~")
        if stands and key not in stands and not written_again and not _gone_by_others(world, key, transaction):
            world.fail("atomic", f"of {transaction} {stands} stands, and {key} does not")


def _gone_by_others(world: World, key: Key, transaction: Operation) -> bool:
    """Whether a key is absent since something newer was deleted, or has expired."""
    since = transaction.wrote.get(key, "~")
    return any(
        each.wrote.get(key, "") > since and (each.removes or _expired(world, key, each)) for each in world.by_key[key]
    )


def check_equal(world: World) -> None:
    """The rule equal."""
    for key in sorted({key for store in world.stores for key in store.items}):
        if key.collection == REPLICATION.name:
            if any((item := store.items.get(key)) is not None and "missed" in item.fields for store in world.stores):
                world.fail("equal", f"a hint is left: {key}")
            continue
        held = world.held(key)
        if any(item is not None and item.expires_at is not None and _at_the_edge(world, item) for item in held):
            continue
        shown = [None if item is None or _expires(world, item) else item for item in held]
        if all(item is None or item.deleted for item in shown) and _expired_later(world, key, shown):
            continue  # what has expired is not copied, so that a tombstone which it has replaced may be left elsewhere
        if any(each != shown[0] for each in shown):
            world.fail("equal", f"{key} is {[item and (item.version, item.deleted) for item in shown]}")


def _expired_later(world: World, key: Key, tombstones: Sequence[Item | None]) -> bool:
    """Whether something was written after tombstones, be it another one, that has expired since."""
    last = max((item.version for item in tombstones if item is not None), default="")
    items = [each.item for each in world.effects.get(key, ())]
    return any(item.version >= last and _expires(world, item) for item in items)


def snapshot(world: World) -> list[dict[Key, Item]]:
    """What all stores hold, without what the fan-out keeps for itself."""
    return [
        {key: item for key, item in store.items.items() if key.collection != REPLICATION.name} for store in world.stores
    ]


# What the rules are made of


def _check_new_enough(
    read: Operation, rule: str, key: Key, found: bool, version: str, known: str, guarded: bool
) -> None:
    """That a read is as new as a version; if it found nothing, that something as new or newer is dead."""
    if not known or (found and version >= known):
        return
    world = read.world
    if found:
        world.fail(rule, f"{read} gave {key} at {version}, and {known} was known")
        return
    effects = world.effects.get(key, ())
    since = [each.item for each in effects if each.item.version >= known]
    if not any(item.deleted or _expires(world, item) for item in since):
        others = {item.owner for item in since} - {read.step.detail.get("user")}
        if not (guarded and others):
            world.fail(rule, f"{read} gave no {key}, and {known} was known")


def _acknowledged_before(world: World, key: Key, moment: float) -> list[tuple[Operation, str]]:
    return [
        (each, each.versions[key])
        for each in world.by_key.get(key, ())
        if each.outcome == "acknowledged" and each.ended is not None and each.ended < moment and key in each.versions
    ]


def _was_there(world: World, key: Key, version: str, writer: Operation, delete: Operation) -> bool:
    """Whether a store held a version, whose writer had ended, when a delete began."""
    stored = any(each.item.version == version and each.at < delete.begun for each in world.effects.get(key, ()))
    return stored and writer.ended is not None and writer.ended < delete.begun


def _writer_of_version(world: World, key: Key, version: str) -> Operation | None:
    for each in world.effects.get(key, ()):
        if each.item.version == version:
            number = writer_of(each.item)
            return world.operations[number] if number is not None else None
    return None


def _predates(world: World, key: Key, write: Operation) -> bool:
    """Whether what is newest under a key is live, and was written before a write began.

    Not where another store holds what was written meanwhile: that has taken the place of the write's tombstone there.
    """
    newest = world.newest(key)
    writers = [_writer(world, item) for item in world.held(key) if item is not None]
    if any(each is not None and (each.ended is None or each.ended >= write.begun) for each in writers):
        return False
    writer = _writer(world, newest) if newest is not None and not _expires(world, newest) else None
    return writer is not None


def _writer(world: World, item: Item) -> Operation | None:
    number = writer_of(item)
    return world.operations[number] if number is not None else None


def _touched(world: World, key: Key, since: float) -> bool:
    effects = world.effects.get(key)
    return effects is not None and effects[-1].at >= since


def _expires(world: World, item: Item) -> bool:
    """Whether an item has expired, or is about to."""
    return item.expires_at is not None and item.expires_at <= world.wall() + SLACK


def _at_the_edge(world: World, item: Item) -> bool:
    return abs((item.expires_at or 0) - world.wall()) <= SLACK


def _expired(world: World, key: Key, write: Operation) -> bool:
    """Whether what an operation has written has expired."""
    return any(
        writer_of(each.item) == write.number and _expires(world, each.item) for each in world.effects.get(key, ())
    )
