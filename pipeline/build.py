"""The narrative of a build: a recipe becomes a tested image. Each line a verb on a noun; start reading at
`build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import SmokeError
from pipeline.gather import Locked, Order, Workshop, as_parent, lock_recipe, obtain_archives, obtain_sources
from pipeline.launch import Tested, plan_asked, run_tests
from pipeline.layers import Made, build_layer
from pipeline.layers.files import FILE_LIMIT, ImageFile, render_files
from pipeline.layers.state import State, StateInputs, build_state
from pipeline.materials import Inputs, make_bill, make_record
from pipeline.mirror.tags import version_tag
from pipeline.model.bill import Bill, BuildRecord
from pipeline.model.change import Change
from pipeline.model.configuration import BASE_DIGEST, image_config, inherited
from pipeline.model.evidence import Evidence
from pipeline.model.image import Image, Layer
from pipeline.model.parent import ParentImage
from pipeline.model.recipe import Recipe
from pipeline.model.report import SmokeReport
from pipeline.model.smoke import SmokePlan
from pipeline.model.tree import Tree
from pipeline.oci import adopt_layout, make_image, media_types, write_layout
from pipeline.recipes import load_recipe, scope
from pipeline.render import evaluate
from pipeline.reports import (
    keep_evidence,
    report_documents,
    report_folder,
    restate_checks,
    sources_document,
    write_report,
)
from pipeline.resolve import explain, image_layers
from pipeline.smoke import Holding, plan_digest, report_json
from pipeline.transfer import Download, Network, fetch
from pipeline.trees import Canonical, ComposeOptions, Composition, compose, install_color, split_path

STATE_LAYER = "state"


@dataclass(frozen=True, slots=True)
class Assembled:
    """An image whose layers are in the store. `composition` is what all but the last come to, and `states` are rpm's of
    all files, by NEVRA, as its database has them. `reused` names the layers that were not made anew; `changes` is
    package content that scriptlets or recipes altered, in the parent too; `templates` are the files that took part."""

    image: Image
    locked: Locked
    composition: Composition
    states: Mapping[str, tuple[int, ...]]
    changes: tuple[Change, ...]
    reused: tuple[str, ...]
    templates: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """An image that stands in `layout`, its verdict, and what it took. `documents` are (name, content) of what the
    report says of the image's making, from `bill` and `record`; times are seconds."""

    image: Image
    layout: Path
    locked: Locked
    changes: tuple[Change, ...]
    reused: tuple[str, ...]
    report: SmokeReport | None
    evidence: Evidence | None
    verdict_reused: bool
    report_folder: Path
    bill: Bill
    record: BuildRecord
    documents: tuple[tuple[str, bytes], ...]
    assembled: Assembled
    took: float


def build(order: Order, workshop: Workshop) -> Built:
    """Build, launch and test one recipe, after what it is built from. Raises RelbuildError; an image that was launched
    and failed is no error here: `Built.report` says so."""
    started = workshop.clock()
    made = assemble(order, workshop)
    layout = order.output / made.image.name
    # Children that are built side by side come here for the same parent: the second finds it tested.
    with workshop.store.locked(f"output-{layout.resolve()}"):
        return hand_over(made, layout, order, workshop, started)


def hand_over(made: Assembled, layout: Path, order: Order, workshop: Workshop, started: float) -> Built:
    """Write an image's layout, test it, and write its report. `started` is seconds since the epoch."""
    locked, image = made.locked, made.image
    write_layout(image, store=workshop.store, target=layout)
    bill = make_bill(image, locked.all_chosen, locked.all_headers, made.composition.tree, store=workshop.store)
    record = make_record(image, taken_in(locked, made.templates, order))
    documents = report_documents(bill, record, store=workshop.store)
    if order.sources:
        documents = (*documents, sources_document(obtain_sources(locked, workshop)))
    tested = test(image, locked.recipe, order, workshop) if order.smoke else None
    built = Built(
        image=image,
        layout=layout,
        locked=locked,
        changes=made.changes,
        reused=made.reused,
        report=tested.report if tested else None,
        evidence=tested.evidence if tested else None,
        verdict_reused=tested.reused if tested else False,
        report_folder=report_folder(layout),
        bill=bill,
        record=record,
        documents=documents,
        assembled=made,
        took=workshop.clock() - started,
    )
    write_report(
        built.report_folder,
        report_value(built),
        documents,
        report=built.report,
        evidence=built.evidence,
        image=image,
        store=workshop.store,
    )
    return built


def assemble(order: Order, workshop: Workshop) -> Assembled:
    """A recipe's image, not written anywhere but into the store."""
    locked = lock(order, workshop)
    composition = compose_layers(locked)
    layers = [
        build_layer(layer, store=workshop.store, compression=order.compression, progress=workshop.progress)
        for layer in composition.layers
    ]
    obtain_archives(locked.recipe, workshop)
    files, templates = render_files(locked.recipe, facts(locked), getting(workshop), workshop.store)
    state = add_state(locked, composition, layers, files, order=order, workshop=workshop)
    below = layers_below(locked)
    return Assembled(
        image=pack_image(locked, [*below, *(made.layer for made in layers), state.layer]),
        locked=locked,
        composition=composition,
        states=state.states,
        changes=all_changes(locked, state.changes),
        reused=(
            *(layer.name for layer in below),
            *(made.layer.name for made in layers if made.reused),
            *((STATE_LAYER,) if state.reused else ()),
        ),
        templates=templates,
    )


# --- what it is built from -------------------------------------------------------------------------------


def lock(order: Order, workshop: Workshop) -> Locked:
    """A recipe with its packages, after the image that it is built from was built, if there is one."""
    return lock_recipe(order, workshop, build_parent(order, workshop))


def explain_package(order: Order, workshop: Workshop, package: str) -> str:
    """Why a package is in the image, as text."""
    return explain(lock(replace(order, smoke=False), workshop).all_chosen, package)


def build_parent(order: Order, workshop: Workshop) -> ParentImage | None:
    """The image that the recipe of `order` is built from: with its own lock, for the same platform and architecture.
    Where the child is to be tested, it is tested too and stands in the output; what is unchanged is recalled, the
    verdict as well. Raises SmokeError `parent-failed`: nothing is built on an image that did not pass."""
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
                f"'{recipe.parent.name}', which '{recipe.name}' is built from, did not pass its tests",
                place=str(recipe.parent.path),
                hint=f"see {built.report_folder}/; `relbuild build {recipe.parent.path.name} --retest` asks again",
            )
    return as_parent(
        made.image,
        made.locked,
        made.composition.tree,
        states=made.states,
        changes=made.changes,
        store=workshop.store,
    )


def all_changes(locked: Locked, own: Sequence[Change]) -> tuple[Change, ...]:
    """What in the whole image is not as packages brought it: also what was done in the parent and is still so."""
    below = locked.parent.changes if locked.parent else ()
    again = {change.path for change in own}
    return (*(change for change in below if change.path not in again), *own)


def layers_below(locked: Locked) -> tuple[Layer, ...]:
    """The parent's layers, the lowest first."""
    return locked.parent.image.layers if locked.parent else ()


# --- compose, render, pack -------------------------------------------------------------------------------


def compose_layers(locked: Locked) -> Composition:
    """What every layer will contain, from headers alone; conflicts and unsafe paths are refused here."""
    resolution = locked.section.resolution
    by_nevra = {str(header.nevra): header for header in locked.headers}
    layers = image_layers(locked.recipe, resolution)
    plans = [(name, [by_nevra[str(package.nevra)] for package in resolution.layer(name)]) for name, _ in layers]
    return compose(
        plans,
        locked.accounts,
        ComposeOptions(
            languages=locked.recipe.languages,
            docs={name: plan.docs for name, plan in layers},
            man={name: plan.man for name, plan in layers},
            below=locked.parent.tree if locked.parent else Tree.of({}),
            installed=locked.parent.packages if locked.parent else (),
        ),
    )


def facts(locked: Locked) -> dict[str, object]:
    """What templates and `{{ packages[…] }}` see: the recipe's values, and the packages after the lock."""
    packages = {
        header.nevra.name: {
            "name": header.nevra.name,
            "epoch": header.nevra.epoch,
            "version": header.nevra.version,
            "release": header.nevra.release,
            "evr": header.nevra.evr,
            "arch": header.nevra.arch,
            "nevra": str(header.nevra),
        }
        for header in locked.all_headers
    }
    return {**scope(locked.recipe), "packages": packages}


def getting(workshop: Workshop) -> Callable[[Download], bytes]:
    """Fetches a file that has a URL, or has it in the store."""

    def get(wanted: Download) -> bytes:
        if wanted.target is not None:
            workshop.store.sound(wanted.target)  # A damaged one is put aside, and fetched anew.
        (digest,) = fetch(
            workshop.store,
            [wanted],
            progress=workshop.progress,
            offline=workshop.offline,
            network=Network.of(workshop.environment),
        )
        return workshop.store.read(digest, limit=FILE_LIMIT)

    return get


def taken_in(locked: Locked, templates: tuple[Path, ...], order: Order) -> Inputs:
    """What the build takes in, for the record of it."""
    return Inputs(
        recipe=locked.recipe,
        repositories=order.repositories,
        platform=locked.platform,
        section=locked.section,
        lock=locked.path,
        headers=locked.headers,
        keys=locked.keys,
        templates=templates,
        compression=order.compression,
        checks=plan_digest(plan_asked(locked.recipe.smoke, full=order.full)),
        parent=locked.parent,
    )


def add_state(
    locked: Locked,
    composition: Composition,
    layers: Sequence[Made],
    files: tuple[ImageFile, ...],
    *,
    order: Order,
    workshop: Workshop,
) -> State:
    """The last layer: scriptlets, accounts, configuration and the RPM database, made inside the sandbox."""
    canonical = Canonical.in_tree(composition.tree)
    return build_state(
        StateInputs(
            layers=(*layers_below(locked), *(made.layer for made in layers)),
            paths={
                str(header.nevra): tuple(canonical.path(split_path(file.path)) for file in header.files)
                for header in locked.all_headers
            },
            headers=locked.headers,
            states=composition.states,
            tree=composition.tree,
            accounts=locked.accounts,
            files=files,
            remove=locked.recipe.remove,
            rpm_database=locked.platform.rpm_database,
            install_color=install_color(locked.section.resolution.arch),
            build_time=locked.section.build_time,
            below=locked.parent.packages if locked.parent else (),
        ),
        store=workshop.store,
        station=workshop.station,
        compression=order.compression,
        progress=workshop.progress,
    )


def pack_image(locked: Locked, layers: Sequence[Layer]) -> Image:
    """Config and manifest around the layers."""
    recipe, section = locked.recipe, locked.section
    seen = facts(locked)

    def said(text: str) -> str:
        return evaluate(text, seen, place=str(recipe.path))

    version = said(recipe.version)
    config = image_config(
        recipe,
        version,
        said,
        arch=section.resolution.arch,
        created=section.build_time,
        rpm_database=locked.platform.rpm_database,
    )
    notes = {media_types.END_OF_LIFE: recipe.end_of_life} if recipe.end_of_life else {}
    if locked.parent is not None:
        config = inherited(config, recipe.image.given, locked.parent.image.config)
        notes[BASE_DIGEST] = str(locked.parent.digest)
    return make_image(recipe.name, version_tag(version), config, layers, notes)


def test(image: Image, recipe: Recipe, order: Order, workshop: Workshop, holding: Holding | None = None) -> Tested:
    """Launch the image under the recipe's limits and ask its checks, or recall that this was done."""
    return run_tests(
        image,
        recipe.smoke,
        store=workshop.store,
        station=workshop.station(),
        progress=workshop.progress,
        clock=workshop.clock,
        again=order.retest,
        full=order.full,
        folder=recipe.path.parent,
        holding=holding,
    )


# --- the report --------------------------------------------------------------------------------------------


def report_value(built: Built) -> dict[str, object]:
    """All that is known of a build, as JSON."""
    section, parent = built.locked.section, built.locked.parent
    return {
        "image": {
            "name": built.image.name,
            "reference": built.image.reference,
            "digest": str(built.image.digest),
            "layers": [
                {
                    "name": layer.name,
                    "digest": str(layer.blob.digest),
                    "diff_id": str(layer.diff_id),
                    "size": layer.blob.size,
                    "tar_size": layer.tar_size,
                    "reused": layer.name in built.reused,
                }
                for layer in built.image.layers
            ],
        },
        "packages": [
            {
                "nevra": str(chosen.package.nevra),
                "layer": chosen.layer,
                "repository": chosen.package.repository,
                "sha256": chosen.package.checksum.hex,
                "size": chosen.package.size,
            }
            for chosen in built.locked.all_chosen
        ],
        "parent": {"recipe": parent.name, "digest": str(parent.digest)} if parent else None,
        "build_time": section.build_time,
        "assumed_installed": list(section.resolution.assumed),
        "changed_package_files": [
            {"path": f"/{change.path}", "package": change.package, "cause": change.cause} for change in built.changes
        ],
        "lock": {"wrote": built.locked.wrote, "changes": list(built.locked.changes)},
        "took_ms": round(built.took * 1000),
        "smoke": report_json(built.report) if built.report is not None else None,
        "verdict_reused": built.verdict_reused,
    }


def smoke_image(
    order: Order, workshop: Workshop, layout: Path | None, holding: Holding | None = None
) -> tuple[str, SmokeReport]:
    """Launch an image that was built before, again, with the recipe's checks; its layers are taken from the
    layout into the store, digest by digest. Returns the product's name and the verdict."""
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
    """A recipe's image as it stands in the output, built (and not tested) if it is not there; and how it is tested."""
    recipe = load_recipe(order.recipe)
    layout = order.output / recipe.name
    if not layout.exists():
        build(replace(order, smoke=False), workshop)
    return adopt_layout(layout, store=workshop.store), recipe.smoke
