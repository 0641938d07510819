"""Fetch packages and archives into the store, verify signatures, and read RPM headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pipeline.beneath import GivenFolder, PathEscape, escape_error
from pipeline.digest import Digest, identity
from pipeline.errors import Problem, VerificationError
from pipeline.model.header import PackageHeader
from pipeline.model.lock import LockSection
from pipeline.model.package import Nevra, Package
from pipeline.model.recipe import FileKind, Recipe
from pipeline.model.signing_key import PackageTrust
from pipeline.packages import errors_about, read_header, unreadable_keys, verify_package
from pipeline.prepare.build_options import BuildEnvironment, RepositoryCache
from pipeline.prepare.copied_payloads import CopiedPayloads
from pipeline.prepare.package_trust import trust_by_repository
from pipeline.processors import whole_processors
from pipeline.progress import task
from pipeline.repos import LOCAL_REPOSITORY, RepositoryKey, fetch_packages
from pipeline.store import Store
from pipeline.transfer import Download, Network, errors_where_asked, fetch


def verify_threads() -> int:
    """Return how many packages are verified side by side: one a processor, up to 4.

    Hashing and rpm's reading of headers do without Python's lock.
    """
    return min(4, whole_processors())


def obtain_verified(
    packages: Sequence[Package],
    recipe: Recipe,
    keys: Sequence[RepositoryKey],
    section: LockSection,
    cache: RepositoryCache,
    *,
    locked: bool = False,
) -> tuple[PackageHeader, ...]:
    """Fetch and verify all packages; return their headers in transaction order.

    A copy that is damaged in the store is fetched once more. `locked` if the section is a lock's as it stands.
    Raises as `obtain` and `verify_and_read`.
    """
    trusts = trust_by_repository(keys, cache.platform.repositories, locked_at=section.build_time if locked else None)
    copied = CopiedPayloads()
    obtain(packages, recipe, cache, copied)
    try:
        return verify_and_read(packages, trusts, section, cache.build_env, copied)
    except VerificationError as error:
        if any(problem.code not in _STORE_DAMAGE for problem in error.problems):
            raise
    obtain(packages, recipe, cache, copied)
    return verify_and_read(packages, trusts, section, cache.build_env, copied)


_STORE_DAMAGE = ("blob-damaged", "blob-missing")
"""Codes of problems with the store's copy of a package, not with the package itself."""


def obtain(
    packages: Sequence[Package], recipe: Recipe, cache: RepositoryCache, copied: CopiedPayloads | None = None
) -> None:
    """Fetch every package that the store lacks.

    `copied` gets the payloads of those that are copied from this machine. Repositories are opened only when one is
    missing.
    """
    passing = copied.passing if copied is not None else None
    build_env = cache.build_env
    missing = [package for package in packages if not build_env.store.has(package.checksum)]
    local = {item.sha256: item for layer in recipe.layers for item in layer.local}
    for package in missing:
        if package.repository == LOCAL_REPOSITORY and package.checksum in local:
            item = local[package.checksum]
            _refuse_escape(recipe, recipe.path.parent / item.path, item.place)
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
        places = {str(package.nevra): local[package.checksum].place for package in missing if package.checksum in local}
        with errors_where_asked(places):
            fetch(
                build_env.store,
                named,
                progress=build_env.progress,
                network=Network.of(build_env.environment),
                label="files",
                passing=passing,
            )
    offered = [package for package in missing if package.repository != LOCAL_REPOSITORY]
    if offered:
        fetch_packages(
            offered,
            cache.repositories(),
            store=build_env.store,
            progress=build_env.progress,
            offline=build_env.offline,
            passing=passing,
        )


def obtain_files(recipe: Recipe, build_env: BuildEnvironment) -> None:
    """Fetch a recipe's files and archives by URL into the store, and archives beside it.

    Raises VerificationError when a checksum is not the recipe's, RecipeError `path-escapes`, and as `fetch` does.
    """
    wanted = []
    for plan in recipe.files:
        if plan.kind not in (FileKind.ARCHIVE, FileKind.URL) or plan.sha256 is None:
            continue
        build_env.store.sound(plan.sha256)  # A damaged one is moved aside, and fetched again.
        url = plan.origin
        if plan.is_beside:
            if not build_env.store.has(plan.sha256):
                _refuse_escape(recipe, recipe.path.parent / plan.origin, plan.place)
            url = (recipe.path.parent / plan.origin).resolve().as_uri()
        wanted.append(Download((url,), plan.sha256, None, plan.path))
    network = Network.of(build_env.environment)
    with errors_where_asked({plan.path: plan.place for plan in recipe.files}):
        fetch(
            build_env.store,
            wanted,
            progress=build_env.progress,
            offline=build_env.offline,
            network=network,
            label="files of the recipe",
        )


def _refuse_escape(recipe: Recipe, path: Path, place: str) -> None:
    """Raise RecipeError `path-escapes` if a file leads out of the recipe's folder.

    The file could be replaced between this check and the fetch, but only by one with the checksum in the recipe, whose
    author has its content already.
    """
    try:
        GivenFolder(recipe.path.parent).check(path)
    except PathEscape as error:
        raise escape_error(error, place) from None


def verify_and_read(
    packages: Sequence[Package],
    trusts: Mapping[str, PackageTrust],
    section: LockSection,
    build_env: BuildEnvironment,
    copied: CopiedPayloads | None = None,
) -> tuple[PackageHeader, ...]:
    """Verify the signatures of all packages; return their headers in transaction order.

    Payloads that were `copied` just now are not read again. `trusts` are the keys of the repositories that packages
    come from. All failures are reported at once.
    """
    for name in sorted({package.repository for package in packages} & trusts.keys()):
        for key in unreadable_keys(trusts[name]):
            build_env.progress.warn(f"repository {name}: {key}; no signature by it counts")
    problems: list[Problem] = []
    headers: dict[str, PackageHeader] = {}

    def verified(package: Package) -> PackageHeader | VerificationError:
        try:
            return _verified(package, trusts.get(package.repository, PackageTrust()), build_env.store, copied)
        except VerificationError as error:
            return error

    with (
        task(build_env.progress, "verify", "signatures and checksums", total=len(packages)) as running,
        ThreadPoolExecutor(verify_threads(), "relbuild-verify") as threads,
    ):
        # Without payloads to hash, Python's lock is held most of the time, and two threads take longer than one.
        hashed = copied is not None and all(_is_hashed(package, build_env.store, copied) for package in packages)
        results = map(verified, packages) if hashed else threads.map(verified, packages)
        for package, found in zip(packages, results, strict=True):
            if isinstance(found, VerificationError):
                problems.extend(found.problems)
            else:
                headers[str(package.nevra)] = found
            running.advance(1)
    if problems:
        raise VerificationError.of(problems)
    return tuple(headers[nevra] for nevra in section.resolution.order)


def _is_hashed(package: Package, store: Store, copied: CopiedPayloads) -> bool:
    """Return whether a package's payload passed by when its file, as it is now, was copied."""
    stamp = store.stamp(package.checksum)
    passed = copied.of(package.checksum, stamp) if stamp is not None else None
    return passed is not None and passed.complete


def _verified(
    package: Package, trust: PackageTrust, store: Store, copied: CopiedPayloads | None = None
) -> PackageHeader:
    """Verify a package and return its header; a good signature is remembered by package, keys."""
    path = verified_file(package, trust, store, copied)
    with errors_about(package.nevra, path):
        header = read_header(path, package.checksum)
    demand_as_described(header, package)
    return header


def verified_file(package: Package, trust: PackageTrust, store: Store, copied: CopiedPayloads | None = None) -> Path:
    """Return the package's file in the store, its signature checked now or before.

    Its payload is not read again if it was `copied` and the file is unchanged since.
    """
    path = store.blob(package.checksum)
    keys = [Digest.of(one) for one in trust.certificates]
    name = identity("verify", 4, package=package.checksum, keys=keys, accept=sorted(trust.accept))
    stamp = store.stamp(package.checksum)
    if stamp is None or store.recall(name) != stamp:
        stamp = store.verify_once(package.checksum)
        try:
            passed = copied.of(package.checksum, stamp) if copied is not None else None
            verify_package(path, trust, passed=passed)
        except VerificationError as error:
            raise VerificationError.of([_about(problem, package, path) for problem in error.problems]) from error
        store.remember(name, stamp, sync=False)  # As the stamp itself: what a crash takes is verified again.
    return path


def demand_as_described(header: PackageHeader, package: Package) -> None:
    """Compare a verified header with the repository metadata from which its package was chosen.

    Metadata is signed by few, and decides on the times in the image, on keys that expired, and on layers. Raises
    VerificationError `package-not-as-described`.
    """
    demand_nevra(header.nevra, package)
    if package.build_time not in (header.build_time, header.build_time & _LIBSOLV_TIME):
        described = f"{package.nevra} was built at {package.build_time}"
        raise _not_as_described(package, described, f"at {header.build_time} (seconds since 1970)")
    if not _is_source(package.source_rpm, header.source_rpm):
        described = f"{package.nevra} was built from '{package.source_rpm}'"
        raise _not_as_described(package, described, f"from '{header.source_rpm}'")


_LIBSOLV_TIME = (1 << 32) - 1
"""libsolv keeps the low 32 bits of a build time (ext/repo_rpmmd.c), as rpm's tag has them."""

_WHOLE_SOURCE = re.compile(r".+-[^-]*-[^-]*\.(no)?src\.rpm", re.DOTALL)
"""Names of source RPMs that libsolv keeps as they are (repodata_set_sourcepkg); others that end in `.rpm` it cuts."""


def _is_source(described: str, source_rpm: str) -> bool:
    """Return whether the name of a source RPM, as libsolv gives it, is the header's."""
    if described == source_rpm:
        return True
    return not _WHOLE_SOURCE.fullmatch(source_rpm) and source_rpm.startswith(described) and source_rpm.endswith(".rpm")


def demand_nevra(nevra: Nevra, package: Package) -> None:
    if nevra != package.nevra:
        raise _not_as_described(package, str(package.nevra), str(nevra))


def _not_as_described(package: Package, described: str, own: str) -> VerificationError:
    return VerificationError(
        "package-not-as-described",
        f"the repository metadata says {described}, the package header says {own}",
        place=package.location,
        hint="the repository metadata is wrong or stale: retry later, or report it to the repository's maintainer; "
        "if the lock was made from it, run `relbuild lock --upgrade` then",
    )


def _about(problem: Problem, package: Package, path: Path) -> Problem:
    """Return a problem that names the package instead of its file in the store."""
    message = problem.message.replace(path.name, str(package.nevra))
    return replace(problem, message=message, place=f"{package.nevra} of repository '{package.repository}'")
