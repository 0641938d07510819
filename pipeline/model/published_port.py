"""Data class for a port of a container that is published on the host's loopback."""

from __future__ import annotations

from pipeline.lazy_dataclasses import dataclass

PORT_MOST = 65535
"""The highest number of a port."""
PROTOCOLS = frozenset({"tcp", "udp", "sctp"})
"""Protocols of a port that an image exposes (image-spec, config.md)."""


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the container, published on the host's loopback.

    `host` is that of the first instance, the next one has the next; 0: any free one.
    """

    host: int
    container: int
