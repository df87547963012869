"""Running several calls at once, with none left behind."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from agno_clouddb import CloudDBError, StoreUnavailable
from agno_clouddb.concurrency import gather, gather_outcomes, uninterrupted


async def value(result: int) -> int:
    await asyncio.sleep(0)
    return result


async def failure(error: Exception) -> int:
    await asyncio.sleep(0)
    raise error


async def test_results_come_in_order_and_at_most_so_many_at_once() -> None:
    running = most = 0

    async def call(result: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return result

    assert await gather([lambda n=n: call(n) for n in range(20)], limit=3) == list(range(20))  # type: ignore[misc]
    assert most == 3
    assert await gather([]) == []


async def test_the_error_of_a_call_is_raised_as_it_is_and_the_others_end() -> None:
    ended = []

    async def slow() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return 0

    with pytest.raises(StoreUnavailable, match="gone"):
        await gather([slow, lambda: failure(StoreUnavailable("gone"))])
    assert ended == [True]


async def test_a_bug_does_not_hide_behind_an_error_of_the_library() -> None:
    with pytest.raises(ZeroDivisionError):
        await gather([lambda: failure(StoreUnavailable("gone")), lambda: failure(ZeroDivisionError())])


async def test_a_call_that_is_cancelled_from_below_is_an_error_and_not_a_result() -> None:
    async def cancelled() -> int:
        raise asyncio.CancelledError

    with pytest.raises(CloudDBError, match="cancelled"):
        await gather([cancelled, lambda: value(1)])


async def test_a_call_that_raises_before_it_can_be_awaited_leaves_no_other_behind() -> None:
    ended = []

    async def slow() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return 0

    def broken() -> asyncio.Future[int]:
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable, match="gone"):
        await gather([slow, broken])
    assert ended == [True]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_a_cancelled_caller_waits_for_calls_that_it_has_cancelled(how: str) -> None:
    started, release, ended = asyncio.Event(), asyncio.Event(), list[str]()

    async def ends_slowly() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await uninterrupted(release.wait)
            ended.append("slowly")

    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("failing")
            raise StoreUnavailable("gone")  # which is not what the caller is to see

    with anyio.CancelScope() as scope:
        task = asyncio.ensure_future(gather([ends_slowly, fails])) if how == "task" else None
        asyncio.get_running_loop().call_later(0.01, release.set)
        if task is None:
            asyncio.get_running_loop().call_later(0.001, scope.cancel)
            await gather([ends_slowly, fails])
        else:
            await started.wait()
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert ended == ["failing", "slowly"]


async def test_outcomes_hold_the_librarys_errors_and_raise_others() -> None:
    error = StoreUnavailable("gone")
    assert await gather_outcomes([lambda: value(1), lambda: failure(error)]) == [1, error]
    with pytest.raises(ZeroDivisionError):
        await gather_outcomes([lambda: value(1), lambda: failure(ZeroDivisionError())])


@pytest.mark.parametrize("how", ["task", "scope", "timeout"])
async def test_a_cancelled_caller_waits_for_what_is_not_to_be_interrupted(how: str) -> None:
    started, release, done = asyncio.Event(), asyncio.Event(), False

    async def write() -> None:
        nonlocal done
        started.set()
        await release.wait()
        done = True

    async def by_scope() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(uninterrupted, write)
            await started.wait()
            group.cancel_scope.cancel()
            asyncio.get_running_loop().call_later(0.01, release.set)

    async def by_task() -> None:
        task = asyncio.ensure_future(uninterrupted(write))
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def by_timeout() -> None:
        asyncio.get_running_loop().call_later(0.02, release.set)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await uninterrupted(write)

    await {"task": by_task, "scope": by_scope, "timeout": by_timeout}[how]()
    assert done


async def test_an_error_of_what_is_not_to_be_interrupted_is_raised() -> None:
    with pytest.raises(StoreUnavailable):
        await uninterrupted(lambda: failure(StoreUnavailable("gone")))
    assert await uninterrupted(lambda: value(7)) == 7
