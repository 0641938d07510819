"""Compute the digest of a package's payload while its file is copied."""

from __future__ import annotations

import hashlib

from pipeline.packages.rpm_file_layout import (
    _ENTRY,
    _INTRODUCTION,
    _LEAD,
    _MAGIC,
    HEADER_DATA_LIMIT,
    HEADER_ENTRIES_LIMIT,
)

PASSED_ALGORITHM = "sha256"
"""The algorithm of a `PayloadHash`: that of nearly all packages' payload digests."""


class PayloadHash:
    """SHA-256 of an RPM's payload, computed while the package's file passes by.

    Of what passes, the introductions of both headers alone are looked at, for where the payload begins. It proves
    nothing by itself: `verify_package` compares it with the digest in a header whose signature is good.
    """

    def __init__(self) -> None:
        self.start = _LEAD
        """Offset of the payload, once both headers passed; of the next header before; -1 if it is no package."""
        self._headers = 2
        self._introduction = b""
        self._passed = 0
        self._hash = hashlib.new(PASSED_ALGORITHM)

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        view, at = memoryview(piece), self._passed
        self._passed += len(view)
        while self._headers:
            wanted = self.start + len(self._introduction)
            if self.start < 0 or wanted >= self._passed:
                return  # The file is no package, or the header before goes on beyond this piece.
            self._introduction += view[wanted - at : self.start + _INTRODUCTION.size - at]
            if len(self._introduction) < _INTRODUCTION.size:
                return
            self._pass_header()
        self._hash.update(view[max(0, self.start - at) :] if self.start > at else view)

    def _pass_header(self) -> None:
        """Go on after the header whose introduction has passed."""
        magic, entries, stored = _INTRODUCTION.unpack(self._introduction)
        if magic != _MAGIC or entries > HEADER_ENTRIES_LIMIT or stored > HEADER_DATA_LIMIT:
            self.start = -1
            return
        self.start += _INTRODUCTION.size + entries * _ENTRY.size + stored
        self._headers -= 1
        if self._headers:
            self.start += -self.start % 8
        self._introduction = b""

    @property
    def complete(self) -> bool:
        """True once both headers passed, so that what followed was hashed."""
        return not self._headers

    def payload_digest(self, start: int) -> str | None:
        """Return the hex digest of the payload; None if it does not begin at `start`."""
        return self._hash.hexdigest() if not self._headers and self.start == start else None
