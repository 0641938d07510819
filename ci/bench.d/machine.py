"""The machine and the peers' versions: what must be the same where figures of two runs stand in one table."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from turns import BenchFailed, peer

INSTALLED = ("dnf", "buildah", "skopeo", "zstd")
FETCHED = ("dnf5", "pigz", "igzip", "mkosi")
"""Peers that the machine has, and those that `ci/peers bench` brings."""
VERSION_SECONDS = 30.0
"""That a program gets to print its version."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
NONE = "none"


def machine() -> dict[str, str]:
    """Describe where it is measured, with the versions of the peers."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "kernel": platform.release(),
        "transparent huge pages": huge_pages(HUGE_PAGES),
        "python": platform.python_version(),
        **{name: version(name) for name in INSTALLED},
        **{name: _fetched_version(name) for name in FETCHED},
    }


def huge_pages(path: Path) -> str:
    """Return the mode of transparent huge pages, which the kernel writes in brackets among all modes."""
    try:
        chosen = re.search(r"\[(\w+)\]", path.read_text())
    except OSError:
        chosen = None
    return chosen[1] if chosen else NONE


def version(program: str | Path) -> str:
    """Return the version that a program prints; `none` where it is missing or prints none."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=VERSION_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return NONE
    return read_version(done.stdout + done.stderr)


def read_version(said: str) -> str:
    """Return the first number with dots of a program's `--version`, or else its first number; `none` without any."""
    found = re.search(r"\d+(?:\.\d+)+", said) or re.search(r"\b\d+\b", said)
    return found[0] if found else NONE


def _fetched_version(name: str) -> str:
    try:
        return version(peer(name))
    except BenchFailed:
        return NONE
