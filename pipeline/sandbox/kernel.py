"""System calls without a Python 3.11 function: namespaces, mounts, openat2, prctl.

They are called by number or through libc. Numbers of calls added since 2019 are the same on every architecture
(asm-generic/unistd.h). Every function raises OSError with the kernel's errno.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x8_0000

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
OPENAT2_TRIES = 100
"""Attempts of openat2: of single ones 4 % met a rename while another process did nothing but rename files."""
_OPEN_TREE_CLONE = 0x1
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_AT_FDCWD = -100
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR_IDMAP = 0x10_0000

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def _checked(result: int, subject: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
    return result


def _call(number: int, subject: str, *arguments: object) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *words), subject)


def unshare(flags: int) -> None:
    """Give the *calling thread* new namespaces (unshare(2)).

    The process's other threads keep theirs.
    """
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(namespace: int, kind: int) -> None:
    """Move the calling thread into the namespace behind a descriptor (setns(2))."""
    _checked(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(kind)), "setns")


def die_with_parent() -> None:
    """Have this process killed when the thread that created it ends (PR_SET_PDEATHSIG)."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl")


def set_dumpable() -> None:
    """Allow this process's children to read its descriptors in /proc (PR_SET_DUMPABLE).

    The kernel forbids it when a process gains capabilities.
    """
    _checked(_libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1), 0, 0, 0), "prctl")


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """Mount a file system (mount(2))."""
    _checked(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options)
        ),
        f"{kind or 'mount'} at {target}",
    )


def idmapped_clone(source: Path | str, userns: int | None, *, read_only: bool) -> int:
    """Clone the mount at `source` with its IDs mapped; return a descriptor for `move_mount`.

    It is a detached copy of the mount that `source` lies on, rooted at `source`, its IDs mapped through the user
    namespace behind `userns` (None: not mapped).

    mount_setattr(2): the file system must support idmapped mounts; EINVAL says that it does not.
    """
    tree = _call(
        _OPEN_TREE,
        str(source),
        _AT_FDCWD,
        ctypes.c_char_p(os.fsencode(source)),
        _OPEN_TREE_CLONE | os.O_CLOEXEC,
    )
    bits = _MOUNT_ATTR_NODEV | (_MOUNT_ATTR_RDONLY if read_only else 0)
    attributes = _MountAttributes(set=bits)
    if userns is not None:
        attributes.set |= _MOUNT_ATTR_IDMAP
        attributes.userns = userns
    try:
        _call(
            _MOUNT_SETATTR,
            str(source),
            tree,
            ctypes.c_char_p(b""),
            _AT_EMPTY_PATH,
            ctypes.byref(attributes),
            ctypes.sizeof(attributes),
        )
    except OSError:
        os.close(tree)
        raise
    return tree


def move_mount(tree: int, target: Path | str) -> None:
    """Mount a detached mount at `target` (move_mount(2)) and close its descriptor."""
    try:
        _call(
            _MOVE_MOUNT,
            str(target),
            tree,
            ctypes.c_char_p(b""),
            _AT_FDCWD,
            ctypes.c_char_p(os.fsencode(target)),
            _MOVE_MOUNT_F_EMPTY_PATH,
        )
    finally:
        os.close(tree)


def openat2(folder: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open a path (openat2(2)); with RESOLVE_IN_ROOT, `folder` is the root for links and `..`.

    A `..` makes the kernel refuse with EAGAIN while anything on the machine is renamed or mounted: it is tried again.
    """
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    name = ctypes.c_char_p(os.fsencode(path))
    for _ in range(OPENAT2_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            return _call(_OPENAT2, path, folder, name, ctypes.byref(how), ctypes.sizeof(how))
    return _call(_OPENAT2, path, folder, name, ctypes.byref(how), ctypes.sizeof(how))
