"""A process's seccomp filter as the kernel holds it (ptrace(2), PTRACE_SECCOMP_GET_FILTER), and what it answers.

Only for x86_64, and for a root whose kernel has CONFIG_CHECKPOINT_RESTORE.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

ALLOW = 0x7FFF_0000
ERRNO = 0x0005_0000
ARCHITECTURE = 0xC000_003E
"""AUDIT_ARCH_X86_64."""

_SEIZE, _INTERRUPT, _DETACH, _GET_FILTER = 0x4206, 0x4207, 17, 0x420C
_Instruction = tuple[int, int, int, int]
_JUMPS = {
    0x00: lambda a, k: True,
    0x10: lambda a, k: a == k,
    0x20: lambda a, k: a > k,
    0x30: lambda a, k: a >= k,
    0x40: lambda a, k: bool(a & k),
}


def read_filter(pid: int) -> list[_Instruction]:
    """The program, code by code. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long

    def call(request: int, address: int = 0, data: object = None) -> int:
        result = libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), data)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(result)

    call(_SEIZE)
    try:
        call(_INTERRUPT)
        os.waitpid(pid, 0x4000_0000)
        count = call(_GET_FILTER)
        buffer = ctypes.create_string_buffer(8 * count)
        call(_GET_FILTER, 0, buffer)
    finally:
        call(_DETACH)
    return [struct.unpack_from("=HBBI", buffer, 8 * index) for index in range(count)]


def answer(program: Sequence[_Instruction], number: int, arguments: Sequence[int] = ()) -> int:
    """What the filter returns for a call (seccomp(2)); the classic BPF that libseccomp makes."""
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, ARCHITECTURE, 0, *words)
    accumulator, at = 0, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        match code & 0x07:
            case 0x00:
                accumulator = struct.unpack_from("=I", data, k)[0]
            case 0x04 if code & 0xF0 == 0x50:
                accumulator &= k
            case 0x05 if code & 0xF0 == 0x00:
                at += k
            case 0x05:
                at += yes if _JUMPS[code & 0xF0](accumulator, k) else no
            case 0x06:
                return k
            case _:
                raise NotImplementedError(hex(code))
