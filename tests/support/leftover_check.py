"""What a run of relbuild has left on the machine: processes, mounts, control groups, loop devices, links, and files of
its sandboxes.

    before = snapshot(store)
    … start relbuild, kill it …
    assert left_since(before, within=5) == ()
    assert processes_since(before, within=5) == ()  # other tests may make links and mounts meanwhile

The snapshot makes this process the subreaper of all that it starts (prctl(2)), so that whatever a killed relbuild
leaves running becomes a child of this process, and is told from what others do on the same machine at the same time.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.sandbox import reaper
from pipeline.sandbox.cgroups import PARENT_CGROUP, mounted_hierarchies
from tests.support.machines import is_of_machines

_PR_SET_CHILD_SUBREAPER = 36
_LOOK = 0.05

Process = tuple[int, int]
"""Number and start time: a number alone may be another process's by now."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Made by `snapshot`. `folders`: stores, state folders, outputs, mirrors … that relbuild works on."""

    folders: tuple[Path, ...]
    processes: frozenset[Process] = frozenset()
    things: frozenset[str] = field(default_factory=frozenset)


def snapshot(*folders: Path) -> Snapshot:
    """What is there before. `folders` are those that relbuild will work on; they need not exist yet."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise OSError("this process cannot become a subreaper")
    there = tuple(folder.resolve() for folder in folders)
    return Snapshot(there, frozenset(_descendants()), frozenset(_things(there)))


def left_since(before: Snapshot, *, within: float = 0.0) -> tuple[str, ...]:
    """What is there now and was not before, in words; waits up to `within` seconds until that is nothing. What the
    caller has started itself and still runs is among it."""
    return _waited_for(
        lambda: [*_processes(before), *(thing for thing in _things(before.folders) if thing not in before.things)],
        within,
    )


def processes_since(before: Snapshot, *, within: float) -> tuple[str, ...]:
    """The processes alone, as `left_since`; a reaper ends a moment after the relbuild that it waited for."""
    return _waited_for(lambda: _processes(before), within)


def marks_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """The beginnings of the names of sandboxes that have their state in these folders (a store, or `sandbox` in it)."""
    found = []
    for folder in folders:
        for file in (folder / "mark", folder / "sandbox" / "mark"):
            found += [_text(file)] if file.exists() else []
    return tuple(found)


def reapers_of(state: Path) -> list[int]:
    """Processes that wait to clear this state folder."""
    words, found = {os.fsencode(reaper.__file__), os.fsencode(state.resolve())}, []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words.issubset(arguments):
            found.append(int(path.parent.name))
    return found


def kill_with_reaper(pid: int, state: Path) -> None:
    """Kill a relbuild and its reaper, as when memory runs out: only the next start can clear what is left."""
    os.kill(pid, signal.SIGSTOP)
    for one in reapers_of(state):
        os.kill(one, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def _waited_for(look: Callable[[], list[str]], within: float) -> tuple[str, ...]:
    deadline = time.monotonic() + within
    while True:
        left = tuple(sorted(set(look())))
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(_LOOK)


def _processes(before: Snapshot) -> list[str]:
    return [_describe(one) for one in _descendants() if one not in before.processes]


def _things(folders: Sequence[Path]) -> Iterator[str]:
    yield from _mounts(folders)
    marks = tuple(f"{mark}-" for mark in marks_of(folders))
    for root in mounted_hierarchies().roots():
        names = _names(root / PARENT_CGROUP)
        yield from (
            f"control group {root / PARENT_CGROUP / name}" for name in names if marks and name.startswith(marks)
        )
    for entry in sorted(Path("/sys/block").glob("loop*")):
        backing = _text(entry / "loop" / "backing_file").strip()
        if any(backing.startswith(f"{folder}/") for folder in folders):
            yield f"loop device {entry.name} of {backing}"
    yield from (f"link {name}" for name in _names(Path("/sys/class/net")) if re.fullmatch(r"i\d+|veth.*", name))
    namespaces = (name for name in _names(Path("/run/netns")) if not is_of_machines(name))
    yield from (f"network namespace {name}" for name in namespaces)
    for controller, root in mounted_hierarchies().controllers.items():
        if controller == "blkio":
            held = _text(root / "blkio.throttle.write_bps_device").splitlines()
            yield from (f"limit of the root group: {line}" for line in held)
    for folder in folders:
        for live in (folder / "live", folder / "sandbox" / "live"):
            yield from (f"file {live / name}" for name in _names(live))


def _mounts(folders: Sequence[Path]) -> Iterator[str]:
    for line in _text(Path("/proc/self/mountinfo")).splitlines():
        if any(f"{folder}" in line for folder in folders):
            yield f"mount {line}"


def _descendants() -> list[Process]:
    """All that this process, or what it has adopted, has started; zombies are dead."""
    parents: dict[int, list[Process]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            fields = _text(path / "stat").rpartition(") ")[2].split()
            if fields and fields[0] not in "ZX":
                parents.setdefault(int(fields[1]), []).append((int(path.name), int(fields[19])))
    found: list[Process] = []
    reached = [os.getpid()]
    while reached:
        children = parents.get(reached.pop(), [])
        found += children
        reached += [pid for pid, _ in children]
    return found


def _describe(process: Process) -> str:
    words = _text(Path(f"/proc/{process[0]}/cmdline")).replace("\0", " ").strip()
    return f"process {process[0]}: {words[:200] or _text(Path(f'/proc/{process[0]}/comm')).strip()}"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
