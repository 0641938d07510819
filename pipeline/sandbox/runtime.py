"""The OCI runtime: the program that makes containers."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking

_LOG_LIMIT = 65536

RUNTIMES = ("runc", "crun")
"""Looked for in this order: runc is the reference, and runs on cgroup v1 and v2 alike."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """An OCI runtime with runc's command line."""

    path: Path
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def keeps_ended(self) -> bool:
        """Does `run --keep` leave an ended container's cgroup, so that its usage can still be read?"""
        return self.name == "runc"


def find_runtime(name: str | None = None) -> Runtime:
    """The runtime called `name` (or at that path), or the first of RUNTIMES that is installed.

    Raises EnvironmentLacking `runtime-missing`, or `runtime-unknown` if the program does not tell its version.
    """
    for candidate in (name,) if name else RUNTIMES:
        path = process.find(candidate)
        if path is not None:
            return _identify(path)
    wanted = f"'{name}' is" if name else f"none of {', '.join(RUNTIMES)} is"
    raise EnvironmentLacking(
        "runtime-missing",
        f"{wanted} installed, so no container can be started",
        hint="install runc (apt-get install runc, dnf install runc) or run ci/setup",
    )


def _identify(path: Path) -> Runtime:
    told = process.run([path, "--version"], timeout=10, check=False).stdout.decode(errors="replace")
    found = re.match(r"(\S+) version (\S+)", told)
    if not found:
        raise EnvironmentLacking(
            "runtime-unknown",
            f"{path} does not say which OCI runtime it is: {told[:200]!r}",
            hint="name another runtime",
        )
    return Runtime(path, found[1], found[2].partition("+")[0])


def last_message(log: Path) -> str:
    """The last error in a runtime's log (`--log-format json`), or nothing."""
    try:
        lines = log.read_bytes()[-_LOG_LIMIT:].decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("level") in ("error", "fatal", "panic"):
                return str(entry.get("msg", ""))
    return ""
