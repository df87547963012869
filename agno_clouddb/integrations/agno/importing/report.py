"""What an import has done so far, and where it goes on: the report, and its checkpoint in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from agno_clouddb.errors import CloudDBError, ConfigurationError

__all__ = ["Checkpoint", "Failure", "ImportReport", "Phase", "Tally"]

Phase = Literal["import", "verification", "done"]

_FORMAT = 1
_SHOWN = 100


@dataclass(slots=True)
class Tally:
    """What was found of one kind.

    Args:
        read: how many rows the source has given.
        missing: how many of them were not stored. The import has written them, unless it was a dry run.
        older: how many replaced what was stored, or would.
        newer: of how many something that differs and was written later is stored, which stays.
        equal: how many were stored as they are.
        skipped: how many agno itself does not count: metrics of a whole day beside those of its users.
        invalid: how many no store can hold.
    """

    read: int = 0
    missing: int = 0
    older: int = 0
    newer: int = 0
    equal: int = 0
    skipped: int = 0
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that could not be imported.

    Args:
        kind: of which table.
        id: which row.
        error: why not.
    """

    kind: str
    id: str
    error: str


@dataclass(slots=True)
class ImportReport:
    """How far an import has come, over all its parts when it was stopped and went on.

    Args:
        dry_run: whether nothing was written.
        phase: what is under way, or ``done``.
        imported: what was done, by kind.
        verified: what the verification after it has found, by kind: all should be equal, or newer.
        absent: kinds of which the source has no table.
        runs_of_table: rows in the table of runs that were reached by their sessions, when they were compared.
        without_session: rows in the table of runs whose session is not there, which are not imported: judged by the
            numbers of rows, and so about right while the source is in use. None: not counted.
        failures: the first hundred rows that could not be imported.
        resumed: how often it went on where it was stopped.
    """

    dry_run: bool = False
    phase: Phase = "import"
    imported: dict[str, Tally] = field(default_factory=dict)
    verified: dict[str, Tally] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    runs_of_table: int = 0
    without_session: int | None = None
    failures: list[Failure] = field(default_factory=list)
    resumed: int = 0

    @property
    def complete(self) -> bool:
        """Whether all that the source has is stored, or something newer; after a dry run: whether it was before."""
        if self.phase != "done":
            return False
        if self.dry_run or self.verified:
            tallies = self.imported if self.dry_run else self.verified
            return not any(each.missing or each.older or each.invalid for each in tallies.values())
        return not any(each.invalid for each in self.imported.values())

    @property
    def under_way(self) -> dict[str, Tally]:
        """The tallies of the phase that is under way."""
        return self.verified if self.phase == "verification" else self.imported

    def tally(self, kind: str) -> Tally:
        """The tally of a kind, in the phase that is under way."""
        return self.under_way.setdefault(kind, Tally())

    def fail(self, kind: str, id: str, error: CloudDBError) -> None:
        """Note a row that cannot be imported."""
        failure = Failure(kind, id, str(error))
        if len(self.failures) < _SHOWN and failure not in self.failures:
            self.failures.append(failure)


class Checkpoint:
    """Where an import goes on, kept in a file when it is given.

    Args:
        path: the file; None: nothing is kept.
        of: what is imported from where to where: a checkpoint of anything else is refused.
    """

    def __init__(self, path: Path | None, of: Mapping[str, Any]) -> None:
        self._path = path
        self._of = {"format": _FORMAT, **of}
        self.report = ImportReport(dry_run=bool(of.get("dry_run")))
        self.kind: str | None = None
        """The kind that is under way; None: none yet of this phase."""
        self.place: str | None = None
        """Where the next page of it begins; None: at its beginning."""

    def load(self) -> bool:
        """Take over what the file holds.

        Returns:
            Whether there was one.

        Raises:
            ConfigurationError: it cannot be read, is damaged, or is of another import.
        """
        if self._path is None or not self._path.exists():
            return False
        try:
            kept = json.loads(self._path.read_text("utf-8"))
            of, report = kept["of"], kept["report"]
            for name in ("imported", "verified"):
                report[name] = {kind: Tally(**each) for kind, each in report[name].items()}
            report["failures"] = [Failure(**each) for each in report["failures"]]
            loaded = ImportReport(**report)
            kind, place = kept["kind"], kept["place"]
        except OSError as error:
            raise ConfigurationError(f"the checkpoint {self._path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"{self._path} is no checkpoint of an import", remedy="Name another file, or remove this one"
            ) from error
        if of != self._of:
            differing = sorted(name for name in {*of, *self._of} if of.get(name) != self._of.get(name))
            raise ConfigurationError(
                f"the checkpoint {self._path} is of an import with another {', '.join(differing)}",
                remedy="Name another file, or remove this one to begin anew",
            )
        self.report, self.kind, self.place = loaded, kind, place
        self.report.resumed += 1
        return True

    def save(self) -> None:
        """Keep where the import is, so that it survives the end of the process at any moment.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        if self._path is None:
            return
        kept = {"of": self._of, "kind": self.kind, "place": self.place, "report": asdict(self.report)}
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(kept, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise ConfigurationError(f"the checkpoint {self._path} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Forget it: the import has come to its end."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
