"""Build a recipe for several architectures: an image of each, and an index of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.build.build_image import build, lock
from pipeline.build.build_result import BuildResult
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.configuration import oci_architecture
from pipeline.model.manifests import Manifest
from pipeline.oci import write_index_layout
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe
from pipeline.prepare.locked_recipe import choose_architecture, choose_platform
from pipeline.recipes import load_recipe
from pipeline.reports import remove_report
from pipeline.sandbox import find_emulator


@dataclass(frozen=True, slots=True)
class IndexResult:
    """Images of one recipe, one of each architecture, and their index at `layout` if several."""

    members: tuple[BuildResult, ...]
    index: Manifest | None
    layout: Path


def build_architectures(options: BuildOptions, build_env: BuildEnvironment) -> IndexResult:
    """Build, launch and test a recipe for each of its architectures, and write their index.

    For one architecture it is `build`. With several, the layout of each is `NAME.ARCH`, and `NAME` is that of the
    index. Nothing is built if this machine cannot test all of them. Raises RelbuildError.
    """
    each = tuple(_for_each(options))
    if options.smoke:
        for one in each:
            find_emulator(oci_architecture(one.architectures[0]))
    members = tuple(build(one, build_env) for one in each)
    layout = options.output / members[0].image.name
    if len(members) == 1:
        return IndexResult(members, None, members[0].layout)
    with build_env.store.locked(f"output-{layout.resolve()}"):
        index = write_index_layout([built.image for built in members], store=build_env.store, target=layout)
        # That of one image which was here before; the images of an index have reports of their own. Not earlier: a
        # layout of one image without a report counts as built elsewhere.
        remove_report(layout)
    return IndexResult(members, index, layout)


def lock_architectures(options: BuildOptions, build_env: BuildEnvironment) -> tuple[LockedRecipe, ...]:
    """Lock a recipe for each of its architectures. Raises RelbuildError."""
    return tuple(lock(one, build_env) for one in _for_each(options))


def _for_each(options: BuildOptions) -> Iterator[BuildOptions]:
    """Return the options of each architecture. Raises UsageError if the platform lacks one."""
    recipe = load_recipe(options.recipe)
    platform = choose_platform(recipe, options)
    wanted = tuple(dict.fromkeys(options.architectures or recipe.architectures))
    each = [replace(options, architectures=(arch,), member=len(wanted) > 1) for arch in wanted]
    for one in each:
        choose_architecture(recipe, platform, one)
    yield from each
