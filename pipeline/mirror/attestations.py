"""Signatures and attestations that accompany an image on a mirror."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.protocol import Repository
from pipeline.model.evidence import read_evidence
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest, Referrer
from pipeline.oci import (
    PREDICATE_TYPE_ANNOTATION,
    SigningKey,
    Statement,
    StatementSubject,
    VerifyingKey,
    bundle_layer,
    make_attestation,
    make_simple_signature,
    media_types,
    read_artifact,
    verify_bundle,
)
from pipeline.oci.predicates import CYCLONEDX, LOCK, PROVENANCE, SIGN, SMOKE, SPDX

IMAGE_PREDICATES = (SIGN, PROVENANCE, SPDX, CYCLONEDX, SMOKE)
"""Predicate types of what is attested of every image."""

INDEX_PREDICATES = (SIGN, PROVENANCE)
"""And of an index: what is in it is attested of its images."""

BUNDLES_EXAMINED = 50
"""Bundles of one predicate type that are read: the same image tested again each night gets one each time."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A signed statement, and the referrer that it stands in."""

    referrer: Referrer
    statement: Statement


@dataclass(frozen=True, slots=True)
class SignedAttachments:
    """Signature and attestations of one image or index.

    `about` is its descriptor, `name` the product's; `predicates` are what is attested besides the signature: predicate
    type → JSON. `created` is the image's own time, in seconds since the epoch. `attached` goes with it as it is.
    """

    about: Descriptor
    name: str
    created: int
    predicates: Mapping[str, bytes]
    key: SigningKey
    attached: tuple[Artifact, ...] = ()

    @property
    def subject(self) -> Digest:
        """The digest of the manifest or index that it accompanies."""
        return self.about.digest

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """Return the signature for the `.sig` tag, beside those of others that are `present`.

        None: ours is among them.
        """
        artifact = make_simple_signature(self.about.digest, repository.identity, self.key, present)
        return None if artifact.manifest == present else artifact

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """Return the attestations that the repository does not have yet.

        It has one if it verifies under this key. What was attested once stays: a verdict that is given again is no
        news, one on other checks or under another runtime is.
        """
        everything = repository.referrers(self.about.digest)
        known = {referrer.descriptor.digest for referrer in everything}
        listed = [one for one in everything if one.artifact_type == media_types.SIGSTORE_BUNDLE]
        missing = [artifact for artifact in self.attached if artifact.manifest.digest not in known]
        for predicate_type, predicate in {SIGN: b"{}", **self.predicates}.items():
            statement = Statement(predicate_type, (StatementSubject(self.about.digest, self.name),), predicate)
            artifact = make_attestation(statement, self.about, self.key, self.created)
            if artifact.manifest.digest in known:
                continue
            good, _ = find_attested(repository, self.about.digest, predicate_type, self.key.public, listed=listed)
            if not any(_says_the_same(predicate_type, one.statement.predicate, predicate) for one in good):
                missing.append(artifact)
        return tuple(missing)


@dataclass(frozen=True, slots=True)
class SignedName:
    """The signature of a manifest under the name of the repository it was pushed to.

    Nothing else goes with it.
    """

    subject: Digest
    key: SigningKey

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """Return the signature for the `.sig` tag, beside those that are `present`.

        None: ours is among them.
        """
        artifact = make_simple_signature(self.subject, repository.identity, self.key, present)
        return None if artifact.manifest == present else artifact

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """None: what is attested came along."""
        return ()


def _says_the_same(predicate_type: str, known: bytes, new: bytes) -> bool:
    """Return whether what is attested makes `new` needless.

    An image has one bill and one origin, but many verdicts and locks.
    """
    if predicate_type == LOCK:
        return known == new
    if predicate_type != SMOKE:
        return True
    now = read_evidence(new)
    try:
        before = read_evidence(known)
    except VerificationError:  # Of another release: what it says is not known to be the same.
        return False
    return (before.checks, before.runtime, before.full) == (now.checks, now.runtime, now.full)


def attested_evidence(repository: Repository, image: Digest, key: VerifyingKey) -> bytes:
    """Return the newest evidence on `image` that `key` attests.

    Raises VerificationError if there is none, or none that holds.
    """
    good, bad = find_attested(repository, image, SMOKE, key)
    readable: list[tuple[int, bytes]] = []
    for one in good:
        try:
            readable.append((read_evidence(one.statement.predicate).report.started, one.statement.predicate))
        except VerificationError as error:  # Of a newer relbuild, say, beside one that can be read.
            bad = (*bad, error)
    if readable:
        return max(readable)[1]
    raise (
        bad[0]
        if bad
        else VerificationError(
            "attestation-missing",
            f"{image} has no smoke report attestation",
            place=repository.url,
            hint="publish it with relbuild, or copy it with `relbuild copy`, which also copies attestations",
        )
    )


def list_bundles(repository: Repository, subject: Digest) -> tuple[Referrer, ...]:
    """The referrers of `subject` that are sigstore bundles."""
    found = repository.referrers(subject)
    return tuple(one for one in found if one.artifact_type == media_types.SIGSTORE_BUNDLE)


def find_attested(
    repository: Repository,
    subject: Digest,
    predicate_type: str,
    key: VerifyingKey,
    *,
    listed: Sequence[Referrer] | None = None,
) -> tuple[tuple[Attestation, ...], tuple[VerificationError, ...]]:
    """Find what `key` attests of `subject` by statements of a type.

    Returns also why others of that type do not hold.
    """
    good: list[Attestation] = []
    bad: list[VerificationError] = []
    of_type = [
        one
        for one in (list_bundles(repository, subject) if listed is None else listed)
        if one.annotation(PREDICATE_TYPE_ANNOTATION) in (predicate_type, "")
    ]
    for referrer in of_type[-BUNDLES_EXAMINED:]:
        try:
            statement = _verified(repository, referrer, subject, key)
        except VerificationError as error:
            bad.append(error)
            continue
        if statement.predicate_type == predicate_type:
            good.append(Attestation(referrer, statement))
    return tuple(good), tuple(bad)


def _verified(repository: Repository, referrer: Referrer, subject: Digest, key: VerifyingKey) -> Statement:
    manifest = repository.manifest(referrer.descriptor.digest)
    if manifest is None:
        raise VerificationError(
            "referrer-missing", f"{referrer.descriptor.digest} is listed but missing", place=repository.url
        )
    return verify_bundle(manifest, repository.read_blob(bundle_layer(manifest)), subject, key)


def signature_payloads(repository: Repository, manifest: Manifest) -> dict[Digest, bytes]:
    """Read the payloads of a `.sig` manifest, by digest.

    Those that are missing or damaged are left out.
    """
    found = {}
    for layer in read_artifact(manifest).layers:
        try:
            found[layer.digest] = repository.read_blob(Descriptor(layer.media_type, layer.digest, layer.size))
        except VerificationError:
            continue
    return found
