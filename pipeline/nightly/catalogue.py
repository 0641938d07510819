"""Load a night's recipes in order of their parents, and select the wanted products."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.beneath import GivenFolder
from pipeline.errors import RecipeError, RelbuildError, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.recipe import FileKind, Recipe
from pipeline.recipes import PLATFORMS_FILE, PlatformTarget, load_recipe
from pipeline.render import TEMPLATE_LIMIT
from pipeline.resolve import lock_path
from pipeline.yaml_documents import load_yaml

NON_RECIPE_FILES = (PLATFORMS_FILE, "rules.yaml")
"""Files that stand beside recipes."""

NAME_LIMIT = 200
"""Characters of a product's name, which is a folder of the pages, with endings."""
_STAND_IN_LIMIT = 100
"""Characters of a name that stands for a recipe which cannot be loaded, without its number."""

_RECIPE_KEYS = frozenset({"layers", "from", "include"})
"""Keys of which each recipe of a product has one."""

_QUOTED = re.compile(r"""["']([^"'\n]{1,200})["']""")


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A recipe of the catalogue, or the error that makes it unusable.

    `name` is the product's; of one that cannot be read, or has no valid name, one that stands for it: the file's,
    without its ending and what no product's name has.
    """

    path: Path
    name: str
    recipe: Recipe | None
    error: RelbuildError | None = None

    @property
    def parent(self) -> str:
        """The product that it is built from, "" if none."""
        return self.recipe.parent.name if self.recipe and self.recipe.parent else ""


@dataclass(frozen=True, slots=True)
class ProductSelection:
    """A selection of products: those that meet all given conditions.

    `names`, `labels` (key and value, of `image.labels`), `changed` (files; None: not asked) and `containing` (packages:
    those whose image has one of them).
    """

    names: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    changed: tuple[Path, ...] | None = None
    containing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Recipes, each after the one that it is built from.

    `left_out` are files of its folders that are no part of it although they may be meant as recipes: `NAME.yml`.
    """

    entries: tuple[CatalogueEntry, ...]
    left_out: tuple[Path, ...] = ()

    def find(self, name: str) -> CatalogueEntry | None:
        """Return the entry of a product, None if there is none."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def below(self, name: str) -> Iterator[CatalogueEntry]:
        """Yield a product's ancestors, the nearest first."""
        entry = self.find(name)
        while entry is not None and entry.parent:
            entry = self.find(entry.parent)
            if entry is not None:
                yield entry

    def followed(self, entry: CatalogueEntry) -> tuple[CatalogueEntry, ...]:
        """Return the products whose `auto` layers a product shares, because it includes them."""
        plans = entry.recipe.layers if entry.recipe else ()
        paths = {_real(plan.brought_by) for plan in plans if plan.at_most is not None and plan.brought_by}
        return tuple(one for one in self.entries if _real(one.path) in paths and one.name != entry.name)

    def above(self, name: str) -> frozenset[str]:
        """Return the names of all descendants of a product."""
        return frozenset(
            entry.name for entry in self.entries if any(one.name == name for one in self.below(entry.name))
        )


def load_catalogue(places: Sequence[Path], target: PlatformTarget | None = None) -> Catalogue:
    """Load the recipes in folders or files, and their parents, each after its parent.

    They are loaded for the platform that `target` names, or each for its own.

    An invalid recipe is in it with its error. Raises UsageError `catalogue-empty`, `path-missing`.
    """
    entries: dict[Path, CatalogueEntry] = {}
    for place in places:
        if not place.exists():
            raise UsageError("path-missing", f"not found: '{place}'", hint="give a folder of recipes, or recipe files")
        for path in _files(place):
            entries[_real(path)] = _read(path, target)
    included = {_real(source) for entry in entries.values() if entry.recipe for source in entry.recipe.sources} - {
        _real(entry.path) for entry in entries.values() if entry.recipe
    }
    kept = [entry for path, entry in entries.items() if path not in included or entry.recipe]
    left_out = [path for place in places for path in _left_out(place) if _real(path) not in included | entries.keys()]
    if not kept:
        raise UsageError(
            "catalogue-empty",
            f"no recipes in {', '.join(map(str, places))}",
            hint="give a folder with recipes, which are files ending in .yaml"
            + (f"; '{left_out[0].name}' does not" if left_out else ""),
        )
    ordered = _in_order(_refuse_doubles(tuple(_with_stand_in_names(_with_parents(kept)))))
    return Catalogue(tuple(ordered), tuple(left_out))


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    return sorted(path for path in place.glob("[!.]*.yaml") if path.name not in NON_RECIPE_FILES)


def _left_out(place: Path) -> Iterator[Path]:
    """Yield the files NAME.yml of a folder that are recipes by their keys, or cannot be read."""
    for path in sorted(place.glob("[!.]*.yml")):
        try:
            value = load_yaml(path).value
        except RelbuildError:
            yield path
            continue
        if isinstance(value, Mapping) and "name" in value and not _RECIPE_KEYS.isdisjoint(value):
            yield path


def _read(path: Path, target: PlatformTarget | None) -> CatalogueEntry:
    try:
        recipe = load_recipe(path, target)
    except RelbuildError as error:
        return CatalogueEntry(path, _name_in(path), None, error)
    if len(recipe.name) > NAME_LIMIT:
        refused = RecipeError(
            "name-too-long",
            f"the name has {len(recipe.name)} characters, of which a night's pages can tell {NAME_LIMIT}",
            place=str(path),
            hint="choose a shorter name",
        )
        return CatalogueEntry(path, "", None, refused)
    return CatalogueEntry(path, recipe.name, recipe)


def _name_in(path: Path) -> str:
    """Return the product's name in a recipe that is wrong elsewhere, "" if it has no valid one.

    So the night reports it under its name.
    """
    try:
        value = load_yaml(path).value
    except RelbuildError:
        return ""
    name = value.get("name") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) and _is_name(name) else ""


def _is_name(text: str) -> bool:
    from pipeline.recipes.fields import NAME_FORM  # Not above: most nights have no need of it.

    return len(text) <= NAME_LIMIT and re.fullmatch(NAME_FORM, text) is not None


def _with_stand_in_names(entries: Sequence[CatalogueEntry]) -> Iterator[CatalogueEntry]:
    """Yield the entries, those without a name under one that no other has.

    It is a product's name in form, as pages, reports and commands need one.
    """
    taken = {entry.name for entry in entries}
    for entry in entries:
        if entry.name:
            yield entry
            continue
        stem = entry.path.stem
        plain = stem if _is_name(stem) else "-".join(re.findall("[a-z0-9]+", stem.lower()))[:_STAND_IN_LIMIT]
        plain = plain.rstrip("-") or "unnamed"
        name = next(one for number in itertools.count(1) if (one := _numbered(plain, number)) not in taken)
        taken.add(name)
        yield replace(entry, name=name)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _real(path: Path) -> Path:
    """Return the path without links; a loop of them is left to who reads the file."""
    return Path(os.path.realpath(path))


def _with_parents(entries: Sequence[CatalogueEntry]) -> list[CatalogueEntry]:
    known = {_real(entry.path) for entry in entries}
    added = list(entries)
    for entry in entries:
        below = entry.recipe.parent if entry.recipe else None
        while below is not None:
            if _real(below.path) not in known:
                known.add(_real(below.path))
                added.append(CatalogueEntry(below.path, below.name, below))
            below = below.parent
    return added


def _refuse_doubles(entries: Sequence[CatalogueEntry]) -> list[CatalogueEntry]:
    """Make recipes of the same name errors: they would overwrite each other on the mirror."""
    by_name: dict[str, list[CatalogueEntry]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, []).append(entry)
    checked = []
    for name, same in by_name.items():
        if len(same) == 1:
            checked += same
            continue
        files = ", ".join(sorted(str(entry.path) for entry in same))
        error = RecipeError(
            "name-twice",
            f"several recipes have the name '{name}': {files}",
            place=str(same[1].path),
            hint="rename all but one",
        )
        checked.append(CatalogueEntry(same[0].path, name, None, error))
    return checked


def _in_order(entries: Sequence[CatalogueEntry]) -> Iterator[CatalogueEntry]:
    waiting = sorted(entries, key=lambda entry: entry.name)
    names = {entry.name for entry in entries}
    out: set[str] = set()
    while waiting:
        ready = [entry for entry in waiting if not entry.parent or entry.parent in out or entry.parent not in names]
        # There are no cycles: a recipe in one cannot be loaded.
        for entry in ready:
            out.add(entry.name)
            yield entry
        waiting = [entry for entry in waiting if entry.name not in out]


# --- selection -----------------------------------------------------------------------------------


def select_products(
    catalogue: Catalogue, wanted: ProductSelection, held: Callable[[CatalogueEntry], Collection[str] | None]
) -> Catalogue:
    """Select the wanted products, and their ancestors.

    If a file of a product changed, its descendants are wanted too. `held` returns the packages of an entry's image,
    None if unknown: then it is selected.

    Raises UsageError `product-unknown`, `label-unknown`, `package-unknown`.
    """
    chosen = {entry.name for entry in catalogue.entries}
    if wanted.names:
        for name in wanted.names:
            if catalogue.find(name) is None:
                known = ", ".join(sorted(chosen))
                raise UsageError("product-unknown", f"no such recipe: '{name}'", hint=f"recipes: {known}")
        chosen &= set(wanted.names)
    if wanted.labels:
        labelled = {entry.name for entry in catalogue.entries if entry.recipe and _has(entry.recipe, wanted.labels)}
        if not labelled:
            text = ", ".join(f"{key}={value}" for key, value in wanted.labels)
            raise UsageError(
                "label-unknown", f"no recipe has the label {text}", hint="check 'image.labels' in the recipes"
            )
        chosen &= labelled
    if wanted.changed is not None:
        touched = {entry.name for entry in catalogue.entries if _touches(entry, wanted.changed)}
        chosen &= touched.union(*(catalogue.above(name) for name in touched))
    if wanted.containing:
        chosen &= _containing(catalogue, wanted.containing, held)
    needed = chosen | {below.name for name in chosen for below in catalogue.below(name)}
    return replace(catalogue, entries=tuple(entry for entry in catalogue.entries if entry.name in needed))


def _has(recipe: Recipe, labels: Sequence[tuple[str, str]]) -> bool:
    return all(label in recipe.image.labels for label in labels)


def _containing(
    catalogue: Catalogue, packages: Sequence[str], held: Callable[[CatalogueEntry], Collection[str] | None]
) -> set[str]:
    found = {entry.name: held(entry) for entry in catalogue.entries}
    for package in packages:
        if not any(names is None or package in names for names in found.values()):
            raise UsageError(
                "package-unknown", f"no image of the catalogue has the package '{package}'", hint="check its name"
            )
    return {name for name, names in found.items() if names is None or not set(packages).isdisjoint(names)}


def _touches(entry: CatalogueEntry, changed: Sequence[Path]) -> bool:
    """Return whether a changed file is part of the recipe; True for one that cannot be read."""
    if entry.recipe is None:
        return True
    files = {_real(path) for path in changed}
    shared = _real(entry.recipe.path.parent) / PLATFORMS_FILE
    return (
        shared in files
        or not files.isdisjoint(recipe_files(entry.recipe))
        or not files.isdisjoint(recipe_templates(entry.recipe))
    )


def recipe_templates(recipe: Recipe) -> frozenset[Path]:
    """Return the resolved paths of the templates of a recipe.

    They are those that the recipe names, and those that these name. A name that is put together in a template is not
    seen.
    """
    waiting = [plan.origin for plan in recipe.files if plan.kind is FileKind.TEMPLATE]
    given = GivenFolder(recipe.path.parent)
    seen: set[str] = set()
    found: set[Path] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for path in (folder / name for folder in recipe.template_folders):
            with contextlib.suppress(OSError):  # A template that cannot be read is an error when it is rendered.
                waiting += _QUOTED.findall(given.read(path, TEMPLATE_LIMIT).decode(errors="replace"))
                found.add(_real(path))
    return frozenset(found)


def has_auto_layers(recipe: Recipe) -> bool:
    """Return whether the recipe has an `auto` layer."""
    return any(plan.at_most is not None for plan in recipe.layers)


def recipe_files(recipe: Recipe) -> frozenset[Path]:
    """Return the resolved path of every file that a recipe names.

    They are the recipe itself, what it includes, what it copies, its lock; templates are not among them. Not its
    parent's.
    """
    copied = [recipe.path.parent / plan.origin for plan in recipe.files if plan.is_beside]
    local = [recipe.path.parent / item.path for layer in recipe.layers for item in layer.local]
    upgrade = [recipe.path.parent / recipe.smoke.upgrade_from] if recipe.smoke.upgrade_from else []
    return frozenset(_real(path) for path in (*recipe.sources, *copied, *local, *upgrade, lock_path(recipe.path)))
