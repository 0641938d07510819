"""Data classes for byte-exact manifests and indexes, referrers, and artifacts to push."""

from __future__ import annotations

from pathlib import Path

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index, byte for byte.

    Its digest, and so every signature, is of exactly these bytes.
    """

    media_type: str
    data: bytes

    @property
    def digest(self) -> Digest:
        """The digest of its bytes: its name."""
        return Digest.of(self.data)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor by which an index or a `subject` refers to it."""
        return Descriptor(self.media_type, self.digest, len(self.data))


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that has another one as its `subject` (image-spec 1.1, manifest.md).

    `artifact_type` says what it is. `descriptor` has the manifest's own annotations, as the referrers API and the
    fallback tag list them (distribution-spec 1.1).
    """

    descriptor: Descriptor
    artifact_type: str

    def annotation(self, name: str) -> str:
        """Return an annotation's value, or an empty text."""
        return dict(self.descriptor.annotations).get(name, "")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest with the blobs that it needs, not yet on any mirror.

    `blobs`: descriptor → bytes, or the file that has them.
    """

    manifest: Manifest
    blobs: tuple[tuple[Descriptor, bytes | Path], ...] = ()
