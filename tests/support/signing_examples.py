"""Values for the tests of signatures: a provenance, and a key whose signatures are always the same."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.digest import Digest
from pipeline.model.image import Descriptor
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.oci import SigningKey, load_signing_key, media_types

PRIVATE = ec.derive_private_key(0x7E57, ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
"""A key on P-256 that everybody knows."""


def signing_key() -> SigningKey:
    return load_signing_key(PRIVATE)


KEY = signing_key()
OTHER = load_signing_key(
    ec.derive_private_key(0x07, ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
)
IMAGE = Descriptor(media_types.MANIFEST, Digest.of(b"an image"), 8)
FOREIGN = Descriptor(media_types.MANIFEST, Digest.of(b"another image"), 13)


def material(name: str, kind: MaterialKind, uri: str = "") -> Material:
    return Material(name, uri, Digest.of(name.encode()), kind)


PROVENANCE_VALUE = Provenance(
    recipe=material("tiny.yaml", MaterialKind.RECIPE),
    materials=(
        material("templates/tiny.conf.j2", MaterialKind.TEMPLATE),
        material("bash-5.2.26-4.el10.x86_64", MaterialKind.PACKAGE, "pkg:rpm/almalinux/bash@5.2.26-4.el10?arch=x86_64"),
        material("baseos", MaterialKind.REPOMD, "https://mirror.example/baseos/repodata/repomd.xml"),
        material("relbuild 0.1.0", MaterialKind.BUILDER, "pkg:pypi/relbuild@0.1.0"),
    ),
    platform="el10",
    architecture="x86_64",
    builder_version="0.1.0",
    options=(("compression", "zstd"),),
    versions=(("rpm", "4.20.1"), ("solv", "0.7.39")),
    invocation="sha256:" + "0" * 64,
)
