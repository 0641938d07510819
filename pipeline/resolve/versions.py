"""The versions that a lock names: another one may choose, order or pack otherwise."""

from __future__ import annotations

import importlib.metadata

_LIBRARIES = ("deflate", "rpm", "solv", "zstandard")


def versions() -> tuple[tuple[str, str], ...]:
    """(library, version) pairs and relbuild's own format, sorted."""
    from pipeline import FORMAT

    found = [(name, importlib.metadata.version(name)) for name in _LIBRARIES]
    return tuple(sorted([*found, ("relbuild", str(FORMAT))]))
