"""Recipes and images that a command's argument means."""

from __future__ import annotations

from pathlib import Path

from pipeline.build import launchable
from pipeline.cli.file_arguments import CHECKOUT, a_folder, is_layout, platforms_file
from pipeline.compression import Compression
from pipeline.gather import Order, Workshop
from pipeline.launch import plan_of
from pipeline.model.image import Image
from pipeline.model.lock import Mode
from pipeline.model.smoke import SmokePlan
from pipeline.oci import adopt_layout
from pipeline.recipes import find_recipe


def order(
    name: str,
    platform: str | None = None,
    arch: list[str] | None = None,
    repositories: Path | None = None,
    *,
    mode: Mode = Mode.DEFAULT,
    smoke: bool = True,
    retest: bool = False,
    compression: Compression = Compression.GZIP,
    output: Path = Path("output"),
    full: bool = False,
    sources: bool = False,
) -> Order:
    """Return the build options that a person asks for.

    The recipe and the file of platforms are found.
    """
    path = find_recipe(name, [Path("recipes"), CHECKOUT / "recipes"])
    return Order(
        recipe=path,
        repositories=repositories or platforms_file(path.parent),
        platform=platform,
        architectures=tuple(arch or ()),
        mode=mode,
        smoke=smoke,
        retest=retest,
        compression=compression,
        output=a_folder(output),
        full=full,
        sources=sources,
    )


def image_to_launch(text: str, workshop: Workshop, layout: Path | None, output: Path) -> tuple[Image, SmokePlan]:
    """The image that a person means, and what is asked of it."""
    if is_layout(text):
        adopted = adopt_layout(Path(text), store=workshop.store)
        return adopted, plan_of(adopted)
    image, plan = launchable(order(text, output=output), workshop)
    return (image if layout is None else adopt_layout(layout, store=workshop.store)), plan
