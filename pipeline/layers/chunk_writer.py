"""Writer that compresses tar bytes in pieces, in parallel and in order, into a blob."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.compression import PIECE, Compression, layer_codec
from pipeline.digest import DiffId
from pipeline.layers.tar_format import TAR_END, padding, tar_header
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import BlobWriter

COMPRESSION_WORKERS = max(1, min(8, len(os.sched_getaffinity(0))))
"""Threads that compress: one for each processor that this process may use. The bytes do not depend on it."""


class ChunkWriter:
    """A writer that takes tar bytes and writes whole compressed pieces to a blob.

    `size` is bytes of tar so far. Up to twice `COMPRESSION_WORKERS` pieces are in memory, however large the files are.
    """

    def __init__(
        self, blob: BlobWriter, compression: Compression, pool: ThreadPoolExecutor, *, hashed: bool = True
    ) -> None:
        self._blob = blob
        self._compress = layer_codec(compression).compress
        self._pool = pool
        self._piece = bytearray()
        self._running: deque[Future[bytes]] = deque()
        self._hash = hashlib.sha256() if hashed else None
        self.size = 0

    def entry(self, entry: Entry, content: Iterable[bytes] = ()) -> None:
        """Write an entry with exactly `entry.size` bytes of content, if it is a file."""
        for _ in self.passing(entry, content):
            pass

    def passing(self, entry: Entry, content: Iterable[bytes] = ()) -> Iterator[bytes]:
        """Write an entry as `entry` does, and yield each piece of its content once it is taken."""
        self.write(tar_header(entry))
        if entry.kind is EntryKind.FILE and entry.size:
            before = self.size
            for data in content:
                self.write(data)
                yield data
            if self.size - before != entry.size:
                raise ValueError(
                    f"{entry.path}: the header announced {entry.size} bytes, {self.size - before} followed"
                )
            self.write(padding(entry.size))

    def write(self, data: bytes) -> None:
        """Write any bytes of tar."""
        self.size += len(data)
        if self._hash is not None:
            self._hash.update(data)
        room = PIECE - len(self._piece)
        if len(data) < room:
            self._piece += data
            return
        view = memoryview(data)
        self._piece += view[:room]
        self._submit()
        for at in range(room, len(data), PIECE):
            self._piece += view[at : at + PIECE]
            if len(self._piece) == PIECE:
                self._submit()

    def end(self) -> None:
        """Write the end marker, and finish."""
        self.write(TAR_END)
        self.finish()

    def finish(self) -> None:
        """Wait until everything is compressed and written."""
        if self._piece:
            self._submit()
        while self._running:
            self._blob.write(self._running.popleft().result())

    @property
    def diff_id(self) -> DiffId:
        """Digest of the tar bytes so far."""
        if self._hash is None:
            raise ValueError("this writer was made without `hashed`")
        return DiffId(self._hash.hexdigest())

    def _submit(self) -> None:
        piece, self._piece = bytes(self._piece), bytearray()
        self._running.append(self._pool.submit(self._compress, piece))
        while len(self._running) > 2 * COMPRESSION_WORKERS or (self._running and self._running[0].done()):
            self._blob.write(self._running.popleft().result())
