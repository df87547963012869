"""Places for runs that are appended to a session at once."""

from __future__ import annotations

import pytest

from agno_clouddb.integrations.agno.run_places import Appends


def test_each_run_gets_a_place_of_its_own_whatever_was_read_before() -> None:
    appends = Appends()
    with appends.to("s") as first, appends.to("s") as second:
        assert (first("a", 3), second("b", 3)) == (3, 4)
        with appends.to("s") as third:
            assert third("c", 7) == 7
        # It was read before the third was written.
        assert first("d", 3) == 8


def test_a_run_that_is_appended_twice_at_once_has_one_place() -> None:
    appends = Appends()
    with appends.to("s") as first, appends.to("s") as second:
        assert (first("a", 0), second("a", 0), second("b", 0)) == (0, 0, 1)


def test_sessions_are_counted_apart() -> None:
    appends = Appends()
    with appends.to("s") as first, appends.to("t") as second:
        assert (first("a", 0), second("b", 0)) == (0, 0)


def test_nothing_is_kept_of_a_session_to_which_nobody_appends() -> None:
    appends = Appends()
    with appends.to("s") as take:
        take("a", 5)
    with pytest.raises(ZeroDivisionError), appends.to("s"):
        _ = 1 / 0
    assert appends._sessions == {}
    with appends.to("s") as take:
        assert take("c", 0) == 0
