"""Require that the processes of an instance run programs of the image's architecture.

What an entrypoint script starts is only seen here. The kernel shows a process's program as /proc/PID/exe (proc(5)):
a file of the container's mounts, or the emulator, which is a file of the host's.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeline.sandbox.emulation import emulated_by, is_program_for, may_have, program_architecture
from pipeline.sandbox.entry_program import foreign_program
from pipeline.sandbox.launchers.launcher import LaunchedInstance

_PROCESSES_LIMIT = 1000
"""Processes that are looked at: each takes 0.1 ms, and a server's many processes have the same program."""

_MOUNTS_LIMIT = 4 << 20
"""Bytes that are read of a table of mounts; a line has 150."""

_HEAD = 64
"""Bytes of a program that are read: an ELF header (elf(5))."""

_ARGUMENTS_LIMIT = 8192
"""Bytes of a command line that are read: two paths."""


def require_running_programs(instance: LaunchedInstance, architecture: str) -> None:
    """Require that all processes run programs for `architecture` (OCI's name).

    Processes that end meanwhile, and those that this user may not look at, are passed over. Raises SmokeError
    `program-foreign`.
    """
    for pid in sorted(instance.processes())[:_PROCESSES_LIMIT]:
        try:
            path, found = _foreign(Path("/proc", str(pid)), architecture)
        except OSError:
            continue
        if found and pid in instance.processes():  # Otherwise it had ended, and the number may be another process's.
            raise foreign_program(path, found, architecture)


def _foreign(process: Path, architecture: str) -> tuple[str, str]:
    """Return path and architecture of a process's program; the latter "" if it is allowed."""
    handle = os.open(process / "exe", os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as program:
        head = program.read(_HEAD)
        mount = re.search(r"(?m)^mnt_id:\s*([0-9]+)$", Path(f"/proc/self/fdinfo/{handle}").read_text())
    with (process / "mountinfo").open("rb") as table:
        mounts = {line.partition(b" ")[0] for line in table.read(_MOUNTS_LIMIT).split(b"\n")}
    if mount is not None and mount[1].encode() in mounts:
        found = "" if is_program_for(head, architecture) else program_architecture(head)
        return os.fsencode((process / "exe").readlink()).decode(errors="replace"), found
    with (process / "cmdline").open("rb") as file:
        interpreter, path, *_ = [*file.read(_ARGUMENTS_LIMIT).split(b"\0"), b"", b""]
    foreign = [name for name in emulated_by(os.fsdecode(interpreter)) if not may_have(architecture, name)]
    return path.decode(errors="replace"), next(iter(foreign), "")
