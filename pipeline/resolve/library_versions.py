"""Versions of the libraries that a lock records, because results depend on them."""

from __future__ import annotations

import importlib.metadata

from pipeline import FORMAT
from pipeline.packages import library_version

_LIBRARIES = ("deflate", "solv", "zstandard")


def library_versions() -> tuple[tuple[str, str], ...]:
    """Return (library, version) pairs and relbuild's own format, sorted."""
    found = [(name, importlib.metadata.version(name)) for name in _LIBRARIES]
    return tuple(sorted([*found, ("rpm", library_version()), ("relbuild", str(FORMAT))]))
