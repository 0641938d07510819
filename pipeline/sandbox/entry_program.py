"""Require that the program that an image starts is of the image's architecture.

The kernel runs a program of its own architecture directly and another one through an emulator, whatever an image's
config says. A program of the wrong architecture would pass its tests here and not start on a machine of the image's.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import stat
import struct
from collections.abc import Iterator, Sequence

from pipeline.errors import SmokeError
from pipeline.sandbox.emulation import is_executable_of, is_program_for, program_architecture
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime_bundle import ProcessPlan

_FIRST_LINE_LIMIT = 256
"""Bytes of a script that the kernel looks for its interpreter in (BINPRM_BUF_SIZE, execve(2))."""

_ENV_WORDS_LIMIT = 100
"""Options and assignments before the command of env(1) that are looked at."""

_ENV_OPTION = re.compile(r"-|-[iv0]+|--ignore-environment|--null|--debug|-u.+|--unset=.*|-C.+|--chdir=.*")
_ENV_OPTIONS_WITH_WORD = frozenset({"-u", "--unset", "-C", "--chdir"})
"""Options of env(1): those that take the next word, and all others but -S."""

_ELF_HEADER_SIZE, _ELF_HEADERS_LIMIT, _PT_INTERP = 64, 4096, 3
"""Sizes of an ELF file's header and of its first bytes, where linkers put the program headers and the name (elf(5))."""

_INTERPRETERS_LIMIT = 5
"""Scripts whose interpreter is a script: the kernel's own bound is 5 (execve(2), ELOOP)."""


def require_entry_program(files: RootFs, plan: ProcessPlan, architecture: str) -> None:
    """Require that the programs that `plan` starts are for `architecture` (OCI's name).

    These are its command, a script's interpreter, and the command that `env` is given. 32-bit programs of the same
    family are allowed (386 in amd64, arm in arm64). A missing file is left to the runtime, which reports it. Raises
    SmokeError `program-foreign`.
    """
    for path, head in _programs(files, plan):
        found = program_architecture(head)
        if found and not is_program_for(head, architecture):
            raise foreign_program(os.fsencode(path).decode(errors="replace"), found, architecture)


def is_startable(files: RootFs, plan: ProcessPlan, architecture: str) -> bool:
    """Return whether the kernel can start the command of `plan`, for all that its files show.

    They end with a program of `architecture` itself (the machine's, if that is ""), whose dynamic linker is there. A
    program of the same family is not enough: where the kernel refuses it, execvp(3) has a shell read it.
    """
    head = b""
    for path, head in _programs(files, plan):  # noqa: B007 - the last one
        if program_architecture(head) and not is_executable_of(head, architecture):
            return False
    if not program_architecture(head):
        return False
    linker = program_linker(files.read_head(path, _ELF_HEADERS_LIMIT) or b"")
    return linker == "" or (linker is not None and _is_program(files, linker))


def program_linker(head: bytes) -> str | None:
    """Return the dynamic linker that an ELF file names by its first bytes, "" if none.

    It is None if these bytes do not tell. See elf(5), PT_INTERP.
    """
    if len(head) < _ELF_HEADER_SIZE:
        return None
    wide, order = head[4] == 2, ">" if head[5] == 2 else "<"
    (start,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    if size != (56 if wide else 32) or start + size * count > len(head):
        return None
    for at in range(start, start + size * count, size):
        (kind,) = struct.unpack_from(f"{order}I", head, at)
        if kind == _PT_INTERP:
            (offset,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, at + (8 if wide else 4))
            name, ended, _ = head[offset:].partition(b"\0")
            return os.fsdecode(name) if name and ended else None
    return ""


def foreign_program(path: str, found: str, architecture: str) -> SmokeError:
    """Return the error for a program of the architecture `found` in an image of another."""
    return SmokeError(
        "program-foreign",
        f"the program '{path}' is for {found}, but the image is for {architecture}",
        place=path,
        hint=f"install the program for {architecture}, or build the image for the program's architecture",
    )


def _programs(files: RootFs, plan: ProcessPlan) -> Iterator[tuple[str, bytes]]:
    """Yield path and first bytes of the command's file and of its interpreters."""
    argv: Sequence[str] = plan.argv
    for _ in range(_INTERPRETERS_LIMIT + 1):
        path = _find(files, argv[0], plan)
        head = files.read_head(path, _FIRST_LINE_LIMIT) if path is not None else None
        if path is None or head is None:
            return
        yield path, head
        interpreter = _interpreter(head)
        argv = (*interpreter, path) if interpreter else _given_to_env(path, argv)
        if not argv:
            return


def _find(files: RootFs, name: str, plan: ProcessPlan) -> str | None:
    """Return the path of a command, found as execvp(3) does; None if there is none."""
    paths = next((line[5:] for line in plan.environment if line.startswith("PATH=")), "")
    for folder in [""] if "/" in name else paths.split(":"):
        path = posixpath.join("/", plan.directory, folder, name)
        if _is_program(files, path):
            return path
    return None


def _is_program(files: RootFs, path: str) -> bool:
    """Return whether there is a regular file that somebody may execute."""
    try:
        status = files.stat(path)
    except ValueError:
        return False  # No path of a file: it has a lone surrogate.
    return status is not None and stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)


def _given_to_env(path: str, argv: Sequence[str]) -> Sequence[str]:
    """Return the command that env(1) is to run.

    It is () if the program is another, or has options that are not known here.
    """
    if posixpath.basename(path) != "env":
        return ()
    words = list(argv[1:])
    for _ in range(_ENV_WORDS_LIMIT):
        word = words.pop(0) if words else ""
        split = re.fullmatch(r"(?:-[iv0]*S|--split-string=)(.*)", word, re.DOTALL)
        if split:
            words = _split_words(split[1] or (words.pop(0) if words else "")) + words
        elif word in _ENV_OPTIONS_WITH_WORD:
            words = words[1:]
        elif not word or ("=" not in word and not _ENV_OPTION.fullmatch(word)):
            return () if word.startswith("-") else tuple(filter(None, (word, *words)))
    return ()


def _split_words(text: str) -> list[str]:
    """Split what `env -S` is given as a shell would, which is near enough; [] if it cannot be."""
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _interpreter(head: bytes) -> tuple[str, ...]:
    """Return the interpreter of a script and its argument; () if the file is no script."""
    if not head.startswith(b"#!"):
        return ()
    words = head[2:].partition(b"\n")[0].split(None, 1)
    return tuple(os.fsdecode(word.strip()) for word in words)
