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
from pipeline.gather import Workshop
from pipeline.mirror.address import Address
from pipeline.mirror.contents import attested_predicate
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import read_held
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, require_identity
from pipeline.model.advisory import SECURITY, ImagePackage, Threshold, exceeding
from pipeline.model.image import Image, ImageConfig
from pipeline.model.platform import Platform
from pipeline.model.published_image import MissingFix
from pipeline.oci import VerifyingKey, end_of_life, media_types, read_layout
from pipeline.oci.contents import built_for, listed_packages
from pipeline.oci.predicates import CYCLONEDX, PROVENANCE, SIGN
from pipeline.packages import compare_evr
from pipeline.progress import task
from pipeline.recipes import load_platforms
from pipeline.release.current import mirror_access
from pipeline.reports import read_bill, read_materials, refuse_another, report_folder
from pipeline.repos import open_repositories
from pipeline.resolve import Bulletin, full_nevra, missing_fixes, read_bulletin, streams_in_use

_MODULAR = ".module"
"""In the release of what is built as part of a module (`3.module_el9`, `1.module+el8.4.0`)."""

_SHOWN = 8
"""Advisories that an error names."""


@dataclass(frozen=True, slots=True)
class AuditOrder:
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
class Contents:
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

    contents: Contents
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


def audit(order: AuditOrder, workshop: Workshop) -> Audit:
    """Compare the packages of each image with the advisories of its repositories.

    The subject is an image, or an index with several.

    Raises UsageError `reference-missing`, `architecture-missing`, VerificationError, RecipeError for the platform, and
    EnvironmentLacking where a mirror or repository cannot be reached.
    """
    digest, ends, every = read_contents(order, workshop)
    wanted = [one for one in every if not order.architectures or one.arch in order.architectures]
    if not wanted:
        raise UsageError(
            "architecture-missing",
            f"{order.subject} has no image for {', '.join(order.architectures)}",
            place=str(order.subject),
            hint=f"available: {', '.join(one.arch for one in every)}",
        )
    platforms = load_platforms(order.repositories)
    bulletins: dict[tuple[str, str], Bulletin] = {}
    images = []
    for one in wanted:
        platform = platforms.find(one.platform, place=str(order.subject))
        if (one.platform, one.arch) not in bulletins:
            bulletins[one.platform, one.arch] = open_bulletin(platform, one.arch, workshop)
        images.append(audited(one, bulletins[one.platform, one.arch], order))
    verified = order.key is not None and isinstance(order.subject, Address)
    return Audit(str(order.subject), digest, verified, ends, tuple(images), int(workshop.clock() * 1000))


def open_bulletin(platform: Platform, arch: str, workshop: Workshop) -> Bulletin:
    """Return what a platform's repositories say now.

    A bulletin is to be opened once, and compared with any number of images.
    """
    opened = open_repositories(
        platform,
        arch,
        variables=workshop.environment,
        store=workshop.store,
        offline=workshop.offline,
        progress=workshop.progress,
    )
    with task(workshop.progress, "fetch", f"advisories of {platform.name}"):
        return read_bulletin(opened, arch, store=workshop.store, progress=workshop.progress)


def audited(contents: Contents, bulletin: Bulletin, order: AuditOrder) -> AuditedImage:
    """Return the fixes that one image lacks. Pure."""
    packages, advisories = contents.packages, bulletin.advisories
    streams = streams_in_use(packages, bulletin.streams) | set(order.modules)
    missing = missing_fixes(packages, advisories.given, streams=streams, kinds=order.kinds)
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


def read_contents(order: AuditOrder, workshop: Workshop) -> tuple[Digest, str, tuple[Contents, ...]]:
    """Return the digest of the subject, its end of life, and the contents of its images.

    Raises as `audit`.
    """
    subject = order.subject
    if isinstance(subject, Path):
        image = read_layout(subject)
        return image.digest, end_of_life(image.manifest_bytes), (_built_here(subject, image.digest, order),)
    with mirror_access(workshop).repository(subject) as repository:
        held = read_held(repository, subject.reference)
        if order.key is not None:  # an index says which images it has, and until when they are kept up
            attested_predicate(repository, held.digest, SIGN, order.key)
            require_identity(repository, held.manifest, order.key, order.identity)
        contents = tuple(_published(repository, image, order) for image in held.images)
        return held.digest, held.end_of_life, contents


def _built_here(layout: Path, digest: Digest, order: AuditOrder) -> Contents:
    folder = report_folder(layout)
    refuse_another(folder, digest)
    told = read_materials(folder).provenance
    packages = (ImagePackage(one.nevra, one.source_rpm, one.repository) for one in read_bill(folder).packages)
    return Contents(digest, order.platform or told.platform, told.architecture, tuple(packages))


def _published(repository: Repository, image: Image, order: AuditOrder) -> Contents:
    listed = attested_predicate(repository, image.digest, CYCLONEDX, order.key)
    packages = listed_packages(listed, f"SBOM of {image.digest.short}")
    if order.platform is not None:
        return Contents(image.digest, order.platform, rpm_architecture(image.config), packages)
    told = attested_predicate(repository, image.digest, PROVENANCE, order.key)
    platform, arch = built_for(told, f"provenance of {image.digest.short}")
    return Contents(image.digest, platform, arch, packages)


def rpm_architecture(config: ImageConfig) -> str:
    """RPM's name for what an image is for. Raises VerificationError `architecture-unknown`."""
    for name, known in media_types.ARCHITECTURES.items():
        if known == (config.architecture, config.variant):
            return name
    said = "/".join(filter(None, (config.architecture, config.variant)))
    raise VerificationError("architecture-unknown", f"unknown architecture: '{said[:40]}'")


def _available(fix: MissingFix, packages: Sequence[ImagePackage], bulletin: Bulletin) -> bool:
    """Tell whether a repository has the fix, for an architecture of the image's package."""
    arches = {one.nevra.arch for one in packages if one.nevra.name == fix.package}
    offered = (bulletin.newest.get((fix.package, arch)) for arch in arches)
    return any(evr is not None and compare_evr(evr, fix.fixed_in) >= 0 for evr in offered)
