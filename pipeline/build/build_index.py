"""Build a recipe for several architectures: an image of each, and an index of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.build.build_image import build, for_built_platform, lock, smoke_image
from pipeline.build.build_result import BuildResult
from pipeline.build.remembered_build import output_lock
from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.configuration import oci_architecture
from pipeline.model.manifests import Manifest
from pipeline.model.report import SmokeReport
from pipeline.oci import (
    choose_image,
    image_architecture,
    read_layout_images,
    refuse_other_product,
    refuse_other_report,
    require_layout_place,
    write_index_layout,
)
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe
from pipeline.prepare.locked_recipe import choose_architecture, choose_platform
from pipeline.recipes import load_recipe
from pipeline.reports import remove_report, report_folder
from pipeline.resolve import explain
from pipeline.sandbox import find_emulator

if TYPE_CHECKING:
    from pipeline.smoke import FailureHold


@dataclass(frozen=True, slots=True)
class IndexResult:
    """Images of one recipe, one of each architecture, and their index at `layout` if several."""

    members: tuple[BuildResult, ...]
    index: Manifest | None
    layout: Path


def build_architectures(options: BuildOptions, build_env: BuildEnvironment) -> IndexResult:
    """Build, launch and test a recipe for each of its architectures, and write their index.

    For one architecture it is `build`. With several, the layout of each is `NAME.ARCH`, and `NAME` is that of the
    index. Nothing is built if this machine cannot test all of them, or write one. Raises RelbuildError.
    """
    each = tuple(_for_each(options))
    name = load_recipe(options.recipe, options.target).name
    if options.smoke:
        for one in each:
            find_emulator(oci_architecture(one.architectures[0]))
    layout = options.output / name
    for place in (layout, *(one.layout(name) for one in each)) if len(each) > 1 else ():
        require_layout_place(place)
    for place in dict.fromkeys((layout, *(one.layout(name) for one in each))):
        refuse_other_product(place, name)
    members = tuple(build(one, build_env) for one in each)
    if len(members) == 1:
        return IndexResult(members, None, members[0].layout)
    with build_env.store.locked(output_lock(layout)):
        index = write_index_layout([built.image for built in members], store=build_env.store, target=layout)
        # That of one image which was here before; the images of an index have reports of their own. Not earlier: a
        # layout of one image without a report counts as built elsewhere.
        remove_report(layout)
    return IndexResult(members, index, layout)


def lock_architectures(options: BuildOptions, build_env: BuildEnvironment) -> tuple[LockedRecipe, ...]:
    """Lock a recipe for each of its architectures. Raises RelbuildError."""
    return tuple(lock(one, build_env) for one in _for_each(options))


def explain_package(options: BuildOptions, build_env: BuildEnvironment, package: str) -> dict[str, str]:
    """Explain as text, for each architecture, why a package is in its image.

    Raises UsageError `package-not-chosen` if it is in none of them.
    """
    told: dict[str, str] = {}
    missing: UsageError | None = None
    every = lock_architectures(replace(options, smoke=False), build_env)
    for locked in every:
        arch = locked.section.resolution.arch
        try:
            told[arch] = explain(locked.all_chosen, package)
        except UsageError as error:
            missing, told[arch] = error, error.problems[0].message
    if missing is not None and all(text == missing.problems[0].message for text in told.values()):
        raise missing
    return told


@dataclass(frozen=True, slots=True)
class RetestedImage:
    """An image that was tested again, and the report.

    `architecture` is rpm's name, "" if it is the only image of its product.
    """

    product: str
    architecture: str
    report: SmokeReport

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.product} ({self.architecture})" if self.architecture else self.product


def smoke_architectures(
    options: BuildOptions, build_env: BuildEnvironment, layout: Path | None, holding: FailureHold | None = None
) -> tuple[RetestedImage, ...]:
    """Test the images of a recipe that were built before again, each as `smoke_image` does.

    They are those of its architectures, or those that `options` names. A `layout` that is given has one image.
    """
    options = for_built_platform(options, layout)
    recipe = load_recipe(options.recipe, options.target)
    if layout is not None:
        return (RetestedImage(recipe.name, "", smoke_image(options, build_env, layout, holding)[1]),)
    _, images = read_layout_images(options.output / recipe.name)
    wanted = [choose_image(images, arch, str(options.output / recipe.name)) for arch in options.architectures]
    several = len(images) > 1
    each = [replace(options, architectures=(image_architecture(image),), member=several) for image in wanted or images]
    for one in each:  # The evidence goes there.
        refuse_other_report(report_folder(one.layout(recipe.name)))
    tested = []
    for one in each:
        _, report = smoke_image(one, build_env, None, holding)
        tested.append(RetestedImage(recipe.name, one.architectures[0] if several else "", report))
    return tuple(tested)


def _for_each(options: BuildOptions) -> Iterator[BuildOptions]:
    """Return the options of each architecture. Raises UsageError if the platform lacks one."""
    recipe = load_recipe(options.recipe, options.target)
    platform = choose_platform(recipe, options)
    wanted = tuple(dict.fromkeys(options.architectures or recipe.architectures))
    each = [replace(options, architectures=(arch,), member=len(wanted) > 1) for arch in wanted]
    for one in each or [options]:  # Of no architecture nothing would be made, and that in silence.
        choose_architecture(recipe, platform, one)
    yield from each
