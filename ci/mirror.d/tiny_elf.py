"""Writes the smallest program that is an ELF executable of either class: it exits with status 0.

RPM colours a file by its ELF class, so two of these at one path make a colour pair without a
32-bit compiler. Usage: tiny_elf.py 32|64 FILE
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_BASE = 0x400000
# mov eax, SYS_exit; xor ebx, ebx / mov eax, SYS_exit; xor edi, edi; then the system call
_CODE = {32: b"\xb8\x01\x00\x00\x00\x31\xdb\xcd\x80", 64: b"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05"}


def program(bits: int) -> bytes:
    """Return the file's bytes: ELF header, one loadable segment, code."""
    code = _CODE[bits]
    header, segment = (52, 32) if bits == 32 else (64, 56)
    start = header + segment
    size = start + len(code)
    ident = b"\x7fELF" + bytes([1 if bits == 32 else 2, 1, 1]) + bytes(9)
    word = "I" if bits == 32 else "Q"
    machine = 3 if bits == 32 else 62
    # e_type … e_shstrndx: no section table
    fields = (2, machine, 1, _BASE + start, header, 0, 0, header, segment, 1, 0, 0, 0)
    elf = ident + struct.pack(f"<HHI{word}{word}{word}IHHHHHH", *fields)
    if bits == 32:
        load = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000)
    else:
        load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return elf + load + code


def main() -> None:
    """Write the program that the arguments ask for."""
    bits, file = int(sys.argv[1]), Path(sys.argv[2])
    file.write_bytes(program(bits))
    file.chmod(0o755)


if __name__ == "__main__":
    main()
