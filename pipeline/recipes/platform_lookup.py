"""Lookup of platforms by name, with add-ons on top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace

from pipeline.errors import Problem, RecipeError, RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.platform import AddOn, Platform
from pipeline.recipes.add_ons import add_repositories, fitting_repositories
from pipeline.recipes.problems import nearest


@dataclass(frozen=True, slots=True)
class Platforms(Mapping[str, Platform]):
    """The platforms by name.

    `refused` are names of platforms that nothing can be built on, with the reason. `broken` are those whose `.repo`
    files or variables cannot be used here: another machine's platforms keep nobody from using the rest. `add_ons` are
    the add-ons by name.
    """

    platforms: Mapping[str, Platform]
    refused: Mapping[str, str]
    name: str = "repositories.yaml"
    broken: Mapping[str, RelbuildError] = field(default_factory=dict)
    add_ons: Mapping[str, AddOn] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Platform:
        return self.platforms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.platforms)

    def __len__(self) -> int:
        return len(self.platforms)

    def find(self, name: str, *, add_ons: Sequence[str] = (), place: str | None = None) -> Platform:
        """Return the platform of a name such as `rocky-9` or `rocky-9+epel`, with `add_ons` on top.

        `place` is the place of the name, for errors. Raises RecipeError `platform-refused`, `platform-unknown`,
        `add-on-unknown`, `add-on-unfit`, `repository-duplicate`, and as `read_repo_file` and `read_variables`.
        """
        plain, *more = name.split("+")
        platform = self._plain(plain, place)
        for one in (*more, *add_ons):
            platform = self._with_add_on(platform, one, place)
        return platform

    @property
    def known_names(self) -> frozenset[str]:
        """The names of all platforms and families."""
        families = (family for one in self.platforms.values() for family in one.families)
        return frozenset((*self.platforms, *self.refused, *self.broken, *families))

    def _with_add_on(self, platform: Platform, name: str, place: str | None) -> Platform:
        if name in platform.add_ons:
            return platform
        found = fitting_repositories(self.add_ons, name, platform.families)
        if isinstance(found, Problem):
            raise RecipeError.of([replace(found, place=place)])
        try:
            return add_repositories(platform, name, found)
        except RecipeError as error:
            raise RecipeError.of([replace(one, place=place) for one in error.problems]) from None

    def _plain(self, name: str, place: str | None) -> Platform:
        if name in self.broken:
            raise self.broken[name]
        if name in self.refused:
            raise RecipeError(
                "platform-refused",
                f"the platform '{name}' is refused: {self.refused[name]}",
                place=place,
                hint="choose another platform",
            )
        if name not in self.platforms:
            near = nearest(name, self.platforms)
            raise RecipeError(
                "platform-unknown",
                f"no platform '{name}' in {self.name}",
                place=place,
                hint=f"did you mean '{near}'?" if near else f"platforms: {', '.join(self.platforms)}",
            )
        return self.platforms[name]
