"""From a recipe to its packages: resolved or taken from the lock, fetched, verified, read, owners numbered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.digest import Digest, identity
from pipeline.errors import Problem, ResolutionError, UsageError, VerificationError
from pipeline.layers.accounts import number_accounts
from pipeline.model.accounts import AccountTable
from pipeline.model.header import PackageHeader
from pipeline.model.image import Compression
from pipeline.model.lock import Lock, LockSection
from pipeline.model.package import Nevra, Package
from pipeline.model.platform import Platform
from pipeline.model.recipe import Recipe
from pipeline.packages import read_files, read_header, read_source_nevra, verify_package
from pipeline.progress import Progress, task
from pipeline.recipes import load_platforms, load_recipe
from pipeline.repos import (
    LOCAL_REPOSITORY,
    Key,
    OpenRepository,
    fetch_packages,
    load_keys,
    open_repositories,
    source_packages,
)
from pipeline.resolve import (
    Action,
    Mode,
    compare,
    decide,
    explain,
    inputs,
    lock_path,
    other_versions,
    read_lock,
    solve,
    stale,
    write_lock,
)
from pipeline.sandbox import Station, find_runtime, open_station
from pipeline.store import Store
from pipeline.transfer import Download, Network, fetch


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for: a recipe and how to build it. `repositories` is the file that defines platforms;
    `platform` and `architectures` override the recipe's; `output` is where layout and report go; `full`
    tests also what takes long; `sources` fetches the source packages too."""

    recipe: Path
    repositories: Path
    platform: str | None = None
    architectures: tuple[str, ...] = ()
    mode: Mode = Mode.DEFAULT
    smoke: bool = True
    retest: bool = False
    compression: Compression = Compression.GZIP
    output: Path = Path("output")
    full: bool = False
    sources: bool = False


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where the work is done: the store, where progress goes, and what the process was started with.
    `clock` gives seconds since the epoch; `runtime` names an OCI runtime, or None for the machine's."""

    store: Store
    progress: Progress
    environment: Mapping[str, str]
    clock: Callable[[], float]
    offline: bool = False
    runtime: str | None = None

    def station(self) -> Station:
        """Where sandboxes are made; what a killed relbuild left there is removed first."""
        return open_station(self.store.root / "sandbox", find_runtime(self.runtime))


@dataclass(frozen=True, slots=True)
class Locked:
    """A recipe with its resolution. `wrote`: the lock file was written, `first` for the first time, `why` says for
    which reasons; `changes` say what differs from before. `headers` are in the order of the transaction;
    `keys` are those of every repository of the platform."""

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


def lock_recipe(order: Order, workshop: Workshop) -> Locked:
    """Resolve a recipe, or use its lock where that is fresh; fetch, verify and read its packages.

    Writes the lock beside the recipe when it is new, unless the order's mode is LOCKED.
    """
    recipe = load_recipe(order.recipe)
    platform = choose_platform(recipe, order)
    arch = choose_architecture(recipe, platform, order)
    path = lock_path(order.recipe)
    lock = read_lock(path)
    offer = _Offer(platform, arch, workshop)
    section = lock.section(platform.name, arch) if lock else None
    keys = load_keys(platform, arch, variables=workshop.environment, store=workshop.store, offline=workshop.offline)
    now = inputs(recipe, platform, arch, keys)
    why = stale(section, now) if section else ("there is no lock for this platform and architecture",)
    action = decide(section, why, order.mode, path)
    for warning in other_versions(section) if section is not None and action is Action.USE else ():
        workshop.progress.warn(f"{path.name}: {warning}")
    if action is Action.RESOLVE or section is None:
        fresh = resolve(recipe, offer, now)
        if section is not None:
            fresh = replace(fresh, accounts=section.accounts)
    else:
        fresh = section
    packages = [chosen.package for chosen in fresh.resolution.chosen]
    obtain(packages, recipe, offer)
    headers = verify_and_read(packages, keys, fresh, workshop)
    accounts, allocated = number_accounts(
        headers,
        users=recipe.users,
        groups=recipe.groups,
        read=lambda header, paths: read_files(workshop.store.blob(header.checksum), paths),
        kept=fresh.accounts,
    )
    fresh = replace(fresh, accounts=allocated)
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
    )


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


@dataclass(slots=True)
class _Offer:
    """What a platform's repositories offer, opened when it is first asked for: a fresh lock needs none of it."""

    platform: Platform
    arch: str
    workshop: Workshop
    _opened: tuple[OpenRepository, ...] | None = None

    def repositories(self) -> tuple[OpenRepository, ...]:
        """The open repositories."""
        if self._opened is None:
            self._opened = open_repositories(
                self.platform,
                self.arch,
                variables=self.workshop.environment,
                store=self.workshop.store,
                offline=self.workshop.offline,
                progress=self.workshop.progress,
            )
        return self._opened


def resolve(recipe: Recipe, offer: _Offer, now: Sequence[tuple[str, Digest]]) -> LockSection:
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
            progress=workshop.progress,
        )
        running.note(f"{len(section.resolution.chosen)} packages")
    for warning in section.resolution.warnings:
        workshop.progress.warn(warning)
    return section


def explain_package(order: Order, workshop: Workshop, package: str) -> str:
    """Why a package is in the image, as text."""
    return explain(lock_recipe(order, workshop).section.resolution, package)


# --- fetch, verify, read ---------------------------------------------------------------------------------


def obtain(packages: Sequence[Package], recipe: Recipe, offer: _Offer) -> None:
    """Have every package in the store. Repositories are opened only when one is missing."""
    workshop = offer.workshop
    missing = [package for package in packages if not workshop.store.has(package.checksum)]
    local = {item.sha256: item for layer in recipe.layers for item in layer.local}
    named = [
        Download(
            ((recipe.path.parent / local[package.checksum].path).resolve().as_uri(),),
            package.checksum,
            package.size,
            str(package.nevra),
        )
        for package in missing
        if package.repository == LOCAL_REPOSITORY and package.checksum in local
    ]
    if named:
        fetch(
            workshop.store, named, progress=workshop.progress, network=Network.of(workshop.environment), label="files"
        )
    offered = [package for package in missing if package.repository != LOCAL_REPOSITORY]
    if offered:
        fetch_packages(
            offered,
            offer.repositories(),
            store=workshop.store,
            progress=workshop.progress,
            offline=workshop.offline,
        )


def verify_and_read(
    packages: Sequence[Package], keys: Sequence[Key], section: LockSection, workshop: Workshop
) -> tuple[PackageHeader, ...]:
    """Every package's header, in the order of the transaction, its signature checked against the keys of the
    repository that it comes from. All that fail are reported at once."""
    by_repository: dict[str, list[bytes]] = {}
    for key in keys:
        blocks = by_repository.setdefault(key.repository, [])
        if key.armored not in blocks:
            blocks.append(key.armored)
    everyone = sorted({key.armored for key in keys})
    problems: list[Problem] = []
    headers: dict[str, PackageHeader] = {}
    with task(workshop.progress, "verify", "signatures and checksums", total=len(packages)) as running:
        for package in packages:
            trusted = by_repository.get(package.repository, everyone if package.repository == LOCAL_REPOSITORY else [])
            try:
                headers[str(package.nevra)] = _verified(package, trusted, workshop.store)
            except VerificationError as error:
                problems.extend(error.problems)
            running.advance(1)
    if problems:
        raise VerificationError.of(problems)
    return tuple(headers[nevra] for nevra in section.resolution.order)


def _verified(package: Package, keys: Sequence[bytes], store: Store) -> PackageHeader:
    """One package's header; that its signature is good is remembered per package and keys."""
    path = _verified_file(package, keys, store)
    header = read_header(path, package.checksum)
    _demand(header.nevra, package)
    return header


def _verified_file(package: Package, keys: Sequence[bytes], store: Store) -> Path:
    path = store.blob(package.checksum)
    name = identity("verify", 1, package=package.checksum, keys=[Digest.of(key) for key in keys])
    if store.recall(name) is None:
        store.verify(package.checksum)
        try:
            verify_package(path, keys)
        except VerificationError as error:
            raise VerificationError.of([_about(problem, package, path) for problem in error.problems]) from error
        store.remember(name, True)
    return path


def _demand(nevra: Nevra, package: Package) -> None:
    if nevra != package.nevra:
        raise VerificationError(
            "package-not-as-described",
            f"the repository says {package.nevra}, the package says {nevra}",
            place=package.location,
            hint="the repository's metadata is wrong or stale: refresh it, or tell its keeper",
        )


def _about(problem: Problem, package: Package, path: Path) -> Problem:
    """The same problem, told of the package and not of its file in the store."""
    message = problem.message.replace(path.name, str(package.nevra))
    return replace(problem, message=message, place=f"{package.nevra} of repository '{package.repository}'")


# --- sources ---------------------------------------------------------------------------------------------


def obtain_sources(locked: Locked, workshop: Workshop) -> tuple[Package, ...]:
    """The source package of every package, in the store, verified as packages are, sorted; each once.

    Raises ResolutionError `sources-missing` for all that no repository of sources has, or `sources-unknown` if the
    platform names none; VerificationError and EnvironmentLacking as for packages.
    """
    platform = locked.platform
    if not platform.sources:
        raise ResolutionError(
            "sources-unknown",
            f"the platform '{platform.name}' does not say where its source packages are",
            place=platform.name,
            hint="name repositories of source packages under 'sources:' of the platform in repositories.yaml",
        )
    wanted: dict[str, list[str]] = {}
    for header in locked.headers:
        wanted.setdefault(header.source_rpm, []).append(str(header.nevra))
    listed = replace(platform, repositories=platform.sources)
    arch = locked.section.resolution.arch
    keys = load_keys(listed, arch, variables=workshop.environment, store=workshop.store, offline=workshop.offline)
    opened = _Offer(listed, arch, workshop).repositories()
    found: dict[str, Package] = {}
    for one in opened:
        found |= source_packages(one, wanted.keys() - found.keys(), store=workshop.store, progress=workshop.progress)
    lacking = sorted(wanted.keys() - found.keys())
    if lacking:
        raise ResolutionError.of([_no_source(name, wanted[name], platform) for name in lacking])
    packages = sorted(found.values())
    fetch_packages(packages, opened, store=workshop.store, progress=workshop.progress, offline=workshop.offline)
    _verify_sources(packages, keys, workshop)
    return tuple(packages)


def _verify_sources(packages: Sequence[Package], keys: Sequence[Key], workshop: Workshop) -> None:
    problems: list[Problem] = []
    with task(workshop.progress, "verify", "source packages", total=len(packages)) as running:
        for package in packages:
            trusted = sorted({key.armored for key in keys if key.repository == package.repository})
            try:
                _demand(read_source_nevra(_verified_file(package, trusted, workshop.store)), package)
            except VerificationError as error:
                problems.extend(error.problems)
            running.advance(1)
    if problems:
        raise VerificationError.of(problems)


def _no_source(name: str, made: Sequence[str], platform: Platform) -> Problem:
    """`name` is empty for packages whose header names no source package."""
    where = ", ".join(one.id for one in platform.sources)
    return Problem(
        "sources-missing",
        f"none of the source repositories ({where}) has {name}" if name else "its header names no source package",
        ", ".join(made),
        "add the repository that has it under 'sources:' of the platform, or publish without sources",
    )


def locked_packages(folder: Path) -> frozenset[Digest]:
    """The packages that all locks below a folder name. Raises ResolutionError for a lock that cannot be read: what
    it needs must not be lost because of that."""
    found: set[Digest] = set()
    for path in sorted(folder.rglob("*.lock")):
        lock = read_lock(path)
        for section in lock.sections if lock else ():
            found.update(chosen.package.checksum for chosen in section.resolution.chosen)
    return frozenset(found)
