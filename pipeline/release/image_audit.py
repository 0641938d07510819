"""Find the security fixes that an image lacks, by its platform's advisories; check a limit.

The image's packages are read from its attested SBOM or its report. Start reading at `audit`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import FixesLacking, UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.attested_predicate import read_attested_predicate
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import read_published
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, require_identity
from pipeline.model.advisory import SECURITY, ImagePackage, Threshold, exceeding
from pipeline.model.image import Image, ImageConfig
from pipeline.model.platform import Platform
from pipeline.model.published_image import MissingFix
from pipeline.oci import VerifyingKey, end_of_life, media_types, read_layout
from pipeline.oci.attestation_reader import built_for, listed_packages
from pipeline.oci.predicates import CYCLONEDX, PROVENANCE, SIGN
from pipeline.packages import compare_evr
from pipeline.prepare import BuildEnvironment
from pipeline.progress import task
from pipeline.recipes import load_platforms
from pipeline.release.current_images import mirror_access
from pipeline.reports import (
    read_bill,
    read_build_record,
    refuse_other_image,
    report_folder,
)
from pipeline.repos import open_repositories
from pipeline.resolve import (
    RepositoryAdvisories,
    full_nevra,
    missing_fixes,
    read_repository_advisories,
    streams_in_use,
)

_MODULAR = ".module"
"""Part of the release of packages that are built in a module (`3.module_el9`, `1.module+el8.4.0`)."""

_SHOWN = 8
"""Advisories that an error names, at most."""


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """Subject and options of an audit.

    `subject`: a reference on a mirror, or a layout that was built here. `key` must have signed the image and attested
    the packages; None: they are unverified, as those in a layout's report always are. `repositories`: the file that
    defines platforms; `platform`: another one than the recorded. `architectures` are RPM's, empty for all of an index.
    `modules`: streams that are enabled besides those that the packages show. `kinds` of advisories, None for all.
    `identity`: the expected name in signatures.
    """

    subject: Address | Path
    repositories: Path
    key: VerifyingKey | None = None
    platform: str | None = None
    architectures: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    kinds: frozenset[str] | None = frozenset({SECURITY})
    identity: ExpectedIdentity = EXPECT_OWN


@dataclass(frozen=True, slots=True)
class AuditedContents:
    """One image: the platform and RPM architecture for which it was built, and its packages."""

    digest: Digest
    platform: str
    arch: str
    packages: tuple[ImagePackage, ...]


@dataclass(frozen=True, slots=True)
class AuditedImage:
    """The missing fixes of one image, and the limits of the audit.

    `heard`: repositories that have advisories; `silent`: those that have none. `unjudged`: repository → number of the
    image's packages from it, where it is silent or not of the platform, so that at most other repositories' advisories
    are known. `unoffered`: packages that no repository has in any version. `unavailable`: those of `missing` that no
    repository has, so that building again would not bring them. `streams`: enabled module streams; `modular`: packages
    that seem to be of a module, in a build that the repositories do not have. `notes`: messages about data that could
    not be interpreted.
    """

    contents: AuditedContents
    missing: tuple[MissingFix, ...]
    heard: tuple[str, ...]
    silent: tuple[str, ...]
    unjudged: tuple[tuple[str, int], ...]
    unoffered: tuple[str, ...]
    unavailable: tuple[MissingFix, ...]
    streams: tuple[str, ...]
    modular: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of an audit at `now` (milliseconds since the epoch).

    `digest`: of the subject, an index or an image; `verified`: the packages are attested by the given key;
    `end_of_life`: a day, or "".
    """

    subject: str
    digest: Digest
    verified: bool
    end_of_life: str
    images: tuple[AuditedImage, ...]
    now: int

    @property
    def missing(self) -> tuple[MissingFix, ...]:
        """The fixes that any of the images lacks, each once."""
        return tuple(dict.fromkeys(fix for image in self.images for fix in image.missing))


def audit(options: AuditOptions, build_env: BuildEnvironment) -> Audit:
    """Compare the packages of each image with the advisories of its repositories.

    The subject is an image, or an index with several.

    Raises UsageError `reference-missing`, `architecture-missing`, VerificationError, RecipeError for the platform, and
    EnvironmentLacking where a mirror or repository cannot be reached.
    """
    digest, ends, every = read_audited_contents(options, build_env)
    wanted = [one for one in every if not options.architectures or one.arch in options.architectures]
    if not wanted:
        raise UsageError(
            "architecture-missing",
            f"{options.subject} has no image for {', '.join(options.architectures)}",
            place=str(options.subject),
            hint=f"available: {', '.join(one.arch for one in every)}",
        )
    platforms = load_platforms(options.repositories)
    bulletins: dict[tuple[str, str], RepositoryAdvisories] = {}
    images = []
    for one in wanted:
        platform = platforms.find(one.platform, place=str(options.subject))
        if (one.platform, one.arch) not in bulletins:
            bulletins[one.platform, one.arch] = open_bulletin(platform, one.arch, build_env)
        images.append(audit_image(one, bulletins[one.platform, one.arch], options))
    verified = options.key is not None and isinstance(options.subject, Address)
    return Audit(str(options.subject), digest, verified, ends, tuple(images), int(build_env.clock() * 1000))


def open_bulletin(platform: Platform, arch: str, build_env: BuildEnvironment) -> RepositoryAdvisories:
    """Read the advisories and newest packages of a platform's repositories.

    For audits of any number of images.
    """
    opened = open_repositories(
        platform,
        arch,
        variables=build_env.environment,
        store=build_env.store,
        offline=build_env.offline,
        progress=build_env.progress,
        clock=build_env.clock,
    )
    with task(build_env.progress, "fetch", f"advisories of {platform.name}"):
        return read_repository_advisories(opened, arch, store=build_env.store, progress=build_env.progress)


def audit_image(contents: AuditedContents, bulletin: RepositoryAdvisories, options: AuditOptions) -> AuditedImage:
    """Compare one image's packages with the advisories; no I/O."""
    packages, advisories = contents.packages, bulletin.advisories
    streams = streams_in_use(packages, bulletin.streams) | set(options.modules)
    missing = missing_fixes(packages, advisories.given, streams=streams, kinds=options.kinds)
    known = set().union(*bulletin.streams.values())
    return AuditedImage(
        contents=contents,
        missing=missing,
        heard=advisories.heard,
        silent=advisories.silent,
        unjudged=tuple(
            sorted(Counter(one.repository for one in packages if one.repository not in advisories.heard).items())
        ),
        unoffered=tuple(str(one.nevra) for one in packages if (one.nevra.name, one.nevra.arch) not in bulletin.newest),
        unavailable=tuple(fix for fix in missing if not _available(fix, packages, bulletin)),
        streams=tuple(sorted(streams)),
        modular=tuple(
            str(one.nevra) for one in packages if _MODULAR in one.nevra.release and full_nevra(one.nevra) not in known
        ),
        notes=advisories.notes,
    )


def require_below(threshold: Threshold, found: Audit) -> None:
    """Raise FixesLacking `fixes-lacking` if an audit found missing fixes beyond `threshold`.

    Also `advisories-missing` for an image whose platform has no repository with advisories: nothing is known of it.
    """
    for image in found.images:
        if not image.heard:
            raise FixesLacking(
                "advisories-missing",
                f"no repository of the platform '{image.contents.platform}' has advisories, so it is unknown whether "
                f"fixes are missing ({threshold})",
                place=found.subject,
                hint="choose a platform whose repositories have updateinfo, or set no threshold",
            )
    beyond = exceeding(threshold, found.missing, found.now)
    if beyond:
        names = list(dict.fromkeys(fix.advisory for fix in beyond))
        raise FixesLacking(
            "fixes-lacking",
            f"missing fixes beyond {threshold} ({len(beyond)}): {', '.join(names[:_SHOWN])}"
            + (" …" if len(names) > _SHOWN else ""),
            place=found.subject,
            hint="build the image again with --upgrade, and publish it",
        )


# --- contents of images ----------------------------------------------------------------------------------


def read_audited_contents(
    options: AuditOptions, build_env: BuildEnvironment
) -> tuple[Digest, str, tuple[AuditedContents, ...]]:
    """Read the digest of the subject, its end of life, and the contents of its images.

    Raises as `audit`.
    """
    subject = options.subject
    if isinstance(subject, Path):
        image = read_layout(subject)
        return image.digest, end_of_life(image.manifest_bytes), (_built_here(subject, image.digest, options),)
    with mirror_access(build_env).repository(subject) as repository:
        held = read_published(repository, subject.reference)
        if options.key is not None:  # the signed index or manifest has the list of images and the end of life
            read_attested_predicate(repository, held.digest, SIGN, options.key)
            require_identity(repository, held.manifest, options.key, options.identity)
        contents = tuple(_published(repository, image, options) for image in held.images)
        return held.digest, held.end_of_life, contents


def _built_here(layout: Path, digest: Digest, options: AuditOptions) -> AuditedContents:
    folder = report_folder(layout)
    refuse_other_image(folder, digest)
    told = read_build_record(folder).provenance
    packages = (ImagePackage(one.nevra, one.source_rpm, one.repository) for one in read_bill(folder).packages)
    return AuditedContents(digest, options.platform or told.platform, told.architecture, tuple(packages))


def _published(repository: Repository, image: Image, options: AuditOptions) -> AuditedContents:
    listed = read_attested_predicate(repository, image.digest, CYCLONEDX, options.key)
    packages = listed_packages(listed, f"SBOM of {image.digest.short}")
    if options.platform is not None:
        return AuditedContents(image.digest, options.platform, rpm_architecture(image.config), packages)
    told = read_attested_predicate(repository, image.digest, PROVENANCE, options.key)
    platform, arch = built_for(told, f"provenance of {image.digest.short}")
    return AuditedContents(image.digest, platform, arch, packages)


def rpm_architecture(config: ImageConfig) -> str:
    """Return RPM's name of an image's architecture.

    Raises VerificationError `architecture-unknown`.
    """
    for name, known in media_types.ARCHITECTURES.items():
        if known == (config.architecture, config.variant):
            return name
    said = "/".join(filter(None, (config.architecture, config.variant)))
    raise VerificationError("architecture-unknown", f"unknown architecture: '{said[:40]}'")


def _available(fix: MissingFix, packages: Sequence[ImagePackage], bulletin: RepositoryAdvisories) -> bool:
    """Return whether a repository has the fix, for an architecture of the image's package."""
    arches = {one.nevra.arch for one in packages if one.nevra.name == fix.package}
    offered = (bulletin.newest.get((fix.package, arch)) for arch in arches)
    return any(evr is not None and compare_evr(evr, fix.fixed_in) >= 0 for evr in offered)
