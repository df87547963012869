"""agno's calls about auth tokens: refreshed by many at once, and secret."""

from __future__ import annotations

import logging
import traceback
from functools import partial
from typing import Any

import pytest
from agno.db.sqlite.schemas import get_table_schema_definition

from agno_clouddb import CloudDBError, Database, InvalidRecord, RecordTooLarge, StoreUnavailable, connect
from agno_clouddb.integrations.agno.tokens import AUTH_TOKENS, TokenCalls
from agno_clouddb.stores.base import Limits, Mutation, Outcome
from agno_clouddb.stores.memory import MemoryStore
from agno_clouddb.testing import FaultyStore
from tests.integration.agno.competing import WORKERS, all_at_once, alone, databases

__all__ = ["databases"]

SECRET = "xoxb-very-secret"


def token(user_id: Any = "ann", **values: Any) -> dict[str, Any]:
    given = {"provider": "google", "user_id": user_id, "service": "mail", "token_data": {"access_token": SECRET}}
    return {**given, **values}


async def test_16_who_refresh_a_token_leave_one_of_theirs_and_when_it_was_first_granted(
    databases: list[Database],
) -> None:
    agnos = [alone(TokenCalls, databases[n % len(databases)]) for n in range(WORKERS)]
    await agnos[0].upsert_auth_token(token(created_at=5, granted_scopes=["read"]))
    first = await agnos[1].get_auth_token("google", "ann", "mail")
    assert first is not None
    refreshed = [token(token_data={"n": n}, created_at=n) for n in range(WORKERS)]
    found = await all_at_once(
        [partial(each.upsert_auth_token, one) for each, one in zip(agnos, refreshed, strict=True)]
    )
    assert not [each for each in found if isinstance(each, CloudDBError)]
    last = await agnos[2].get_auth_token("google", "ann", "mail")
    assert last is not None
    assert last["token_data"] in [{"n": n} for n in range(WORKERS)]
    assert (last["id"], last["created_at"], last["granted_scopes"]) == (first["id"], 5, None)
    assert await databases[0].entries.count(kind="auth_token") == 1


async def test_of_16_who_grant_a_token_first_one_makes_its_id(databases: list[Database]) -> None:
    agnos = [alone(TokenCalls, databases[n % len(databases)]) for n in range(WORKERS)]
    found = await all_at_once([partial(each.upsert_auth_token, token(None)) for each in agnos])
    ids = {each["id"] for each in found if isinstance(each, dict)}
    assert len(ids) == WORKERS
    stored = await agnos[0].get_auth_token("google", None, "mail")
    assert stored is not None
    assert stored["id"] in ids
    assert stored == await agnos[1].get_auth_token("google", "", "mail")
    deleted = await all_at_once([partial(each.delete_auth_token, "google", None, "mail") for each in agnos])
    # A deletion must also go through without one of several stores, so that none of them can decide it alone.
    stores = (await databases[0].health()).stores
    assert deleted.count(True) == 1 if len(stores) == 1 else deleted.count(True) >= 1
    assert await agnos[0].get_auth_token("google", None, "mail") is None


async def test_a_token_is_revoked_while_the_primary_is_away_and_does_not_come_back() -> None:
    primary, other = FaultyStore(MemoryStore()), MemoryStore()
    async with connect(primary, other) as db:
        await db.provision()
        agno = alone(TokenCalls, db)
        await agno.upsert_auth_token(token())
        primary.down()
        assert await agno.delete_auth_token("google", "ann", "mail") is True
        primary.up()
        await db.reconcile(full=True)
        assert await agno.get_auth_token("google", "ann", "mail") is None
        assert [each async for each in db.entries.iterate(kind="auth_token")] == []


class Failing(MemoryStore):
    """A store that does not answer writes."""

    async def write(self, mutations: Any, *, atomic: bool = False) -> tuple[Outcome, ...]:
        raise StoreUnavailable("the service does not answer", store=self.name, key=_key(mutations[0]))


def _key(mutation: Mutation) -> Any:
    return mutation.key


@pytest.mark.parametrize(
    ("store", "given", "kind"),
    [
        (MemoryStore(limits=Limits(100, 10, 1_000)), token(), RecordTooLarge),
        (Failing(), token(), StoreUnavailable),
        (MemoryStore(), token(token_data={"access_token": SECRET, "at": 1 << 5_000}), InvalidRecord),
        (MemoryStore(), token(created_at="soon"), InvalidRecord),
        (MemoryStore(), token(provider=None), InvalidRecord),
        (MemoryStore(), token(user_id=7), InvalidRecord),
    ],
)
async def test_no_error_and_no_log_shows_a_token(
    store: MemoryStore, given: dict[str, Any], kind: type[CloudDBError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Database(store) as db:
        await db.provision()
        with pytest.raises(kind) as caught:
            await alone(TokenCalls, db).upsert_auth_token(given)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert SECRET not in shown
    assert "ann" not in shown.replace("cannot", "")


async def test_tokens_of_others_are_others() -> None:
    async with Database(MemoryStore()) as db:
        await db.provision()
        agno = alone(TokenCalls, db)
        odd = ("ann", 'ann","mail', "ü\n", "x" * 3_000, None)
        for n, user in enumerate(odd):
            await agno.upsert_auth_token(token(user, token_data=[n]))
        for n, user in enumerate(odd):
            found = await agno.get_auth_token("google", user, "mail")
            assert found is not None
            assert (found["user_id"], found["token_data"]) == (user or "", [n])
        assert await agno.delete_auth_token("google", "ann", "calendar") is False


def test_rows_have_the_columns_of_agnos_own() -> None:
    theirs = get_table_schema_definition("auth_tokens")
    assert AUTH_TOKENS.columns == tuple(name for name in theirs if not name.startswith("_"))
