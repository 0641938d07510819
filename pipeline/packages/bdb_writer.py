"""Write reproducible Berkeley DB files: a hash of the headers and a B-tree for each index.

They are what rpm 4.11 to 4.16 read and go on writing (its `lib/backend/db3.c`): `Packages` is a hash by header number,
each index a B-tree from a name to (header number, position) pairs. The files are written at once and from sorted
content, so they hold nothing but the content: no log, no free pages, no unused bytes but zeros. libdb names a file by
20 bytes that it makes of inode, device and clock; here they are a digest of the file's name and content, since libdb
takes two files with the same ones for one file.

Version 9 of both formats, as libdb 4.8 to 5.3 have it (`dbinc/db_page.h`, `hash/hash_func.c`), little-endian, which
libdb and rpm swap where that is foreign. A change of the bytes for the same content raises
`pipeline.layers.state_layer.FORMAT`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence

BDB_PAGE_SIZE = 4096
"""Bytes of a page, as libdb takes it from the usual file system; each file states its own."""

HASH_MAGIC, TREE_MAGIC, _VERSION = 0x061561, 0x053162, 9
HASH_META, TREE_META, HASH_PAGE, TREE_LEAF, TREE_INNER, OVERFLOW_PAGE = 8, 9, 13, 5, 3, 7
ON_PAGE, OFF_PAGE = 1, 3
"""Types of an item: its data stands on the page, or on a chain of overflow pages."""

PAGE_HEADER = struct.Struct("<IIIIIHHBB")
"""Log sequence number (two), page number, previous, next, items, lowest used offset, level, type."""
ITEM_OFFSET = struct.Struct("<H")
HASH_OFF_PAGE = struct.Struct("<B3xII")
TREE_OFF_PAGE = struct.Struct("<2xBxII")
TREE_INNER_ITEM = struct.Struct("<HBxII")
META_HEADER = struct.Struct("<IIIIIIBBBxIIIIII20s")
HASH_DESCRIPTION = struct.Struct("<IIIIII32I")
TREE_DESCRIPTION = struct.Struct("<IIIII")

_NOT_LOGGED = (0, 1)
"""The log sequence number of pages that no log describes (LSN_NOT_LOGGED)."""
_HASH_LIMIT = BDB_PAGE_SIZE // 4
"""A longer item of a hash is put on overflow pages (ISBIG)."""
_TREE_LIMIT = (BDB_PAGE_SIZE - PAGE_HEADER.size) // 4 - 10
"""A longer item of a B-tree with two keys a page is put on overflow pages (B_MINKEY_TO_OVFLSIZE)."""
_BUCKET = 64
"""Headers a bucket: a page holds 140 whose data is on overflow pages, and buckets fill unevenly."""
_PROBE = b"%$sniglet^&\0"
"""A key whose hash stands in the file, so that libdb sees another hash function (CHARKEY)."""


def hash_bdb_key(key: bytes) -> int:
    """Return the Fowler-Noll-Vo hash of a key (`__ham_func5`)."""
    value = 0
    for byte in key:
        value = (value * 16777619 & 0xFFFFFFFF) ^ byte
    return value


def write_bdb_packages(headers: Mapping[int, bytes]) -> bytes:
    """Return the file `Packages` of the headers by their number, from 1.

    Number 0 has the highest number given so far, from which rpm goes on counting.
    """
    entries = {0: struct.pack("<I", max(headers, default=0)), **headers}
    buckets = 2
    while buckets * _BUCKET < len(entries):
        buckets *= 2
    filled: list[list[tuple[bytes, bytes]]] = [[] for _ in range(buckets)]
    for number, data in entries.items():
        key = struct.pack("<I", number)
        filled[hash_bdb_key(key) & (buckets - 1)].append((key, data))
    pages = _Pages(buckets)
    for bucket, pairs in enumerate(filled, start=1):
        _write_bucket(pages, bucket, sorted(pairs))
    splits = buckets.bit_length()
    table = HASH_DESCRIPTION.pack(
        buckets - 1,
        buckets - 1,
        buckets // 2 - 1,
        0,
        len(entries),
        hash_bdb_key(_PROBE),
        # Bucket n is on page n + spares[bits of n]: all were made at once, so they stand in a row from page 1.
        *(1 if split < splits else 0 for split in range(32)),
    )
    return pages.file("Packages", HASH_MAGIC, HASH_META, table)


def write_bdb_index(name: str, entries: Iterable[tuple[bytes, int, int]]) -> bytes:
    """Return the file of the index `name`.

    `entries` are (key, header number, position) in rpm's order.
    """
    values: dict[bytes, bytearray] = {}
    for key, number, position in entries:
        values.setdefault(key, bytearray()).extend(struct.pack("<II", number, position))
    pages = _Pages(1)
    # A B-tree's order is that of memcmp, then length (__bam_defcmp).
    _write_tree(pages, sorted((key, bytes(value)) for key, value in values.items()))
    return pages.file(name, TREE_MAGIC, TREE_META, TREE_DESCRIPTION.pack(0, 2, 0, 0x20, 1))


class _Pages:
    """The pages of one file; the first ones are reserved."""

    def __init__(self, reserved: int) -> None:
        self._pages: list[bytes] = [b""] * (reserved + 1)

    def reserve(self) -> int:
        """Return the number of a new page, to be `put`."""
        self._pages.append(b"")
        return len(self._pages) - 1

    def put(self, number: int, items: Sequence[bytes], *, kind: int, level: int = 0, links: tuple[int, int]) -> None:
        """Fill a page with items; `links` are the previous and the next page, 0 for none."""
        offsets, end = bytearray(), BDB_PAGE_SIZE
        for item in items:
            end -= len(item)
            offsets += ITEM_OFFSET.pack(end)
        head = PAGE_HEADER.pack(*_NOT_LOGGED, number, *links, len(items), end, level, kind)
        used = head + offsets
        self._pages[number] = used + bytes(end - len(used)) + b"".join(reversed(items))

    def overflow(self, data: bytes) -> tuple[int, int]:
        """Store data on a chain of pages of its own, and return its first page and length."""
        room = BDB_PAGE_SIZE - PAGE_HEADER.size
        chunks = [data[start : start + room] for start in range(0, len(data), room)]
        numbers = [self.reserve() for _ in chunks]
        for number, before, after, chunk in zip(numbers, [0, *numbers], [*numbers[1:], 0], chunks, strict=False):
            # In place of items and offset there are the number of references and the length.
            head = PAGE_HEADER.pack(*_NOT_LOGGED, number, before, after, 1, len(chunk), 0, OVERFLOW_PAGE)
            self._pages[number] = (head + chunk).ljust(BDB_PAGE_SIZE, b"\0")
        return numbers[0], len(data)

    def file(self, name: str, magic: int, kind: int, described: bytes) -> bytes:
        """Return all pages, with the first one describing them."""
        rest = b"".join(self._pages[1:])
        digest = hashlib.sha256(name.encode() + b"\0" + described + rest).digest()[:20]
        last = len(self._pages) - 1
        meta = META_HEADER.pack(
            *_NOT_LOGGED, 0, magic, _VERSION, BDB_PAGE_SIZE, 0, kind, 0, 0, last, 0, 0, 0, 0, digest
        )
        return (meta + described).ljust(BDB_PAGE_SIZE, b"\0") + rest


def _write_bucket(pages: _Pages, first: int, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Write a bucket on its page, and on more if it is full; each is sorted by key."""
    full: list[list[bytes]] = [[]]
    used = PAGE_HEADER.size
    for key, data in pairs:
        item = (
            bytes([ON_PAGE]) + data if len(data) <= _HASH_LIMIT else HASH_OFF_PAGE.pack(OFF_PAGE, *pages.overflow(data))
        )
        size = 1 + len(key) + len(item) + 2 * ITEM_OFFSET.size
        if used + size > BDB_PAGE_SIZE:
            full.append([])
            used = PAGE_HEADER.size
        full[-1] += [bytes([ON_PAGE]) + key, item]
        used += size
    numbers = [first, *(pages.reserve() for _ in full[1:])]
    for number, before, after, items in zip(numbers, [0, *numbers], [*numbers[1:], 0], full, strict=False):
        pages.put(number, items, kind=HASH_PAGE, links=(before, after))


def _write_tree(pages: _Pages, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Write a B-tree of sorted pairs, its root on page 1."""
    leaves: list[list[bytes]] = [[]]
    firsts: list[bytes] = [b""]
    used, last = PAGE_HEADER.size, b""
    for key, data in pairs:
        items = [_tree_item(pages, key), _tree_item(pages, data)]
        size = sum(map(len, items)) + 2 * ITEM_OFFSET.size
        if used + size > BDB_PAGE_SIZE:
            leaves.append([])
            firsts.append(_separator(last, key))
            used = PAGE_HEADER.size
        leaves[-1] += items
        used += size
        last = key
    numbers = [pages.reserve() for _ in leaves] if len(leaves) > 1 else [1]
    for number, before, after, items in zip(numbers, [0, *numbers], [*numbers[1:], 0], leaves, strict=False):
        pages.put(number, items, kind=TREE_LEAF, level=1, links=(before, after))
    _write_inner(pages, list(zip(firsts, numbers, strict=True)))


def _write_inner(pages: _Pages, below: list[tuple[bytes, int]]) -> None:
    """Write the pages above the leaves `below`, each with the least key that leads to it."""
    level = 2
    while len(below) > 1:
        nodes: list[tuple[bytes, list[bytes]]] = []
        used = BDB_PAGE_SIZE
        for key, number in below:
            item = _inner_item(pages, key, number)
            if used + len(item) + ITEM_OFFSET.size > BDB_PAGE_SIZE:
                nodes.append((key, []))
                used = PAGE_HEADER.size
            nodes[-1][1].append(item)
            used += len(item) + ITEM_OFFSET.size
        numbers = [pages.reserve() for _ in nodes] if len(nodes) > 1 else [1]
        for number, (_, items) in zip(numbers, nodes, strict=True):
            pages.put(number, items, kind=TREE_INNER, level=level, links=(0, 0))
        below = [(key, number) for (key, _), number in zip(nodes, numbers, strict=True)]
        level += 1


def _tree_item(pages: _Pages, data: bytes) -> bytes:
    if len(data) > _TREE_LIMIT:
        return TREE_OFF_PAGE.pack(OFF_PAGE, *pages.overflow(data))
    return _aligned(struct.pack("<HB", len(data), ON_PAGE) + data)


def _inner_item(pages: _Pages, key: bytes, below: int) -> bytes:
    if len(key) > _TREE_LIMIT:
        data = TREE_OFF_PAGE.pack(OFF_PAGE, *pages.overflow(key))
        return TREE_INNER_ITEM.pack(len(data), OFF_PAGE, below, 0) + data
    return _aligned(TREE_INNER_ITEM.pack(len(key), ON_PAGE, below, 0) + key)


def _aligned(item: bytes) -> bytes:
    return item + bytes(-len(item) % 4)


def _separator(left: bytes, right: bytes) -> bytes:
    """Return the shortest key that is greater than `left` and not greater than `right`."""
    same = next((index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))
    return right[: same + 1]
