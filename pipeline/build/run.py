"""The stages of a build in their order: a recipe becomes a tested image.

Each line is a verb on a noun; start reading at `build`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.build.report import describe, report
from pipeline.build.results import Assembled, Built
from pipeline.build.stages import (
    add_state,
    all_changes,
    compose_layers,
    facts,
    getting,
    layers_below,
    make_config_and_manifest,
    pack_layers,
    reused_layers,
    taken_in,
    test,
)
from pipeline.errors import SmokeError
from pipeline.gather import (
    Locked,
    Order,
    Workshop,
    as_parent,
    fetch_and_verify,
    group_layers,
    keep_lock,
    number_owners,
    obtain_archives,
    plan_lock,
    resolve,
    steadily,
)
from pipeline.launch import plan_asked
from pipeline.layers.files import render_files
from pipeline.materials import make_bill, make_record
from pipeline.model.header import PackageHeader
from pipeline.model.image import Image
from pipeline.model.lock import LockSection
from pipeline.model.parent import ParentImage
from pipeline.model.report import SmokeReport
from pipeline.model.smoke import SmokePlan
from pipeline.oci import adopt_layout, write_layout
from pipeline.recipes import load_recipe
from pipeline.reports import (
    keep_evidence,
    report_folder,
    restate_checks,
)
from pipeline.resolve import explain
from pipeline.smoke import Holding, plan_digest


def build(order: Order, workshop: Workshop) -> Built:
    """Build, launch and test one recipe, after what it is built from.

    Raises RelbuildError; an image that was launched and failed is no error here: `Built.report` says so.
    """
    started = workshop.clock()
    made = assemble(order, workshop)
    image, locked, layout = made.image, made.locked, order.output / made.image.name
    # Children that are built side by side come here for the same parent: the second finds it tested.
    with workshop.store.locked(f"output-{layout.resolve()}"):
        write_layout(image, store=workshop.store, target=layout)
        bill = make_bill(image, locked.all_chosen, locked.all_headers, made.composition.tree, store=workshop.store)
        record = make_record(image, taken_in(locked, made.templates, order))
        documents = describe(bill, record, locked, order, workshop)
        tested = test(image, locked.recipe, order, workshop) if order.smoke else None
        built = Built(made, layout, tested, bill, record, documents, took=workshop.clock() - started)
        report(built, workshop.store)
    return built


def assemble(order: Order, workshop: Workshop) -> Assembled:
    """Make a recipe's image, which is written nowhere but into the store."""
    locked = lock(order, workshop)
    composition = compose_layers(locked)
    layers = pack_layers(composition, order, workshop)
    obtain_archives(locked.recipe, workshop)
    files, templates = render_files(locked.recipe, facts(locked), getting(workshop), workshop.store)
    state = add_state(locked, composition, layers, files, order=order, workshop=workshop)
    image = make_config_and_manifest(locked, [*layers_below(locked), *(made.layer for made in layers), state.layer])
    return Assembled(
        image=image,
        locked=locked,
        composition=composition,
        states=state.states,
        changes=all_changes(locked, state.changes),
        reused=reused_layers(locked, layers, state),
        templates=templates,
    )


def lock(order: Order, workshop: Workshop) -> Locked:
    """Lock a recipe with its packages.

    The image that it is built from is built first, if there is one.
    """
    parent = build_parent(order, workshop)
    plan = plan_lock(order, workshop, parent)

    def obtain() -> tuple[LockSection, tuple[PackageHeader, ...]]:
        section = resolve(plan)
        return section, fetch_and_verify(plan, section)

    section, headers = steadily(plan, obtain)
    section, accounts = number_owners(plan, section, headers)
    section = group_layers(plan, section, order)
    return keep_lock(plan, section, headers, accounts, order.mode)


def build_parent(order: Order, workshop: Workshop) -> ParentImage | None:
    """Build the image that the recipe of `order` is built from.

    It has its own lock, and the same platform and architecture. Where the child is to be tested, it is tested too and
    stands in the output; what is unchanged is recalled, the verdict as well. Raises SmokeError `parent-failed`: nothing
    is built on an image that did not pass.
    """
    recipe = load_recipe(order.recipe)
    if recipe.parent is None:
        return None
    below = replace(
        order,
        recipe=recipe.parent.path,
        platform=order.platform or recipe.platform,
        architectures=order.architectures or recipe.architectures,
        retest=False,
        sources=False,
    )
    if not order.smoke:
        made = assemble(below, workshop)
    else:
        built = build(below, workshop)
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
        store=workshop.store,
    )


def explain_package(order: Order, workshop: Workshop, package: str) -> str:
    """Explain as text why a package is in the image."""
    return explain(lock(replace(order, smoke=False), workshop).all_chosen, package)


def smoke_image(
    order: Order, workshop: Workshop, layout: Path | None, holding: Holding | None = None
) -> tuple[str, SmokeReport]:
    """Test an image that was built before, again, with the recipe's checks.

    It is launched; its layers are taken from the layout into the store, digest by digest. Returns the product's name
    and the verdict.
    """
    recipe = load_recipe(order.recipe)
    image = adopt_layout(layout or order.output / recipe.name, store=workshop.store)
    tested = test(image, recipe, replace(order, retest=True), workshop, holding)
    if layout is None:
        folder = report_folder(order.output / recipe.name)
        checks = plan_digest(plan_asked(recipe.smoke, full=order.full))
        restate_checks(folder, image.digest, checks, workshop.store)
        keep_evidence(folder, tested.evidence, workshop.store)
    return recipe.name, tested.report


def launchable(order: Order, workshop: Workshop) -> tuple[Image, SmokePlan]:
    """Return a recipe's image as it stands in the output, and the plan of its tests.

    The image is built (and not tested) if it is not there.
    """
    recipe = load_recipe(order.recipe)
    layout = order.output / recipe.name
    if not layout.exists():
        build(replace(order, smoke=False), workshop)
    return adopt_layout(layout, store=workshop.store), recipe.smoke
