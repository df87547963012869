"""Every collection of the library, declared once as data: key, fields and indexes.

Adapters derive tables, composite indexes and query plans from here; a new collection or index is a line in this
module and nothing in an adapter.
"""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Mapping
from dataclasses import dataclass

from agno_clouddb.errors import QueryNotIndexed

__all__ = [
    "COLLECTIONS",
    "DECLARED",
    "ENTRIES",
    "EVALS",
    "KNOWLEDGE",
    "LEARNINGS",
    "MEMORIES",
    "METRICS",
    "OWNER",
    "REPLICATION",
    "RUNS",
    "SESSIONS",
    "SHARD",
    "SPANS",
    "TRACES",
    "Collection",
    "Index",
    "collection",
]

OWNER = "user_id"
"""The field that names the owner of an item, in every collection that has owners."""

SHARD = "shard"
"""The partition of an index that lists all items of a collection: not a field, but computed from the key."""


@dataclass(frozen=True, slots=True)
class Index:
    """A way to list a collection: all items with one value of ``partition``, in order of (``sort``, id).

    Args:
        partition: the field whose value selects the items; the collection's ``parent_field``; or SHARD for all items.
        sort: the field that orders them; an item without it is not in the index.
        include: further fields kept in the index, so that a store can filter on them without reading the item. Only
            fields that never change once the item is written belong here: a change would cost a write in the index.
    """

    partition: str
    sort: str
    include: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The index's name on DynamoDB, ``<partition>-<sort>-index``."""
        return f"{self.partition}-{self.sort}-index"


@dataclass(frozen=True, slots=True)
class Collection:
    """A kind of item.

    Args:
        name: the collection's name, to which a store adds its prefix.
        id_field: what the id is called, such as ``session_id``.
        fields: names of the fields that an item may have beside its payload; all are text, limited as an id is.
        indexes: in the order in which they are tried for a query, the most selective partition first.
        parent_field: what the parent's id is called, for children; None for others.
        parent: the collection that the parent is in, for children.
        texts: the fields that may be any text; they are in no index.
    """

    name: str
    id_field: str
    fields: tuple[str, ...]
    indexes: tuple[Index, ...]
    parent_field: str | None = None
    parent: str | None = None
    texts: tuple[str, ...] = ()

    def index_for(self, equals: Names[str], sort: str) -> Index:
        """The index that lists the items with these fields given, in order of ``sort``.

        Raises:
            QueryNotIndexed: no index has this sort field and a partition among the given ones.
        """
        for index in self.indexes:
            if index.sort == sort and (index.partition in equals or index.partition in (SHARD, self.parent_field)):
                return index
        given = ", ".join(sorted(equals)) or "nothing"
        raise QueryNotIndexed(
            f"no index lists {self.name} by {given} in order of {sort}",
            collection=self.name,
            remedy=f"Sort by one of {sorted({index.sort for index in self.indexes})}, or declare an index "
            f"`{next(iter(sorted(equals)), SHARD)}-{sort}-index`",
        )


SESSIONS = Collection(
    name="sessions",
    id_field="session_id",
    fields=("session_type", "component_id", OWNER, "session_name", "created_at", "updated_at", "generation"),
    texts=("session_name",),
    indexes=(
        Index(OWNER, "created_at"),
        Index("component_id", "created_at"),
        Index("session_type", "created_at"),
        Index(SHARD, "created_at"),
        # One index serves every list by updated_at: each further one would cost two write units a turn.
        Index(SHARD, "updated_at", include=(OWNER, "component_id", "session_type")),
    ),
)

RUNS = Collection(
    name="runs",
    id_field="run_id",
    parent="sessions",
    parent_field="session_id",
    fields=("run_index", "generation"),
    indexes=(Index("session_id", "run_index"),),
)

MEMORIES = Collection(
    name="memories",
    id_field="memory_id",
    fields=(OWNER, "agent_id", "team_id", "created_at", "updated_at"),
    indexes=(
        Index(OWNER, "updated_at"),
        Index(SHARD, "updated_at", include=(OWNER, "agent_id", "team_id")),
    ),
)

METRICS = Collection(
    name="metrics",
    id_field="id",
    # `bucket` is whom a record is about: a user, or all of them, for which user_id is empty and no field can be.
    fields=("bucket", OWNER, "date", "aggregation_period", "created_at"),
    indexes=(
        Index("date", "aggregation_period"),
        Index("bucket", "date"),
        Index(SHARD, "date"),
    ),
)

EVALS = Collection(
    name="evals",
    id_field="run_id",
    fields=(OWNER, "eval_type", "agent_id", "team_id", "workflow_id", "model_id", "created_at", "updated_at"),
    indexes=(
        Index(OWNER, "created_at"),
        Index("agent_id", "created_at"),
        Index("team_id", "created_at"),
        Index("workflow_id", "created_at"),
        Index("eval_type", "created_at"),
        Index(SHARD, "created_at", include=("model_id",)),
    ),
)

KNOWLEDGE = Collection(
    name="knowledge",
    id_field="id",
    # `audience` is whom a content is for beside its owner: everyone, where it has none. Absent otherwise, so that its
    # index has only what no owner's index has.
    fields=(OWNER, "type", "status", "linked_to", "audience", "created_at", "updated_at"),
    indexes=(
        Index(OWNER, "created_at"),
        Index("audience", "created_at"),
        Index("linked_to", "created_at"),
        Index("type", "created_at"),
        Index("status", "created_at"),
        Index(SHARD, "created_at"),
    ),
)

TRACES = Collection(
    name="traces",
    id_field="trace_id",
    fields=(
        OWNER,
        "session_id",
        "run_id",
        "agent_id",
        "team_id",
        "workflow_id",
        "status",
        "start_time",
        "end_time",
        "created_at",
    ),
    indexes=(
        Index("run_id", "start_time"),
        Index("session_id", "start_time"),
        Index(OWNER, "start_time"),
        Index("agent_id", "start_time"),
        Index("team_id", "start_time"),
        Index("workflow_id", "start_time"),
        Index("status", "start_time"),
        Index(SHARD, "start_time", include=("session_id",)),
    ),
)

SPANS = Collection(
    name="spans",
    id_field="span_id",
    parent="traces",
    parent_field="trace_id",
    # `outcome` tells the spans that failed, which are counted from the index.
    fields=("parent_span_id", "outcome", "start_time"),
    indexes=(Index("trace_id", "start_time", include=("outcome",)),),
)

LEARNINGS = Collection(
    name="learnings",
    id_field="learning_id",
    fields=(
        OWNER,
        "learning_type",
        "namespace",
        "agent_id",
        "team_id",
        "workflow_id",
        "session_id",
        "entity_id",
        "entity_type",
        "created_at",
        "updated_at",
    ),
    indexes=(
        Index("entity_id", "updated_at"),
        Index(OWNER, "updated_at"),
        Index("learning_type", "updated_at"),
        Index(
            SHARD,
            "updated_at",
            include=("namespace", "agent_id", "team_id", "workflow_id", "session_id", "entity_type"),
        ),
    ),
)

ENTRIES = Collection(
    name="entries",
    id_field="id",
    # What an agent runtime keeps beside its records, such as schedules and approvals: few, and of many kinds. Group and
    # state begin with the kind; due is what a kind is ordered by when it is asked what is to be done.
    fields=("kind", "group", "state", "due", "created_at", "updated_at"),
    indexes=(
        Index("group", "created_at"),
        Index("state", "created_at"),
        Index("kind", "created_at"),
        Index("kind", "due"),
    ),
)

COLLECTIONS: Mapping[str, Collection] = {
    each.name: each for each in (SESSIONS, RUNS, MEMORIES, METRICS, EVALS, KNOWLEDGE, TRACES, SPANS, LEARNINGS, ENTRIES)
}
"""Every collection of records, a parent before its children."""

REPLICATION = Collection(
    name="replication",
    id_field="id",
    fields=("target", "missed"),
    indexes=(Index("target", "missed"),),
)
"""What a fan-out keeps for itself in each of its stores: hints, checkpoints and leases. It is not replicated."""

DECLARED: Mapping[str, Collection] = {**COLLECTIONS, REPLICATION.name: REPLICATION}
"""Every collection that a store can hold."""


def collection(name: str) -> Collection:
    """The declaration of a collection.

    Raises:
        KeyError: there is no collection of that name.
    """
    return DECLARED[name]
