"""Write a mirror's files and symlinks atomically; lock files with flock; remove old drafts.

A file is written as a draft (a temporary file in a folder of the mirror), synced, and renamed into place: it is absent
or complete, is never written to again, is readable by everybody, and shares its inode with no file outside the mirror.
The folder's new names are synced too, before a tag leads to them. Locks are flock's, which the kernel releases when a
process dies. Whoever has a draft holds a shared lock on the folder of drafts; one who gets it exclusively knows that
all drafts there were left by killed processes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from pipeline.beneath import Folder, LinkRefused, NotRegular, TooLarge, open_without_waiting
from pipeline.clone import CLONE_PIECE, clone_file
from pipeline.digest import CHUNK, Digest, HashingWriter
from pipeline.errors import EnvironmentLacking
from pipeline.mirror.verified_blobs import check_digest, missing_blob
from pipeline.model.image import Descriptor
from pipeline.system_errors import FULL_DISK

_POLL = 0.05
"""Seconds between two attempts to take a lock for which one waits with a timeout."""

_OUT_OF_PLACE = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
"""Errors of a file where a folder belongs, of a folder where a file does, and of a link."""

_DRAFT = "draft-"
"""Prefix of the names of drafts: in a layout, other programs have temporary files in the same folder."""


@contextlib.contextmanager
def mirror_errors(url: str, *, writes: bool = True) -> Iterator[None]:
    """Turn an OSError within the block into EnvironmentLacking `mirror-unreachable`.

    `disk-full` where the mirror's disk is full, or takes no file of that size, with the file that was written. `writes`
    False: the block writes elsewhere, as into a store, and such an error passes.
    """
    try:
        yield
    except OSError as error:
        if _is_refused_write(error) and not writes:
            raise
        path = str(error.filename2 or error.filename or url)
        if _exceeds_file_size(error):
            raise EnvironmentLacking(
                "disk-full",
                f"'{path}' of the mirror '{url}' is larger than a file may be: {error.strerror}",
                place=url,
                hint="`ulimit -f` shows the limit of this process: raise it; where there is none, the file system "
                "takes no file of that size: publish to another one",
            ) from error
        if error.errno in FULL_DISK:
            raise EnvironmentLacking(
                "disk-full",
                f"the disk of the mirror '{url}' is full while '{path}' is written: {error.strerror}",
                place=url,
                hint="free space on its file system, or publish to another one; `relbuild prune` removes images that "
                "the rules do not keep, after their time in quarantine",
            ) from error
        if isinstance(error, NotRegular) or error.errno in _OUT_OF_PLACE:
            raise EnvironmentLacking(
                "mirror-unreachable",
                f"cannot access the mirror '{url}': {error}",
                place=url,
                hint="something else is where a file or folder of the mirror belongs: `relbuild scrub MIRROR` puts it "
                "aside",
            ) from error
        if error.errno == errno.EXDEV and error.filename2 is not None:  # of a rename
            raise EnvironmentLacking(
                "mirror-unreachable",
                f"cannot access the mirror '{url}': {error}",
                place=url,
                hint="all its folders must be on one file system, as files are renamed into place: none of them can be "
                "a mount, or a link to another one",
            ) from error
        raise EnvironmentLacking(
            "mirror-unreachable",
            f"cannot access the mirror '{url}': {error}",
            place=url,
            hint="check its permissions and free space",
        ) from error


def _is_refused_write(error: OSError) -> bool:
    """Return whether what is full, or too small for a file, is the cause."""
    return error.errno in FULL_DISK or _exceeds_file_size(error)


def _exceeds_file_size(error: OSError) -> bool:
    """Return whether a file was written beyond a limit on its size (write(2), EFBIG)."""
    return error.errno == errno.EFBIG and not isinstance(error, TooLarge)


def open_without_links(root: Path, path: Path) -> BinaryIO | None:
    """Open a regular file below `root` for reading; None if missing or behind a symlink.

    Blobs and records of a mirror are never symbolic links.
    """
    try:
        return Folder(root).open_without_links(path.relative_to(root))
    except (FileNotFoundError, NotADirectoryError, LinkRefused, NotRegular):
        return None


def make_folder(path: Path) -> None:
    """Make a folder that everybody may enter, with its missing parents, and sync their names."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o755)
    sync_names(path.parent)


def make_drafts_folder(path: Path) -> None:
    """Make the folder of drafts, accessible to its owner alone.

    Whoever can open it can lock it, and so block all writers. Raises LinkRefused.
    """
    make_folder(path)
    mode = path.lstat().st_mode
    if not stat.S_ISDIR(mode):  # a link: what is where it leads would be swept
        raise LinkRefused(path)
    if mode & 0o077:
        with contextlib.suppress(PermissionError):
            path.chmod(0o700)


def sync_names(path: Path) -> None:
    """Sync a folder, so that the names made in it survive a crash."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(data: bytes, target: Path, drafts: Path, *, sync: bool = True) -> None:
    """Write `data` to `target` in one step, replacing what was there.

    `drafts`: a folder on the same file system; `sync`: sync the target's folder too (otherwise the caller does, before
    anything refers to the file).
    """
    with _draft(drafts, target) as (draft, file):
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
    """Write a blob to `target` in one step, replacing what was there, if its digest matches.

    The caller syncs the folder. Raises VerificationError `digest-mismatch` if `content` does not match `descriptor`,
    `blob-missing` if the file `content` is missing.
    """
    if isinstance(content, bytes):
        check_digest(descriptor, Digest.of(content), len(content))
        replace_file(content, target, drafts, sync=False)
        return
    try:
        original = content.open("rb")
    except FileNotFoundError:
        raise missing_blob(descriptor, content) from None
    with original, _draft(drafts, target) as (draft, file):
        seen = _copy_and_hash(original, file)
        check_digest(descriptor, seen.digest, seen.size, content)
        _settle(file)
        draft.replace(target)


def _copy_and_hash(original: BinaryIO, file: BinaryIO) -> HashingWriter:
    """Copy a file, and hash the copy: each piece of a large one while the next is copied."""
    seen = HashingWriter()

    def hash_to(end: int) -> None:
        while piece := os.pread(file.fileno(), min(CHUNK, end - seen.size), seen.size):
            seen.write(piece)

    if os.fstat(original.fileno()).st_size <= CLONE_PIECE:
        clone_file(original, file)
    else:
        with ThreadPoolExecutor(1, "hash") as pool:
            hashing: list[Future[None]] = []
            clone_file(original, file, lambda end: hashing.append(pool.submit(hash_to, end)))
            for one in hashing:
                one.result()
    hash_to(sys.maxsize)  # all of it where blocks are shared
    return seen


@contextlib.contextmanager
def _draft(drafts: Path, target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Make a draft of `target` and open it; the block renames it, or it is removed.

    An OSError of a refused write names `target`: write and fsync name no file.
    """
    with _drafting(drafts):
        handle, name = tempfile.mkstemp(dir=drafts, prefix=_DRAFT)
        draft = Path(name)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield draft, file
        except OSError as error:
            if _is_refused_write(error) and error.filename is None:
                error.filename = str(target)
            raise
        finally:
            draft.unlink(missing_ok=True)


def _drafting(drafts: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the shared lock of those who have drafts: meanwhile `sweep_drafts` removes nothing."""
    return _folder_locked(drafts, fcntl.LOCK_SH)


def sweep_drafts(drafts: Path, *, shared: bool) -> int:
    """Remove the drafts that killed processes left; return how many.

    Nothing is removed while any process has a draft: a later call does it. `shared`: other programs have temporary
    files in the folder too, which are left alone.
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


@contextlib.contextmanager
def folder_locked_at_once(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock within the block, which is told False if another process holds it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_folder_locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def file_locked(path: Path, *, shared: bool = False, timeout: float | None = None) -> Iterator[None]:
    """Hold flock's lock on a file within the block, against other processes and threads.

    `shared`: others can hold it shared too. `timeout`: seconds until TimeoutError is raised; None waits without limit.

    The file is made if it is missing, readable by its owner alone: whoever can open it can lock it and so block all
    others.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    handle = open_without_waiting(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise NotRegular(path, mode)
        if timeout is None:
            fcntl.flock(handle, kind)
        else:
            deadline = time.monotonic() + timeout
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
    """Flush and sync a draft and make it readable by everybody, before it is renamed.

    Without the sync, a crash after the rename can leave an empty file under the final name.
    """
    file.flush()
    os.fchmod(file.fileno(), 0o644)
    os.fsync(file.fileno())
