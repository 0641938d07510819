"""Write blobs into the store, hash them, and read their files' stamps, which reveal changes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pipeline.digest import CHUNK, Digest
from pipeline.errors import VerificationError
from pipeline.store.blob_follower import BlobFollower, WrittenSize
from pipeline.store.durable_files import failing_at, sync_file

Stamp = list[int]
"""Size, inode, modification and change time in nanoseconds. The kernel sets the change time with every change of
content or attributes, and nobody else can: with an equal stamp, a file is unchanged."""


class BlobWriter:
    """Writer of one blob: `write` its bytes in a `with` block, whose end puts it, synced.

    Nothing is kept if the block raises. With `expected`, other content raises VerificationError `digest-mismatch`.
    `place` returns the path of a digest; `kept` is called with the digest afterwards. What is written can be read at
    once by who `follow`s.
    """

    def __init__(
        self, drafts: Path, place: Callable[[Digest], Path], kept: Callable[[Digest], None], expected: Digest | None
    ) -> None:
        self._drafts = drafts
        self._place = place
        self._kept = kept
        self._expected = expected
        self._hash = hashlib.sha256()
        self._guard = threading.Lock()
        self._written: WrittenSize | None = None
        self._ended = False
        self.size = 0

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(dir=self._drafts, prefix="blob-")
        self._path = Path(name)
        self._file = os.fdopen(handle, "wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def write(self, data: bytes | memoryview, /) -> int:
        """Write all of `data`; return its length."""
        self._hash.update(data)
        with failing_at(self._path):
            self._file.write(data)
            self.size += len(data)
            if self._written is not None:
                self._file.flush()
                self._written.grow(self.size)
        return len(data)

    def follow(self) -> BlobFollower | None:
        """Return a reader of the file that is written; None if all is written. For any thread."""
        with self._guard:
            if self._ended:
                return None
            self._written = self._written or WrittenSize()
            return BlobFollower(os.dup(self._file.fileno()), self._written)

    def _end(self, *, whole: bool) -> None:
        with self._guard:
            self._ended = True
            if self._written is None:
                return
            try:
                with failing_at(self._path):
                    self._file.flush()
                self._written.grow(self.size)
            except BaseException:
                whole = False
                raise
            finally:
                self._written.end(whole=whole)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest(self._hash.hexdigest())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(whole=error is None)
            if error is None:
                if self._expected is not None and self.digest != self._expected:
                    raise VerificationError(
                        "digest-mismatch", f"expected {self._expected}, got {self.digest} ({self.size} bytes)"
                    )
                with failing_at(self._path):
                    os.fchmod(self._file.fileno(), 0o644)
                    sync_file(self._file)
                self._path.replace(self._place(self.digest))
                self._kept(self.digest)
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            self._path.unlink(missing_ok=True)


def blob_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a blob's file; None if it is missing or not a regular file."""
    try:
        return _stamp(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def stamp_of_whole(path: Path, digest: Digest) -> Stamp | None:
    """Hash a blob's file; return its stamp if it has this digest, None otherwise."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        before = _stamp(os.fstat(handle))
        if before is None:
            os.close(handle)
            return None
        with os.fdopen(handle, "rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == digest.hex
        # If the file was changed meanwhile, this stamp does not match it any more.
        return before if whole else None
    except OSError as error:
        if error.errno in _NO_BLOB:
            return None
        raise


_NO_BLOB = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EIO)
"""The file is missing, a symlink, a pipe, or unreadable on disk."""


def _stamp(status: os.stat_result) -> Stamp | None:
    if not stat.S_ISREG(status.st_mode):
        return None
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def copy_into(file: BinaryIO, target: BlobWriter) -> None:
    """Copy the rest of `file` into a blob's writer."""
    while data := file.read(CHUNK):
        target.write(data)
