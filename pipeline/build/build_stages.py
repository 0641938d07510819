"""Stages of a build between lock and report: compose, pack, state layer, config, smoke test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import render
from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, Problem, RecipeError
from pipeline.launch import SmokeResult, plan_to_test, run_tests
from pipeline.layers import BuiltLayer, building_layers
from pipeline.layers.installed_packages import final_file_states, write_package_records
from pipeline.layers.recipe_files import RECIPE_FILE_LIMIT, ImageFile, ReadTemplates, render_files
from pipeline.layers.scriptlet_failures import judge_failure, unused_waivers
from pipeline.layers.state_layer import StateInputs, StateLayer, build_state_layer
from pipeline.layers.state_plan import StatePlan, plan_state_layer
from pipeline.layers.state_preparation import StatePreparation, preparing_state
from pipeline.layers.unpacking_children import UnpackingChildren, unpacking_children
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.image_tags import version_tag
from pipeline.model.change import Change
from pipeline.model.configuration import BASE_DIGEST, image_config, inherited, oci_architecture
from pipeline.model.image import Descriptor, Image, ImageConfig, Layer
from pipeline.model.recipe import FileKind, Recipe
from pipeline.model.scriptlets import ToleratedFailure
from pipeline.model.tree import Tree
from pipeline.oci import make_image, media_types
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe
from pipeline.provenance_inputs import BuildInputs
from pipeline.recipes import template_scope
from pipeline.resolve import image_layers
from pipeline.sandbox import SandboxRegistry, find_emulator, may_make_containers
from pipeline.smoke import plan_digest
from pipeline.store import UnnamedCopies
from pipeline.transfer import Download, Network, fetch
from pipeline.trees import (
    CanonicalPaths,
    ComposeOptions,
    Composition,
    compose,
    install_color,
    split_path,
)

if TYPE_CHECKING:
    from pipeline.smoke import FailureHold

STATE_LAYER = "state"


def compose_layers(locked: LockedRecipe) -> Composition:
    """Compose the entries of every layer from headers; raise for conflicts and unsafe paths."""
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


def packing_layers(
    composition: Composition,
    options: BuildOptions,
    build_env: BuildEnvironment,
    *,
    others: int,
    making: Callable[[], None],
    copies: UnnamedCopies | None = None,
    children: UnpackingChildren | None = None,
) -> AbstractContextManager[list[BuiltLayer]]:
    """Pack the package layers into blobs, the lowest first, beside the block and until its end.

    Where scriptlets run in containers, their trees are there when the block begins. The image will have `others` layers
    besides. `making` is called if a layer has to be made, `copies` gets copies of the blobs that are made, and
    `children` unpack some of the packages.
    """
    return building_layers(
        composition.layers,
        store=build_env.store,
        compression=options.compression,
        unpack=may_make_containers(),
        others=others,
        making=making,
        copies=copies,
        children=children,
        progress=build_env.progress,
    )


def forking_children(
    composition: Composition, options: BuildOptions, build_env: BuildEnvironment
) -> AbstractContextManager[UnpackingChildren]:
    """Have children for the block that unpack packages, where that is worth it.

    To be called before there are threads.
    """
    if not may_make_containers():
        return nullcontext(UnpackingChildren())
    return unpacking_children(composition.layers, options.compression, build_env.store, build_env.progress)


def begin_rendering(recipe: Recipe) -> None:
    """Start the process that renders a recipe's templates before it is needed."""
    if any(file.kind is FileKind.TEMPLATE for file in recipe.files):
        render.start_renderer()


def template_variables(locked: LockedRecipe) -> dict[str, object]:
    """Return the variables of templates: the recipe's values and the locked `packages`."""
    packages = {header.nevra.name: header.nevra.variables() for header in locked.all_headers}
    return template_scope(locked.recipe, packages)


def url_fetcher(build_env: BuildEnvironment) -> Callable[[Download], bytes]:
    """Return a function that fetches a file by URL into the store and returns its content."""

    def get(wanted: Download) -> bytes:
        if wanted.target is not None:
            build_env.store.sound(wanted.target)  # A damaged one is moved aside, and fetched again.
        (digest,) = fetch(
            build_env.store,
            [wanted],
            progress=build_env.progress,
            offline=build_env.offline,
            network=Network.of(build_env.environment),
        )
        return build_env.store.read(digest, limit=RECIPE_FILE_LIMIT)

    return get


def render_recipe_files(
    locked: LockedRecipe, build_env: BuildEnvironment
) -> tuple[tuple[ImageFile, ...], ReadTemplates]:
    """Return the recipe's files as they will be in the image, and the templates that were read."""
    return render_files(locked.recipe, template_variables(locked), url_fetcher(build_env), build_env.store)


def plan_state(locked: LockedRecipe, build_env: BuildEnvironment) -> StatePlan:
    """Plan the scriptlets of the last layer."""
    below = locked.parent.packages if locked.parent else ()
    return plan_state_layer(locked.headers, [one.header for one in below], build_env.store)


def preparing_last_layer(
    locked: LockedRecipe, composition: Composition, build_env: BuildEnvironment
) -> AbstractContextManager[StatePreparation]:
    """Prepare the last layer beside the block: what it needs that no layer below it changes."""

    def write_database(folder: Path) -> Path:
        below = locked.parent.packages if locked.parent else ()
        installed = [(one.header, one.install_time) for one in below]
        installed += [(header, locked.section.build_time) for header in locked.headers]
        remove = locked.recipe.remove
        paths = _canonical_paths(locked, composition) if remove else {}
        return write_package_records(
            installed,
            final_file_states(composition.states, paths, remove, composition.tree),
            install_color(locked.section.resolution.arch),
            form=locked.platform.rpm_database.format,
            store=build_env.store,
            folder=folder,
        )

    arch = locked.section.resolution.arch
    return preparing_state(write_database, sandboxes=lambda: _sandboxes_for(arch, build_env), store=build_env.store)


def add_state(
    locked: LockedRecipe,
    composition: Composition,
    layers: Sequence[BuiltLayer],
    files: tuple[ImageFile, ...],
    plan: StatePlan,
    *,
    prepared: StatePreparation,
    options: BuildOptions,
    build_env: BuildEnvironment,
) -> StateLayer:
    """Make the last layer: scriptlets, accounts, configuration and the RPM database.

    It is made inside the sandbox.
    """
    return build_state_layer(
        StateInputs(
            layers=(*parent_layers(locked), *layers),
            paths=_canonical_paths(locked, composition) if locked.recipe.remove else {},
            headers=locked.headers,
            states=composition.states,
            tree=composition.tree,
            accounts=locked.accounts,
            scripted=locked.scripted,
            files=files,
            remove=locked.recipe.remove,
            remove_places=locked.recipe.remove_places,
            rpm_database=locked.platform.rpm_database,
            install_color=install_color(locked.section.resolution.arch),
            build_time=locked.section.build_time,
            architecture=oci_architecture(locked.section.resolution.arch),
            below=locked.parent.packages if locked.parent else (),
        ),
        locked.recipe.scriptlets,
        plan,
        prepared=prepared,
        store=build_env.store,
        compression=options.compression,
        progress=build_env.progress,
    )


def _canonical_paths(locked: LockedRecipe, composition: Composition) -> dict[str, tuple[str, ...]]:
    canonical = CanonicalPaths.in_tree(composition.tree)
    return {
        str(header.nevra): tuple(canonical.path(split_path(file.path)) for file in header.files)
        for header in locked.all_headers
    }


def _sandboxes_for(arch: str, build_env: BuildEnvironment) -> SandboxRegistry | None:
    """Open the sandbox registry, None where scriptlets are to be traced.

    Raises EnvironmentLacking `architecture-foreign` if programs of `arch` cannot be run here.
    """
    emulator = find_emulator(oci_architecture(arch))
    sandboxes = build_env.script_sandboxes()
    if sandboxes is None and emulator is not None:
        raise EnvironmentLacking(
            "architecture-foreign",
            f"scriptlets of {arch} cannot be run here: an emulated program cannot be traced ({emulator.label})",
            hint="build as root or as a user with subordinate IDs, or on a machine of that architecture",
        )
    return sandboxes


def judge_scriptlets(
    locked: LockedRecipe, state: StateLayer, build_env: BuildEnvironment
) -> tuple[tuple[ToleratedFailure, ...], tuple[str, ...]]:
    """Warn of scriptlets that failed and were let through, and of unused waivers; return both.

    Those of the parent, of which its own build warned, are returned too. Raises BuildError for one that the recipe does
    not let through.
    """
    rules = locked.recipe.scriptlets
    failed = tuple(judge_failure(failure, rules) for failure in state.failures)
    unused = unused_waivers(rules.waivers, state.failures)
    for warning in (*(one.sentence for one in failed), *unused):
        build_env.progress.warn(warning)
    return (*(locked.parent.failed_scriptlets if locked.parent else ()), *failed), unused


@dataclass(frozen=True, slots=True)
class ConfiguredImage:
    """An image without its layers.

    `annotations` are those of its manifest that the recipe and its parent give.
    """

    name: str
    reference: str
    config: ImageConfig
    annotations: Mapping[str, str]

    def with_layers(self, layers: Sequence[Layer]) -> Image:
        """Make the image: config and manifest for the layers."""
        return make_image(self.name, self.reference, self.config, layers, self.annotations)


def configure_image(locked: LockedRecipe) -> ConfiguredImage:
    """Evaluate what a recipe says of its image."""
    recipe, section = locked.recipe, locked.section
    seen = template_variables(locked)

    def said(text: str) -> str:
        try:
            return render.evaluate_template(text, seen, place=str(recipe.path))
        except RecipeError as error:
            place = _place_of(text, recipe)
            raise RecipeError.of([Problem(one.code, one.message, place, one.hint) for one in error.problems]) from error

    version = said(recipe.version).strip()
    if len(version.splitlines()) != 1:
        made = "several lines" if version else "no text"
        raise RecipeError(
            "version-malformed",
            f"the version '{recipe.version[:80]}' makes {made}",
            place=_place_of(recipe.version, recipe),
            hint="let it make one line, such as 1.2.3, of which tags are made",
        )
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
    return ConfiguredImage(recipe.name, version_tag(version), config, notes)


def draft_layers(layers: Sequence[BuiltLayer], compression: Compression) -> list[Layer]:
    """Return layers of which some are still packed.

    These have a random digest in place of their blob's.
    """

    def drafted(layer: BuiltLayer) -> Layer:
        unlike_any = Descriptor(media_types.LAYERS[compression], Digest.of(secrets.token_bytes(32)), 0)
        return Layer(layer.name, layer.diff_id, unlike_any, layer.tar_size, layer.contents)

    return [layer.layer if layer.confirmed else drafted(layer) for layer in layers]


def _place_of(text: str, recipe: Recipe) -> str:
    """Find the file and line of a text, of several lines the first with a template.

    It is in the recipe, or one that it includes.
    """
    wanted = next(filter(render.is_template, text.splitlines()), text)
    for path in (recipe.path, *recipe.sources):
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        found = next((number for number, line in enumerate(lines, 1) if wanted in line), None)
        if found is not None:
            return f"{path.name}:{found}"
    return str(recipe.path)


def smoke_test(
    image: Image, recipe: Recipe, options: BuildOptions, build_env: BuildEnvironment, holding: FailureHold | None = None
) -> SmokeResult:
    """Launch the image under the recipe's limits and ask its checks.

    A former result for the same image and plan is recalled.
    """
    return run_tests(
        image,
        recipe.smoke,
        store=build_env.store,
        sandboxes=build_env.launching(),
        progress=build_env.progress,
        clock=build_env.clock,
        again=options.retest,
        full=options.full,
        folder=recipe.path.parent,
        holding=holding,
    )


def build_inputs(
    locked: LockedRecipe,
    templates: tuple[Path, ...],
    options: BuildOptions,
    failed_scriptlets: tuple[ToleratedFailure, ...] = (),
) -> BuildInputs:
    """Return the inputs of a build, for its build record."""
    return BuildInputs(
        recipe=locked.recipe,
        repositories=options.repositories,
        platform=locked.platform,
        section=locked.section,
        lock=locked.path,
        headers=locked.headers,
        keys=locked.keys,
        templates=templates,
        compression=options.compression,
        checks=plan_digest(plan_to_test(locked.recipe.smoke, full=options.full)),
        parent=locked.parent,
        failed_scriptlets=failed_scriptlets,
    )


def all_changes(locked: LockedRecipe, own: Sequence[Change]) -> tuple[Change, ...]:
    """Return the changes to package content in the whole image, those of the parent included."""
    below = locked.parent.changes if locked.parent else ()
    again = {change.path for change in own}
    return (*(change for change in below if change.path not in again), *own)


def reused_layers(locked: LockedRecipe, layers: Sequence[BuiltLayer], state: StateLayer) -> tuple[str, ...]:
    """Return the names of the layers that were recalled, the parent's included."""
    own = (made.name for made in layers if made.reused)
    return (*(layer.name for layer in parent_layers(locked)), *own, *((STATE_LAYER,) if state.reused else ()))


def parent_layers(locked: LockedRecipe) -> tuple[Layer, ...]:
    """Return the parent's layers, the lowest first."""
    return locked.parent.image.layers if locked.parent else ()
