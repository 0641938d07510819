"""docs/recipe.md says what the models say. RELBUILD_REGENERATE=1 writes it anew."""

from __future__ import annotations

import os
from pathlib import Path

import jsonschema

from pipeline.recipes import json_schema, platforms_schema, reference
from pipeline.recipes.schema import RecipeDocument

REFERENCE = Path(__file__).parents[2] / "docs" / "recipe.md"


def test_the_reference_is_not_stale() -> None:
    if os.environ.get("RELBUILD_REGENERATE"):
        REFERENCE.write_text(reference())
    assert REFERENCE.read_text() == reference(), "run this test with RELBUILD_REGENERATE=1"


def test_every_key_has_a_meaning_in_the_reference() -> None:
    text = reference()
    for name, field in RecipeDocument.model_fields.items():
        assert field.description
        assert f"| `{field.alias or name}` |" in text


def test_the_schemas_are_schemas() -> None:
    for schema in (json_schema(), platforms_schema()):
        jsonschema.Draft202012Validator.check_schema(schema)
