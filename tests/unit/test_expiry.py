"""When records expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_clouddb import ConfigurationError, InvalidRecord, UserMemory, connect
from agno_clouddb.repositories.expiry import expiring, ttls
from agno_clouddb.stores.schema import COLLECTIONS

FAR = datetime(2126, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def memory(expires_at: datetime | None = None) -> UserMemory:
    return UserMemory(memory="x", expires_at=expires_at)


def kept(length: timedelta, expires_in: float | timedelta | None = None, *, given: datetime | None = FAR) -> UserMemory:
    """A record that is to be kept so long by the call, or by the default of a day, rounded up to a whole second."""
    before = datetime.now(UTC)
    found = expiring(memory(given), DAY, expires_in, None)
    after = datetime.now(UTC)
    assert found.expires_at is not None
    assert before + length <= found.expires_at < after + length + SECOND
    return found


def test_a_record_without_an_expiry_is_kept_for_good() -> None:
    record = memory()
    assert expiring(record, None, None, None) is record


@pytest.mark.parametrize("given", [90, 90.0, 90.5, timedelta(seconds=90)])
def test_an_expiry_is_seconds_from_now_rounded_up_to_a_whole_one(given: float | timedelta) -> None:
    found = kept(timedelta(seconds=90.5 if given == 90.5 else 90), given)
    assert found.expires_at is not None
    assert found.expires_at.microsecond == 0


def test_an_expiry_is_a_moment_rounded_up_to_a_whole_second_in_utc() -> None:
    moment = datetime(2126, 1, 1, 13, 0, 0, 1, timezone(timedelta(hours=1)))
    found = expiring(memory(), DAY, None, moment)
    assert found.expires_at == FAR.replace(hour=12, second=1)
    assert found.expires_at.tzinfo is UTC
    whole = expiring(memory(), None, None, FAR)
    assert whole.expires_at == FAR
    assert expiring(whole, None, None, None) is whole


@given(st.datetimes(datetime(2100, 1, 1), datetime(9999, 12, 31, 23, 59, 59), timezones=st.just(UTC)))
def test_no_moment_is_rounded_down_or_by_a_second(moment: datetime) -> None:
    found = expiring(memory(moment), None, None, None).expires_at
    assert found is not None
    assert timedelta(0) <= found - moment < SECOND
    assert found.microsecond == 0
    assert memory(found)._expiry() == int(found.timestamp())


def test_with_a_default_a_record_is_kept_at_least_that_long() -> None:
    kept(DAY, given=None)
    soon, past = datetime.now(UTC) + timedelta(seconds=5), datetime(2020, 1, 1, tzinfo=UTC)
    for shorter in (soon, past):
        kept(DAY, given=shorter)
    assert expiring(memory(FAR), DAY, None, None).expires_at == FAR
    # What the call says goes before the default.
    kept(timedelta(seconds=5), 5)


@pytest.mark.parametrize(
    "bad", [0, -1, 0.0, 1e-9, True, float("nan"), float("inf"), float("-inf"), 10**400, -(10**400), 1e300, "5", [5]]
)
def test_seconds_that_are_none_or_too_many_name_the_argument(bad: Any) -> None:
    with pytest.raises(InvalidRecord) as caught:
        expiring(memory(), None, bad, None)
    assert caught.value.path == "expires_in"
    for duration in (timedelta(0), -DAY, timedelta.max):
        with pytest.raises(InvalidRecord, match="expires_in"):
            expiring(memory(), None, duration, None)


@pytest.mark.parametrize(
    "bad",
    [
        datetime(2126, 1, 1),
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
        "2126-01-01T00:00:00Z",
        5_000_000_000,
    ],
)
def test_a_moment_that_cannot_be_names_the_attribute(bad: Any) -> None:
    record = memory().model_copy(update={"expires_at": bad})
    for one, moment in ((memory(), bad), (record, None)):
        with pytest.raises(InvalidRecord) as caught:
            expiring(one, None, None, moment)
        assert caught.value.path == "expires_at"


def test_a_moment_and_seconds_together_are_refused() -> None:
    with pytest.raises(InvalidRecord, match="expires_in"):
        expiring(memory(), None, 5, FAR)


def test_children_are_kept_as_long_as_their_parents_unless_they_are_named() -> None:
    assert ttls({}) == {}
    assert ttls({"sessions": 2, "memories": 0.5}) == {"sessions": 2 * DAY, "runs": 2 * DAY, "memories": DAY / 2}
    assert ttls({"runs": DAY, "sessions": timedelta(days=3)}) == {"runs": DAY, "sessions": 3 * DAY}
    assert ttls({"traces": 7, "spans": 1}) == {"traces": 7 * DAY, "spans": DAY}
    assert ttls({"spans": 1}) == {"spans": DAY}
    assert set(ttls(dict.fromkeys(COLLECTIONS, 1))) == set(COLLECTIONS)


@pytest.mark.parametrize(
    "bad", [0, -1, "7", None, True, float("nan"), float("inf"), 10**400, timedelta(0), timedelta.max]
)
def test_a_ttl_that_cannot_be_is_refused_before_anything_is_opened(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="ttl of traces"):
        connect("memory://", ttl={"traces": bad})
    with pytest.raises(ConfigurationError, match="'memory', which is not among sessions, runs, memories"):
        connect("memory://", ttl={"memory": 1})
