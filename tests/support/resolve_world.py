"""Small repositories, and recipes that are solved against them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ResolutionError
from pipeline.model.lock import LockSection
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.recipe import LayerPlan, Recipe, Request
from pipeline.repos import OpenRepository, open_repositories
from pipeline.resolve import solve
from pipeline.store import Store
from tests.support.rpmmd import Rpm, write_repository


class World:
    """Repositories made of lists of packages, and recipes that are solved against them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder / "store")
        self._repositories: list[PackageRepository] = []

    def add(self, name: str, *rpms: Rpm, modules: str = "", comps: str = "", **more: object) -> World:
        url = write_repository(self.folder / name, rpms, modules=modules, comps=comps)
        self._repositories.append(PackageRepository(name, baseurls=(url,), **more))  # type: ignore[arg-type]
        return self

    @property
    def platform(self) -> Platform:
        return Platform("p", tuple(self._repositories))

    def opened(self, store: Store | None = None) -> tuple[OpenRepository, ...]:
        return open_repositories(self.platform, "x86_64", variables={}, store=store or self.store)

    def recipe(self, *layers: list[str], **more: object) -> Recipe:
        plans = tuple(
            LayerPlan(f"layer{number}", tuple(Request(text, f"r.yaml:{number}.{text}") for text in texts))
            for number, texts in enumerate(layers)
        )
        plain = Recipe("r", self.folder / "r.yaml", "1", "p", ("x86_64",), plans)
        return replace(plain, **more)  # type: ignore[arg-type]

    def solve(self, *layers: list[str], **more: object) -> LockSection:
        recipe = self.recipe(*layers, **more)
        return solve(recipe, self.platform, "x86_64", self.opened(), store=self.store)

    def names(self, *layers: list[str], **more: object) -> list[str]:
        return [str(one.package.nevra) for one in self.solve(*layers, **more).resolution.chosen]


def refusal(world: World, *layers: list[str], **more: object) -> ResolutionError:
    with pytest.raises(ResolutionError) as caught:
        world.solve(*layers, **more)
    return caught.value
