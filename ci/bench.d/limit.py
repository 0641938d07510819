"""The machine's limit for layers: the same compressor on the same bytes, and the digests of tar and blob, on all cores.

Nothing else is done: nothing is parsed, stored, recalled or checked, and all bytes are in memory before the clock runs.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread

import zstandard
from turns import BenchFailed

from pipeline.compression import GZIP_LEVEL, PIECE, ZSTD_LEVEL

Compress = Callable[[memoryview], bytes]


def compressor(codec: str) -> Compress:
    """Return the function that compresses one piece with relbuild's library at relbuild's level."""
    if codec == "gzip":
        import deflate

        return lambda piece: bytes(deflate.deflate_compress(piece, GZIP_LEVEL))
    if codec == "zstd":
        return lambda piece: zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(piece)
    raise BenchFailed(f"the limit of {codec} is not known")


def decompress(codec: str, blob: bytes) -> bytes:
    """Return the tar of a blob."""
    if codec == "gzip":
        return gzip.decompress(blob)
    with zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True) as reader:
        return reader.read()


def seconds(tars: Sequence[bytes], codec: str) -> float:
    """Return the seconds that compressing and hashing all of it takes on all cores."""
    compress = compressor(codec)
    began = time.monotonic()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        hashing = []
        for tar in tars:
            view = memoryview(tar)
            pieces = [pool.submit(compress, view[at : at + PIECE]) for at in range(0, len(tar), PIECE)]
            hashing += [Thread(target=hashlib.sha256, args=(view,)), Thread(target=_hash_blob, args=(pieces,))]
            for thread in hashing[-2:]:
                thread.start()
        for thread in hashing:
            thread.join()
    return time.monotonic() - began


def _hash_blob(pieces: Sequence[Future[bytes]]) -> None:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.result())
