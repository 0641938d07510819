"""Changes to an instance's configuration: `--set` a recipe's value, `--edit` a file."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline import process
from pipeline.cli.path_arguments import names_layout
from pipeline.cli.recipe_argument import build_options
from pipeline.cli.recipe_place import naming_files
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.instances import ChangedConfiguration, HostedInstance, keep_files, package_variables, render_changes
from pipeline.launch import RunOptions
from pipeline.layers import ImageFiles
from pipeline.mirror.address_parser import is_address
from pipeline.model.image import Image
from pipeline.oci import image_architecture
from pipeline.prepare import BuildEnvironment
from pipeline.recipes import changed_values, load_recipe, recipe_name
from pipeline.reports import built_platform, report_folder

EDITOR_VARIABLES = ("VISUAL", "EDITOR")
"""Environment variables that name a person's editor, the first of them first."""


def changed_configuration(
    subject: str,
    image: Image,
    settings: Sequence[str],
    output: Path,
    build_env: BuildEnvironment,
    *,
    repositories: Path | None = None,
) -> ChangedConfiguration:
    """Return what the options `--set` change in an image. Raises UsageError, RecipeError."""
    if not settings:
        return ChangedConfiguration({}, {})
    if names_layout(subject) or is_address(subject):
        raise UsageError(
            "values-missing",
            f"'{subject}' is an image, which carries no templates: --set needs its recipe",
            hint="run the recipe, or edit the file: --edit PATH",
        )
    found = build_options(subject, None, None, repositories, output=output)
    with naming_files(found.recipe, found.repositories):
        name = recipe_name(found.recipe) or ""
        reports = [report_folder(output / layout) for layout in (name, f"{name}.{image_architecture(image)}")]
        platform = next(filter(None, (built_platform(folder, image.digest) for folder in reports)), None)
        recipe = load_recipe(found.recipe, replace(found, platform=platform).target)
        after = changed_values(recipe, settings)
    packages = package_variables(reports, image.digest)
    changed = render_changes(recipe, after, packages, ImageFiles(image, build_env.store), build_env.store)
    other = tuple(setting for setting in settings if changed_values(recipe, [setting]).values != recipe.values)
    if not changed.files and not changed.environment:
        build_env.progress.warn(f"--set {' '.join(settings)} changes no file and no variable of the image")
        return changed
    return replace(changed, settings=other)


def with_changes(
    wanted: RunOptions,
    hosted: HostedInstance,
    image: Image,
    changed: ChangedConfiguration,
    *,
    edited: Sequence[str],
    build_env: BuildEnvironment,
) -> RunOptions:
    """Return the options of a run with the instance's name and its own configuration.

    `edited` are the files that are edited now. Raises UsageError, EnvironmentLacking.
    """
    files = ImageFiles(image, build_env.store)
    try:
        mounts, different = keep_files(
            hosted.folder, changed.files, edited, files, lambda path: open_editor(path, build_env.environment)
        )
    except BaseException:
        shutil.rmtree(hosted.folder.files, ignore_errors=True)  # Who leaves an editor with an error wants none of it.
        raise
    said = (
        *changed.settings,
        *(f"edited {path}" for path in different),
        *(f"--config {mount.path}" for mount in wanted.mounts if mount.read_only),
        *(f"--env {name}" for name in wanted.environment),  # Without its value, which may be a secret.
    )
    if said:
        hosted.changed(said)
    return replace(
        wanted,
        name=hosted.folder.name,
        mounts=(*wanted.mounts, *mounts),
        environment={**changed.environment, **wanted.environment},
    )


def open_editor(path: Path, environment: Mapping[str, str]) -> None:
    """Open a file in the person's editor, and wait until it is closed.

    Raises EnvironmentLacking `editor-missing`, UsageError `editor-failed`.
    """
    name = next((environment[name] for name in EDITOR_VARIABLES if environment.get(name)), "vi")
    try:
        status = process.run_in_terminal([*shlex.split(name), str(path)], environment)
    except (EnvironmentLacking, ValueError) as error:
        raise EnvironmentLacking(
            "editor-missing", f"the editor '{name}' cannot be started", hint="set VISUAL or EDITOR to your editor"
        ) from error
    if status:
        raise UsageError(
            "editor-failed",
            f"the editor '{name}' ended with status {status}; nothing was started",
            hint="leave the editor without an error to start the instance",
        )
