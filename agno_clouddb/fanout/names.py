"""Names: what the stores of a fan-out are called, in hints and notes too."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence

from agno_clouddb.stores.base import Store
from agno_clouddb.stores.wrapper import WrapperStore

__all__ = ["distinct_names", "identity", "names_of"]

_USUAL_PREFIX = "agno_"
_FILE, _MEMORY = "sqlite:///", "memory:"


def identity(store: Store, url: str | None) -> Hashable:
    """What tells whether two stores keep their records in the same place, as far as can be known without asking them.

    Args:
        store: the store, which may be wrapped.
        url: from which it was made; None: it was made by the user.
    """
    while isinstance(store, WrapperStore):
        store = store.inner
    if store.name.startswith(_FILE):
        return os.path.realpath(store.name.removeprefix(_FILE)), store.prefix
    return id(store) if url is None or url.startswith(_MEMORY) else url  # each memory:// is a store of its own


def names_of(stores: Sequence[Store]) -> list[str]:
    """What a fan-out calls its stores: the same in every process, in whatever order they are given."""
    return distinct_names([_with_prefix(store) for store in stores])


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names that tell stores apart, also where two have the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: position + 1].count(name)})"
        for position, name in enumerate(names)
    ]


def _with_prefix(store: Store) -> str:
    if store.prefix in ("", _USUAL_PREFIX):
        return store.name
    return f"{store.name}{'&' if '?' in store.name else '?'}prefix={store.prefix}"
