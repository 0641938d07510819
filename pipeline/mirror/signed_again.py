"""Sign with a new key what a former key of the publisher signed of a published image.

Whoever stole the former key can have signed and attached anything. So only what was verified is signed, and of that
only what every image has; nothing is listed again, since a mirror could list something else.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.attestations import find_attested
from pipeline.mirror.protocol import Repository
from pipeline.mirror.push import push_attachments
from pipeline.mirror.verification import Verified, VerifiedManifest
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import (
    SigningKey,
    VerifyingKey,
    make_listed_attestation,
    make_simple_signature,
)
from pipeline.progress import Progress


@dataclass(frozen=True, slots=True)
class SignedAgain:
    """Inputs to sign a verified manifest and its attestations with a new key: see `Attachments`.

    `created`: the image's creation time, in seconds since the epoch; `trusted`: the new `key` and former ones, with
    which it was verified.
    """

    verified: VerifiedManifest
    created: int
    key: SigningKey
    trusted: VerifyingKey

    @property
    def subject(self) -> Digest:
        """The digest of the manifest or index that is signed."""
        return self.verified.about.digest

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """Sign under each name, and return the manifest for the `.sig` tag.

        The `present` signatures are kept. None: this key's signatures are among them.
        """
        blobs: list[tuple[Descriptor, bytes | Path]] = []
        manifest = present
        for name in self.verified.names:
            artifact = make_simple_signature(self.subject, name, self.key, manifest)
            manifest = artifact.manifest
            blobs += artifact.blobs
        return None if manifest is None or manifest == present else Artifact(manifest, tuple(blobs))

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """Sign and return the verified attestations by former keys that the new key did not sign.

        Their bundles are read again by digest. A statement that has other subjects too is left: with the manifest of
        one of these, it would be a statement of the new key on that.
        """
        missing = []
        for kind, bundles in self.verified.attested.items():
            own = find_attested(repository, self.subject, kind, self.key.public, listed=bundles)[0]
            said = [one.statement for one in own]
            for one in find_attested(repository, self.subject, kind, self.trusted, listed=bundles)[0]:
                alone = [subject.digest for subject in one.statement.subjects] == [self.subject]
                if alone and one.statement not in said:
                    missing.append(make_listed_attestation(one.statement, self.verified.about, self.key, self.created))
                    said.append(one.statement)
        return tuple(missing)


def sign_again(
    found: Verified, repository: Repository, key: SigningKey, trusted: VerifyingKey, progress: Progress
) -> None:
    """Sign with `key` what it did not sign yet of a verified image.

    That is its names, required attestations and sources. `found` was verified with `trusted`: `key` and former ones,
    whose signatures stay. Nothing is asked where there are no former keys. Raises as the repository does.
    """
    if not trusted.former:
        return
    made = {image.digest: image.config.created for image in found.held.images}
    push_attachments(
        [
            SignedAgain(one, made.get(one.about.digest, found.held.created), key, trusted)
            for one in (*found.manifests, *found.sources)
        ],
        repository,
        progress=progress,
    )
