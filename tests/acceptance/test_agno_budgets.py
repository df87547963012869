"""What a turn of an agent costs each cloud, how long the event loop is held, and what an outage does to conversations.

Nothing but the event loop's figures depends on time, and these are processor time, not time on the clock: whatever else
the machine does, the library is charged for what it has computed, at the pace that the processor has just then.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from functools import partial, wraps
from inspect import iscoroutinefunction
from math import ceil
from statistics import median
from typing import Any, cast

import pytest
from agno.run.base import RunStatus
from agno.session import AgentSession
from coverage import Coverage

from agno_clouddb import Database, connect
from agno_clouddb.cli.conversations import Conversation
from agno_clouddb.integrations.agno import AsyncCloudDb
from agno_clouddb.repositories.runs import runs_query
from agno_clouddb.stores.base import Item
from agno_clouddb.stores.dynamodb.store import DynamoDBStore
from agno_clouddb.stores.firestore.store import FirestoreStore
from agno_clouddb.stores.urls import StoreOptions, store_from_url
from agno_clouddb.stores.usage import Usage
from benchmarks.counting import RoundTrips
from benchmarks.replayed import Replayed
from tests.acceptance.clouds import show
from tests.outages.schedule import behind_proxies

AGENTS = 50
TURNS = 40
UNIT = 4096  # bytes of an item that DynamoDB reads for one unit
NAMES = 400  # bytes of a stored run's keys and fields, with their names, at most
LONGEST = 0.020  # seconds of processor time that the library may take in one go
FIXED_WORK = 0.0017
"""Seconds of processor time that ``fixed_work`` takes on the machine that the limit was set on. A machine that takes
longer for it, because it is slower or because others use the processor as well, is given as much more."""
ROUNDS = 3
"""How often it is measured at most: others may use the processor for moments only, so that what is over the limit
counts where it is so every time."""


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(0, id="dynamodb", marks=pytest.mark.dynamodb_local),
        pytest.param(1, id="firestore", marks=pytest.mark.firestore),
    ],
)
@pytest.mark.parametrize("history_runs", [None, 3], ids=["all-runs", "3-runs"])
async def test_a_turn_of_an_agent_costs_4_requests_in_3_round_trips_at_turn_2_and_at_turn_40(
    which: int, history_runs: int | None, cloud_urls: tuple[str, str], conversations: list[Conversation]
) -> None:
    cloud = store_from_url(cloud_urls[which], StoreOptions())
    assert isinstance(cloud, DynamoDBStore | FirestoreStore)
    store = RoundTrips(cloud)
    costs: list[tuple[Usage, int]] = []
    async with Database(store) as database:
        await database.provision()
        db = AsyncCloudDb(database=database, history_runs=history_runs)
        for conversation in conversations:
            replayed = Replayed(conversation)
            agent = replayed.agent(db)
            for message, answer in zip(replayed.said, replayed.answers, strict=True):
                before, calls, sequential = cloud.usage.copy(), store.calls, store.sequential
                done = await agent.arun(message, session_id="s1", user_id="ann")
                assert done.content == answer
                cost = cloud.usage.since(before)
                # So that a call of the store is a request, and sequential calls are round trips.
                assert store.calls - calls == cost.requests.total()
                costs.append((cost, store.sequential - sequential))
            if len(costs) >= TURNS:
                break
        session = await db.get_session("s1")
        assert isinstance(session, AgentSession)
        assert len(session.runs or []) == len(costs) >= TURNS
        sizes = [item.size for item in await stored_runs(database)]
    for number in (1, 2, TURNS):
        cost, sequential = costs[number - 1]
        show(f"turn {number}: {sequential} round trips, {dict(cost.requests)}, {cost}")
    assert {sequential for _, sequential in costs} == {3}
    assert {cost.requests.total() for cost, _ in costs} == {4}
    if history_runs is not None:
        # At every turn the header, the index, and the runs that are given: by their size, not by their number.
        for turn, (cost, _) in enumerate(costs):
            given = sizes[max(0, turn - history_runs) : turn]
            assert cost.documents_read <= 1 + max(1, len(given))
            assert cost.read_units <= 2 + sum(ceil((size + NAMES) / UNIT) for size in given)


async def stored_runs(database: Database) -> list[Item]:
    """The runs of the session as they are stored, the first first."""
    page = await database.store.query(runs_query("s1"), limit=500)
    return list(reversed(page.items))


class Watch:
    """How much processor time the library takes in one go, at most, and what takes it.

    Each step of a coroutine, from where it is resumed to where it waits, is one go: those of agno's calls of the
    database, and those of all tasks that are not the caller's own, since the library and the clients of the clouds make
    these. What the garbage collector takes is left out: it collects everybody's garbage, whoever sets it off.
    """

    def __init__(self) -> None:
        self.longest = 0.0  # seconds
        self.steps = 0
        self.what = ""
        self.late = 0.0  # seconds on the clock that a sleeping task was woken too late, whoever was the cause
        self.together = 0.0  # seconds of the library between two of its awakenings, in however many goes
        self._since = 0.0
        self._collecting = 0.0
        self._began = 0.0

    @contextmanager
    def step(self, what: str) -> Generator[None, None, None]:
        """Measure one go."""
        began, collecting = time.thread_time(), self._collecting
        try:
            yield
        finally:
            took = time.thread_time() - began - (self._collecting - collecting)
            self.steps += 1
            self._since += took
            if took > self.longest:
                self.longest, self.what = took, what

    def charge(self, db: AsyncCloudDb) -> None:
        """Measure all calls of a database."""
        for name in dir(db):
            if not name.startswith("_") and iscoroutinefunction(call := getattr(db, name)):
                setattr(db, name, self._charged(name, call))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Measure the tasks of the running event loop, and wake up again and again to see how late that comes."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(cast(Any, self._task))
        gc.callbacks.append(self._collected)
        dog = asyncio.create_task(self._wake())
        try:
            yield
        finally:
            dog.cancel()
            gc.callbacks.remove(self._collected)
            loop.set_task_factory(None)

    async def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.001
            await asyncio.sleep(0.001)
            self.late, self.together = max(self.late, loop.time() - due), max(self.together, self._since)
            self._since = 0.0

    def _charged(self, name: str, call: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(call)
        async def charged(*args: Any, **kwargs: Any) -> Any:
            return await self._stepped(call(*args, **kwargs), name)

        return charged

    def _task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        code = getattr(coroutine, "cr_code", None)
        name = "" if code is None else f"{code.co_filename}:{code.co_qualname}"
        own = code is not None and not any(each in name for each in ("/agno/", "/tests/", "/asyncio/"))
        return asyncio.Task(self._stepped(coroutine, name) if own else coroutine, loop=loop, **options)

    async def _stepped(self, coroutine: Coroutine[Any, Any, Any], name: str) -> Any:
        return await _Stepped(coroutine, name, self)

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self._collecting += time.thread_time() - self._began


class _Stepped:
    """A coroutine of which each step is measured."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], what: str, watch: Watch) -> None:
        self._coroutine = coroutine
        self._what = what
        self._watch = watch

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            try:
                with self._watch.step(self._what):
                    waited_for = resume()
            except StopIteration as stop:
                return stop.value
            try:
                resume = partial(self._coroutine.send, (yield waited_for))
            except BaseException as error:
                resume = partial(self._coroutine.throw, error)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(each, marks=getattr(pytest.mark, each))
        for each in ("memory", "sqlite", "dynamodb_local", "firestore")
    ],
)
async def test_50_agents_are_never_kept_waiting_by_the_library(
    engine: str, request: pytest.FixtureRequest, prefix: str, tmp_path: Any, conversations: list[Conversation]
) -> None:
    longest: list[float] = []
    while len(longest) < ROUNDS and min(longest, default=1.0) > LONGEST:
        urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path / f'store-{len(longest)}.sqlite'}"}
        url = urls.get(engine) or f"{request.getfixturevalue(f'{engine}_url')}&prefix={prefix}{len(longest)}_"
        with uncounted_lines():
            before = slowness()
            step = await longest_step(engine, url, conversations)
            slower = max(1.0, (before + slowness()) / 2)
        show(f"{engine}: {step * 1000:.1f} ms, the processor {slower:.2f} times as slow as the limit allows for")
        longest.append(step / slower)
    assert min(longest) <= LONGEST


@contextmanager
def uncounted_lines() -> Generator[None, None, None]:
    """Without the tracing of covered lines, where they are counted: it takes twice as long as what it traces."""
    coverage = Coverage.current()
    if coverage is not None:
        coverage.stop()
    try:
        yield
    finally:
        if coverage is not None:
            coverage.start()


def slowness() -> float:
    """How many times as long as on the machine that the limit was set on fixed work takes now."""
    took: list[float] = []
    for _ in range(20):
        began = time.thread_time()
        fixed_work()
        took.append(time.thread_time() - began)
    return median(took) / FIXED_WORK


def fixed_work() -> None:
    """What the library, and agno for it, mostly does: walk through what a run is made of, and make it anew."""
    message = {"role": "user", "metrics": {str(n): n for n in range(20)}, "parts": [{"n": [n] * 5} for n in range(10)]}
    for _ in range(20):
        deepcopy(message)


async def longest_step(engine: str, url: str, conversations: list[Conversation]) -> float:
    """The most processor time that the library takes in one go while 50 agents talk, in seconds."""
    db, watch = AsyncCloudDb(url, provision=True), Watch()
    watch.charge(db)
    async with watch.watching():
        await db.database()
        show(f"opened: the longest {watch.longest * 1000:.1f} ms ({watch.what})")
        turns = await asyncio.gather(
            *(talk(db, conversations[n % len(conversations)], f"s{n}", turns=4) for n in range(AGENTS))
        )
    show(
        f"{engine}: {sum(turns)} turns, {watch.steps} steps of the library, the longest {watch.longest * 1000:.1f} ms "
        f"({watch.what}); the watchdog woke {watch.late * 1000:.0f} ms late at most, of which "
        f"the library had taken up to {watch.together * 1000:.0f} ms"
    )
    assert watch.steps > 4 * sum(turns)
    await db.close()
    return watch.longest


async def talk(
    db: AsyncCloudDb,
    conversation: Conversation,
    session_id: str,
    *,
    turns: int | None = None,
    said: Callable[[], object] = bool,
) -> int:
    """Replay a conversation; every run must succeed."""
    replayed = Replayed(conversation, turns)
    agent = replayed.agent(db)
    for message, answer in zip(replayed.said, replayed.answers, strict=True):
        done = await agent.arun(message, session_id=session_id, user_id="ann")
        assert (done.status, done.content) == (RunStatus.completed, answer)
        said()
    return len(replayed.said)


@pytest.mark.dynamodb_local
@pytest.mark.firestore
@pytest.mark.parametrize("silent", [0, 1], ids=["dynamodb", "firestore"])
async def test_50_conversations_go_on_when_a_cloud_falls_silent_and_none_of_their_turns_is_missing(
    silent: int, dynamodb_local_url: str, firestore_url: str, prefix: str, conversations: list[Conversation]
) -> None:
    clouds = [f"{each}&prefix={prefix}" for each in (dynamodb_local_url, firestore_url)]
    async with connect(*clouds) as whole:
        await whole.provision()
        await whole.reconcile()
    chosen = [conversations[n % len(conversations)] for n in range(AGENTS)]
    ended = Counter[str]()
    async with behind_proxies(clouds) as (proxies, urls):
        async with connect(*urls, deadline=10) as database:
            db = AsyncCloudDb(database=database)

            def said() -> None:
                ended["turns"] += 1
                if ended["turns"] == 2 * AGENTS:
                    proxies[silent].black_hole()
                elif ended["turns"] > 2 * AGENTS:
                    ended["in the outage"] += 1

            talks = [talk(db, each, f"s{n}", turns=4, said=said) for n, each in enumerate(chosen)]
            turns = await asyncio.gather(*talks)
            await proxies[silent].heal()
        async with connect(*urls) as database:
            report = await database.reconcile()
            assert report.total.failed == 0
    missing = Counter[str]()
    for url in clouds:
        async with connect(url) as alone:
            db = AsyncCloudDb(database=alone)
            for n, each in enumerate(chosen):
                session = await db.get_session(f"s{n}")
                assert isinstance(session, AgentSession)
                runs = session.runs or []
                expected = Replayed(each, 4)
                missing[url.partition(":")[0]] += len(expected.answers) - len(runs)
                assert [run.content for run in runs] == expected.answers
    show(
        f"{sum(turns)} turns of {AGENTS} conversations, {ended['in the outage']} of them in the outage; "
        f"replayed {report.replayed}, {report.total}; missing {dict(missing)}"
    )
    assert ended["in the outage"] > AGENTS
