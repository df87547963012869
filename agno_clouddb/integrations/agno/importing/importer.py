"""The import: page by page from a source to a Database, and the comparison of the two after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import MappingProxyType

from agno_clouddb.concurrency import gather
from agno_clouddb.database import Database
from agno_clouddb.errors import CloudDBError, ConfigurationError, InvalidRecord, NotProvisioned
from agno_clouddb.fanout.names import names_of
from agno_clouddb.fanout.reconcile import Pace
from agno_clouddb.fanout.store import FanOutStore
from agno_clouddb.integrations.agno.importing.mapping import id_of, in_place, mapped, merged_runs, newer
from agno_clouddb.integrations.agno.importing.report import Checkpoint, ImportReport, Phase
from agno_clouddb.integrations.agno.importing.sources import KINDS, Row, Source, source_from_url
from agno_clouddb.records.base import Record
from agno_clouddb.records.sessions import Run
from agno_clouddb.stores.base import Store
from agno_clouddb.stores.schema import DECLARED

__all__ = ["import_agno"]

_SESSIONS_AT_ONCE = 8
_RUNS_AT_ONCE = 100
_BYTES_HELD = 4 * 1024 * 1024
"""About how much of the runs of a session is held at once; of one that has more, first the order is read alone."""


async def import_agno(
    source: str | Source,
    target: Database,
    *,
    tables: Mapping[str, str] = MappingProxyType({}),
    kinds: Sequence[str] = KINDS,
    checkpoint: Path | None = None,
    rate: float | None = None,
    dry_run: bool = False,
    verify: bool = True,
    progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Bring what agno's DynamoDb or FirestoreDb has written to a Database, as AsyncCloudDb keeps it.

    The source is only read. A record that the Database has not is written, and one that it has is replaced when the
    source's was written last, to the second; what is newer stays, so that the import may be repeated at any time, and
    run while both are in use. Nothing is deleted: what was deleted from the Database and is still in the source comes
    back.

    With a checkpoint, an import that was stopped at any moment goes on with the page it was at, and the report is of
    all its parts; at the end the file is removed. It may be given up at any time: the import begins anew then, and
    finds most of it done.

    Args:
        source: ``dynamodb://REGION[?endpoint_url=…]``, ``firestore://PROJECT[/DATABASE][?emulator_host=…]``, or a
            Source made with a client of your own. It is opened and closed by the call.
        target: open, and provisioned; of a dry run it need not be.
        tables: names of the source's tables or collections, by kind, where they are not agno's own.
        kinds: what to import, of ``KINDS``; runs come with their sessions.
        checkpoint: a file to go on from; made when it is not there.
        rate: records a second that are read, at most; None: as fast as they go.
        dry_run: only compare; nothing is written.
        verify: read all of the source again after the import, and compare.
        progress: is told how far it has come, after each page.

    Returns:
        What was read, written, found equal, newer or invalid, by kind.

    Raises:
        ConfigurationError: an argument is wrong, the source's tables are those of the target, or the checkpoint is of
            another import.
        NotProvisioned: the source has no table of sessions, or of another kind that was asked for by name; or the
            target is not provisioned, and it is no dry run.
        Throttled, StoreUnavailable, PartialWrite: one of the two does not answer. What was written stays; call again.
    """
    if isinstance(source, Source):
        if tables:
            raise ConfigurationError("names of tables cannot be given with a Source, which has its own")
    else:
        source = source_from_url(source, tables)
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ConfigurationError(f"there is no kind {', '.join(unknown)}", remedy=f"Use {', '.join(KINDS)}")
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigurationError(f"rate is {rate!r}, not a number of records a second over 0")
    async with source:
        stores = _stores(target)
        _refuse_same_place(source, stores)
        of = {
            "source": source.name,
            "tables": dict(source.tables),
            "target": sorted(names_of(stores)),
            "kinds": list(kinds),
            "dry_run": dry_run,
        }
        kept = Checkpoint(checkpoint, of)
        kept.load()
        importer = _Importer(source, target, kept, Pace(rate), progress)
        return await importer.run([each for each in KINDS if each in kinds], named=set(tables), verify=verify)


def _stores(target: Database) -> tuple[Store, ...]:
    store = target.store
    return tuple(store.stores) if isinstance(store, FanOutStore) else (store,)


def _refuse_same_place(source: Source, stores: Sequence[Store]) -> None:
    """Raise ConfigurationError where a table of the target is one of the source, which must not be changed."""
    for store in stores:
        own = {f"{store.prefix}{name}" for name in (*DECLARED, "chunks")}
        if store.name == source.name and (both := sorted(own & set(source.tables.values()))):
            raise ConfigurationError(
                f"{both[0]} is a table of the source and of the target",
                store=store.name,
                remedy="Give the target a prefix of its own, such as prefix=cloud_",
            )


class _Importer:
    """One import."""

    def __init__(
        self,
        source: Source,
        target: Database,
        checkpoint: Checkpoint,
        pace: Pace,
        progress: Callable[[ImportReport], None] | None,
    ) -> None:
        self._source = source
        self._imports = target.imports
        self._checkpoint = checkpoint
        self._report = checkpoint.report
        self._pace = pace
        self._progress = progress
        self._of_users: set[str] = set()  # days of which the source has metrics by user

    async def run(self, kinds: Sequence[str], *, named: set[str], verify: bool) -> ImportReport:
        present = await self._present(kinds, named)
        report = self._report
        self._tell()
        if report.phase == "import":
            await self._phase(present, dry_run=report.dry_run)
            if verify and not report.dry_run:
                self._enter("verification")
        if report.phase == "verification":
            await self._phase(present, dry_run=True)
        if "sessions" in present and (verify or report.dry_run):
            report.without_session = max(0, await self._source.count("runs") - report.runs_of_table)
        self._enter("done")
        self._checkpoint.remove()
        return report

    async def _present(self, kinds: Sequence[str], named: set[str]) -> list[str]:
        """The kinds of which the source has a table."""
        asked = [*kinds, *(("runs",) if "sessions" in kinds and "runs" in named else ())]
        answers = await gather([partial(self._source.there, kind) for kind in asked])
        absent = [kind for kind, there in zip(asked, answers, strict=True) if not there]
        needed = {"sessions", *named} & set(absent) or (set(absent) if len(absent) == len(asked) else set())
        if needed:
            kind = next(each for each in absent if each in needed)
            raise NotProvisioned(
                f"the source has no table of {kind}",
                store=self._source.name,
                collection=self._source.tables[kind],
                remedy="Check region or project, name the table where it is not agno's own, or import other kinds only",
            )
        self._report.absent = absent
        return [kind for kind in kinds if kind not in absent]

    def _enter(self, phase: Phase) -> None:
        self._report.phase = phase
        self._checkpoint.kind = self._checkpoint.place = None
        self._checkpoint.save()
        self._tell()

    async def _phase(self, kinds: Sequence[str], *, dry_run: bool) -> None:
        under_way = self._checkpoint.kind
        for kind in kinds[kinds.index(under_way) if under_way in kinds else 0 :]:
            if kind != under_way:
                self._checkpoint.kind, self._checkpoint.place = kind, None
            await self._table(kind, dry_run=dry_run)

    async def _table(self, kind: str, *, dry_run: bool) -> None:
        if kind == "metrics":
            await self._find_days_of_users()
        checkpoint = self._checkpoint
        self._report.tally(kind)
        while True:
            page = await self._source.page(kind, checkpoint.place)
            await self._bring(kind, page.rows, dry_run=dry_run)
            if page.place is None:
                return
            checkpoint.place = page.place
            checkpoint.save()
            self._tell()

    async def _find_days_of_users(self) -> None:
        place: str | None = None
        while True:
            page = await self._source.page("metrics", place)
            self._of_users |= {str(row.get("date"))[:10] for row in page.rows if row.get("user_id") is not None}
            place = page.place
            if place is None:
                return

    async def _bring(self, kind: str, rows: Sequence[Row], *, dry_run: bool) -> None:
        tally = self._report.tally(kind)
        tally.read += len(rows)
        if kind == "metrics":
            # What agno 2 has summed over all users, beside what agno 3 has summed by user, agno does not show either.
            whole = [row for row in rows if row.get("user_id") is None and str(row.get("date"))[:10] in self._of_users]
            tally.skipped += len(whole)
            rows = [row for row in rows if row not in whole]
        brought = await self._bring_records(kind, rows, self._mapped(kind, rows), dry_run=dry_run)
        await self._pace.spend(len(rows))
        if kind == "sessions":
            calls = [partial(self._bring_runs, row, dry_run=dry_run) for row in brought]
            await gather(calls, limit=_SESSIONS_AT_ONCE)

    def _mapped(self, kind: str, rows: Sequence[Row]) -> list[Record | None]:
        """Records, and None for those that no record can be made of."""
        records: list[Record | None] = []
        for row in rows:
            try:
                records.append(mapped(kind, row))
            except InvalidRecord as error:
                self._fail(kind, row, error)
                records.append(None)
        return records

    async def _bring_records(
        self, kind: str, rows: Sequence[Row], records: Sequence[Record | None], *, dry_run: bool
    ) -> list[Row]:
        """Write records, count them, and give the rows of those that are stored, or would be."""
        made = [(row, record) for row, record in zip(rows, records, strict=True) if record is not None]
        arrivals, _ = await self._imports.bring([record for _, record in made], newer, dry_run=dry_run)
        tally, brought = self._report.tally(kind), []
        for (row, _), arrival in zip(made, arrivals, strict=True):
            if arrival.error is not None:
                self._fail(kind, row, arrival.error)
                continue
            setattr(tally, arrival.state, getattr(tally, arrival.state) + 1)
            brought.append(row)
        return brought

    def _fail(self, kind: str, row: Row, error: CloudDBError) -> None:
        self._report.tally(kind).invalid += 1
        self._report.fail(kind, id_of(kind, row), error)

    async def _bring_runs(self, session: Row, *, dry_run: bool) -> None:
        session_id = session["session_id"]
        held: list[Row] = []
        size = 0
        async with aclosing(self._source.runs(session_id)) as parts:
            async for rows in parts:
                held += rows
                size += sum(len(repr(row)) for row in rows)
                if size > _BYTES_HELD:
                    break
        many = size > _BYTES_HELD
        if many:
            held = []
            async with aclosing(self._source.runs(session_id, order_only=True)) as parts:
                held = [row async for rows in parts for row in rows]
        if self._report.phase == "verification" or dry_run:
            self._report.runs_of_table += len(held)
        try:
            ordered = merged_runs(session, held)
            places = in_place(ordered)
        except InvalidRecord as error:
            self._fail("runs", session, error)
            return
        if many:
            await self._bring_parts(session_id, ordered, places, dry_run=dry_run)
        else:
            await self._bring_part(session_id, ordered, places, dry_run=dry_run)

    async def _bring_parts(
        self, session_id: str, ordered: Sequence[Row], places: Mapping[str, str], *, dry_run: bool
    ) -> None:
        """The runs of a session that has many: those inside it, and those of the table as they are read."""
        positions = {row["run_id"]: row.get("run_index") for row in ordered}
        inside = [row for row in ordered if "run_data" in row]
        await self._bring_part(session_id, inside, places, dry_run=dry_run)
        async with aclosing(self._source.runs(session_id)) as parts:
            async for rows in parts:
                known = [{**row, "run_index": positions[row["run_id"]]} for row in rows if row["run_id"] in places]
                await self._bring_part(session_id, known, places, dry_run=dry_run)

    async def _bring_part(
        self, session_id: str, rows: Sequence[Row], places: Mapping[str, str], *, dry_run: bool
    ) -> None:
        tally = self._report.tally("runs")
        for start in range(0, len(rows), _RUNS_AT_ONCE):
            part = [{**row, "session_id": session_id} for row in rows[start : start + _RUNS_AT_ONCE]]
            tally.read += len(part)
            records = [
                record.model_copy(update={"run_index": places[record.run_id]}) if isinstance(record, Run) else None
                for record in self._mapped("runs", part)
            ]
            await self._bring_records("runs", part, records, dry_run=dry_run)
            await self._pace.spend(len(part))

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._report)
