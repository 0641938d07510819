"""Copy a published image, its signatures, referrers and tag statements to another mirror.

Every document is copied byte for byte, so that all digests and signatures stay valid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Arrival, Repository, TagConflict
from pipeline.mirror.published import MirroredImage
from pipeline.mirror.references import manifest_subject, references
from pipeline.mirror.tag_check import TagStanding
from pipeline.mirror.tag_statements import (
    anchor_manifest,
    list_statements,
    remade_statement,
    signed_statements,
)
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.model.publication import RecordedStatement
from pipeline.oci import VerifyingKey, join_signatures, media_types, signature_tag
from pipeline.oci.artifacts import EMPTY_DATA, EMPTY_DESCRIPTOR
from pipeline.progress import Progress, task
from pipeline.store import Store

COPIES_PARALLEL = 4
"""Blobs that are copied at the same time."""

REFERRER_DEPTH = 4
"""Levels of referrers that are copied: a signature on an attestation is on the second."""

REFERRER_LIMIT = 1000
"""Referrers of one subject, at most: a subject that is attested each night for a year has a few hundred."""

CLAIMS_COPIED = 64
"""Statements on a tag by other keys that are copied: the history before a changed key, and not all that is added."""

COPY_ATTEMPTS = 5
"""Attempts to add a signature under a tag to which others add theirs at the same time."""


@dataclass(slots=True)
class CopiedArtifacts:
    """Result of a copy: (digest, bytes) that were sent, digests found present, new referrers."""

    uploaded: list[tuple[Digest, int]] = field(default_factory=list)
    present: list[Digest] = field(default_factory=list)
    referrers: list[Digest] = field(default_factory=list)


def copy_image(
    held: MirroredImage, source: Repository, target: Repository, *, store: Store, progress: Progress
) -> CopiedArtifacts:
    """Copy an image or index with its signatures and referrers from `source` to `target`.

    Tags are not copied, but for the auxiliary tags of signatures. Blobs go through the store, which verifies them.

    Raises VerificationError if anything does not match its digest.
    """
    copied = CopiedArtifacts()
    with task(progress, "copy", f"{source.url} → {target.url}", total=_size(held), unit="bytes") as running:
        copier = _ImageCopier(source, target, store, copied, running.advance)
        for manifest in held.manifests:
            copier.manifest(manifest)
        for manifest in held.manifests:
            copier.signatures(manifest.digest)
            copier.referrers(manifest.digest, REFERRER_DEPTH)
    return copied


def copy_statements(
    source: Repository, target: Repository, standing: TagStanding, key: VerifyingKey, *, renewals: bool
) -> None:
    """Copy the signed statements on a tag byte for byte: moves, or (`renewals`) renewals.

    What `key` signed is made again from what is listed, so none is lacking. Of the others, which may be a publisher's
    from before it or anybody's, the newest ones that can be read. Raises as the repositories do.
    """
    identity, tag = standing.identity, standing.tag
    there = {one.record for one in list_statements(target, identity, tag)}
    subject = anchor_manifest(identity, tag)
    listed = list_statements(source, identity, tag)
    signed = {one.record for one in signed_statements(source, identity, tag, key, listed=listed)}
    claims = {one.record for one in [one for one in listed if one.record not in signed][:CLAIMS_COPIED]}
    lacking = [
        one
        for one in reversed(listed)
        if one.record not in there and one.record in signed | claims and one.statement.renews is renewals
    ]
    artifacts = [artifact for one in lacking if (artifact := _statement(source, one, key)) is not None]
    if not artifacts:
        return
    target.put_blob(EMPTY_DESCRIPTOR, EMPTY_DATA)
    target.put_manifest(subject)
    for blob, content in (blob for artifact in artifacts for blob in artifact.blobs):
        target.put_blob(blob, content)
    target.attach_all(tuple(artifact.manifest for artifact in artifacts))


def _statement(source: Repository, listed: RecordedStatement, key: VerifyingKey) -> Artifact | None:
    """Return a statement's manifest and bundle, made again or read; None if that fails."""
    remade = remade_statement(listed, key)
    if remade is not None and remade.manifest.digest == listed.record:
        return remade
    with contextlib.suppress(VerificationError):
        manifest = source.manifest(listed.record)
        if manifest is not None:
            blobs = tuple((blob, source.read_blob(blob)) for blob in references(manifest).blobs)
            return Artifact(manifest, blobs)
    return None


def _size(held: MirroredImage) -> int:
    return sum(layer.blob.size for image in held.images for layer in image.layers)


@dataclass(frozen=True, slots=True)
class _ImageCopier:
    source: Repository
    target: Repository
    store: Store
    copied: CopiedArtifacts
    advance: Callable[[int], None]

    def manifest(self, manifest: Manifest) -> None:
        """Copy a manifest after its blobs."""
        with ThreadPoolExecutor(COPIES_PARALLEL, "copy") as pool:
            for descriptor, arrival in pool.map(self._blob, dict.fromkeys(references(manifest).blobs)):
                if arrival is Arrival.UPLOADED:
                    self.copied.uploaded.append((descriptor.digest, descriptor.size))
                else:
                    self.copied.present.append(descriptor.digest)
        if self.target.put_manifest(manifest):
            self.copied.uploaded.append((manifest.digest, len(manifest.data)))
        else:
            self.copied.present.append(manifest.digest)

    def signatures(self, subject: Digest) -> None:
        """Copy cosign's signatures, and keep those that the target has under the same tag."""
        tag = signature_tag(subject)
        manifest = self.source.manifest(tag)
        if manifest is None:
            return
        for _ in range(COPY_ATTEMPTS):
            there = self.target.manifest(tag)
            joined = Artifact(manifest) if there is None else join_signatures(there, manifest)
            if there is not None and joined.manifest == there:
                return
            self.manifest(manifest)
            for descriptor, content in joined.blobs:
                self.target.put_blob(descriptor, content)
            try:
                self.target.put_auxiliary(tag, joined.manifest, there.digest if there else None)
            except TagConflict:  # somebody else signs it there: that signature is kept as well
                continue
            return
        raise PublicationRefused(
            "tag-overtaken",
            f"other publishers keep signing {subject} on {self.target.url} at the same time",
            place=self.target.url,
            hint="copy again when they have finished",
        )

    def referrers(self, subject: Digest, depth: int) -> None:
        """Copy the referrers of `subject`, and their referrers, `depth` levels in all.

        What is listed and refers to something else is left.
        """
        found = self.source.referrers(subject)
        if len(found) > REFERRER_LIMIT:
            raise VerificationError(
                "too-many-referrers", f"{subject} has {len(found)} referrers, more than {REFERRER_LIMIT}"
            )
        listed = {one.descriptor.digest for one in self.target.referrers(subject)}
        for one in found:
            manifest = self.source.manifest(one.descriptor.digest)
            if manifest is None:
                raise VerificationError(
                    "referrer-missing", f"{one.descriptor.digest} is listed but missing", place=self.source.url
                )
            if manifest_subject(manifest) != subject:
                continue
            if manifest.digest not in listed:
                self.manifest(manifest)
                self.target.attach(manifest)
                self.copied.referrers.append(manifest.digest)
            if one.artifact_type != media_types.SIGSTORE_BUNDLE:  # a bundle carries its signature in itself
                self.signatures(manifest.digest)
            if depth > 1:
                self.referrers(manifest.digest, depth - 1)

    def _blob(self, descriptor: Descriptor) -> tuple[Descriptor, Arrival]:
        arrival = Arrival.PRESENT
        if not self.target.holds_whole(descriptor):
            self.source.fetch_blob(descriptor, self.store)
            arrival = self.target.put_blob(descriptor, Path(self.store.blob(descriptor.digest)))
        self.advance(descriptor.size)
        return descriptor, arrival
