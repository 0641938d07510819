"""The filter of traced processes, run as the kernel would: asked of the tracer, admitted, or refused."""

from __future__ import annotations

import errno
import struct

import pytest

from pipeline.sandbox.traced.path_calls import PATH_CALLS
from pipeline.sandbox.traced.syscall_filter import filter_program
from pipeline.sandbox.traced.syscall_numbers import SYSCALL_NAMES, SYSCALL_NUMBERS

ALLOW, TRACE, ERROR, KILL = 0x7FFF0000, 0x7FF00000, 0x00050000, 0x80000000
X86_64, I386 = 0xC000003E, 0x40000003
PROGRAM = filter_program([*PATH_CALLS, "execve", "getuid"])


def verdict(name: str, *arguments: int, arch: int = X86_64, number: int | None = None) -> int:
    """Run the program on a call (networking/filter.rst of the kernel's documentation)."""
    words = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", SYSCALL_NUMBERS[name] if number is None else number, arch, 0, *words)
    code = list(struct.iter_unpack("HBBI", PROGRAM))
    at = held = 0
    while True:
        operation, yes, no, value = code[at]
        at += 1
        if operation == 0x20:
            (held,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:
            held &= value
        elif operation == 0x05:
            at += value
        elif operation == 0x06:
            return int(value)
        else:
            taken = {0x15: held == value, 0x25: held > value, 0x35: held >= value}[operation]
            at += yes if taken else no


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("read", (), ALLOW),
        ("mmap", (), ALLOW),
        ("futex_waitv", (), ALLOW),
        ("openat", (), TRACE),
        ("renameat2", (), TRACE),
        ("execve", (), TRACE),
        ("getuid", (), TRACE),
        ("mount", (), ERROR | errno.EPERM),
        ("unshare", (), ERROR | errno.EPERM),
        ("ptrace", (), ERROR | errno.EPERM),
        ("io_uring_setup", (), ERROR | errno.EPERM),
        ("clone", (17,), ALLOW),
        ("clone", (0x10000000,), ERROR | errno.ENOSYS),
        ("clone3", (), ERROR | errno.ENOSYS),
        ("openat2", (), ERROR | errno.ENOSYS),
        ("execveat", (), ERROR | errno.ENOSYS),
        ("sendmmsg", (), ERROR | errno.ENOSYS),
        ("socket", (1, 1, 0), ALLOW),
        ("socket", (2, 1, 6), ERROR | errno.EAFNOSUPPORT),
        ("socket", (10, 2, 0), ERROR | errno.EAFNOSUPPORT),
        ("socket", (16, 3, 0), ALLOW),
        ("socket", (16, 3, 9), ERROR | errno.EPROTONOSUPPORT),
        ("socket", (40, 1, 0), ERROR | errno.EAFNOSUPPORT),
        ("sendto", (3, 4096, 5, 0, 0, 0), ALLOW),
        ("sendto", (3, 4096, 5, 0, 4096, 16), TRACE),
        ("sendto", (3, 4096, 5, 0, 1 << 40, 16), TRACE),
        ("prctl", (4, 0), ERROR),
        ("prctl", (15, 4096), ALLOW),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), ERROR | errno.EPERM),
        ("ioctl", (0, 1 << 32 | 0x5412), ERROR | errno.EPERM),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x40000,), ERROR | errno.ENOSYS),
    ],
)
def test_verdicts(name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert verdict(name, *arguments) == expected


def test_calls_of_other_tables() -> None:
    assert verdict("read", arch=I386) == KILL
    assert verdict("read", number=0x40000000) == ERROR | errno.ENOSYS
    assert verdict("read", number=5000) == ERROR | errno.ENOSYS


def test_every_call_has_one_number() -> None:
    assert len(SYSCALL_NAMES) == len(SYSCALL_NUMBERS) > 370
    assert [SYSCALL_NUMBERS[one] for one in ("read", "openat", "rseq", "pidfd_send_signal", "fchmodat2")] == [
        0, 257, 334, 424, 452,
    ]  # fmt: skip
