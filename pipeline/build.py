"""The narrative of a build: a recipe becomes a tested image. Each line a verb on a noun; start reading at
`build`."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import RecipeError
from pipeline.gather import Locked, Order, Workshop, lock_recipe, obtain_sources
from pipeline.launch import Tested, plan_asked, run_tests
from pipeline.layers import Made, build_layer
from pipeline.layers.state import ImageFile, State, StateInputs, build_state
from pipeline.layers.watch import Change
from pipeline.materials import (
    Inputs,
    make_bill,
    make_record,
    report_documents,
    report_folder,
    restate_checks,
    seal_documents,
    sources_document,
)
from pipeline.model.bill import Bill, BuildRecord
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_SEAL, Evidence, evidence_json
from pipeline.model.image import Image, ImageConfig, Layer
from pipeline.model.recipe import FileKind, FilePlan, Recipe
from pipeline.model.report import SmokeReport
from pipeline.model.smoke import SmokePlan
from pipeline.oci import adopt_layout, make_image, write_layout
from pipeline.recipes import load_recipe, scope
from pipeline.render import Templates, evaluate
from pipeline.smoke import Holding, junit, plan_digest, report_json
from pipeline.store import Store
from pipeline.transfer import Download, Network, fetch
from pipeline.trees import Canonical, ComposeOptions, Composition, compose, install_color, split_path

STATE_LAYER = "state"

FILE_LIMIT = 256 << 20
"""Bytes of a file that a recipe brings itself: configuration and plugins, not data sets."""

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
"""RPM's names of architectures → OCI's (Go's GOARCH)."""


@dataclass(frozen=True, slots=True)
class Built:
    """An image that stands in `layout`, its verdict, and what it took. `reused` names the layers that were not
    made anew; `changes` is package content that scriptlets or the recipe altered; `documents` are (name, content) of
    what the report says of the image's making, from `bill` and `record`; times are seconds."""

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
    took: float


def build(order: Order, workshop: Workshop) -> Built:
    """Build, launch and test one recipe. Raises RelbuildError; an image that was launched and failed is no error
    here: `Built.report` says so."""
    started = workshop.clock()
    locked = lock_recipe(order, workshop)
    composition = compose_layers(locked)
    layers = [
        build_layer(layer, store=workshop.store, compression=order.compression, progress=workshop.progress)
        for layer in composition.layers
    ]
    files, templates = render_files(locked, workshop)
    state = add_state(locked, composition, layers, files, order=order, workshop=workshop)
    image = pack_image(locked, [*(made.layer for made in layers), state.layer])
    layout = order.output / image.name
    write_layout(image, store=workshop.store, target=layout)
    bill = make_bill(image, locked.section, locked.headers, composition.tree, store=workshop.store)
    record = make_record(image, taken_in(locked, templates, order))
    documents = report_documents(bill, record, store=workshop.store)
    if order.sources:
        documents = (*documents, sources_document(obtain_sources(locked, workshop)))
    tested = test(image, locked.recipe, order, workshop) if order.smoke else None
    built = Built(
        image=image,
        layout=layout,
        locked=locked,
        changes=state.changes,
        reused=(
            *(made.layer.name for made in layers if made.reused),
            *((STATE_LAYER,) if state.reused else ()),
        ),
        report=tested.report if tested else None,
        evidence=tested.evidence if tested else None,
        verdict_reused=tested.reused if tested else False,
        report_folder=report_folder(layout),
        bill=bill,
        record=record,
        documents=documents,
        took=workshop.clock() - started,
    )
    write_report(built, workshop.store)
    return built


# --- compose, render, pack -------------------------------------------------------------------------------


def compose_layers(locked: Locked) -> Composition:
    """What every layer will contain, from headers alone; conflicts and unsafe paths are refused here."""
    resolution = locked.section.resolution
    by_nevra = {str(header.nevra): header for header in locked.headers}
    plans = [
        (plan.name, [by_nevra[str(package.nevra)] for package in resolution.layer(plan.name)])
        for plan in locked.recipe.layers
    ]
    return compose(
        plans,
        locked.accounts,
        ComposeOptions(
            languages=locked.recipe.languages,
            docs={plan.name: plan.docs for plan in locked.recipe.layers},
            man={plan.name: plan.man for plan in locked.recipe.layers},
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
        for header in locked.headers
    }
    return {**scope(locked.recipe), "packages": packages}


def render_files(locked: Locked, workshop: Workshop) -> tuple[tuple[ImageFile, ...], tuple[Path, ...]]:
    """The recipe's files with their final content, and every template file that took part."""
    seen = facts(locked)
    templates = Templates(locked.recipe.template_folders)
    folder = locked.recipe.path.parent
    made = [_render(plan, folder, templates, seen, workshop) for plan in locked.recipe.files]
    return tuple(file for file, _ in made), tuple(path for _, paths in made for path in paths)


def _render(
    plan: FilePlan, folder: Path, templates: Templates, seen: Mapping[str, object], workshop: Workshop
) -> tuple[ImageFile, tuple[Path, ...]]:
    content: bytes | None = None
    link = ""
    read: tuple[Path, ...] = ()
    match plan.kind:
        case FileKind.TEMPLATE:
            rendered = templates.render(plan.origin, seen, place=plan.place)
            content, read = rendered.text.encode(), rendered.sources
        case FileKind.CONTENT:
            content = plan.origin.encode()
        case FileKind.SOURCE:
            content = read_source(folder / plan.origin, plan)
        case FileKind.URL:
            (digest,) = fetch(
                workshop.store,
                [Download((plan.origin,), plan.sha256, None, plan.path)],
                progress=workshop.progress,
                offline=workshop.offline,
                network=Network.of(workshop.environment),
            )
            content = workshop.store.read(digest, limit=FILE_LIMIT)
        case FileKind.SYMLINK:
            link = plan.origin
        case FileKind.DIRECTORY:
            pass
    file = ImageFile(plan.path, plan.kind, content, link, plan.mode or 0, plan.owner, plan.group, plan.place)
    return file, read


def read_source(path: Path, plan: FilePlan) -> bytes:
    """A file that stands beside the recipe. Raises RecipeError `source-missing`, `source-too-large`."""
    try:
        size = path.stat().st_size
        if size > FILE_LIMIT:
            raise RecipeError(
                "source-too-large",
                f"{path} has {size} bytes, more than {FILE_LIMIT}",
                place=plan.place,
                hint="put it into a package",
            )
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise RecipeError(
            "source-missing",
            f"{plan.path} is to be made from {path}, which is no file: {error.strerror}",
            place=plan.place,
            hint="correct `source:`; it is relative to the recipe",
        ) from error


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
            layers=tuple(made.layer for made in layers),
            paths={
                str(header.nevra): tuple(canonical.path(split_path(file.path)) for file in header.files)
                for header in locked.headers
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
        ),
        store=workshop.store,
        station=workshop.station,
        compression=order.compression,
        progress=workshop.progress,
    )


def pack_image(locked: Locked, layers: Sequence[Layer]) -> Image:
    """Config and manifest around the layers."""
    recipe, section, plan = locked.recipe, locked.section, locked.recipe.image
    seen = facts(locked)
    place = str(recipe.path)

    def said(text: str) -> str:
        return evaluate(text, seen, place=place)

    version = said(recipe.version)
    labels = {
        "org.opencontainers.image.title": recipe.name,
        "org.opencontainers.image.version": version,
        **{key: said(value) for key, value in plan.labels},
    }
    config = ImageConfig(
        architecture=_ARCHITECTURES.get(section.resolution.arch, section.resolution.arch),
        created=section.build_time,
        entrypoint=tuple(map(said, plan.entrypoint)),
        command=tuple(map(said, plan.command)),
        user=plan.user,
        working_directory=plan.working_directory,
        environment=tuple(f"{key}={said(value)}" for key, value in plan.environment),
        exposed_ports=plan.exposed_ports,
        volumes=plan.volumes,
        stop_signal=plan.stop_signal,
        labels=tuple(sorted(labels.items())),
    )
    return make_image(recipe.name, tag_of(version), config, layers)


def tag_of(version: str) -> str:
    """A tag that says the version: what a tag cannot hold becomes `-` (distribution-spec, 128 characters)."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]", "-", version)[:128]
    return cleaned if re.match(r"[A-Za-z0-9_]", cleaned) else "latest"


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


def write_report(built: Built, store: Store) -> None:
    """`NAME.report/` beside the layout: `report.json`, `junit.xml`, the containers' logs, what the image was made of,
    and of an image that passed the evidence. Whole or not at all."""
    folder = built.report_folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        made.chmod(0o755)
        (made / "report.json").write_text(json.dumps(report_value(built), indent=2, sort_keys=True) + "\n")
        for name, content in built.documents:
            (made / name).write_bytes(content)
        seal_documents(made, built.image.digest, built.documents, store)
        if built.report is not None:
            (made / "junit.xml").write_bytes(junit(built.report, built.image.name))
            for instance in built.report.instances:
                (made / f"{instance.name}.log").write_text(instance.log)
        keep_evidence(made, built.evidence, store)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def report_value(built: Built) -> dict[str, object]:
    """All that is known of a build, as JSON."""
    section = built.locked.section
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
            for chosen in section.resolution.chosen
        ],
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


def keep_evidence(folder: Path, evidence: Evidence | None, store: Store) -> None:
    """`evidence.json` and the store's seal on it (`evidence.seal`) in `folder`; without evidence none are there."""
    for name in (EVIDENCE_SEAL, EVIDENCE_FILE):
        (folder / name).unlink(missing_ok=True)
    if evidence is not None:
        folder.mkdir(parents=True, exist_ok=True)
        data = evidence_json(evidence)
        (folder / EVIDENCE_FILE).write_bytes(data)
        (folder / EVIDENCE_SEAL).write_text(f"{store.seal(data)}\n")


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
