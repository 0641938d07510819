"""Slices of compressed input, so that any number of streams in it takes linear time.

Python's decompressors (zlib, lzma, bz2) copy what a slice has behind a stream's end. So a stream is given as many bytes
as it has taken already, and `FIRST_SLICE` more: what is copied is never more than that. Streams of twenty bytes with
nothing in them would else copy all that was read, each of them, and no limit of what is decompressed would end it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import io

Buffered: TypeAlias = "io.BufferedReader[io.RawIOBase]"

FIRST_SLICE = 1 << 10
"""Bytes that a stream is given at first: to one that is long, ten slices more than if it was given all at once."""
_READ_SIZE = 1 << 20
"""Bytes that are read at once, and that a slice has at most."""


class InputSlices:
    """Slices of `start`, which was read already, and of what follows in `reader`."""

    def __init__(self, reader: Buffered, start: bytes = b"") -> None:
        self._reader = reader
        self._data = memoryview(start + reader.read(_READ_SIZE))
        self._at = 0
        self._taken = 0
        """Bytes that the stream has taken."""

    def begin_stream(self, magic_size: int = 1) -> memoryview:
        """Return up to `magic_size` bytes with which a stream begins; none at the end.

        They stay to be read.
        """
        self._taken = 0
        self._read()
        return self._data[self._at : self._at + magic_size]

    def next(self) -> memoryview:
        """Return the next slice; an empty one at the end."""
        self._read()
        found = self._data[self._at : self._at + min(FIRST_SLICE + self._taken, _READ_SIZE)]
        self._at += len(found)
        self._taken += len(found)
        return found

    def give_back(self, size: int) -> None:
        """Have the last `size` bytes of the last slice come again: the stream has not taken them."""
        self._at -= size
        self._taken -= size

    def skip_zeros(self) -> int:
        """Skip the zero bytes that come next; return their number."""
        skipped = 0
        while True:
            self._read()
            piece = bytes(self._data[self._at : self._at + FIRST_SLICE])
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            self._at += zeros
            skipped += zeros
            if zeros < len(piece) or not piece:
                return skipped

    def _read(self) -> None:
        if self._at == len(self._data):
            self._data, self._at = memoryview(self._reader.read(_READ_SIZE)), 0
