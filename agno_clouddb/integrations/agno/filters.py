"""Filters: agno's filter expressions over the columns of a row, as SQLite compares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from agno.db.filter_converter import DATETIME_COLUMNS, MAX_FILTER_DEPTH, TRACE_COLUMNS
from agno.utils.dttm import parse_datetime_utc

from agno_clouddb.integrations.agno.ids import absent

__all__ = ["Test", "expression", "narrowing"]

Test = Callable[[Mapping[str, Any]], bool | None]
"""Whether a row matches; None when that cannot be told, since a column has no value."""

_NUMBERS = frozenset({"duration_ms"})
_EQUAL = ("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id", "status")
_OF_TEXT = ("CONTAINS", "STARTSWITH")
_TICK = timedelta(microseconds=1)


def expression(given: Any) -> Test:
    """The test that an expression about traces comes to.

    Args:
        given: a dict, as ``to_dict`` of agno's filters makes it.

    Raises:
        ValueError: it is none, or nested more than ten deep.
    """
    try:
        return _test(given, 0)
    except TypeError as error:
        raise ValueError(f"Invalid filter expression: {error}") from error


def _test(given: Any, depth: int) -> Test:
    if depth > MAX_FILTER_DEPTH:
        raise ValueError(f"Filter expression exceeds maximum nesting depth of {MAX_FILTER_DEPTH}")
    if not isinstance(given, dict) or "op" not in given:
        raise ValueError(f"Invalid filter: must be a dict with 'op' key. Got: {given}")
    operator = given["op"]
    if operator in ("AND", "OR"):
        conditions = _needed(given, "conditions")
        tests = [_test(each, depth + 1) for each in conditions]
        return _all(tests) if operator == "AND" else _any(tests)
    if operator == "NOT":
        return _not(_test(_needed(given, "condition"), depth + 1))
    if operator == "IN":
        key, values = _column(given), given.get("values")
        if values is None:
            raise ValueError(f"IN filter requires 'key' and 'values' fields. Got: {given}")
        return _any([_comparison("EQ", key, _value(key, each)) for each in values])
    if operator not in _COMPARISONS:
        raise ValueError(f"Unknown filter operator: {operator}")
    key, value = _column(given), given.get("value")
    if value is None:
        raise ValueError(f"{operator} filter requires 'key' and 'value' fields. Got: {given}")
    return _comparison(operator, key, _value(key, value, as_text=operator in _OF_TEXT))


def narrowing(given: Mapping[str, Any]) -> dict[str, Any]:
    """Filters of ``db.traces`` that list at least all that an expression matches, so that an index narrows the list."""
    operator = given["op"]
    if operator == "AND":
        found: dict[str, Any] = {}
        for each in given["conditions"]:
            found = {**narrowing(each), **found}
        return found
    key, value = given.get("key"), given.get("value")
    if operator == "EQ" and key in _EQUAL:
        return {key: value} if isinstance(value, str) and not absent(value) else {}
    if key == "start_time" and operator in ("GT", "GTE", "LT", "LTE", "EQ"):
        try:
            moment = parse_datetime_utc(value)
            after = moment + _TICK
        except (TypeError, ValueError, OverflowError):
            return {}
        low = {"started_from": moment} if operator in ("GT", "GTE", "EQ") else {}
        high = {"started_to": after} if operator in ("LT", "LTE", "EQ") else {}
        return {**low, **high}
    return {}


def _needed(given: Mapping[str, Any], name: str) -> Any:
    if not given.get(name):
        raise ValueError(f"{given['op']} filter requires '{name}' field. Got: {given}")
    return given[name]


def _column(given: Mapping[str, Any]) -> str:
    key = given.get("key")
    if key is None:
        raise ValueError(f"{given['op']} filter requires a 'key' field. Got: {given}")
    if key not in TRACE_COLUMNS:
        raise ValueError(f"Invalid filter field: '{key}'. Allowed: {sorted(TRACE_COLUMNS)}")
    return str(key)


def _value(key: str, value: Any, *, as_text: bool = False) -> Any:
    """A value as the column's affinity makes it: text for texts, a number for numbers where it is one."""
    if key in DATETIME_COLUMNS:
        try:
            return parse_datetime_utc(value).isoformat()
        except (TypeError, ValueError):
            pass  # no moment: compared as the text that it is, as SQLite does
    if value is None:
        return None
    if isinstance(value, bool) and not as_text:
        value = int(value)
    if as_text or key not in _NUMBERS:
        return value if isinstance(value, str) else str(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _comparison(operator: str, key: str, value: Any) -> Test:
    compare = _COMPARISONS[operator]

    def test(row: Mapping[str, Any]) -> bool | None:
        found = row[key]
        if found is None or value is None:
            return None
        if operator in _OF_TEXT:
            return compare(str(found).lower(), value.lower())
        if isinstance(found, str) is not isinstance(value, str):
            # Any number is less than any text.
            return compare(isinstance(found, str), isinstance(value, str))
        return compare(found, value)

    return test


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "EQ": lambda found, value: bool(found == value),
    "NEQ": lambda found, value: bool(found != value),
    "GT": lambda found, value: bool(found > value),
    "GTE": lambda found, value: bool(found >= value),
    "LT": lambda found, value: bool(found < value),
    "LTE": lambda found, value: bool(found <= value),
    "CONTAINS": lambda found, value: value in found,
    "STARTSWITH": lambda found, value: found.startswith(value),
}


def _all(tests: list[Test]) -> Test:
    def test(row: Mapping[str, Any]) -> bool | None:
        answers = [each(row) for each in tests]
        return False if False in answers else None if None in answers else True

    return test


def _any(tests: list[Test]) -> Test:
    def test(row: Mapping[str, Any]) -> bool | None:
        answers = [each(row) for each in tests]
        return True if True in answers else None if None in answers else False

    return test


def _not(inner: Test) -> Test:
    def test(row: Mapping[str, Any]) -> bool | None:
        answer = inner(row)
        return None if answer is None else not answer

    return test
