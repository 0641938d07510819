"""Load recipes and platforms once while all that was read for them is the same.

What reads YAML and validates it is imported when something has to be read. A command that loads a recipe which a former
run of the same program has loaded takes it from the store (docs/decisions/0067-a-recipe-read-once.md). Where it has to
be read, a child process may do it while its parent imports what builds (docs/decisions/0073-read-beside-imports.md).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pipeline.beneath import ReadCache, ReadLog, ReadSnapshot, logged_reads
from pipeline.digest import Digest, identity
from pipeline.forked_call import ForkedCall, forked_call
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.platform import Platform
from pipeline.model.recipe import Recipe
from pipeline.model.whole_json import from_whole_json, to_whole_json
from pipeline.recipes.platform_target import PLATFORMS_FILE, PlatformTarget
from pipeline.snapshots import START, library_records, loaded_files, mapped_files, program_digest
from pipeline.store import Store

_RECIPES_KEPT = 64
"""Recipes that are kept in memory while they are unchanged. A build asks for its recipe and parents several times."""
_PLATFORMS_KEPT = 16
"""Platforms that are kept in memory while they are unchanged: a command builds for one, or few."""

_MOST_REMEMBERED = 4 << 20
"""Bytes of recipes and platforms that are remembered: larger ones are rare, and take their time from the store too."""

_COMPARED = ("contents", "looked", "listed", "places")
"""Members of a snapshot of what was read that are written as they are."""

_RecipeKey = tuple[Path, Path, str | None, Path]
_PlatformKey = tuple[Path, str, tuple[str, ...], Path]
_IncludedKey = tuple[Path, Path, tuple[str, ...] | None, Path]

_recipes: ReadCache[Recipe] = ReadCache(_RECIPES_KEPT)
_platforms: ReadCache[Platform] = ReadCache(_PLATFORMS_KEPT)
_included: ReadCache[Digest] = ReadCache(_RECIPES_KEPT)


def load_recipe(path: Path, target: PlatformTarget | None = None) -> Recipe:
    """Load the recipe at `path` with its includes, and its parents, for one platform.

    It is loaded once while all that was read is unchanged. `target` names the platform; without one it is the recipe's
    own, of the `repositories.yaml` beside it. Raises RecipeError with every problem at once.
    """
    top = Path(os.path.abspath(path))  # noqa: PTH100  not resolved: a link to a recipe stands where it stands
    wanted = target or PlatformTarget(top.parent / PLATFORMS_FILE)

    def merged() -> Recipe:
        # Here and not above, as below: importing it takes longer than all of an unchanged recipe's use.
        from pipeline.recipes.merge import merge_recipe

        return merge_recipe(top, wanted)

    return _recipes.get((top, wanted.definitions, wanted.name, Path.cwd()), merged)


def recipe_name(path: Path) -> str | None:
    """Return the name of the product of the recipe at `path`, for whichever platform.

    None if nothing names it. Raises RecipeError if the recipe cannot be read.
    """
    from pipeline.recipes.recipe_lookup import product_name

    return product_name(Path(os.path.abspath(path)))  # noqa: PTH100  not resolved, as a recipe is loaded


def find_platform(definitions: Path, name: str, *, add_ons: Sequence[str] = (), place: str | None = None) -> Platform:
    """Return a platform of the file `definitions`, with `add_ons` on top.

    `place` is the place of the name, for errors. Raises RecipeError as `load_platforms` and `Platforms.find`.
    """

    def found() -> Platform:
        from pipeline.recipes.platforms import load_platforms

        return load_platforms(definitions).find(name, add_ons=add_ons, place=place)

    return _platforms.get((definitions, name, tuple(add_ons), Path.cwd()), found)


def included_digest(path: Path, folder: Path, entries: Sequence[str] | None) -> Digest:
    """Return the digest of the recipe at `path`, which one in `folder` includes.

    With `entries`, what is under its `platforms` counts for these alone. Raises RecipeError `recipe-unreadable`,
    `path-escapes`, and as `load_yaml`.
    """

    def read() -> Digest:
        from pipeline.recipes.included_file import digest_included

        return digest_included(path, folder, entries)

    return _included.get((path, folder, None if entries is None else tuple(entries), Path.cwd()), read)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Recipes, platforms and digests of included files, each with its key in the cache."""

    recipes: Sequence[tuple[_RecipeKey, Recipe]]
    platforms: Sequence[tuple[_PlatformKey, Platform]]
    included: Sequence[tuple[_IncludedKey, Digest]]

    def keep(self, read: ReadSnapshot) -> None:
        """Put them into the caches of this process."""
        for recipe_key, recipe in self.recipes:
            _recipes.put(recipe_key, recipe, read)
        for platform_key, platform in self.platforms:
            _platforms.put(platform_key, platform, read)
        for included_key, digest in self.included:
            _included.put(included_key, digest, read)


_Known = tuple[_Loaded, ReadSnapshot]
"""Documents that need not be read here, and what was read for them."""

_READ_HERE = {"read_here": True}
"""Remembered in place of documents that a child did not hand over, and that cannot be remembered."""


class DocumentLoading:
    """The loading of a recipe, its parents and their platform, which `finish` ends."""

    def __init__(
        self, read_here: Callable[[], None], known: _Known | None, call: ForkedCall, keep: Callable[[object], None]
    ) -> None:
        self._read_here, self._known, self._call, self._keep = read_here, known, call, keep

    @property
    def is_running(self) -> bool:
        """True while a child reads them: there is time for something else."""
        return self._call.is_running

    def finish(self) -> None:
        """Have them in this process.

        `load_recipe`, `find_platform` and `included_digest` return them from now on, and the logs of reads have what
        was read. Raises RecipeError as `load_recipe` and `find_platform` do.
        """
        known = self._known or self._handed_over()
        if known is None:
            self._read_here()
            return
        loaded, read = known
        loaded.keep(read)
        read.note()

    def _handed_over(self) -> _Known | None:
        """Return what a child has read, and remember it if it may last.

        None if there was no child, or it failed.
        """
        told = self._call.result()
        with contextlib.suppress(LookupError, TypeError, ValueError, ImportError, AttributeError):
            if isinstance(told, dict):
                known = _read(told["value"]["loaded"]), _read_snapshot(told["value"])
                if told["lasting"]:
                    self._keep(told["value"])
                return known
        return None


@contextlib.contextmanager
def loading_documents(
    path: Path, target: PlatformTarget, store: Store, *, started: float, forked: bool = False
) -> Iterator[DocumentLoading]:
    """Load a recipe, its parents and their platform, from the store if nothing has changed.

    Else they are read when the loading is finished, or (`forked`) by a child process that begins at once. `started`:
    when this process began, in seconds since the epoch. What is remembered counts as the work of the program's files as
    they are now.
    """
    name = identity(
        "documents",
        1,  # What is read was written by the same program: it has no format.
        recipe=path,
        definitions=target.definitions,
        platform=target.name,
        folder=Path.cwd(),
        python=[sys.executable, sys.version, str(sys.flags)],
    )
    remembered = store.recall_as(name, lambda value: _recall(value, started))
    known = remembered if isinstance(remembered, tuple) else None
    wanted = forked and remembered is None
    with forked_call(lambda: _told(path, target, started)) if wanted else contextlib.nullcontext(ForkedCall()) as call:
        had_child = call.has_child

        def keep(value: object) -> None:
            with contextlib.suppress(OSError):  # A full disk is no error of a command that has what it wanted.
                store.remember(name, value, sync=False)

        def read_here() -> None:
            with logged_reads() as log:
                loaded = _load_all(path, target)
            lasting = False
            # A value without JSON form is no error either.
            with contextlib.suppress(OSError, LookupError, TypeError, ValueError):
                value, lasting = _written_documents(loaded, log, started)
                if lasting:
                    keep(value)
            if had_child and not lasting:
                keep(_READ_HERE)

        yield DocumentLoading(read_here, known, call, keep)


def _told(path: Path, target: PlatformTarget, started: float) -> object:
    """Read documents in a child; return what it tells as JSON values.

    Raises RecipeError as `load_recipe` and `find_platform`, and as `_written_documents`.
    """
    with logged_reads() as log:
        loaded = _load_all(path, target)
    value, lasting = _written_documents(loaded, log, started)
    return {"value": value, "lasting": lasting}


def _load_all(path: Path, target: PlatformTarget) -> _Loaded:
    """Load a recipe, its platform and what it includes, and the same of its parents."""
    recipes: list[tuple[_RecipeKey, Recipe]] = []
    platforms: list[tuple[_PlatformKey, Platform]] = []
    included: list[tuple[_IncludedKey, Digest]] = []
    folder, below, wanted = Path.cwd(), path, target
    while True:
        recipe = load_recipe(below, wanted)
        recipes.append(((recipe.path, wanted.definitions, wanted.name, folder), recipe))
        name, place = wanted.name or recipe.platform, str(wanted.definitions if wanted.name else below)
        platform = find_platform(wanted.definitions, name, add_ons=recipe.add_ons, place=place)
        platforms.append(((wanted.definitions, name, recipe.add_ons, folder), platform))
        entries = dict(recipe.platform_entries)
        for source in recipe.sources:
            if source.resolve() != recipe.path.resolve():
                key = (source, recipe.path.parent, entries.get(source), folder)
                included.append((key, included_digest(*key[:3])))
        if recipe.parent is None:
            return _Loaded(recipes, platforms, included)
        below, wanted = recipe.parent.path, PlatformTarget(target.definitions, name)


def _written_documents(loaded: _Loaded, log: ReadLog, started: float) -> tuple[dict[str, object], bool]:
    """Return loaded documents as JSON values, and whether they may be remembered.

    They may not if the program may have changed since it was loaded, or if they may hold a secret. Raises OSError,
    LookupError, TypeError, ValueError if they are large, have no JSON form, or what was read cannot be compared.
    """
    read = ReadSnapshot.of(log)
    if read is None:
        raise ValueError("a file was opened, or changed while it was read")
    programs = sorted({*loaded_files(), *mapped_files(), *library_records(), *read.programs})
    modules = sorted({module.partition(".")[0] for module in sys.modules} | {*read.modules})
    code, newest = program_digest(programs, frozenset(modules))
    value = {
        "loaded": _written(loaded),
        "read": {field: dict(getattr(read, field)) for field in _COMPARED},
        "programs": programs,
        "modules": modules,
        "code": code,
    }
    return value, newest < (started - START) * 1e9 and not _may_hold_secret(loaded)


def _may_hold_secret(loaded: _Loaded) -> bool:
    from pipeline.recipes.possible_secrets import may_hold_secret, platform_may_hold_secret

    recipes = (recipe for _, recipe in loaded.recipes)
    platforms = (platform for _, platform in loaded.platforms)
    return any(map(may_hold_secret, recipes)) or any(map(platform_may_hold_secret, platforms))


def _recall(value: object, started: float) -> _Known | Literal["read-here"] | None:
    """Return remembered documents; None if the program, or what it would read, has changed.

    Raises ValueError, TypeError, LookupError for what the same program did not write.
    """
    if value == _READ_HERE:
        return "read-here"
    if not isinstance(value, dict):
        raise TypeError("remembered documents are an object")
    try:
        # First of all: another program's values may have another form. So may those of the program that has taken the
        # place of this one since it started.
        code, newest = program_digest(value["programs"], frozenset(value["modules"]))
        if code != value["code"] or newest >= (started - START) * 1e9:
            return None
        read = _read_snapshot(value)
        return (_read(value["loaded"]), read) if read.holds() else None
    except OSError:
        return None
    except (ImportError, AttributeError) as error:
        raise LookupError(str(error)) from error


def _read_snapshot(value: dict[str, Any]) -> ReadSnapshot:
    return ReadSnapshot(**value["read"], programs=value["programs"], modules=value["modules"])


def _written(loaded: _Loaded) -> object:
    """Return loaded documents as JSON values, each recipe once, however many are built from it.

    Raises ValueError if they are large, TypeError if one has no JSON form.
    """
    numbers: dict[str, int] = {}  # By all of it: equal recipes may have other places for messages.
    alone: list[Recipe] = []
    lines: list[tuple[_RecipeKey, tuple[int, ...]]] = []
    for key, recipe in loaded.recipes:
        line: list[int] = []
        for one in _line(recipe):
            text = json.dumps(to_whole_json(one))
            if text not in numbers:
                numbers[text] = len(alone)
                alone.append(one)
            line.append(numbers[text])
        lines.append((key, tuple(line)))
        if sum(map(len, numbers)) > _MOST_REMEMBERED:
            raise ValueError("large recipes are not remembered")
    written = to_whole_json((tuple(alone), tuple(lines), tuple(loaded.platforms), tuple(loaded.included)))
    if len(json.dumps(written)) > _MOST_REMEMBERED:
        raise ValueError("large platforms are not remembered")
    return written


def _line(recipe: Recipe | None) -> Iterator[Recipe]:
    """Yield a recipe and those that it is built from, each without its parent."""
    while recipe is not None:
        yield replace(recipe, parent=None)
        recipe = recipe.parent


def _read(written: object) -> _Loaded:
    """Return what was written.

    Raises ValueError, TypeError, LookupError, ImportError, AttributeError.
    """
    value = from_whole_json(written)
    if not isinstance(value, tuple):
        raise TypeError("loaded documents are an array")
    alone, lines, platforms, included = value
    recipes: list[tuple[_RecipeKey, Recipe]] = []
    for key, line in lines:
        recipe: Recipe | None = None
        for number in reversed(line):
            recipe = replace(alone[number], parent=recipe)
        if recipe is None:
            raise ValueError("a line of recipes is empty")
        recipes.append((key, recipe))
    return _Loaded(recipes, platforms, included)
