"""What somebody who can write to a mirror might do to an image there, what relbuild says of it, and which of cosign's
commands have it in sight."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from pipeline.digest import Digest, canonical_json
from pipeline.mirror.references import fallback_tag
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import (
    PREDICATE_TYPE_ANNOTATION,
    SigningKey,
    bundle_layer,
    make_attestation,
    make_index,
    make_simple_signature,
    media_types,
    read_artifact,
    signature_tag,
    verify_bundle,
)
from pipeline.oci.image_manifest import descriptor_json
from pipeline.oci.predicates import SPDX
from tests.support.sites import Site

VERIFY, ATTEST = "verify", "verify-attestation"

OTHER_BYTES = "other-bytes"
"""Stands for what a kind of mirror calls documents that are not those of their digest (`Attack.codes_on`)."""

_OTHER_BYTES = {"registry": "registry-digest", "directory": "digest-mismatch"}

ALL = (("cosign", VERIFY), ("cosign", ATTEST), ("cosign3", VERIFY), ("cosign3", ATTEST))
TAGGED = (("cosign", VERIFY),)
"""cosign 3 does not look at the `.sig` tag where there are bundles."""
BUNDLED = (("cosign", ATTEST), ("cosign3", VERIFY), ("cosign3", ATTEST))
SBOM = (("cosign", ATTEST), ("cosign3", ATTEST))
"""cosign 3 takes a bundle of any type that the key signed for a signature."""


@dataclass(frozen=True, slots=True)
class Scene:
    """`mine` is attacked, in the repository `name`, where it has the tag `tag`; `other` is there too. Both are signed
    by `ours`; the attacker has `theirs`."""

    site: Site
    name: str
    tag: str
    mine: Image
    other: Image
    ours: SigningKey
    theirs: SigningKey

    @property
    def manifest(self) -> Manifest:
        """Of the image that is attacked."""
        return Manifest(media_types.MANIFEST, self.mine.manifest_bytes)

    @property
    def identity(self) -> str:
        """As which images are signed."""
        return f"{self.site.host}/{self.name}"

    def sbom(self) -> Artifact:
        """The attestation that `verify-attestation` is asked for."""
        found = self.site.referrers(self.name, self.mine.digest)
        return next(one for one in found if read_artifact(one.manifest).annotation(PREDICATE_TYPE_ANNOTATION) == SPDX)


@dataclass(frozen=True, slots=True)
class Attack:
    """`does` it for as long as its block lasts, and yields what is to be verified. `codes`: all that relbuild says;
    `refusing`: cosign's generations and commands that refuse; `quick`: `relbuild verify --quick` refuses as well."""

    does: Callable[[Scene], AbstractContextManager[Digest | str]]
    codes: frozenset[str]
    refusing: tuple[tuple[str, str], ...] = ()
    quick: bool = True

    def codes_on(self, site: Site) -> set[str]:
        """`codes` as they are on a kind of mirror."""
        return {_OTHER_BYTES[site.kind] if code == OTHER_BYTES else code for code in self.codes}


ATTACKS: dict[str, Attack] = {}


def attack(
    *codes: str, refusing: tuple[tuple[str, str], ...] = (), quick: bool = True
) -> Callable[[Callable[[Scene], Iterator[Digest | str]]], None]:
    """Adds a generator to ATTACKS, under its own name."""

    def add(does: Callable[[Scene], Iterator[Digest | str]]) -> None:
        ATTACKS[does.__name__] = Attack(contextlib.contextmanager(does), frozenset(codes), refusing, quick)

    return add


# --- signatures --------------------------------------------------------------------------------------------


@attack("signature-wrong-key", refusing=ALL)
def signed_by_somebody_else(scene: Scene) -> Iterator[Digest | str]:
    """Every signature and attestation again, by the attacker's own key."""
    site, mine = scene.site, scene.mine
    forged = make_simple_signature(mine.digest, scene.identity, scene.theirs)
    site.push(scene.name, forged)
    statements = [
        verify_bundle(one.manifest, one.blobs[0][1], mine.digest, scene.ours.public)
        for one in site.referrers(scene.name, mine.digest)
    ]
    resigned = [make_attestation(one, mine.manifest_descriptor, scene.theirs) for one in statements]
    with (
        site.pointing(scene.name, signature_tag(mine.digest), forged.manifest),
        site.attested(scene.name, mine.digest, resigned),
    ):
        yield scene.tag


@attack("signature-of-another", refusing=TAGGED)
def signature_of_another_image(scene: Scene) -> Iterator[Digest | str]:
    """The other image's signature, genuine as it is, under this image's tag."""
    genuine = scene.site.manifest(scene.name, signature_tag(scene.other.digest))
    with scene.site.pointing(scene.name, signature_tag(scene.mine.digest), genuine):
        yield scene.tag


@attack("signature-missing", refusing=TAGGED)
def signature_removed(scene: Scene) -> Iterator[Digest | str]:
    with scene.site.pointing(scene.name, signature_tag(scene.mine.digest), None):
        yield scene.tag


@attack("signature-altered", refusing=TAGGED)
def signed_bytes_swapped(scene: Scene) -> Iterator[Digest | str]:
    """What this image's signature signs is replaced by what the other's signs."""
    signature, other = (
        scene.site.manifest(scene.name, signature_tag(image.digest)) for image in (scene.mine, scene.other)
    )
    (mine,), (theirs,) = read_artifact(signature).layers, read_artifact(other).layers
    with scene.site.altered(scene.name, mine.digest, scene.site.blob(scene.name, theirs.digest)):
        yield scene.tag


# --- attestations ------------------------------------------------------------------------------------------


@attack("signature-of-another", refusing=BUNDLED)
def attestations_of_another_image(scene: Scene) -> Iterator[Digest | str]:
    """The other image's attestations, genuine but for the manifest around them, which speaks of this image."""
    moved = [
        _speaking_of(scene.mine.manifest_descriptor, one)
        for one in scene.site.referrers(scene.name, scene.other.digest)
    ]
    with scene.site.attested(scene.name, scene.mine.digest, moved):
        yield scene.tag


@attack("signature-of-another", refusing=BUNDLED)
def attestations_listed_for_another_image(scene: Scene) -> Iterator[Digest | str]:
    """The other image's attestations as they are, listed for this one."""
    listed = scene.site.referrers(scene.name, scene.other.digest)
    with scene.site.attested(scene.name, scene.mine.digest, listed):
        yield scene.tag


@attack("attestation-missing", refusing=SBOM)
def attestations_removed(scene: Scene) -> Iterator[Digest | str]:
    with scene.site.pointing(scene.name, fallback_tag(scene.mine.digest), None):
        yield scene.tag


@attack("attestation-missing", refusing=SBOM)
def sbom_removed(scene: Scene) -> Iterator[Digest | str]:
    gone = scene.sbom().manifest.digest
    rest = [one for one in scene.site.referrers(scene.name, scene.mine.digest) if one.manifest.digest != gone]
    with scene.site.attested(scene.name, scene.mine.digest, rest):
        yield scene.tag


@attack(OTHER_BYTES, refusing=SBOM)
def sbom_swapped(scene: Scene) -> Iterator[Digest | str]:
    """Other bytes under the digest of the SBOM's bundle, as many as it had."""
    ((layer, data),) = scene.sbom().blobs
    with scene.site.altered(scene.name, layer.digest, _changed(data)):
        yield scene.tag


@attack("signature-altered", refusing=SBOM)
def sbom_rewritten(scene: Scene) -> Iterator[Digest | str]:
    """Another version of SPDX in what was signed, and every digest right again."""
    genuine = scene.sbom()
    ((_, data),) = genuine.blobs
    bundle = json.loads(data)
    signed = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    assert b"SPDX-2.3" in signed
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(signed.replace(b"SPDX-2.3", b"SPDX-2.2")).decode()
    text = canonical_json(bundle)
    layer = Descriptor(media_types.SIGSTORE_BUNDLE, Digest.of(text), len(text))
    document = json.loads(genuine.manifest.data)
    document["layers"] = [descriptor_json(layer)]
    forged = Artifact(Manifest(media_types.MANIFEST, canonical_json(document)), ((layer, text),))
    kept = [one for one in scene.site.referrers(scene.name, scene.mine.digest) if one.manifest != genuine.manifest]
    with scene.site.attested(scene.name, scene.mine.digest, [*kept, forged]):
        yield scene.tag


# --- manifests and blobs -----------------------------------------------------------------------------------


@attack(OTHER_BYTES, refusing=ALL)
def manifest_altered_in_its_place(scene: Scene) -> Iterator[Digest | str]:
    """Other bytes under the manifest's digest, which its tag points to."""
    with scene.site.altered(scene.name, scene.mine.digest, _changed(scene.mine.manifest_bytes)):
        yield scene.tag


@attack("signature-missing", "attestation-missing", refusing=ALL)
def manifest_altered_under_its_tag(scene: Scene) -> Iterator[Digest | str]:
    """A changed manifest, whole and with a digest of its own; the tag points to it."""
    forged = _labelled(scene.mine)
    scene.site.push(scene.name, Artifact(forged))
    with scene.site.pointing(scene.name, scene.tag, forged):
        yield scene.tag


@attack("signature-of-another", refusing=ALL)
def manifest_altered_and_signatures_brought_along(scene: Scene) -> Iterator[Digest | str]:
    """The same, with everything that was signed of the manifest before it was changed."""
    site, forged = scene.site, _labelled(scene.mine)
    site.push(scene.name, Artifact(forged))
    signature = site.manifest(scene.name, signature_tag(scene.mine.digest))
    moved = [_speaking_of(forged.descriptor, one) for one in site.referrers(scene.name, scene.mine.digest)]
    with (
        site.pointing(scene.name, scene.tag, forged),
        site.pointing(scene.name, signature_tag(forged.digest), signature),
        site.attested(scene.name, forged.digest, moved),
    ):
        yield scene.tag


@attack("signature-missing", "attestation-missing", refusing=ALL)
def index_of_signed_images(scene: Scene) -> Iterator[Digest | str]:
    """An index that nobody signed, of images that are signed, each for itself."""
    forged = make_index([scene.mine, scene.other])
    scene.site.push(scene.name, Artifact(forged))
    with scene.site.pointing(scene.name, scene.tag, forged):
        yield scene.tag


@attack("blob-damaged", quick=False)
def layer_swapped(scene: Scene) -> Iterator[Digest | str]:
    """A layer with other bytes, as many as it had."""
    layer = scene.mine.layers[-1].blob.digest
    with scene.site.altered(scene.name, layer, _changed(scene.site.blob(scene.name, layer))):
        yield scene.tag


@attack("blob-damaged", quick=False)
def layer_of_another_image(scene: Scene) -> Iterator[Digest | str]:
    """The other image's layer, good in itself, under the digest of this one's."""
    mine, other = scene.mine.layers[-1].blob.digest, scene.other.layers[-1].blob.digest
    assert mine != other
    with scene.site.altered(scene.name, mine, scene.site.blob(scene.name, other)):
        yield scene.tag


@attack("blob-missing")
def layer_removed(scene: Scene) -> Iterator[Digest | str]:
    with scene.site.altered(scene.name, scene.mine.layers[-1].blob.digest, None):
        yield scene.tag


@attack(OTHER_BYTES)
def config_swapped(scene: Scene) -> Iterator[Digest | str]:
    """A config that starts another program; the manifest names it by its old digest."""
    with scene.site.altered(scene.name, scene.mine.config_descriptor.digest, _changed(scene.mine.config_bytes)):
        yield scene.tag


def _changed(data: bytes) -> bytes:
    """As many bytes, of which one in the middle is another letter or digit, so that JSON stays JSON."""
    at = next(place for place in range(len(data) // 2, len(data)) if data[place : place + 1].isalnum())
    return data[:at] + (b"7" if data[at : at + 1] != b"7" else b"8") + data[at + 1 :]


def _labelled(image: Image) -> Manifest:
    """The image's manifest with one annotation more: the same layers, another digest."""
    document = json.loads(image.manifest_bytes)
    document["annotations"]["org.opencontainers.image.vendor"] = "somebody else"
    return Manifest(media_types.MANIFEST, canonical_json(document))


def _speaking_of(subject: Descriptor, artifact: Artifact) -> Artifact:
    """A referrer made to speak of something else; what is signed in it stays."""
    document = json.loads(artifact.manifest.data)
    document["subject"] = descriptor_json(subject)
    assert bundle_layer(artifact.manifest) == artifact.blobs[0][0]
    return replace(artifact, manifest=Manifest(media_types.MANIFEST, canonical_json(document)))
