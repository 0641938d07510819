"""Choice of the entries under `platforms` of recipes that fit the chosen platform.

An entry is named after a platform or a family of platforms. Those that fit the platform count as recipes on top of
their own, the most general lowest, so that the most specific wins. A recipe with entries of which none fits cannot be
built on that platform; one without `platforms` is the same on all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.errors import Problem, RecipeError
from pipeline.model.checks import CHECK_KINDS
from pipeline.model.document_keys import ValueForm, keys_of
from pipeline.model.platform import show_families
from pipeline.model.recipe import Recipe
from pipeline.recipes.add_ons import fitting_repositories
from pipeline.recipes.platform_lookup import Platforms
from pipeline.recipes.platform_target import PlatformTarget
from pipeline.recipes.problems import Problems, nearest
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.recipes.recipe_schema import ANY_PLATFORM, entry_as_recipe
from pipeline.recipes.requests import requested_name
from pipeline.recipes.schema import LocalPackageDocument

_DIGITS = re.compile(r"\d+")
_MISSPELLED_LETTERS = 5
"""Letters that a name has at least if it counts as misspelled: shorter ones are near to those of other families."""
_MISSPELLED_SIMILARITY = 0.8
"""Similarity to a known name from which on a name counts as misspelled: one letter of five, or two exchanged."""
_PACKAGE_KEYS = tuple(
    (kind.name, name)
    for kind in CHECK_KINDS
    if isinstance(kind.form, type)
    for name, (key, _) in keys_of(kind.form).items()
    if key.form is ValueForm.PACKAGES
)
"""The keys of checks that name packages, each with its kind."""


def with_entries(
    sources: Sequence[RecipeFile], target: PlatformTarget, platform: str, problems: Problems
) -> tuple[RecipeFile, ...]:
    """Return the sources, each followed by those of its entries that fit.

    The most general entry comes first. `platform` is the recipe's own; without one that can be used, no entry fits.
    Problems: `platform-unsupported`, `recipe-refused`, `platform-contradiction`, `platform-unknown`,
    `package-unrequested`, `add-on-unknown`, `add-on-unfit`, and of the own platform those of `Platforms.find`. Raises
    RecipeError as `load_platforms`, and as `Platforms.find` for the platform of `target`.
    """
    name = target.name or platform
    if not name or all(source.recipe.platforms is None for source in sources):
        return tuple(sources)
    platforms = target.platforms()
    families: Sequence[str] = (name.partition("+")[0],)
    if platforms and target.name:
        families = platforms.find(name, place=str(target.definitions)).families
    elif platforms:
        families = _own_families(sources, platforms, name, problems)
    requested = frozenset(one for source in sources for one in _named_packages(source))
    found: list[RecipeFile] = []
    for source in sources:
        found.append(source)
        if source.recipe.platforms is not None:
            _check_entries(source, requested, platforms, problems)
            found += _fitting(source, families, platforms, problems) if families else ()
    return tuple(found)


def names_of(sources: Sequence[RecipeFile], parent: Recipe | None) -> dict[str, tuple[str, ...]]:
    """Return the platform's names of packages, by those in the recipes; the upper entry wins."""
    names = dict(parent.package_names) if parent else {}
    for source in sources:
        if source.entry is not None:
            names |= {name: tuple(there) for name, there in source.entry.packages.items()}
    return names


def add_ons_of(sources: Sequence[RecipeFile], parent: Recipe | None) -> tuple[str, ...]:
    """Return the add-ons that the parent's and the sources' entries name.

    Of the entries of one recipe, the most specific with the key counts.
    """
    by_file: dict[Path, Sequence[str]] = {}
    for source in sources:
        if source.entry is not None and source.entry.add_ons is not None:
            by_file[source.path] = source.entry.add_ons
    own = (name for listed in by_file.values() for name in listed)
    return tuple(dict.fromkeys((*(parent.add_ons if parent else ()), *own)))


def entries_by_file(sources: Sequence[RecipeFile]) -> tuple[tuple[Path, tuple[str, ...]], ...]:
    """Return the names of the entries among `sources`, by their recipe's file."""
    found: dict[Path, tuple[str, ...]] = {}
    for source in sources:
        if source.entry is not None:
            found[source.path] = (*found.get(source.path, ()), str(source.document.within[-1]))
    return tuple(found.items())


def _own_families(sources: Sequence[RecipeFile], platforms: Platforms, name: str, problems: Problems) -> Sequence[str]:
    """Return the families of the recipe's own platform.

    None after adding the problems of finding it.
    """
    try:
        return platforms.find(name).families
    except RecipeError as error:
        source = next((one for one in reversed(sources) if one.recipe.platform is not None), sources[-1])
        path = ("platform",) if source.recipe.platform is not None else ()
        for found in error.problems:
            if found.place is None:
                problems.add(found.code, found.message, source.document, path, found.hint or "")
            else:
                problems.keep(found)
        return ()


def _fitting(
    source: RecipeFile, families: Sequence[str], platforms: Platforms | None, problems: Problems
) -> Iterator[RecipeFile]:
    """Yield a recipe's entries that fit, as recipes on top of it."""
    entries = source.recipe.platforms or {}
    fitting = [name for name in (ANY_PLATFORM, *reversed(families)) if name in entries]
    if not fitting:
        problems.add(
            "platform-unsupported",
            f"no entry fits the platform '{families[0]}' ({show_families(families)})",
            source.document,
            ("platforms",),
            f"add one of them, or 'any', with the names of its packages; there are entries for {', '.join(entries)}",
        )
        return
    refused = entries[fitting[-1]].refused
    if refused is not None:
        others = [name for name, entry in entries.items() if entry.refused is None]
        problems.add(
            "recipe-refused",
            f"this cannot be built on the platform '{families[0]}' ({show_families(families)}): {refused}",
            source.document,
            ("platforms", fitting[-1], "refused"),
            f"choose a platform of {', '.join(others)}" if others else "choose another recipe",
        )
        return
    if platforms is not None:
        _check_add_ons(source, fitting, families, platforms, problems)
    for name in fitting:
        entry = entries[name]
        document = source.document.part(_value_at(source.document.value, name), "platforms", name)
        yield RecipeFile(source.path, document, entry_as_recipe(entry), source.given, entry)


def _check_add_ons(
    source: RecipeFile, fitting: Sequence[str], families: Sequence[str], platforms: Platforms, problems: Problems
) -> None:
    """Check the add-ons of the most specific entry that has the key; no others count."""
    entries = source.recipe.platforms or {}
    name = next((name for name in reversed(fitting) if entries[name].add_ons is not None), None)
    for index, add_on in enumerate((name and entries[name].add_ons) or ()):
        found = fitting_repositories(platforms.add_ons, add_on, families)
        if isinstance(found, Problem):
            path = ("platforms", str(name), "add-ons", index)
            problems.add(found.code, found.message, source.document, path, found.hint or "")


def _value_at(document: object, name: str) -> object:
    platforms = document["platforms"] if isinstance(document, Mapping) else None
    return platforms[name] if isinstance(platforms, Mapping) else None


def _check_entries(
    source: RecipeFile, requested: frozenset[str], platforms: Platforms | None, problems: Problems
) -> None:
    """Check all entries of a recipe, also those that do not fit."""
    for name, entry in (source.recipe.platforms or {}).items():
        path = ("platforms", name)
        if entry.refused is not None and len(entry.model_fields_set) > 1:
            message = f"the entry '{name}' is refused, and says more"
            problems.add("platform-contradiction", message, source.document, path, "remove one of the two")
        if platforms is not None and (near := _misspelled(name, platforms.known_names)):
            message = f"no platform and no family is called '{name}'"
            problems.add("platform-unknown", message, source.document, path, f"did you mean '{near}'?")
        for package in entry.packages:
            if package not in requested:
                near_name = nearest(package, requested)
                hint = f"did you mean '{near_name}'?" if near_name else "write the name that the recipe has"
                message = f"no layer, pin, exclusion or check of the recipe names the package '{package}'"
                problems.add("package-unrequested", message, source.document, (*path, "packages", package), hint)


def _misspelled(name: str, known: frozenset[str]) -> str | None:
    """Return the known name that was meant by `name`, if it is likely that one was.

    A name that differs in its digits alone is another release, which these definitions do not have. Of few letters it
    may be another distribution: `ol9` is no misspelled `el9`.
    """
    letters = _DIGITS.sub("", name)
    if name in known or name == ANY_PLATFORM or sum(map(str.isalpha, letters)) < _MISSPELLED_LETTERS:
        return None
    near = nearest(name, known)
    if near is None or len(near) != len(name) or _DIGITS.sub("", near) == letters:
        return None
    return near if difflib.SequenceMatcher(None, name, near).ratio() >= _MISSPELLED_SIMILARITY else None


def _named_packages(source: RecipeFile) -> Iterator[str]:
    """Yield the names of packages in a recipe's layers, pins, exclusions and checks."""
    recipe = source.recipe
    for layer in recipe.layers:
        yield from (requested_name(one) for one in layer.packages if not isinstance(one, LocalPackageDocument))
    yield from recipe.pins
    yield from recipe.exclude
    for check in recipe.smoke.checks if recipe.smoke else ():
        for kind, key in _PACKAGE_KEYS:
            document = getattr(check, kind)
            yield from (getattr(document, key) or ()) if document is not None else ()
