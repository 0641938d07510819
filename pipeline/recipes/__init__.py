"""Recipes and platforms: YAML in, validated nouns out. The only door to `pydantic`.

A document is checked twice. Each value by itself against the models in `schema`, which are also where the
JSON Schema and the reference come from; then the values against each other while the recipe is put together
from the files that it includes (`assembly`). Nothing stops at the first problem: every one is reported, with
the line that it stands in, its path in the document, and what to write instead.
"""

from pipeline.recipes.checks_reference import checks_reference
from pipeline.recipes.limits_reference import limits_reference
from pipeline.recipes.merge import load_recipe, template_scope
from pipeline.recipes.mirror_rules import load_rules
from pipeline.recipes.platforms import Platforms, load_platforms
from pipeline.recipes.reference import (
    json_schema,
    platforms_schema,
    recipe_reference,
    rules_reference,
    rules_schema,
)
from pipeline.recipes.repo_file_options import repo_file_reference
from pipeline.recipes.scaffold import Scaffold, scaffold_text, write_scaffold
from pipeline.recipes.sources import find_recipe

__all__ = [
    "Platforms",
    "Scaffold",
    "checks_reference",
    "find_recipe",
    "json_schema",
    "limits_reference",
    "load_platforms",
    "load_recipe",
    "load_rules",
    "platforms_schema",
    "recipe_reference",
    "repo_file_reference",
    "rules_reference",
    "rules_schema",
    "scaffold_text",
    "template_scope",
    "write_scaffold",
]
