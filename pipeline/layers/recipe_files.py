"""Render and fetch the files of a recipe: their final content, owner and mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

from pipeline import render
from pipeline.beneath import (
    GivenFolder,
    NotRegular,
    PathEscape,
    TooLarge,
    escape_error,
)
from pipeline.digest import Digest
from pipeline.errors import RecipeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.recipe import FileKind, FilePlan, Recipe
from pipeline.transfer import Download
from pipeline.urls import public_url

RECIPE_FILE_LIMIT = 256 << 20
"""Bytes of a file that a recipe brings itself: configuration and plugins, not data sets."""


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """An archive that is unpacked below a path.

    `name` is its origin, for messages; its bytes are in the store by `digest`. `strip` is the number of leading path
    components that are removed from its names.
    """

    name: str
    digest: Digest
    strip: int


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file of the recipe with its final content.

    `content` is bytes for a file, None for a directory; `link` is a symlink's target as text. `owner`, `group` are
    names. `mode` is None where an archive's execute bits decide.
    """

    path: str
    kind: FileKind
    content: bytes | None
    link: str
    mode: int | None
    owner: str
    group: str
    place: str
    archive: ImageArchive | None = None


@dataclass(frozen=True, slots=True)
class ReadTemplates:
    """The template files that were read for a recipe's files.

    `contents` are (name, digest or `missing`) of each template that was looked for, sorted.
    """

    files: tuple[Path, ...] = ()
    contents: tuple[tuple[str, str], ...] = ()


def render_files(
    recipe: Recipe,
    seen: Mapping[str, object],
    get: Callable[[Download], bytes],
    memory: render.RenderMemory | None = None,
) -> tuple[tuple[ImageFile, ...], ReadTemplates]:
    """Return the final files of `recipe`, and the templates that took part.

    `seen` are the templates' variables; `get` fetches files by URL; `memory` keeps rendered texts. Archives must be in
    the store.

    Raises RecipeError `source-missing`, `source-too-large`, `path-escapes`, and what templates raise.
    """
    given = GivenFolder(recipe.path.parent)
    texts: dict[str, render.Rendered] = {}
    for plan in recipe.files:
        if plan.kind is FileKind.TEMPLATE and plan.origin not in texts:
            templates = render.Templates(recipe.template_folders, given)  # It brings Jinja with it.
            texts[plan.origin] = templates.render(plan.origin, seen, place=plan.place, memory=memory)
    made = [_render(plan, given, texts, get) for plan in recipe.files]
    looked_for = {pair for rendered in texts.values() for pair in rendered.contents}
    read = ReadTemplates(tuple(path for _, paths in made for path in paths), tuple(sorted(looked_for)))
    return tuple(file for file, _ in made), read


def _render(
    plan: FilePlan,
    given: GivenFolder,
    texts: Mapping[str, render.Rendered],
    get: Callable[[Download], bytes],
) -> tuple[ImageFile, tuple[Path, ...]]:
    content: bytes | None = None
    link = ""
    archive: ImageArchive | None = None
    mode: int | None = plan.mode or 0
    read: tuple[Path, ...] = ()
    match plan.kind:
        case FileKind.TEMPLATE:
            rendered = texts[plan.origin]
            content, read = rendered.text.encode(), rendered.sources
        case FileKind.CONTENT:
            content = plan.origin.encode()
        case FileKind.SOURCE:
            content = _read_source(given, plan)
        case FileKind.URL:
            content = get(Download((plan.origin,), plan.sha256, None, plan.path))
        case FileKind.SYMLINK:
            link = plan.origin
        case FileKind.ARCHIVE:
            assert plan.sha256 is not None
            archive, mode = ImageArchive(public_url(plan.origin), plan.sha256, plan.strip), plan.mode
        case FileKind.DIRECTORY:
            pass
        case _:
            assert_never(plan.kind)
    file = ImageFile(plan.path, plan.kind, content, link, mode, plan.owner, plan.group, plan.place, archive)
    return file, read


def _read_source(given: GivenFolder, plan: FilePlan) -> bytes:
    """Read a file beside the recipe.

    Raises RecipeError `source-missing`, `source-too-large`, `path-escapes`.
    """
    path = given.folder / plan.origin
    try:
        return given.read(path, RECIPE_FILE_LIMIT)
    except PathEscape as error:
        raise escape_error(error, plan.place) from None
    except TooLarge as error:
        raise RecipeError(
            "source-too-large",
            f"{path} has more than {RECIPE_FILE_LIMIT} bytes",
            place=plan.place,
            hint="ship it in a package instead",
        ) from error
    except (FileNotFoundError, NotADirectoryError, NotRegular) as error:
        raise RecipeError(
            "source-missing",
            f"the source '{path}' of {plan.path} cannot be read: {error.strerror}",
            place=plan.place,
            hint="correct 'source:'; it is relative to the recipe",
        ) from error
