"""What a new key signs anew of an image is what was verified of it, and nothing that a thief of the former key, or the
mirror, put beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.attestations import IMAGE_PREDICATES, NameSignature, find_attested, list_bundles
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.image_copy import _ImageCopier
from pipeline.mirror.protocol import Repository
from pipeline.mirror.push import push_attachments
from pipeline.mirror.signed_identity import find_signed_names
from pipeline.mirror.tag_statements import anchor_manifest
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Artifact, Manifest, Referrer
from pipeline.oci import (
    Statement,
    StatementSubject,
    VerifyingKey,
    bundle_layer,
    make_attestation,
    media_types,
    signature_tag,
)
from pipeline.oci.predicates import MOVE, SPDX
from pipeline.oci.sources_artifact import SOURCES_TYPE, SourceFile, make_sources_artifact
from pipeline.progress import QUIET
from pipeline.release import copy, promote, verify_reference
from pipeline.release import move as moving
from tests.support.moved_tags import opened
from tests.support.published_images import RULES, ImagePublisher, key

OLD, NEW, STRANGER = key(0), key(1), key(2)


@pytest.fixture
def repository(tmp_path: Path, maker: ImagePublisher) -> Repository:
    """1.1, by the old key."""
    found = opened(tmp_path / "mirror", maker)
    maker.publish(found, maker.image("1.1"), signer=OLD)
    return found


def rotate(repository: Repository, maker: ImagePublisher) -> None:
    address = parse_address(f"{repository.url}:latest")
    promote(address, "latest", NEW, RULES, maker.build_env, former=(OLD.public,))


def attach(repository: Repository, artifact: Artifact) -> Manifest:
    for descriptor, content in artifact.blobs:
        repository.put_blob(descriptor, content)
    repository.attach_all((artifact.manifest,))
    return artifact.manifest


def attach_sources(repository: Repository, image: Image, path: Path) -> Manifest:
    """Attach source packages to an image, signed by the old key."""
    path.write_bytes(b"source")
    file = SourceFile("small-1.1.src.rpm", Digest.of(b"source"), len(b"source"), path)
    manifest = attach(repository, make_sources_artifact([file], image.manifest_descriptor, image.config.created))
    push_attachments([NameSignature(manifest.digest, OLD)], repository, progress=QUIET)
    return manifest


def names_signed(repository: Repository, digest: Digest, public: VerifyingKey) -> tuple[str, ...]:
    manifest = repository.manifest(digest)
    assert manifest is not None
    return find_signed_names(repository, manifest, public, None)[0]


def statements_signed(repository: Repository, about: Digest, kind: str, public: VerifyingKey) -> list[bytes]:
    """The signed bytes of the attestations of a manifest."""
    found = []
    for one in find_attested(repository, about, kind, public, listed=list_bundles(repository, about))[0]:
        manifest = repository.manifest(one.referrer.descriptor.digest)
        assert manifest is not None
        bundle = json.loads(repository.read_blob(bundle_layer(manifest)))
        found.append(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return found


def list_also(patch: pytest.MonkeyPatch, repository: Repository, about: Digest, fake: Descriptor) -> None:
    """Let the mirror list a manifest as source packages of another one."""
    real: Callable[[Any, Digest], tuple[Referrer, ...]] = type(repository).referrers

    def referrers(self: Repository, subject: Digest) -> tuple[Referrer, ...]:
        found = real(self, subject)
        if subject != about or self.url != repository.url:
            return found
        return (*found, replace(found[0], artifact_type=SOURCES_TYPE, descriptor=fake))

    patch.setattr(type(repository), "referrers", referrers)


def test_an_image_is_signed_anew_byte_for_byte_with_its_sources(
    repository: Repository, maker: ImagePublisher, tmp_path: Path
) -> None:
    image = maker.image("1.1")
    sources = attach_sources(repository, image, tmp_path / "source").digest
    assert names_signed(repository, sources, NEW.public) == ()
    rotate(repository, maker)
    for kind in IMAGE_PREDICATES:
        (before,) = statements_signed(repository, image.digest, kind, OLD.public)
        assert statements_signed(repository, image.digest, kind, NEW.public) == [before]
    assert names_signed(repository, sources, NEW.public) == (repository.identity,)
    verify_reference(parse_address(f"{repository.url}:latest"), NEW.public, maker.build_env)
    listed = repository.referrers(image.digest)
    rotate(repository, maker)
    assert repository.referrers(image.digest) == listed


@pytest.mark.parametrize("kind", [MOVE, SPDX])
def test_a_statement_that_is_also_about_something_else_is_not_signed_anew(
    kind: str, repository: Repository, maker: ImagePublisher
) -> None:
    """Referred to from there, it would be the new key's: for example on a tag's anchor, a move of that tag."""
    image, anchor = maker.image("1.1"), anchor_manifest(repository.identity, "latest")
    both = tuple(StatementSubject(digest, "x") for digest in (image.digest, anchor.digest))
    said = Statement(kind, both, canonical_json({"repository": repository.identity}))
    attach(repository, make_attestation(said, image.manifest_descriptor, OLD, 0))
    before = len(statements_signed(repository, image.digest, kind, OLD.public))
    rotate(repository, maker)
    assert before == (1 if kind == MOVE else 2)
    assert len(statements_signed(repository, image.digest, kind, NEW.public)) == before - 1


def test_a_move_that_is_attached_to_an_image_is_not_signed_anew(repository: Repository, maker: ImagePublisher) -> None:
    image = maker.image("1.1")
    said = Statement(MOVE, (StatementSubject(image.digest, "x"),), b"{}")
    attach(repository, make_attestation(said, image.manifest_descriptor, OLD, 0))
    rotate(repository, maker)
    assert statements_signed(repository, image.digest, MOVE, NEW.public) == []


def test_an_image_that_the_mirror_lists_as_sources_is_not_signed_anew(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = maker.image("6.6.6")
    maker.publish(repository, other, tags=("x",), signer=OLD)
    list_also(monkeypatch, repository, maker.image("1.1").digest, other.manifest_descriptor)
    rotate(repository, maker)
    assert names_signed(repository, other.digest, NEW.public) == ()
    assert names_signed(repository, maker.image("1.1").digest, NEW.public)


@pytest.mark.parametrize("changed", ["config", "layers", "subject"])
def test_sources_that_could_be_an_image_or_are_of_another_one_are_not_signed_anew(
    changed: str, repository: Repository, maker: ImagePublisher, tmp_path: Path
) -> None:
    """A thief gives an image the type of source packages, and signs it with the former key."""
    image = maker.image("1.1")
    genuine = attach_sources(repository, image, tmp_path / "source")
    document, runnable = json.loads(genuine.data), json.loads(image.manifest_bytes)
    document[changed] = runnable.get(changed, {**document["subject"], "digest": str(Digest.of(b"other"))})
    forged = Manifest(media_types.MANIFEST, canonical_json(document))
    repository.put_manifest(forged)
    push_attachments([NameSignature(forged.digest, OLD)], repository, progress=QUIET)
    with pytest.MonkeyPatch.context() as patch:
        list_also(patch, repository, image.digest, forged.descriptor)
        rotate(repository, maker)
    assert names_signed(repository, forged.digest, OLD.public)
    assert names_signed(repository, forged.digest, NEW.public) == ()
    assert names_signed(repository, genuine.digest, NEW.public)


def test_what_the_mirror_lists_after_the_verification_is_not_signed(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Source packages of the image, to which a thief of the former key or a stranger attached them meanwhile."""
    image = maker.image("1.1")
    late = attach_sources(repository, image, tmp_path / "source")
    repository.remove_referrer(late.digest)
    real = moving.sign_again

    def sign_again(*given: Any) -> None:
        repository.attach_all((late,))
        said = Statement(SPDX, (StatementSubject(image.digest, "x"),), b'{"late":true}')
        attach(repository, make_attestation(said, image.manifest_descriptor, OLD, 0))
        real(*given)

    monkeypatch.setattr(moving, "sign_again", sign_again)
    rotate(repository, maker)
    assert names_signed(repository, late.digest, OLD.public)
    assert names_signed(repository, late.digest, NEW.public) == ()
    assert len(statements_signed(repository, image.digest, SPDX, OLD.public)) == 2
    assert len(statements_signed(repository, image.digest, SPDX, NEW.public)) == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_copy_signs_no_image_that_the_mirror_lists_as_sources(
    late: bool, repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Listed from the beginning, or once the image was verified and copied."""
    image, other = maker.image("1.1"), maker.image("6.6.6")
    maker.publish(repository, other, tags=("x",), signer=STRANGER if late else OLD)
    own = attach_sources(repository, image, tmp_path / "source")
    with monkeypatch.context() as patch:
        real = _ImageCopier.referrers

        def referrers(self: _ImageCopier, subject: Digest, depth: int) -> None:
            real(self, subject, depth)
            list_also(patch, repository, image.digest, other.manifest_descriptor)

        if late:
            patch.setattr(_ImageCopier, "referrers", referrers)
        else:
            list_also(patch, repository, image.digest, other.manifest_descriptor)
        target = parse_address(f"dir:{tmp_path / 'there'}/small")
        copy(parse_address(f"{repository.url}:latest"), target, OLD, RULES, maker.build_env)
    there = open_directory(tmp_path / "there", create=False, clock=maker.clock).repository("small")
    assert there.identity != repository.identity
    assert set(names_signed(there, own.digest, OLD.public)) == {there.identity, repository.identity}
    assert not there.has_manifest(other.digest) and there.manifest(signature_tag(other.digest)) is None
