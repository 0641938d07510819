"""The variables that a recipe's templates see."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.model.recipe import Recipe


def template_scope(recipe: Recipe, packages: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the variables of the recipe's templates.

    Each value by its name, all as `values`, the recipe's `name`, and the image's `packages`: one that the platform
    calls otherwise is known by the recipe's name too.
    """
    scope = scope_of(dict(recipe.values), recipe.name)
    if packages is None:
        return scope
    names = [(name, there[0]) for name, there in recipe.package_names if there]
    renamed = {name: packages[there] for name, there in names if there in packages}
    return {**scope, "packages": {**packages, **renamed}}


def scope_of(values: Mapping[str, object], name: str) -> dict[str, object]:
    return {**values, "values": dict(values), "name": name}
