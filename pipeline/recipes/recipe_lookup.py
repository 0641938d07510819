"""Lookup and reading of recipe files: as a `from` parent, and with their includes.

Included recipes come first, in the order in which they are named, each after what it includes in turn. A
recipe that is reached twice is taken once, where it is first reached.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from pipeline.beneath import GivenFolder, PathEscape
from pipeline.errors import RecipeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.recipes.problems import Problems, validate_document
from pipeline.recipes.recipe_schema import RecipeDocument, RecipePlatformDocument
from pipeline.recipes.recipe_search import nearest_names
from pipeline.yaml_documents import YamlDocument, load_yaml

INCLUDE_DEPTH = 8
"""Depth of includes; deeper than any product line's."""
INCLUDE_COUNT = 64
"""Recipe files that one recipe may be merged from."""


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """One recipe file, or an entry under its `platforms`, parsed, with the folders of its paths.

    Its paths are relative to `folder`; none of them may lead out of `given`. `entry` is what an entry says beside the
    keys of a recipe.
    """

    path: Path
    document: YamlDocument
    recipe: RecipeDocument
    given: GivenFolder
    entry: RecipePlatformDocument | None = None

    @property
    def folder(self) -> Path:
        """The folder of the recipe file."""
        return self.path.parent


def parent_path(source: RecipeFile, name: str, problems: Problems) -> Path | None:
    """Find the recipe that `from: NAME` in `source` means.

    NAME is a path relative to it, or a name without its suffix. None after adding the problem `from-absolute`,
    `path-escapes` or `from-missing`.
    """

    def refuse(code: str, message: str, hint: str) -> None:
        problems.add(code, message, source.document, ("from",), hint)

    if PurePosixPath(name).is_absolute() or "\0" in name:
        refuse("from-absolute", f"'{name}' is an absolute path", "write it relative to this recipe")
        return None
    endings = ("",) if name.endswith((".yaml", ".yml")) else (".yaml", ".yml")
    for ending in endings:
        candidate = Path(os.path.normpath(source.folder / (name + ending)))
        try:
            if source.given.has_file(candidate):
                return candidate
        except PathEscape as error:
            refuse("path-escapes", str(error.strerror), error.way_out)
            return None
    near = nearest_names(
        Path(name).stem, [path.removesuffix(".yaml") for path in _recipes_in(source.folder, source.path)]
    )
    hint = f"did you mean '{near[0]}'?" if near else "write a recipe's name, or its path relative to this one"
    refuse("from-missing", f"parent recipe '{name}' not found", hint)
    return None


def _recipes_in(folder: Path, exclude: Path) -> list[str]:
    """Return the names of recipes in a folder, sorted; none in one that cannot be read."""
    try:
        return sorted(found.name for found in folder.glob("*.yaml") if found != exclude)
    except OSError:
        return []


def read_sources(
    path: Path, problems: Problems, given: GivenFolder, shown: str | None = None
) -> tuple[RecipeFile, ...]:
    """Read the recipe at `path` and its includes; the recipe itself is the last.

    `given`: the folder that no path may lead out of; `shown`: its name in places, if not its file's. Raises RecipeError
    if it cannot be read itself, and `recipe-name-encoding`: its name is in documents that are UTF-8.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        written = os.fsencode(path.name).decode(errors="backslashreplace")
        raise RecipeError(
            "recipe-name-encoding", f"the recipe's file name '{written}' is not UTF-8", hint="rename the file"
        ) from None
    reader = _Reader(path, problems, given)
    document = load_yaml(path, shown, given=given)
    reader.read(path, document, ())
    return tuple(reader.sources)


def product_name(path: Path) -> str | None:
    """Read the name of the product of the recipe at the absolute `path`, as `recipe_name` does."""
    sources = read_sources(path, Problems(), GivenFolder(path.parent))
    return next((one.recipe.name for one in reversed(sources) if one.recipe.name), None)


class _Reader:
    def __init__(self, top: Path, problems: Problems, given: GivenFolder) -> None:
        self.sources: list[RecipeFile] = []
        self._top = top
        self._given = given
        self._problems = problems
        self._seen: set[Path] = set()

    def read(self, path: Path, document: YamlDocument, stack: tuple[Path, ...]) -> None:
        real = path.resolve()
        self._seen.add(real)
        recipe = validate_document(RecipeDocument, document, self._problems)
        if recipe is None:
            return
        for index, name in enumerate(recipe.include):
            self._include(name, index, path, document, (*stack, real))
        self.sources.append(RecipeFile(path, document, recipe, self._given))

    def _include(self, name: str, index: int, path: Path, document: YamlDocument, stack: tuple[Path, ...]) -> None:
        def refuse(code: str, message: str, hint: str) -> None:
            self._problems.add(code, message, document, ("include", index), hint)

        if PurePosixPath(name).is_absolute() or "\0" in name:
            refuse("include-absolute", f"'{name}' is an absolute path", "write it relative to this recipe")
            return
        target = Path(os.path.normpath(path.parent / name))
        try:
            there = self._given.has_file(target)
        except PathEscape as error:
            refuse("path-escapes", str(error.strerror), error.way_out)
            return
        real = target.resolve()
        if real in stack:
            round_trip = " → ".join([*(step.name for step in stack[stack.index(real) :]), real.name])
            refuse("include-cycle", f"recipes include each other in a cycle: {round_trip}", "break the cycle")
            return
        if real in self._seen:
            return
        if len(stack) > INCLUDE_DEPTH or len(self._seen) >= INCLUDE_COUNT:
            refuse(
                "include-too-deep",
                f"includes are nested more than {INCLUDE_DEPTH} deep, or more than {INCLUDE_COUNT} in number",
                "merge some of them",
            )
            return
        if not there:
            near = nearest_names(target.name, _recipes_in(target.parent, path))
            refuse(
                "include-missing",
                f"included recipe '{name}' not found",
                f"did you mean '{near[0]}'?" if near else "paths are relative to the including recipe",
            )
            return
        try:
            included = load_yaml(target, os.path.relpath(target, self._top.parent), given=self._given)
        except RecipeError as error:
            self._problems.take(error)
            return
        self.read(target, included, stack)
