"""The smallest programs for x86_64 and aarch64, made without a compiler: ELF executables that need no library."""

from __future__ import annotations

import struct

_BASE = 0x400000
_HEADERS = 64 + 56

_SERVE = {
    "x86_64": bytes.fromhex(
        "b801000000"  # mov eax, SYS_write
        "bf01000000"  # mov edi, 1
        "488d3510000000"  # lea rsi, [text]
        "ba08000000"  # mov edx, 8
        "0f05"  # syscall
        "b822000000"  # again: mov eax, SYS_pause
        "0f05"  # syscall
        "ebf7"  # jmp again
    ),
    "aarch64": struct.pack(
        "<12I",
        0xD2800020,  # mov x0, #1
        0x10000161,  # adr x1, text
        0xD2800102,  # mov x2, #8
        0xD2800808,  # mov x8, #SYS_write
        0xD4000001,  # svc #0
        0xD2800000,  # again: mov x0, #0
        0xD2800001,  # mov x1, #0
        0xD2800002,  # mov x2, #0
        0xD2800003,  # mov x3, #0
        0xD2800928,  # mov x8, #SYS_ppoll
        0xD4000001,  # svc #0
        0x17FFFFFA,  # b again
    ),
}
_EXIT = {
    "x86_64": bytes.fromhex("b83c00000031ff0f05"),  # mov eax, SYS_exit; xor edi, edi; syscall
    "aarch64": struct.pack("<3I", 0xD2800000, 0xD2800BA8, 0xD4000001),  # mov x0, #0; mov x8, #SYS_exit; svc #0
}
_MACHINES = {"x86_64": 62, "aarch64": 183}


def server(arch: str) -> bytes:
    """A program that writes `serving` and waits for a signal."""
    return _elf(arch, _SERVE[arch] + b"serving\n")


def success(arch: str) -> bytes:
    """A program that ends with status 0."""
    return _elf(arch, _EXIT[arch])


def _elf(arch: str, code: bytes) -> bytes:
    """An executable of one loadable segment, without a table of sections (elf(5))."""
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, _MACHINES[arch], 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + header + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000) + code
