"""Parsing and validation of recipes, platforms and rules from YAML. Door to `pydantic`.

A document is checked twice: each value by the models in `schema`, from which the JSON Schema and the reference are
generated; then values together, while the recipe is merged from the files that it includes (`merge`). All problems are
reported at once, each with its line, its path in the document, and what to write instead.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.recipes.checks_reference import checks_reference
    from pipeline.recipes.document_loading import (
        DocumentLoading,
        find_platform,
        included_digest,
        load_recipe,
        loading_documents,
        recipe_name,
    )
    from pipeline.recipes.limits_reference import limits_reference
    from pipeline.recipes.mirror_rules import load_rules
    from pipeline.recipes.new_catalogue import STARTER, CiSystem, NewCatalogue, write_catalogue
    from pipeline.recipes.platform_lookup import Platforms
    from pipeline.recipes.platform_target import PLATFORMS_FILE, PlatformTarget
    from pipeline.recipes.platforms import load_platforms
    from pipeline.recipes.recipe_search import find_recipe
    from pipeline.recipes.reference import (
        json_schema,
        platforms_schema,
        recipe_reference,
        rules_reference,
        rules_schema,
    )
    from pipeline.recipes.repo_file_options import repo_file_reference
    from pipeline.recipes.scaffold import Scaffold, scaffold_text, write_scaffold
    from pipeline.recipes.template_scope import template_scope
    from pipeline.recipes.value_changes import changed_values

__all__ = [
    "PLATFORMS_FILE",
    "STARTER",
    "CiSystem",
    "DocumentLoading",
    "NewCatalogue",
    "PlatformTarget",
    "Platforms",
    "Scaffold",
    "changed_values",
    "checks_reference",
    "find_platform",
    "find_recipe",
    "included_digest",
    "json_schema",
    "limits_reference",
    "load_platforms",
    "load_recipe",
    "load_rules",
    "loading_documents",
    "platforms_schema",
    "recipe_name",
    "recipe_reference",
    "repo_file_reference",
    "rules_reference",
    "rules_schema",
    "scaffold_text",
    "template_scope",
    "write_catalogue",
    "write_scaffold",
]
