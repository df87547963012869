"""DynamoDB expressions: what they say, and that the conditions of writes say what `decide` does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import pytest

from agno_clouddb.stores.base import Condition, Delete, Item, Key, Mutation, Put, decide
from agno_clouddb.stores.dynamodb.expressions import Attribute, Request, number, render, text
from agno_clouddb.stores.dynamodb.items import data_attribute, to_attributes
from agno_clouddb.stores.dynamodb.tables import layouts
from agno_clouddb.stores.dynamodb.writes import condition

NOW = 1000
KEY = Key("sessions", "s")
LAYOUT = layouts("")["sessions"]
VERSIONS = [f"{n:012x}-0000-000000000000" for n in range(4)]


def test_names_and_values_go_through_placeholders() -> None:
    data = Attribute("data")
    assert render(ConditionExpression=data.equals(text("x")) & data.exists()) == {
        "ConditionExpression": "#0 = :0 AND attribute_exists(#0)",
        "ExpressionAttributeNames": {"#0": "data"},
        "ExpressionAttributeValues": {":0": {"S": "x"}},
    }


def test_expressions_of_one_request_share_their_placeholders() -> None:
    request = render(
        KeyConditionExpression=Attribute("user_id").equals(text("ann")) & Attribute("n").between(number(1), number(2)),
        FilterExpression=Attribute("user_id").missing(),
    )
    assert request["KeyConditionExpression"] == "#0 = :0 AND #1 BETWEEN :1 AND :2"
    assert request["FilterExpression"] == "attribute_not_exists(#0)"
    assert request["ExpressionAttributeNames"] == {"#0": "user_id", "#1": "n"}
    assert request["ExpressionAttributeValues"] == {":0": {"S": "ann"}, ":1": {"N": "1"}, ":2": {"N": "2"}}


def test_one_of_several_values_is_asked_for_at_once() -> None:
    kind = Attribute("type")
    assert render(FilterExpression=kind.is_in([text("a"), text("b")]) & kind.exists()) == {
        "FilterExpression": "#0 IN (:0, :1) AND attribute_exists(#0)",
        "ExpressionAttributeNames": {"#0": "type"},
        "ExpressionAttributeValues": {":0": {"S": "a"}, ":1": {"S": "b"}},
    }
    assert render(FilterExpression=kind.is_in([text("a")])) == render(FilterExpression=kind.equals(text("a")))


def test_what_a_request_does_not_use_is_left_out() -> None:
    assert render(ConditionExpression=None) == {}
    assert "ExpressionAttributeValues" not in render(ConditionExpression=Attribute("a").exists())


def test_alternatives_within_a_conjunction_are_bracketed() -> None:
    a, b, c = (Attribute(name).exists() for name in "abc")
    assert render(ConditionExpression=a & (b | c))["ConditionExpression"] == (
        "attribute_exists(#0) AND (attribute_exists(#1) OR attribute_exists(#2))"
    )
    assert render(ConditionExpression=(a & b) | c)["ConditionExpression"] == (
        "attribute_exists(#0) AND attribute_exists(#1) OR attribute_exists(#2)"
    )
    assert render(ConditionExpression=(a | b) & (a | c))["ConditionExpression"].count("(attribute") == 2


def holds(request: Request, stored: Mapping[str, Any]) -> bool:
    """Evaluate a condition as the service does: a comparison with a missing attribute does not hold."""
    names, values = request["ExpressionAttributeNames"], request.get("ExpressionAttributeValues", {})

    def compare(match: re.Match[str]) -> str:
        name, operator, value = match.groups()
        if names[name] not in stored:
            return "False"
        ((kind, found),) = stored[names[name]].items()
        wanted = values[value][kind]
        found, wanted = (int(found), int(wanted)) if kind == "N" else (found, wanted)
        return repr({"=": found == wanted, "<": found < wanted, "<=": found <= wanted, ">": found > wanted}[operator])

    said = request["ConditionExpression"]
    said = re.sub(r"attribute_exists\((#\d+)\)", lambda m: repr(names[m[1]] in stored), said)
    said = re.sub(r"attribute_not_exists\((#\d+)\)", lambda m: repr(names[m[1]] not in stored), said)
    said = re.sub(r"(#\d+) (<=|=|<|>) (:\d+)", compare, said).replace("AND", "and").replace("OR", "or")
    assert re.fullmatch(r"(True|False|and|or|[() ])+", said)
    return bool(eval(said))


STORED = [
    None,
    *(
        Item(KEY, version, {} if owner is None else {"user_id": owner}, "{}", expires_at, deleted)
        for version, owner, (expires_at, deleted) in itertools.product(
            VERSIONS[:3],
            (None, "ann", "bob"),
            ((None, False), (NOW, False), (NOW + 1, False), (None, True), (NOW + 1, True)),
        )
    ),
]
CONDITIONS = [
    Condition(absent, expected, owner, over_dead)
    for absent, expected, owner, over_dead in itertools.product(
        (False, True), (None, *VERSIONS[:3]), (None, "ann"), (True, False)
    )
]


@pytest.mark.parametrize("asked", CONDITIONS, ids=str)
def test_a_condition_holds_exactly_when_the_rules_apply_the_mutation(asked: Condition) -> None:
    mutations: list[Mutation] = [Put(Item(KEY, VERSIONS[1]), asked), Delete(KEY, VERSIONS[1], asked)]
    for mutation, found in itertools.product(mutations, STORED):
        stored = {**to_attributes(found, LAYOUT, 1), **data_attribute(found.data)} if found is not None else {}
        request = render(ConditionExpression=condition(mutation, NOW))
        assert holds(request, stored) == (decide(mutation, found, NOW) is None), (mutation, found)


def test_what_is_in_chunks_is_never_replaced_without_them() -> None:
    stored = {**to_attributes(Item(KEY, VERSIONS[0]), LAYOUT, 1), "chunks": {"N": "2"}}
    for mutation in (Put(Item(KEY, VERSIONS[1])), Delete(KEY, VERSIONS[1])):
        assert not holds(render(ConditionExpression=condition(mutation, NOW)), stored)
