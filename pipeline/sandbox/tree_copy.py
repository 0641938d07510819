"""Copy a directory of an image with owners, attributes and links, to fill a new volume."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pipeline.digest import CHUNK
from pipeline.errors import BuildError
from pipeline.lazy_dataclasses import dataclass

_UNFINISHED_PREFIX = ".half-"
"""Prefix of the names of directories that are being filled; no volume's name begins with a dot."""

_CAPABILITY = "security.capability"
_REVISION_3, _REVISION_2 = (3 << 24, 2 << 24)
"""Revisions of `security.capability` (the kernel's include/uapi/linux/capability.h): with and without a root ID."""


def copy_tree(source: int, target: int, *, limit: int, shift: int = 0) -> int:
    """Copy the content of the directory `source` into the directory `target` (descriptors).

    Copies keep owner, mode, times and the attributes that an image can have (capabilities and `user.*`), symlinks and
    hard links among them; devices and sockets are left out. `shift` is subtracted from the owners. Returns the bytes
    copied.

    Raises BuildError `volume-too-large` beyond `limit` bytes, OSError.
    """
    copying = _TreeCopy(target, limit, shift)
    copying.folder(source, target, "")
    return limit - copying.left


def copy_attributes(handle: int, source: int, shift: int = 0) -> None:
    """Copy owner (less `shift`), mode, extended attributes and times from `source` to `handle`.

    `handle` is an open file or directory; `source` may be a descriptor that only names it (O_PATH).
    """
    status = os.fstat(source)
    # Owners first: chown clears set-id bits and capabilities.
    os.fchown(handle, status.st_uid - shift, status.st_gid - shift)
    os.fchmod(handle, stat.S_IMODE(status.st_mode))
    for name, value in _attributes(source):
        try:
            os.setxattr(handle, name, value)
        except OSError as error:
            # A file system without attributes, such as an older kernel's tmpfs.
            if error.errno != errno.ENOTSUP:
                raise
    os.utime(handle, ns=(status.st_mtime_ns, status.st_mtime_ns))


def create_copy(folder: Path, source: int, *, limit: int, shift: int) -> None:
    """Create `folder` atomically as a copy of the directory `source`, unless it exists.

    It gets the content, owner and mode of `source`. Concurrent callers wait for the first.

    Raises what `copy_tree` raises.
    """
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder.parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        # A process that fills one holds the lock, so an unfinished one was left by a killed process.
        for left in folder.parent.glob(f"{_UNFINISHED_PREFIX}*"):
            shutil.rmtree(left)
        half = folder.parent / f"{_UNFINISHED_PREFIX}{secrets.token_hex(4)}"
        half.mkdir(mode=0o755)
        try:
            with _opened(half) as target:
                copy_tree(source, target, limit=limit, shift=shift)
                copy_attributes(target, source, shift)
            half.rename(folder)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
    finally:
        os.close(lock)


@dataclass(slots=True)
class _TreeCopy:
    """The state of one recursive copy.

    `top` is a descriptor of the target, `left` the bytes that may still be copied; `linked` are copied files with
    several names: their path below `top`, by device and inode.
    """

    top: int
    left: int
    shift: int
    linked: dict[tuple[int, int], str] = field(default_factory=dict)

    def folder(self, source: int, target: int, path: str) -> None:
        with os.scandir(f"/proc/self/fd/{source}") as entries:
            for entry in sorted(entries, key=lambda found: found.name):
                self._entry(entry, source, target, path)

    def _entry(self, entry: os.DirEntry[str], source: int, target: int, path: str) -> None:
        status = entry.stat(follow_symlinks=False)
        name, inner_path = entry.name, f"{path}/{entry.name}".lstrip("/")
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            with _opened(name, source) as inner, _opened(name, target) as outer:
                self.folder(inner, outer, inner_path)
                copy_attributes(outer, inner, self.shift)
            return
        # On overlayfs all hard links of a file have one inode number, as long as it was not written to.
        identity = (status.st_dev, status.st_ino)
        known = self.linked.get(identity)
        if known is not None:
            os.link(known, name, src_dir_fd=self.top, dst_dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISREG(status.st_mode):
            self._file(name, source, target, status)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            self._own(name, target, status)
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=target)
            self._own(name, target, status)
        else:
            return
        if status.st_nlink > 1:
            self.linked[identity] = inner_path

    def _file(self, name: str, source: int, target: int, status: os.stat_result) -> None:
        if status.st_size > self.left:
            raise BuildError("volume-too-large", f"the image's content of the volume exceeds the limit at '{name}'")
        self.left -= status.st_size
        inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            outer = os.open(name, made, 0o600, dir_fd=target)
            try:
                while os.sendfile(outer, inner, None, CHUNK):
                    pass
                copy_attributes(outer, inner, self.shift)
            finally:
                os.close(outer)
        finally:
            os.close(inner)

    def _own(self, name: str, target: int, status: os.stat_result) -> None:
        uid, gid = status.st_uid - self.shift, status.st_gid - self.shift
        os.chown(name, uid, gid, dir_fd=target, follow_symlinks=False)


def _attributes(handle: int) -> list[tuple[str, bytes]]:
    """Return the extended attributes that an image can have.

    Capabilities are converted to revision 2, without the ID of a namespace's root.
    """
    # By a path: fgetxattr does not work on an O_PATH descriptor.
    path = f"/proc/self/fd/{handle}"
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listxattr(path)):
            if name == _CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay.")):
                value = os.getxattr(path, name)
                found.append((name, _as_revision_2(value) if name == _CAPABILITY else value))
    return found


def _as_revision_2(capability: bytes) -> bytes:
    magic = int.from_bytes(capability[:4], "little")
    if magic & 0xFF000000 != _REVISION_3:
        return capability
    return (magic & 0x00FFFFFF | _REVISION_2).to_bytes(4, "little") + capability[4:20]


@contextlib.contextmanager
def _opened(path: str | Path, folder: int | None = None) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)
