"""Pages by number over lists that go on from cursors."""

from __future__ import annotations

import time

import pytest

from agno_clouddb.integrations.agno.pages import Bookmarks
from agno_clouddb.repositories.base import MAX_PAGE, Page


class Numbers:
    """A list of numbers, and what was asked of it."""

    def __init__(self, count: int) -> None:
        self.asked: list[tuple[int, str | None]] = []
        self._count = count

    async def __call__(self, limit: int, cursor: str | None) -> Page[int]:
        self.asked.append((limit, cursor))
        start = int(cursor or 0)
        end = min(start + limit, self._count)
        return Page(list(range(start, end)), str(end) if end < self._count else None)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 30, 2_500])
@pytest.mark.parametrize("limit", [None, 0, 1, 10, 1_000, -1])
@pytest.mark.parametrize("page", [None, 1, 2, 3])
async def test_a_page_has_what_its_number_says(count: int, limit: int | None, page: int | None) -> None:
    numbers = list(range(count))
    start = (limit or 0) * ((page or 1) - 1)
    expected = numbers if limit is None or limit < 0 else numbers[start : start + limit]
    assert await Bookmarks().page(Numbers(count), of="all", limit=limit, page=page) == expected


async def test_the_page_after_one_that_was_read_costs_one_page() -> None:
    bookmarks, numbers = Bookmarks(), Numbers(1_000)
    for page in range(1, 6):
        numbers.asked.clear()
        assert await bookmarks.page(numbers, of="all", limit=20, page=page) == list(range(20 * page - 20, 20 * page))
        assert numbers.asked == [(20, str(20 * page - 20) if page > 1 else None)]


async def test_a_page_that_nobody_came_to_is_reached_in_the_largest_steps() -> None:
    numbers = Numbers(10_000)
    assert await Bookmarks().page(numbers, of="all", limit=20, page=101) == list(range(2_000, 2_020))
    assert numbers.asked == [(MAX_PAGE, None), (MAX_PAGE, "1000"), (20, "2000")]


async def test_one_list_does_not_begin_where_another_one_ended() -> None:
    bookmarks = Bookmarks()
    await bookmarks.page(Numbers(1_000), of="all", limit=20, page=1)
    others = Numbers(30)
    assert await bookmarks.page(others, of="some", limit=20, page=2) == list(range(20, 30))
    assert others.asked[0] == (20, None)


async def test_a_bookmark_is_not_used_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    bookmarks, numbers, now = Bookmarks(), Numbers(1_000), 0.0
    monkeypatch.setattr("agno_clouddb.integrations.agno.pages.time.monotonic", lambda: now)
    await bookmarks.page(numbers, of="all", limit=20, page=1)
    now = 61.0
    numbers.asked.clear()
    await bookmarks.page(numbers, of="all", limit=20, page=2)
    assert numbers.asked[0] == (20, None)


async def test_a_page_far_past_the_end_is_not_looked_for_page_by_page() -> None:
    bookmarks, numbers = Bookmarks(), Numbers(30)
    await bookmarks.page(numbers, of="all", limit=10, page=1)
    numbers.asked.clear()
    before = time.thread_time()
    assert await bookmarks.page(numbers, of="all", limit=1, page=1_000_000_000) == []
    assert time.thread_time() - before < 1  # a billion steps take a minute
    assert numbers.asked == [(MAX_PAGE, "10")]


async def test_a_page_of_another_size_goes_on_from_the_last_known_place_before_it() -> None:
    bookmarks, numbers = Bookmarks(), Numbers(1_000)
    for page in (1, 2, 3):
        await bookmarks.page(numbers, of="all", limit=20, page=page)
    numbers.asked.clear()
    assert await bookmarks.page(numbers, of="all", limit=7, page=7) == list(range(42, 49))
    assert numbers.asked == [(2, "40"), (7, "42")]
