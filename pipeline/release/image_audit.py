"""The security fixes that an image lacks and that its repositories offer now.

Its packages as they are attested are compared with what the repositories of its platform say. Start reading at `audit`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import FixesLacking, UsageError, VerificationError
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
"""In the release of what is built as part of a module (`3.module_el9`, `1.module+el8.4.0`)."""

_SHOWN = 8
"""Advisories that an error names."""


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """The subject of an audit, and the options for it.

    `subject` is a reference on a mirror, or a layout that was built here.

    `key` must have signed what is named and attested the packages; None: they are what the mirror says, as those of a
    layout are what its report says. `repositories` is the file that defines platforms, `platform` another one than was
    recorded. `architectures` are RPM's, empty for all that an index has. `modules` are streams that are on besides
    those that the packages tell of. `kinds` of advisories, None for all. `identity`: the name that was signed.
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
    """One image: the platform and RPM architecture that it was built for, and what is in it."""

    digest: Digest
    platform: str
    arch: str
    packages: tuple[ImagePackage, ...]


@dataclass(frozen=True, slots=True)
class AuditedImage:
    """The fixes that one image lacks.

    `heard` are the repositories that have advisories, `silent` those that have none. `unjudged`: of how many packages
    nothing is known, or only what other repositories say, by the repository that they come from: a silent one, or one
    that is not of the platform. `unoffered` are packages that no repository has in any version, `unavailable` fixes
    among `missing` that no repository has, so that building again would not bring them. `streams` are the module
    streams that are on; `modular` are packages that look as if of a module, in a build that the repositories do not
    know. `notes` are sentences about what was not understood.
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
    """The findings of an audit at `now` (milliseconds since the epoch).

    `digest` is of what was named, an index or an image; `verified`: the packages are attested by a key that was given.
    `end_of_life` is a day, or "".
    """

    subject: str
    digest: Digest
    verified: bool
    end_of_life: str
    images: tuple[AuditedImage, ...]
    now: int

    @property
    def missing(self) -> tuple[MissingFix, ...]:
        """Return the fixes that any of the images lacks, each once."""
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
    """Return what a platform's repositories say now.

    A bulletin is to be opened once, and compared with any number of images.
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
    """Return the fixes that one image lacks. Pure."""
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
    """Refuse an audit that found fixes lacking beyond `threshold`.

    Raises FixesLacking `fixes-lacking` if something is missing that is as bad and as old as `threshold` says, and
    `advisories-missing` if of an image nobody can tell, because no repository of its platform has advisories.
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


# --- what is in an image ---------------------------------------------------------------------------------


def read_audited_contents(
    options: AuditOptions, build_env: BuildEnvironment
) -> tuple[Digest, str, tuple[AuditedContents, ...]]:
    """Return the digest of the subject, its end of life, and the contents of its images.

    Raises as `audit`.
    """
    subject = options.subject
    if isinstance(subject, Path):
        image = read_layout(subject)
        return image.digest, end_of_life(image.manifest_bytes), (_built_here(subject, image.digest, options),)
    with mirror_access(build_env).repository(subject) as repository:
        held = read_published(repository, subject.reference)
        if options.key is not None:  # an index says which images it has, and until when they are kept up
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
    """RPM's name for what an image is for. Raises VerificationError `architecture-unknown`."""
    for name, known in media_types.ARCHITECTURES.items():
        if known == (config.architecture, config.variant):
            return name
    said = "/".join(filter(None, (config.architecture, config.variant)))
    raise VerificationError("architecture-unknown", f"unknown architecture: '{said[:40]}'")


def _available(fix: MissingFix, packages: Sequence[ImagePackage], bulletin: RepositoryAdvisories) -> bool:
    """Tell whether a repository has the fix, for an architecture of the image's package."""
    arches = {one.nevra.arch for one in packages if one.nevra.name == fix.package}
    offered = (bulletin.newest.get((fix.package, arch)) for arch in arches)
    return any(evr is not None and compare_evr(evr, fix.fixed_in) >= 0 for evr in offered)
