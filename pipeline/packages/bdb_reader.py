"""Read the headers of a Berkeley DB hash, the `Packages` file of rpm up to 4.16.

libdb is not needed. The file may be foreign: each page is visited once at most, each of its bytes is of one item, so
what is read is no more than the file. Buckets and their chains are followed as libdb and rpm's own read-only reader do
(`lib/backend/bdb_ro.c`), so a page to which nothing leads holds no package. Both byte orders and versions 8 to 10 of
the format are read. Raises ValueError, struct.error and LookupError for what is malformed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pipeline.packages.bdb_writer import HASH_MAGIC, HASH_PAGE, OFF_PAGE, ON_PAGE, OVERFLOW_PAGE, PAGE_HEADER

_MAGIC_OFFSET, _META_SIZE = 12, 512
_CIPHER_OFFSET, _FLAGS_OFFSET = 24, 26
"""`encrypt_alg` and `metaflags` of `DBMETA`; rpm sets neither, and with them pages begin otherwise (`P_OVERHEAD`)."""
_VERSIONS = range(8, 11)
_PAGE_SIZES = frozenset(1 << bits for bits in range(9, 17))
_UNSORTED_PAGE = 2
"""Type of a hash page of libdb up to 4.5."""


def is_bdb(data: bytes) -> bool:
    """Recognise a hash of Berkeley DB by its first bytes."""
    found = data[_MAGIC_OFFSET : _MAGIC_OFFSET + 4]
    return found in (HASH_MAGIC.to_bytes(4, "little"), HASH_MAGIC.to_bytes(4, "big"))


def read_bdb_headers(data: bytes) -> Iterator[bytes]:
    """Yield the headers of the file, in the order in which rpm lists them."""
    return _Hash(data).headers()


class _Hash:
    def __init__(self, data: bytes) -> None:
        if len(data) < _META_SIZE:
            raise ValueError("the file is shorter than its description")
        self._data = data
        self._order = "<" if data[_MAGIC_OFFSET] == HASH_MAGIC & 0xFF else ">"
        version, self._size = self._words(16, 2)
        (self._last,) = self._words(32, 1)
        (self._buckets,) = self._words(72, 1)
        self._spares = self._words(96, 32)
        if version not in _VERSIONS or self._size not in _PAGE_SIZES or (self._last + 1) * self._size > len(data):
            raise ValueError(f"no hash that can be read: version {version}, pages of {self._size} bytes")
        if data[_CIPHER_OFFSET] or data[_FLAGS_OFFSET]:
            raise ValueError("its pages are encrypted, partitioned or have checksums")
        if self._buckets > self._last:
            raise ValueError("it has more buckets than pages")
        self._seen = bytearray(self._last + 1)

    def headers(self) -> Iterator[bytes]:
        for bucket in range(self._buckets + 1):
            number = bucket + self._spares[bucket.bit_length()]
            while True:
                start = self._page(number)
                following, count, kind = self._described(start)
                if kind not in (HASH_PAGE, _UNSORTED_PAGE):
                    raise ValueError(f"page {number} is none of a hash")
                yield from self._items(start, count)
                if not following:
                    break
                number = following

    def _items(self, start: int, count: int) -> Iterator[bytes]:
        """Yield the data of a page's pairs but of the one with header number 0, rpm's counter.

        It is read as well: where an item begins bounds the next one, so that they fill the page once.
        """
        offsets = struct.unpack_from(f"{self._order}{count}H", self._data, start + PAGE_HEADER.size)
        ends = (self._size, *offsets)
        for index in range(0, count - 1, 2):
            key = self._item(start, offsets[index], ends[index])
            value = self._item(start, offsets[index + 1], ends[index + 1])
            if len(key) != 4:
                raise ValueError("a key is no header number")
            if any(key):
                yield value

    def _item(self, start: int, offset: int, end: int) -> bytes:
        if not PAGE_HEADER.size < offset < end <= self._size:
            raise ValueError("an item is outside of its page")
        kind = self._data[start + offset]
        if kind == ON_PAGE:
            return self._data[start + offset + 1 : start + end]
        if kind != OFF_PAGE or end - offset != 12:
            raise ValueError(f"an item has type {kind}")
        number, length = self._words(start + offset + 4, 2)
        return self._chain(number, length)

    def _chain(self, number: int, length: int) -> bytes:
        """Return what stands on a chain of overflow pages."""
        found = bytearray()
        while len(found) < length:
            start = self._page(number)
            following, _, kind = self._described(start)
            used = self._half(start + 22)
            if kind != OVERFLOW_PAGE or not 0 < used <= min(self._size - PAGE_HEADER.size, length - len(found)):
                raise ValueError(f"page {number} does not continue an item")
            found += self._data[start + PAGE_HEADER.size : start + PAGE_HEADER.size + used]
            number = following
        return bytes(found)

    def _page(self, number: int) -> int:
        """Return where a page starts, once; each has its number in it, and is in one chain."""
        start = number * self._size
        if not 0 < number <= self._last or self._words(start + 8, 1) != (number,):
            raise ValueError(f"there is no page {number}")
        if self._seen[number]:
            raise ValueError(f"page {number} is in two chains")
        self._seen[number] = 1
        return start

    def _described(self, start: int) -> tuple[int, int, int]:
        """Return the next page's number, the count of items, the type of a page."""
        (following,) = self._words(start + 16, 1)
        return following, self._half(start + 20), self._data[start + 25]

    def _half(self, offset: int) -> int:
        (value,) = struct.unpack_from(f"{self._order}H", self._data, offset)
        return int(value)

    def _words(self, offset: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self._order}{count}I", self._data, offset)
