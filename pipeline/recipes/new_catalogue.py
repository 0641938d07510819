"""A new catalogue, for `relbuild init`: recipes, platform, keys, a script, a CI file.

What is copied is what comes with relbuild; only platform and architecture are changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.platform import Platform, is_relative_key, most_specific
from pipeline.model.recipe import FileKind, Recipe
from pipeline.recipes.document_loading import load_recipe
from pipeline.recipes.platform_lookup import Platforms
from pipeline.recipes.platform_target import PlatformTarget
from pipeline.recipes.platforms import load_platforms
from pipeline.recipes.problems import nearest
from pipeline.recipes.scaffold import Scaffold, scaffold_text
from pipeline.store import failing_at

STARTER = "hello"
"""The recipe of a catalogue that has none yet."""

_FILES = Path(__file__).parent / "catalogue_files"
_PLATFORMS = "repositories.yaml"
_PLATFORM = re.compile(r"^  ([a-z0-9][a-z0-9._-]*):$", re.MULTILINE)
_EXTENDS = re.compile(r"^    extends: (\S+)$", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_HEAD = """\
# Where packages come from, and whose keys are trusted. `platform:` in a recipe names one of these.
# `relbuild help recipe` describes each key, `relbuild help platforms` lists more: copy them, with their keys, from
# {shipped}
platforms:

"""
_LOCAL_LOCKS = "# Locks of the development mirror name packages that only this machine has made.\n/recipes/*.lock\n"


class CiSystem(StrEnum):
    """Systems that a CI file can be written for."""

    GITHUB = "github"
    GITLAB = "gitlab"
    NONE = "none"


_CI_FILES = {
    CiSystem.GITHUB: ".github/workflows/nightly.yml",
    CiSystem.GITLAB: ".gitlab-ci.yml",
    CiSystem.NONE: None,
}


@dataclass(frozen=True, slots=True)
class NewCatalogue:
    """The content of a new catalogue.

    `shipped` is the folder with the recipes and templates of relbuild; `products` names recipes there, none for the
    starter; `local`: the platform is a mirror that only this machine has.
    """

    shipped: Path
    platform: str
    architecture: str
    products: tuple[str, ...] = ()
    ci: CiSystem = CiSystem.NONE
    local: bool = False


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """The files of a new catalogue that were written, and those that were there before."""

    wrote: tuple[str, ...]
    kept: tuple[str, ...]


def write_catalogue(folder: Path, start: NewCatalogue) -> WrittenFiles:
    """Write the files of a new catalogue below `folder`. An existing file is never changed.

    Raises UsageError `product-unknown`, RecipeError as `load_platforms`.
    """
    wrote: list[str] = []
    kept: list[str] = []
    for name, content in catalogue_files(start, folder).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (wrote if _write_new(path, content) else kept).append(name)
    return WrittenFiles(tuple(wrote), tuple(kept))


def _write_new(path: Path, content: bytes) -> bool:
    """Write a file whole, if there is none; return whether there was none."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    mode = 0o777 if path.suffix == ".sh" else 0o666  # Less what the umask takes away.
    try:
        with failing_at(path):
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
            os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    return True


def catalogue_files(start: NewCatalogue, folder: Path) -> Mapping[str, bytes]:
    """Return each file's content by its path.

    `folder` is where they go: platforms and recipes that are there already are its own.
    """
    files: dict[str, bytes] = {}
    own = folder / "recipes" / _PLATFORMS
    shipped = start.shipped / "recipes" / _PLATFORMS
    target = PlatformTarget(own if own.exists() else shipped, start.platform)
    if not own.exists():
        platforms = load_platforms(shipped)
        add_ons = _fitting_add_ons(start, platforms)
        files[f"recipes/{_PLATFORMS}"] = _platform_text(start, add_ons).encode()
        keys = _keys(start, platforms, add_ons)
        files.update({f"recipes/{key}": (start.shipped / "recipes" / key).read_bytes() for key in keys})
    for name in start.products:
        files.update(_product(name, start, target))
    if not start.products and not any(path.name != _PLATFORMS for path in (folder / "recipes").glob("*.y*ml")):
        starter = Scaffold(STARTER, (), platform=start.platform, architecture=start.architecture)
        files[f"recipes/{STARTER}.yaml"] = scaffold_text(starter).encode()
    ignored = (_FILES / "gitignore").read_text() + (_LOCAL_LOCKS if start.local else "")
    files[".gitignore"] = ignored.encode()
    files["nightly.sh"] = (_FILES / "nightly.sh").read_bytes()
    if (workflow := _CI_FILES[start.ci]) is not None:
        files[workflow] = (_FILES / f"{start.ci}.yml").read_bytes()
    return files


def _platform_text(start: NewCatalogue, fitting: Sequence[str]) -> str:
    """Return a document with the platform, what it extends, and its add-ons, word by word."""
    file = start.shipped / "recipes" / _PLATFORMS
    text, _, more = file.read_text().partition("\nadd-ons:\n")
    blocks = _blocks(text)
    wanted = [start.platform]
    while (above := _EXTENDS.search(blocks[wanted[-1]])) is not None:
        wanted.append(above[1])
    platforms = "\n".join(_without_next_comment(blocks[one]) for one in wanted)
    known = _blocks(more)
    add_ons = "\n".join(_without_next_comment(known[one]) for one in fitting)
    return _HEAD.format(shipped=file) + platforms + (f"\nadd-ons:\n\n{add_ons}" if fitting else "")


def _blocks(text: str) -> dict[str, str]:
    """Return the text of each platform or add-on of a document, by name."""
    found = [*_PLATFORM.finditer(text)]
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {match[1]: text[match.start() : end] for match, end in zip(found, ends, strict=True)}


def _fitting_add_ons(start: NewCatalogue, platforms: Platforms) -> list[str]:
    """Return the names of all add-ons that the platform can have."""
    found: Platform | None = platforms.platforms.get(start.platform)
    families = found.families if found else ()
    return [name for name, one in platforms.add_ons.items() if most_specific(families, one.repositories)]


def _without_next_comment(block: str) -> str:
    """Return a platform's text without the blank and comment lines before the next one."""
    lines = block.splitlines()
    while not lines[-1].strip() or lines[-1].startswith("  #"):
        lines.pop()
    return "\n".join(lines) + "\n"


def _keys(start: NewCatalogue, platforms: Platforms, add_ons: Sequence[str]) -> Iterator[str]:
    """Yield the files of keys that the platform names, relative to its definition."""
    if start.platform not in platforms:
        return
    platform = platforms.find(start.platform, add_ons=add_ons)
    variables = dict(platform.variables)
    for repository in (*platform.repositories, *platform.sources):
        for key in filter(is_relative_key, repository.keys):
            yield _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), key)


def _product(name: str, start: NewCatalogue, target: PlatformTarget) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a product that comes with relbuild: its recipes and their templates."""
    folder = start.shipped / "recipes"
    known = sorted(path.stem for path in folder.glob("*.yaml") if path.name != _PLATFORMS)
    if name not in known:
        near = nearest(name, known)
        raise UsageError(
            "product-unknown",
            f"no recipe called '{name}' comes with relbuild",
            hint=f"did you mean '{near}'?" if near else f"recipes: {', '.join(known)}",
        )
    recipe: Recipe | None = load_recipe(folder / f"{name}.yaml", target)
    while recipe is not None:
        for source in recipe.sources:
            yield f"recipes/{source.name}", _moved(source.read_text(), start).encode()
        for template in (file.origin for file in recipe.files if file.kind is FileKind.TEMPLATE):
            yield f"templates/{template}", (start.shipped / "templates" / template).read_bytes()
        recipe = recipe.parent


def _moved(text: str, start: NewCatalogue) -> str:
    """Return a recipe's text for another platform and architecture."""
    text = re.sub(r"^platform: .*$", f"platform: {start.platform}", text, flags=re.MULTILINE)
    return re.sub(r"^architectures: .*$", f"architectures: [{start.architecture}]", text, flags=re.MULTILINE)
