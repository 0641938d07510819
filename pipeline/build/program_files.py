"""Files of the program that runs: modules, mapped libraries, records of what is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

START = 2.0
"""Seconds that a start may take, from the first module that is loaded to the command."""

_LIBRARY_CACHE = Path("/etc/ld.so.cache")
"""The places of shared libraries, by name (ld.so(8))."""


def loaded_files() -> Iterator[str]:
    """Yield the files of all modules that are loaded."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and os.path.isfile(path):  # noqa: PTH113
            yield path


def mapped_files() -> Iterator[str]:
    """Yield the files that are mapped: Python and the shared libraries that it has loaded.

    Raises LookupError if one was replaced.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            if fields[5].endswith(" (deleted)") and ".so" in fields[5]:
                raise LookupError("a library was replaced")
            if os.path.isfile(fields[5]):  # noqa: PTH113
                yield fields[5]
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
