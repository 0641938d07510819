"""From a recipe to its packages: resolved or taken from the lock, fetched, verified, read, owners numbered."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import RelbuildError, ResolutionError, UsageError
from pipeline.gather.order import Offer, Order, Workshop
from pipeline.gather.verifying import obtain_verified
from pipeline.layers.accounts import number_accounts
from pipeline.model.accounts import AccountTable
from pipeline.model.header import PackageHeader
from pipeline.model.lock import Lock, LockSection
from pipeline.model.parent import ParentImage
from pipeline.model.platform import Platform
from pipeline.model.recipe import LayerPlan, Recipe
from pipeline.model.resolution import Chosen
from pipeline.packages import read_change_days, read_files
from pipeline.progress import task
from pipeline.recipes import load_platforms, load_recipe
from pipeline.repos import Key, load_keys, still_changing
from pipeline.resolve import (
    Action,
    Former,
    Mode,
    compare,
    decide,
    former_block,
    inputs,
    is_lock,
    layer_block,
    other_versions,
    read_lock,
    resident,
    solve,
    stale,
    write_lock,
)


@dataclass(frozen=True, slots=True)
class Locked:
    """A recipe with its resolution. `wrote`: the lock file was written, `first` for the first time, `why` says for
    which reasons; `changes` say what differs from before. `headers` are in the order of the transaction;
    `keys` are those of every repository of the platform. `section` and `headers` are what the recipe adds to its
    `parent`, if it has one; `accounts` are all of the image."""

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
    keys: tuple[Key, ...]
    parent: ParentImage | None = None

    @property
    def all_headers(self) -> tuple[PackageHeader, ...]:
        """Those of every package in the image, in the order of their installation: the parent's come first."""
        below = self.parent.packages if self.parent else ()
        return (*(one.header for one in below), *self.headers)

    @property
    def all_chosen(self) -> tuple[Chosen, ...]:
        """Every package of the image with its layer and its reasons, sorted."""
        below = self.parent.packages if self.parent else ()
        every = [*(one.chosen for one in below), *self.section.resolution.chosen]
        return tuple(sorted(every, key=lambda one: one.package))


def lock_recipe(order: Order, workshop: Workshop, parent: ParentImage | None = None) -> Locked:
    """Resolve a recipe, or use its lock where that is fresh; fetch, verify and read its packages. `parent` is the
    image that it is built from, which has to be there: `pipeline.build.lock` makes it.

    Writes the lock beside the recipe when it is new, unless the order's mode is LOCKED.
    """
    recipe = load_recipe(order.recipe)
    platform = choose_platform(recipe, order)
    arch = choose_architecture(recipe, platform, order)
    path = order.lock_file(recipe)
    lock = read_lock(path)
    offer = Offer(platform, arch, workshop)
    section = lock.section(platform.name, arch) if lock else None
    keys = load_keys(platform, arch, variables=workshop.environment, store=workshop.store, offline=workshop.offline)
    now = inputs(recipe, platform, arch, keys, parent=parent.config if parent else None)
    why = stale(section, now) if section else ("there is no lock for this platform and architecture",)
    action = decide(section, why, order.mode, path)
    for warning in other_versions(section) if section is not None and action is Action.USE else ():
        workshop.progress.warn(f"{path.name}: {warning}")
    if action is Action.RESOLVE or section is None:
        fresh, headers = resolve_and_obtain(recipe, offer, now, parent, keys)
        if section is not None:
            fresh = replace(fresh, accounts=section.accounts)
    else:
        fresh = section
        packages = [chosen.package for chosen in fresh.resolution.chosen]
        headers = obtain_verified(packages, recipe, keys, fresh, offer)
    accounts, allocated = number_accounts(
        headers,
        users=recipe.users,
        groups=recipe.groups,
        read=lambda header, paths: read_files(workshop.store.blob(header.checksum), paths),
        kept=fresh.accounts,
        parent=parent.accounts if parent else None,
    )
    fresh = replace(fresh, accounts=allocated)
    if action is Action.RESOLVE or section is None:
        fresh = grouped(fresh, recipe, section, order, workshop)
    if section is not None and section.parent and parent and section.parent.config == parent.config:
        fresh = replace(fresh, parent=section.parent)  # The same image, though it may be compressed otherwise.
    if section is not None and section.metadata and replace(fresh, metadata=section.metadata) == section:
        fresh = section  # The repositories moved on, and offer the same: the lock says already where that came from.
    changes = compare(section, fresh)
    wrote = fresh != section
    if wrote and order.mode is Mode.LOCKED:
        raise ResolutionError(
            "lock-stale",
            "the lock lacks account numbers that the packages need",
            place=str(path),
            hint="run `relbuild lock` and commit the result",
        )
    if wrote:
        others = tuple(s for s in lock.sections if s is not section) if lock else ()
        write_lock(path, Lock(recipe.name, (*others, fresh)))
    return Locked(
        recipe=recipe,
        platform=platform,
        section=fresh,
        headers=headers,
        accounts=accounts,
        path=path,
        wrote=wrote,
        first=section is None,
        why=tuple(why) if wrote else (),
        changes=changes,
        keys=keys,
        parent=parent,
    )


def resolve_and_obtain(
    recipe: Recipe,
    offer: Offer,
    now: Sequence[tuple[str, Digest]],
    parent: ParentImage | None,
    keys: Sequence[Key],
) -> tuple[LockSection, tuple[PackageHeader, ...]]:
    """Resolve a recipe against the repositories as they are today.

    Returns the section of its lock, and the headers of its packages, which are in the store by then. Where the
    repositories change meanwhile they are read again, once. Raises EnvironmentLacking `repository-changing` when they
    change again.
    """

    def attempt() -> tuple[LockSection, tuple[PackageHeader, ...]]:
        fresh = resolve(recipe, offer, now, parent)
        packages = [chosen.package for chosen in fresh.resolution.chosen]
        return fresh, obtain_verified(packages, recipe, keys, fresh, offer)

    try:
        return attempt()
    except RelbuildError as error:
        if not offer.changed(error):
            raise
        offer.workshop.progress.warn("the repositories changed while they were read, and are read again")
    try:
        return attempt()
    except RelbuildError as error:
        if not offer.changed(error):
            raise
        raise still_changing(error) from error


def choose_platform(recipe: Recipe, order: Order) -> Platform:
    """The platform that the order or the recipe names. Raises RecipeError `platform-unknown`, `platform-refused`."""
    name = order.platform or recipe.platform
    place = str(order.repositories) if order.platform else str(order.recipe)
    return load_platforms(order.repositories).find(name, place=place)


def choose_architecture(recipe: Recipe, platform: Platform, order: Order) -> str:
    """The architecture to build for. Raises UsageError if there are several, or the platform lacks it."""
    wanted = order.architectures or recipe.architectures
    if len(wanted) != 1:
        raise UsageError(
            "architectures-several",
            f"this version builds one architecture at a time, and {len(wanted)} are asked for",
            place=str(order.recipe),
            hint=f"choose with --arch, one of {', '.join(wanted)}",
        )
    if wanted[0] not in platform.architectures:
        raise UsageError(
            "architecture-unknown",
            f"platform '{platform.name}' has no architecture '{wanted[0]}'",
            place=str(order.recipe),
            hint=f"it has {', '.join(platform.architectures)}",
        )
    return wanted[0]


def resolve(recipe: Recipe, offer: Offer, now: Sequence[tuple[str, Digest]], parent: ParentImage | None) -> LockSection:
    """A new section of the lock: what the repositories offer today for this recipe."""
    workshop = offer.workshop
    repositories = offer.repositories()
    with task(workshop.progress, "resolve", recipe.name) as running:
        section = solve(
            recipe,
            offer.platform,
            offer.arch,
            repositories,
            store=workshop.store,
            inputs=now,
            parent=parent,
            progress=workshop.progress,
        )
        running.note(f"{len(section.resolution.chosen)} packages")
    for warning in section.resolution.warnings:
        workshop.progress.warn(warning)
    return section


def grouped(
    fresh: LockSection, recipe: Recipe, section: LockSection | None, order: Order, workshop: Workshop
) -> LockSection:
    """The section with the packages of every layer that says `auto` in the layers of the image. How often they change
    is read from their changelogs, so they have to be in the store. `section` is what the lock says until now."""
    resolution = fresh.resolution
    placed: dict[str, str] = {}
    for plan in recipe.layers:
        if plan.at_most is not None:
            residents = [
                resident(package, read_change_days(workshop.store.blob(package.checksum)))
                for package in resolution.layer(plan.name)
            ]
            placed |= layer_block(plan.name, residents, plan.at_most, _former(plan, fresh, section, order))
    chosen = tuple(replace(one, layer=placed.get(str(one.package.nevra), one.layer)) for one in resolution.chosen)
    return replace(fresh, resolution=replace(resolution, chosen=chosen))


def _former(plan: LayerPlan, fresh: LockSection, section: LockSection | None, order: Order) -> Former:
    """The grouping that a layer had: in the lock of the recipe that brings it, else in `section`."""
    lock = read_lock(order.lock_file_at(plan.brought_by)) if plan.brought_by else None
    theirs = lock.section(fresh.resolution.platform, fresh.resolution.arch) if lock else None
    return former_block(plan.name, theirs) or former_block(plan.name, section)


def locked_packages(folder: Path) -> frozenset[Digest]:
    """The packages that the locks below a folder name. Read are those that stand beside their recipe, and those that
    begin as relbuild begins one; the locks of other programs are none of ours. Raises ResolutionError for a lock that
    cannot be read: what it needs must not be lost because of that."""
    found: set[Digest] = set()
    for above, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        for path in (Path(above, name) for name in sorted(files) if name.endswith(".lock")):
            if path.is_symlink():
                continue  # What it leads to stands here itself, or is none that a build would read.
            lock = read_lock(path) if is_lock(path) or _beside_recipe(path) else None
            for section in lock.sections if lock else ():
                found.update(chosen.package.checksum for chosen in section.resolution.chosen)
    return frozenset(found)


def _beside_recipe(path: Path) -> bool:
    """Return whether a recipe of the same name stands beside the lock at `path`."""
    if not path.is_file():
        return False
    for recipe in (path.with_suffix(suffix) for suffix in (".yaml", ".yml")):
        with contextlib.suppress(OSError), recipe.open("rb") as file:
            start = file.read(_RECIPE_START)
            if all(mark.search(start) for mark in _RECIPE_MARKS):
                return True
    return False


_RECIPE_START = 1 << 20
"""Bytes of a file in which a recipe shows that it is one."""

_RECIPE_MARKS = (re.compile(rb"^name\s*:", re.MULTILINE), re.compile(rb"^(layers|from|include)\s*:", re.MULTILINE))
