"""List a container's processes by its PID namespace, where there are no control groups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def container_pids(folder: Path) -> set[int]:
    """Return the PIDs of all processes in the containers of a sandbox.

    Its containers are those whose PID files the runtime has left in the sandbox's folder. All processes of a container
    are in its PID namespace, and end when the first one ends.
    """
    own = _namespace(os.getpid())
    wanted = {_namespace(pid) for pid in _read_pids(folder.glob("*pid"))} - {own, None}
    if not wanted:
        return set()
    return {pid for pid in _all_pids() if _namespace(pid) in wanted}


def command_pids(pid_file: Path) -> set[int]:
    """Return the PIDs of a command in a container: its own and its descendants'.

    Descendants whose parent has ended are not found; they end with the container.
    """
    found = {pid for pid in _read_pids([pid_file]) if _namespace(pid) not in (None, _namespace(os.getpid()))}
    if not found:
        return found
    parents = {pid: _parent(pid) for pid in _all_pids()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _read_pids(files: Iterable[Path]) -> set[int]:
    pids = set()
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            pids.add(int(file.read_text()))
    return pids


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _state(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name: state, parent …

    Zombies and ended processes have none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
    return [] if fields[:1] in (["Z"], ["X"]) else fields


def _parent(pid: int) -> int:
    fields = _state(pid)
    return int(fields[1]) if fields else 0


def _namespace(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink()) if _state(pid) else None
    except OSError:
        return None
