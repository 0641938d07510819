"""docs/recipe.md says what the models say. RELBUILD_REGENERATE=1 writes it anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeline.recipes import (
    checks_reference,
    json_schema,
    limits_reference,
    load_rules,
    platforms_schema,
    recipe_reference,
    repo_file_reference,
    rules_reference,
    rules_schema,
)
from pipeline.recipes.recipe_schema import RecipeDocument
from tests.support.schemas import jsonschema

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "recipe.md"
RULES = DOCS / "rules.md"
LIMITS = DOCS / "limits.md"
CHECKS = DOCS / "checks.md"
REPOSITORIES = DOCS / "repositories.md"


def test_the_reference_is_not_stale() -> None:
    if os.environ.get("RELBUILD_REGENERATE"):
        REFERENCE.write_text(recipe_reference())
    assert REFERENCE.read_text() == recipe_reference(), "run this test with RELBUILD_REGENERATE=1"


def test_the_reference_of_the_rules_is_not_stale() -> None:
    if os.environ.get("RELBUILD_REGENERATE"):
        RULES.write_text(rules_reference())
    assert RULES.read_text() == rules_reference(), "run this test with RELBUILD_REGENERATE=1"


def test_the_reference_of_limits_is_not_stale() -> None:
    if os.environ.get("RELBUILD_REGENERATE"):
        LIMITS.write_text(limits_reference())
    assert LIMITS.read_text() == limits_reference(), "run this test with RELBUILD_REGENERATE=1"


def test_the_reference_of_checks_is_not_stale() -> None:
    if os.environ.get("RELBUILD_REGENERATE"):
        CHECKS.write_text(checks_reference())
    assert CHECKS.read_text() == checks_reference(), "run this test with RELBUILD_REGENERATE=1"


def test_the_table_of_options_of_repo_files_is_not_stale() -> None:
    before, table, after = re.split(
        r"(?<=<!-- options -->\n)(.*)(?=<!-- end -->)", REPOSITORIES.read_text(), flags=re.DOTALL
    )
    if os.environ.get("RELBUILD_REGENERATE"):
        REPOSITORIES.write_text(before + repo_file_reference() + after)
        table = repo_file_reference()
    assert table == repo_file_reference(), "run this test with RELBUILD_REGENERATE=1"


def test_the_example_in_the_reference_of_the_rules_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", rules_reference(), re.DOTALL)
    path = tmp_path / "rules.yaml"
    path.write_text(example)
    rules = load_rules(path)
    assert len(rules.gate) == 2 and rules.retention[0].younger_than == 30 * 86_400


def test_every_key_has_a_meaning_in_the_reference() -> None:
    text = recipe_reference()
    for name, field in RecipeDocument.model_fields.items():
        assert field.description
        assert f"| `{field.alias or name}` |" in text


def test_the_schemas_are_schemas() -> None:
    for schema in (json_schema(), platforms_schema(), rules_schema()):
        jsonschema.Draft202012Validator.check_schema(schema)
