"""Source RPMs of all packages of a locked recipe, fetched into the store and verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.errors import Problem, ResolutionError, VerificationError
from pipeline.model.package import Package
from pipeline.model.platform import Platform, acceptance_warnings
from pipeline.model.signing_key import PackageTrust
from pipeline.packages import read_source_nevra
from pipeline.prepare.build_options import BuildEnvironment, RepositoryCache
from pipeline.prepare.locked_recipe import LockedRecipe
from pipeline.prepare.package_trust import trust_by_repository
from pipeline.prepare.verified_packages import demand_nevra, verified_file
from pipeline.progress import task
from pipeline.repos import fetch_packages, find_source_packages, load_keys


def obtain_sources(locked: LockedRecipe, build_env: BuildEnvironment) -> tuple[Package, ...]:
    """Fetch and verify the source RPMs of all packages; return them sorted, each once.

    Raises ResolutionError `sources-missing` for all that no source repository has, or `sources-unknown` if the
    platform names none; VerificationError and EnvironmentLacking as for packages.
    """
    platform = locked.platform
    if not platform.sources:
        raise ResolutionError(
            "sources-unknown",
            f"platform '{platform.name}' defines no repositories of source packages",
            place=platform.name,
            hint="add them under 'sources:' of the platform in repositories.yaml",
        )
    wanted: dict[str, list[str]] = {}
    for header in locked.all_headers:
        wanted.setdefault(header.source_rpm, []).append(str(header.nevra))
    for warning in acceptance_warnings(platform.sources):
        build_env.progress.warn(warning)
    listed = replace(platform, repositories=platform.sources)
    arch = locked.section.resolution.arch
    keys = load_keys(
        listed,
        arch,
        variables=build_env.environment,
        store=build_env.store,
        offline=build_env.offline,
        progress=build_env.progress,
    )
    opened = RepositoryCache(listed, arch, build_env).repositories()
    found: dict[str, Package] = {}
    for one in opened:
        found |= find_source_packages(
            one, wanted.keys() - found.keys(), store=build_env.store, progress=build_env.progress
        )
    lacking = sorted(wanted.keys() - found.keys())
    if lacking:
        raise ResolutionError.of([_no_source(name, wanted[name], platform) for name in lacking])
    packages = sorted(found.values())
    fetch_packages(packages, opened, store=build_env.store, progress=build_env.progress, offline=build_env.offline)
    _verify_sources(packages, trust_by_repository(keys, platform.sources), build_env)
    return tuple(packages)


def _verify_sources(
    packages: Sequence[Package], trusts: Mapping[str, PackageTrust], build_env: BuildEnvironment
) -> None:
    problems: list[Problem] = []
    with task(build_env.progress, "verify", "source packages", total=len(packages)) as running:
        for package in packages:
            trust = trusts.get(package.repository, PackageTrust())
            try:
                demand_nevra(read_source_nevra(verified_file(package, trust, build_env.store)), package)
            except VerificationError as error:
                problems.extend(error.problems)
            running.advance(1)
    if problems:
        raise VerificationError.of(problems)


def _no_source(name: str, made: Sequence[str], platform: Platform) -> Problem:
    """Return the problem of a source package that no repository has.

    `name` is empty for packages whose header names no source package.
    """
    where = ", ".join(one.id for one in platform.sources)
    return Problem(
        "sources-missing",
        f"no source repository ({where}) has {name}" if name else "its header names no source package",
        ", ".join(made),
        "add the repository that has it under 'sources:' of the platform, or publish without sources",
    )
