"""Constants: OCI media types and annotation keys, RPM's architectures in OCI's terms.

image-spec 1.1, media-types.md, annotations.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.compression import Compression, layer_codec

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"

LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYERS: Mapping[Compression, str] = MappingProxyType(
    {compression: f"{LAYER_TAR}{layer_codec(compression).media_suffix}" for compression in Compression}
)
"""Compression → media type of a layer."""

ARCHITECTURES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "x86_64": ("amd64", ""),
        "aarch64": ("arm64", ""),
        "i686": ("386", ""),
        "ppc64le": ("ppc64le", ""),
        "s390x": ("s390x", ""),
        "riscv64": ("riscv64", ""),
        "armv7hl": ("arm", "v7"),
    }
)
"""RPM's architecture → OCI's (Go's) architecture and variant (config.md)."""

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
"""Media type of the signed payload in cosign's simple signing."""
SIGSTORE_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"

REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"
CREATED = "org.opencontainers.image.created"
END_OF_LIFE = "org.relbuild.end-of-life"
"""On a manifest or index: the day until which the product is maintained. image-spec (annotations.md) has no name for
it, and reserves `org.opencontainers`."""

LAYER_NAME = "org.relbuild.layer.name"
"""On a layer's descriptor: its name in the recipe."""
LAYER_TAR_SIZE = "org.relbuild.layer.tar-size"
"""On a layer's descriptor: size of its uncompressed tar in bytes."""
