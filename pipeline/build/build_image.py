"""The narrative of a build, one verb a line: lock, layers, state, image, smoke test, report.

Start reading at `build`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.build.begun_snapshot import begin_snapshot
from pipeline.build.build_report import DraftedDocuments, begin_documents, make_documents, write_build_report
from pipeline.build.build_result import AssembledImage, BuildResult
from pipeline.build.build_stages import (
    add_state,
    all_changes,
    begin_rendering,
    build_inputs,
    compose_layers,
    configure_image,
    draft_layers,
    forking_children,
    judge_scriptlets,
    packing_layers,
    parent_layers,
    plan_state,
    preparing_last_layer,
    render_recipe_files,
    reused_layers,
    smoke_test,
)
from pipeline.build.image_warnings import warn_of_oddities
from pipeline.build.remembered_build import output_lock
from pipeline.errors import RelbuildError, SmokeError, UsageError
from pipeline.heap import release_free_memory
from pipeline.launch import plan_to_test
from pipeline.model.bill import Bill, BuildRecord
from pipeline.model.configuration import oci_architecture
from pipeline.model.header import PackageHeader
from pipeline.model.image import Image
from pipeline.model.lock import LockSection
from pipeline.model.parent_image import ParentImage
from pipeline.model.recipe import Recipe
from pipeline.model.report import SmokeReport
from pipeline.model.smoke import SmokePlan
from pipeline.oci import (
    blob_path,
    image_architecture,
    load_layout_image,
    read_layout_images,
    require_layout_place,
    writing_layout,
)
from pipeline.prepare import (
    BuildEnvironment,
    BuildOptions,
    LockedRecipe,
    as_parent,
    fetch_and_verify,
    group_layers,
    keep_lock,
    number_owners,
    obtain_files,
    obtain_sources,
    plan_lock,
    resolve,
    retry_if_changed,
)
from pipeline.prepare.locked_recipe import choose_platform
from pipeline.process import CommandGroup
from pipeline.provenance_inputs import make_bill, make_build_record
from pipeline.recipes import load_recipe, recipe_name
from pipeline.reports import built_platform, report_folder, update_recorded_checks, write_evidence
from pipeline.sandbox import emulated_architectures, find_emulator, native_architectures
from pipeline.smoke import plan_digest

if TYPE_CHECKING:
    from pipeline.smoke import FailureHold
    from pipeline.store import UnnamedCopies


def build(options: BuildOptions, build_env: BuildEnvironment) -> BuildResult:
    """Build, launch and test one recipe, after its parent.

    Raises RelbuildError; an image that was launched and failed is no error here: see `BuildResult.report`.
    """
    started = build_env.clock()
    if options.smoke:
        build_env.require_containers()
    layout = options.layout(load_recipe(options.recipe, options.target).name)
    require_layout_place(layout)
    with build_env.store.copies_for(layout.parent, partial(blob_path, layout)) as copies:
        made = assemble(options, build_env, copies)
        if options.smoke:
            release_free_memory()  # That of the buffers: what is launched needs memory.
        image, locked = made.image, made.locked
        sources = obtain_sources(locked, build_env) if options.sources else None  # Before the output is locked.
        # Children that are built in parallel build the same parent: the second one finds it tested.
        with build_env.store.locked(output_lock(layout)):
            with writing_layout(image, store=build_env.store, target=layout, copies=copies):
                bill, record = describe_image(made, options, build_env)
                documents = make_documents(bill, record, sources, build_env.store, made.drafted)
            copies.close()  # What the layout did not want has its room, and memory, until then.
            tested = smoke_test(image, locked.recipe, options, build_env) if options.smoke else None
            built = BuildResult(made, layout, tested, bill, record, documents, took=build_env.clock() - started)
            write_build_report(built, build_env.store)
    return built


def assemble(options: BuildOptions, build_env: BuildEnvironment, copies: UnnamedCopies | None = None) -> AssembledImage:
    """Make a recipe's image in the store, without writing a layout.

    Scriptlets run on the layers' trees while their blobs are packed, which were all read back when this returns.
    `copies` gets copies of those that are packed.
    """
    begin_rendering(load_recipe(options.recipe, options.target))
    locked = lock(options, build_env)
    composition = compose_layers(locked)
    release_free_memory()  # That of the solver's pool and of the claims on paths.
    obtain_files(locked.recipe, build_env)
    commands = CommandGroup()
    with (
        forking_children(composition, options, build_env) as children,  # Before there are threads.
        ThreadPoolExecutor(1, "relbuild-beside", commands.join) as beside,
        commands,
        preparing_last_layer(locked, composition, build_env) as prepared,
    ):
        rendered = beside.submit(lambda: render_recipe_files(locked, build_env))
        planned = beside.submit(lambda: plan_state(locked, build_env))
        billed = beside.submit(lambda: begin_documents(locked, build_env))
        others = len(parent_layers(locked)) + 1
        with (
            _ended(beside),
            packing_layers(
                composition,
                options,
                build_env,
                others=others,
                making=prepared.begin,
                copies=copies,
                children=children,
            ) as layers,
            _ended(beside),  # Before packing ends, too, which may take a while.
        ):
            (files, templates), plan = rendered.result(), planned.result()
            state = add_state(
                locked, composition, layers, files, plan, prepared=prepared, options=options, build_env=build_env
            )
            failed, unused = judge_scriptlets(locked, state, build_env)
            configured, below = configure_image(locked), parent_layers(locked)
            made = AssembledImage(
                image=configured.with_layers([*below, *draft_layers(layers, options.compression), state.layer]),
                locked=locked,
                composition=composition,
                billed=billed.result(),
                layers=tuple(layers),
                states=state.states,
                changes=all_changes(locked, state.changes),
                reused=reused_layers(locked, layers, state),
                templates=templates,
                failed_scriptlets=failed,
                unused_waivers=unused,
            )
            if not all(one.confirmed for one in layers):
                made = _with_drafts(made, options, build_env)
    made = replace(made, image=configured.with_layers([*below, *(one.layer for one in layers), state.layer]))
    warn_of_oddities(made.image, locked, options, build_env)
    return made


def _with_drafts(made: AssembledImage, options: BuildOptions, build_env: BuildEnvironment) -> AssembledImage:
    """Make beside the packing what of an image's outputs depends on no blob.

    Where a file cannot be read or written, that is left to who makes them once all layers are there.
    """
    with contextlib.suppress(OSError):
        drafted = DraftedDocuments.of(*describe_image(made, options, build_env))
        return replace(made, drafted=drafted, begun=begin_snapshot(made.locked, options, build_env))
    return made


def describe_image(
    made: AssembledImage, options: BuildOptions, build_env: BuildEnvironment
) -> tuple[Bill, BuildRecord]:
    """Return the bill of an image and the record of its inputs, which may be drafted.

    Raises VerificationError if a layer or a package is damaged in the store.
    """
    if made.drafted is not None:
        return made.drafted.complete(made.image)
    bill = make_bill(made.image, made.billed, made.composition.tree, store=build_env.store)
    inputs = build_inputs(made.locked, made.templates.files, options, made.failed_scriptlets)
    return bill, make_build_record(made.image, inputs)


@contextlib.contextmanager
def _ended(beside: ThreadPoolExecutor) -> Iterator[None]:
    """Begin nothing more of what waits for a thread after an error, or Ctrl-C, in the block."""
    try:
        yield
    except BaseException:
        beside.shutdown(wait=False, cancel_futures=True)
        raise


def lock(options: BuildOptions, build_env: BuildEnvironment) -> LockedRecipe:
    """Lock a recipe with its packages.

    The image that it is built from is built first, if there is one.
    """
    parent = build_parent(options, build_env)
    plan = plan_lock(options, build_env, parent)

    def obtain() -> tuple[LockSection, tuple[PackageHeader, ...]]:
        section = resolve(plan)
        return section, fetch_and_verify(plan, section)

    section, headers = retry_if_changed(plan, obtain)
    section, accounts = number_owners(plan, section, headers)
    section = group_layers(plan, section, options)
    return keep_lock(plan, section, headers, accounts, options.mode)


def build_parent(options: BuildOptions, build_env: BuildEnvironment) -> ParentImage | None:
    """Build the image that the recipe of `options` is built from.

    It has its own lock, and the same platform and architecture. Where the child is to be tested, it is tested too and
    written to the output; unchanged results are recalled, the verdict as well. Raises SmokeError `parent-failed` if it
    does not pass its tests.
    """
    recipe = load_recipe(options.recipe, options.target)
    if recipe.parent is None:
        return None
    below = replace(
        options,
        recipe=recipe.parent.path,
        platform=options.platform or recipe.platform,
        architectures=options.architectures or recipe.architectures,
        retest=False,
        sources=False,
    )
    if not options.smoke:
        made = assemble(below, build_env)
    else:
        built = build(below, build_env)
        made = built.assembled
        if built.report is not None and not built.report.passed:
            raise SmokeError(
                "parent-failed",
                f"the parent '{recipe.parent.name}' of '{recipe.name}' did not pass its tests",
                place=str(recipe.parent.path),
                hint=f"see {built.report_folder}/; `relbuild build {recipe.parent.path.name} --retest` repeats it",
            )
    return as_parent(
        made.image,
        made.locked,
        made.composition.tree,
        states=made.states,
        changes=made.changes,
        failed_scriptlets=made.failed_scriptlets,
        store=build_env.store,
    )


def smoke_image(
    options: BuildOptions, build_env: BuildEnvironment, layout: Path | None, holding: FailureHold | None = None
) -> tuple[str, SmokeReport]:
    """Test an image that was built before again, with the recipe's checks.

    Its layers are loaded from the layout into the store and verified by digest. Returns the product's name and the
    report. Raises UsageError `platform-differs` if it was built for another platform than the options name.
    """
    options = for_built_platform(options, layout)
    recipe = load_recipe(options.recipe, options.target)
    image = load_layout_image(layout or options.layout(recipe.name), store=build_env.store)
    _require_platform(recipe, image, options, layout or options.layout(recipe.name))
    tested = smoke_test(image, recipe, replace(options, retest=True), build_env, holding)
    if layout is None:
        folder = report_folder(options.layout(recipe.name))
        checks = plan_digest(plan_to_test(recipe.smoke, full=options.full))
        update_recorded_checks(folder, image.digest, checks, build_env.store)
        write_evidence(folder, tested.evidence, build_env.store)
    return recipe.name, tested.report


def for_built_platform(options: BuildOptions, layout: Path | None = None) -> BuildOptions:
    """Return the options with the platform that the recipe's image was built for.

    One that they name stays. The recipe's own platform may be another one by now, or refuse it. `layout` is the
    image's, None for the usual one.
    """
    name = None if options.platform else recipe_name(options.recipe)
    if name is None:
        return options
    layout = layout or options.layout(name)
    try:
        _, images = read_layout_images(layout)
    except RelbuildError:
        return options
    built = (
        built_platform(report_folder(layout.with_name(f"{layout.name}{arch}")), image.digest)
        for image in images
        for arch in ("", f".{image_architecture(image)}")
    )
    return replace(options, platform=next(filter(None, built), None))


def load_or_build(options: BuildOptions, build_env: BuildEnvironment) -> tuple[Image, SmokePlan]:
    """Load a recipe's image from the output, or build it untested; return it and its smoke plan.

    Of several architectures, that which this machine runs best. An image that was built for another platform than the
    options name is built again. Raises RelbuildError.
    """
    options = for_built_platform(options)
    recipe = load_recipe(options.recipe, options.target)
    if options.architectures or len(recipe.architectures) > 1:
        arch = architecture_to_run(options.architectures or recipe.architectures)
        options = replace(options, architectures=(arch,), member=(arch,) != recipe.architectures)
    layout = options.layout(recipe.name)
    if not layout.exists():
        build(replace(options, smoke=False), build_env)
    image = load_layout_image(layout, store=build_env.store)
    built = built_platform(report_folder(layout), image.digest)
    if options.platform and built and built != choose_platform(recipe, options).full_name:
        build(replace(options, smoke=False), build_env)
        image = load_layout_image(layout, store=build_env.store)
    return image, recipe.smoke


def _require_platform(recipe: Recipe, image: Image, options: BuildOptions, layout: Path) -> None:
    """Refuse an image that was built for another platform than the options name.

    Raises UsageError `platform-differs`: the verdict of one platform's checks would publish the image of another.
    """
    built = built_platform(report_folder(layout), image.digest)
    if not options.platform or built is None:
        return
    wanted = choose_platform(recipe, options).full_name
    if built != wanted:
        raise UsageError(
            "platform-differs",
            f"the image of '{recipe.name}' was built for the platform '{built}', not for '{wanted}'",
            place=str(layout),
            hint="omit --platform and RELBUILD_PLATFORM to test it as it was built, "
            f"or build it first: `relbuild build {options.recipe.name} --platform {options.platform}`",
        )


def architecture_to_run(architectures: Sequence[str]) -> str:
    """Return the first of some architectures that this machine runs.

    One that it runs by itself comes before those that it emulates. They are rpm's names. Raises EnvironmentLacking
    `architecture-foreign` if it can run none of them.
    """
    here = native_architectures()
    own = next((arch for arch in architectures if oci_architecture(arch) in here), None)
    if own is not None:
        return own
    emulated = emulated_architectures()
    other = next((arch for arch in architectures if oci_architecture(arch) in emulated), architectures[0])
    find_emulator(oci_architecture(other))
    return other
