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

from pipeline.compression import crc32
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
    once by who `follow`s. Without `hashed` one of these hashes what stands in the file, and tells by `identify`.
    """

    def __init__(
        self,
        drafts: Path,
        place: Callable[[Digest], Path],
        kept: Callable[[Digest], None],
        expected: Digest | None,
        *,
        hashed: bool = True,
    ) -> None:
        self._drafts = drafts
        self._place = place
        self._kept = kept
        self._expected = expected
        self._hash = hashlib.sha256() if hashed else None
        self._checksum = 0
        self._found: Digest | None = None
        self._guard = threading.Lock()
        self._written: WrittenSize | None = None
        self._ended = False
        self._synced = False
        self.size = 0

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(dir=self._drafts, prefix="blob-")
        self._path = Path(name)
        self._file = os.fdopen(handle, "wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def write(self, *parts: bytes | bytearray | memoryview) -> int:
        """Write all bytes of the parts; return their number."""
        size = sum(len(data) for data in parts)
        with failing_at(self._path):
            for data in parts:
                self._file.write(data)
            self.size += size
            if self._written is not None:
                self._file.flush()
                self._written.grow(self.size)
        for data in parts:  # Writing them has brought them into the processor's cache, faster than sha256 does.
            if self._hash is not None:
                self._hash.update(data)
            else:
                self._checksum = crc32(data, self._checksum)
        return size

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

    def finish(self) -> None:
        """Sync the file, and have those who follow read its end; nothing is written any more."""
        self._end(whole=True)
        self._sync()

    def _sync(self) -> None:
        with failing_at(self._path):
            os.fchmod(self._file.fileno(), 0o644)
            sync_file(self._file)
        self._synced = True

    def identify(self, digest: Digest, *, size: int, checksum: int) -> None:
        """Take the digest of a blob that is not hashed from who followed it to its end.

        `checksum` is the CRC-32 of what was read with that digest. Raises VerificationError `digest-mismatch` if other
        bytes were written.
        """
        if (size, checksum) != (self.size, self._checksum):
            raise VerificationError(
                "digest-mismatch",
                f"{size} bytes with the checksum {checksum:08x} were read from {self._path},"
                f" {self.size} with {self._checksum:08x} were written",
                hint="run the command again; if it happens again, the disk or the machine's memory may be faulty",
            )
        self._found = digest

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        if self._found is not None:
            return self._found
        if self._hash is None:
            raise ValueError("nobody has hashed this blob")
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
                if not self._synced:
                    self._sync()
                self._path.replace(self._place(self.digest))
                self._kept(self.digest)
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            self._path.unlink(missing_ok=True)


def blob_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a blob's file; None if it is missing or not a regular file."""
    try:
        return status_stamp(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def stamp_of_whole(path: Path, digest: Digest) -> Stamp | None:
    """Hash a blob's file; return its stamp if it has this digest, None otherwise."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        before = status_stamp(os.fstat(handle))
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


def status_stamp(status: os.stat_result) -> Stamp | None:
    """Return the stamp of a file with this status; None if it is not a regular file."""
    if not stat.S_ISREG(status.st_mode):
        return None
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def copy_into(file: BinaryIO, target: BlobWriter) -> None:
    """Copy the rest of `file` into a blob's writer."""
    while data := file.read(CHUNK):
        target.write(data)
