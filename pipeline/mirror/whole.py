"""Files of mirrors that are files: absent or whole, in place for good, readable by whoever serves them.

A file is written as a draft, synced, and renamed; it is never written to again, so a hard link to it is a copy. Locks
are flock's, which the kernel releases when a process dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.beneath import Folder, LinkRefused, NotRegular
from pipeline.digest import CHUNK, Digest, HashingWriter, chunks, digest_file
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.repository import Arrival
from pipeline.model.image import Descriptor
from pipeline.store import Store

SMALL_BLOB = 64 << 20
"""Bytes of a blob that is read into memory: the largest SBOM seen had 20 MB."""

_POLL = 0.05
"""Seconds between two looks at a lock that is waited for with a deadline."""

_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """What the file system forbids in this block becomes an EnvironmentLacking that names the mirror."""
    try:
        yield
    except OSError as error:
        raise EnvironmentLacking(
            "mirror-unreachable",
            f"{url} cannot be used: {error}",
            place=url,
            hint="look at its permissions and at the space that is left",
        ) from error


def open_unlinked(root: Path, path: Path) -> BinaryIO | None:
    """Open a file below `root`; None if it is not there, or if a link stands in the way: no mirror has one there."""
    try:
        return Folder(root).open_unlinked(path.relative_to(root))
    except (FileNotFoundError, NotADirectoryError, LinkRefused, NotRegular):
        return None


def make_folder(path: Path) -> None:
    """A folder that everybody may enter, with all above it that are missing."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o755)


def sync_folder(path: Path) -> None:
    """Names that were made in a folder survive a crash from now on."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(data: bytes, target: Path, drafts: Path) -> None:
    """Put `data` at `target`, in place of what stood there, in one step. `drafts`: a folder of the same file
    system."""
    handle, name = tempfile.mkstemp(dir=drafts)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            _settle(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def point_whole(destination: str, target: Path, drafts: Path, at: float) -> None:
    """Make `target` a symbolic link to `destination`, in place of what stood there, in one step. `at`: seconds since
    the epoch, which becomes the link's own time."""
    draft = drafts / f"link-{secrets.token_hex(8)}"
    try:
        draft.symlink_to(destination)
        os.utime(draft, (at, at), follow_symlinks=False)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def bring_blob(descriptor: Descriptor, content: bytes | Path, target: Path, drafts: Path) -> Arrival:
    """Make sure that a blob stands at `target`. Raises VerificationError `digest-mismatch` if `content` is not what
    `descriptor` says, `blob-missing` if it is not there.

    A file that is called by its digest, as those of stores and layouts are, is never rewritten and so is linked where
    that can be; any other is copied. Both are read and hashed first. Something of another size under the blob's name
    was damaged by others, and is replaced.
    """
    with contextlib.suppress(FileNotFoundError):
        if target.stat().st_size == descriptor.size:
            return Arrival.PRESENT
        target.unlink()
    if isinstance(content, bytes):
        _check(descriptor, Digest.of(content), len(content))
        write_whole(content, target, drafts)
    elif not content.exists():
        raise _missing(descriptor, content)
    elif not _link(descriptor, content, target):
        _copy(descriptor, content, target, drafts)
    return Arrival.UPLOADED


def read_verified(path: Path, descriptor: Descriptor, limit: int = SMALL_BLOB) -> bytes:
    """A small blob's bytes. Raises VerificationError `blob-missing`, `blob-too-large`, `digest-mismatch`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise _missing(descriptor, path) from None
    if len(data) > limit:
        raise VerificationError("blob-too-large", f"{descriptor.digest} has more than {limit} bytes", place=str(path))
    _check(descriptor, Digest.of(data), len(data), path)
    return data


def check_verified(path: Path, descriptor: Descriptor) -> None:
    """Read a blob to its end and keep nothing. Raises VerificationError `blob-missing`, `blob-damaged`."""
    seen = HashingWriter()
    try:
        with path.open("rb") as file:
            for piece in chunks(file):
                seen.write(piece)
    except FileNotFoundError:
        raise _missing(descriptor, path) from None
    _check(descriptor, seen.digest, seen.size, path, "blob-damaged")


def fetch_verified(path: Path, descriptor: Descriptor, store: Store) -> None:
    """Copy a blob of any size into the store. Raises VerificationError `blob-missing`, `digest-mismatch`."""
    if store.sound(descriptor.digest):
        return
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise _missing(descriptor, path) from None
    with file, store.writer(descriptor.digest) as blob:
        for piece in chunks(file):
            if blob.size + len(piece) > descriptor.size:
                raise VerificationError(
                    "digest-mismatch", f"{descriptor.digest} has more than {descriptor.size} bytes", place=str(path)
                )
            blob.write(piece)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, patience: float | None = None) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is missing, against other processes and threads. `patience`:
    seconds after which TimeoutError is raised; None waits for as long as it takes.

    Whoever can read a file can lock it and keep everybody else waiting, so that is its owner alone."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if patience is None:
            fcntl.flock(handle, kind)
        else:
            deadline = time.monotonic() + patience
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(handle, kind | fcntl.LOCK_NB)
                    break
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{path} is locked")
                time.sleep(_POLL)
        yield
    finally:
        os.close(handle)


def _link(descriptor: Descriptor, source: Path, target: Path) -> bool:
    """Linked, or it stands there already; False if it has to be copied."""
    if source.name != descriptor.digest.hex or source.is_symlink():
        return False
    with source.open("rb") as file:
        found = os.fstat(file.fileno())
        # Whoever serves it may be anybody, and nobody but its owner may change it.
        if found.st_mode & 0o444 != 0o444 or found.st_mode & 0o022 or found.st_uid != os.geteuid():
            return False
        if found.st_dev != target.parent.stat().st_dev:
            return False
        _check(descriptor, digest_file(source), found.st_size, source)
        os.fsync(file.fileno())  # A store syncs nothing; under a published name there must never be less.
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _copy(descriptor: Descriptor, source: Path, target: Path, drafts: Path) -> None:
    handle, name = tempfile.mkstemp(dir=drafts)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=CHUNK) as file:
            writer = HashingWriter(file)
            with source.open("rb") as original:
                for piece in chunks(original):
                    writer.write(piece)
            _check(descriptor, writer.digest, writer.size, source)
            file.flush()
            _settle(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _settle(handle: int) -> None:
    """Without the sync, a crash after the rename can leave an empty file under a name that promises content."""
    os.fchmod(handle, 0o644)
    os.fsync(handle)


def _check(
    descriptor: Descriptor, digest: Digest, size: int, place: Path | None = None, code: str = "digest-mismatch"
) -> None:
    if digest != descriptor.digest or size != descriptor.size:
        raise VerificationError(
            code,
            f"expected {descriptor.digest} ({descriptor.size} bytes), got {digest} ({size} bytes)",
            place=str(place) if place else None,
        )


def _missing(descriptor: Descriptor, path: Path) -> VerificationError:
    return VerificationError("blob-missing", f"{descriptor.digest} is not there", place=str(path))
