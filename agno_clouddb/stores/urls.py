"""Stores from URLs. An adapter's module, and so its cloud's SDK, is imported only when a URL names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from agno_clouddb.errors import ConfigurationError
from agno_clouddb.stores.base import Store

__all__ = ["StoreOptions", "store_from_url"]

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What all stores of one ``connect`` share, unless a URL's own parameters say otherwise.

    Args:
        prefix: goes before the names of tables and collections.
        deadline: seconds within which a call of a store ends.
    """

    prefix: str = "agno_"
    deadline: float = 10.0


def _dynamodb(parts: SplitResult, parameters: Mapping[str, str], options: StoreOptions) -> Store:
    from agno_clouddb.stores.dynamodb.store import DynamoDBStore

    _refuse_path(parts)
    return DynamoDBStore(
        unquote(parts.netloc) or None,
        endpoint_url=parameters.get("endpoint_url"),
        driver=cast(Any, parameters.get("driver", "slim")),  # checked by the store
        prefix=options.prefix,
        deadline=options.deadline,
        shards=_number("shards", parameters.get("shards", "1"), int),
        report_capacity=_flag("report_capacity", parameters.get("report_capacity", "false")),
    )


def _firestore(parts: SplitResult, parameters: Mapping[str, str], options: StoreOptions) -> Store:
    from agno_clouddb.stores.firestore.store import FirestoreStore

    database = unquote(parts.path.strip("/"))
    if "/" in database:
        raise ConfigurationError(f"{parts.geturl()!r} has a path of several parts", remedy="Write PROJECT/DATABASE")
    return FirestoreStore(
        unquote(parts.netloc) or None,
        database or "(default)",
        emulator_host=parameters.get("emulator_host"),
        prefix=options.prefix,
        deadline=options.deadline,
    )


def _sqlite(parts: SplitResult, parameters: Mapping[str, str], options: StoreOptions) -> Store:
    from agno_clouddb.stores.sqlite import SQLiteStore

    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path:
        raise ConfigurationError(
            f"{parts.geturl()!r} names no file",
            remedy="Write sqlite:///relative.db or sqlite:////absolute/path.db",
        )
    return SQLiteStore(path, prefix=options.prefix, deadline=options.deadline)


def _memory(parts: SplitResult, parameters: Mapping[str, str], options: StoreOptions) -> Store:
    from agno_clouddb.stores.memory import MemoryStore

    _refuse_path(parts)
    return MemoryStore(f"memory://{unquote(parts.netloc)}")


_SCHEMES: Mapping[str, tuple[Callable[[SplitResult, Mapping[str, str], StoreOptions], Store], frozenset[str]]] = {
    "dynamodb": (_dynamodb, frozenset({"prefix", "deadline", "endpoint_url", "shards", "report_capacity", "driver"})),
    "firestore": (_firestore, frozenset({"prefix", "deadline", "emulator_host"})),
    "sqlite": (_sqlite, frozenset({"prefix", "deadline"})),
    "memory": (_memory, frozenset({"prefix", "deadline"})),
}


def store_from_url(url: str, options: StoreOptions) -> Store:
    """The store that a URL names, not open yet.

    Args:
        url: ``dynamodb://REGION[?endpoint_url=…&prefix=…&shards=…&driver=…&report_capacity=true]``,
            ``firestore://PROJECT[/DATABASE][?emulator_host=…&prefix=…]``, ``sqlite:///FILE`` or ``memory://``; each
            also with ``deadline=SECONDS``.
        options: what holds where the URL does not say otherwise.

    Raises:
        ConfigurationError: the scheme or a parameter is unknown, or a value is malformed.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"the scheme of {url!r} is unknown", remedy=f"Use one of {', '.join(f'{each}://' for each in _SCHEMES)}"
        )
    make, known = _SCHEMES[parts.scheme]
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(parameters.keys() - known):
        raise ConfigurationError(
            f"{parts.scheme} URLs have no parameter {', '.join(unknown)}", remedy=f"Use {', '.join(sorted(known))}"
        )
    deadline = _number("deadline", parameters.get("deadline", str(options.deadline)), float)
    return make(parts, parameters, StoreOptions(parameters.get("prefix", options.prefix), deadline))


def _number(name: str, text: str, kind: Callable[[str], N]) -> N:
    try:
        value = kind(text)
    except ValueError:
        value = kind("0")
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} is {text!r}, not a number over 0")
    return value


def _flag(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigurationError(f"{name} is {text!r}, neither true nor false")
    return text == "true"


def _refuse_path(parts: SplitResult) -> None:
    if parts.path.strip("/"):
        raise ConfigurationError(f"{parts.geturl()!r} has a path, which {parts.scheme} URLs have not")
