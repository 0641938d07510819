"""Read the headers of an ndb database, the `Packages.db` file of SUSE's rpm, without rpm.

The file may be foreign: a blob is bounded by the file, its checksum is verified, and blobs do not overlap. rpm verifies
checksum and overlap only where it writes (`rpmpkg.c`), so it lists some files that are refused here. Raises ValueError,
struct.error and LookupError for what is malformed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from pipeline.packages.ndb_writer import (
    BLOB_END_MAGIC,
    BLOB_HEAD,
    BLOB_MAGIC,
    BLOB_TAIL,
    BLOCK,
    NDB_PAGE_SIZE,
    NDB_SLOT,
    PACKAGES_HEADER,
    PACKAGES_MAGIC,
    SLOT_MAGIC,
)


def is_ndb(data: bytes) -> bool:
    """Recognise ndb's file of packages by its first bytes."""
    return data[: len(PACKAGES_MAGIC)] == PACKAGES_MAGIC


def read_ndb_headers(data: bytes) -> Iterator[bytes]:
    """Yield the headers of the file, in the order of their place, in which rpm lists them."""
    _, version, _, pages, _ = PACKAGES_HEADER.unpack_from(data)
    if version != 0 or pages * NDB_PAGE_SIZE > len(data):
        raise ValueError(f"no ndb that can be read: version {version}, {pages} pages of slots")
    blobs: list[tuple[int, int, int]] = []
    for offset in range(PACKAGES_HEADER.size, pages * NDB_PAGE_SIZE, NDB_SLOT.size):
        magic, number, start, blocks = NDB_SLOT.unpack_from(data, offset)
        if magic != SLOT_MAGIC:
            raise ValueError("a slot is damaged")
        if start:
            blobs.append((start, blocks, number))
    end = pages * NDB_PAGE_SIZE // BLOCK
    for start, blocks, number in sorted(blobs):
        if start < end:
            raise ValueError("two headers overlap")
        end = start + blocks
        yield _blob(data[start * BLOCK : end * BLOCK], blocks, number)


def _blob(blob: bytes, blocks: int, number: int) -> bytes:
    magic, stated, _, length = BLOB_HEAD.unpack_from(blob)
    checksum, again, end = BLOB_TAIL.unpack_from(blob, len(blob) - BLOB_TAIL.size)
    needed = -(-(BLOB_HEAD.size + length + BLOB_TAIL.size) // BLOCK)
    if (magic, end, stated, again) != (BLOB_MAGIC, BLOB_END_MAGIC, number, length) or not number:
        raise ValueError(f"header {number} is not where its slot says")
    if len(blob) != blocks * BLOCK or blocks != needed or zlib.adler32(blob[: -BLOB_TAIL.size]) != checksum:
        raise ValueError(f"header {number} is damaged")
    return blob[BLOB_HEAD.size : BLOB_HEAD.size + length]
