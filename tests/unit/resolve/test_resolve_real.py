"""Recipes over real repositories, resolved: `recipes/` of the folder that RELBUILD_REAL names."""

from __future__ import annotations

from pathlib import Path

from pipeline.recipes import load_platforms, load_recipe
from pipeline.repos import open_repositories
from pipeline.resolve import solve
from pipeline.store import Store
from tests.support.real import REAL, real_folder


def test_a_pin_to_an_older_build_of_a_module_stream_resolves_as_with_dnf(tmp_path: Path) -> None:
    recipes = real_folder("recipes")
    recipe = load_recipe(recipes / "module-pin.yaml")
    # The file names the folder by a variable that no platform may name.
    text = (recipes / "repositories.yaml").read_text().replace("${RELBUILD_REAL:-~/shared-real}", str(REAL.absolute()))
    (tmp_path / "repositories.yaml").write_text(text)
    platform = load_platforms(tmp_path / "repositories.yaml")[recipe.platform]
    store = Store.open(tmp_path / "store")
    opened = open_repositories(platform, "x86_64", variables={}, store=store)
    section = solve(recipe, platform, "x86_64", opened, store=store)
    assert "httpd-2.6.0-1.noarch" in [str(one.package.nevra) for one in section.resolution.chosen]
