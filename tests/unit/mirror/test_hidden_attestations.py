"""Attestations are found whatever somebody who can write to the mirror, and cannot sign, lists beside them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import canonical_json
from pipeline.errors import RelbuildError
from pipeline.mirror import attestations
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.attestations import (
    BUNDLES_EXAMINED,
    IMAGE_PREDICATES,
    MANIFESTS_EXAMINED,
    find_attested,
    list_bundles,
)
from pipeline.mirror.protocol import Repository
from pipeline.mirror.references import referrer_of, referrers_index
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Artifact, Manifest, Referrer
from pipeline.oci import (
    PREDICATE_TYPE_ANNOTATION,
    Statement,
    StatementSubject,
    bundle_layer,
    make_attestation,
    make_listed_attestation,
    make_referrer,
    media_types,
    proves_itself,
    read_artifact,
)
from pipeline.oci.artifacts import referrer_manifest
from pipeline.oci.listed_attestation import CONTENT, SIGNATURE
from pipeline.oci.predicates import SIGN
from pipeline.release import verify_reference
from tests.support.moved_tags import opened, point
from tests.support.published_images import ImagePublisher, key

OWN, STRANGER = key(0), key(1)


@pytest.fixture
def maker(tmp_path: Path) -> ImagePublisher:
    return ImagePublisher.at(tmp_path)


@pytest.fixture
def repository(tmp_path: Path, maker: ImagePublisher) -> Repository:
    return opened(tmp_path / "mirror", maker)


def publish(repository: Repository, maker: ImagePublisher) -> Image:
    image = maker.image("1.1")
    maker.publish(repository, image, signer=OWN)
    return image


def publish_as_before(repository: Repository, maker: ImagePublisher, patch: pytest.MonkeyPatch) -> Image:
    """As earlier versions did: the entries prove nothing."""
    with patch.context() as earlier:
        earlier.setattr(attestations, "make_listed_attestation", make_attestation)
        return publish(repository, maker)


def attach(repository: Repository, artifacts: Iterable[Artifact]) -> None:
    artifacts = tuple(artifacts)
    for descriptor, content in {pair for one in artifacts for pair in one.blobs}:
        repository.put_blob(descriptor, content)
    repository.attach_all([one.manifest for one in artifacts])


def junk(image: Image, number: int, predicate_type: str = SIGN, data: bytes = b"{}") -> Artifact:
    notes = {PREDICATE_TYPE_ANNOTATION: predicate_type, "n": str(number)}
    bundle = (media_types.SIGSTORE_BUNDLE, data)
    return make_referrer(media_types.SIGSTORE_BUNDLE, [bundle], image.manifest_descriptor, notes)


def own_entry(repository: Repository, image: Image) -> Referrer:
    found, _ = find_attested(repository, image.digest, SIGN, OWN.public)
    return found[0].referrer


def list_after(repository: Repository, image: Image, count: int) -> list[Artifact]:
    """List malformed bundles after the own signature; return them."""
    own = own_entry(repository, image).descriptor.digest
    planted: list[Artifact] = []
    number = 0
    while len(planted) < count:
        number += 1
        one = junk(image, number)
        planted += [one] if one.manifest.digest > own else []
    attach(repository, planted)
    return planted


def verdict(repository: Repository, maker: ImagePublisher) -> str:
    try:
        verify_reference(parse_address(f"{repository.url}:latest"), OWN.public, maker.build_env)
    except RelbuildError as error:
        return error.code
    return ""


def test_malformed_bundles_hide_nothing(repository: Repository, maker: ImagePublisher) -> None:
    image = publish(repository, maker)
    list_after(repository, image, BUNDLES_EXAMINED + 1)
    assert verdict(repository, maker) == ""
    assert maker.publish(repository, image, signer=OWN).attached == ()


def test_nothing_that_is_listed_hides_an_attestation_of_this_version(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not what names the own key: no more of that is read than the bounds say."""
    monkeypatch.setattr(attestations, "BUNDLES_EXAMINED", 2)
    image = publish(repository, maker)
    own = own_entry(repository, image)
    hint = base64.b64encode(bytes.fromhex(OWN.public.fingerprint.hex)).decode()
    envelope = {
        "payload": base64.b64encode(b"{}").decode(),
        "payloadType": media_types.IN_TOTO,
        "signatures": [{"sig": base64.b64encode(b"none").decode()}],
    }
    planted = []
    for number in range(40):
        material = {"publicKey": {"hint": hint}, "n": number}
        bundle = {"mediaType": media_types.SIGSTORE_BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
        planted += [junk(image, number, data=canonical_json(bundle))]
    attach(repository, planted)
    assert sum(one.manifest.digest > own.descriptor.digest for one in planted) > 2
    found, bad = find_attested(repository, image.digest, SIGN, OWN.public)
    assert [one.referrer for one in found] == [own]
    assert [one.code for one in bad] == ["attestations-hidden", *["signature-altered"] * 2]


def test_attestations_of_earlier_versions_are_found_among_malformed_ones(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = publish_as_before(repository, maker, monkeypatch)
    assert not proves_itself(own_entry(repository, image), image.digest, OWN.public)
    list_after(repository, image, BUNDLES_EXAMINED + 1)
    assert verdict(repository, maker) == ""
    before = list_bundles(repository, image.digest)
    assert maker.publish(repository, image, signer=OWN).attached == ()
    assert list_bundles(repository, image.digest) == before, "what is found is not signed again"


def test_those_by_another_key_do_not_count(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = publish_as_before(repository, maker, monkeypatch)
    monkeypatch.setattr(attestations, "BUNDLES_EXAMINED", 2)
    about, own = image.manifest_descriptor, own_entry(repository, image).descriptor.digest
    foreign = Statement(SIGN, (StatementSubject(image.digest, "small"),), b'{"by":"a stranger"}')
    planted = [make_attestation(foreign, about, STRANGER, number) for number in range(24)]
    attach(repository, planted)
    assert sum(one.manifest.digest > own for one in planted) > 2
    found, _ = find_attested(repository, image.digest, SIGN, OWN.public)
    assert [one.referrer.descriptor.digest for one in found] == [own]


def test_what_hides_an_earlier_attestation_is_told_and_publishing_heals_it(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = publish_as_before(repository, maker, monkeypatch)
    monkeypatch.setattr(attestations, "MANIFESTS_EXAMINED", 20)
    list_after(repository, image, 20)
    assert verdict(repository, maker) == "attestations-hidden"
    again = maker.publish(repository, image, signer=OWN)
    assert len(again.attached) == 1
    assert verdict(repository, maker) == ""
    assert proves_itself(own_entry(repository, image), image.digest, OWN.public)
    assert maker.publish(repository, image, signer=OWN).attached == ()


@pytest.mark.parametrize("said", ["https://example.com/other", ""])
def test_an_entry_that_was_altered_is_put_right_by_a_publication(
    said: str, repository: Repository, maker: ImagePublisher, tmp_path: Path
) -> None:
    image = publish(repository, maker)
    own = own_entry(repository, image)
    notes = dict(own.descriptor.annotations) | {PREDICATE_TYPE_ANNOTATION: said}
    wrong = replace(own, descriptor=replace(own.descriptor, annotations=tuple(sorted(notes.items()))))
    right = repository.referrers(image.digest)
    index = referrers_index([wrong if one == own else one for one in right])
    folder = tmp_path / "mirror" / "repositories" / "small" / "_manifests"
    (folder / f"{index.digest.hex}.oci-index").write_bytes(index.data)
    (tmp_path / "mirror" / "repositories" / "small" / "_tags" / f"sha256-{image.digest.hex}").unlink()
    point(tmp_path / "mirror", f"sha256-{image.digest.hex}", index.digest)
    assert wrong in repository.referrers(image.digest)
    assert verdict(repository, maker) == ("attestation-missing" if said else ""), "the bundle itself is read"
    maker.publish(repository, image, signer=OWN)
    assert verdict(repository, maker) == ""
    if said:
        assert repository.referrers(image.digest) == right


ABOUT = Descriptor(media_types.MANIFEST, Manifest(media_types.MANIFEST, b"an image").digest, 8)
MADE = make_listed_attestation(Statement(SIGN, (StatementSubject(ABOUT.digest, "small"),)), ABOUT, OWN, 1_700_000_000)


def test_an_entry_proves_who_made_it_and_has_all_that_cosign_reads() -> None:
    entry = referrer_of(MADE.manifest)
    assert proves_itself(entry, ABOUT.digest, OWN.public)
    assert proves_itself(entry, ABOUT.digest, replace(STRANGER.public, former=(OWN.public,)))
    assert not proves_itself(entry, ABOUT.digest, STRANGER.public)
    assert not proves_itself(entry, MADE.manifest.digest, OWN.public)
    plain = make_attestation(Statement(SIGN, (StatementSubject(ABOUT.digest, "small"),)), ABOUT, OWN, 1_700_000_000)
    mine, cosigns = read_artifact(MADE.manifest), read_artifact(plain.manifest)
    assert MADE.blobs == plain.blobs
    kept = tuple(one for one in mine.annotations if one[0] not in {CONTENT, SIGNATURE})
    assert replace(mine, annotations=kept) == cosigns


@pytest.mark.parametrize(
    "changes",
    [
        {"n": "1"},
        {media_types.CREATED: "2020-01-01T00:00:00Z"},
        {PREDICATE_TYPE_ANNOTATION: "https://example.com/other"},
        {CONTENT: "{}"},
        {CONTENT: ""},
        {CONTENT: "["},
        {SIGNATURE: ""},
        {SIGNATURE: "?"},
        {SIGNATURE: "AAAA"},
        {SIGNATURE: dict(referrer_of(MADE.manifest).descriptor.annotations)[SIGNATURE] + "\n"},
    ],
    ids=str,
)
def test_no_other_entry_proves_anything(changes: dict[str, str]) -> None:
    """Neither the entry with other annotations, nor that of a manifest which has these."""
    entry = referrer_of(MADE.manifest)
    notes = dict(entry.descriptor.annotations) | changes
    other = replace(entry, descriptor=replace(entry.descriptor, annotations=tuple(sorted(notes.items()))))
    assert not proves_itself(other, ABOUT.digest, OWN.public)
    remade = referrer_manifest(media_types.SIGSTORE_BUNDLE, [bundle_layer(MADE.manifest)], ABOUT, notes)
    assert not proves_itself(referrer_of(remade), ABOUT.digest, OWN.public)


def test_every_attestation_of_an_image_proves_itself(repository: Repository, maker: ImagePublisher) -> None:
    image = publish(repository, maker)
    bundles = list_bundles(repository, image.digest)
    assert {one.annotation(PREDICATE_TYPE_ANNOTATION) for one in bundles} == set(IMAGE_PREDICATES)
    assert all(proves_itself(one, image.digest, OWN.public) for one in bundles)
    assert MANIFESTS_EXAMINED > BUNDLES_EXAMINED
