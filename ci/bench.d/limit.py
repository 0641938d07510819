"""The machine's limit for layers: the same compressor on the same bytes, and the digests of tar and blob, on all cores.

Nothing else is done: nothing is parsed, stored, recalled or checked, and all bytes are in memory before the clock runs.
A layer is compressed in the units in which relbuild does, which are independent: gzip members of a piece of tar, zstd
frames of a package, with the window and the level of relbuild's.

With payloads, they are decompressed too, and their content is hashed once, as relbuild does to compare files with the
packages' headers. With a folder, what has to be kept is written as well: tar is gathered in pieces, a compressed unit
is written and hashed by itself, as a segment that other layers share, and read again into the layer's blob. That is the
least that packing takes which compares, keeps and writes what relbuild does.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import zstandard

from pipeline.compression import PIECE, Compression, layer_codec
from pipeline.streams import decompressed

READ = 1 << 20
PAYLOAD_LIMIT = 4 << 30
"""Bytes of one payload: more than any package's that is measured."""


def units(codec: str, blob: bytes) -> list[bytes]:
    """Return what a blob's members or frames hold, in order: together it is the layer's tar."""
    if Compression(codec) is Compression.ZSTD:
        return list(_frames(blob))
    tar = gzip.decompress(blob)
    return [tar[at : at + PIECE] for at in range(0, len(tar), PIECE)]


def _frames(blob: bytes) -> Iterator[bytes]:
    decompressor, held = zstandard.ZstdDecompressor(), list[bytes]()
    frame = decompressor.decompressobj()
    for at in range(0, len(blob), READ):
        data = blob[at : at + READ]
        while data:
            held.append(frame.decompress(data))
            data = b""
            if frame.eof:
                yield b"".join(held)
                data, held, frame = frame.unused_data, [], decompressor.decompressobj()


def compress(codec: str, unit: bytes, buffer: bytearray | None = None) -> bytes:
    """Compress one unit as relbuild does; each piece is copied into `buffer` before, if given."""
    used = layer_codec(Compression(codec))
    if used.stream is None or len(unit) <= PIECE:
        return b"".join(used.compress(piece) for piece in _pieces(unit, buffer))
    stream = used.stream()
    parts = [stream.compress(piece) for piece in _pieces(unit, buffer)]
    return b"".join([*parts, stream.flush()])


def _pieces(unit: bytes, buffer: bytearray | None) -> Iterator[memoryview]:
    for at in range(0, max(1, len(unit)), PIECE):
        view = memoryview(unit)[at : at + PIECE]
        if buffer is not None:
            buffer[: len(view)] = view
            view = memoryview(buffer)[: len(view)]
        yield view


def read(payload: bytes) -> None:
    """Decompress a package's payload and hash it."""
    digest = hashlib.sha256()
    for piece in decompressed(io.BytesIO(payload), limit=PAYLOAD_LIMIT, name="payload"):
        digest.update(piece)


def seconds(
    layers: Sequence[Sequence[bytes]],
    codec: str,
    kept: Mapping[tuple[int, int], bytes] | None = None,
    payloads: Sequence[bytes] = (),
    folder: Path | None = None,
) -> float:
    """Return the seconds that compressing and hashing the units of all layers takes on all cores.

    `kept` has units that are compressed already, by layer and place in it: these are hashed alone. `payloads` are
    decompressed and hashed too. In `folder` units and blobs are written; it has to be empty.
    """
    segments = Segments(folder) if folder is not None else None
    began = time.monotonic()
    # A digest in order waits for its bytes most of the time, so each has a thread of its own.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool, ThreadPoolExecutor(2 * len(layers) or 1) as digests:
        reading = [pool.submit(read, payload) for payload in sorted(payloads, key=len, reverse=True)]
        # The largest first, so that no core waits long for the last one.
        places = [(layer, at) for layer, held in enumerate(layers) for at in range(len(held))]
        places = [place for place in places if place not in (kept or {})]
        places.sort(key=lambda place: -len(layers[place[0]][place[1]]))
        work: Callable[[str, bytes], Any] = compress if segments is None else segments.compress
        made = {(layer, at): pool.submit(work, codec, layers[layer][at]) for layer, at in places}
        for place, known in (kept or {}).items():
            made[place] = Future()
            made[place].set_result(known)
        hashing = []
        for layer, held in enumerate(layers):
            blob = [made[layer, at] for at in range(len(held))]
            assembled: Callable[[Sequence[Future[Any]]], None] = segments.assemble if segments else _hash_blob
            hashing += [digests.submit(_hash_tar, held), digests.submit(assembled, blob)]
        for one in hashing:
            one.result()
        for one in reading:
            one.result()  # A payload that cannot be read would make the limit shorter.
    return time.monotonic() - began


class Segments:
    """Compressed units that are written to files in a folder, and read again into blobs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._threads = threading.local()

    def compress(self, codec: str, unit: bytes) -> Path:
        """Compress a unit as relbuild does, from a piece that it was copied into; write and hash it."""
        if not hasattr(self._threads, "buffer"):
            self._threads.buffer = bytearray(PIECE)
        data = compress(codec, unit, self._threads.buffer)
        hashlib.sha256(data).digest()
        path = self._new()
        path.write_bytes(data)
        return path

    def assemble(self, blob: Sequence[Future[Path]]) -> None:
        """Write a blob of units as they come, and hash it."""
        digest = hashlib.sha256()
        with self._new().open("wb") as file:
            for unit in blob:
                data = unit.result().read_bytes()
                digest.update(data)
                file.write(data)

    def _new(self) -> Path:
        return self._folder / str(next(self._numbers))


def _hash_tar(held: Sequence[bytes]) -> None:
    digest = hashlib.sha256()
    for unit in held:
        digest.update(unit)


def _hash_blob(blob: Sequence[Future[bytes]]) -> None:
    digest = hashlib.sha256()
    for unit in blob:
        digest.update(unit.result())
