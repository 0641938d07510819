"""The gate before publication: check an image's test evidence and the operator's rules.

Tags are moved only with a `Cleared`, whose constructor checks everything, from the exact bytes of manifests, configs
and evidence. A report's own verdict is not trusted: the recorded answers are judged again. There is no other way to
move a tag, and no switch that turns the gate off. Out of scope: code that runs inside the publisher's own process, and
whoever can read the store's key or the operator's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from fnmatch import fnmatchcase

from pipeline.digest import Digest
from pipeline.errors import Problem, PublicationRefused, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.attestations import attested_evidence
from pipeline.mirror.policy import (
    CurrentImage,
    TestedImage,
    broken_rule,
    broken_rule_by_index,
)
from pipeline.mirror.protocol import Repository
from pipeline.model.enforcement import LimitEnforcement, enforcement
from pipeline.model.evidence import Evidence, read_evidence
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Manifest
from pipeline.model.plan_form import plan_digest
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey, media_types, parse_image
from pipeline.oci.image_manifest import DOCUMENT_LIMIT, JsonReader
from pipeline.store import Store

IMAGES_MOST = 64
"""Manifests in an index, at most: there are a dozen architectures."""

_TEST = "test this image: `relbuild build`, or `relbuild smoke` if it is already built"
_AGAIN = "test the image again on this machine: `relbuild smoke RECIPE`"


# --- authentication of evidence ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SealedEvidence:
    """Authentication of evidence of a test here: the store's seal (HMAC) over its bytes."""

    seal: str
    store: Store

    def doubt(self, image: Digest, evidence: bytes) -> Problem | None:
        """Return why the evidence on `image` is not authentic; None if it is."""
        if self.store.sealed(evidence, self.seal.strip()):
            return None
        return Problem(
            "gate-report-edited",
            "the evidence lacks this store's seal: it was edited, or is from another machine",
            str(image),
            _AGAIN,
        )


@dataclass(frozen=True, slots=True)
class AttestedEvidence:
    """Authentication of evidence of an earlier or remote test by an attestation.

    The constructor reads and verifies the newest evidence on `image` that `key` attests in `repository`: for `checks`,
    if they are given and there is any. It raises VerificationError if there is none at all, or none that verifies.
    """

    image: Digest
    repository: Repository
    key: VerifyingKey
    checks: Digest | None = None
    evidence: bytes = field(init=False)

    def __post_init__(self) -> None:
        found = attested_evidence(self.repository, self.image, self.key, checks=self.checks)
        object.__setattr__(self, "evidence", found)

    def doubt(self, image: Digest, evidence: bytes) -> Problem | None:
        """Return why the evidence on `image` is not authentic; None if it is."""
        if self.image != image:
            message = f"the attestation is for another image, {self.image}"
            return Problem("gate-report-of-another-image", message, str(image), _TEST)
        if self.evidence != evidence:
            message = "the evidence differs from the signed evidence"
            return Problem("gate-report-edited", message, str(image), "use the evidence of the attestation")
        return None


# --- images to be cleared ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image that is to be cleared, with its test evidence.

    The exact bytes of its manifest, its config and the evidence (empty: there is none); `warrant` authenticates the
    evidence. `checks`: digest of the checks that must have been run, where the publisher has the recipe; None: those
    that the evidence says the recipe has.
    """

    manifest: bytes
    config: bytes
    evidence: bytes
    warrant: SealedEvidence | AttestedEvidence
    checks: Digest | None = None

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return Digest.of(self.manifest)


@dataclass(frozen=True, slots=True)
class Cleared:
    """Permission to point `tags` of `repository` at an image or index; the constructor decides.

    `images` are candidates for every manifest of the index, or the one for the image itself. `rules` are the
    operator's; those that match the repository and any of the tags apply, or all that match the repository where there
    are no tags. `current`: images that the tags point to now; empty for new tags and for a rollback.

    Raises PublicationRefused with all problems: `gate-image`, `gate-architecture-untested`, `gate-report-missing`,
    `gate-report-failed`, `gate-report-of-another-image`, `gate-other-checks`, `gate-other-runtime`,
    `gate-report-edited`, `gate-packages-unknown`, and for the operator's rules `gate-size`, `gate-setuid`,
    `gate-labels`, `gate-license`, `gate-package`, `gate-runtime`, `gate-limits`, `gate-versions-differ`, `gate-older`,
    `gate-platforms-fewer`.
    """

    repository: str
    tags: tuple[str, ...]
    manifest: Manifest
    images: tuple[Candidate, ...]
    rules: MirrorRules
    current: tuple[CurrentImage, ...] = ()

    def __post_init__(self) -> None:
        problems = tuple(dict.fromkeys(_problems(self)))
        if problems:
            raise PublicationRefused.of(problems)

    @property
    def digest(self) -> Digest:
        """The digest of the manifest or index that the tags will point to."""
        return self.manifest.digest

    @property
    def limits(self) -> tuple[LimitEnforcement, ...]:
        """The resource limits of the tested instances of all images, and whether each was enforced."""
        return enforcement(*(read_evidence(candidate.evidence).report for candidate in self.images))

    def refuse_other(self, tag: str) -> None:
        """Raise ValueError if this is no permission for `tag`.

        Called by whoever moves a tag: rules for one tag say nothing of another. What was cleared without tags has
        passed all rules, and may get any tag.
        """
        if self.tags and tag not in self.tags:
            raise ValueError(f"{self.digest} was cleared for {', '.join(self.tags)}, not for {tag}")


def _problems(wanted: Cleared) -> Iterator[Problem]:
    try:
        described = _described(wanted.manifest)
    except VerificationError as error:
        yield Problem("gate-image", error.problems[0].message, str(wanted.digest), "build it again")
        return
    candidates = {candidate.digest: candidate for candidate in wanted.images}
    if len(candidates) != len(wanted.images):
        yield Problem("gate-image", "the image is given twice", str(wanted.digest), "give each image once")
    for descriptor in described:
        if descriptor.digest not in candidates:
            platform = dict(descriptor.annotations).get(_PLATFORM, "an unknown platform")
            message = f"the image for {platform} in the index was not tested"
            yield Problem("gate-architecture-untested", message, str(descriptor.digest), _TEST)
    tested = []
    for digest, candidate in candidates.items():
        named = next((descriptor for descriptor in described if descriptor.digest == digest), None)
        if named is None:
            message = f"the evidence is for an image that is not part of {wanted.digest}"
            yield Problem("gate-report-of-another-image", message, str(digest), _TEST)
            continue
        image, evidence = None, None
        try:
            image = _image(candidate, named)
        except VerificationError as error:
            yield Problem("gate-image", error.problems[0].message, str(digest), "build it again")
        if not candidate.evidence:
            yield Problem("gate-report-missing", "the image has no smoke report", str(digest), _TEST)
        else:
            try:
                evidence = read_evidence(candidate.evidence)
            except VerificationError as error:
                yield Problem("gate-report-edited", error.problems[0].message, str(digest), _AGAIN)
        if image is not None and evidence is not None:
            yield from _doubts(candidate, image, evidence)
            tested.append(TestedImage(image, evidence))
    rules = [rule for rule in wanted.rules.gate if _applies(rule.repositories, rule.tags, wanted)]
    for rule in rules:
        for one in tested:
            yield from broken_rule(rule, one)
        yield from broken_rule_by_index(rule, tested, [now for now in wanted.current if now.tag in wanted.tags])


def _applies(repositories: str, tags: str, wanted: Cleared) -> bool:
    return fnmatchcase(wanted.repository, repositories) and (
        not wanted.tags or any(fnmatchcase(tag, tags) for tag in wanted.tags)
    )


# --- the image and its index -------------------------------------------------------------------------------

_PLATFORM = "platform"


def _described(manifest: Manifest) -> tuple[Descriptor, ...]:
    """List every image that a client may get by pulling `manifest`.

    Each has its platform as an annotation. Raises VerificationError `document-malformed`.
    """
    place = "index" if manifest.media_type == media_types.INDEX else "manifest"
    if len(manifest.data) > DOCUMENT_LIMIT:
        raise VerificationError("document-malformed", f"the {place} has more than {DOCUMENT_LIMIT} bytes")
    document = JsonReader.parse(manifest.data, place)
    if document.get("mediaType").text(manifest.media_type) != manifest.media_type:
        raise VerificationError("document-malformed", f"the mediaType in the {place} differs from the declared one")
    # A document that some clients take for an index and others for an image is not what was tested.
    foreign = ("layers", "config") if place == "index" else ("manifests",)
    if any(not document.get(key).missing for key in foreign):
        raise VerificationError("document-malformed", f"the {place} has members of both an image and an index")
    if place == "manifest":
        if manifest.media_type != media_types.MANIFEST:
            raise VerificationError(
                "document-malformed", f"media type '{manifest.media_type}' is neither image nor index"
            )
        return (manifest.descriptor,)
    found = []
    for item in document.get("manifests").items():
        descriptor = item.descriptor()
        if descriptor.media_type != media_types.MANIFEST:
            raise VerificationError("document-malformed", f"the index lists a {descriptor.media_type}, not an image")
        platform = item.get("platform")
        keys = () if platform.missing else ("os", "architecture", "variant")
        spelled = "/".join(filter(None, (platform.get(key).text("") for key in keys)))
        found.append(Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, ((_PLATFORM, spelled),)))
    if not 0 < len(found) <= IMAGES_MOST:
        raise VerificationError("document-malformed", f"the index has {len(found)} images, not 1 to {IMAGES_MOST}")
    return tuple(found)


def _image(candidate: Candidate, named: Descriptor) -> Image:
    """Parse the candidate and compare it with its index entry `named`. Raises VerificationError."""
    if len(candidate.manifest) != named.size:
        raise VerificationError(
            "digest-mismatch", f"the manifest does not have the {named.size} bytes that the index states"
        )
    document = JsonReader.parse(candidate.manifest, "manifest")
    said = document.get("mediaType").text(media_types.MANIFEST)
    if said != media_types.MANIFEST or not document.get("manifests").missing:
        raise VerificationError("document-malformed", "the manifest is not an image manifest")
    image = parse_image("", "", candidate.manifest, candidate.config)
    if image.config_descriptor.size != len(candidate.config):
        raise VerificationError("digest-mismatch", "the config does not have the size that the manifest states")
    platform = dict(named.annotations).get(_PLATFORM)
    config = image.config
    if platform is not None and platform != "/".join(filter(None, (config.os, config.architecture, config.variant))):
        message = f"the index lists the image for '{platform}', but it is for {config.os}/{config.architecture}"
        raise VerificationError("document-malformed", message)
    return image


# --- the evidence ------------------------------------------------------------------------------------------


def _doubts(candidate: Candidate, image: Image, evidence: Evidence) -> Iterator[Problem]:
    """Yield the reasons why the evidence does not show that this image passed its checks."""
    place, report = str(image.digest), evidence.report
    doubt = candidate.warrant.doubt(image.digest, candidate.evidence)
    if doubt is not None:
        # It is not judged: its patterns, with which judging searches, may come from anybody.
        yield doubt
        return
    others = sorted({str(digest) for digest in (evidence.image, report.image) if digest != image.digest})
    if others:
        message = f"the smoke report is for another image, {', '.join(others)}"
        yield Problem("gate-report-of-another-image", message, place, _TEST)
    elif report.config != image.config or evidence.contents.architecture != image.config.architecture:
        message = "the smoke report is for an image with another config"
        yield Problem("gate-report-of-another-image", message, place, _TEST)
    asked = {plan_digest(report.asked), report.plan, evidence.checks, candidate.checks or evidence.checks}
    if len(asked) > 1:
        wanted = candidate.checks or evidence.checks
        message = f"the tested checks differ from the recipe's checks {wanted}"
        yield Problem("gate-other-checks", message, place, _AGAIN)
    if report.runtime != evidence.runtime or not report.runtime:
        message = f"the smoke report was made under '{report.runtime}', not under '{evidence.runtime}'"
        yield Problem("gate-other-runtime", message, place, _AGAIN)
    if not evidence.contents.packages and not evidence.contents.database:
        message = "the image's packages are unknown: the platform's RPM database path has no database"
        hint = "build it with relbuild, and set 'rpm-database' in the platform if its rpm uses another path"
        yield Problem("gate-packages-unknown", message, place, hint)
    problems = report.problems
    if problems:
        code = "gate-report-edited" if report.claimed else "gate-report-failed"
        told = "claims a pass, but its recorded answers are wrong" if report.claimed else "did not pass"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        hint = _AGAIN if report.claimed else "correct the image or its checks, and test it again"
        yield Problem(code, f"the smoke report {told}: {problems[0]}{more}", place, hint)
