"""A layer before it is made, and its packed blob."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest
from pipeline.layers.segments import Segment
from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import Progress, Task
from pipeline.store import Store, UnnamedCopies
from pipeline.trees import ComposedLayer, Part

if TYPE_CHECKING:
    from pipeline.layers.unpacking_children import UnpackingChildren


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer before it is made.

    `name` is its identity, `directories` are the tar headers of its directories, `segments` its packages' parts with
    the identities of their segments.
    """

    name: Digest
    composed: ComposedLayer
    directories: bytes
    segments: tuple[tuple[Part, Digest], ...]

    @property
    def content_size(self) -> int:
        """Bytes of all files' content."""
        return sum(part_size(part) for part, _ in self.segments)


@dataclass(frozen=True, slots=True)
class ReadBlob:
    """A blob that was read to its end; `checksum` is the CRC-32 of its `size` bytes."""

    digest: Digest
    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer's blob.

    `diff_id` is that of the tree that was written, or of the bytes that were compressed.
    """

    digest: Digest
    size: int
    tar_size: int
    diff_id: DiffId
    segments: tuple[Segment, ...]
    orders: tuple[tuple[int, ...], ...] = ()
    """Of a whole tree: the places in its part of each segment's entries, in the order of the segment."""
    earlier: DiffId | None = None
    """The earlier layer whose tree has the files that are shared."""


def part_size(part: Part) -> int:
    """Bytes of content of a package's files."""
    return sum(entry.size for _, entry in part.entries)


@dataclass(frozen=True, slots=True)
class MissingLayers:
    """Layers that have to be packed, each with its task, which the packing ends in any case.

    `confirmed` is called for each once it was read back, by a thread. `copies`, if given, gets copies of their blobs.
    `children`, if any, unpack some of their packages.
    """

    plans: Sequence[tuple[PlannedLayer, Task]]
    store: Store
    compression: Compression
    progress: Progress
    confirmed: Callable[[PlannedLayer, PackedLayer], None]
    copies: UnnamedCopies | None = None
    children: UnpackingChildren | None = None
