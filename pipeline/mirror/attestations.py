"""Signatures and attestations of an image: sign the missing ones, find and verify the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Repository
from pipeline.mirror.references import referrer_of
from pipeline.model.evidence import Evidence, read_evidence
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest, Referrer
from pipeline.oci import (
    PREDICATE_TYPE_ANNOTATION,
    SigningKey,
    Statement,
    StatementSubject,
    VerifyingKey,
    bundle_layer,
    make_listed_attestation,
    make_simple_signature,
    media_types,
    proves_itself,
    read_artifact,
    signature_blobs,
    verify_bundle,
)
from pipeline.oci.predicates import CYCLONEDX, LOCK, PROVENANCE, SIGN, SMOKE, SPDX

IMAGE_PREDICATES = (SIGN, PROVENANCE, SPDX, CYCLONEDX, SMOKE)
"""Predicate types of the attestations that every image has."""

INDEX_PREDICATES = (SIGN, PROVENANCE)
"""The same of an index; the others are attested of each of its images."""

LOOKS_AT_ONCE = 6
"""Manifests that are asked for at the same time: enough to hide a registry's latency."""

PROVEN_EXAMINED = 200
"""Bundles of one predicate type whose entries prove that they are by the key, that are read: an image gets one for each
test with other checks or runtime."""

BUNDLES_EXAMINED = 50
"""Bundles of one predicate type that are read where the entry proves nothing: by earlier versions, or by cosign. Those
that name no key that is asked for do not count, unless they are large."""

MANIFESTS_EXAMINED = 500
"""Manifests of such bundles that are read where no other was found: who can write to a mirror can list thousands."""

_SMALL_BUNDLE = 1 << 20
"""Bytes of a bundle by another key that does not count."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A verified statement, and the referrer that contains it."""

    referrer: Referrer
    statement: Statement


@dataclass(frozen=True, slots=True)
class SignedAttachments:
    """Inputs to sign and attest one image or index: see `Attachments`.

    `about` is its descriptor, `name` the product's name; `predicates` are attested besides the signature: predicate
    type → JSON. `created` is the image's creation time, in seconds since the epoch. `attached`: further referrers,
    pushed as they are.
    """

    about: Descriptor
    name: str
    created: int
    predicates: Mapping[str, bytes]
    key: SigningKey
    attached: tuple[Artifact, ...] = ()

    @property
    def subject(self) -> Digest:
        """The digest of the manifest or index that is signed."""
        return self.about.digest

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """Sign, and return the manifest for the `.sig` tag with the `present` signatures kept.

        None: this key's signature is among them, and its payload is there.
        """
        return _signature(repository, self.about.digest, self.key, present)

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """Sign and return the attestations that the repository does not have yet under this key.

        A smoke report is attested again only if its checks, runtime, emulator or completeness (`full`) differ. What is
        listed must be there too, and be found by verifiers: where clients maintain the list, who deletes a manifest may
        leave its entry, and whoever can write may alter an entry.
        """
        everything = {one.descriptor.digest: one for one in repository.referrers(self.about.digest)}
        listed = [one for one in everything.values() if one.artifact_type == media_types.SIGSTORE_BUNDLE]
        made: dict[str, tuple[bytes, Artifact]] = {}
        for predicate_type, predicate in {SIGN: b"{}", **self.predicates}.items():
            statement = Statement(predicate_type, (StatementSubject(self.about.digest, self.name),), predicate)
            made[predicate_type] = predicate, make_listed_attestation(statement, self.about, self.key, self.created)
        own = {artifact.manifest.digest for artifact in self.attached if artifact.manifest.digest in everything}
        for _, artifact in made.values():
            entry = referrer_of(artifact.manifest)
            if everything.get(entry.descriptor.digest) == entry:
                own.add(entry.descriptor.digest)
        payloads = {one.manifest.digest: one.blobs[-1][0] for _, one in made.values()}
        known = _present(repository, {digest: payloads.get(digest) for digest in own})
        missing = [artifact for artifact in self.attached if artifact.manifest.digest not in known]
        for predicate_type, (predicate, artifact) in made.items():
            if artifact.manifest.digest in known:
                continue
            good, _ = find_attested(repository, self.about.digest, predicate_type, self.key.public, listed=listed)
            if not any(_says_the_same(predicate_type, one.statement.predicate, predicate) for one in good):
                missing.append(artifact)
        return tuple(missing)


@dataclass(frozen=True, slots=True)
class NameSignature:
    """Inputs to sign a manifest under the name of the repository to which it is copied.

    Its attestations are copied, not made.
    """

    subject: Digest
    key: SigningKey

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """Sign, and return the manifest for the `.sig` tag with the `present` signatures kept.

        None: this key's signature is among them, and its payload is there.
        """
        return _signature(repository, self.subject, self.key, present)

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """Return none: they were copied with the manifest."""
        return ()


def _signature(repository: Repository, subject: Digest, key: SigningKey, present: Manifest | None) -> Artifact | None:
    """Sign `subject` beside the `present` signatures; return None if nothing is missing."""
    artifact = make_simple_signature(subject, repository.identity, key, _kept(present))
    if artifact.manifest != present:
        return artifact
    blobs = signature_blobs(present, subject, repository.identity)
    return None if _is_there(repository, blobs[0][0]) else Artifact(present, blobs)


def _kept(present: Manifest | None) -> Manifest | None:
    """Return the manifest of signatures that are kept; None for a malformed one."""
    try:
        return present if present is None or read_artifact(present) else None
    except VerificationError:
        return None


def _present(repository: Repository, wanted: Mapping[Digest, Descriptor | None]) -> set[Digest]:
    """Return those of the manifests that are there, with the payload of each if one is named."""
    payloads = {digest: payload for digest, payload in wanted.items() if payload is not None}
    if not wanted:
        return set()
    with ThreadPoolExecutor(LOOKS_AT_ONCE, "attested") as pool:
        manifests = {digest: pool.submit(repository.has_manifest, digest) for digest in wanted}
        whole = {digest: pool.submit(_is_there, repository, payload) for digest, payload in payloads.items()}
        return {
            digest
            for digest, there in manifests.items()
            if there.result() and (digest not in whole or whole[digest].result())
        }


def _is_there(repository: Repository, payload: Descriptor) -> bool:
    """Return whether a payload is there; a registry that is read back must return it intact."""
    if repository.file_path(payload.digest):
        return repository.has_blob(payload.digest)
    return repository.holds_whole(payload)


def _says_the_same(predicate_type: str, known: bytes, new: bytes) -> bool:
    """Return whether the attested predicate `known` makes it unnecessary to attest `new`.

    One SBOM, provenance or signature per key suffices; lock files and smoke reports may differ and are compared.
    """
    if predicate_type == LOCK:
        return known == new
    if predicate_type != SMOKE:
        return True
    now = read_evidence(new)
    try:
        before = read_evidence(known)
    except VerificationError:  # Written by another release: it cannot be compared.
        return False
    return _conditions(before) == _conditions(now)


def _conditions(evidence: Evidence) -> tuple[object, ...]:
    """Return under which conditions an image was tested; under others it is attested again."""
    return evidence.checks, evidence.runtime, evidence.full, evidence.report.emulator


def attested_evidence(
    repository: Repository, image: Digest, key: VerifyingKey, *, checks: Digest | None = None
) -> bytes:
    """Return the newest evidence (JSON) on `image` that is attested by `key`.

    With `checks`, the newest for these, or the newest of all if there is none: checks that are changed and changed back
    are not attested again. Raises VerificationError if there is no evidence, or none that verifies.
    """
    good, bad = find_attested(repository, image, SMOKE, key)
    readable: list[tuple[bool, int, bytes]] = []
    for one in good:
        data = one.statement.predicate
        try:
            evidence = read_evidence(data)
            readable.append((evidence.checks == checks, evidence.report.started, data))
        except VerificationError as error:  # For example of a newer relbuild, beside one that can be read.
            bad = (*bad, error)
    if readable:
        return max(readable)[-1]
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
    """Return the referrers of `subject` that are sigstore bundles."""
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
    """Return the attestations of `subject` of one predicate type that verify under `key`.

    Also the errors of those that do not verify. `listed`: the bundles of `subject`, where the caller has them. Those
    whose entry proves that they are by `key` are found whatever else is listed; of the rest only so many are read.
    """
    of_type = [
        one
        for one in (list_bundles(repository, subject) if listed is None else listed)
        if one.annotation(PREDICATE_TYPE_ANNOTATION) in (predicate_type, "")
    ]
    search = _Search(repository, subject, predicate_type, key)
    proven = {one: None for one in of_type if proves_itself(one, subject, key)}
    for referrer in [*proven][-PROVEN_EXAMINED:]:
        search.examine(referrer)
    search.examine_unproven([one for one in of_type if one not in proven])
    return tuple(search.good[one] for one in of_type if one in search.good), tuple(search.bad)


@dataclass(slots=True)
class _Search:
    """A search for attestations of one predicate type: those found and refused so far."""

    repository: Repository
    subject: Digest
    predicate_type: str
    key: VerifyingKey
    good: dict[Referrer, Attestation] = field(default_factory=dict)
    bad: list[VerificationError] = field(default_factory=list)

    def examine(self, referrer: Referrer, read: set[Digest] | None = None) -> bool:
        """Read and verify a bundle; return whether it counts against the limit.

        It does if it is by the key, names it, or is large. `read`: the digests of bundles that were verified, which are
        not read again under another manifest.
        """
        layer = None
        try:
            manifest = self.repository.manifest(referrer.descriptor.digest)
            if manifest is None:
                raise VerificationError(
                    "referrer-missing",
                    f"{referrer.descriptor.digest} is listed but missing",
                    place=self.repository.url,
                )
            layer = bundle_layer(manifest)
            if read is not None and layer.digest in read:
                return False
            blob = self.repository.read_blob(layer)
            statement = verify_bundle(manifest, blob, self.subject, self.key)
        except VerificationError as error:
            if len(self.bad) < BUNDLES_EXAMINED:
                self.bad.append(error)
            return error.code == "signature-altered" or (layer is not None and layer.size > _SMALL_BUNDLE)
        if read is not None:
            read.add(layer.digest)
        if statement.predicate_type == self.predicate_type:
            self.good[referrer] = Attestation(referrer, statement)
        return True

    def examine_unproven(self, listed: Sequence[Referrer]) -> None:
        """Examine bundles whose entries prove nothing, the last ones first, up to the limits."""
        read: set[Digest] = set()
        counted = 0
        most = BUNDLES_EXAMINED if self.good else MANIFESTS_EXAMINED
        for number, referrer in enumerate(reversed(listed)):
            if counted >= BUNDLES_EXAMINED or number >= most:
                self.bad.insert(0, _hidden(self.repository, self.subject, len(listed), number))
                return
            counted += self.examine(referrer, read)


def _hidden(repository: Repository, subject: Digest, listed: int, read: int) -> VerificationError:
    return VerificationError(
        "attestations-hidden",
        f"{listed} bundles are listed for {subject} that do not prove who signed them; {read} were read",
        place=repository.url,
        hint="whoever can write to the mirror can hide attestations by earlier releases so: publish the image again, "
        "which lists attestations that are found, and see who writes there",
    )


def signature_payloads(repository: Repository, manifest: Manifest) -> dict[Digest, bytes]:
    """Read the simple-signing payloads of a `.sig` manifest; return them by digest.

    Missing ones are left out, damaged ones are empty.
    """
    found = {}
    for layer in read_artifact(manifest).layers:
        try:
            found[layer.digest] = repository.read_blob(Descriptor(layer.media_type, layer.digest, layer.size))
        except VerificationError as error:
            if error.code != "blob-missing":
                found[layer.digest] = b""
    return found
