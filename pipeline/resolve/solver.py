"""Resolve the requests of a recipe to packages, as `dnf install` with best=1 does.

The result is what dnf would install into an empty root (libdnf, goal/Goal.cpp). A parent image's packages are installed
and locked: a request that they satisfy adds nothing, and a change to one of them is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import solv

from pipeline.digest import Digest
from pipeline.errors import ResolutionError
from pipeline.model.lock import LockedParent, LockSection
from pipeline.model.parent_image import ParentImage
from pipeline.model.platform import PackageRepository, Platform, acceptance_warnings
from pipeline.model.recipe import LocalPackage, Recipe, Request
from pipeline.progress import QUIET, Progress
from pipeline.repos import GroupPackage, OpenRepository, PackageGroups, read_groups
from pipeline.resolve.library_versions import library_versions
from pipeline.resolve.listed_files import names_unlisted_path
from pipeline.resolve.package_spec import (
    RequestMatch,
    is_glob,
    is_group,
    match_name,
    match_nevra,
    match_request,
    named_in,
    needs_file_lists,
    searches_file_lists,
)
from pipeline.resolve.pool import PackagePool
from pipeline.resolve.solution import MatchedRequest, Solution
from pipeline.resolve.solv_cache import make_solv_files
from pipeline.resolve.solver_problems import (
    RequestJob,
    explain_problems,
    pin_conflict,
    pin_unsatisfied,
    unknown_group,
    unmatched_request,
)
from pipeline.store import Store

INSTALLONLY = (
    "kernel",
    "kernel-PAE",
    "installonlypkg(kernel)",
    "installonlypkg(kernel-module)",
    "installonlypkg(vm)",
    "multiversion(kernel)",
)
"""dnf's default `installonlypkgs`: several versions may be installed side by side."""

_INSTALL = solv.Job.SOLVER_INSTALL | solv.Job.SOLVER_SOLVABLE_ONE_OF | solv.Job.SOLVER_SETARCH | solv.Job.SOLVER_SETEVR


def solve(
    recipe: Recipe,
    platform: Platform,
    arch: str,
    repositories: Sequence[OpenRepository],
    *,
    store: Store,
    inputs: Sequence[tuple[str, Digest]] = (),
    parent: ParentImage | None = None,
    progress: Progress = QUIET,
    package_pool: PackagePool | None = None,
) -> LockSection:
    """Choose the packages of a recipe for one platform and architecture.

    They are those that it adds to `parent`. `package_pool` is from `open_pool` with the same repositories, if several
    recipes are solved in it; it must not have packages that a recipe added. `inputs` are put into the section as they
    are. Local packages are read and put into the store; needed metadata is fetched, packages are not. The result
    depends only on the recipe, the metadata and the version of libsolv. Raises ResolutionError with all problems found:
    `package-missing`, `requirement-missing`, `packages-conflict`, `resolution-impossible`, `pin-unsatisfied`,
    `module-refused`, `parent-fixed`.
    """
    own = bool(parent or recipe.assume_installed or any(layer.local for layer in recipe.layers))
    fresh = package_pool is None or own
    if package_pool is None or own:
        package_pool = _load_pool(arch, repositories, store, progress)
    else:
        package_pool.enable_all()
    local = _add_local(package_pool, recipe, store, progress)
    if parent is not None:
        package_pool.add_installed(one.header for one in parent.packages)
    if recipe.assume_installed:
        package_pool.assume(recipe.assume_installed)
    _refuse_malformed(package_pool, recipe)
    texts = [request.text for layer in recipe.layers for request in layer.requests]
    if fresh:
        package_pool.look_up([*INSTALLONLY, *(name for text in texts for name in named_in(text))])
        if any(map(searches_file_lists, texts)):
            package_pool.use_filelists()  # Also makes the index: after a first one it would be made twice.
        else:
            package_pool.index()
    if recipe.modules or any("modules" in one.records for one in repositories):
        from pipeline.resolve.modules import apply_modules  # Few platforms have any.

        apply_modules(package_pool, recipe, repositories, store=store, progress=progress)
    warnings = [*_exclude(package_pool, recipe, repositories, local), *acceptance_warnings(platform.repositories)]
    groups = _read_groups(recipe, repositories, store, progress)
    conditions = _conditions(recipe, groups)
    if any(map(names_unlisted_path, conditions)) or any(needs_file_lists(package_pool, text) for text in texts):
        package_pool.use_filelists()
    lines = _match_all(package_pool, recipe, local, groups)
    reachable = [one for line in lines for one in line.found.everything]
    if package_pool.needs_filelists(reachable, weak=recipe.weak_dependencies):
        package_pool.use_filelists()
        lines = _match_all(package_pool, recipe, local, groups)
    warnings += _absent_of_groups(package_pool, recipe, groups)
    chosen = _solve(package_pool, lines, weak=recipe.weak_dependencies, parent=recipe.parent)
    resolution = Solution(package_pool, recipe, chosen).resolution(platform.name, lines, warnings)
    from_ids = {one.package.repository for one in resolution.chosen}
    return LockSection(
        resolution,
        tuple(inputs),
        max([one.package.build_time for one in resolution.chosen] + [parent.build_time if parent else 0]),
        versions=library_versions(),
        metadata=tuple(sorted((one.repository.id, one.repomd) for one in repositories)),
        keys=tuple(sorted({k.fingerprint for o in repositories for k in o.keys if k.repository in from_ids})),
        parent=LockedParent(parent.name, parent.digest, parent.config) if parent else None,
    )


def open_pool(
    arch: str, repositories: Sequence[OpenRepository], *, store: Store, progress: Progress = QUIET
) -> PackagePool:
    """Make a pool of repositories, in which one recipe after the other can be solved."""
    package_pool = _load_pool(arch, repositories, store, progress)
    package_pool.index()
    return package_pool


def _load_pool(arch: str, repositories: Sequence[OpenRepository], store: Store, progress: Progress) -> PackagePool:
    """Make a pool of repositories that is not indexed yet."""
    package_pool = PackagePool(arch, store=store, progress=progress)
    # dnf's order (RepoDict.items): where all else is equal, libsolv prefers what was loaded first.
    make_solv_files(repositories, "primary", store=store, progress=progress)
    for opened in sorted(repositories, key=lambda one: (one.repository.priority, one.repository.cost)):
        package_pool.add_repository(opened)
    return package_pool


# --- candidates ----------------------------------------------------------------------------------


def _add_local(package_pool: PackagePool, recipe: Recipe, store: Store, progress: Progress) -> dict[Digest, int]:
    """Add the recipe's local packages to the store and to the pool."""
    local: dict[Digest, int] = {}
    for layer in recipe.layers:
        for item in layer.local:
            from pipeline.packages import read_header  # Few recipes have any.
            from pipeline.transfer import Download, errors_where_asked, fetch

            if item.sha256 in local:
                continue
            path = (recipe.path.parent / item.path).resolve()
            label, blob = str(item.path), store.blob(item.sha256)
            with errors_where_asked({label: item.place, str(blob): item.place}):
                wanted = Download((path.as_uri(),), item.sha256, None, label)
                fetch(store, [wanted], progress=progress, label=item.path.name)
                header = read_header(blob, item.sha256)
            local[item.sha256] = package_pool.add_local(header, blob.stat().st_size, _shown(item, recipe.path.parent))
    return local


def _shown(item: LocalPackage, folder: Path) -> str:
    """Return the path as in the lock: relative to the recipe, so that a checkout may be moved."""
    path = folder / item.path
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else item.path.name


def _exclude(
    package_pool: PackagePool, recipe: Recipe, repositories: Sequence[OpenRepository], local: dict[Digest, int]
) -> list[str]:
    """Disable the packages that recipe, repositories, pins and local packages exclude.

    Returns sentences about exclusions.
    """
    mine = set(local.values())
    out = {one for text in recipe.excludes for one in match_nevra(package_pool, text)} - mine
    for opened in repositories:
        out |= _left_out(package_pool, opened.repository)
    problems = []
    idle = []
    for name, version in recipe.pins:
        fitting, others = _pinned(package_pool, name, version)
        if not fitting | others:
            idle.append(f"pins: no repository has a package '{name}'; the pin has no effect")
        fixed = sorted(str(package_pool.nevra(one)) for one in others & package_pool.installed)
        if fixed:
            problems.append(pin_conflict(package_pool, name, version, fixed, recipe))
            continue
        out |= others
        if others and not fitting - out:
            problems.append(pin_unsatisfied(package_pool, name, version, others, recipe))
    if problems:
        raise ResolutionError.of(problems)
    for one in mine:
        solvable = package_pool.pool.id2solvable(one)
        out |= {
            other.id
            for other in package_pool.pool.select(solvable.name, solv.Selection.SELECTION_NAME).solvables()
            if other.id not in mine and other.arch == solvable.arch
        }
    package_pool.disable(out)
    return idle


def _left_out(package_pool: PackagePool, repository: PackageRepository) -> set[int]:
    """Packages of a repository that its `exclude` matches, or that its `include` leaves out."""

    def matched(texts: Iterable[str]) -> set[int]:
        return {one for text in texts for one in match_nevra(package_pool, text)}

    out = matched(repository.exclude)
    own = (
        {int(one.id) for one in package_pool.solvables() if one.repo.name == repository.id}
        if (out or repository.include)
        else set()
    )
    return own & (out | (own - matched(repository.include) if repository.include else set()))


def _pinned(package_pool: PackagePool, name: str, version: str) -> tuple[set[int], set[int]]:
    """Return the packages called `name` that a pin lets through, and the others.

    A pin is `version`, `version-release` or with an epoch; it may have wildcards.
    """
    named = match_nevra(package_pool, name)
    texts = (f"{name}-{version}",) if is_glob(version) else (f"{name}-{version}", f"{name}-{version}-*")
    fitting = {one for text in texts for one in match_nevra(package_pool, text)}
    return fitting & set(named), set(named) - fitting


def _read_groups(
    recipe: Recipe, repositories: Sequence[OpenRepository], store: Store, progress: Progress
) -> PackageGroups:
    """Return the groups of the repositories, if the recipe asks for any."""
    wanted = any(is_group(request.text) for layer in recipe.layers for request in layer.requests)
    return read_groups(repositories if wanted else (), store=store, progress=progress)


def _conditions(recipe: Recipe, groups: PackageGroups) -> set[str]:
    """Return the requirements on which packages of the requested groups depend."""
    texts = {request.text for layer in recipe.layers for request in layer.requests if is_group(request.text)}
    return {one.requires for text in texts for one in groups.find(text) or ()}


def _refuse_malformed(package_pool: PackagePool, recipe: Recipe) -> None:
    """Raise ResolutionError `dependency-malformed` for all that libsolv cannot parse."""
    problems = []
    for request in (one for layer in recipe.layers for one in layer.requests if one.text.startswith("(")):
        try:
            package_pool.dependency(request.text)
        except ResolutionError as error:
            hint = "write (a and b), (a or b), (a if b else c), (a unless b) or (a with b), with all brackets closed"
            problems += [replace(one, place=request.place, hint=hint) for one in error.problems]
    if problems:
        raise ResolutionError.of(problems)


def _match_group(package_pool: PackagePool, package: GroupPackage) -> RequestMatch:
    """Return the candidates for a package of a group, as in dnf (Base._finalize_comps_trans)."""
    found = match_name(package_pool, package.name, arch=package_pool.arch if package.native else None)
    if package.requires and found.groups:
        return match_request(package_pool, f"({package.name} if {package.requires})")
    return found


def _absent_of_groups(package_pool: PackagePool, recipe: Recipe, groups: PackageGroups) -> list[str]:
    """Sentences on packages of groups that no repository has: they are left out, as by dnf."""
    texts = dict.fromkeys(request.text for layer in recipe.layers for request in layer.requests)
    return [
        f"packages: '{package.name}' of the group '{text}' is in no repository, or excluded"
        for text in texts
        if is_group(text)
        for package in groups.find(text) or ()
        if not _match_group(package_pool, package).groups
    ]


def _match_all(
    package_pool: PackagePool, recipe: Recipe, local: dict[Digest, int], groups: PackageGroups
) -> list[MatchedRequest]:
    """Return every request of a recipe with its candidates.

    Raises ResolutionError `package-missing` for all that have none.
    """
    lines = []
    problems = []
    for layer in recipe.layers:
        for item in layer.local:
            found = RequestMatch(((local[item.sha256],),))
            lines.append(MatchedRequest(layer.name, Request(str(item.path), item.place), found, local=True))
        for request in layer.requests:
            if is_group(request.text):
                packages = groups.find(request.text)
                if packages is None:
                    problems.append(unknown_group(request, groups.names()))
                    continue
                matches = (_satisfied_below(_match_group(package_pool, one), package_pool) for one in packages)
                lines += [MatchedRequest(layer.name, request, one) for one in matches if one.groups]
                continue
            found = match_request(package_pool, request.text)
            found = _satisfied_below(found, package_pool)
            if found.groups and (found.everything or found.rich):
                lines.append(MatchedRequest(layer.name, request, found))
            else:
                problems.append(unmatched_request(package_pool, request, _disabled_for(package_pool, request)))
    if problems:
        raise ResolutionError.of(problems)
    return lines


def _satisfied_below(found: RequestMatch, package_pool: PackagePool) -> RequestMatch:
    """Narrow a match to the packages that the parent image has, where it has any.

    A request that the parent's packages satisfy gets these, however old.
    """
    if found.rich is not None:
        return found
    groups = (tuple(one for one in group if one in package_pool.installed) or group for group in found.groups)
    return RequestMatch(tuple(groups))


def _disabled_for(package_pool: PackagePool, request: Request) -> list[int]:
    flags = solv.Selection.SELECTION_NAME | solv.Selection.SELECTION_PROVIDES
    flags |= solv.Selection.SELECTION_WITH_DISABLED | solv.Selection.SELECTION_REL
    enabled = set(package_pool.enabled(package_pool.solvables()))
    found = package_pool.pool.select(request.text, flags).solvables()
    return sorted(int(one.id) for one in found if one.id not in enabled)


# --- solving -------------------------------------------------------------------------------------


def _solve(
    package_pool: PackagePool, lines: Sequence[MatchedRequest], *, weak: bool, parent: Recipe | None
) -> list[int]:
    """Run the solver; return the chosen solvables' numbers, sorted. Raises ResolutionError."""
    pool = package_pool.pool
    asked: list[RequestJob] = []
    for line in lines:
        for group in line.found.groups:
            if line.found.rich is not None:
                how = solv.Job.SOLVER_INSTALL | solv.Job.SOLVER_SOLVABLE_PROVIDES | solv.Job.SOLVER_FORCEBEST
                job = pool.Job(how, line.found.rich.id)
            else:
                job = pool.Job(_INSTALL | solv.Job.SOLVER_FORCEBEST, pool.towhatprovides(list(group)))
            asked.append(RequestJob(line.request, job))
    jobs = [one.job for one in asked]
    jobs += [pool.Job(solv.Job.SOLVER_LOCK | solv.Job.SOLVER_SOLVABLE, one) for one in sorted(package_pool.installed)]
    jobs += [
        pool.Job(solv.Job.SOLVER_MULTIVERSION | solv.Job.SOLVER_SOLVABLE_PROVIDES, package_pool.dependency(name).id)
        for name in INSTALLONLY
    ]
    solver = pool.Solver()
    # The same flags as libdnf's Goal::Impl::initSolver sets.
    solver.set_flag(solv.Solver.SOLVER_FLAG_ALLOW_VENDORCHANGE, 1)
    solver.set_flag(solv.Solver.SOLVER_FLAG_DUP_ALLOW_VENDORCHANGE, 1)
    solver.set_flag(solv.Solver.SOLVER_FLAG_KEEP_ORPHANS, 1)
    solver.set_flag(solv.Solver.SOLVER_FLAG_BEST_OBEY_POLICY, 1)
    solver.set_flag(solv.Solver.SOLVER_FLAG_YUM_OBSOLETES, 1)
    if not weak:
        solver.set_flag(solv.Solver.SOLVER_FLAG_IGNORE_RECOMMENDED, 1)
    problems = solver.solve(jobs)
    if problems:
        raise ResolutionError.of(explain_problems(package_pool, problems, asked, parent))
    return sorted(int(one.id) for one in solver.transaction().newsolvables())
