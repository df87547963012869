"""Evaluation runs, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest

from agno_clouddb import ConflictError, Database, EvalRun, InvalidRecord, NotOwner, RecordNotFound, connect
from agno_clouddb.stores.base import Put, Stored
from agno_clouddb.stores.clock import HybridClock

COLLECTIONS = ("evals",)

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def evaluation(run_id: str = "e1", **values: Any) -> EvalRun:
    return EvalRun(**{"run_id": run_id, "eval_type": "accuracy", "eval_data": {"score": 0.5}, **values})


def unchanged(record: EvalRun) -> EvalRun:
    return record


async def expire(db: Database, record: EvalRun) -> None:
    """Let a stored record expire at once."""
    clock = HybridClock()
    assert record.version is not None
    clock.observe(record.version)
    (outcome,) = await db.store.write([Put(replace(record.to_item(record.key, clock.stamp()), expires_at=1))])
    assert isinstance(outcome, Stored)


async def stored_ids(db: Database, limit: int = 100, **arguments: Any) -> list[str]:
    """The ids that a list gives, page by page to its end; each page but the last must be full."""
    found: list[str] = []
    cursor = None
    while True:
        page = await db.evals.list(limit=limit, cursor=cursor, **arguments)
        found += [each.run_id for each in page.items]
        assert not page.degraded
        assert len(page.items) == limit or page.cursor is None
        cursor = page.cursor
        if cursor is None:
            return found


async def test_an_evaluation_round_trips_with_everything_in_it(db: Database) -> None:
    written = evaluation(
        eval_type="agent_as_judge",
        eval_data={"scores": [1, 2.5, None, True, "é😀", {}, []], "big": 2**80},
        eval_input={},
        name="Flüge",
        agent_id="a",
        team_id="t",
        workflow_id="w",
        model_id="gpt-4o",
        model_provider="OpenAI",
        evaluated_component_name="x" * 3000,
        user_id="ann",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2))),
        unheard_of={"kept": [None]},
    )
    stored = await db.evals.create(written)
    read = await db.evals.get("e1")
    assert read == stored
    assert read is not None
    assert read.model_dump(exclude={"version", "updated_at"}) == written.model_dump(exclude={"version", "updated_at"})
    assert read.model_extra == {"unheard_of": {"kept": [None]}}
    assert read.version is not None
    back = EvalRun.model_validate_json(read.model_dump_json())
    assert back == read
    changed = await db.evals.upsert(back.model_copy(update={"name": "Renamed"}))
    assert changed.model_extra == written.model_extra
    assert await db.evals.get("e1") == changed


async def test_what_is_missing_is_none_false_or_not_found(db: Database) -> None:
    assert await db.evals.get("nobody") is None
    assert await db.evals.delete("nobody") is False
    assert await db.evals.delete_many(["nobody", "no one"]) == 0
    assert await db.evals.count() == 0
    assert (await db.evals.list()).items == []
    with pytest.raises(RecordNotFound, match="evals/nobody"):
        await db.evals.rename("nobody", "x")
    with pytest.raises(RecordNotFound):
        await db.evals.update("nobody", unchanged)


async def test_an_id_that_is_there_is_not_created_again(db: Database) -> None:
    first = await db.evals.create(evaluation(user_id="ann"))
    for record in (evaluation(), evaluation(user_id="bob"), first):
        with pytest.raises(ConflictError) as caught:
            await db.evals.create(record)
        assert (caught.value.expected, caught.value.found) == (None, first.version)
    assert await db.evals.get("e1") == first
    assert await db.evals.delete("e1") is True
    again = await db.evals.create(evaluation(user_id="bob"))
    assert await db.evals.get("e1") == again
    assert again.version is not None
    assert first.version is not None
    assert again.version > first.version


async def test_of_eight_who_create_an_id_at_once_one_does(db: Database) -> None:
    calls = [db.evals.create(evaluation(eval_data={"by": number})) for number in range(8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    (winner,) = (each for each in results if isinstance(each, EvalRun))
    assert await db.evals.get("e1") == winner
    for loser in results:
        if loser is not winner:
            assert isinstance(loser, ConflictError), repr(loser)
            assert loser.found == winner.version


async def test_an_object_made_anew_keeps_owner_and_creation(db: Database) -> None:
    first = await db.evals.create(evaluation(user_id="ann"))
    second = await db.evals.upsert(evaluation(eval_data={"score": 1}))
    assert (second.created_at, second.user_id) == (first.created_at, "ann")
    assert second.updated_at is not None
    assert first.updated_at is not None
    assert second.updated_at > first.updated_at
    assert await db.evals.get("e1", user_id="ann") == second
    with pytest.raises(ConflictError) as caught:
        await db.evals.upsert(evaluation(), expected_version=first.version)
    assert (caught.value.expected, caught.value.found) == (first.version, second.version)
    third = await db.evals.upsert(second, expected_version=second.version)
    assert await db.evals.get("e1") == third


async def test_another_users_evaluation_is_neither_seen_nor_changed_nor_deleted(db: Database) -> None:
    stored = await db.evals.create(evaluation(), user_id="ann")
    assert stored.user_id == "ann"
    assert await db.evals.get("e1", user_id="bob") is None
    assert await db.evals.delete("e1", user_id="bob") is False
    assert await db.evals.delete_many(["e1"], user_id="bob") == 0
    writes: list[Callable[[], Awaitable[object]]] = [
        lambda: db.evals.upsert(evaluation(user_id="bob")),
        lambda: db.evals.upsert(evaluation(), user_id="bob"),
        lambda: db.evals.rename("e1", "mine", user_id="bob"),
        lambda: db.evals.update("e1", unchanged, user_id="bob"),
    ]
    for write in writes:
        with pytest.raises(NotOwner):
            await write()
    with pytest.raises(InvalidRecord, match="user_id"):
        await db.evals.create(evaluation("e2", user_id="ann"), user_id="bob")
    assert await db.evals.get("e1", user_id="ann") == stored
    await db.evals.create(evaluation("nobody's"))
    assert await db.evals.delete("nobody's", user_id="ann") is False
    assert await db.evals.get("nobody's", user_id="ann") is None
    assert await db.evals.delete_many(["e1", "nobody's", "e1"], user_id="ann") == 1
    assert await stored_ids(db) == ["nobody's"]


async def test_renaming_changes_the_name_and_nothing_else(db: Database) -> None:
    before = await db.evals.create(evaluation(user_id="ann", name="Old", extra=1))
    renamed = await db.evals.rename("e1", "New", user_id="ann")
    changed = {"name", "version", "updated_at"}
    assert renamed.name == "New"
    assert renamed.model_dump(exclude=changed) == before.model_dump(exclude=changed)
    assert await db.evals.get("e1") == renamed
    with pytest.raises(InvalidRecord) as caught:
        await db.evals.rename("e1", 5)  # type: ignore[arg-type]
    assert caught.value.path == "name"


COMPONENTS = {"agent_id": ("a0", "a1"), "team_id": ("t0", "t1"), "workflow_id": ("w0", "w1"), "model_id": ("m0", "m1")}
TYPES = ("accuracy", "agent_as_judge", "performance", "reliability")


def samples() -> list[EvalRun]:
    """Evaluations of which three at a time were created at one moment."""
    found = []
    for number in range(24):
        parts = {name: values[number % 2] for name, values in COMPONENTS.items() if (number + len(name)) % 3}
        found.append(
            evaluation(
                f"e{number:02}",
                eval_type=TYPES[number % 4],
                user_id=("ann", "bob", None)[number % 3],
                created_at=START + (number // 3) * DAY,
                **parts,
            )
        )
    return found


def matching(records: list[EvalRun], sort: str, **filters: Any) -> list[str]:
    """What a list should give."""

    def shown(each: EvalRun) -> bool:
        assert each.created_at is not None
        for name, value in filters.items():
            if name == "created_from":
                holds = each.created_at >= value
            elif name == "created_to":
                holds = each.created_at < value
            else:
                holds = getattr(each, name) in ((value,) if isinstance(value, str) else value)
            if not holds:
                return False
        return True

    ordered = sorted(filter(shown, records), key=lambda each: (each.created_at, each.run_id))
    return [each.run_id for each in (ordered[::-1] if sort.startswith("-") else ordered)]


def narrowings() -> Iterator[dict[str, Any]]:
    """Each filter alone, and some together."""
    yield {}
    for name, values in {**COMPONENTS, "user_id": ("ann", "bob"), "eval_type": TYPES[:2]}.items():
        yield from ({name: value} for value in (*values, "nothing"))
    yield {"eval_type": ["accuracy", "reliability"]}
    yield {"eval_type": {"performance"}, "user_id": "ann"}
    yield {"eval_type": ("performance", "nothing", "performance"), "created_from": START + 2 * DAY}
    yield {"created_from": START + 2 * DAY, "created_to": START + 5 * DAY}
    yield {"created_from": START + 5 * DAY, "created_to": START + 2 * DAY}
    yield {"created_from": START + 2 * DAY, "created_to": START + 2 * DAY}
    yield {"created_to": START + DAY + timedelta(microseconds=1), "model_id": "m1"}
    yield {"agent_id": "a0", "team_id": "t0", "model_id": "m0"}
    yield {"user_id": "bob", "workflow_id": "w1", "eval_type": list(TYPES), "created_from": START + DAY}


async def test_lists_and_counts_by_every_filter_and_order(db: Database) -> None:
    records = samples()
    await db.evals.upsert_many(records)
    for filters in narrowings():
        for sort, limit in (("-created_at", 4), ("created_at", 3)):
            assert await stored_ids(db, limit, sort=sort, **filters) == matching(records, sort, **filters), filters
        assert await db.evals.count(**filters) == len(matching(records, "created_at", **filters)), filters
    assert await stored_ids(db) == matching(records, "-created_at")
    in_order = [each.run_id async for each in db.evals.iterate(sort="created_at", page_size=5, user_id="ann")]
    assert in_order == matching(records, "created_at", user_id="ann")


async def test_a_cursor_goes_on_in_another_store(db: Database) -> None:
    records = samples()
    async with connect("memory://") as other:
        await other.provision(COLLECTIONS)
        for database in (db, other):
            await database.evals.upsert_many(records)
        for filters in ({}, {"eval_type": ["accuracy", "reliability"]}, {"user_id": "bob"}):
            for sort in ("-created_at", "created_at"):
                found: list[str] = []
                cursor = None
                for database in itertools.cycle((db, other)):
                    page = await database.evals.list(sort=sort, limit=3, cursor=cursor, **filters)
                    found += [each.run_id for each in page.items]
                    cursor = page.cursor
                    if cursor is None:
                        break
                assert found == matching(records, sort, **filters)


async def test_pages_are_full_where_few_records_match(db: Database) -> None:
    records = [
        evaluation(f"e{number:03}", model_id="rare" if number % 60 == 7 else "common", created_at=START)
        for number in range(240)
    ]
    assert (await db.evals.upsert_many(records)).stored == 240
    page = await db.evals.list(model_id="rare", sort="created_at", limit=3)
    assert [each.run_id for each in page.items] == ["e007", "e067", "e127"]
    page = await db.evals.list(model_id="rare", sort="created_at", limit=3, cursor=page.cursor)
    assert [each.run_id for each in page.items] == ["e187"]
    assert page.cursor is None
    assert await db.evals.count(model_id="rare") == 4


async def test_bad_list_arguments_name_the_argument_and_what_there_is(db: Database) -> None:
    await db.evals.upsert_many([evaluation("a"), evaluation("b")])
    cursor = (await db.evals.list(limit=1)).cursor
    for arguments, path in (
        ({"limit": 0}, "limit"),
        ({"limit": 1_001}, "limit"),
        ({"sort": "updated_at"}, "sort"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": cursor, "user_id": "ann"}, "cursor"),
        ({"cursor": cursor, "sort": "created_at"}, "cursor"),
        ({"consistency": "Strong"}, "consistency"),
        ({"created_from": "2026-01-01"}, "created_from"),
        ({"created_to": datetime(2026, 1, 1)}, "created_to"),
        ({"user_id": ""}, "user_id"),
        ({"agent_id": 5}, "agent_id"),
        ({"eval_type": []}, "eval_type"),
        ({"eval_type": 5}, "eval_type"),
        ({"eval_type": ["accuracy", None]}, "eval_type"),
        ({"eval_type": [f"t{number}" for number in range(31)]}, "eval_type"),
    ):
        with pytest.raises(InvalidRecord) as caught:
            await db.evals.list(**arguments)
        assert caught.value.path == path, arguments
    with pytest.raises(InvalidRecord, match="-created_at, created_at"):
        await db.evals.list(sort="name")  # type: ignore[arg-type]
    unknown: dict[str, Any] = {"colour": "red"}
    for call in (db.evals.list, db.evals.count):
        with pytest.raises(InvalidRecord, match=r"colour.*user_id, agent_id, .* created_to"):
            await call(**unknown)
    # A filter that is None does not narrow.
    assert len((await db.evals.list(user_id=None, eval_type=None, created_from=None)).items) == 2


async def test_odd_ids_keep_apart_and_bad_ones_name_the_field(db: Database) -> None:
    ids = ["a/b", "a#b", "a.b", "..", ".", "__x__", "é", "e\u0301", "😀", "x" * 512, "%2F", "a\\b", '"']
    await db.evals.upsert_many([evaluation(each, agent_id=each, user_id=each, eval_data={"id": each}) for each in ids])
    for each in ids:
        read = await db.evals.get(each, user_id=each)
        assert read is not None
        assert read.eval_data == {"id": each}
        assert await stored_ids(db, agent_id=each) == [each]
    for bad in ("", "x" * 513, "a\x00b", "tab\t", "\ud800", "é" * 257):
        for call, path in (
            (lambda bad=bad: db.evals.create(evaluation(bad)), "run_id"),
            (lambda bad=bad: db.evals.get(bad), "run_id"),
            (lambda bad=bad: db.evals.delete(bad), "run_id"),
            (lambda bad=bad: db.evals.rename(bad, "x"), "run_id"),
            (lambda bad=bad: db.evals.upsert(evaluation(user_id=bad)), "user_id"),
            (lambda bad=bad: db.evals.upsert(evaluation(workflow_id=bad)), "workflow_id"),
        ):
            with pytest.raises(InvalidRecord) as caught:
                await call()
            assert caught.value.path == path
    assert await db.evals.count() == len(ids)


async def test_odd_values_are_kept_exactly_or_refused_with_their_path(db: Database) -> None:
    exact: list[Any] = [2**80, -0.0, 1e308, "\x00\u2028", "é" * 5000, {"": [[]]}, None, [True, 1, 1.0]]
    for value in exact:
        await db.evals.upsert(evaluation(eval_data={"x": value}, name="\x00\n" if value is None else ""))
        read = await db.evals.get("e1")
        assert read is not None
        assert repr(read.eval_data) == repr({"x": value})
    for values, path in (
        ({"eval_data": {"x": float("nan")}}, "eval_data.x"),
        ({"eval_data": {"x": [1, float("inf")]}}, "eval_data.x[1]"),
        ({"eval_data": {"x": {"y": "\ud800"}}}, "eval_data.x.y"),
        ({"eval_data": {"x": (1, 2)}}, "eval_data.x"),
        ({"eval_input": {"x": b"x"}}, "eval_input.x"),
        ({"name": "\ud800"}, "name"),
        ({"model_id": "\ud800"}, "model_id"),
        ({"model_id": "m" * 513}, "model_id"),
        ({"model_id": ""}, "model_id"),
        ({"eval_type": "guess"}, "eval_type"),
        ({"created_at": datetime(2026, 1, 1)}, "created_at"),
        ({"unheard_of": START}, "unheard_of"),
    ):
        for write in (db.evals.create, db.evals.upsert):
            with pytest.raises(InvalidRecord) as caught:
                await write(evaluation("bad", **values))
            assert caught.value.path == path, values
    assert await db.evals.get("bad") is None
    stored = await db.evals.create(evaluation("typed"))
    for name, wrong in (("eval_data", ["x"]), ("eval_data", None), ("eval_type", 5), ("name", 5)):
        with pytest.raises(InvalidRecord) as caught:
            await db.evals.upsert(stored.model_copy(update={name: wrong}))
        assert caught.value.path == name
    with pytest.raises(InvalidRecord):
        await db.evals.create({"run_id": "e1"})  # type: ignore[arg-type]


class Kind(StrEnum):
    ACCURACY = "accuracy"


async def test_a_member_of_an_enumeration_is_stored_and_found_as_its_text(db: Database) -> None:
    await db.evals.create(evaluation().model_copy(update={"eval_type": Kind.ACCURACY}))
    read = await db.evals.get("e1")
    assert read is not None
    assert type(read.eval_type) is str
    assert await stored_ids(db, eval_type=Kind.ACCURACY) == ["e1"]
    assert await stored_ids(db, eval_type=[Kind.ACCURACY]) == ["e1"]


async def test_what_has_expired_is_absent_and_can_be_created_again(db: Database) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    kept = await db.evals.create(evaluation("kept", created_at=START), expires_at=soon)
    assert kept.expires_at is not None
    assert soon <= kept.expires_at < soon + timedelta(seconds=1)
    assert (await db.evals.rename("kept", "still")).expires_at == kept.expires_at
    later = await db.evals.create(evaluation("later", created_at=START), expires_in=60.5)
    assert later.expires_at is not None
    assert later.expires_at - datetime.now(UTC) <= timedelta(seconds=61.5)
    await expire(db, await db.evals.create(evaluation("expired", created_at=START, user_id="ann")))
    assert await db.evals.get("expired") is None
    assert await stored_ids(db, sort="created_at") == ["kept", "later"]
    assert await db.evals.delete("expired") is False
    with pytest.raises(RecordNotFound):
        await db.evals.rename("expired", "x")
    again = await db.evals.create(evaluation("expired", user_id="bob"))
    assert await db.evals.get("expired", user_id="bob") == again
    with pytest.raises(InvalidRecord) as caught:
        await db.evals.create(evaluation("gone"), expires_at=START - 10_000 * DAY)
    assert caught.value.path == "expires_at"


async def test_runs_are_listed_by_the_kind_of_their_component(db: Database) -> None:
    components = ({"agent_id": "a"}, {"team_id": "t"}, {"workflow_id": "w"}, {"agent_id": "a", "team_id": "t"})
    for n, ids in enumerate(components):
        await db.evals.create(evaluation(f"e{n}", **ids))
    for kind, found in (("agent", ["e0", "e3"]), ("team", ["e1", "e3"]), ("workflow", ["e2"])):
        page = await db.evals.list(component_type=kind, sort="created_at")  # type: ignore[arg-type]
        assert [each.run_id for each in page.items] == found
        assert await db.evals.count(component_type=kind) == len(found)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord, match="component_type"):
        await db.evals.list(component_type="model")  # type: ignore[arg-type]


async def test_a_run_is_assigned_to_a_user_whosever_it_was(db: Database) -> None:
    created = await db.evals.create(EvalRun(run_id="e1", eval_type="accuracy", eval_data={}, user_id="ann"))
    stored = await db.evals.assign("e1", "bob")
    assert (stored.user_id, stored.updated_at) == ("bob", created.updated_at)
    assert await db.evals.get("e1", user_id="ann") is None
    assert [each.run_id for each in (await db.evals.list(user_id="bob")).items] == ["e1"]
    with pytest.raises(RecordNotFound):
        await db.evals.assign("none", "bob")
