"""Lag: which writes a store is known to have missed, so that it is not read alone for what it does not have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agno_clouddb.fanout.hints import Hint
from agno_clouddb.stores.base import Key

__all__ = ["Lag", "Mark"]

_MAX_KEYS = 10_000


class Mark(NamedTuple):
    """That a write was missed: its version, and the number of the note, which no other has."""

    version: str
    number: int


class Lag:
    """What this coordinator knows of hints that are not replayed yet: its own, and whether there are others.

    Args:
        names: the names of the stores.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._missed: dict[str, dict[Key, Mark]] = {name: {} for name in names}
        self._marked = 0
        self._behind: set[str] = set()
        self._compared = True

    def add(self, hints: Iterable[Hint]) -> None:
        """Note that hints are kept, or about to be."""
        for hint in hints:
            missed = self._missed[hint.target]
            if len(missed) >= _MAX_KEYS and hint.key not in missed:
                self._behind.add(hint.target)
            else:
                self._marked += 1
                known = missed[hint.key].version if hint.key in missed else ""
                missed[hint.key] = Mark(max(hint.version, known), self._marked)

    def remove(self, hints: Iterable[Hint]) -> None:
        """Note that hints are replayed."""
        for hint in hints:
            missed = self._missed[hint.target]
            if hint.key in missed and missed[hint.key].version <= hint.version:
                del missed[hint.key]

    def marks(self, name: str) -> dict[Key, Mark]:
        """What a store is known to have missed by now, for ``forget``."""
        return dict(self._missed[name])

    def forget(self, name: str, marks: Mapping[Key, Mark]) -> None:
        """Note that a store has been brought everything that it was known to have missed when the marks were taken.

        What was noted since stays, be it of the same write: its hint may have been replaced after that was looked for.
        """
        missed = self._missed[name]
        for key, mark in marks.items():
            if missed.get(key) == mark:
                del missed[key]

    def set_behind(self, name: str, *, behind: bool) -> None:
        """Note whether a store may have missed anything, as when others keep hints for it."""
        (self._behind.add if behind else self._behind.discard)(name)

    def set_compared(self, *, compared: bool) -> None:
        """Note whether the stores were ever compared; until then one of them may still be filled."""
        self._compared = compared

    def targets(self) -> list[str]:
        """The stores that are known to have missed something."""
        return [name for name in self._missed if self.has_missed(name)]

    def has_missed(self, name: str) -> bool:
        """Whether a store is known to have missed something."""
        return bool(self._missed[name]) or name in self._behind

    def knows(self, name: str, key: Key) -> bool:
        """Whether a store is known to have missed a write of this very key."""
        return key in self._missed[name]

    def lacks(self, name: str, keys: Iterable[Key] | None = None) -> bool:
        """Whether a store may lack the newest of what is stored under some keys; None: under any."""
        if not self._compared or name in self._behind:
            return True
        missed = self._missed[name]
        return bool(missed) and (keys is None or any(key in missed for key in keys))
