"""agno's calls about service accounts: machines that are known by a token.

An account is an entry, written in one transaction with two more: one that leads from the hash of its token to it, and
one that reserves its name while it is not revoked. So of two accounts with one name or token only one can be written,
and a token is looked up by keys alone, which no index that lags can hide.
"""

from __future__ import annotations

from typing import Any

from agno.db.schemas.service_accounts import resolve_service_account_sort_column, validate_service_account_update

from agno_clouddb.database import Database
from agno_clouddb.errors import ConflictError
from agno_clouddb.integrations.agno.columns import cut, in_order
from agno_clouddb.integrations.agno.entry_lists import EntryLists
from agno_clouddb.integrations.agno.entry_writes import digest, named
from agno_clouddb.integrations.agno.tables import ListedBy, Table
from agno_clouddb.integrations.agno.taken import repeated, taken
from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.entries import Sort

__all__ = ["SERVICE_ACCOUNTS", "AccountCalls"]

SERVICE_ACCOUNTS = Table(
    kind="service_account",
    columns=(
        "id",
        "name",
        "user_id",
        "token_hash",
        "token_prefix",
        "scopes",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
        "created_by",
    ),
    required=frozenset({"id", "name", "token_hash", "token_prefix", "scopes", "created_at"}),
    json=frozenset({"scopes"}),
)

_NAMES = "service_account_name"
_TOKENS = "service_account_token"
_ACTIVE = f"{SERVICE_ACCOUNTS.kind}:active"
_REVOKED = f"{SERVICE_ACCOUNTS.kind}:revoked"


class AccountCalls(EntryLists):
    """Service accounts. Lookups by id, token or name in use are strongly consistent."""

    async def create_service_account(self, account_data: dict[str, Any]) -> dict[str, Any]:
        """Write an account that is not there yet, in one transaction.

        Returns:
            What was given.

        Raises:
            ConflictError: there is an account of this id or token, or one of this name that is not revoked.
            InvalidRecord: a column that is required is missing.
        """
        entry = _entry(SERVICE_ACCOUNTS.row(account_data))
        db = await self.database()
        self._entry_writes += 1
        try:
            async with db.transaction() as tx:
                tx.create(entry)
                tx.create(_pointer(_TOKENS, _token_id(entry.data["token_hash"]), entry))
                if entry.state == _ACTIVE:
                    tx.create(_pointer(_NAMES, _name_id(entry.data["name"]), entry))
        except ConflictError as error:
            raise taken(error, "there is a service account of this id, token or name already") from error
        return account_data

    async def get_service_account(self, service_account_id: str, user_id: str | None = None) -> dict[str, Any] | None:
        """An account, in one request; None when there is none, or with ``user_id``, when it is another user's."""
        entry = await _account(await self.database(), service_account_id)
        return dict(entry.data) if entry is not None and _is_for(entry, user_id) else None

    async def get_service_account_by_token_hash(self, token_hash: str) -> dict[str, Any] | None:
        """The account with a token, revoked or not, in two requests; None when there is none."""
        return await self._account_led_to(_token_id(token_hash))

    async def get_service_account_by_name(self, name: str, include_revoked: bool = False) -> dict[str, Any] | None:
        """The account with a name, in two requests; None when there is none.

        Args:
            name: which.
            include_revoked: the last created of all that have had the name, by an index that may lag on DynamoDB.
        """
        if name is None:
            return None
        if not include_revoked:
            return await self._account_led_to(_name_id(name))
        page = await (await self._entries()).list(group=named(SERVICE_ACCOUNTS.kind, name), limit=1)
        return dict(page.items[0].data) if page.items else None

    async def get_service_accounts(
        self,
        include_revoked: bool = True,
        limit: int = 20,
        page: int = 1,
        sort_by: str = "created_at",
        sort_order: str = "desc",
        user_id: str | None = None,
    ) -> tuple[list[dict[str, Any]], int]:
        """One page of accounts, and how many there are in all.

        Served by an index and counted by the store; by another column than ``created_at``, or for one user, all are
        read.

        Args:
            include_revoked: revoked ones too.
            limit: how many a page has.
            page: which one, from 1 on.
            sort_by: ``created_at``, ``name``, ``last_used_at`` or ``expires_at``.
            sort_order: ``asc``; or else the greatest first.
            user_id: only this user's, and those that belong to nobody.
        """
        entries = await self._entries()
        filters: ListedBy = {"kind": SERVICE_ACCOUNTS.kind}
        if not include_revoked:
            filters["state"] = _ACTIVE
        column, ascending = resolve_service_account_sort_column(sort_by), sort_order == "asc"
        if user_id is None and column == "created_at":
            total = await entries.count(**filters)
            sort: Sort = "created_at" if ascending else "-created_at"
            return [each.data for each in await self._entry_page(limit, page, sort=sort, **filters)], total
        found = [each async for each in entries.iterate(sort="created_at", page_size=500, **filters)]
        rows = [each.data for each in found if _is_for(each, user_id)]
        return cut(in_order(rows, lambda row: row[column], ascending=ascending), limit, page), len(rows)

    async def update_service_account(
        self, service_account_id: str, return_record: bool = True, **kwargs: Any
    ) -> dict[str, Any] | None:
        """Note when an account was last used, or revoke it, by which its name is free again.

        Args:
            service_account_id: which.
            return_record: give the account back.
            **kwargs: ``last_used_at`` or ``revoked_at``, seconds since the epoch.

        Returns:
            The account; None when it is not there, or not asked for.

        Raises:
            ValueError: another column is given, or none, or ``revoked_at`` is None.
        """
        validate_service_account_update(kwargs)
        db = await self.database()
        self._entry_writes += 1

        async def change() -> Entry | None:
            entry = await _account(db, service_account_id)
            if entry is None:
                return None
            changed = _entry({**entry.data, **kwargs}).model_copy(update={"version": entry.version})
            if changed.state == entry.state:
                return await db.entries.upsert(changed, expected_version=entry.version)
            name = await _pointing_to(db, _name_id(entry.data["name"]), entry)
            async with db.transaction() as tx:
                tx.upsert(changed, expected_version=entry.version)
                if name is not None:
                    tx.delete(Entry, name.id, expected_version=name.version)
            return changed

        stored = await repeated(change)
        return dict(stored.data) if return_record and stored is not None else None

    async def delete_service_account(self, service_account_id: str) -> bool:
        """Delete an account, in one transaction after two round trips.

        Returns:
            Whether it was there.
        """
        db = await self.database()
        self._entry_writes += 1

        async def delete() -> bool:
            entry = await _account(db, service_account_id)
            if entry is None:
                return False
            leading = [_token_id(entry.data["token_hash"]), _name_id(entry.data["name"])]
            found = await db.entries.get_many(leading, consistency="strong")
            async with db.transaction() as tx:
                tx.delete(Entry, entry.id, expected_version=entry.version)
                for each in found:
                    if each is not None and each.data["id"] == service_account_id:
                        tx.delete(Entry, each.id, expected_version=each.version)
            return True

        return await repeated(delete)

    async def _account_led_to(self, id: str) -> dict[str, Any] | None:
        """The account that a further entry leads to."""
        db = await self.database()
        pointer = await db.entries.get(id, consistency="strong")
        entry = None if pointer is None else await _account(db, pointer.data["id"])
        return None if entry is None else dict(entry.data)


def _entry(row: dict[str, Any]) -> Entry:
    """The entry that keeps a whole row: listed by its name, and by whether it is revoked."""
    return SERVICE_ACCOUNTS.entry(
        row,
        group=named(SERVICE_ACCOUNTS.kind, row["name"]),
        state=_ACTIVE if row["revoked_at"] is None else _REVOKED,
    )


def _pointer(kind: str, id: str, account: Entry) -> Entry:
    """An entry that leads to an account."""
    return Entry(id=id, kind=kind, data={"id": account.data["id"]})


def _token_id(token_hash: str) -> str:
    # A hash of the hash: ids are shown in errors.
    return f"{_TOKENS}:{digest(token_hash)}"


def _name_id(name: str) -> str:
    return named(_NAMES, name)


def _is_for(account: Entry, user_id: str | None) -> bool:
    return user_id is None or account.data["user_id"] in (None, user_id)


async def _account(db: Database, id: str) -> Entry | None:
    if not SERVICE_ACCOUNTS.has(id):
        return None
    return await db.entries.get(SERVICE_ACCOUNTS.id(id), consistency="strong")


async def _pointing_to(db: Database, id: str, account: Entry) -> Entry | None:
    """A further entry, when it leads to this account."""
    found = await db.entries.get(id, consistency="strong")
    return found if found is not None and found.data["id"] == account.data["id"] else None
