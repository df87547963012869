"""agno's calls about service accounts: what many do at once, on every store and in fan-outs."""

from __future__ import annotations

import traceback
from functools import partial
from typing import Any

import pytest
from agno.db.sqlite.schemas import get_table_schema_definition
from agno.db.utils import is_unique_violation

from agno_clouddb import CloudDBError, ConflictError, Database, InvalidRecord
from agno_clouddb.integrations.agno.accounts import SERVICE_ACCOUNTS, AccountCalls
from agno_clouddb.stores.memory import MemoryStore
from tests.integration.agno.competing import WORKERS, all_at_once, alone, databases

__all__ = ["databases"]

CREATED = 1_700_000_000


def account(key: str, name: str = "robot", **values: Any) -> dict[str, Any]:
    return {
        "id": key,
        "name": name,
        "token_hash": f"hash-{key}",
        "token_prefix": "agno_pat_",
        "scopes": ["agents:run"],
        "created_at": CREATED,
        **values,
    }


def callers(databases: list[Database]) -> list[AccountCalls]:
    return [alone(AccountCalls, databases[n % len(databases)]) for n in range(WORKERS)]


def only_one_succeeded(found: list[Any]) -> dict[str, Any]:
    (winner,) = [each for each in found if isinstance(each, dict)]
    errors = [each for each in found if not isinstance(each, dict)]
    assert len(errors) == WORKERS - 1
    assert all(isinstance(each, ConflictError) and is_unique_violation(each) for each in errors)
    shown = "".join(line for each in errors for line in traceback.format_exception(each))
    assert "hash-" not in shown
    made: dict[str, Any] = winner
    return made


async def test_of_16_who_create_an_account_of_one_name_one_does(databases: list[Database]) -> None:
    agnos = callers(databases)
    found = await all_at_once([partial(each.create_service_account, account(f"a{n}")) for n, each in enumerate(agnos)])
    winner = only_one_succeeded(found)
    rows, total = await agnos[0].get_service_accounts()
    assert ([each["id"] for each in rows], total) == ([winner["id"]], 1)
    for n in range(WORKERS):
        by_token = await agnos[1].get_service_account_by_token_hash(f"hash-a{n}")
        assert (by_token is not None) is (f"a{n}" == winner["id"])


async def test_of_16_who_create_an_account_with_one_token_one_does(databases: list[Database]) -> None:
    agnos = callers(databases)
    accounts = [account(f"a{n}", f"robot{n}", token_hash="hash-1") for n in range(WORKERS)]
    found = await all_at_once(
        [partial(each.create_service_account, one) for each, one in zip(agnos, accounts, strict=True)]
    )
    winner = only_one_succeeded(found)
    by_token = await agnos[2].get_service_account_by_token_hash("hash-1")
    assert by_token == await agnos[3].get_service_account_by_name(winner["name"])
    assert by_token is not None
    assert by_token["id"] == winner["id"]


async def test_a_revoked_account_stays_known_and_its_name_is_free(databases: list[Database]) -> None:
    agnos = callers(databases)
    for key in ("a1", "a2"):
        await agnos[0].create_service_account(account(key, created_at=CREATED + int(key[1])))
        revoke = [
            partial(each.update_service_account, key, revoked_at=CREATED + n)
            if n % 2
            else partial(each.update_service_account, key, return_record=False, last_used_at=CREATED + n)
            for n, each in enumerate(agnos)
        ]
        found = await all_at_once(revoke)
        assert not [each for each in found if isinstance(each, CloudDBError)]
        row = await agnos[1].get_service_account_by_token_hash(f"hash-{key}")
        assert row is not None
        assert row["revoked_at"] in range(CREATED + 1, CREATED + WORKERS, 2)
        assert row["last_used_at"] in range(CREATED, CREATED + WORKERS, 2)
        assert await agnos[1].get_service_account_by_name("robot") is None
        last = await agnos[1].get_service_account_by_name("robot", include_revoked=True)
        assert last is not None
        assert last["id"] == key
    assert (await agnos[2].get_service_accounts(include_revoked=False)) == ([], 0)
    rows, total = await agnos[2].get_service_accounts(limit=1, page=2)
    assert ([each["id"] for each in rows], total) == (["a1"], 2)


async def test_of_16_who_delete_an_account_one_does_and_nothing_is_left(databases: list[Database]) -> None:
    agnos = callers(databases)
    await agnos[0].create_service_account(account("a1"))
    found = await all_at_once([partial(each.delete_service_account, "a1") for each in agnos])
    assert sorted(found, key=str) == [False] * (WORKERS - 1) + [True]
    for kind in ("service_account", "service_account_name", "service_account_token"):
        assert await databases[0].entries.count(kind=kind) == 0
    await agnos[0].create_service_account(account("a1"))
    # An account that is revoked takes no name along that is another's by now.
    await agnos[0].update_service_account("a1", revoked_at=CREATED)
    await agnos[0].create_service_account(account("a2"))
    assert await agnos[1].delete_service_account("a1") is True
    active = await agnos[1].get_service_account_by_name("robot")
    assert active is not None
    assert active["id"] == "a2"


async def test_an_account_without_what_it_needs_is_refused() -> None:
    async with Database(MemoryStore()) as db:
        await db.provision()
        agno = alone(AccountCalls, db)
        for name in ("id", "name", "token_hash", "scopes", "created_at"):
            with pytest.raises(InvalidRecord, match=name):
                await agno.create_service_account(
                    {column: value for column, value in account("a1").items() if column != name}
                )
        for changes, problem in (({}, "at least one"), ({"name": "x"}, "name"), ({"revoked_at": None}, "one-way")):
            with pytest.raises(ValueError, match=problem):
                await agno.update_service_account("a1", **changes)
        assert await agno.update_service_account("a1", revoked_at=1) is None
        assert await agno.get_service_accounts() == ([], 0)


def test_rows_have_the_columns_of_agnos_own() -> None:
    theirs = get_table_schema_definition("service_accounts")
    assert SERVICE_ACCOUNTS.columns == tuple(name for name in theirs if not name.startswith("_"))
