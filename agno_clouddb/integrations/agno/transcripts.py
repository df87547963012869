"""agno's calls about transcripts: what agents of other frameworks keep of a conversation, entry by entry.

What one call appends is one entry of this library, a part. A transcript has a head, which knows the number of the next
part: a call takes its number by changing the head, of which one of several at once succeeds, and then writes its part.
A reader knows all ids of parts from the head, so it sees every part that was acknowledged, on every store. What has the
uuid of something earlier in the transcript is left out when it is read.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from agno_clouddb.concurrency import gather
from agno_clouddb.database import Database
from agno_clouddb.errors import ConflictError, RecordNotFound
from agno_clouddb.integrations.agno.base import Family
from agno_clouddb.integrations.agno.entry_writes import digest, written
from agno_clouddb.integrations.agno.ids import absent
from agno_clouddb.records.entries import Entry
from agno_clouddb.repositories.entries import Entries

__all__ = ["TranscriptCalls"]

_HEAD = "transcript"
_PART = "transcript_part"
_AT_ONCE = 8


class TranscriptCalls(Family):
    """Transcripts. What was appended is read strongly consistently; lists of transcripts see what an index has, which
    on DynamoDB may lag.
    """

    async def append_transcript_entries(
        self,
        framework: str,
        project_key: str,
        session_id: str,
        entries: list[dict[str, Any]],
        agno_session_id: str,
        subpath: str | None = None,
    ) -> None:
        """Add entries to the end of a transcript, all or none, in three round trips.

        An entry whose ``uuid`` the transcript has already changes nothing.

        Args:
            framework: such as ``claude-agent-sdk``.
            project_key: whose sessions are listed together.
            session_id: the session of that framework.
            entries: any JSON objects, with all that JSON text can have.
            agno_session_id: the session of agno's with which they are deleted.
            subpath: the transcript of a further agent in the session; None: the main one.

        Raises:
            RecordTooLarge: more than the store holds in one record, compressed; append it in several calls.
        """
        if not entries:
            return
        text = json.dumps(entries)
        place = (framework, project_key, session_id, subpath or "")
        db = await self.database()
        at = time.time_ns() // 1_000_000
        head = await written(
            db.entries,
            _extended(_new_head(place), agno_session_id, at),
            lambda stored: _extended(stored, agno_session_id, at),
        )
        number = head.data["next"] - 1
        await db.entries.create(
            Entry(
                id=_part_id(head, number),
                kind=_PART,
                group=_of_agno(agno_session_id),
                data={"transcript": head.id, "number": number, "entries": text},
            )
        )

    async def get_transcript_entries(
        self, framework: str, project_key: str, session_id: str, subpath: str | None = None
    ) -> list[dict[str, Any]]:
        """All entries of a transcript, in the order in which they were appended; in two round trips, and one request
        more for each hundred calls that have appended.
        """
        db = await self.database()
        head = await db.entries.get(_head_id((framework, project_key, session_id, subpath or "")), consistency="strong")
        if head is None:
            return []
        parts = await db.entries.get_many(_part_ids(head), consistency="strong")
        return _distinct(entry for part in parts if part is not None for entry in json.loads(part.data["entries"]))

    async def list_transcript_sessions(self, framework: str, project_key: str) -> list[dict[str, Any]]:
        """The sessions that have a main transcript, by id, with ``mtime``, when it was last added to, in milliseconds
        since the epoch. Reads the heads of these alone.
        """
        heads = await self._transcript_heads(framework, project_key)
        rows = [{"session_id": each.data["session_id"], "mtime": _last_at(each)} for each in heads]
        return sorted(rows, key=lambda row: row["session_id"])

    async def list_transcript_subpaths(self, framework: str, project_key: str, session_id: str) -> list[str]:
        """The paths of further transcripts in a session, in the order of their text."""
        heads = await self._transcript_heads(framework, project_key, session_id)
        return sorted(each.data["subpath"] for each in heads)

    async def delete_transcript(
        self, framework: str, project_key: str, session_id: str, subpath: str | None = None
    ) -> None:
        """Delete a transcript; without ``subpath`` the main one of the session and all others.

        No reader sees half of one that is being deleted. What is appended at the same time is deleted with it, or
        stays, whole.
        """
        ids = [_head_id((framework, project_key, session_id, subpath or ""))]
        if subpath is None:
            ids += [each.id for each in await self._transcript_heads(framework, project_key, session_id)]
        db = await self.database()
        await gather([partial(_delete, db, each) for each in ids], limit=_AT_ONCE)

    async def _delete_transcripts_of(self, session_ids: Sequence[str]) -> None:
        """Delete what sessions of agno's have appended to transcripts."""
        db = await self.database()
        for session_id in session_ids:
            if absent(_of_agno(session_id)):
                continue
            # Until none is left, so that what is appended meanwhile is not left behind without a head.
            while parts := [each async for each in _strongly(db.entries, _of_agno(session_id))]:
                for head_id in {each.data["transcript"] for each in parts}:
                    await _disown(db, head_id, session_id)
                await db.entries.delete_many([each.id for each in parts])

    async def _transcript_heads(self, *place: str) -> list[Entry]:
        """The heads of the main transcripts of a project, or of the further ones of a session."""
        entries = await self._entries()
        return [each async for each in _strongly(entries, _group(*place))]


def _strongly(entries: Entries, group: str) -> AsyncIterator[Entry]:
    return entries.iterate(group=group, page_size=500, consistency="strong")


async def _delete(db: Database, head_id: str) -> None:
    """Delete a transcript: first its head lets go of all parts, at once; then they are deleted, and the head."""
    gone: list[str] = []

    def empty(head: Entry) -> Entry:
        gone[:] = _part_ids(head)
        return _emptied(head)

    try:
        head = await db.entries.update(head_id, empty)
    except RecordNotFound:
        return
    await db.entries.delete_many(gone)
    await _forget(db, head)


async def _disown(db: Database, head_id: str, agno_session_id: str) -> None:
    """Take what one session has appended out of a head; forget the head when nothing is left."""

    def disown(head: Entry) -> Entry:
        appended = {each: at for each, at in head.data["appended"].items() if each != agno_session_id}
        return head.model_copy(update={"data": {**head.data, "appended": appended}}) if appended else _emptied(head)

    try:
        head = await db.entries.update(head_id, disown)
    except RecordNotFound:
        return
    if not head.data["appended"]:
        await _forget(db, head)


async def _forget(db: Database, head: Entry) -> None:
    """Delete a head that has no parts, unless somebody has appended since."""
    try:
        async with db.transaction() as tx:
            tx.delete(Entry, head.id, expected_version=head.version)
    except (ConflictError, RecordNotFound):
        return


def _new_head(place: tuple[str, str, str, str]) -> Entry:
    framework, project_key, session_id, subpath = place
    group = _group(framework, project_key, session_id) if subpath else _group(framework, project_key)
    data = {
        "framework": framework,
        "project_key": project_key,
        "session_id": session_id,
        "subpath": subpath,
        # Parts of a transcript that was deleted are none of a later one in its place.
        "series": uuid4().hex,
        "first": 1,
        "next": 1,
        "appended": {},
        "group": group,
    }
    return Entry(id=_head_id(place), kind=_HEAD, group=group, data=data)


def _extended(head: Entry, agno_session_id: str, at: int) -> Entry:
    """A head with the number of one more part taken; ``at`` in milliseconds since the epoch."""
    appended = {**head.data["appended"], agno_session_id: at}
    data = {**head.data, "next": head.data["next"] + 1, "appended": appended}
    return head.model_copy(update={"data": data, "group": head.data["group"]})


def _emptied(head: Entry) -> Entry:
    """A head without parts, which no list has."""
    data = {**head.data, "first": head.data["next"], "appended": {}}
    return head.model_copy(update={"data": data, "group": None})


def _head_id(place: tuple[str, str, str, str]) -> str:
    return f"{_HEAD}:{digest(*place)}"


def _part_id(head: Entry, number: int) -> str:
    return f"{_PART}:{head.data['series']}:{number:012d}"


def _part_ids(head: Entry) -> list[str]:
    return [_part_id(head, number) for number in range(head.data["first"], head.data["next"])]


def _group(*place: str) -> str:
    return f"{_HEAD}:{digest(*place)}"


def _of_agno(session_id: str) -> str:
    return f"{_PART}:{session_id}"


def _last_at(head: Entry) -> int:
    return int(max(head.data["appended"].values()))


def _distinct(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries without those whose uuid an earlier one has."""
    seen: set[str] = set()
    kept: list[dict[str, Any]] = []
    for entry in entries:
        uuid = entry.get("uuid") or None
        if uuid is None or str(uuid) not in seen:
            kept.append(dict(entry))
            seen.add(str(uuid))
    return kept
