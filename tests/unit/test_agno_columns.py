"""Where in a second rows are placed that agno dates to the second, and which of them a page has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Self

import pytest

from agno_clouddb.integrations.agno import columns

SECOND = 1_700_000_000
START = datetime.fromtimestamp(SECOND, UTC)


def placed(late: float, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """Where a row of ``SECOND`` goes that is written so many seconds after its beginning."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(SECOND, tz) + timedelta(seconds=late)

    monkeypatch.setattr(columns, "datetime", Clock)
    return columns.placed(SECOND)


def test_what_is_written_later_comes_later_also_when_its_second_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [placed(late, monkeypatch) for late in (0, 0.3, 0.999, 1.0, 1.001, 1.2, 3, 4.999_999)]
    assert all(earlier < later for earlier, later in pairwise(moments))
    assert {each.replace(microsecond=0) for each in moments} == {START}


@pytest.mark.parametrize("late", [-0.1, 5, 3_600])
def test_another_second_is_kept_as_it_is(late: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert placed(late, monkeypatch) == START


@pytest.mark.parametrize(
    ("limit", "page", "expected"),
    [
        (None, 3, [0, 1, 2, 3, 4]),
        (2, None, [0, 1]),
        (2, 0, [0, 1]),
        (2, 3, [4]),
        (0, 1, []),
        (-1, 1, [0, 1, 2, 3, 4]),
        (-5, 2, [0, 1, 2, 3, 4]),
    ],
)
def test_a_page_has_the_rows_that_sqlite_gives_it(limit: int | None, page: int | None, expected: list[int]) -> None:
    assert columns.cut(range(5), limit, page) == expected
