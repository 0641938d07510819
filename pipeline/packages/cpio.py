"""The cpio archive in a package's payload, held to the header of the package.

rpm's own reader cannot be bounded: it decompresses whatever a payload gives, also what it only skips, and holds
Python's lock meanwhile, so that nobody could feed it with less. libarchive does not know the second of the two forms
(rpm, lib/cpio.c): `070701` (or `070702`), the headers of SVR4, with name and size; and `07070X`, which has nothing but
the number of a file in the package's header, for packages with a file over 4 GiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.streams import PieceReader

_NEW_MAGICS = (b"070701", b"070702")
_STRIPPED_MAGIC = b"07070X"
_MAGIC_SIZE = 6
_FIELD = 8
_NEW_FIELDS = 13
_SIZE_FIELD, _NAME_FIELD = 6, 11
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")
_TRAILER = b"TRAILER!!!"
_NAME_LIMIT = 1 << 16
"""Bytes of a name: sixteen times what Linux takes."""
_SKIP = 1 << 16


class MalformedCpio(Exception):
    """The payload is not the archive of the header's files. The text says why."""


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file as a package's header has it: the sizes that its content may have in the archive."""

    sizes: frozenset[int]
    stripped: int
    """The size where the archive does not say one."""


class CpioReader:
    """Members of an archive one after the other.

    `files` are those of the header, `names` their places by name, without a slash at the start. Content is read with
    `read` until the next member is asked for.
    """

    def __init__(self, stream: PieceReader, files: Sequence[ArchivedFile], names: Mapping[bytes, int]) -> None:
        self._stream, self._files, self._names = stream, files, names
        self._offset = 0
        self._left = 0

    def members(self) -> Iterator[tuple[int, int]]:
        """Yield (place in the header, size). Raises MalformedCpio, and what the stream raises."""
        while True:
            while self._left:
                self.read(_SKIP)
            self._align()
            magic = self._exactly(_MAGIC_SIZE)
            if magic == _STRIPPED_MAGIC:
                index = self._number(self._exactly(_FIELD))
                if index == 0xFFFFFFFF or index >= len(self._files):
                    raise MalformedCpio(f"it names file {index} of {len(self._files)}")
                size = self._files[index].stripped
            elif magic in _NEW_MAGICS:
                found = self._named()
                if found is None:
                    return
                index, size = found
            else:
                raise MalformedCpio(f"a header of the archive begins with {magic!r}")
            self._align()
            self._left = size
            yield index, size

    def read(self, most: int) -> memoryview:
        """Return at most `most` bytes of the member's content, none at its end."""
        if not self._left:
            return memoryview(b"")
        data = self._stream.some(min(most, self._left))
        if not data:
            raise MalformedCpio("it ends in the middle of a file")
        self._left -= len(data)
        self._offset += len(data)
        return data

    def _named(self) -> tuple[int, int] | None:
        """A header with name and size; None for the trailer."""
        fields = self._exactly(_FIELD * _NEW_FIELDS)
        size, length = (self._number(fields[at * _FIELD :][:_FIELD]) for at in (_SIZE_FIELD, _NAME_FIELD))
        if not 0 < length <= _NAME_LIMIT:
            raise MalformedCpio(f"a name has {length} bytes")
        name = self._exactly(length)[:-1]
        if name == _TRAILER:
            return None
        index = self._names.get(name.removeprefix(b"./").lstrip(b"/"))
        if index is None:
            raise MalformedCpio(f"the header has no file {name[:200]!r}")
        if size not in self._files[index].sizes:
            raise MalformedCpio(f"{name[:200]!r} has {size} bytes, which are not those of the header")
        return index, size

    def _align(self) -> None:
        self._exactly(-self._offset % 4)

    def _number(self, digits: bytes) -> int:
        if not _HEXADECIMAL.issuperset(digits):  # `int` takes signs, blanks, prefixes and underscores too.
            raise MalformedCpio(f"{digits!r} is no number")
        return int(digits, 16)

    def _exactly(self, size: int) -> bytes:
        data = self._stream.exactly(size)
        if len(data) != size:
            raise MalformedCpio("it ends in the middle of a header")
        self._offset += size
        return data
