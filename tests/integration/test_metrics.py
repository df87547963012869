"""Metrics, on every store and in fan-outs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from agno_clouddb import (
    ConflictError,
    Database,
    InvalidRecord,
    Metrics,
    NotOwner,
    RecordNotFound,
    Run,
    Session,
    connect,
)

COLLECTIONS = ("sessions", "runs", "metrics")

DAY = timedelta(days=1)
TOKENS = [f"{name}_tokens" for name in ("input", "output", "total", "cache_read", "cache_write", "reasoning")]
TOKENS += [f"audio_{name}_tokens" for name in ("total", "input", "output")]


def at(day: int, hour: float = 12) -> datetime:
    """A moment on a day of March 2025, in UTC."""
    return datetime(2025, 3, 1, tzinfo=UTC) + timedelta(days=day - 1, hours=hour)


def on(day: int) -> date:
    return date(2025, 3, day)


@dataclass
class Conversation:
    """A session to be written: when it was created, and its runs by when they were created."""

    name: str
    user_id: str | None
    kind: str
    created: datetime
    runs: list[tuple[datetime, dict[str, Any] | None]] = field(default_factory=list)

    async def write(self, db: Database) -> None:
        last = max([self.created, *(moment for moment, _ in self.runs)])
        await db.sessions.upsert(
            Session(
                session_id=self.name,
                user_id=self.user_id,
                session_type=self.kind,
                created_at=self.created,
                updated_at=last,
                runs=[Run(run_id=f"r{n}", created_at=each, data=data) for n, (each, data) in enumerate(self.runs)],
            )
        )


async def write(db: Database, conversations: list[Conversation]) -> None:
    for each in conversations:
        await each.write(db)


def usage(tokens: int, model: str = "m", **more: Any) -> dict[str, Any]:
    """The part of a run that counts, as agno writes it."""
    return {"metrics": {"input_tokens": tokens, "total_tokens": tokens, **more}, "model": model, "model_provider": "p"}


def expected(conversations: list[Conversation], until: datetime, now: datetime) -> dict[tuple[date, str], Metrics]:
    """The metrics of all days, computed by hand from all that was written."""
    found: dict[tuple[date, str], Counter[Any]] = {}
    users: dict[date, set[str | None]] = {}
    for each in conversations:
        events: list[tuple[datetime, Counter[Any]]] = [(each.created, Counter({f"{each.kind}_sessions_count": 1}))]
        for moment, data in each.runs:
            numbers = {name: value for name, value in (data or {}).get("metrics", {}).items() if type(value) is int}
            model = {("model", data["model"], data["model_provider"]): 1} if data else {}
            events.append((moment, Counter({f"{each.kind}_runs_count": 1, **numbers, **model})))
        for moment, counted in events:
            if moment < until:
                for user in {"", each.user_id or ""}:
                    found.setdefault((moment.date(), user), Counter()).update(counted)
                users.setdefault(moment.date(), set()).update({each.user_id} - {None})
    return {key: _record(*key, counts, users[key[0]], min(until, now)) for key, counts in found.items()}


def _record(day: date, user: str, counts: Counter[Any], users: set[str | None], until: datetime) -> Metrics:
    values: dict[str, Any] = {
        "token_metrics": dict.fromkeys(TOKENS, 0),
        "model_metrics": [
            {"model_id": key[1], "model_provider": key[2], "count": counts[key]}
            for key in sorted(key for key in counts if isinstance(key, tuple))
        ],
    }
    for name, value in counts.items():
        if isinstance(name, str):
            (values["token_metrics"] if name in TOKENS else values)[name] = value
    midnight = datetime.combine(day + DAY, at(1, 0).timetz())
    return Metrics(date=day, user_id=user, users_count=len(users) if not user else 1, **values).model_copy(
        update={"completed": midnight <= until}
    )


async def stored(db: Database) -> list[Metrics]:
    return [each async for each in db.metrics.range()]


def plain(records: Any) -> list[dict[str, Any]]:
    """What was calculated, without when and where it was written."""
    return [each.model_dump(exclude={"version", "created_at", "updated_at"}) for each in records]


async def expect(db: Database, conversations: list[Conversation], until: datetime) -> None:
    wanted = expected(conversations, until, datetime.now(UTC))
    assert plain(await stored(db)) == plain(wanted[key] for key in sorted(wanted))


FEW = [
    Conversation("s1", "ann", "agent", at(1), [(at(1, 13), usage(3)), (at(2, 1), usage(4, "n"))]),
    Conversation("s2", "bob", "team", at(2, 0), [(at(2, 0), usage(5, audio_input_tokens=2))]),
    Conversation("s3", None, "workflow", at(2, 23.99), [(at(4, 1), usage(7))]),
    Conversation("s4", "ann", "workflow", at(4), [(at(4, 13), None)]),
]


async def test_sessions_and_runs_become_records_of_days_and_users(db: Database) -> None:
    await write(db, FEW)
    answer = await db.metrics.calculate()
    await expect(db, FEW, datetime.now(UTC))
    assert list(answer) == await stored(db)
    second = await db.metrics.get(on(2))
    assert second is not None
    assert (second.user_id, second.users_count, second.completed) == ("", 2, True)
    assert (second.agent_sessions_count, second.team_sessions_count, second.workflow_sessions_count) == (0, 1, 1)
    assert (second.agent_runs_count, second.team_runs_count, second.workflow_runs_count) == (1, 1, 0)
    assert second.token_metrics == {**dict.fromkeys(TOKENS, 0), "input_tokens": 9, "total_tokens": 9} | {
        "audio_input_tokens": 2
    }
    assert second.model_metrics == [
        {"model_id": "m", "model_provider": "p", "count": 1},
        {"model_id": "n", "model_provider": "p", "count": 1},
    ]
    # On the third day there was nothing, and what belongs to nobody is in no user's record.
    assert [(each.date.day, each.user_id) for each in answer] == [
        (1, ""), (1, "ann"), (2, ""), (2, "ann"), (2, "bob"), (4, ""), (4, "ann"),
    ]  # fmt: skip


async def test_nothing_comes_of_nothing(db: Database) -> None:
    assert await db.metrics.calculate() == ()
    assert await db.metrics.calculate(since=on(1)) == ()
    assert await stored(db) == []
    assert await db.metrics.latest() is None


async def test_calculating_again_changes_nothing(db: Database) -> None:
    await write(db, FEW)
    first = await db.metrics.calculate(until=at(4, 13))
    assert [each.completed for each in first] == [True] * 5 + [False] * 2
    again = await db.metrics.calculate(until=at(4, 13))
    assert again == first[5:]  # versions and moments included
    assert await db.metrics.calculate(until=at(4, 13), since=on(1)) == first
    assert await stored(db) == list(first)


async def test_a_day_that_has_not_ended_is_calculated_again_and_completed(db: Database) -> None:
    await write(db, FEW)
    for until in (at(1), at(1, 13.5), at(2, 0), at(2, 0.5), at(4, 0), at(4, 6), at(5, 0)):
        await db.metrics.calculate(until=until)
        await expect(db, FEW, until)
    assert all(each.completed for each in await stored(db))
    created = {each.id: each.created_at for each in await stored(db)}
    await db.metrics.calculate(since=on(1))
    assert {each.id: each.created_at for each in await stored(db)} == created


async def test_today_is_not_completed_and_what_is_to_come_is_not_counted(db: Database) -> None:
    before = datetime.now(UTC)
    await db.sessions.upsert(Session(session_id="s1", user_id="ann"))
    await db.sessions.append_run("s1", Run(run_id="r1"))
    await db.sessions.append_run("s1", Run(run_id="r2", created_at=before + 3 * DAY))
    for until in (None, before + 30 * DAY, (before + 30 * DAY).date()):
        answer = await db.metrics.calculate(until=until)
        assert {each.date for each in answer} <= {before.date(), datetime.now(UTC).date()}
        assert sum(each.agent_runs_count for each in await stored(db) if not each.user_id) == 1
        assert not any(each.completed for each in answer if each.date == datetime.now(UTC).date())


async def test_a_date_as_end_stands_for_the_end_of_that_day(db: Database) -> None:
    await write(db, FEW)
    await db.metrics.calculate(until=on(2))
    await expect(db, FEW, at(3, 0))
    # Midnight begins a day, of which nothing counts yet.
    assert await db.metrics.calculate(until=at(4, 0).astimezone(timezone(timedelta(hours=-8)))) == ()


async def test_what_was_deleted_does_not_count_when_a_day_is_calculated_again(db: Database) -> None:
    await write(db, FEW)
    await db.metrics.calculate(until=at(2, 1))
    await db.sessions.delete("s2")
    left = [each for each in FEW if each.name != "s2"]
    await db.metrics.calculate(until=at(2, 1))
    await expect(db, left, at(2, 1))
    assert await db.metrics.get(on(2), user_id="bob") is None
    for each in left:
        await db.sessions.delete(each.name)
    await db.metrics.calculate()
    assert [each.date for each in await stored(db)] == [on(1), on(1)]  # which was completed before
    assert await db.metrics.calculate(since=on(1)) == ()
    assert await stored(db) == []


async def test_completed_days_are_calculated_again_only_when_asked_for(db: Database) -> None:
    await write(db, FEW)
    before = await db.metrics.calculate()
    imported = [
        Conversation("old1", "cem", "agent", at(1, 1), [(at(1, 2), usage(1)), (at(3, 2), usage(2))]),
        Conversation("old2", "ann", "team", at(2, 1)),
    ]
    await write(db, imported)
    await db.metrics.calculate()
    assert await stored(db) == list(before)
    answer = await db.metrics.calculate(since=on(2))
    wanted = expected([*FEW, *imported], datetime.now(UTC), datetime.now(UTC))
    assert plain(answer) == plain(wanted[key] for key in sorted(wanted) if key[0] >= on(2))
    assert [each for each in await stored(db) if each.date == on(1)] == [each for each in before if each.date == on(1)]
    await db.metrics.calculate(since=on(1))
    await expect(db, [*FEW, *imported], datetime.now(UTC))


async def test_a_day_not_completed_is_not_passed_over_by_a_later_start(db: Database) -> None:
    await write(db, FEW)
    await db.metrics.calculate(until=at(2, 0.5))
    await db.metrics.calculate(since=on(4))
    await expect(db, FEW, datetime.now(UTC))


async def test_two_databases_that_calculate_at_once_agree(db: Database, urls: tuple[str, ...]) -> None:
    many = [
        Conversation(
            f"s{number}",
            (None, "ann", "bob", "cem")[number % 4],
            ("agent", "team")[number % 2],
            at(1 + number % 3),
            [(at(1 + number % 3 + later, 13), usage(number)) for later in (0, 1)],
        )
        for number in range(12)
    ]
    await write(db, many)
    others = [db] if "memory" in urls[0] else [db, await _opened(urls)]
    for until in (at(3, 13.5), None):
        answers = await asyncio.gather(*(each.metrics.calculate(until=until) for each in (*others, *others)))
        await expect(db, many, until or datetime.now(UTC))
        present = {each.id: each for each in await stored(db)}
        for answer in answers:
            there = [present[each.id] for each in answer]
            assert plain(answer) == plain(there)
            assert [each.version for each in answer] == [each.version for each in there]
    for other in others[1:]:
        await other.aclose()


async def _opened(urls: tuple[str, ...]) -> Database:
    other = connect(*urls)
    await other.open()
    return other


@pytest.mark.parametrize("seed", range(2))
async def test_random_conversations_count_as_computed_by_hand(db: Database, seed: int) -> None:
    chance = random.Random(seed)
    made: list[Conversation] = []
    for step in range(3):
        for number in range(5):
            created = at(1 + 2 * step, chance.uniform(0, 40))
            later = [created + timedelta(hours=chance.expovariate(1 / 8)) for _ in range(chance.randrange(4))]
            runs = [(moment, usage(chance.randrange(1000), chance.choice("mn"))) for moment in later]
            user, kind = chance.choice([None, "ann", "bob", "cem"]), chance.choice(["agent", "team", "workflow"])
            made.append(Conversation(f"s{step}-{number}", user, kind, created, list(runs)))
        await write(db, made[-5:])
        await db.metrics.calculate(until=at(1 + 2 * step, 0))
    await db.metrics.calculate()
    await expect(db, made, datetime.now(UTC))


async def test_ranges_are_in_order_of_dates_and_include_both_ends(db: Database) -> None:
    users = ("", "ann", "x" * 512)
    result = await db.metrics.upsert_many(
        Metrics(date=on(day), user_id=user, users_count=day, completed=True) for day in (5, 1, 3, 4) for user in users
    )
    await db.metrics.upsert(Metrics(date=on(3), aggregation_period="weekly"))
    assert result.stored == 12

    async def days(*limits: date | None, **options: Any) -> list[tuple[int, int]]:
        found = [each async for each in db.metrics.range(*limits, **options)]
        return [(each.date.day, users.index(each.user_id)) for each in found]

    everything = [(day, user) for day in (1, 3, 4, 5) for user in (0, 2, 1)]
    assert sorted(await days()) == sorted(everything)
    assert [day for day, _ in await days()] == [day for day, _ in everything]
    assert [user for _, user in await days()][::3] == [0] * 4
    assert [day for day, _ in await days(descending=True)] == [day for day, _ in reversed(everything)]
    assert [day for day, _ in await days(None, on(4), user_id="ann", descending=True)] == [4, 3, 1]
    assert {day for day, _ in await days(on(2))} == {3, 4, 5}
    assert {day for day, _ in await days(None, on(4))} == {1, 3, 4}
    assert {day for day, _ in await days(on(3), on(4))} == {3, 4}
    assert sorted(await days(on(3), on(3))) == [(3, 0), (3, 1), (3, 2)]
    assert await days(on(2), on(2)) == []
    assert await days(date.min, date.max, user_id="") == [(day, 0) for day in (1, 3, 4, 5)]
    assert await days(on(3), on(4), user_id="ann") == [(3, 1), (4, 1)]
    assert await days(on(4), on(4), user_id="x" * 512) == [(4, 2)]
    assert await days(user_id="nobody") == []
    assert await days(period="weekly") == await days(on(3), on(3), period="weekly") == [(3, 0)]


async def test_the_latest_is_found_of_a_user_and_of_all(db: Database) -> None:
    await db.metrics.upsert_many([Metrics(date=on(day), user_id=user) for day, user in ((1, ""), (3, "ann"), (2, ""))])
    for user_id, day in (("", 2), ("ann", 3)):
        latest = await db.metrics.latest(user_id=user_id)
        assert latest is not None
        assert (latest.date, latest.user_id) == (on(day), user_id)
        assert latest == await db.metrics.get(on(day), user_id=user_id) == await db.metrics.get(latest.id)
    assert await db.metrics.latest(user_id="bob") is None
    assert await db.metrics.latest(period="weekly") is None


async def test_records_are_written_over_and_deleted_by_day_and_user(db: Database) -> None:
    first = await db.metrics.upsert(Metrics(date=on(1), users_count=1))
    other = await db.metrics.upsert(Metrics(date=on(1), user_id="ann", users_count=1))
    second = await db.metrics.upsert(Metrics(date=on(1), users_count=2, token_metrics={"input_tokens": 3}))
    assert second.created_at == first.created_at
    assert await db.metrics.get(on(1)) == second
    again = await db.metrics.upsert(Metrics(date=on(1), user_id="ann", users_count=3))
    assert (again.created_at, again.user_id) == (other.created_at, "ann")
    with pytest.raises(ConflictError):
        await db.metrics.upsert(first, expected_version=first.version)
    updated = await db.metrics.update(second.id, lambda record: record.model_copy(update={"users_count": 4}))
    assert await db.metrics.get(on(1)) == updated
    assert await db.metrics.get(second.id, user_id="ann") is None
    assert await db.metrics.delete(on(1), period="weekly") is False
    assert await db.metrics.delete(on(1)) is True
    assert await db.metrics.delete(on(1)) is False
    assert await stored(db) == [again]
    assert await db.metrics.delete(on(1), user_id="ann") is True


async def test_an_empty_user_stands_for_all_users_and_not_for_any(db: Database) -> None:
    users = ("", "ann", "x all", "all")
    day, *others = [await db.metrics.upsert(Metrics(date=on(1), user_id=user), user_id=user) for user in users]
    for each in others:
        assert await db.metrics.get(each.id, user_id="") is None
        assert await db.metrics.delete(each.id, user_id="") is False
        with pytest.raises(NotOwner):
            await db.metrics.update(each.id, lambda record: record, user_id="")
        with pytest.raises(InvalidRecord):
            await db.metrics.upsert(each, user_id="")
    with pytest.raises(RecordNotFound):
        await db.metrics.update("2025-03-02 daily all", lambda record: record, user_id="")
    assert await db.metrics.get(on(1), user_id="") == await db.metrics.get(day.id, user_id="") == day
    changed = await db.metrics.update(day.id, lambda record: record.model_copy(update={"users_count": 3}), user_id="")
    assert await db.metrics.get(on(1)) == changed
    assert changed.users_count == 3
    assert await db.metrics.delete_many([each.id for each in (day, *others)], user_id="") == 1
    assert await stored(db) == sorted(others, key=lambda each: each.id)
    assert await db.metrics.delete_many([each.id for each in others], user_id="ann") == 1
    await db.metrics.upsert(day.model_copy(update={"users_count": 4}), user_id="")
    assert await db.metrics.delete(on(1), user_id="") is True


async def test_records_are_written_in_a_transaction(db: Database) -> None:
    async with db.transaction() as tx:
        tx.upsert(Metrics(date=on(1)))
        tx.create(Metrics(date=on(1), user_id="ann"))
    assert await stored(db) == list(tx.results)
    tx = db.transaction()
    await tx.__aenter__()
    tx.upsert(Metrics(date=on(1), users_count=1))
    tx.create(Metrics(date=on(1), user_id="ann"))
    with pytest.raises(ConflictError):
        await tx.__aexit__(None, None, None)
    together = await db.metrics.get(on(1))
    assert together is not None
    assert together.users_count == 0


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"until": datetime(2025, 3, 1)}, "until"),
        ({"until": "2025-03-01"}, "until"),
        ({"since": "2025-03-01"}, "since"),
        ({"since": at(1)}, "since"),
        ({"since": date.max}, "since"),
        ({"since": on(2), "until": at(2, 0)}, "since"),
    ],
)
async def test_what_cannot_be_calculated_is_refused(arguments: dict[str, Any], path: str) -> None:
    async with connect("memory://") as db:
        await db.provision()
        with pytest.raises(InvalidRecord) as caught:
            await db.metrics.calculate(**arguments)
        assert caught.value.path == path
        await Conversation("s1", "ann", "agent", datetime.min.replace(tzinfo=UTC)).write(db)
        assert await db.metrics.calculate(until=datetime.min.replace(tzinfo=UTC)) == ()
        assert [each.date for each in await db.metrics.calculate(since=date.min)] == [date.min] * 2


@pytest.mark.parametrize(
    ("arguments", "options", "path"),
    [
        ((at(1),), {}, "start"),
        ((None, "2025-03-01"), {}, "end"),
        ((on(2), on(1)), {}, "end"),
        ((), {"user_id": "\n"}, "user_id"),
        ((), {"period": "by day"}, "period"),
    ],
)
async def test_what_cannot_be_listed_is_refused(arguments: Any, options: dict[str, Any], path: str) -> None:
    async with connect("memory://") as db:
        with pytest.raises(InvalidRecord) as caught:
            [each async for each in db.metrics.range(*arguments, **options)]
        assert caught.value.path == path
