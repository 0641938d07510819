"""Writing recipes for tests: a folder with a good recipe, and what is refused when something in it changes."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from pipeline.errors import Problem, RecipeError
from pipeline.model.recipe import Recipe
from pipeline.recipes import load_recipe

GOOD = """\
name: demo
version: "1"
platform: local
layers:
  - name: base
    packages: [bash]
image:
  entrypoint: [/usr/bin/bash]
"""


def write(folder: Path, text: str, name: str = "demo.yaml") -> Path:
    """Write a recipe; indentation that all its lines share is removed."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def good(folder: Path, more: str = "") -> Recipe:
    """The good recipe with more keys."""
    return load_recipe(write(folder, GOOD + dedent(more)))


def refused(path: Path) -> tuple[Problem, ...]:
    """The problems of the recipe at `path`."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return caught.value.problems


def only_problem(folder: Path, more: str) -> Problem:
    """The only problem of the good recipe with more keys."""
    (problem,) = refused(write(folder, GOOD + dedent(more)))
    return problem
