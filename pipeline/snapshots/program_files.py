"""Files of the program that runs: modules, mapped libraries, records of what is installed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import pipeline
from pipeline.lazy_dataclasses import dataclass
from pipeline.snapshots.file_snapshot import file_stamp

START = 2.0
"""Seconds that a start may take, from the first module that is loaded to the command."""

_IMPORTED = time.clock_gettime(time.CLOCK_BOOTTIME)
"""Seconds from the boot to the import of this module: what a forked process runs was loaded by its parent."""

_OWN_STAT = Path("/proc/self/stat")
_START_FIELD = 22
"""Number of the field `starttime` in /proc/PID/stat (proc(5)): clock ticks from the boot to the process's start."""

_LIBRARY_CACHE = Path("/etc/ld.so.cache")
"""The places of shared libraries, by name (ld.so(8))."""

_INSTALLED = (".dist-info", ".egg-info", ".pth")
"""Endings of names in a folder of modules that tell what is installed there."""

CODE = Path(pipeline.__file__).parent
"""The folder of relbuild's own files."""


def process_started(now: float) -> float:
    """Return when this process began, in seconds since the epoch, of which there are `now`.

    Of a forked one, when this module was imported. What a process does later is done by its files as they were then.
    """
    began = _IMPORTED
    with contextlib.suppress(OSError, ValueError, LookupError):
        # The name of the program, in parentheses, may hold spaces and parentheses.
        ticks = int(_OWN_STAT.read_text(errors="replace").rpartition(")")[2].split()[_START_FIELD - 3])
        began = min(began, ticks / os.sysconf("SC_CLK_TCK"))
    return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - began)


def loaded_files(known: Container[str] = ()) -> Iterator[str]:
    """Yield the files of all modules that are loaded.

    Those `known` to be files are not looked at.
    """
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and (path in known or os.path.isfile(path)):  # noqa: PTH113
            yield path


def mapped_files(known: Container[str] = ()) -> Iterator[str]:
    """Yield the files that are mapped: Python and the shared libraries that it has loaded.

    Those `known` to be files are not looked at. Raises LookupError if one was replaced.
    """
    lines = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    for path in dict.fromkeys(fields[5] for fields in lines if len(fields) == 6):
        if path.startswith("/"):
            if path.endswith(" (deleted)") and ".so" in path:
                raise LookupError("a library was replaced")
            if path in known or os.path.isfile(path):  # noqa: PTH113
                yield path
    if _LIBRARY_CACHE.is_file():
        yield str(_LIBRARY_CACHE)


def library_records() -> Iterator[str]:
    """Yield the RECORD of each installed distribution."""
    for folder in sys.path:
        if folder.rpartition("/")[2] in ("site-packages", "dist-packages") and os.path.isdir(folder):  # noqa: PTH112
            for name in os.listdir(folder):  # noqa: PTH208
                path = os.path.join(folder, name, "RECORD")  # noqa: PTH118
                if name.endswith(".dist-info") and os.path.isfile(path):  # noqa: PTH113
                    yield path


@dataclass(frozen=True, slots=True)
class ProgramStamps:
    """Relbuild's own files, others, and the names in folders of modules, as they were once."""

    own: Sequence[tuple[str, os.stat_result]]
    files: Mapping[str, os.stat_result]
    folders: Mapping[str, Sequence[str]]

    @classmethod
    def taken(cls, programs: Iterable[str]) -> Self:
        """Look at them; `programs` are the other files. Raises OSError if one is missing."""
        files = {path: os.stat(path) for path in programs}  # noqa: PTH116
        return cls(tuple(_own_files(CODE)), files, {folder: _names(folder) for folder in sys.path})


def program_digest(
    programs: Iterable[str], modules: Container[str], begun: ProgramStamps | None = None
) -> tuple[str, int]:
    """Return the digest of the stamps of relbuild and of `programs`, and their last change.

    With them goes what would be imported in place of one of `modules` (names without a dot), and what is installed. The
    change is in nanoseconds since the epoch. What was looked at before counts as it was then. Raises OSError if one is
    missing.
    """
    own, files, folders = (begun.own, begun.files, begun.folders) if begun else (_own_files(CODE), {}, {})
    listed = ((folder, folders[folder] if folder in folders else _names(folder)) for folder in sys.path)
    seen = [f"{folder}\0{' '.join(_importable(names, modules))}\n" for folder, names in listed]
    newest = 0
    for path, found in (*own, *((path, files.get(path) or os.stat(path)) for path in programs)):  # noqa: PTH116
        seen.append(f"{path}\0{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n")
        newest = max(newest, found.st_ctime_ns)
    return hashlib.sha256("".join(seen).encode(errors="surrogateescape")).hexdigest(), newest


def own_files_digest() -> tuple[str, int]:
    """Return the digest of the stamps of relbuild's own files, and their last change.

    That is in nanoseconds since the epoch. Raises OSError if a file has none.
    """
    found = [(path, file_stamp(status)) for path, status in _own_files(CODE)]
    told = hashlib.sha256(repr(found).encode(errors="surrogateescape")).hexdigest()
    return told, max(status[4] for _, status in found)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")  # noqa: PTH208
    except OSError:
        return []


def _importable(names: Iterable[str], modules: Container[str]) -> list[str]:
    """Return those of a folder's names that are of modules, or tell what is installed."""
    return sorted(name for name in names if name.partition(".")[0] in modules or name.endswith(_INSTALLED))


def _own_files(folder: str | Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file of relbuild with its status, sorted, without what Python compiles."""
    with os.scandir(folder) as items:
        listed = sorted(items, key=lambda item: item.name)
    for item in listed:
        if item.is_dir(follow_symlinks=False):
            if item.name != "__pycache__":
                yield from _own_files(item.path)
        elif not item.name.endswith(".pyc"):
            yield item.path, item.stat()
