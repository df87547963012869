"""DynamoDB expressions as small values that compose, and are turned into text once, when a request is made.

    version = Attribute("version")
    newer = version.missing() | version.below(text(stamp))
    request |= render(ConditionExpression=newer & Attribute("chunks").missing())

Every attribute name goes through a placeholder, as many of the usual ones are reserved words of the service.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Attribute", "AttributeValue", "Expression", "Parameters", "Request", "number", "render", "text"]

AttributeValue = Mapping[str, Any]
"""A value as DynamoDB's JSON has it, such as ``{"S": "ann"}``."""

Request = dict[str, Any]
"""The parameters of one call of the driver, or a part of them."""


def text(value: str) -> AttributeValue:
    """A text as an attribute value."""
    return {"S": value}


def number(value: int) -> AttributeValue:
    """A whole number as an attribute value."""
    return {"N": str(value)}


class Parameters:
    """Collects the names and values that an expression's text refers to."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: list[AttributeValue] = []

    def name(self, attribute: str) -> str:
        """The placeholder of an attribute's name."""
        return self._names.setdefault(attribute, f"#{len(self._names)}")

    def value(self, value: AttributeValue) -> str:
        """The placeholder of a value."""
        self._values.append(value)
        return f":{len(self._values) - 1}"

    def request(self) -> Request:
        """The two parameters that explain the placeholders; empty ones are left out, as the service demands."""
        request: Request = {}
        if self._names:
            request["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in self._names.items()}
        if self._values:
            request["ExpressionAttributeValues"] = {f":{place}": value for place, value in enumerate(self._values)}
        return request


class Expression(ABC):
    """A condition, key condition or filter; combine them with ``&`` and ``|``."""

    __slots__ = ()

    @abstractmethod
    def render(self, parameters: Parameters) -> str:
        """The text, with its names and values noted in ``parameters``."""

    def __and__(self, other: Expression) -> Expression:
        return _All((*_parts(self, _All), *_parts(other, _All)))

    def __or__(self, other: Expression) -> Expression:
        return _Either((*_parts(self, _Either), *_parts(other, _Either)))


def render(**expressions: Expression | None) -> Request:
    """The parameters of a request for expressions given by parameter name, such as ``ConditionExpression=…``."""
    parameters = Parameters()
    rendered = {name: each.render(parameters) for name, each in expressions.items() if each is not None}
    return {**rendered, **parameters.request()}


def _parts(expression: Expression, kind: type[_Group]) -> tuple[Expression, ...]:
    return expression.parts if isinstance(expression, kind) else (expression,)


@dataclass(frozen=True, slots=True)
class _Group(Expression):
    parts: tuple[Expression, ...]


class _All(_Group):
    __slots__ = ()

    def render(self, parameters: Parameters) -> str:
        # AND binds more tightly than OR, and key conditions are safest without brackets around the whole.
        rendered = (
            f"({each.render(parameters)})" if isinstance(each, _Either) else each.render(parameters)
            for each in self.parts
        )
        return " AND ".join(rendered)


class _Either(_Group):
    __slots__ = ()

    def render(self, parameters: Parameters) -> str:
        return " OR ".join(each.render(parameters) for each in self.parts)


@dataclass(frozen=True, slots=True)
class _Comparison(Expression):
    attribute: str
    operator: str
    value: AttributeValue

    def render(self, parameters: Parameters) -> str:
        return f"{parameters.name(self.attribute)} {self.operator} {parameters.value(self.value)}"


@dataclass(frozen=True, slots=True)
class _Between(Expression):
    attribute: str
    low: AttributeValue
    high: AttributeValue

    def render(self, parameters: Parameters) -> str:
        name = parameters.name(self.attribute)
        return f"{name} BETWEEN {parameters.value(self.low)} AND {parameters.value(self.high)}"


@dataclass(frozen=True, slots=True)
class _In(Expression):
    attribute: str
    values: tuple[AttributeValue, ...]

    def render(self, parameters: Parameters) -> str:
        return f"{parameters.name(self.attribute)} IN ({', '.join(map(parameters.value, self.values))})"


@dataclass(frozen=True, slots=True)
class _Existence(Expression):
    attribute: str
    function: str

    def render(self, parameters: Parameters) -> str:
        return f"{self.function}({parameters.name(self.attribute)})"


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of an item, to make conditions of. A comparison with a missing attribute does not hold."""

    name: str

    def equals(self, value: AttributeValue) -> Expression:
        """Equal to ``value``."""
        return _Comparison(self.name, "=", value)

    def below(self, value: AttributeValue) -> Expression:
        """Less than ``value``."""
        return _Comparison(self.name, "<", value)

    def at_most(self, value: AttributeValue) -> Expression:
        """Less than or equal to ``value``."""
        return _Comparison(self.name, "<=", value)

    def at_least(self, value: AttributeValue) -> Expression:
        """Greater than or equal to ``value``."""
        return _Comparison(self.name, ">=", value)

    def above(self, value: AttributeValue) -> Expression:
        """Greater than ``value``."""
        return _Comparison(self.name, ">", value)

    def between(self, low: AttributeValue, high: AttributeValue) -> Expression:
        """From ``low`` to ``high``, both inclusive."""
        return _Between(self.name, low, high)

    def is_in(self, values: Sequence[AttributeValue]) -> Expression:
        """Equal to one of ``values``: at least one, and at most the 100 that the service takes."""
        return self.equals(values[0]) if len(values) == 1 else _In(self.name, tuple(values))

    def exists(self) -> Expression:
        """The item has the attribute."""
        return _Existence(self.name, "attribute_exists")

    def missing(self) -> Expression:
        """The item, or the whole of it, lacks the attribute."""
        return _Existence(self.name, "attribute_not_exists")
