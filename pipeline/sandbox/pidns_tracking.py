"""Process tracking where there are no control groups, by containers' process namespaces."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def container_pids(folder: Path) -> set[int]:
    """Return the processes of the containers of a sandbox.

    They are the containers whose pid files the runtime has left in the sandbox's folder. All that a container starts
    is in its process namespace, whose first process takes all others with it.
    """
    own = _namespace(os.getpid())
    wanted = {_namespace(pid) for pid in _told(folder.glob("*pid"))} - {own, None}
    if not wanted:
        return set()
    return {pid for pid in _everybody() if _namespace(pid) in wanted}


def command_pids(pid_file: Path) -> set[int]:
    """Return the processes of a command in a container: its own and those that descend from it.

    What has lost its parent is not found: it ends with the container.
    """
    found = {pid for pid in _told([pid_file]) if _namespace(pid) not in (None, _namespace(os.getpid()))}
    if not found:
        return found
    parents = {pid: _parent(pid) for pid in _everybody()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _told(files: Iterable[Path]) -> set[int]:
    pids = set()
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            pids.add(int(file.read_text()))
    return pids


def _everybody() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _state(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name: state, parent …

    Zombies and the gone have none.
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
