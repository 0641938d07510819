"""The recipes and platforms of this repository, each read once in a process: nothing changes them in a test."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pipeline.model.recipe import Recipe
from pipeline.recipes import Platforms, PlatformTarget, load_platforms, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@cache
def _target(platform: str | None) -> PlatformTarget:
    return PlatformTarget(RECIPES / "repositories.yaml", platform)


@cache
def shipped_recipe(name: str, platform: str | None = None) -> Recipe:
    """Load a product's recipe, for its own platform or another."""
    return load_recipe(RECIPES / f"{name}.yaml", _target(platform))


@cache
def shipped_platforms() -> Platforms:
    """Load the platforms."""
    return load_platforms(RECIPES / "repositories.yaml")
