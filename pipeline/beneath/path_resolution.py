"""Resolve a name below a folder to a descriptor: by openat2(2), or component by component."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from pipeline.beneath.open_errors import PathEscape

LINK_LIMIT: Final = 40
"""Links that one name may lead through, as in the kernel (MAXSYMLINKS)."""
PART_LIMIT: Final = 1024
"""Components of one name, with those of the links that it leads through."""
PATH_FLAGS: Final = os.O_PATH | os.O_CLOEXEC
"""Flags of open(2) for a descriptor of a path, without opening what is there."""

_OPENAT2: Final = 437
"""Number of the system call, the same on every architecture."""
_NO_MAGIC_LINKS: Final = 0x02
_BENEATH: Final = 0x08
_TRIES: Final = 8
"""Attempts while openat2 fails with EAGAIN, because something was renamed meanwhile."""
_LEASE_TIME: Final = 60.0
"""Seconds for which a lease is waited for without /proc: more than the kernel lets a holder keep it by default (45)."""
_POLL: Final = 0.02
"""Seconds between two attempts meanwhile."""


def open_without_waiting(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """Open a file without waiting for it, as for a FIFO that somebody planted.

    A regular file on which another process has a lease (fcntl(2), F_SETLEASE: Samba's oplocks, the delegations of an
    NFS server) is waited for: the kernel takes the lease back within /proc/sys/fs/lease-break-time seconds.
    """
    try:
        return os.open(path, flags | os.O_NONBLOCK, mode, dir_fd=dir_fd)
    except BlockingIOError:
        seen = os.open(path, PATH_FLAGS | (flags & os.O_NOFOLLOW), dir_fd=dir_fd)
        try:
            if not stat.S_ISREG(os.fstat(seen).st_mode):
                raise
            return _open_leased(seen, flags, lambda: os.open(path, flags | os.O_NONBLOCK, mode, dir_fd=dir_fd))
        finally:
            os.close(seen)


def _open_leased(seen: int, flags: int, again: Callable[[], int]) -> int:
    """Open a regular file, whose O_PATH descriptor is `seen`, when its lease is given back.

    What was looked at is opened, and not what may be there by now. Without /proc, `again` is tried, which must not
    wait for a FIFO that is there by now. Raises BlockingIOError if the lease is kept.
    """
    try:
        return os.open(f"/proc/self/fd/{seen}", flags & ~(os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CREAT))
    except FileNotFoundError:
        deadline = time.monotonic() + _LEASE_TIME
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                return again()
            time.sleep(_POLL)
        return again()


# --- by the kernel -------------------------------------------------------------------------------


@cache
def _system_call() -> Callable[[int, str, int], tuple[int, int]]:
    """Return openat2 as a function of folder, name and flags.

    It returns the descriptor and errno. It is made when needed, because importing ctypes takes long.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def call(folder: int, name: str, flags: int) -> tuple[int, int]:
        how = struct.pack("=QQQ", flags, 0, _BENEATH | _NO_MAGIC_LINKS)  # struct open_how
        handle = libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(os.fsencode(name)),
            ctypes.c_char_p(how),
            ctypes.c_size_t(len(how)),
        )
        return int(handle), ctypes.get_errno()

    return call


def _openat2(folder: int, name: str, flags: int) -> int:
    handle, number = _system_call()(folder, name, flags)
    if handle < 0:
        raise OSError(number, os.strerror(number), name)
    return handle


@cache
def kernel_resolves() -> bool:
    """Return whether openat2 works here.

    An old kernel fails with ENOSYS, and an old seccomp filter with EPERM.
    """
    top = os.open("/", PATH_FLAGS | os.O_DIRECTORY)
    try:
        os.close(_openat2(top, ".", PATH_FLAGS))
    except OSError:
        return False
    finally:
        os.close(top)
    return True


def _encodes(name: str) -> bool:
    """Return whether a file can have that name.

    A lone surrogate that is no escaped byte cannot be in one.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def open_below(top: int, folder: Path, name: str, flags: int) -> int:
    """Open `name` below the folder `top`, whose path is `folder`."""
    if not name or "\0" in name or not _encodes(name):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder / ascii(name)))
    if not kernel_resolves():
        return _walk(top, folder, name, flags)
    for _ in range(_TRIES):
        try:
            return _openat2(top, name, flags)
        except BlockingIOError:
            handle = _open_leased_below(top, folder, name, flags)
            if handle is not None:
                return handle
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.ELOOP):
                break
            raise OSError(error.errno, error.strerror, str(folder / name)) from None
    # The kernel refused: walk the path to raise with the link's name. If the walk succeeds, a component was replaced
    # meanwhile, or is a link of /proc, and it stays refused.
    os.close(_walk(top, folder, name, PATH_FLAGS))
    raise PathEscape(folder, name, name, "a target that changes between lookups")


def _open_leased_below(top: int, folder: Path, name: str, flags: int) -> int | None:
    """Open a regular file when its lease is given back; None if something was renamed instead."""
    if flags & os.O_PATH:
        return None
    try:
        seen = _openat2(top, name, PATH_FLAGS)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(seen).st_mode):
            return None
        return _open_leased(seen, flags, lambda: _openat2(top, name, flags))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder / name)) from None
    finally:
        os.close(seen)


# --- component by component ----------------------------------------------------------------------


def _walk(top: int, folder: Path, name: str, flags: int) -> int:
    """Open `name` as openat2 does, a component at a time.

    The folders above the current one are kept open, so that `..` cannot lead elsewhere after a rename.
    """
    if name.startswith("/"):
        raise PathEscape(folder, name, "", name)
    waiting = [part for part in reversed(name.split("/")) if part not in ("", ".")]
    want_folder = name.endswith(("/", "/."))
    above: list[tuple[int, str]] = [(os.dup(top), "")]
    links = parts = 0
    via = ("", "")
    try:
        while waiting:
            parts += 1
            part = waiting.pop()
            if parts > PART_LIMIT:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(folder / name))
            if part == "..":
                if len(above) == 1:
                    raise PathEscape(folder, name, *via)
                os.close(above.pop()[0])
                continue
            here, shown = above[-1]
            where = f"{shown}{part}"
            try:
                handle = os.open(part, PATH_FLAGS | os.O_NOFOLLOW, dir_fd=here)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder / where)) from None
            mode = os.fstat(handle).st_mode
            if stat.S_ISLNK(mode):
                try:
                    target = os.readlink("", dir_fd=handle)
                finally:
                    os.close(handle)
                links += 1
                if links > LINK_LIMIT:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder / name))
                if target.startswith("/"):
                    raise PathEscape(folder, name, where, target)
                via = (where, target)
                want_folder = want_folder or (not waiting and target.endswith(("/", "/.")))
                waiting += [one for one in reversed(target.split("/")) if one not in ("", ".")]
                continue
            if not waiting and not (want_folder and not stat.S_ISDIR(mode)):
                try:
                    return _last(here, part, handle, flags)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, str(folder / where)) from None
            if not stat.S_ISDIR(mode):
                os.close(handle)
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder / where))
            above.append((handle, f"{where}/"))
        return os.open(".", flags, dir_fd=above[-1][0])
    finally:
        for handle, _ in above:
            os.close(handle)


def _last(folder: int, part: str, seen: int, flags: int) -> int:
    """Open the last component with `flags`; `seen` is its O_PATH descriptor.

    `seen` is returned or closed.
    """
    if flags == PATH_FLAGS:
        return seen
    try:
        handle = open_without_waiting(part, flags | os.O_NOFOLLOW, dir_fd=folder)
        if not os.path.samestat(os.fstat(handle), os.fstat(seen)):
            os.close(handle)
            raise OSError(errno.EAGAIN, "it was exchanged meanwhile")
        return handle
    finally:
        os.close(seen)
