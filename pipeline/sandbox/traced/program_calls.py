"""Execute programs of the tree, with the interpreters of the tree.

The kernel looks up an interpreter below the machine's root. So a script's is put before its arguments here, and a
program that asks for a dynamic linker is executed from a copy, at whose end the linker's path in the tree stands.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from pipeline.sandbox.traced.call_context import AT_FDCWD, CallContext, Execute
from pipeline.sandbox.traced.tracee import PATH_MOST, TracedCall
from pipeline.sandbox.traced.tree_lookup import Place, failure

_SCRIPTS = 5
"""Interpreters of interpreters that are followed: as many as the kernel's (BINPRM_MAX)."""
_FIRST_LINE = 256
"""Bytes of a script that are read for its first line (BINPRM_BUF_SIZE)."""
_ARGUMENTS_MOST = 1 << 20
"""Arguments of one program: as their pointers alone would fill the kernel's bound on all of them."""

_ELF_HEADER = struct.Struct("<4sBBBBB7xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_CLASS_64, _LITTLE, _X86_64 = 2, 1, 62
_PT_INTERP = 3
_SEGMENTS_MOST = 128


def _execve(context: CallContext, call: TracedCall) -> None:
    """Let the kernel execute the program that a path leads to, with the tree's interpreters."""
    name = call.text(0)
    place = context.lookup.find(call.tracee, AT_FDCWD, name, follow=True)
    before: list[str] = []
    for _ in range(_SCRIPTS + 1):
        head = _read_program(context, call, place)
        if not head.startswith(b"#!"):
            break
        words = _first_line(head)
        before = [*words, name, *before[1:]]
        name = words[0]
        place = context.lookup.find(call.tracee, AT_FDCWD, name, follow=True)
    else:
        raise failure(errno.ELOOP)
    program = _runnable(context, call, place)
    arguments = _with_interpreter(call, before) if before else b""
    path = os.fsencode(program) + b"\0"
    # The pointers first, and the space for both at once: a process is asked for it no more than once.
    at = call.tracee.place(arguments + path)
    if before:
        pointers = _pointers(call, before, at)
        call.tracee.write(at, pointers)
        call.registers.set_argument(1, at)
        call.registers.set_argument(0, at + len(arguments))
    else:
        call.registers.set_argument(0, at)
    call.tracee.starting = f"/{place.path}" if place.path is not None else place.host


def _read_program(context: CallContext, call: TracedCall, place: Place) -> bytes:
    """Return the first bytes of what is to be executed; raise OSError as execve(2) does."""
    status = place.existing()
    record = context.tree.records.of(status)
    if not stat.S_ISREG(status.st_mode) or not record.mode & 0o111 or not call.tracee.credentials.may(record, 1):
        raise failure(errno.EACCES, place.host)
    with open(place.host, "rb", buffering=0) as file:
        return file.read(_FIRST_LINE)


def _first_line(head: bytes) -> list[str]:
    """Return the interpreter and its one argument, if any, as the kernel reads them."""
    line = head[2:].partition(b"\n")[0].strip(b" \t")
    program, *rest = line.replace(b"\t", b" ").split(b" ", 1)
    if not program:
        raise failure(errno.ENOEXEC)
    return [os.fsdecode(word) for word in (program, *(one.strip(b" \t") for one in rest)) if word]


def _argument_pointers(call: TracedCall) -> list[int]:
    found: list[int] = []
    address = call.argument(1)
    while address and len(found) < _ARGUMENTS_MOST:
        (pointer,) = struct.unpack("<Q", call.tracee.read(address, 8))
        if not pointer:
            return found
        found.append(pointer)
        address += 8
    return found


def _with_interpreter(call: TracedCall, before: list[str]) -> bytes:
    """Return as many bytes as the new arguments' pointers take, and the strings of `before`."""
    count = len(before) + max(0, len(_argument_pointers(call)) - 1) + 1
    return bytes(8 * count) + b"".join(os.fsencode(word) + b"\0" for word in before)


def _pointers(call: TracedCall, before: list[str], at: int) -> bytes:
    old = _argument_pointers(call)[1:]
    address = at + 8 * (len(before) + len(old) + 1)
    pointers = []
    for word in before:
        pointers.append(address)
        address += len(os.fsencode(word)) + 1
    return struct.pack(f"<{len(before) + len(old) + 1}Q", *pointers, *old, 0)


def _runnable(context: CallContext, call: TracedCall, place: Place) -> str:
    """Return the path of the machine from which a program is executed as it is in the tree."""
    status = place.existing()
    # Files of layers have whole seconds, and an inode may be another file's later: only its own time tells them apart.
    times = (status.st_mtime_ns, status.st_ctime_ns)
    key = (status.st_dev, status.st_ino, *times, status.st_size, call.tracee.root)
    known = context.copies.get(key)
    if known is not None:
        return known
    with open(place.host, "rb") as file:
        found = _interpreter(file)
    if found is None:
        return place.host
    offset, interpreter = found
    linker = context.lookup.find(call.tracee, AT_FDCWD, interpreter, follow=True)
    _read_program(context, call, linker)
    folder = Path(context.programs, str(len(context.copies)))
    folder.mkdir()
    copy = folder / (Path(place.host).name or "program")
    shutil.copyfile(place.host, copy)
    with copy.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        text = os.fsencode(linker.host) + b"\0"
        file.write(text)
        file.seek(offset)
        segment = list(_SEGMENT.unpack(file.read(_SEGMENT.size)))
        segment[2], segment[5] = end, len(text)  # p_offset and p_filesz; its address stays, which the linker reads
        file.seek(offset)
        file.write(_SEGMENT.pack(*segment))
    copy.chmod(0o700)
    context.copies[key] = str(copy)
    return str(copy)


def _interpreter(file: BinaryIO) -> tuple[int, str] | None:
    """Return the offset of a program's PT_INTERP header, and its path; None if it is static."""
    header = file.read(_ELF_HEADER.size)
    if len(header) < _ELF_HEADER.size or not header.startswith(b"\x7fELF"):
        raise failure(errno.ENOEXEC)
    fields = _ELF_HEADER.unpack(header)
    machine, table, count = fields[7], fields[10], fields[15]
    if (fields[1], fields[2], machine) != (_CLASS_64, _LITTLE, _X86_64) or count > _SEGMENTS_MOST:
        raise failure(errno.ENOEXEC)
    for index in range(count):
        offset = table + index * _SEGMENT.size
        file.seek(offset)
        data = file.read(_SEGMENT.size)
        if len(data) < _SEGMENT.size:
            raise failure(errno.ENOEXEC)
        kind, _, at, _, _, size, _, _ = _SEGMENT.unpack(data)
        if kind == _PT_INTERP:
            file.seek(at)
            return offset, os.fsdecode(file.read(min(size, PATH_MOST)).partition(b"\0")[0])
    return None


PROGRAM_CALLS: Mapping[str, Execute] = MappingProxyType({"execve": _execve})
"""The calls of this module by name."""
