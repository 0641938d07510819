"""What is signed and attested here, cosign of both generations accepts; what cosign signs is accepted here; and both
refuse what is not so."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.mirror.references import referrer_of
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import (
    SigningKey,
    Statement,
    StatementSubject,
    bundle_layer,
    check_signatures,
    generate_key,
    load_signing_key,
    load_verifying_key,
    make_attestation,
    make_image,
    make_simple_signature,
    media_types,
    provenance_predicate,
    read_artifact,
    signature_tag,
    verify_bundle,
    verify_signatures,
)
from pipeline.oci.image_manifest import descriptor_json
from pipeline.oci.predicates import CYCLONEDX, PROVENANCE, SIGN, SMOKE, SPDX
from pipeline.store import Store
from tests.support.foreign_programs import docker_registry, program
from tests.support.patience import HUNG
from tests.support.signing_examples import PROVENANCE_VALUE
from tests.support.tiny_image import CONFIG, layer

PASSWORD = b"of a test"
IGNORE = "--insecure-ignore-tlog=true"
TYPES = {"slsaprovenance1": PROVENANCE, "spdxjson": SPDX, "cyclonedx": CYCLONEDX, SMOKE: SMOKE}
"""As cosign calls it → predicate type."""

GENERATIONS = ("cosign", "cosign3")


@dataclass(frozen=True)
class Peer:
    """As few requests to one repository of a registry as these tests need. It has no referrers API, so the fallback tag
    is written (distribution-spec 1.1)."""

    host: str
    name: str

    @property
    def identity(self) -> str:
        return f"{self.host}/{self.name}"

    def put_blob(self, data: bytes) -> None:
        begun = httpx.post(f"http://{self.identity_url}/blobs/uploads/", timeout=HUNG)
        where = httpx.URL(f"http://{self.host}").join(begun.headers["location"])
        done = httpx.put(where.copy_merge_params({"digest": str(Digest.of(data))}), content=data, timeout=HUNG)
        assert done.status_code == 201, done.text

    @property
    def identity_url(self) -> str:
        return f"{self.host}/v2/{self.name}"

    def put(self, manifest: Manifest, reference: str | None = None) -> None:
        url = f"http://{self.identity_url}/manifests/{reference or manifest.digest}"
        done = httpx.put(url, content=manifest.data, headers={"content-type": manifest.media_type}, timeout=HUNG)
        assert done.status_code == 201, done.text

    def get(self, reference: object) -> Manifest:
        accept = ", ".join((media_types.MANIFEST, media_types.INDEX))
        found = httpx.get(f"http://{self.identity_url}/manifests/{reference}", headers={"accept": accept}, timeout=HUNG)
        assert found.status_code == 200, found.text
        return Manifest(found.headers["content-type"], found.content)

    def blob(self, digest: Digest) -> bytes:
        return httpx.get(f"http://{self.identity_url}/blobs/{digest}", timeout=HUNG).raise_for_status().content

    def push(self, artifact: Artifact, reference: str | None = None) -> None:
        for _, data in artifact.blobs:
            self.put_blob(data)
        self.put(artifact.manifest, reference)

    def attach(self, subject: Digest, artifacts: Sequence[Artifact]) -> None:
        """Artifacts as the referrers of `subject`, in place of those that it had."""
        for artifact in artifacts:
            self.push(artifact)
        listed = [
            descriptor_json(referrer.descriptor) | {"artifactType": referrer.artifact_type}
            for referrer in (referrer_of(artifact.manifest) for artifact in artifacts)
        ]
        index = {"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": listed}
        self.put(Manifest(media_types.INDEX, canonical_json(index)), f"sha256-{subject.hex}")

    def referrers(self, subject: Digest) -> list[Manifest]:
        """As the fallback tag lists them."""
        listed = json.loads(self.get(f"sha256-{subject.hex}").data)["manifests"]
        return [self.get(item["digest"]) for item in listed]

    def bundle(self, manifest: Manifest) -> bytes:
        return self.blob(bundle_layer(manifest).digest)

    def payloads(self, manifest: Manifest) -> dict[Digest, bytes]:
        return {one.digest: self.blob(one.digest) for one in read_artifact(manifest).layers}


def cosign(generation: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run without a network: its home is empty, and what it asks for is on the loopback."""
    environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD.decode(), "COSIGN_YES": "true"}
    argv = [program(generation), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=HUNG, env=environment)


def accepted(generation: str, *words: str | Path) -> str:
    done = cosign(generation, *words)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def refused(generation: str, *words: str | Path) -> str:
    done = cosign(generation, *words)
    assert done.returncode != 0, f"{words}: {done.stdout}"
    return done.stderr


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def peer(host: str, request: pytest.FixtureRequest) -> Peer:
    """A repository of the test's own."""
    return Peer(host, "test/" + "-".join(re.findall("[a-z0-9]+", request.node.name.lower())))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: `ours.key` and `ours.pub` made here, `theirs.*` by cosign, `rsa.*` by openssl; and cosign 2's word for
    "no authority and no log", `no-roots.json`."""
    folder = tmp_path_factory.mktemp("keys")
    private, public = generate_key(PASSWORD)
    (folder / "ours.key").write_bytes(private)
    (folder / "ours.pub").write_bytes(public)
    accepted("cosign", "generate-key-pair", "--output-key-prefix", folder / "theirs")
    subprocess.run(["openssl", "genrsa", "-out", folder / "rsa.key", "3072"], check=True, capture_output=True)
    (folder / "rsa.pub").write_bytes(load_verifying_key(folder / "rsa.key").pem)
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    (folder / "no-roots.json").write_text('{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("store"))


def signer(keys: Path, name: str = "ours") -> SigningKey:
    return load_signing_key(keys / f"{name}.key", lambda: PASSWORD)


def push_image(peer: Peer, store: Store, content: bytes, architecture: str = "amd64") -> Image:
    made = layer(store, "only", {"page": content})
    image = make_image("tiny", "1.0", replace(CONFIG, architecture=architecture), [made])
    peer.put_blob(store.blob(made.blob.digest).read_bytes())
    peer.put_blob(image.config_bytes)
    peer.put(Manifest(image.manifest_descriptor.media_type, image.manifest_bytes))
    return image


def push_subject(peer: Peer, store: Store, kind: str) -> Descriptor:
    """An image, or an index of two."""
    image = push_image(peer, store, b"one page\n")
    if kind == "image":
        return image.manifest_descriptor
    other = push_image(peer, store, b"one page\n", "arm64")
    entries = [
        descriptor_json(one.manifest_descriptor)
        | {"platform": {"os": "linux", "architecture": one.config.architecture}}
        for one in (image, other)
    ]
    index = {"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": entries}
    manifest = Manifest(media_types.INDEX, canonical_json(index))
    peer.put(manifest)
    return manifest.descriptor


def statement(kind: str, subject: Digest) -> Statement:
    predicate = {
        SIGN: b"{}",
        PROVENANCE: provenance_predicate(PROVENANCE_VALUE),
        SPDX: b'{"SPDXID":"SPDXRef-DOCUMENT","spdxVersion":"SPDX-2.3"}',
        CYCLONEDX: b'{"bomFormat":"CycloneDX","specVersion":"1.6","version":1}',
        SMOKE: b'{"passed":true}',
    }[kind]
    return Statement(kind, (StatementSubject(subject, "tiny"),), predicate)


@pytest.mark.parametrize("kind", ["image", "index"])
@pytest.mark.parametrize("key", ["ours", "theirs", "rsa"])
def test_cosign_accepts_both_forms_of_our_signatures(peer: Peer, store: Store, keys: Path, kind: str, key: str) -> None:
    subject = push_subject(peer, store, kind)
    reference, public = f"{peer.identity}@{subject.digest}", keys / f"{key}.pub"
    peer.push(make_simple_signature(subject.digest, peer.identity, signer(keys, key)), signature_tag(subject.digest))
    for generation in GENERATIONS:
        claims = json.loads(accepted(generation, "verify", "--key", public, IGNORE, reference))
        assert claims[0]["critical"]["identity"]["docker-reference"] == peer.identity
    peer.attach(subject.digest, [make_attestation(statement(SIGN, subject.digest), subject, signer(keys, key))])
    claims = json.loads(accepted("cosign3", "verify", "--key", public, IGNORE, reference))
    assert claims[0]["critical"]["type"] == SIGN, "now the bundle is what counts"


@pytest.mark.parametrize("kind", ["image", "index"])
def test_cosign_accepts_our_attestations(peer: Peer, store: Store, keys: Path, kind: str) -> None:
    subject = push_subject(peer, store, kind)
    reference, public = f"{peer.identity}@{subject.digest}", keys / "ours.pub"
    statements = [statement(predicate, subject.digest) for predicate in (SIGN, *TYPES.values())]
    peer.attach(subject.digest, [make_attestation(one, subject, signer(keys), CONFIG.created) for one in statements])
    second = ("--new-bundle-format", "--trusted-root", keys / "no-roots.json")
    for name, predicate in TYPES.items():
        for generation, extra in (("cosign", second), ("cosign3", ())):
            said = accepted(
                generation, "verify-attestation", "--key", public, IGNORE, "--type", name, *extra, reference
            )
            envelope = json.loads(said.splitlines()[0])
            signed = json.loads(base64.b64decode(envelope["payload"]))
            assert (signed["predicateType"], signed["subject"][0]["digest"]) == (
                predicate,
                {"sha256": subject.digest.hex},
            )


def test_oras_lists_our_attestations(peer: Peer, store: Store, keys: Path) -> None:
    subject = push_subject(peer, store, "image")
    made = [
        make_attestation(statement(kind, subject.digest), subject, signer(keys)) for kind in (SIGN, PROVENANCE, SPDX)
    ]
    peer.attach(subject.digest, made)
    said = subprocess.run(
        [program("oras"), "discover", "--plain-http", "--format", "json", f"{peer.identity}@{subject.digest}"],
        check=True,
        capture_output=True,
        text=True,
    )
    document = json.loads(said.stdout)
    listed = document.get("referrers") or document.get("manifests")
    assert {item["digest"] for item in listed} == {str(one.manifest.digest) for one in made}
    assert {item["artifactType"] for item in listed} == {media_types.SIGSTORE_BUNDLE}


def refuses_here(code: str, check: object, *words: object) -> None:
    with pytest.raises(VerificationError) as caught:
        check(*words)  # type: ignore[operator]
    assert caught.value.code == code, caught.value


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_signature_that_is_wrong_is_refused_here_and_by_cosign(
    peer: Peer, store: Store, keys: Path, generation: str
) -> None:
    mine, others = push_image(peer, store, b"one page\n"), push_image(peer, store, b"another page\n")
    tag, public = signature_tag(mine.digest), load_verifying_key(keys / "ours.pub")
    verify = ("verify", IGNORE, f"{peer.identity}@{mine.digest}", "--key")

    def verified(artifact: Artifact) -> None:
        peer.push(artifact, tag)
        manifest = peer.get(tag)
        verify_signatures(manifest, peer.payloads(manifest), mine.digest, public)

    good = make_simple_signature(mine.digest, peer.identity, signer(keys))
    verified(good)
    accepted(generation, *verify, keys / "ours.pub")

    refuses_here(
        "signature-wrong-key", verified, make_simple_signature(mine.digest, peer.identity, signer(keys, "theirs"))
    )
    assert "no matching signatures" in refused(generation, *verify, keys / "ours.pub")

    refuses_here("signature-of-another", verified, make_simple_signature(others.digest, peer.identity, signer(keys)))
    refused(generation, *verify, keys / "ours.pub")

    # somebody else's image, in the payload and in every digest, under the signature of ours
    swapped = make_simple_signature(others.digest, peer.identity, signer(keys))
    document = json.loads(swapped.manifest.data)
    document["layers"][0]["annotations"] = json.loads(good.manifest.data)["layers"][0]["annotations"]
    altered = replace(swapped, manifest=Manifest(media_types.MANIFEST, canonical_json(document)))
    refuses_here("signature-wrong-key", verified, altered)
    refused(generation, *verify, keys / "ours.pub")


@pytest.mark.parametrize(("generation", "extra"), [("cosign", True), ("cosign3", False)])
def test_an_attestation_that_is_wrong_is_refused_here_and_by_cosign(
    peer: Peer, store: Store, keys: Path, generation: str, extra: bool
) -> None:
    mine, others = push_image(peer, store, b"one page\n"), push_image(peer, store, b"another page\n")
    subject, public = mine.manifest_descriptor, load_verifying_key(keys / "ours.pub")
    words = ["verify-attestation", IGNORE, "--type", "spdxjson", f"{peer.identity}@{mine.digest}"]
    words += ["--new-bundle-format", "--trusted-root", str(keys / "no-roots.json")] if extra else []
    words += ["--key", str(keys / "ours.pub")]

    def verified(artifact: Artifact) -> None:
        peer.attach(mine.digest, [artifact])
        manifest = peer.get(artifact.manifest.digest)
        verify_bundle(manifest, peer.bundle(manifest), mine.digest, public)

    def wrong(code: str, artifact: Artifact) -> None:
        refuses_here(code, verified, artifact)
        refused(generation, *words)

    good = make_attestation(statement(SPDX, mine.digest), subject, signer(keys))
    peer.attach(mine.digest, [good])
    accepted(generation, *words)
    verified(good)

    wrong("signature-wrong-key", make_attestation(statement(SPDX, mine.digest), subject, signer(keys, "theirs")))

    # the attestation of another image, made to speak of this one
    foreign = make_attestation(statement(SPDX, others.digest), others.manifest_descriptor, signer(keys))
    document = json.loads(foreign.manifest.data)
    document["subject"] = descriptor_json(subject)
    moved = replace(foreign, manifest=Manifest(media_types.MANIFEST, canonical_json(document)))
    wrong("signature-of-another", moved)

    # the same signature over a changed statement
    bundle = json.loads(good.blobs[1][1])
    changed = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"SPDX-2.3", b"SPDX-2.2")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    wrong("signature-altered", rebundled(good, canonical_json(bundle)))


def rebundled(artifact: Artifact, bundle: bytes) -> Artifact:
    """The artifact with another bundle, and all digests right."""
    layer = Descriptor(media_types.SIGSTORE_BUNDLE, Digest.of(bundle), len(bundle))
    document = json.loads(artifact.manifest.data)
    document["layers"] = [descriptor_json(layer)]
    return Artifact(Manifest(media_types.MANIFEST, canonical_json(document)), (artifact.blobs[0], (layer, bundle)))


UNLOGGED = {
    "cosign": ("--tlog-upload=false",),
    "cosign3": ("--tlog-upload=false", "--use-signing-config=false"),
}


def test_what_cosign_signs_is_accepted_here(peer: Peer, store: Store, keys: Path) -> None:
    image = push_image(peer, store, b"one page\n")
    reference = f"{peer.identity}@{image.digest}"
    accepted("cosign", "sign", "--key", keys / "theirs.key", *UNLOGGED["cosign"], reference)
    theirs, ours = load_verifying_key(keys / "theirs.pub"), load_verifying_key(keys / "ours.pub")
    tag = signature_tag(image.digest)
    manifest = peer.get(tag)
    (held,) = verify_signatures(manifest, peer.payloads(manifest), image.digest, theirs, peer.identity)
    assert (held.digest, held.identity) == (image.digest, peer.identity)
    refuses_here("signature-wrong-key", verify_signatures, manifest, peer.payloads(manifest), image.digest, ours)

    # ours beside it: both hold, and cosign finds each
    peer.push(make_simple_signature(image.digest, peer.identity, signer(keys), manifest), tag)
    manifest = peer.get(tag)
    for key, name in ((theirs, "theirs"), (ours, "ours")):
        found = check_signatures(manifest, peer.payloads(manifest), image.digest, key, peer.identity)
        assert [one.problem is None for one in found].count(True) == 1, (name, found)
        for generation in GENERATIONS:
            accepted(generation, "verify", "--key", keys / f"{name}.pub", IGNORE, reference)

    # and the key that cosign signed with finds its own signature there, though it was made with another nonce
    again = make_simple_signature(image.digest, peer.identity, signer(keys, "theirs"), manifest)
    assert (again.manifest, again.blobs) == (manifest, ())


def test_bundles_that_cosign_makes_are_accepted_here(peer: Peer, store: Store, keys: Path, tmp_path: Path) -> None:
    image = push_image(peer, store, b"one page\n")
    reference = f"{peer.identity}@{image.digest}"
    (tmp_path / "predicate").write_text('{"spdxVersion": "SPDX-2.3"}')
    predicate = ("--type", "spdxjson", "--predicate", tmp_path / "predicate", reference)
    accepted("cosign3", "sign", "--key", keys / "theirs.key", *UNLOGGED["cosign3"], reference)
    accepted("cosign3", "attest", "--key", keys / "theirs.key", *UNLOGGED["cosign3"], *predicate)
    manifests = peer.referrers(image.digest)
    key = load_verifying_key(keys / "theirs.pub")
    said = [verify_bundle(one, peer.bundle(one), image.digest, key) for one in manifests]
    assert sorted(one.predicate_type for one in said) == [SIGN, SPDX]
    assert b'{"spdxVersion":"SPDX-2.3"}' in [one.predicate for one in said]


def test_cosign_signs_with_a_key_that_was_made_here(peer: Peer, store: Store, keys: Path) -> None:
    image = push_image(peer, store, b"one page\n")
    reference = f"{peer.identity}@{image.digest}"
    for generation in GENERATIONS:
        public = accepted(generation, "public-key", "--key", keys / "ours.key")
        assert public.strip() == (keys / "ours.pub").read_text().strip()
    accepted("cosign", "sign", "--key", keys / "ours.key", *UNLOGGED["cosign"], reference)
    manifest = peer.get(signature_tag(image.digest))
    public = load_verifying_key(keys / "ours.pub")
    assert verify_signatures(manifest, peer.payloads(manifest), image.digest, public)


def test_cosign_reads_an_attestation_of_tens_of_mebibytes(peer: Peer, store: Store, keys: Path) -> None:
    subject = push_subject(peer, store, "image")
    large = b'{"comment":"' + b"x" * (20 << 20) + b'","spdxVersion":"SPDX-2.3"}'
    made = make_attestation(Statement(SPDX, (StatementSubject(subject.digest),), large), subject, signer(keys))
    peer.attach(subject.digest, [made])
    manifest = peer.get(made.manifest.digest)
    public = load_verifying_key(keys / "ours.pub")
    assert verify_bundle(manifest, peer.bundle(manifest), subject.digest, public).predicate == large
    words = ("verify-attestation", "--key", keys / "ours.pub", IGNORE, "--type", "spdxjson")
    reference = f"{peer.identity}@{subject.digest}"
    accepted("cosign3", *words, reference)
    accepted("cosign", *words, "--new-bundle-format", "--trusted-root", keys / "no-roots.json", reference)
