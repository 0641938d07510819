"""Convert libsolv's solution into a `Resolution`: packages, layers, order and reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import solv

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.recipe import Recipe, Request
from pipeline.model.resolution import Chosen, Resolution
from pipeline.resolve.layer_assignment import (
    LayerRequests,
    Need,
    assign_layers,
    tell_reasons,
)
from pipeline.resolve.order import transaction_order
from pipeline.resolve.package_spec import RequestMatch
from pipeline.resolve.pool import PackagePool

_ALL, _PLAIN, _EARLY = 0, -1, 1
"""Part of a list of dependencies: all, those before, and those after the marker of scriptlets' requirements."""


@dataclass(frozen=True, slots=True)
class MatchedRequest:
    """A request of a layer, with the packages that could satisfy it."""

    layer: str
    request: Request
    found: RequestMatch
    local: bool = False


class Solution:
    """A set of chosen solvables, from which a `Resolution` is made."""

    def __init__(self, package_pool: PackagePool, recipe: Recipe, chosen: Sequence[int]) -> None:
        self._package_pool = package_pool
        self._recipe = recipe
        self._packages = {one: package_pool.package(one) for one in chosen}
        self._names = {one: str(package.nevra) for one, package in self._packages.items()}
        self._known: dict[tuple[str, int], Need] = {}
        """Each dependency as a `Need`, by its kind and number: packages have most of theirs in common."""

    def resolution(self, platform: str, lines: Sequence[MatchedRequest], warnings: Sequence[str]) -> Resolution:
        """Make the `Resolution`."""
        needs: dict[str, list[Need]] = {}
        supplements: dict[str, list[Need]] = {}
        before: dict[str, dict[str, bool]] = {}
        assumed: set[str] = set()
        for one, name in self._names.items():
            needs[name] = self._needs(one)
            before[name] = self._before(one)
            assumed |= self._on_trust(one)
            supplements[name] = self._weak(one, solv.SOLVABLE_SUPPLEMENTS, "supplements")
        wanted = [self._wanted(layer.name, lines) for layer in self._recipe.layers]
        layers = assign_layers(wanted, needs, supplements)
        reasons = tell_reasons(wanted, needs, supplements)
        chosen = sorted(
            (Chosen(self._packages[one], layers[name], reasons[name]) for one, name in self._names.items()),
            key=lambda one: one.package,
        )
        return Resolution(
            platform,
            self._package_pool.arch,
            tuple(chosen),
            transaction_order(before),
            tuple(sorted(assumed)),
            (*warnings, *self._unused(assumed)),
        )

    def _wanted(self, layer: str, lines: Sequence[MatchedRequest]) -> LayerRequests:
        """Return the requests of a layer with the chosen packages that satisfy them."""
        requests = []
        local = []
        for line in lines:
            if line.layer != layer:
                continue
            found = [one for one in sorted(line.found.everything) if one in self._names]
            if line.local:
                local += [self._names[one] for one in found]
                continue
            called = [one for one in found if self._packages[one].nevra.name == line.request.text]
            requests.append((line.request.text, tuple(sorted(self._names[one] for one in called or found))))
        return LayerRequests(layer, tuple(requests), tuple(sorted(local)))

    def _needs(self, solvable: int) -> list[Need]:
        """Return the requirements and recommendations of a package that others satisfy, sorted."""
        needs = self._list(solvable, solv.SOLVABLE_REQUIRES, _ALL, "requires")
        needs += self._weak(solvable, solv.SOLVABLE_RECOMMENDS, "recommends")
        mine = self._names[solvable]
        needs = [need for need in needs if not need.below]
        needs = [need for need in needs if need.providers and mine not in need.providers]
        return sorted(needs, key=lambda need: (need.kind, need.text))

    def _before(self, solvable: int) -> dict[str, bool]:
        """Return the packages that a package requires, True if its scriptlets do."""
        plain = self._list(solvable, solv.SOLVABLE_REQUIRES, _PLAIN, "requires")
        early = self._list(solvable, solv.SOLVABLE_REQUIRES, _EARLY, "requires")
        before = {provider: False for need in plain for provider in need.providers}
        return before | {provider: True for need in early for provider in need.providers}

    def _on_trust(self, solvable: int) -> set[str]:
        """Return the requirements that only `assume-installed` satisfies."""
        assumed = self._package_pool.assumed
        if assumed is None:
            return set()
        pool = self._package_pool.pool
        return {
            dependency.str()
            for dependency in pool.id2solvable(solvable).lookup_deparray(solv.SOLVABLE_REQUIRES, _ALL)
            if (providers := {int(one.id) for one in pool.whatprovides(dependency)})
            and assumed in providers
            and not providers & (self._names.keys() | self._package_pool.installed)
        }

    def _weak(self, solvable: int, key: int, kind: str) -> list[Need]:
        return self._list(solvable, key, _ALL, kind) if self._recipe.weak_dependencies else []

    def _list(self, solvable: int, key: int, part: int, kind: str) -> list[Need]:
        found = []
        for number in self._package_pool.pool.id2solvable(solvable).lookup_idarray(key, part):
            need = self._known.get((kind, number))
            if need is None:
                need = self._known[kind, number] = self._need(kind, number)
            found.append(need)
        return found

    def _need(self, kind: str, dependency: int) -> Need:
        able = self._package_pool.providers(dependency)
        providers = (self._names[one] for one in able if one in self._names)
        text = self._package_pool.pool.dep2str(dependency)
        rich = text.startswith("(")
        below = not rich and not self._package_pool.installed.isdisjoint(able)
        return Need(kind, text, tuple(sorted(providers)), every=rich, below=below)

    def _unused(self, assumed: Iterable[str]) -> list[str]:
        """Return the assumptions that no package needs, which the recipe can drop."""
        used = {text.split()[0] for text in assumed}
        return [
            f"assume-installed: nothing requires '{text}'; remove the line"
            for text in self._recipe.assume_installed
            if text.split()[0] not in used
        ]
