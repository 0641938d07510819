"""Write reproducible ndb files: `Packages.db` with the headers, `Index.db` with all indexes.

ndb is rpm's own format of SUSE's distributions (rpm's `lib/backend/ndb`): `rpmpkg.c` keeps blobs by number, `rpmxdb.c`
blobs by tag, each of which is an index of `rpmidx.c`, a hash table of (name, header number, position). All numbers are
little-endian. What rpm counts up as it writes (generations) is what it would have counted after adding the headers one
by one; nothing in the files is of the machine or the time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

PACKAGES_MAGIC, SLOT_MAGIC, BLOB_MAGIC, BLOB_END_MAGIC = b"RpmP", b"Slot", b"BlbS", b"BlbE"
INDEXES_MAGIC, INDEX_SLOT_MAGIC, INDEX_MAGIC = b"RpmX", b"Slo\0", b"RpmI"
BLOCK, NDB_PAGE_SIZE = 16, 4096
"""Bytes of a block, the unit of a blob, and of a page of slots; `Index.db` states the size of its pages."""

PACKAGES_HEADER = struct.Struct("<4sIIII12x")
"""Magic, version, generation, pages of slots, next header number."""
NDB_SLOT = struct.Struct("<4sIII")
"""Magic, header number, first block, blocks; in `Index.db` magic, tag, first page, pages."""
BLOB_HEAD, BLOB_TAIL = struct.Struct("<4sIII"), struct.Struct("<II4s")
INDEXES_HEADER = struct.Struct("<4sIIIII8x")
"""Magic, version, generation, pages of slots, page size, generation of `Packages.db`."""
INDEX_HEADER = struct.Struct("<4sIIIIIIII28x")
"""Magic, version, generation, slots, used slots, dummy slots, mask of hash bits, end of keys, unused bytes of keys."""

_SLOTS = NDB_PAGE_SIZE // NDB_SLOT.size
_HEADER_SLOTS = 2
"""Slots whose place the header of the file takes."""
_KEY_CHUNK = 4096
_MULTIPLIER = 0x5BD1E995
_WORD = 0xFFFFFFFF


def write_ndb_packages(headers: Mapping[int, bytes]) -> bytes:
    """Return the file `Packages.db` of the headers by their number, from 1."""
    pages = (len(headers) + _HEADER_SLOTS) // _SLOTS + 1
    slots, blobs = bytearray(), bytearray()
    start = pages * NDB_PAGE_SIZE // BLOCK
    # rpm begins with 1, and counts once for each header; a blob has the count from before.
    for generation, (number, data) in enumerate(sorted(headers.items()), start=1):
        head = BLOB_HEAD.pack(BLOB_MAGIC, number, generation, len(data)) + data
        head += bytes(-(len(head) + BLOB_TAIL.size) % BLOCK)
        blob = head + BLOB_TAIL.pack(zlib.adler32(head), len(data), BLOB_END_MAGIC)
        slots += NDB_SLOT.pack(SLOT_MAGIC, number, start, len(blob) // BLOCK)
        blobs += blob
        start += len(blob) // BLOCK
    free = pages * _SLOTS - _HEADER_SLOTS - len(headers)
    top = PACKAGES_HEADER.pack(PACKAGES_MAGIC, 0, ndb_generation(headers), pages, max(headers, default=0) + 1)
    return top + slots + NDB_SLOT.pack(SLOT_MAGIC, 0, 0, 0) * free + blobs


def ndb_generation(headers: Mapping[int, bytes]) -> int:
    """Return the generation of `Packages.db`.

    `Index.db` repeats it; rpm calls one with another outdated.
    """
    return len(headers) + 1


def write_ndb_indexes(indexes: Mapping[int, Iterable[tuple[bytes, int, int]]], generation: int) -> bytes:
    """Return the file `Index.db` of entries (key, header number, position) by the index's tag.

    An index without entries stands there as well: rpm makes one that is missing, which it cannot in a read-only image.
    """
    slots, blobs = bytearray(), bytearray()
    start = 1
    for tag, entries in sorted(indexes.items()):
        blob = _index(list(dict.fromkeys(entries)))
        slots += NDB_SLOT.pack(INDEX_SLOT_MAGIC, tag, start, len(blob) // NDB_PAGE_SIZE)
        blobs += blob
        start += len(blob) // NDB_PAGE_SIZE
    free = _SLOTS - _HEADER_SLOTS - len(indexes)
    top = INDEXES_HEADER.pack(INDEXES_MAGIC, 0, len(indexes) + 1, 1, NDB_PAGE_SIZE, generation)
    return top + slots + NDB_SLOT.pack(INDEX_SLOT_MAGIC, 0, 0, 0) * free + blobs


def _index(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    """Return one index: header, slots in two parts, keys."""
    count = _slot_count(len(entries))
    keys = bytearray(b"\0")  # Offset 0 means a free slot.
    offsets: dict[bytes, int] = {}
    for key, _, _ in entries:
        if key not in offsets:
            offsets[key] = len(keys)
            keys += _key_length(len(key)) + key
    size = INDEX_HEADER.size + 12 * count + len(keys) + _KEY_CHUNK
    size += -size % NDB_PAGE_SIZE
    mask = _hash_mask(size - INDEX_HEADER.size - 12 * count)
    slots, overflow = [(0, 0)] * count, [0] * count
    hashes = {key: hash_ndb_key(key) for key in offsets}
    reached: dict[int, tuple[int, int]] = {}
    for key, number, position in entries:
        home = hashes[key] & (count - 1)
        # No slot becomes free again, so the search goes on where the last one from there ended: a name like
        # `__init__.py` has thousands of entries.
        place, step = reached.get(home, (home, 7))
        while slots[place][0]:
            place = (place + step) & (count - 1)
            step += 1
        reached[home] = place, step
        data, overflow[place] = _encode(number, position)
        slots[place] = (offsets[key] | hashes[key] & mask, data)
    head = INDEX_HEADER.pack(INDEX_MAGIC, 0, len(entries) + 1, count, len(entries), 0, mask, len(keys), 0)
    table = b"".join(struct.pack("<II", *slot) for slot in slots) + struct.pack(f"<{count}I", *overflow)
    return (head + table + keys).ljust(size, b"\0")


def _slot_count(used: int) -> int:
    """Return the count of an index's slots, as rpm has it after a rebuild.

    It is a power of two, of which at most half is used.
    """
    return 4 << (max(used, 256).bit_length() - 1)


def _hash_mask(room: int) -> int:
    """Return the mask of a slot's first number that selects the hash's bits.

    Those below are of the key's offset.
    """
    bits = 1 << 16
    while bits < room + 8192:
        bits <<= 1
    return ~(bits - 1) & _WORD


def _key_length(length: int) -> bytes:
    if 0 < length < 255:
        return bytes([length])
    if length < 65535:
        return struct.pack("<BH", 255, length)
    return struct.pack("<BHI", 255, 65535, length)


def _encode(number: int, position: int) -> tuple[int, int]:
    """Return header number and position as one word, and a second one for great numbers."""
    if number < 0x100000 and position < 0x400:
        return number | position << 20, 0
    if number < 0x1000000 and position < 0x40:
        return number | position << 24 | 0x40000000, 0
    return position | 0x80000000, number


def hash_ndb_key(key: bytes) -> int:
    """Return rpm's variant of the Murmur hash of a key (`murmurhash` in rpmidx.c)."""
    value = len(key) * _MULTIPLIER & _WORD
    whole = len(key) & ~3
    for word in struct.unpack(f"<{whole // 4}I", key[:whole]):
        value = (value + word) * _MULTIPLIER & _WORD
        value ^= value >> 16
    if whole < len(key):
        value = (value + int.from_bytes(key[whole:], "little")) * _MULTIPLIER & _WORD
        value ^= value >> 16
    value = value * _MULTIPLIER & _WORD
    value ^= value >> 10
    value = value * _MULTIPLIER & _WORD
    return value ^ value >> 17
