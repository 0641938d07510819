"""Resolve the requests of a recipe to packages, as `dnf install` with best=1 does.

What dnf would install into an empty root is what is chosen (libdnf, goal/Goal.cpp). Where there is a parent image, its
packages are installed and locked: a request that they satisfy asks for nothing more, and whatever would change one of
them is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import solv

from pipeline.digest import Digest
from pipeline.errors import Problem, ResolutionError
from pipeline.model.lock import LockedParent, LockSection
from pipeline.model.parent import ParentImage
from pipeline.model.platform import Platform
from pipeline.model.recipe import LocalPackage, Recipe, Request
from pipeline.packages import read_header
from pipeline.progress import QUIET, Progress
from pipeline.repos import OpenRepository
from pipeline.resolve.describing import Description, Line
from pipeline.resolve.modules import apply_modules
from pipeline.resolve.problems import Asked, explain_problems, missing, pinned_otherwise
from pipeline.resolve.subject import Match, is_glob, match, match_nevra
from pipeline.resolve.universe import Universe
from pipeline.resolve.versions import versions
from pipeline.store import Store
from pipeline.transfer import Download, fetch

INSTALLONLY = (
    "kernel",
    "kernel-PAE",
    "installonlypkg(kernel)",
    "installonlypkg(kernel-module)",
    "installonlypkg(vm)",
    "multiversion(kernel)",
)
"""dnf's default `installonlypkgs`: several versions may stand side by side."""

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
    universe: Universe | None = None,
) -> LockSection:
    """Choose the packages of a recipe for one platform and architecture.

    They are those that it adds to `parent`.

    `universe` is what `open_universe` made of the same repositories, if several recipes are solved in it: what a recipe
    adds to it, it must not see. `inputs` are kept in the section as they are. Local packages are read and put into the
    store, metadata that is needed is fetched; packages are not. The result depends on nothing but the recipe, the
    metadata and the version of libsolv. Raises ResolutionError: `package-missing`, `requirement-missing`,
    `packages-conflict`, `resolution-impossible`, `pin-unsatisfied`, `module-refused`,
    `parent-fixed`, all that can be told at once.
    """
    own = bool(parent or recipe.assume_installed or any(layer.local for layer in recipe.layers))
    if universe is None or own:
        universe = open_universe(arch, repositories, store=store, progress=progress)
    else:
        universe.enable_all()
    local = _add_local(universe, recipe, store, progress)
    if parent is not None:
        universe.add_installed(one.header for one in parent.packages)
    if recipe.assume_installed:
        universe.assume(recipe.assume_installed)
    if own:
        universe.index()
    warnings = list(apply_modules(universe, recipe, repositories, store=store, progress=progress))
    warnings += _exclude(universe, recipe, repositories, local)
    lines = _match_all(universe, recipe, local)
    reachable = [one for line in lines for one in line.found.everything]
    if universe.has_filelists or universe.needs_filelists(reachable, weak=recipe.weak_dependencies):
        universe.load_filelists()  # which may have been done by one request, after others were matched
        lines = _match_all(universe, recipe, local)
    chosen = _solve(universe, lines, weak=recipe.weak_dependencies, parent=recipe.parent)
    resolution = Description(universe, recipe, chosen).resolution(platform.name, lines, warnings)
    from_ids = {one.package.repository for one in resolution.chosen}
    return LockSection(
        resolution,
        tuple(inputs),
        max([one.package.build_time for one in resolution.chosen] + [parent.build_time if parent else 0]),
        versions=versions(),
        metadata=tuple(sorted((one.repository.id, one.repomd) for one in repositories)),
        keys=tuple(sorted({k.fingerprint for o in repositories for k in o.keys if k.repository in from_ids})),
        parent=LockedParent(parent.name, parent.digest, parent.config) if parent else None,
    )


def open_universe(
    arch: str, repositories: Sequence[OpenRepository], *, store: Store, progress: Progress = QUIET
) -> Universe:
    """All that the repositories offer, in which one recipe after the other can be solved."""
    universe = Universe(arch, store=store, progress=progress)
    # dnf's order (RepoDict.items): where all else is equal, libsolv prefers what was loaded first.
    for opened in sorted(repositories, key=lambda one: (one.repository.priority, one.repository.cost)):
        universe.add_repository(opened)
    universe.index()
    return universe


# --- what there is to choose from ----------------------------------------------------------------


def _add_local(universe: Universe, recipe: Recipe, store: Store, progress: Progress) -> dict[Digest, int]:
    """Packages that the recipe names by path, in the store and in the universe."""
    local: dict[Digest, int] = {}
    for layer in recipe.layers:
        for item in layer.local:
            if item.sha256 in local:
                continue
            path = (recipe.path.parent / item.path).resolve()
            fetch(
                store,
                [Download((path.as_uri(),), item.sha256, None, str(item.path))],
                progress=progress,
                label=item.path.name,
            )
            blob = store.blob(item.sha256)
            header = read_header(blob, item.sha256)
            local[item.sha256] = universe.add_local(header, blob.stat().st_size, _shown(item, recipe.path.parent))
    return local


def _shown(item: LocalPackage, folder: Path) -> str:
    """The path as the lock shows it: relative to the recipe, so that a checkout may be moved."""
    path = folder / item.path
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else item.path.name


def _exclude(
    universe: Universe, recipe: Recipe, repositories: Sequence[OpenRepository], local: dict[Digest, int]
) -> list[str]:
    """Disable the packages that are excluded, and return sentences.

    They are what recipe, repositories, pins and local packages leave no room for.
    """
    mine = set(local.values())
    out = {one for text in recipe.excludes for one in match_nevra(universe, text)} - mine
    for opened in repositories:
        for text in opened.repository.exclude:
            found = match_nevra(universe, text)
            out |= {one for one in found if universe.pool.id2solvable(one).repo.name == opened.repository.id}
    problems = []
    idle = []
    for name, version in recipe.pins:
        fitting, others = _pinned(universe, name, version)
        if not fitting | others:
            idle.append(f"pins: no repository has a package '{name}'; the pin has no effect")
        fixed = sorted(str(universe.nevra(one)) for one in others & universe.installed)
        if fixed:
            problems.append(pinned_otherwise(universe, name, version, fixed, recipe))
            continue
        out |= others
        if others and not fitting - out:
            have = ", ".join(sorted({universe.nevra(one).evr for one in others}))
            problems.append(
                Problem(
                    "pin-unsatisfied",
                    f"no repository has {name} in version {version}",
                    recipe.path.name,
                    f"available: {have}",
                )
            )
    if problems:
        raise ResolutionError.of(problems)
    for one in mine:
        solvable = universe.pool.id2solvable(one)
        out |= {
            other.id
            for other in universe.pool.select(solvable.name, solv.Selection.SELECTION_NAME).solvables()
            if other.id not in mine and other.arch == solvable.arch
        }
    universe.disable(out)
    return idle


def _pinned(universe: Universe, name: str, version: str) -> tuple[set[int], set[int]]:
    """Return the packages called `name` that a pin lets through, and the others.

    A pin is `version`, `version-release` or with an epoch; it may hold wildcards.
    """
    named = match_nevra(universe, name)
    texts = (f"{name}-{version}",) if is_glob(version) else (f"{name}-{version}", f"{name}-{version}-*")
    fitting = {one for text in texts for one in match_nevra(universe, text)}
    return fitting & set(named), set(named) - fitting


def _match_all(universe: Universe, recipe: Recipe, local: dict[Digest, int]) -> list[Line]:
    """Return every request of a recipe with its candidates.

    Raises ResolutionError `package-missing` for all that have none.
    """
    lines = []
    problems = []
    for layer in recipe.layers:
        for item in layer.local:
            found = Match(((local[item.sha256],),))
            lines.append(Line(layer.name, Request(str(item.path), item.place), found, local=True))
        for request in layer.requests:
            found = match(universe, request.text)
            found = _satisfied_below(found, universe)
            if found.groups and (found.everything or found.rich):
                lines.append(Line(layer.name, request, found))
            else:
                problems.append(missing(universe, request, disabled=_disabled_for(universe, request)))
    if problems:
        raise ResolutionError.of(problems)
    return lines


def _satisfied_below(found: Match, universe: Universe) -> Match:
    """Narrow a match to the packages that the parent image has, where it has any.

    What the parent image has of the packages that a request asks for is what it gets, however old.
    """
    if found.rich is not None:
        return found
    groups = (tuple(one for one in group if one in universe.installed) or group for group in found.groups)
    return Match(tuple(groups))


def _disabled_for(universe: Universe, request: Request) -> list[str]:
    flags = solv.Selection.SELECTION_NAME | solv.Selection.SELECTION_PROVIDES
    flags |= solv.Selection.SELECTION_WITH_DISABLED | solv.Selection.SELECTION_REL
    enabled = set(universe.enabled(universe.solvables()))
    found = universe.pool.select(request.text, flags).solvables()
    return sorted(str(universe.nevra(one.id)) for one in found if one.id not in enabled)


# --- choosing ------------------------------------------------------------------------------------


def _solve(universe: Universe, lines: Sequence[Line], *, weak: bool, parent: Recipe | None) -> list[int]:
    """Numbers of the chosen solvables, sorted. Raises ResolutionError."""
    pool = universe.pool
    asked: list[Asked] = []
    for line in lines:
        for group in line.found.groups:
            if line.found.rich is not None:
                how = solv.Job.SOLVER_INSTALL | solv.Job.SOLVER_SOLVABLE_PROVIDES
                job = pool.Job(how, line.found.rich.id)
            else:
                job = pool.Job(_INSTALL | solv.Job.SOLVER_FORCEBEST, pool.towhatprovides(list(group)))
            asked.append(Asked(line.request, job))
    jobs = [one.job for one in asked]
    jobs += [pool.Job(solv.Job.SOLVER_LOCK | solv.Job.SOLVER_SOLVABLE, one) for one in sorted(universe.installed)]
    jobs += [
        pool.Job(solv.Job.SOLVER_MULTIVERSION | solv.Job.SOLVER_SOLVABLE_PROVIDES, pool.Dep(name).id)
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
        raise ResolutionError.of(explain_problems(universe, problems, asked, parent))
    return sorted(int(one.id) for one in solver.transaction().newsolvables())
