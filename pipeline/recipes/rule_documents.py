"""Models of the rules for values in checks: patterns, equality, bounds.

A value that an answer is held against is a rule (`RuleDocument`), or short for one: a text, a number, or a list of
rules that must all hold.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from pipeline.model.jsonpath import parse_path
from pipeline.model.quantities import Malformed
from pipeline.recipes.fields import (
    Named,
    Pattern,
    Strict,
    checked,
    kind_of_value,
)


def _plain(value: object) -> object:
    """Return text; a number or boolean as the text that an answer would have."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise Malformed(
            "type-wrong", f"text or a number is expected here, not {kind_of_value(value)}", "write one value"
        )
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Malformed(
            "type-wrong", f"a number is expected here, not {kind_of_value(value)}", "write a number, or 16MiB"
        )
    return str(value)


def _path(value: object) -> object:
    if not isinstance(value, str):
        raise Malformed("type-wrong", f"a JSON path is expected here, not {kind_of_value(value)}", "write $.status")
    try:
        parse_path(value)
    except ValueError as error:
        hint = "write $.name, $['any name'], $[0], $[-1] or $.length(), one after the other"
        raise Malformed("path-malformed", str(error), hint) from None
    return value


def _rules(short: str) -> BeforeValidator:
    """Return a validator that converts short forms to a list of rules.

    A bare text stands for the rule called `short`.
    """

    def rule(value: object) -> object:
        if isinstance(value, str):
            return {short: value}
        return {"is": value} if isinstance(value, bool | int | float) else value

    def write_out(value: object) -> object:
        return [rule(item) for item in value] if isinstance(value, list) else [rule(value)]

    return BeforeValidator(
        write_out,
        json_schema_input_type=str | int | float | bool | RuleDocument | list[str | int | float | bool | RuleDocument],
    )


_Plain = Annotated[
    str, Named("text, number or boolean"), checked(_plain), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
_Number = Annotated[str, Named("number or size"), checked(_number), WithJsonSchema({"type": ["string", "number"]})]
_JsonPath = Annotated[str, Named("JSON path"), checked(_path), WithJsonSchema({"type": "string"})]


class RuleDocument(Strict):
    """A rule for a value.

    All that is given must hold, and patterns are not empty. A text in place of a rule is short for `matches` (in
    `target`, `environment` and `labels`: for `is`), a number for `is`, and a list is several rules that must all hold.
    A JSON path is `$`, then `.name`, `['any name']`, `[0]`, `[-1]` or `.length()`; it names one value.
    """

    equals: _Plain | None = Field(
        default=None, alias="is", description="the whole value, without white space at its ends", examples=["green"]
    )
    matches: Pattern | None = Field(default=None, description="a pattern that is found in it", examples=["^OK$"])
    lacks: Pattern | None = Field(default=None, description="a pattern that is not found in it", examples=["ERROR"])
    least: _Number | None = Field(default=None, alias="min", description="the least number", examples=[1])
    most: _Number | None = Field(default=None, alias="max", description="the greatest number", examples=["16MiB"])
    json_path: _JsonPath | None = Field(
        default=None,
        alias="json",
        description="parse the text as JSON, and apply the rule to the value at this path",
        examples=["$.nodes[0].status"],
    )


MatchRules = Annotated[list[RuleDocument], Named("pattern, number, [rule](#rule) or list of rules"), _rules("matches")]
ExactRules = Annotated[list[RuleDocument], Named("text, [rule](#rule) or list of rules"), _rules("is")]
