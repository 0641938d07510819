"""Run a command as in a Kubernetes pod: no root, no capability, no namespaces, no set-user-id programs.

    without_privileges.py UID COMMAND…

The filter refuses what makes namespaces and mounts, as a pod's does: unshare, setns, mount and clone with CLONE_NEWUSER
fail with EPERM, clone3 with ENOSYS.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_NO_NEW_PRIVS, _CAPBSET_DROP, _SET_SECCOMP = 38, 24, 22
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_REFUSED = (165, 166, 155, 272, 308, 428, 429, 430, 432, 442)
"""mount, umount2, pivot_root, unshare, setns, open_tree, move_mount, fsopen, fsmount, mount_setattr (x86_64)."""
_CLONE, _CLONE3 = 56, 435
_NEW_NAMESPACES = 0x7E020000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter() -> bytes:
    load, equal, bits, give = 0x20, 0x15, 0x45, 0x06
    made = [(load, 0, 0, 0)]
    for number in _REFUSED:
        made += [(equal, 0, 1, number), (give, 0, 0, _EPERM)]
    made += [(equal, 0, 1, _CLONE3), (give, 0, 0, _ENOSYS)]
    made += [(equal, 0, 3, _CLONE), (load, 0, 0, 16), (bits, 0, 1, _NEW_NAMESPACES), (give, 0, 0, _EPERM)]
    made.append((give, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *one) for one in made)


def main(uid: int, command: list[str]) -> None:
    """Drop everything and execute the command; root loses its capabilities when it does."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    program = _filter()
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _SET_SECCOMP, 2, ctypes.byref(_Program(len(program) // 8, program)), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
