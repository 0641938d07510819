"""Find the fixes in advisories that an image lacks, and those that one image took in.

An advisory speaks of a package of the same name and architecture; versions are compared as rpm does, and of several
versions side by side the newest counts, all as in dnf's `updateinfo list`. An advisory's packages of a module stream
count only where that stream is enabled. Pure but for `read_repository_advisories`, which reads the repositories.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.advisory import (
    SECURITY,
    Advisories,
    Advisory,
    FixedPackage,
    ImagePackage,
    rank,
)
from pipeline.model.package import Nevra
from pipeline.model.published_image import FixTaken, MissingFix
from pipeline.packages import compare_evr
from pipeline.progress import QUIET, Progress
from pipeline.repos import OpenRepository, read_advisories
from pipeline.resolve.modules import stream_packages
from pipeline.resolve.pool import PackagePool
from pipeline.store import Store

_ONLY_SECURITY = frozenset({SECURITY})

Versions = Mapping[tuple[str, str], str]
"""Name and architecture → the newest EVR."""


@dataclass(frozen=True, slots=True)
class RepositoryAdvisories:
    """The advisories of a platform's repositories for one architecture.

    They are read once and shared between images. `newest` are the newest versions in the repositories; `streams` are
    their module streams with the packages of each.
    """

    advisories: Advisories
    newest: Versions
    streams: Mapping[str, frozenset[str]]


def read_repository_advisories(
    repositories: Sequence[OpenRepository], arch: str, *, store: Store, progress: Progress = QUIET
) -> RepositoryAdvisories:
    """Read the advisories, versions and module streams of open repositories.

    Raises VerificationError `metadata-malformed`, ResolutionError `module-refused`, and as
    `pipeline.repos.metadata_file`.
    """
    package_pool = PackagePool(arch, store=store, progress=progress)
    for opened in repositories:
        package_pool.add_repository(opened)
    return RepositoryAdvisories(
        read_advisories(repositories, store=store, progress=progress),
        _newest(((str(one.name), str(one.arch)), str(one.evr)) for one in package_pool.solvables()),
        stream_packages(repositories, store=store, progress=progress),
    )


def missing_fixes(
    packages: Iterable[ImagePackage],
    advisories: Iterable[Advisory],
    *,
    streams: Collection[str] = (),
    kinds: Collection[str] | None = _ONLY_SECURITY,
) -> tuple[MissingFix, ...]:
    """Return the fixes that `packages` lack.

    The worst come first, and of these the oldest; each package of an advisory once. `streams` are the enabled module
    streams (`nodejs:20`); `kinds`: of advisories, None for all.
    """
    has = newest(packages)
    found: dict[tuple[str, str, str, str], MissingFix] = {}
    for advisory in advisories:
        if kinds is not None and advisory.kind not in kinds:
            continue
        for fixed, own in _concerned(advisory, has, streams):
            if compare_evr(own, fixed.evr) >= 0:
                continue
            key = (advisory.id, fixed.name, fixed.arch, own)
            known = found.get(key)
            if known is None or compare_evr(fixed.evr, known.fixed_in) < 0:
                found[key] = _missing(advisory, fixed, own)
    return tuple(sorted(dict.fromkeys(found.values()), key=_worst_first))


def fixes_taken(
    before: Iterable[ImagePackage],
    after: Iterable[ImagePackage],
    advisories: Iterable[Advisory],
    *,
    streams: Collection[str] = (),
) -> tuple[FixTaken, ...]:
    """Return the security fixes that `after` has and `before` lacked.

    They are those of packages that are in both. The worst come first.
    """
    old, new = newest(before), newest(after)
    found: dict[tuple[str, str, str], tuple[Advisory, FixTaken]] = {}
    for advisory in advisories:
        if advisory.kind != SECURITY:
            continue
        for fixed, own in _concerned(advisory, new, streams):
            was = old.get((fixed.name, fixed.arch))
            if was is not None and compare_evr(was, fixed.evr) < 0 <= compare_evr(own, fixed.evr):
                key = (advisory.id, fixed.name, own)
                taken = FixTaken(advisory.id, advisory.severity, advisory.title, advisory.cves, fixed.name, own)
                found.setdefault(key, (advisory, taken))
    ordered = sorted(found.values(), key=lambda one: (rank(one[0].severity), one[0].issued, one[0].id, one[1].package))
    return tuple(taken for _, taken in ordered)


def full_nevra(nevra: Nevra) -> str:
    """Return `name-epoch:version-release.arch`, as modules.yaml lists packages."""
    return f"{nevra.name}-{nevra.epoch}:{nevra.version}-{nevra.release}.{nevra.arch}"


def newest(packages: Iterable[ImagePackage]) -> Versions:
    """Return the newest version of each package, by name and architecture."""
    return _newest(((one.nevra.name, one.nevra.arch), one.nevra.evr) for one in packages)


def streams_in_use(packages: Iterable[ImagePackage], streams: Mapping[str, Collection[str]]) -> frozenset[str]:
    """Return the module streams that packages belong to.

    They are among `streams` (as `stream_packages` returns them). Old builds that the repositories no longer have are
    unknown.
    """
    own = {full_nevra(one.nevra) for one in packages}
    return frozenset(name for name, listed in streams.items() if not own.isdisjoint(listed))


def _newest(versions: Iterable[tuple[tuple[str, str], str]]) -> Versions:
    found: dict[tuple[str, str], str] = {}
    for key, evr in versions:
        if key not in found or compare_evr(found[key], evr) < 0:
            found[key] = evr
    return found


def _concerned(advisory: Advisory, has: Versions, streams: Collection[str]) -> Iterator[tuple[FixedPackage, str]]:
    """Yield the packages of an advisory that are present, each with the version present."""
    for fixed in advisory.packages:
        own = has.get((fixed.name, fixed.arch))
        if own is not None and (not fixed.module or fixed.module in streams):
            yield fixed, own


def _missing(advisory: Advisory, fixed: FixedPackage, own: str) -> MissingFix:
    return MissingFix(
        advisory=advisory.id,
        severity=advisory.severity,
        title=advisory.title,
        issued=advisory.issued,
        cves=advisory.cves,
        package=fixed.name,
        has=own,
        fixed_in=fixed.evr,
        repository=advisory.repository,
        kind=advisory.kind,
    )


def _worst_first(fix: MissingFix) -> tuple[bool, int, int, str, str, str]:
    return fix.kind != SECURITY, rank(fix.severity), fix.issued, fix.advisory, fix.package, fix.has
