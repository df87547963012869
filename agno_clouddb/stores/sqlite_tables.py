"""The tables of SQLiteStore: one a collection, its columns, indexes and statements, all derived from schema.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agno_clouddb.stores.base import Cursor, Item, Key, Mutation, Put, Query
from agno_clouddb.stores.schema import SHARD, Collection, Index

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["Table", "add_functions"]

_COLUMNS = {
    "parent": "TEXT NOT NULL DEFAULT ''",  # no id is empty, so '' says that there is none and can be in the key
    "id": "TEXT NOT NULL",
    "version": "TEXT NOT NULL",
    "expires_at": "INTEGER",
    "deleted": "INTEGER NOT NULL DEFAULT 0",
}
_DATA = "data"  # the last column, so that the others are read without following a payload's overflow pages
_BY_VERSION = ("version", "parent", "id")
_CONTAINS = "agno_clouddb_contains"


async def add_functions(connection: aiosqlite.Connection) -> None:
    """Register what the statements call, SQLite's own LIKE knowing no case but that of ASCII."""
    await connection.create_function(_CONTAINS, 2, _contains, deterministic=True)


def _contains(value: str | None, folded: str) -> bool:
    return folded in (value or "").casefold()


def _quoted(name: str) -> str:
    # In double quotes SQLite would take a column that is missing for a text (https://www.sqlite.org/quirks.html).
    return "`" + name.replace("`", "``") + "`"


def _place(key: Key) -> tuple[str, str]:
    return (key.parent or "", key.id)


class Table:
    """Statements for one collection.

    Args:
        declared: the collection.
        prefix: goes before the names of the table and its indexes.
    """

    def __init__(self, declared: Collection, prefix: str) -> None:
        self._declared = declared
        self._prefix = prefix
        self._name = name = _quoted(prefix + declared.name)
        heads = [_quoted(each) for each in (*_COLUMNS, *declared.fields)]
        self._head, self._columns = ", ".join(heads), ", ".join([*heads, _DATA])
        updates = ", ".join(f"{each} = excluded.{each}" for each in [*heads, _DATA])
        self._put = (
            f"INSERT INTO {name} ({self._columns}) VALUES ({', '.join('?' * (len(heads) + 1))}) "
            f"ON CONFLICT (parent, id) DO UPDATE SET {updates}"
        )
        self._delete = f"DELETE FROM {name} WHERE parent = ? AND id = ?"
        self._by_version = self._index_name("version-index")

    async def provision(
        self, connection: aiosqlite.Connection, expired_before: int, *, replicated: bool = False
    ) -> None:
        """Create what is missing, and remove what expired before a time in seconds since the epoch.

        Args:
            connection: in a transaction.
            expired_before: the time.
            replicated: whether to index the table by version too.
        """
        execute = connection.execute_fetchall
        columns = _COLUMNS | dict.fromkeys(self._declared.fields, "TEXT") | {_DATA: ""}
        definitions = ", ".join(f"{_quoted(name)} {kind}" for name, kind in columns.items())
        await execute(f"CREATE TABLE IF NOT EXISTS {self._name} ({definitions}, PRIMARY KEY (parent, id))")
        present = {row[1] for row in await execute(f"PRAGMA table_info({self._name})")}
        for field in self._declared.fields:
            if field not in present:
                await execute(f"ALTER TABLE {self._name} ADD COLUMN {_quoted(field)} TEXT")
        for index in self._declared.indexes:
            await execute(
                f"CREATE INDEX IF NOT EXISTS {self._index_name(index.name)} ON {self._name} "
                f"({', '.join([*self._partition(index), _quoted(index.sort), 'id'])}) WHERE {_listed(index.sort)}"
            )
        await execute(
            f"CREATE INDEX IF NOT EXISTS {self._index_name('expires_at-index')} ON {self._name} (expires_at) "
            "WHERE expires_at IS NOT NULL"
        )
        if replicated:
            await execute(f"CREATE INDEX IF NOT EXISTS {self._by_version} ON {self._name} ({', '.join(_BY_VERSION)})")
        await execute(f"DELETE FROM {self._name} WHERE expires_at < ?", [expired_before])

    def find(self, keys: Sequence[Key], *, head: bool) -> tuple[str, list[str]]:
        """The statement, with its parameters, for the items under some keys; with ``head`` without their payloads."""
        columns = f"{self._head}, ''" if head else self._columns
        places = ", ".join(["(?, ?)"] * len(keys))
        # A cross join looks each key up in the primary key, where (parent, id) IN (...) would read the whole table.
        sought = f"WITH sought (its_parent, its_id) AS (VALUES {places}) SELECT {columns} FROM sought"
        statement = f"{sought} CROSS JOIN {self._name} ON parent = its_parent AND id = its_id"
        return statement, [part for key in keys for part in _place(key)]

    def change(self, mutation: Mutation) -> tuple[str, Sequence[object]]:
        """The statement, with its parameters, that applies a mutation."""
        if not isinstance(mutation, Put):
            return self._delete, _place(mutation.key)
        item = mutation.item
        fields = [item.fields.get(name) for name in self._declared.fields]
        return self._put, [*_place(item.key), item.version, item.expires_at, int(item.deleted), *fields, item.data]

    def page(self, query: Query, now: int, cursor: Cursor | None, limit: int) -> tuple[str, list[str | int]]:
        """The statement, with its parameters, for a page of at most ``limit`` items."""
        where, parameters = self._where(query, now)
        direction, follows = ("DESC", "<") if query.descending else ("ASC", ">")
        sort = _quoted(query.sort)
        if cursor is not None:
            where += f" AND ({sort}, id) {follows} (?, ?)"
            parameters += [cursor.value, cursor.id]
        order = f"ORDER BY {sort} {direction}, id {direction} LIMIT ?"
        return f"SELECT {self._columns} {self._from(query)} WHERE {where} {order}", [*parameters, limit]

    def count(self, query: Query, now: int) -> tuple[str, list[str | int]]:
        """The statement, with its parameters, for the number of items that a query lists."""
        where, parameters = self._where(query, now)
        return f"SELECT count(*) {self._from(query)} WHERE {where}", parameters

    def tally(self, query: Query, now: int, by: str) -> tuple[str, list[str | int]]:
        """The statement, with its parameters, for the values of a field, with what a query lists of each."""
        where, parameters = self._where(query, now)
        value, sort = _quoted(by), _quoted(query.sort)
        columns = f"{value}, count(*), min({sort}), max({sort})"
        counted = f"{where} AND {value} IS NOT NULL GROUP BY {value}"
        return f"SELECT {columns} {self._from(query)} WHERE {counted}", parameters

    def scan(self, since: str | None, after: Sequence[str] | None, limit: int) -> tuple[str, list[str | int]]:
        """The statement, with its parameters, for versions, parents and ids, expired ones and tombstones too.

        Args:
            since: None: in order of the primary key. A version: from it on, in order of version and primary key.
            after: go on after this place in that order.
            limit: the most rows.
        """
        order = _BY_VERSION[1:] if since is None else _BY_VERSION
        source = self._name if since is None else f"{self._name} INDEXED BY {self._by_version}"
        first: Sequence[str] = ("",) * len(order) if since is None else (since, "", "")  # less than any: no id is empty
        where = f"({', '.join(order)}) > ({', '.join('?' * len(order))})"
        statement = f"SELECT {', '.join(_BY_VERSION)} FROM {source} WHERE {where} ORDER BY {', '.join(order)} LIMIT ?"
        return statement, [*(after or first), limit]

    def entry(self, row: Sequence[str]) -> tuple[Key, str]:
        """The key and version in a row of ``scan``."""
        version, parent, name = row
        return Key(self._declared.name, name, parent or None), version

    def item(self, row: Sequence[Any]) -> Item:
        """The item in a row of ``find`` or ``page``."""
        parent, name, version, expires_at, deleted, *fields, data = row
        present = {
            field: value for field, value in zip(self._declared.fields, fields, strict=True) if value is not None
        }
        return Item(Key(self._declared.name, name, parent or None), version, present, data, expires_at, bool(deleted))

    def _from(self, query: Query) -> str:
        # Naming the index makes a missing one an error, where SQLite would else scan the table without a word.
        return f"FROM {self._name} INDEXED BY {self._index_name(query.index.name)}"

    def _where(self, query: Query, now: int) -> tuple[str, list[str | int]]:
        terms = [_listed(query.sort), "(expires_at IS NULL OR expires_at > ?)"]
        parameters: list[str | int] = [now]
        if query.parent is not None:
            terms.append("parent = ?")
            parameters.append(query.parent)
        for name, value in query.equals.items():
            terms.append(f"{_quoted(name)} = ?")
            parameters.append(value)
        for name, values in query.any_of.items():
            terms.append(f"{_quoted(name)} IN ({', '.join('?' * len(values))})")
            parameters += values
        for each in query.ranges:
            terms.append(f"{_quoted(each.field)} IS NOT NULL")
            for comparison, bound in ((">=", each.low), ("<", each.high)):
                if bound is not None:
                    terms.append(f"{_quoted(each.field)} {comparison} ?")
                    parameters.append(bound)
        for name, text in query.contains.items():
            terms.append(f"{_CONTAINS}({_quoted(name)}, ?)")
            parameters.append(text.casefold())
        return " AND ".join(terms), parameters

    def _index_name(self, name: str) -> str:
        return _quoted(f"{self._prefix}{self._declared.name}-{name}")

    def _partition(self, index: Index) -> list[str]:
        if index.partition == SHARD:
            return []
        return ["parent" if index.partition == self._declared.parent_field else _quoted(index.partition)]


def _listed(sort: str) -> str:
    """What an index's items have in common; a query that says it word for word may use the index."""
    return f"{_quoted(sort)} IS NOT NULL AND deleted = 0"
