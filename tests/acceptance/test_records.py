"""Records made of recorded conversations: written to both clouds, read from each alone, and added up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from agno_clouddb import Database, EvalRun, Run, Session, Span, Trace, UserMemory, UserStats, connect
from agno_clouddb.cli.conversations import COMPONENT, Conversation, Message, user_of
from agno_clouddb.concurrency import gather
from agno_clouddb.records.base import Record

pytestmark = [pytest.mark.dynamodb_local, pytest.mark.firestore]

AT_ONCE = 16
MODEL = {"model": "gpt-4o", "model_provider": "OpenAI"}
FIRST_DAY = datetime(2024, 5, 15, 15, tzinfo=UTC)
DAYS = 7


@dataclass(frozen=True, slots=True)
class Clouds:
    """Both clouds together, and each alone."""

    both: Database
    dynamodb: Database
    firestore: Database

    @property
    def each(self) -> tuple[Database, ...]:
        return self.both, self.dynamodb, self.firestore


@pytest.fixture
async def clouds(cloud_urls: tuple[str, str]) -> AsyncIterator[Clouds]:
    """Provisioned for what these tests write."""
    collections = ["sessions", "runs", "memories", "evals", "traces", "spans", "metrics"]
    async with connect(*cloud_urls) as both, connect(cloud_urls[0]) as dynamodb, connect(cloud_urls[1]) as firestore:
        await both.provision(collections)
        yield Clouds(both, dynamodb, firestore)


def began(conversation: Conversation) -> datetime:
    """When a conversation took place: on one of some days, by its task."""
    return FIRST_DAY + timedelta(days=conversation.task_id % DAYS, minutes=conversation.trial)


def turn_began(conversation: Conversation, number: int) -> datetime:
    """When a turn took place, counted from 0: an hour after the one before, so that some are on the next day."""
    return began(conversation) + timedelta(hours=number)


def text_of(message: Message) -> str:
    """All that a message says."""
    return (message.get("content") or "") + "".join(
        call["function"]["arguments"] for call in message.get("tool_calls") or ()
    )


def usage(messages: list[Message]) -> dict[str, int]:
    """Tokens, as if each character were one: what the assistant wrote is output, all else is input."""
    counted = Counter[str]()
    for message in messages:
        counted["output_tokens" if message["role"] == "assistant" else "input_tokens"] += len(text_of(message))
    counted["total_tokens"] = counted.total()
    return dict(counted)


def as_read(record: Record) -> dict[str, Any]:
    """What a record holds, without what each write makes anew."""
    return record.model_dump(exclude={"version", "updated_at"})


async def test_rewards_of_evaluations_add_up_on_both_clouds_and_on_each(
    clouds: Clouds, conversations: list[Conversation]
) -> None:
    def evaluation(of: Conversation) -> EvalRun:
        return EvalRun(
            run_id=of.conversation_id,
            eval_type="accuracy",
            eval_data={"reward": of.reward, "task_id": of.task_id, "trial": of.trial},
            eval_input={"messages": of.messages[:2]},
            name=of.name,
            agent_id=COMPONENT,
            model_id=MODEL["model"],
            user_id=user_of(of),
            created_at=began(of),
        )

    written = {each.conversation_id: evaluation(each) for each in conversations}
    await gather([partial(clouds.both.evals.create, each) for each in written.values()], limit=AT_ONCE)

    rewards = Counter[int]()
    for each in conversations:
        rewards[each.task_id] += int(each.reward)
    assert len(rewards) > 1
    stored = [each async for each in clouds.both.evals.iterate(page_size=7)]
    in_order = sorted(written.values(), key=lambda each: (each.created_at, each.run_id), reverse=True)
    assert [as_read(each) for each in stored] == [as_read(each) for each in in_order]
    for db in clouds.each:
        assert [each async for each in db.evals.iterate(agent_id=COMPONENT, eval_type=["accuracy"])] == stored
        found = Counter[int]()
        async for one in db.evals.iterate(model_id=MODEL["model"], page_size=9):
            found[one.eval_data["task_id"]] += int(one.eval_data["reward"])
        assert found == rewards
        for user in {user_of(each) for each in conversations}:
            assert await db.evals.count(user_id=user) == sum(user_of(each) == user for each in conversations)


async def test_memories_of_each_user_add_up_on_both_clouds_and_on_each(
    clouds: Clouds, conversations: list[Conversation]
) -> None:
    said = [
        (each, number, message["content"])
        for each in conversations
        for number, message in enumerate(each.messages)
        if message["role"] == "user"
    ]
    written = [
        UserMemory(
            memory_id=f"{each.conversation_id}-{number}",
            memory=content,
            topics=[f"task {each.task_id}", f"trial {each.trial}"],
            user_id=user_of(each),
            agent_id=COMPONENT,
            created_at=began(each),
            updated_at=began(each) + timedelta(seconds=number),
        )
        for each, number, content in said
    ]
    assert (await clouds.both.memories.upsert_many(written)).stored == len(said)

    by_user: dict[str, list[datetime]] = {}
    for each, number, _ in said:
        by_user.setdefault(user_of(each), []).append(began(each) + timedelta(seconds=number))
    stats = [UserStats(user, len(moments), max(moments)) for user, moments in by_user.items()]
    stats.sort(key=lambda each: (each.last_updated_at, each.user_id), reverse=True)
    by_id = {each.memory_id: as_read(each) for each in written}
    for db in clouds.each:
        assert await db.memories.stats() == tuple(stats)
        for user in by_user:
            stored = [each async for each in db.memories.iterate(user_id=user)]
            own = {each.memory_id: by_id[each.memory_id] for each in written if each.user_id == user}
            assert {each.memory_id: as_read(each) for each in stored} == own
        of_a_task = [each async for each in db.memories.iterate(topics=[f"TASK {said[0][0].task_id}"])]
        assert len(of_a_task) == sum(each.task_id == said[0][0].task_id for each, _, _ in said)


def tool_spans(conversation: Conversation, turn: int, messages: list[Message]) -> list[Span]:
    """A span for each tool call of a turn, from the message that makes it to the one that answers."""
    spans = []
    for position, message in enumerate(messages):
        for nth, call in enumerate(message.get("tool_calls") or ()):
            after, answer = next(
                (after, each)
                for after, each in enumerate(messages[position:])
                if each["role"] == "tool" and each["tool_call_id"] == call["id"]
            )
            start = turn_began(conversation, turn) + timedelta(seconds=position)
            spans.append(
                Span(
                    span_id=f"{turn}.{position}.{nth}",
                    trace_id=conversation.conversation_id,
                    name=call["function"]["name"],
                    start_time=start,
                    end_time=start + timedelta(seconds=after),
                    status_code="ERROR" if answer["content"].startswith("Error") else "OK",
                    attributes={"arguments": json.loads(call["function"]["arguments"]), "result": answer["content"]},
                )
            )
    return spans


def trace_part(conversation: Conversation, turn: int, messages: list[Message], spans: list[Span]) -> Trace:
    """What one turn knows of the trace of its conversation."""
    start = turn_began(conversation, turn)
    errors = sum(each.status_code == "ERROR" for each in spans)
    return Trace(
        trace_id=conversation.conversation_id,
        name=f"{COMPONENT}.run",
        start_time=start,
        end_time=start + timedelta(seconds=len(messages)),
        status="ERROR" if errors else "OK",
        total_spans=len(spans),
        error_count=errors,
        session_id=conversation.conversation_id,
        run_id=f"{conversation.conversation_id}-run",
        user_id=user_of(conversation),
        agent_id=COMPONENT,
        created_at=began(conversation),
    )


async def test_spans_of_each_tool_add_up_on_both_clouds_and_on_each(
    clouds: Clouds, conversations: list[Conversation]
) -> None:
    async def write(conversation: Conversation) -> list[Span]:
        written = []
        for number, messages in enumerate(conversation.turns):
            spans = tool_spans(conversation, number, messages)
            await clouds.both.traces.upsert_trace(trace_part(conversation, number, messages, spans))
            written += spans
        assert (await clouds.both.traces.create_spans(written)).stored == len(written)
        return written

    written = [
        span
        for spans in await gather([partial(write, each) for each in conversations], limit=AT_ONCE)
        for span in spans
    ]
    calls = [
        (each.conversation_id, call["function"]["name"])
        for each in conversations
        for message in each.messages
        for call in message.get("tool_calls") or ()
    ]
    answers = [
        (each.conversation_id, message["content"].startswith("Error"))
        for each in conversations
        for message in each.messages
        if message["role"] == "tool"
    ]
    traces = {each.trace_id: each async for each in clouds.both.traces.iterate()}
    for db in clouds.each:
        assert {each.trace_id: each async for each in db.traces.iterate(page_size=9)} == traces
        tools = Counter[str]()
        for conversation in conversations:
            name = conversation.conversation_id
            trace = traces[name]
            errors = sum(failed for of, failed in answers if of == name)
            assert (trace.total_spans, trace.error_count) == (sum(of == name for of, _ in calls), errors)
            assert trace.status == ("ERROR" if errors else "OK")
            assert trace.start_time == began(conversation)
            last = len(conversation.turns) - 1
            assert trace.end_time == turn_began(conversation, last) + timedelta(seconds=len(conversation.turns[last]))
            page = await db.traces.list_spans(name, user_id=user_of(conversation))
            own = sorted(
                (each for each in written if each.trace_id == name), key=lambda each: (each.start_time, each.span_id)
            )
            made = {"duration_ms", "created_at"}
            assert [each.model_dump(exclude={*made, "version"}) for each in page.items] == [
                each.model_dump(exclude={*made, "version"}) for each in own
            ]
            tools.update(each.name for each in page.items)
        assert tools == Counter(tool for _, tool in calls)
        assert {each.session_id: each.total_traces for each in await db.traces.stats()} == dict.fromkeys(traces, 1)
        assert await db.traces.count(status="ERROR") == len({of for of, failed in answers if failed})


async def write_session(db: Database, conversation: Conversation) -> None:
    """A session with its runs, as if each turn had taken place at its time."""
    runs = [
        Run(
            run_id=f"{conversation.conversation_id}-{number}",
            status="completed",
            data={**MODEL, "metrics": usage(messages), "messages": messages},
            created_at=turn_began(conversation, number),
        )
        for number, messages in enumerate(conversation.turns)
    ]
    session = Session(
        session_id=conversation.conversation_id,
        session_type="agent",
        component_id=COMPONENT,
        user_id=user_of(conversation),
        session_data={"session_name": conversation.name},
        metadata=conversation.metadata,
        created_at=began(conversation),
        runs=runs,
    )
    await db.sessions.upsert(session)


def daily_sums(conversations: list[Conversation]) -> dict[tuple[date, str], Counter[str]]:
    """What each user, and all of them (empty), did on each day, counted from the messages alone."""
    sums: dict[tuple[date, str], Counter[str]] = {}
    users: dict[date, set[str]] = {}
    for conversation in conversations:
        # What comes before the user's first word belongs to the first turn.
        first = next((n for n, message in enumerate(conversation.messages) if message["role"] == "user"), 0)
        counted: list[tuple[date, dict[str, int]]] = [(began(conversation).date(), {"sessions": 1, "runs": 1})]
        turn = 0
        for number, message in enumerate(conversation.messages):
            if message["role"] == "user" and number > first:
                turn += 1
                counted.append((turn_began(conversation, turn).date(), {"runs": 1}))
            kind = "output_tokens" if message["role"] == "assistant" else "input_tokens"
            size = len(text_of(message))
            counted.append((turn_began(conversation, turn).date(), {kind: size, "total_tokens": size}))
        for day, numbers in counted:
            for user in (user_of(conversation), ""):
                sums.setdefault((day, user), Counter()).update(numbers)
            users.setdefault(day, set()).add(user_of(conversation))
    for (day, user), counts in sums.items():
        counts["users"] = 1 if user else len(users[day])
    return sums


async def test_daily_metrics_add_up_on_both_clouds_and_on_each(
    clouds: Clouds, conversations: list[Conversation]
) -> None:
    await gather([partial(write_session, clouds.both, each) for each in conversations], limit=AT_ONCE)
    for db in clouds.each:
        for conversation in conversations:
            session = await db.sessions.get(conversation.conversation_id, user_id=user_of(conversation))
            assert session is not None
            assert [(run.data or {})["messages"] for run in session.runs] == conversation.turns

    sums = daily_sums(conversations)
    days = sorted({day for day, _ in sums})
    assert len(days) > 1
    calculated = await clouds.both.metrics.calculate(until=days[-1])
    assert {(each.date, each.user_id) for each in calculated} == set(sums)
    for db in clouds.each:
        stored = [each async for each in db.metrics.range(days[0], days[-1])]
        assert [(each.date, each.user_id) for each in stored] == sorted(sums)
        for each in stored:
            counts = sums[each.date, each.user_id]
            assert each.completed
            assert (each.users_count, each.agent_sessions_count) == (counts["users"], counts["sessions"])
            assert each.agent_runs_count == counts["runs"]
            tokens = {name: value for name, value in each.token_metrics.items() if value}
            assert tokens == {name: counts[name] for name in counts if name.endswith("_tokens") and counts[name]}
            model = {"model_id": MODEL["model"], "model_provider": MODEL["model_provider"], "count": counts["runs"]}
            assert each.model_metrics == ([model] if counts["runs"] else [])
        for user in {user_of(each) for each in conversations}:
            own = [each async for each in db.metrics.range(days[0], days[-1], user_id=user)]
            assert own == [each for each in stored if each.user_id == user]
