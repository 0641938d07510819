"""Stages of locking a recipe: compare lock and inputs, resolve, group layers, write lock.

`pipeline.build.build_image.lock` has them in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pipeline.digest import Digest
from pipeline.errors import BuildError, RelbuildError, ResolutionError, UsageError
from pipeline.layers.account_numbers import number_accounts
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.accounts import AccountTable, NumberedAccounts, ScriptAccount
from pipeline.model.header import PackageHeader
from pipeline.model.lock import Lock, LockSection
from pipeline.model.parent_image import ParentImage
from pipeline.model.payload_limits import content_size
from pipeline.model.platform import Platform
from pipeline.model.recipe import LayerPlan, Recipe
from pipeline.model.resolution import Chosen
from pipeline.packages import errors_about, read_change_days, read_payload_files
from pipeline.prepare.build_options import BuildEnvironment, BuildOptions, RepositoryCache
from pipeline.prepare.payload_check import check_payload_sizes
from pipeline.prepare.verified_packages import obtain_verified
from pipeline.progress import task
from pipeline.recipes import find_platform, load_recipe
from pipeline.repos import RepositoryKey, load_keys, still_changing_error
from pipeline.resolve import (
    FormerLayers,
    LockAction,
    LockMode,
    assign_auto_layers,
    block_package,
    compare_sections,
    decide_action,
    former_layers,
    other_versions,
    put_sections,
    read_lock,
    resolution_inputs,
    solve,
    stale_reasons,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LockedRecipe:
    """A recipe with its locked packages.

    `wrote`: the lock file was written, with the digest `written`, `first`: it is a new section, `why`: the reasons;
    `changes` are the differences from the former section, as text. `headers` are in the order of the transaction;
    `keys` are those of all repositories of the platform. `section` and `headers` are what the recipe adds to its
    `parent`, if it has one; `accounts` are all of the image, and `scripted` those of them that scriptlets make
    themselves.
    """

    recipe: Recipe
    platform: Platform
    section: LockSection
    headers: tuple[PackageHeader, ...]
    accounts: AccountTable
    path: Path
    wrote: bool
    first: bool
    why: tuple[str, ...]
    changes: tuple[str, ...]
    keys: tuple[RepositoryKey, ...]
    parent: ParentImage | None = None
    scripted: tuple[ScriptAccount, ...] = ()
    written: Digest | None = None

    @property
    def all_headers(self) -> tuple[PackageHeader, ...]:
        """The headers of every package in the image, in the order of their installation.

        The parent's come first.
        """
        below = self.parent.packages if self.parent else ()
        return (*(one.header for one in below), *self.headers)

    @property
    def all_chosen(self) -> tuple[Chosen, ...]:
        """Every package of the image with its layer and its reasons, sorted."""
        below = self.parent.packages if self.parent else ()
        every = [*(one.chosen for one in below), *self.section.resolution.chosen]
        return tuple(sorted(every, key=lambda one: one.package))


@dataclass(frozen=True, slots=True)
class LockPlan:
    """The decision to use the lock of a recipe, or to resolve again for the reasons `why`.

    `section` is the one in the lock at `path` for the platform and architecture, None if there is none; `inputs` are
    the present inputs' digests.
    """

    recipe: Recipe
    platform: Platform
    path: Path
    lock: Lock | None
    section: LockSection | None
    inputs: tuple[tuple[str, Digest], ...]
    keys: tuple[RepositoryKey, ...]
    why: tuple[str, ...]
    action: LockAction
    cache: RepositoryCache
    parent: ParentImage | None

    @property
    def resolves(self) -> bool:
        """Return whether the recipe is resolved against the repositories."""
        return self.action is LockAction.RESOLVE or self.section is None


def plan_lock(options: BuildOptions, build_env: BuildEnvironment, parent: ParentImage | None) -> LockPlan:
    """Compare the lock of a recipe with its present inputs, and decide what to do.

    `parent` is the image that it is built from.
    """
    recipe = load_recipe(options.recipe, options.target)
    platform = choose_platform(recipe, options)
    arch = choose_architecture(recipe, platform, options)
    path = options.lock_file(recipe)
    lock = read_lock(path)
    section = lock.section(platform.name, arch) if lock else None
    keys = load_keys(
        platform,
        arch,
        variables=build_env.environment,
        store=build_env.store,
        offline=build_env.offline,
        progress=build_env.progress,
    )
    now = resolution_inputs(recipe, platform, arch, keys, parent=parent.config if parent else None)
    why = stale_reasons(section, now, recipe) if section else ("no lock for this platform and architecture",)
    action = decide_action(section, why, options.mode, path)
    for warning in other_versions(section) if section is not None and action is LockAction.USE else ():
        build_env.progress.warn(f"{path.name}: {warning}")
    return LockPlan(
        recipe=recipe,
        platform=platform,
        path=path,
        lock=lock,
        section=section,
        inputs=tuple(now),
        keys=tuple(keys),
        why=tuple(why),
        action=action,
        cache=RepositoryCache(platform, arch, build_env),
        parent=parent,
    )


def resolve(plan: LockPlan) -> LockSection:
    """Return the packages of a recipe: those in its lock, or resolved from the repositories."""
    if plan.section is not None and not plan.resolves:
        return plan.section
    build_env = plan.cache.build_env
    repositories = plan.cache.repositories()
    with task(build_env.progress, "resolve", plan.recipe.name) as running:
        section = solve(
            plan.recipe,
            plan.platform,
            plan.cache.arch,
            repositories,
            store=build_env.store,
            inputs=plan.inputs,
            parent=plan.parent,
            progress=build_env.progress,
        )
        running.note(f"{len(section.resolution.chosen)} packages")
    for warning in section.resolution.warnings:
        build_env.progress.warn(warning)
    return section


def fetch_and_verify(plan: LockPlan, section: LockSection) -> tuple[PackageHeader, ...]:
    """Fetch a section's packages into the store; return their headers in transaction order.

    Raises as `obtain_verified`, and VerificationError `payload-too-large`.
    """
    packages = [chosen.package for chosen in section.resolution.chosen]
    limits = plan.recipe.payload_limits.over(plan.platform.payload_limits)
    check_payload_sizes([(package, package.installed_size) for package in packages], limits)
    headers = obtain_verified(packages, plan.recipe, plan.keys, section, plan.cache, locked=not plan.resolves)
    described = {str(package.nevra): package for package in packages}
    check_payload_sizes([(described[str(header.nevra)], content_size(header)) for header in headers], limits)
    return headers


def retry_if_changed(plan: LockPlan, obtain: Callable[[], _T]) -> _T:
    """Call `obtain`, which reads repositories, and once more if they changed meanwhile.

    The second call sees their new state. Raises EnvironmentLacking `repository-changing` when they change again. With a
    lock that is used there is no second call.
    """
    try:
        return obtain()
    except RelbuildError as error:
        if not plan.resolves or not plan.cache.changed(error):
            raise
        plan.cache.build_env.progress.warn("the repositories changed while they were read; reading them again")
    try:
        return obtain()
    except RelbuildError as error:
        if not plan.cache.changed(error):
            raise
        raise still_changing_error(error) from error


def number_owners(
    plan: LockPlan, section: LockSection, headers: Sequence[PackageHeader]
) -> tuple[LockSection, NumberedAccounts]:
    """Return the section with a numeric ID for each owner's name, and the image's accounts."""
    store = plan.cache.build_env.store
    kept = plan.section.accounts if plan.section is not None else section.accounts

    def read(header: PackageHeader, paths: Sequence[str]) -> dict[str, bytes]:
        path = store.blob(header.checksum)
        with errors_about(header.nevra, path):
            return read_payload_files(path, paths)

    try:
        numbered = number_accounts(
            headers,
            users=plan.recipe.users,
            groups=plan.recipe.groups,
            read=read,
            kept=kept,
            parent=plan.parent.accounts if plan.parent else None,
        )
    except BuildError as error:
        recipe = plan.recipe.path.name
        raise BuildError.of([replace(one, place=one.place or recipe) for one in error.problems]) from error
    return replace(section, accounts=numbered.allocated), numbered


def keep_lock(
    plan: LockPlan,
    section: LockSection,
    headers: tuple[PackageHeader, ...],
    accounts: NumberedAccounts,
    mode: LockMode,
) -> LockedRecipe:
    """Write the lock if its section differs from the former one.

    The sections of other platforms and architectures stay as they are in the file then: others may have locked them
    since `plan` was made. Raises ResolutionError `lock-stale` where `mode` forbids that.
    """
    before, parent = plan.section, plan.parent
    if before is not None and before.parent and parent and before.parent.config == parent.config:
        section = replace(section, parent=before.parent)  # The same image, maybe compressed differently.
    if before is not None and before.metadata and replace(section, metadata=before.metadata) == before:
        section = before  # Only repomd.xml differs: the lock keeps the digest of the one that was resolved from.
    wrote = section != before
    if wrote and mode is LockMode.LOCKED:
        raise ResolutionError(
            "lock-stale",
            "the lock has no numeric IDs for accounts that the packages need",
            place=str(plan.path),
            hint="run `relbuild lock` and commit the result",
        )
    written = None
    if wrote:
        written = put_sections(plan.path, Lock(plan.recipe.name, (section,)))
    return LockedRecipe(
        recipe=plan.recipe,
        platform=plan.platform,
        section=section,
        headers=headers,
        accounts=accounts.table,
        scripted=accounts.scripted,
        path=plan.path,
        wrote=wrote,
        first=before is None,
        why=plan.why if wrote else (),
        changes=compare_sections(before, section),
        keys=plan.keys,
        parent=parent,
        written=written,
    )


def choose_platform(recipe: Recipe, options: BuildOptions) -> Platform:
    """Return the platform that the options or the recipe name, with the recipe's add-ons.

    Raises RecipeError `platform-unknown`, `platform-refused`, and for the add-ons.
    """
    name = options.platform or recipe.platform
    place = str(options.repositories) if options.platform else str(options.recipe)
    return find_platform(options.repositories, name, add_ons=recipe.add_ons, place=place)


def choose_architecture(recipe: Recipe, platform: Platform, options: BuildOptions) -> str:
    """Return the architecture to build for.

    Raises UsageError if there are several, or the platform lacks it.
    """
    wanted = options.architectures or recipe.architectures
    if len(wanted) != 1:
        raise UsageError(
            "architectures-several",
            f"relbuild builds one architecture at a time; the recipe lists {len(wanted)}",
            place=str(options.recipe),
            hint=f"choose one with --arch: {', '.join(wanted)}",
        )
    if wanted[0] not in platform.architectures:
        raise UsageError(
            "architecture-unknown",
            f"platform '{platform.name}' has no architecture '{wanted[0]}'",
            place=str(options.recipe),
            hint=f"it has {', '.join(platform.architectures)}",
        )
    return wanted[0]


def group_layers(plan: LockPlan, section: LockSection, options: BuildOptions) -> LockSection:
    """Assign the packages of every `auto` layer of the recipe to layers of the image.

    Returns the section with these layers. The frequency of changes is read from the packages' changelogs, so they must
    be in the store. If the lock is used, it has the layers already.
    """
    if not plan.resolves:
        return section
    store, resolution = plan.cache.build_env.store, section.resolution
    placed: dict[str, str] = {}
    for layer in plan.recipe.layers:
        if layer.at_most is not None:
            residents = [
                block_package(package, read_change_days(store.blob(package.checksum)))
                for package in resolution.layer(layer.name)
            ]
            former = _former(layer, section, plan.section, options)
            placed |= assign_auto_layers(layer.name, residents, layer.at_most, former)
    chosen = tuple(replace(one, layer=placed.get(str(one.package.nevra), one.layer)) for one in resolution.chosen)
    return replace(section, resolution=replace(resolution, chosen=chosen))


def _former(plan: LayerPlan, fresh: LockSection, section: LockSection | None, options: BuildOptions) -> FormerLayers:
    """Return the former layers of an `auto` layer's packages.

    They are read from the lock of the included recipe that brings the layer, else from `section`.
    """
    lock = read_lock(options.lock_file_at(plan.brought_by)) if plan.brought_by else None
    theirs = lock.section(fresh.resolution.platform, fresh.resolution.arch) if lock else None
    return former_layers(plan.name, theirs) or former_layers(plan.name, section)
