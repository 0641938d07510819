"""`jsonschema` without the grammars of formats, which no test asks for and which take a second to load."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import jsonschema  # noqa: E402

from pipeline.recipes import json_schema  # noqa: E402

__all__ = ["jsonschema", "validate_recipe"]


@cache
def _recipe_validator() -> Any:
    """The schema of recipes, made and checked once in a process."""
    schema = json_schema()
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


def validate_recipe(document: object) -> None:
    """Validate a recipe by the schema. Raises jsonschema.ValidationError."""
    _recipe_validator().validate(document)
