"""Resolve a recipe or image argument: to build options, or to an image to launch."""

from __future__ import annotations

from pathlib import Path

from pipeline.build import architecture_to_run, load_or_build
from pipeline.cli import options
from pipeline.cli.path_arguments import names_layout, require_output
from pipeline.cli.recipe_place import find_recipe_place, naming_files
from pipeline.compression import Compression
from pipeline.launch import default_smoke_plan
from pipeline.model.image import Image
from pipeline.model.lock import LockMode
from pipeline.model.smoke import SmokePlan
from pipeline.oci import (
    choose_image,
    image_architecture,
    load_layers,
    load_layout_image,
    read_layout_images,
)
from pipeline.prepare import BuildEnvironment, BuildOptions


def build_options(
    name: str,
    platform: str | None = None,
    arch: list[str] | None = None,
    repositories: Path | None = None,
    *,
    mode: LockMode = LockMode.DEFAULT,
    smoke: bool = True,
    retest: bool = False,
    compression: Compression = Compression.GZIP,
    output: Path = Path("output"),
    full: bool = False,
    sources: bool = False,
) -> BuildOptions:
    """Make build options from a command's options; find the recipe and the platforms file."""
    place = find_recipe_place(name, repositories)
    return BuildOptions(
        recipe=place.recipe,
        repositories=place.repositories,
        platform=platform,
        architectures=options.split_architectures(arch),
        mode=mode,
        smoke=smoke,
        retest=retest,
        compression=compression,
        output=require_output(output),
        full=full,
        sources=sources,
        locks=place.locks,
    )


def layout_image(layout: Path, build_env: BuildEnvironment, arch: str = "") -> Image:
    """Load the image of a layout.

    Of an index that for `arch`, or that which this machine runs best. Raises RelbuildError.
    """
    _, images = read_layout_images(layout)
    if not arch and len(images) > 1:
        arch = architecture_to_run([image_architecture(image) for image in images])
    image = choose_image(images, arch, str(layout))
    load_layers(layout, image, store=build_env.store)
    return image


def image_to_launch(
    text: str,
    build_env: BuildEnvironment,
    layout: Path | None,
    output: Path,
    arch: str = "",
    *,
    platform: str | None = None,
    repositories: Path | None = None,
) -> tuple[Image, SmokePlan]:
    """Load the image that an argument names, or build its recipe; return it with its smoke plan.

    Of several it is that for `arch`, or that which this machine runs best. `platform` is the one for a recipe, of the
    file `repositories`. Raises RelbuildError.
    """
    if names_layout(text):
        adopted = layout_image(Path(text), build_env, arch)
        return adopted, default_smoke_plan(adopted)
    wanted = build_options(text, platform, [arch] if arch else None, repositories, output=output)
    with naming_files(wanted.recipe, wanted.repositories):
        image, plan = load_or_build(wanted, build_env)
    return (image if layout is None else load_layout_image(layout, store=build_env.store)), plan
