"""Versions of the libraries that a lock records, because results depend on them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from functools import cache

from pipeline import FORMAT
from pipeline.packages import library_version

_FOLDER = re.compile(r"([0-9A-Za-z]+)-([0-9A-Za-z.+!]+)\.dist-info")
_LIBRARIES = ("deflate", "solv", "zstandard")


def library_versions() -> tuple[tuple[str, str], ...]:
    """Return (library, version) pairs and relbuild's own format, sorted."""
    found = [(name, distribution_version(name)) for name in _LIBRARIES]
    return tuple(sorted([*found, ("rpm", library_version()), ("relbuild", str(FORMAT))]))


@cache
def distribution_version(name: str) -> str:
    """Return the version of an installed distribution, whose name is one word.

    It stands in the name of the folder of its metadata (`solv-0.7.39.dist-info`, the specification of installed
    projects); `importlib.metadata`, which is asked where there is none, is slower than all else that a resolution
    imports.
    """
    known = _metadata_folders().get(name.lower())
    if known is not None:
        return known
    import importlib.metadata

    return importlib.metadata.version(name)


@cache
def _metadata_folders() -> dict[str, str]:
    """Map distributions to versions by the names of folders, of which the first found counts."""
    found: dict[str, str] = {}
    for place in sys.path:
        with (
            contextlib.suppress(OSError),
            os.scandir(place or os.curdir) as entries,
        ):  # It may be an archive, or missing.
            for entry in entries:
                if named := _FOLDER.fullmatch(entry.name):
                    found.setdefault(named[1].lower(), named[2])
    return found
