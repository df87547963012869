from __future__ import annotations

from agno_clouddb.stores.base import Item, Key
from agno_clouddb.stores.firestore.tokens import Snapshot, Tokens


def snapshot(id: str, seconds: int, data: str = "") -> Snapshot:
    return Snapshot(Item(Key("sessions", id), f"v{seconds}", {"user_id": "ann"}, data), (seconds, 0))


def test_a_snapshot_is_kept_without_its_payload() -> None:
    tokens = Tokens(10)
    tokens.keep(snapshot("a", 1, data="payload"))
    assert tokens.get(Key("sessions", "a")) == snapshot("a", 1)


def test_a_late_answer_does_not_replace_a_newer_token() -> None:
    tokens = Tokens(10)
    tokens.keep(snapshot("a", 2))
    tokens.keep(snapshot("a", 1))
    assert tokens.get(Key("sessions", "a")) == snapshot("a", 2)


def test_the_least_recently_used_is_forgotten_first() -> None:
    tokens = Tokens(2)
    for each in ("a", "b"):
        tokens.keep(snapshot(each, 1))
    assert tokens.get(Key("sessions", "a")) is not None
    tokens.keep(snapshot("c", 1))
    assert len(tokens) == 2
    assert tokens.get(Key("sessions", "b")) is None
    assert tokens.get(Key("sessions", "a")) is not None


def test_what_is_gone_is_forgotten() -> None:
    tokens = Tokens(2)
    tokens.keep(snapshot("a", 1))
    tokens.forget(Key("sessions", "a"))
    tokens.forget(Key("sessions", "never"))
    assert tokens.get(Key("sessions", "a")) is None
