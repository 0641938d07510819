"""Read a blob's file and verify digest and size: into memory, into the store, or as a check.

For the kinds of mirror that are folders of this machine.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pipeline.beneath import open_without_waiting
from pipeline.digest import Digest, HashingWriter, chunks
from pipeline.errors import VerificationError
from pipeline.mirror.references import HEALED_BY_SCRUB
from pipeline.model.image import Descriptor
from pipeline.store import Store

SMALL_BLOB = 64 << 20
"""Bytes of a blob that is read into memory: the largest SBOM seen had 20 MB."""


def read_verified(path: Path, descriptor: Descriptor, limit: int = SMALL_BLOB) -> bytes:
    """Read a blob of at most `limit` bytes into memory and verify digest and size.

    Raises VerificationError `blob-missing`, `blob-too-large`, `digest-mismatch`.
    """
    with _opened(path, descriptor, "digest-mismatch") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise VerificationError("blob-too-large", f"{descriptor.digest} has more than {limit} bytes", place=str(path))
    check_digest(descriptor, Digest.of(data), len(data), path)
    return data


def check_verified(path: Path, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
    """Read a blob of any size, verify digest and size, and keep nothing.

    `advance` is called with the number of bytes of each piece. Raises VerificationError `blob-missing`, `blob-damaged`.
    """
    seen = HashingWriter()
    with _opened(path, descriptor, "blob-damaged") as file:
        for piece in chunks(file):
            seen.write(piece)
            advance(len(piece))
            if seen.size > descriptor.size:
                break
    check_digest(descriptor, seen.digest, seen.size, path, "blob-damaged")


def fetch_verified(path: Path, descriptor: Descriptor, store: Store) -> None:
    """Copy a blob of any size into the store, which verifies its digest; nothing if it is there.

    Raises VerificationError `blob-missing`, `digest-mismatch`.
    """
    if store.sound(descriptor.digest):
        return
    with _opened(path, descriptor, "digest-mismatch") as file, store.writer(descriptor.digest) as blob:
        for piece in chunks(file):
            if blob.size + len(piece) > descriptor.size:
                raise VerificationError(
                    "digest-mismatch", f"{descriptor.digest} has more than {descriptor.size} bytes", place=str(path)
                )
            blob.write(piece)


def _opened(path: Path, descriptor: Descriptor, code: str) -> BinaryIO:
    """Open a blob's file without waiting for it, as for a FIFO that somebody planted.

    Raises VerificationError `blob-missing`, or `code` if it is no regular file.
    """
    try:
        handle = open_without_waiting(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise missing_blob(descriptor, path) from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise
        raise _no_file(path, descriptor, code) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_file(path, descriptor, code)
    return os.fdopen(handle, "rb")


def _no_file(path: Path, descriptor: Descriptor, code: str) -> VerificationError:
    return VerificationError(code, f"{descriptor.digest} is no regular file", place=str(path), hint=HEALED_BY_SCRUB)


def check_digest(
    descriptor: Descriptor, digest: Digest, size: int, place: Path | None = None, code: str = "digest-mismatch"
) -> None:
    """Compare the digest and size of read bytes with what `descriptor` says.

    Raises VerificationError `code` if they differ.
    """
    if digest != descriptor.digest or size != descriptor.size:
        raise VerificationError(
            code,
            f"expected {descriptor.digest} ({descriptor.size} bytes), got {digest} ({size} bytes)",
            place=str(place) if place else None,
            hint=HEALED_BY_SCRUB,
        )


def missing_blob(descriptor: Descriptor, path: Path) -> VerificationError:
    """Make the error of a blob whose file is missing."""
    return VerificationError("blob-missing", f"{descriptor.digest} not found", place=str(path), hint=HEALED_BY_SCRUB)
