"""Payloads of signatures and attestations that a registry has lost are put again by the next publication."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.attestations import IMAGE_PREDICATES, NameSignature, find_attested
from pipeline.mirror.protocol import Repository
from pipeline.mirror.push import push_attachments
from pipeline.mirror.signed_identity import signed_names
from pipeline.model.image import Image
from pipeline.oci import bundle_layer, read_artifact, signature_tag
from pipeline.oci.predicates import SPDX
from pipeline.progress import QUIET
from tests.support.published_images import ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import fake_registry

OWN = key()


@pytest.fixture
def maker(tmp_path: Path) -> ImagePublisher:
    return ImagePublisher.at(tmp_path)


def attested_payload(repository: Repository, image: Image) -> Digest:
    found, _ = find_attested(repository, image.digest, SPDX, OWN.public)
    manifest = repository.manifest(found[0].referrer.descriptor.digest)
    assert manifest is not None
    return bundle_layer(manifest).digest


def signed_payload(repository: Repository, image: Image) -> Digest:
    manifest = repository.manifest(signature_tag(image.digest))
    assert manifest is not None
    return read_artifact(manifest).layers[0].digest


def code(repository: Repository, image: Image) -> str:
    """Return the code with which the signature, or an attestation, is refused."""
    manifest = repository.manifest(image.digest)
    assert manifest is not None
    try:
        signed_names(repository, manifest, OWN.public, None)
    except RelbuildError as error:
        return error.code
    bad = [find_attested(repository, image.digest, kind, OWN.public)[1] for kind in IMAGE_PREDICATES]
    return next((errors[0].code for errors in bad if errors), "")


LOST = pytest.mark.parametrize(
    ("payload", "refused"),
    [(signed_payload, "signature-payload-missing"), (attested_payload, "blob-missing")],
    ids=["signature", "attestation"],
)


@LOST
@pytest.mark.parametrize("referrers", [True, False], ids=["referrers API", "fallback tag"])
@pytest.mark.parametrize("read_back", [False, True], ids=["asked", "read back"])
def test_a_lost_payload_is_told_and_put_again(
    maker: ImagePublisher,
    payload: Callable[[Repository, Image], Digest],
    refused: str,
    referrers: bool,
    read_back: bool,
) -> None:
    with fake_registry(referrers=referrers) as registry:
        image = maker.image("1.0")
        with open_mirror(registry) as there:
            repository = there.repository("small")
            maker.publish(repository, image)
            lost = payload(repository, image)
            whole = registry.held("ns/small").blobs.pop(str(lost))
            assert code(repository, image) == refused
        with open_mirror(registry, read_back=read_back) as there:
            again = maker.publish(there.repository("small"), image, read_back=read_back)
            assert lost in {digest for digest, _ in again.uploaded}
            assert registry.held("ns/small").blobs[str(lost)] == whole
            assert code(there.repository("small"), image) == ""
        with open_mirror(registry, read_back=read_back) as there:
            assert maker.publish(there.repository("small"), image, read_back=read_back).uploaded == ()


@LOST
def test_a_rotten_payload_is_found_where_it_is_read_back(
    maker: ImagePublisher, payload: Callable[[Repository, Image], Digest], refused: str
) -> None:
    """It is no missing one, and replaced by a registry that takes it again."""
    with fake_registry() as registry:
        image = maker.image("1.0")
        with open_mirror(registry) as there:
            repository = there.repository("small")
            maker.publish(repository, image)
            rotten = payload(repository, image)
            blobs = registry.held("ns/small").blobs
            whole = blobs[str(rotten)]
            blobs[str(rotten)] = bytes(len(whole))
            assert code(repository, image) not in ("", refused)
            assert maker.publish(repository, image).uploaded == (), "only bytes that are read show it"
        with open_mirror(registry, read_back=True) as there:
            maker.publish(there.repository("small"), image, read_back=True)
            assert blobs[str(rotten)] == whole
            assert code(there.repository("small"), image) == ""


def test_a_copy_puts_the_payload_of_its_signature_again(maker: ImagePublisher) -> None:
    with fake_registry() as registry:
        image = maker.image("1.0")
        with open_mirror(registry) as there:
            maker.publish(there.repository("small"), image)
            lost = signed_payload(there.repository("small"), image)
            del registry.held("ns/small").blobs[str(lost)]
        with open_mirror(registry) as there:
            copied = [NameSignature(image.digest, OWN)]
            sent, _ = push_attachments(copied, there.repository("small"), progress=QUIET)
            assert lost in {digest for digest, _ in sent}
            assert code(there.repository("small"), image) == ""
            assert push_attachments(copied, there.repository("small"), progress=QUIET) == ((), ())
