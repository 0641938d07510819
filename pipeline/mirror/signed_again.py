"""Sign with a new key what a former key of the publisher signed of a published image."""

from __future__ import annotations

from pathlib import Path

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.attestations import find_attested, list_bundles
from pipeline.mirror.protocol import Repository
from pipeline.mirror.push import push_attachments
from pipeline.mirror.verification import Verified
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import (
    PREDICATE_TYPE_ANNOTATION,
    SigningKey,
    VerifyingKey,
    make_attestation,
    make_simple_signature,
)
from pipeline.oci.sources_artifact import SOURCES_TYPE
from pipeline.progress import Progress


@dataclass(frozen=True, slots=True)
class SignedAgain:
    """Inputs to sign a manifest and its attestations with a new key: see `Attachments`.

    `names`: under which it is signed; `created`: the image's creation time, in seconds since the epoch; `trusted`: the
    new `key` and former ones. What these attest of `about` and the new one does not, it attests as it is.
    """

    about: Descriptor
    names: tuple[str, ...]
    created: int
    key: SigningKey
    trusted: VerifyingKey

    @property
    def subject(self) -> Digest:
        """The digest of the manifest or index that is signed."""
        return self.about.digest

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """Sign under each name, and return the manifest for the `.sig` tag.

        The `present` signatures are kept. None: this key's signatures are among them.
        """
        blobs: list[tuple[Descriptor, bytes | Path]] = []
        manifest = present
        for name in self.names:
            artifact = make_simple_signature(self.subject, name, self.key, manifest)
            manifest = artifact.manifest
            blobs += artifact.blobs
        return None if manifest is None or manifest == present else Artifact(manifest, tuple(blobs))

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """Sign and return the attestations by former keys that the new key did not sign."""
        listed = list_bundles(repository, self.subject)
        kinds = dict.fromkeys(one.annotation(PREDICATE_TYPE_ANNOTATION) for one in listed)
        missing = []
        for kind in filter(None, kinds):
            own = find_attested(repository, self.subject, kind, self.key.public, listed=listed)[0]
            said = [one.statement for one in own]
            for one in find_attested(repository, self.subject, kind, self.trusted, listed=listed)[0]:
                if one.statement not in said:
                    missing.append(make_attestation(one.statement, self.about, self.key, self.created))
                    said.append(one.statement)
        return tuple(missing)


def sign_again(
    found: Verified, repository: Repository, key: SigningKey, trusted: VerifyingKey, progress: Progress
) -> None:
    """Sign with `key` what it did not sign yet of a verified image.

    That is its names, attestations and sources.
    `found` was verified with `trusted`: `key` and former ones, whose signatures stay. Nothing is asked where there are
    no former keys. Raises as the repository does.
    """
    if not trusted.former:
        return
    held = found.held
    made = {image.digest: image.config.created for image in held.images}
    anew = []
    for manifest in held.manifests:
        created = made.get(manifest.digest, held.created)
        subjects = [Descriptor(manifest.media_type, manifest.digest, len(manifest.data))]
        for referrer in repository.referrers(manifest.digest):
            if referrer.artifact_type == SOURCES_TYPE:
                said = referrer.descriptor
                subjects.append(Descriptor(said.media_type, said.digest, said.size))
        anew += [SignedAgain(subject, found.identities, created, key, trusted) for subject in subjects]
    push_attachments(anew, repository, progress=progress)
