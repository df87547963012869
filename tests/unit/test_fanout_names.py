"""Which stores of a fan-out are one and the same, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from agno_clouddb import ConfigurationError, connect
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.stores.base import Store
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.stores.sqlite import SQLiteStore
from agno_clouddb.testing import FaultyStore


def test_a_store_that_is_given_twice_is_refused_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to("x.db")
    own = MemoryStore("memory://own")
    again: list[tuple[str | Store, ...]] = [
        ("sqlite:///x.db", "sqlite:///./x.db"),
        ("sqlite:///x.db", f"sqlite:////{tmp_path}/x.db"),
        ("sqlite:///x.db", "sqlite:///link.db?deadline=5"),
        ("sqlite:///x.db", SQLiteStore(Path("x.db"))),
        ("sqlite:///x.db", "memory://", FaultyStore(SQLiteStore("x.db"))),
        (own, FaultyStore(own)),
        ("dynamodb://eu-west-1", "dynamodb://eu-west-1"),
    ]
    for stores in again:
        with pytest.raises(ConfigurationError, match="is given twice"):
            connect(*stores)
    for stores in (
        ("sqlite:///x.db", "sqlite:///y.db"),
        ("sqlite:///x.db", "sqlite:///x.db?prefix=other_"),
        ("memory://", "memory://"),
        ("dynamodb://eu-west-1", "dynamodb://eu-west-2"),
        ("firestore://p?emulator_host=127.0.0.1:1", "firestore://p?emulator_host=127.0.0.1:2"),
    ):
        assert isinstance(connect(*stores).store, FanOutStore)
