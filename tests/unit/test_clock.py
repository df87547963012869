"""Version stamps."""

from __future__ import annotations

import pytest

from agno_clouddb.stores.clock import HybridClock, is_version, version_millis, wall_clock_millis

WRITER = "0123456789ab"


class Wall:
    """A wall clock that a test sets."""

    def __init__(self, millis: int) -> None:
        self.millis = millis

    def __call__(self) -> int:
        return self.millis


def test_a_stamp_carries_milliseconds_counter_and_writer() -> None:
    clock = HybridClock(WRITER, Wall(0x18F0000000A))
    assert clock.stamp() == f"018f0000000a-0000-{WRITER}"
    assert clock.stamp() == f"018f0000000a-0001-{WRITER}"


def test_stamps_grow_as_text_while_the_wall_clock_stands_still_or_goes_back() -> None:
    wall = Wall(1_000)
    clock = HybridClock(WRITER, wall)
    stamps = []
    for millis in (1_000, 1_000, 999, 10, 1_001, 1_001, 5, 20_000):
        wall.millis = millis
        stamps.append(clock.stamp())
    assert stamps == sorted(set(stamps))
    assert [version_millis(each) for each in stamps] == [1_000, 1_000, 1_000, 1_000, 1_001, 1_001, 1_001, 20_000]


def test_a_full_counter_goes_over_into_the_milliseconds() -> None:
    clock = HybridClock(WRITER, Wall(5))
    clock.observe(f"{5:012x}-fffe-{WRITER}")
    assert [clock.stamp()[:17] for _ in range(3)] == [f"{5:012x}-ffff", f"{6:012x}-0000", f"{6:012x}-0001"]


@pytest.mark.parametrize("seen", [f"{9:012x}-0003-ffffffffffff", f"{9:012x}-ffff-ffffffffffff"])
def test_a_stamp_is_newer_than_all_that_was_observed(seen: str) -> None:
    clock = HybridClock("000000000000", Wall(5))
    clock.observe(seen)
    assert clock.stamp() > seen


def test_observing_something_older_changes_nothing() -> None:
    clock = HybridClock(WRITER, Wall(5))
    first = clock.stamp()
    clock.observe(f"{4:012x}-ffff-ffffffffffff")
    clock.observe(first)
    assert clock.stamp() == f"{5:012x}-0001-{WRITER}"


def test_clocks_have_writers_of_their_own() -> None:
    wall = Wall(5)
    stamps = {HybridClock(now=wall).stamp() for _ in range(100)}
    assert len(stamps) == 100


def test_every_stamp_has_the_form_of_a_version() -> None:
    clock = HybridClock()
    before = wall_clock_millis()
    stamp = clock.stamp()
    assert is_version(stamp)
    assert before <= version_millis(stamp) <= wall_clock_millis()


@pytest.mark.parametrize(
    "text", ["", "1", f"{5:012x}-0000-{WRITER}\n", f"{5:012x}-00FF-{WRITER}", f"{5:012x}_0000_{WRITER}"]
)
def test_other_text_is_no_version(text: str) -> None:
    assert not is_version(text)
