"""Configuration files of one instance: rendered with other values, or edited by a person.

They are kept in the instance's folder, with owner and mode of the image's file, and mounted over that one. The image
itself is not changed; what runs is not the configuration that was tested.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.beneath import GivenFolder
from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.instances.instance_folder import InstanceFolder
from pipeline.launch import HostMount
from pipeline.layers import ImageFiles
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.recipe import FileKind, Recipe
from pipeline.model.tree import Entry
from pipeline.recipes import template_scope
from pipeline.render import RenderMemory, Templates, evaluate_template
from pipeline.reports import read_bill

CHANGED_FILE_LIMIT = 4 << 20
"""Bytes of a file that is changed for an instance: as much as a template may make."""


@dataclass(frozen=True, slots=True)
class ChangedConfiguration:
    """Files with other content, by their path in the image, and variables with other values.

    `settings` are those of what was asked for that differ from the recipe.
    """

    files: Mapping[str, bytes]
    environment: Mapping[str, str]
    settings: tuple[str, ...] = ()


def package_variables(reports: Sequence[Path], image: Digest) -> dict[str, object]:
    """Return `packages` for templates, from the report of an image in one of some folders.

    Raises UsageError `report-missing`.
    """
    for folder in reports:
        try:
            bill = read_bill(folder)
        except (UsageError, VerificationError):
            continue
        if bill.digest == image:
            return {package.nevra.name: package.nevra.variables() for package in bill.packages}
    raise UsageError(
        "report-missing",
        "the image's report, which names its packages, was not found",
        place=str(reports[0]),
        hint="build the image again with `relbuild build`",
    )


def render_changes(
    before: Recipe,
    after: Recipe,
    packages: Mapping[str, object],
    files: ImageFiles,
    memory: RenderMemory | None = None,
) -> ChangedConfiguration:
    """Render a recipe's templates with the values of `after`; return what differs from `before`.

    Raises RecipeError as templates do, UsageError `recipe-changed` if the image was built from other templates.
    """
    old, new = (template_scope(recipe, packages) for recipe in (before, after))
    templates = Templates(before.template_folders, GivenFolder(before.path.parent))
    changed: dict[str, bytes] = {}
    for plan in before.files:
        if plan.kind is not FileKind.TEMPLATE:
            continue
        built, made = (
            templates.render(plan.origin, seen, place=plan.place, memory=memory).text.encode() for seen in (old, new)
        )
        if built == made:
            continue
        if files.read(plan.path, CHANGED_FILE_LIMIT)[1] != built:
            raise UsageError(
                "recipe-changed",
                f"'{plan.path}' in the image is not what the recipe and its templates render now",
                place=plan.place,
                hint=f"build the image again: relbuild build {before.path.name}",
            )
        changed[plan.path] = made
    environment = {}
    for line in before.image.environment:
        name, _, text = line.partition("=")
        built_value, value = (evaluate_template(text, seen, place=str(before.path)) for seen in (old, new))
        if value != built_value:
            environment[name] = value
    return ChangedConfiguration(changed, environment)


def keep_files(
    folder: InstanceFolder,
    changed: Mapping[str, bytes],
    edited: Sequence[str],
    files: ImageFiles,
    edit: Callable[[Path], None],
) -> tuple[tuple[HostMount, ...], tuple[str, ...]]:
    """Keep an instance's own configuration files, and return their mounts.

    Also the paths of files that `edit` changed. `changed` are contents by path in the image; `edited` are paths of
    files that `edit` opens for a person, however they lead to a file (`//`, symlinks). Raises UsageError
    `image-file-missing` and the like.
    """
    changed = {files.real_path(path) or path: content for path, content in changed.items()}
    edited = [files.real_path(path) or path for path in edited]
    mounts, different = [], []
    for path in dict.fromkeys((*changed, *edited)):
        entry, content = files.read(path, CHANGED_FILE_LIMIT)
        own = folder.files / path.lstrip("/")
        if ".." in own.parts:
            raise UsageError("image-file-missing", f"'{path}' is not a plain path", hint="write it without '..'")
        own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        own.write_bytes(changed.get(path, content))
        if path in edited:
            edit(own)
            if own.read_bytes() != changed.get(path, content):
                different.append(path)
        if own.read_bytes() == content:
            own.unlink()  # As it is in the image.
            continue
        _lend(own, entry)
        mounts.append(HostMount(str(own), path, read_only=True))
    _remove_empty(folder.files)
    return tuple(mounts), tuple(different)


def _lend(path: Path, entry: Entry) -> None:
    """Give a file the owner and mode of the image's."""
    os.chown(path, entry.uid, entry.gid)
    path.chmod(entry.mode)


def _remove_empty(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()
