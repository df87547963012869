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
    native = filtered_natively(query)
    if len(places := _sort_values(query)) == 1:
        native[query.sort] = (places[0],)
    return (
        native.keys() >= query.equals.keys()
        and all(name in native and set(native[name]) <= set(values) for name, values in query.any_of.items())
        and not query.contains
        and all(each.field == query.sort for each in query.ranges)
    )


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
    bounds = query.sort_range
    conditions: list[tuple[str, Any, tuple[str, ...]]] = [
        (name, _Operator.EQUAL if len(values) == 1 else _Operator.IN, values)
        for name, values in filtered_natively(query).items()
    ]
    if bounds.low is not None:
        conditions.append((query.sort, _Operator.GREATER_THAN_OR_EQUAL, (bounds.low,)))
    if bounds.high is not None:
        conditions.append((query.sort, _Operator.LESS_THAN, (bounds.high,)))
    if places := _sort_values(query):
        # As a range, so that no index beyond the one for the order is needed.
        conditions.append((query.sort, _Operator.GREATER_THAN_OR_EQUAL, (places[0],)))
        conditions.append((query.sort, _Operator.LESS_THAN_OR_EQUAL, (places[-1],)))
    if conditions:
        message.where.composite_filter.op = types.StructuredQuery.CompositeFilter.Operator.AND
    for name, operator, values in conditions:
        each = message.where.composite_filter.filters.add().field_filter
        each.field.field_path = name
        each.op = operator
        if operator == _Operator.IN:
            for value in values:
                each.value.array_value.values.add(string_value=value)
        else:
            each.value.string_value = values[0]


def _sort_values(query: Query) -> list[str]:
    """The values that the sort field may have where the query names them, in order."""
    if (value := query.equals.get(query.sort)) is not None:
        return [value]
    return sorted(set(query.any_of.get(query.sort, ())), key=str.encode)
