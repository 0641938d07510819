"""Files of mirrors, written atomically: absent or complete, never changed afterwards.

They are readable by whoever serves them.

A file is written as a draft, synced, and renamed; it is never written to again, and shares its inode with no file
outside the mirror. A folder's new names are synced as well, before a tag leads to them. Locks are flock's, which the
kernel releases when a process dies: one on the folder of drafts is held while there are any, so that what killed
processes left is known to be theirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.beneath import Folder, LinkRefused, NotRegular
from pipeline.clone import clone_file
from pipeline.digest import Digest, HashingWriter, chunks
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.model.image import Descriptor
from pipeline.store import Store

SMALL_BLOB = 64 << 20
"""Bytes of a blob that is read into memory: the largest SBOM seen had 20 MB."""

_POLL = 0.05
"""Seconds between two looks at a lock that is waited for with a deadline."""

_DRAFT = "draft-"
"""Prefix of the names of drafts: other programs have theirs in the same folder of a layout."""


@contextlib.contextmanager
def mirror_errors(url: str) -> Iterator[None]:
    """Turn an OSError in this block into an EnvironmentLacking that names the mirror.

    An OSError is what the file system forbids.
    """
    try:
        yield
    except OSError as error:
        raise EnvironmentLacking(
            "mirror-unreachable",
            f"cannot access the mirror '{url}': {error}",
            place=url,
            hint="check its permissions and free space",
        ) from error


def open_without_links(root: Path, path: Path) -> BinaryIO | None:
    """Open a file below `root`; None if it is not there or is reached by a link.

    No mirror has a link there.
    """
    try:
        return Folder(root).open_without_links(path.relative_to(root))
    except (FileNotFoundError, NotADirectoryError, LinkRefused, NotRegular):
        return None


def make_folder(path: Path) -> None:
    """Make a folder that everybody may enter, with all missing ones above it.

    Their names survive a crash.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o755)
    sync_names(path.parent)


def make_drafts(path: Path) -> None:
    """Make the folder of drafts, for its owner alone.

    Whoever can read it can lock it and keep everybody waiting.
    """
    make_folder(path)
    if path.stat().st_mode & 0o077:
        with contextlib.suppress(PermissionError):
            path.chmod(0o700)


def sync_names(path: Path) -> None:
    """Names that were made in a folder survive a crash from now on."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(data: bytes, target: Path, drafts: Path, *, sync: bool = True) -> None:
    """Write `data` to `target` in one step, in place of what stood there.

    `drafts`: a folder of the same file system; `sync`: the name too survives a crash (else the caller syncs the folder
    before anything leads to it).
    """
    with _draft(drafts) as (draft, file):
        file.write(data)
        _settle(file)
        draft.replace(target)
    if sync:
        sync_names(target.parent)


def replace_symlink(destination: str, target: Path, drafts: Path, at: float) -> None:
    """Make `target` a symbolic link to `destination` in one step, replacing what was there.

    `at`: seconds since the epoch, which becomes the link's own time.
    """
    draft = drafts / f"{_DRAFT}{secrets.token_hex(8)}"
    with _drafting(drafts):
        try:
            draft.symlink_to(destination)
            os.utime(draft, (at, at), follow_symlinks=False)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    sync_names(target.parent)


def write_blob(descriptor: Descriptor, content: bytes | Path, target: Path, drafts: Path) -> None:
    """Write a blob to `target`, in place of what stood there, and hash its bytes meanwhile.

    The caller syncs the folder. Raises VerificationError `digest-mismatch` if `content` is not what `descriptor` says,
    `blob-missing` if it is not there.
    """
    if isinstance(content, bytes):
        check_digest(descriptor, Digest.of(content), len(content))
        replace_file(content, target, drafts, sync=False)
        return
    try:
        original = content.open("rb")
    except FileNotFoundError:
        raise missing_blob(descriptor, content) from None
    with original, _draft(drafts) as (draft, file):
        clone_file(original, file)
        file.seek(0)
        seen = HashingWriter()
        for piece in chunks(file):
            seen.write(piece)
        check_digest(descriptor, seen.digest, seen.size, content)
        _settle(file)
        draft.replace(target)


@contextlib.contextmanager
def _draft(drafts: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file among the drafts, to be renamed within the block."""
    with _drafting(drafts):
        handle, name = tempfile.mkstemp(dir=drafts, prefix=_DRAFT)
        draft = Path(name)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield draft, file
        finally:
            draft.unlink(missing_ok=True)


def _drafting(drafts: Path) -> contextlib.AbstractContextManager[None]:
    """Held while one has a draft: `sweep_drafts` waits for it, or leaves things as they are."""
    return _folder_locked(drafts, fcntl.LOCK_SH)


def sweep_drafts(drafts: Path, *, shared: bool) -> int:
    """Remove the drafts that killed processes left; return how many.

    If somebody has one at the moment, nothing is removed: then the next does it. `shared`: other programs have theirs
    in the folder too.
    """
    removed = 0
    with contextlib.suppress(BlockingIOError, FileNotFoundError), _folder_locked(drafts, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for path in list(drafts.iterdir()):
            if shared and not path.name.startswith(_DRAFT):
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            removed += 1
    return removed


@contextlib.contextmanager
def _folder_locked(folder: Path, kind: int) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)


def read_verified(path: Path, descriptor: Descriptor, limit: int = SMALL_BLOB) -> bytes:
    """Read a small blob and verify its digest.

    Raises VerificationError `blob-missing`, `blob-too-large`, `digest-mismatch`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise missing_blob(descriptor, path) from None
    if len(data) > limit:
        raise VerificationError("blob-too-large", f"{descriptor.digest} has more than {limit} bytes", place=str(path))
    check_digest(descriptor, Digest.of(data), len(data), path)
    return data


def check_verified(path: Path, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
    """Read a blob to its end, verify its digest, and keep nothing.

    `advance` is told of the bytes. Raises VerificationError `blob-missing`, `blob-damaged`.
    """
    seen = HashingWriter()
    try:
        with path.open("rb") as file:
            for piece in chunks(file):
                seen.write(piece)
                advance(len(piece))
    except FileNotFoundError:
        raise missing_blob(descriptor, path) from None
    check_digest(descriptor, seen.digest, seen.size, path, "blob-damaged")


def fetch_verified(path: Path, descriptor: Descriptor, store: Store) -> None:
    """Copy a blob of any size into the store.

    Raises VerificationError `blob-missing`, `digest-mismatch`.
    """
    if store.sound(descriptor.digest):
        return
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise missing_blob(descriptor, path) from None
    with file, store.writer(descriptor.digest) as blob:
        for piece in chunks(file):
            if blob.size + len(piece) > descriptor.size:
                raise VerificationError(
                    "digest-mismatch", f"{descriptor.digest} has more than {descriptor.size} bytes", place=str(path)
                )
            blob.write(piece)


@contextlib.contextmanager
def file_locked(path: Path, *, shared: bool = False, patience: float | None = None) -> Iterator[None]:
    """Hold the lock of a file against other processes and threads.

    The file is made if it is missing. `patience`: seconds after which TimeoutError is raised; None waits for as long as
    it takes.

    Whoever can read a file can lock it and keep everybody else waiting, so that is its owner alone.
    """
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


def _settle(file: BinaryIO) -> None:
    """Flush and sync a draft, and make it readable, before it is renamed.

    Without the sync, a crash after the rename can leave an empty file under a name that promises content.
    """
    file.flush()
    os.fchmod(file.fileno(), 0o644)
    os.fsync(file.fileno())


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
        )


def missing_blob(descriptor: Descriptor, path: Path) -> VerificationError:
    """The error of a blob that is wanted and not there."""
    return VerificationError("blob-missing", f"{descriptor.digest} not found", place=str(path))
