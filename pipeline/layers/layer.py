"""Build a package layer by concatenating its packages' compressed segments.

A layer is all of its directories, then the segments of its packages in order of NEVRA, then the end marker. Its
identity is made of the segments' identities, so an unchanged layer costs a lookup in the store.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

from pipeline.compression import Compression, layer_codec, layer_versions
from pipeline.digest import CHUNK, DiffId, Digest, identity
from pipeline.errors import VerificationError
from pipeline.layers.chunk_writer import COMPRESSION_WORKERS, ChunkWriter
from pipeline.layers.segments import Segment, make_segment, recall_segment, segment_identity
from pipeline.layers.tar_format import TAR_END, tar_header
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor, Layer
from pipeline.model.json_form import from_json, to_json
from pipeline.oci.media_types import LAYERS
from pipeline.progress import QUIET, Progress, Task, task
from pipeline.store import BlobWriter, Store
from pipeline.streams import IteratorFile, decompressed, prefetch
from pipeline.trees import ComposedLayer, Part

FORMAT = 1
"""To be raised when the same inputs give other bytes."""


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A built layer; `reused`: it was in the store."""

    layer: Layer
    reused: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """The digests and sizes of a layer that a store remembers."""

    diff_id: DiffId
    digest: Digest
    size: int
    tar_size: int


def build_layer(
    composed: ComposedLayer, *, store: Store, compression: Compression, progress: Progress = QUIET
) -> BuiltLayer:
    """Build the layer, or recall it. Its packages must be in `store` and verified.

    Raises VerificationError `package-damaged`, `blob-missing`, `blob-damaged`.
    """
    directories = b"".join(tar_header(entry) for entry in composed.directories)
    segments = [(part, segment_identity(part, compression)) for part in composed.parts]
    name = identity(
        "layer",
        FORMAT,
        directories=Digest.of(directories),
        segments=[str(segment) for _, segment in segments],
        codec=compression.value,
        versions=layer_versions(),
    )
    with (
        store.locked(f"layer-{name.hex}"),
        task(progress, "layer", composed.name, total=_content(composed.parts), unit="bytes") as running,
    ):
        if known := _recall(name, composed, store, compression):
            running.advance(_content(composed.parts))
            running.note("reused")
            return BuiltLayer(known, reused=True)
        with ThreadPoolExecutor(COMPRESSION_WORKERS, "relbuild-compress") as pool:
            made = _segments(segments, store, compression, pool, running)
            with store.writer() as blob:
                start = _start(directories, store, compression, pool)
                diff_id, tar_size = _assemble([start, *made, _end(store, compression)], blob, store)
        layer = Layer(
            name=composed.name,
            diff_id=diff_id,
            blob=Descriptor(LAYERS[compression], blob.digest, blob.size),
            tar_size=tar_size,
            contents=composed.contents,
        )
        store.remember(name, to_json(_Known(diff_id, blob.digest, blob.size, tar_size)))
        running.note(f"{len(composed.contents)} packages, {blob.size / 1e6:.1f} MB")
    return BuiltLayer(layer, reused=False)


def _content(parts: Sequence[Part]) -> int:
    return sum(entry.size for part in parts for _, entry in part.entries)


def _recall(name: Digest, composed: ComposedLayer, store: Store, compression: Compression) -> Layer | None:
    known = store.recall_as(name, lambda value: from_json(_Known, value))
    if known is None or not store.sound(known.digest):
        return None
    return Layer(
        name=composed.name,
        diff_id=known.diff_id,
        blob=Descriptor(LAYERS[compression], known.digest, known.size),
        tar_size=known.tar_size,
        contents=composed.contents,
    )


def _segments(
    segments: Sequence[tuple[Part, Digest]],
    store: Store,
    compression: Compression,
    pool: ThreadPoolExecutor,
    running: Task,
) -> list[Segment]:
    """Return all segments in order; missing ones are made in parallel."""

    def one(item: tuple[Part, Digest]) -> Segment:
        part, name = item
        segment = recall_segment(name, store) or make_segment(
            part, name=name, store=store, compression=compression, pool=pool
        )
        running.advance(_content([part]))
        return segment

    with ThreadPoolExecutor(COMPRESSION_WORKERS, "relbuild-segment") as workers:
        futures = [workers.submit(one, item) for item in segments]
        try:
            return [future.result() for future in futures]
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def _start(directories: bytes, store: Store, compression: Compression, pool: ThreadPoolExecutor) -> Segment:
    with store.writer() as blob:
        writer = ChunkWriter(blob, compression, pool, hashed=False)
        writer.write(directories)
        writer.finish()
    return Segment(blob.digest, blob.size, writer.size)


def _end(store: Store, compression: Compression) -> Segment:
    piece = layer_codec(compression).compress(TAR_END)
    return Segment(store.put(piece), len(piece), len(TAR_END))


def _assemble(segments: Sequence[Segment], blob: BlobWriter, store: Store) -> tuple[DiffId, int]:
    """Copy segments into `blob`, and return the digest and size of their tar bytes.

    The tar bytes are those that the segments decompress to.
    """
    source = cast("BinaryIO", io.BufferedReader(IteratorFile(_chunks(segments, blob, store)), CHUNK))
    found, size = hashlib.sha256(), 0
    expected = sum(segment.tar_size for segment in segments)
    try:
        for piece in prefetch(decompressed(source, limit=expected, name="layer", workers=COMPRESSION_WORKERS)):
            found.update(piece)
            size += len(piece)
    except VerificationError:
        for segment in segments:
            store.verify(segment.digest)  # Removes the damaged one and raises.
        raise
    if size != expected:
        raise VerificationError("layer-malformed", f"layer segments have {size} bytes of tar, not {expected}")
    return DiffId(found.hexdigest()), size


def _chunks(segments: Sequence[Segment], blob: BlobWriter, store: Store) -> Iterator[bytes]:
    for segment in segments:
        found = hashlib.sha256()
        with store.reading(segment.digest) as file:
            while data := file.read(CHUNK):
                found.update(data)
                blob.write(data)
                yield data
        if found.hexdigest() != segment.digest.hex:
            store.verify(segment.digest)  # Moves it aside and raises.
            raise VerificationError("blob-damaged", f"{segment.digest} in the store changed while it was read")
