"""Verify a published image on a mirror: blobs, signatures, attestations, evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field

from pipeline.digest import Digest
from pipeline.errors import Problem, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.attestations import (
    IMAGE_PREDICATES,
    INDEX_PREDICATES,
    find_attested,
)
from pipeline.mirror.gate import Cleared
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.mirror.references import HEALED_BY_SCRUB
from pipeline.mirror.signed_identity import SignedIdentity, find_signed_names
from pipeline.mirror.tag_check import TagStanding
from pipeline.model.enforcement import LimitEnforcement
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.model.provenance import AttestedBuild
from pipeline.oci import Statement, VerifyingKey, media_types, read_artifact, read_attested_build
from pipeline.oci.predicates import PROVENANCE
from pipeline.oci.sources_artifact import SOURCES_TYPE, is_sources_artifact
from pipeline.progress import Progress, task

_WRONG_KEY = "signature-wrong-key"

VERIFICATION_PARALLEL = 4
"""Blobs that are read and verified at the same time."""


@dataclass(frozen=True, slots=True)
class VerifiedManifest:
    """A manifest that was verified: that of an image, an index, or attached source packages.

    `names`: under which it is signed; `attested`: predicate type → the bundles that attest it, for the types that are
    required; `build`: what the attested provenance says, None if it is not in SLSA's form.
    """

    about: Descriptor
    names: tuple[str, ...]
    attested: Mapping[str, tuple[Referrer, ...]] = field(default_factory=dict)
    build: AttestedBuild | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """Result of a successful verification.

    `manifests`: of the image or images, and of the index; `sources`: of source packages that are attached to them;
    `bytes_read`: of blobs; `limits`: resource limits of the tested instances, and whether they were enforced; `tag`:
    the check of the given tag, if it is a floating one. What is signed because of a verification is taken from here: a
    mirror may list something else when it is asked again.
    """

    held: MirroredImage
    manifests: tuple[VerifiedManifest, ...]
    sources: tuple[VerifiedManifest, ...]
    bytes_read: int
    limits: tuple[LimitEnforcement, ...] = ()
    tag: TagStanding | None = None

    @property
    def identities(self) -> tuple[str, ...]:
        """The names under which the image or index is signed, sorted."""
        return tuple(sorted({name for one in self.manifests for name in one.names}))

    @property
    def attested(self) -> tuple[tuple[Digest, tuple[str, ...]], ...]:
        """For each manifest, its attested predicate types."""
        return tuple((one.about.digest, tuple(one.attested)) for one in self.manifests)


def verify_image(
    repository: Repository,
    reference: Digest | str,
    key: VerifyingKey,
    expected: SignedIdentity | None,
    *,
    judge: Callable[[MirroredImage], Cleared],
    progress: Progress,
    contents: bool = True,
) -> Verified:
    """Verify an image or index with its blobs, signatures and attestations.

    `expected`: the name under which it must be signed (None: any). `judge` asks the gate whether the attested evidence
    suffices, and raises PublicationRefused if not. `contents`: read and verify every layer (otherwise layers need only
    exist).

    Raises UsageError `reference-missing`; VerificationError with all problems; as `judge` does.
    """
    held = read_published(repository, reference)
    problems: list[Problem] = []
    manifests: list[VerifiedManifest] = []
    sources: list[VerifiedManifest] = []
    read = 0
    with task(progress, "verify", f"{repository.url} {reference}"):
        for problem, size in _contents(repository, held, contents):
            problems += problem
            read += size
        for manifest in held.manifests:
            names, wrong = find_signed_names(repository, manifest, key, expected)
            problems += wrong
            attached, wrong = _sources(repository, manifest.digest, key, expected)
            sources += attached
            problems += wrong
            attested, build, wrong = _attested(repository, manifest, key)
            manifests.append(VerifiedManifest(_descriptor(manifest), names, attested, build))
            problems += wrong
    if problems:
        raise VerificationError.of(join_wrong_keys(problems, repository.url, key))
    limits = judge(held).limits
    return Verified(held, tuple(manifests), tuple(sources), read, limits)


def join_wrong_keys(problems: Sequence[Problem], place: str, key: VerifyingKey) -> list[Problem]:
    """Join the problems of signatures by other keys than `key` into one, with their number.

    A wrong key gives one for the signature, and one for each attestation of each manifest.
    """
    wrong = [problem for problem in problems if problem.code == _WRONG_KEY]
    if len(wrong) < 2:
        return list(problems)
    message = f"{len(wrong)} signatures and attestations are not by the key {key.fingerprint.short}"
    joined = Problem(_WRONG_KEY, message, place, wrong[0].hint)
    return [joined, *(problem for problem in problems if problem.code != _WRONG_KEY)]


def _contents(repository: Repository, held: MirroredImage, contents: bool) -> Iterator[tuple[tuple[Problem, ...], int]]:
    """Check every config and layer; yield its problems and the number of bytes read."""
    wanted: dict[Digest, Descriptor] = {}
    for image in held.images:
        for descriptor in (image.config_descriptor, *(layer.blob for layer in image.layers)):
            wanted[descriptor.digest] = descriptor

    def look(descriptor: Descriptor) -> tuple[tuple[Problem, ...], int]:
        try:
            if contents:
                repository.check_blob(descriptor)
            elif not repository.has_blob(descriptor.digest):
                what = f"{descriptor.digest} not found"
                raise VerificationError("blob-missing", what, place=repository.url, hint=HEALED_BY_SCRUB)
        except VerificationError as error:
            return error.problems, 0
        return (), descriptor.size if contents else 0

    with ThreadPoolExecutor(VERIFICATION_PARALLEL, "verify") as pool:
        yield from pool.map(look, wanted.values())


def _descriptor(manifest: Manifest) -> Descriptor:
    return Descriptor(manifest.media_type, manifest.digest, len(manifest.data))


def _sources(
    repository: Repository, subject: Digest, key: VerifyingKey, expected: SignedIdentity | None
) -> tuple[tuple[VerifiedManifest, ...], tuple[Problem, ...]]:
    """Verify the source packages attached to a manifest, if there are any: signatures and blobs.

    Returns those that are source packages of the manifest by what they say themselves: the list is not signed.
    """
    found: list[VerifiedManifest] = []
    problems: list[Problem] = []
    for referrer in repository.referrers(subject):
        if referrer.artifact_type != SOURCES_TYPE:
            continue
        manifest = repository.manifest(referrer.descriptor.digest)
        if manifest is None:
            problems.append(Problem("referrer-missing", f"{referrer.descriptor.digest} not found", repository.url))
            continue
        names, wrong = find_signed_names(repository, manifest, key, expected)
        problems += wrong
        said = read_artifact(manifest)
        for layer in said.layers:
            try:
                repository.check_blob(layer)
            except VerificationError as error:
                problems += error.problems
        if is_sources_artifact(said, subject):
            found.append(VerifiedManifest(_descriptor(manifest), names))
    return tuple(found), tuple(problems)


def _attested(
    repository: Repository, manifest: Manifest, key: VerifyingKey
) -> tuple[dict[str, tuple[Referrer, ...]], AttestedBuild | None, tuple[Problem, ...]]:
    """Return a manifest's valid bundles by required predicate type, its build, and problems."""
    wanted = INDEX_PREDICATES if manifest.media_type == media_types.INDEX else IMAGE_PREDICATES
    said: dict[str, tuple[Referrer, ...]] = {}
    problems: list[Problem] = []
    build = None
    for predicate_type in wanted:
        good, bad = find_attested(repository, manifest.digest, predicate_type, key)
        if good:
            said[predicate_type] = tuple(one.referrer for one in good)
            if predicate_type == PROVENANCE:
                build = _build([one.statement for one in good], key)
            continue
        problems += [problem for error in bad for problem in error.problems] or [
            Problem(
                "attestation-missing",
                f"{manifest.digest} has no attestation of type {predicate_type}",
                repository.url,
                "publish it with relbuild, or copy it with `relbuild copy`, which also copies attestations",
            )
        ]
    return said, build, tuple(problems)


def _build(provenances: Sequence[Statement], key: VerifyingKey) -> AttestedBuild | None:
    """Return the build that one of the verified provenances describes.

    That by the key itself before those by former ones, and among several of one key the first by digest: the order in
    which a mirror lists them is not signed.
    """
    keys = [one.fingerprint for one in key.each]
    read = ((one.predicate, read_attested_build(one)) for one in provenances)
    known = [(keys.index(build.signer), Digest.of(data).hex, build) for data, build in read if build is not None]
    return min(known, key=lambda one: one[:2])[2] if known else None
