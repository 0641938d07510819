"""Parts of downloads, kept under the digest of the whole, so that any run can resume them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Protocol, Self

from pipeline.digest import chunks

_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ORIGIN_LIMIT = 1 << 16
"""Bytes of an origin that are read: validators have less than 1 KiB."""


class PassingContent(Protocol):
    """A computation over a file's content while the file is copied into the store."""

    def update(self, piece: bytes | memoryview, /) -> object:
        """Take the next piece, from the file's first byte on. It is written and hashed already."""

    def copied(self, status: os.stat_result, /) -> None:
        """Take the status of the blob's file: all of it passed by, with its digest."""


class PartialDownload:
    """A partial download: its file, size and hash so far, and a file with its origin.

    Used in a `with` block, and loaded first. `passing` gets what is written, unless an earlier attempt has written a
    part. What is in a file's place, but is none or has other names, is removed: a damaged store must lead nowhere else.
    """

    def __init__(self, path: Path, passing: PassingContent | None) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self.passing = passing
        self._origin = Path(f"{path}.origin")
        self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    @property
    def digest(self) -> str:
        """The sha256 so far, in hex."""
        return self._hash.hexdigest()

    def load(self, limit: int) -> int:
        """Hash what an earlier attempt left, unless it has more than `limit` bytes; return its size."""
        self._handle = _open_single(self.path)
        if self._handle >= 0 and os.fstat(self._handle).st_size <= limit:
            with open(self._handle, "rb", closefd=False) as file:
                for piece in chunks(file):
                    self._add(piece)
        if self.size:
            self.passing = None
        return self.size

    def validator(self, url: str) -> str:
        """Return the validator that `url` gave for the partial content, if it came from there.

        For another mirror it means nothing: there the digest decides in the end.
        """
        try:
            handle = _open_single(self._origin)
            if handle < 0:
                return ""
            with os.fdopen(handle, "rb") as file:
                origin = json.loads(file.read(_ORIGIN_LIMIT))
        except (OSError, ValueError, RecursionError):
            return ""
        same = isinstance(origin, dict) and origin.get("url") == _url_digest(url)
        return str(origin.get("validator", "")) if same else ""

    def begin(self, offset: int, url: str, validator: str) -> None:
        """Prepare for content from `offset` on: the rest, or (0) all of it, which empties the file."""
        if offset != self.size:
            self.size = 0
            self._hash = hashlib.sha256()
        if self._handle < 0:
            self._handle = os.open(self.path, _APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        if not self.size:
            os.ftruncate(self._handle, 0)
            _remove(self._origin)
            if validator:
                with self._origin.open("x") as file:
                    file.write(json.dumps({"url": _url_digest(url), "validator": validator}))

    def write(self, piece: bytes | memoryview) -> None:
        """Write the next piece, and add it to size and hash."""
        left = memoryview(piece)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError as error:
            error.filename = os.fspath(self.path)
            raise
        self._add(piece)
        if self.passing is not None:
            self.passing.update(piece)

    def _add(self, piece: bytes | memoryview) -> None:
        self._hash.update(piece)
        self.size += len(piece)

    def place(self, target: Path) -> os.stat_result:
        """Rename the complete file to `target`; return the status that it has there."""
        os.fchmod(self._handle, 0o644)
        try:
            os.close(os.dup(self._handle))  # Where writes fail late (NFS, quota), closing any descriptor tells it.
        except OSError as error:
            error.filename = os.fspath(self.path)
            raise
        self.path.replace(target)
        status = os.fstat(self._handle)
        _remove(self._origin)
        return status

    def drop(self) -> None:
        """Remove both files."""
        _remove(self.path)
        _remove(self._origin)


def _open_single(path: Path) -> int:
    """Open a file to read and append, and return its descriptor; -1 if there is none.

    What is no file, such as a link or a FIFO, and a file that has other names are removed.
    """
    try:
        if _is_single(path.lstat()):
            handle = os.open(path, _APPEND)
            if _is_single(os.fstat(handle)):
                return handle
            os.close(handle)
    except FileNotFoundError:
        return -1
    _remove(path)
    return -1


def _is_single(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1  # Some file systems count none.


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        shutil.rmtree(path)


def _url_digest(url: str) -> str:
    """Return a digest by which URLs are compared: a URL on disk could contain a password."""
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()
