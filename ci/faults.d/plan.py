"""What happens to which call: the file that `inject.c` shares with all processes of a run, and the library itself."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_LAYOUT = struct.Struct("10i256s256s")
_MOVING = frozenset({"rename", "renameat", "renameat2", "link", "linkat"})
_KINDS = {"trace": 0, "kill": 1, "group": 2, "fail": 3, "short": 4}


class Fault(StrEnum):
    """What can happen to a call. KILL ends relbuild, GROUP its process group; CRASH also loses what was not synced."""

    KILL = "kill"
    GROUP = "group"
    EIO = "EIO"
    ENOSPC = "ENOSPC"
    EDQUOT = "EDQUOT"
    SHORT = "short"
    CRASH = "crash"

    @property
    def ends(self) -> bool:
        """Does it end relbuild?"""
        return self in (Fault.KILL, Fault.GROUP, Fault.CRASH)


@dataclass(frozen=True, slots=True)
class Call:
    """A file-changing call of a run: its number from 1, the process, the function, the inode (0: none yet), paths."""

    number: int
    pid: int
    name: str
    inode: int
    path: str
    other: str


class Plan:
    """The shared file. Nothing is counted until it is armed."""

    def __init__(self, folder: Path) -> None:
        self.path, self.log = folder / "plan", folder / "calls"
        if not self.path.exists():
            self.path.write_bytes(bytes(_LAYOUT.size))
        self._file = self.path.open("r+b")
        self._shared = mmap.mmap(self._file.fileno(), _LAYOUT.size)

    def arm(self, main: int, folder: Path, fault: Fault | None, at: int, *, forever: bool, sends: bool) -> None:
        """From now on, calls below `folder` are counted, and the one with the number `at` gets `fault`. Without one,
        files that are opened are written down too."""
        self.log.write_text("")
        kind, number = "trace", 0
        if fault is not None:
            kind = {"kill": "kill", "group": "group", "crash": "group", "short": "short"}.get(fault, "fail")
            number = getattr(errno, fault) if kind == "fail" else 0
        words = (1, 0, at, _KINDS[kind], number, int(forever), 0, main, int(sends), int(fault is None))
        self._shared[:] = _LAYOUT.pack(*words, os.fsencode(folder), os.fsencode(self.log))

    def disarm(self) -> int:
        """Nothing is counted any more; how often the fault happened."""
        self._shared[:4] = struct.pack("i", 0)
        fired: int = struct.unpack_from("i", self._shared, 6 * 4)[0]
        return fired

    def calls(self) -> Iterator[Call]:
        """The calls that were counted, in order."""
        return iter(sorted((call for call in self._logged() if call.number), key=lambda call: call.number))

    def touched(self) -> tuple[frozenset[str], frozenset[str]]:
        """Paths of what was opened, and of what was renamed or linked, in a run without a fault."""
        opened, moved = set(), set()
        for call in self._logged():
            if call.name == "opened":
                opened.add(call.path)
            elif call.name in _MOVING:
                moved.add(call.path)
        return frozenset(opened), frozenset(moved)

    def _logged(self) -> Iterator[Call]:
        for line in self.log.read_text(errors="replace").splitlines():
            fields = line.split("\t")
            if len(fields) == 6 and fields[0].isdigit():
                yield Call(int(fields[0]), int(fields[1]), fields[2], int(fields[3]), fields[4], fields[5])


def build_library(folder: Path) -> Path:
    """Compile `inject.c` unless that was done."""
    source = Path(__file__).with_name("inject.c")
    library = folder / "inject.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"inject.{os.getpid()}.so"
        subprocess.run(["gcc", "-O1", "-w", "-shared", "-fPIC", "-o", draft, source, "-ldl"], check=True)
        draft.replace(library)
    return library
