"""Queries of the port as StructuredQuery messages. Imported when a store is opened, as ``client`` is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.cloud.firestore_v1.types import query as types

from agno_clouddb.stores.base import Cursor, Query
from agno_clouddb.stores.firestore.indexes import filtered_natively
from agno_clouddb.stores.firestore.names import Layout, escape

__all__ = ["exact", "structured"]

_StructuredQuery: Any = types.StructuredQuery.pb()
_Operator: Any = types.StructuredQuery.FieldFilter.Operator
_Direction: Any = types.StructuredQuery.Direction


def exact(query: Query) -> bool:
    """Whether Firestore applies all filters of a query itself, so that only what is expired is to be left out."""
    native = {*filtered_natively(query), query.sort}
    return native.issuperset(query.equals) and not query.contains and all(r.field == query.sort for r in query.ranges)


def structured(
    query: Query,
    layout: Layout,
    *,
    limit: int | None = None,
    cursor: Cursor | None = None,
    mask: Sequence[str] = (),
) -> Any:
    """The StructuredQuery for ``query``, with the filters that an index serves.

    Args:
        query: what to list and in which order.
        layout: where the documents are.
        limit: the most documents; all by default.
        cursor: go on after this place.
        mask: the fields to return; all by default.
    """
    message = _StructuredQuery()
    collection_id = layout.collection_id(query.collection)
    message.from_.add(collection_id=collection_id)
    _filter(message, query)
    direction = _Direction.DESCENDING if query.descending else _Direction.ASCENDING
    for name in (query.sort, "__name__"):
        message.order_by.add(direction=direction).field.field_path = name
    if cursor is not None:
        parent = layout.parent(query.collection, query.parent)
        message.start_at.values.add(string_value=cursor.value)
        message.start_at.values.add(reference_value=f"{parent}/{collection_id}/{escape(cursor.id)}")
        message.start_at.before = False
    if limit is not None:
        message.limit.value = limit
    for name in mask:
        message.select.fields.add(field_path=name)
    return message


def _filter(message: Any, query: Query) -> None:
    conditions = [(name, _Operator.EQUAL, value) for name, value in filtered_natively(query).items()]
    bounds = query.sort_range
    if bounds.low is not None:
        conditions.append((query.sort, _Operator.GREATER_THAN_OR_EQUAL, bounds.low))
    if bounds.high is not None:
        conditions.append((query.sort, _Operator.LESS_THAN, bounds.high))
    if (value := query.equals.get(query.sort)) is not None:
        # As a range, so that no index beyond the one for the order is needed.
        conditions.append((query.sort, _Operator.GREATER_THAN_OR_EQUAL, value))
        conditions.append((query.sort, _Operator.LESS_THAN_OR_EQUAL, value))
    if conditions:
        message.where.composite_filter.op = types.StructuredQuery.CompositeFilter.Operator.AND
    for name, operator, value in conditions:
        each = message.where.composite_filter.filters.add().field_filter
        each.field.field_path = name
        each.op = operator
        each.value.string_value = value
