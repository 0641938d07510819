"""Images of a few bytes that were tested in memory, published whole: with signatures, attestations and tags."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.mirror.attestations import SignedAttachments
from pipeline.mirror.gate import Candidate, Cleared, SealedEvidence
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.protocol import Repository
from pipeline.mirror.push import Upload, push
from pipeline.model.evidence import evidence_json
from pipeline.model.image import Image
from pipeline.model.manifests import Manifest
from pipeline.model.publication import Publication
from pipeline.model.rules import GateRule, MirrorRules
from pipeline.oci import (
    SigningKey,
    VerifyingKey,
    load_signing_key,
    make_image,
    make_index,
    media_types,
    provenance_predicate,
)
from pipeline.oci.predicates import CYCLONEDX, PROVENANCE, SMOKE, SPDX
from pipeline.prepare import BuildEnvironment
from pipeline.progress import QUIET
from pipeline.release.current_images import TagTargets, tag_signer, tag_targets
from pipeline.store import Store
from tests.support.signing_examples import PROVENANCE_VALUE
from tests.support.tested_images import simple_evidence
from tests.support.tiny_image import CONFIG, layer

START = time.time()
"""Drafts in a mirror are as old as their files: a clock that is ahead of these removes them."""
RULES = MirrorRules((GateRule(refuse_older=False),))


def key(number: int = 0) -> SigningKey:
    """One of several keys that everybody knows."""
    return load_signing_key(
        ec.derive_private_key(0x7E57 + number, ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@dataclass
class SteppedClock:
    """A clock that is set, and goes a millisecond with each look."""

    now: float = START
    looks: itertools.count[int] = field(default_factory=itertools.count)

    def __call__(self) -> float:
        return self.now + next(self.looks) / 1000


@dataclass(frozen=True)
class ImagePublisher:
    """Makes images in a store, and publishes them."""

    store: Store
    clock: SteppedClock = field(default_factory=SteppedClock)

    @classmethod
    def at(cls, folder: Path) -> ImagePublisher:
        """With a store of its own."""
        (folder / "store").mkdir(mode=0o700, parents=True)
        return cls(Store.open(folder / "store"))

    @property
    def build_env(self) -> BuildEnvironment:
        return BuildEnvironment(self.store, QUIET, {}, self.clock)

    def image(self, version: str, name: str = "small", architecture: str = "amd64") -> Image:
        """A version of a product: all share a layer."""
        layers = [
            layer(self.store, "base", {"etc": None, "etc/passwd": b"server:x:27:28::/:/bin/sh\n"}),
            layer(self.store, "product", {"srv": None, "srv/page": f"{name} {version} {architecture}\n".encode()}),
        ]
        labels = ((media_types.VERSION, version),)
        return make_image(name, version, replace(CONFIG, architecture=architecture, labels=labels), layers)

    def publish(
        self,
        repository: Repository,
        *images: Image,
        tags: tuple[str, ...] = ("latest",),
        signer: SigningKey | None = None,
        validity: int = 14 * 86_400,
        read_back: bool = False,
        leave_moved_back: bool = False,
        former: tuple[VerifyingKey, ...] = (),
    ) -> Publication:
        """Publish an image, or an index of several, as `relbuild publish` does."""
        signer = signer or key()
        top = Manifest(media_types.MANIFEST, images[0].manifest_bytes) if len(images) == 1 else make_index(images)
        version = dict(images[0].config.labels)[media_types.VERSION]
        created = images[0].config.created
        candidates = []
        attachments = []
        for one in images:
            data = evidence_json(simple_evidence(one))
            seal = SealedEvidence(self.store.seal(data), self.store)
            candidates.append(Candidate(one.manifest_bytes, one.config_bytes, data, seal))
            predicates = {
                PROVENANCE: provenance_predicate(PROVENANCE_VALUE),
                SPDX: b"{}",
                CYCLONEDX: b"{}",
                SMOKE: data,
            }
            attachments.append(SignedAttachments(one.manifest_descriptor, one.name, created, predicates, signer))
        if len(images) > 1:
            predicates = {PROVENANCE: provenance_predicate(PROVENANCE_VALUE)}
            attachments.append(SignedAttachments(top.descriptor, images[0].name, created, predicates, signer))
        immutable = immutable_tag(version, created, top.digest)

        def clear(targets: TagTargets | None = None) -> Cleared:
            name, cleared_tags = repository.name or images[0].name, (*tags, immutable)
            now = targets or tag_targets(repository, tags, top.digest)
            return Cleared(name, cleared_tags, top, tuple(candidates), RULES, now.current)

        targets = tag_targets(repository, tags, top.digest, immutable=(immutable,))
        upload = Upload(
            cleared=clear(targets),
            images=images,
            attachments=tuple(attachments),
            version=version,
            created=created,
            floating=tags,
            source=self.store.blob,
            read_back=read_back,
            standing=targets.standing,
            leave_moved_back=leave_moved_back,
        )
        signing = tag_signer(signer, MirrorRules(validity=validity), self.build_env, former)
        return push(upload, repository, clear_again=clear, signer=signing, progress=QUIET)
