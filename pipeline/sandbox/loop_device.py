"""Attach a file to a loop device (loop(4); the kernel's include/uapi/linux/loop.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

_CONTROL = Path("/dev/loop-control")
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_AUTOCLEAR = 4
_TRIES = 100
"""Attempts: another process may take the device that was free, and then the next one is asked for."""


def attach_loop_device(file: Path) -> tuple[Path, int]:
    """Attach `file` to a loop device; return its path and a descriptor that keeps it.

    The device is detached with its last user, mounts included, also when this process is killed. Raises OSError.
    """
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    control = -1
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        for _ in range(_TRIES):
            device = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
            handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(handle, _CONFIGURE, _configuration(backing, file.name))
            except OSError as error:
                os.close(handle)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, handle
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(_CONTROL))
    finally:
        os.close(backing)
        if control >= 0:
            os.close(control)


def _configuration(backing: int, name: str) -> bytes:
    """Pack a struct loop_config, which holds a struct loop_info64."""
    info = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, name.encode()[:63], b"", b"", 0, 0)
    return struct.pack("=II", backing, 4096) + info + bytes(64)
