"""Comparison of EVRs as rpm does, and the version and files of rpm's library."""

from __future__ import annotations

import importlib
from pathlib import Path

# rpm's library is loaded where it is asked and not above: most commands compare no versions.


def compare_evr(a: str, b: str) -> int:
    """Compare two `[epoch:]version[-release]` texts as rpm does.

    Returns -1, 0 or 1 as `a` is older than, the same as, or newer than `b`. A missing release equals any, as in rpm's
    dependencies. An empty version, which rpm's library compares with none, counts as 0.
    """
    left, right = _split(a), _split(b)
    if not left[2] or not right[2]:
        left, right = (*left[:2], ""), (*right[:2], "")
    from pipeline.packages.rpm_library import rpm

    order: int = rpm.labelCompare(left, right)
    return order


def _split(evr: str) -> tuple[str, str, str]:
    epoch, colon, rest = evr.partition(":")
    if not colon:
        epoch, rest = "0", evr
    version, _, release = rest.partition("-")
    return epoch or "0", version or "0", release


def library_version() -> str:
    """Return the version of rpm's library."""
    from pipeline.packages.rpm_library import rpm

    return str(rpm.__version__)


def library_files() -> tuple[Path, ...]:
    """Load rpm's libraries and list their files, sorted.

    Their Python module is included.
    """
    importlib.import_module("pipeline.packages.rpm_library")
    mapped = {line.split(maxsplit=5)[5] for line in Path("/proc/self/maps").read_text().splitlines() if "rpm" in line}
    return tuple(sorted(Path(name) for name in mapped if "rpm" in Path(name).name and Path(name).exists()))
