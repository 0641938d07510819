"""Data classes for an OCI image: descriptor, layer, config, manifest (image-spec 1.1)."""

from __future__ import annotations

from pipeline.digest import DiffId, Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image_keys import ImageSettings

_PORT_DIGITS = 5
"""Digits of the largest port, 65535."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size of a blob, with annotations (descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its tar (`diff_id`), its compressed blob (`blob`), and its name.

    `tar_size` is bytes of tar. `contents` is for people: the NEVRAs in it, sorted.
    """

    name: str
    diff_id: DiffId
    blob: Descriptor
    tar_size: int
    contents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageConfig(ImageSettings):
    """Settings of an image and its platform (config.md). `created` is seconds since the epoch."""

    architecture: str
    created: int
    os: str = "linux"
    variant: str = ""

    @property
    def platform(self) -> str:
        """The platform as clients write it, such as `linux/arm/v7`; arm64 means `arm64/v8`."""
        variant = "" if (self.architecture, self.variant) == ("arm64", "v8") else self.variant
        return "/".join(filter(None, (self.os, self.architecture, variant)))

    @property
    def tcp_ports(self) -> tuple[int, ...]:
        """The exposed TCP ports. What is no number, as another tool may have written, is none."""
        found = (port.partition("/") for port in self.exposed_ports)
        return tuple(
            int(number)
            for number, _, protocol in found
            if number.isascii() and number.isdecimal() and len(number) <= _PORT_DIGITS and protocol in ("", "tcp")
        )


@dataclass(frozen=True, slots=True)
class Image:
    """A whole image.

    `manifest` and `config_bytes` are the exact bytes; everything else is derived from the same values and never stored
    twice.
    """

    name: str
    reference: str
    config: ImageConfig
    layers: tuple[Layer, ...]
    config_descriptor: Descriptor
    config_bytes: bytes
    manifest_descriptor: Descriptor
    manifest_bytes: bytes

    @property
    def digest(self) -> Digest:
        """The manifest's digest: the image's name."""
        return self.manifest_descriptor.digest
