"""Find the OCI runtime (runc, crun), its version and command line, and read its log."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking, SmokeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.output import RunningCommand, wait_for_exit
from pipeline.sandbox.rootless import in_user_namespace

_LOG_LIMIT = 65536

RUNTIMES = ("runc", "crun")
"""Looked for in this order: runc is the reference, and runs on cgroup v1 and v2 alike."""

_OF_PROGRAM = re.compile(r"\bexec: |executable file ")
"""In what runc and crun say of a program that cannot be started, whose path may be any text."""

_KERNEL = "namespaces and a seccomp filter, on the host kernel"
_ISOLATION = {
    "runc": _KERNEL,
    "crun": _KERNEL,
    "youki": _KERNEL,
    "runsc": "a user-space kernel (gVisor)",
    "kata-runtime": "a virtual machine with its own kernel (Kata)",
}
"""Only runc's and crun's are proven by the tests."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """An installed OCI runtime with runc's command line."""

    path: Path
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def isolation(self) -> str:
        """The isolation between a container and the host, as text for messages."""
        return _ISOLATION.get(self.name, "unknown isolation")

    @property
    def shares_kernel(self) -> bool:
        """True if its containers run on the host's kernel, whose named pipes they can open."""
        return _ISOLATION.get(self.name) == _KERNEL

    @property
    def command(self) -> tuple[str | Path, ...]:
        """The command line that calls the runtime.

        runc does not detect by itself that control groups are not this user's.
        """
        return (self.path, "--rootless=true") if self.name == "runc" and in_user_namespace() else (self.path,)

    @property
    def keeps_ended(self) -> bool:
        """True if `run --keep` keeps an ended container's control group, to read its usage."""
        return self.name == "runc"

    @property
    def stays_in_group(self) -> bool:
        """True if the runtime itself stays in its control group: gVisor's joins the container's."""
        return self.name == "runc"


def find_runtime(name: str | None = None) -> Runtime:
    """Find the runtime `name` (or at that path), or the first of RUNTIMES that is installed.

    Raises EnvironmentLacking `runtime-missing`, `runtime-failed`, or `runtime-unknown` if the program does not
    print its version.
    """
    for candidate in (name,) if name else RUNTIMES:
        path = process.find_program(candidate)
        if path is not None:
            return _identify(path)
    if name and "/" in name:
        raise EnvironmentLacking(
            "runtime-missing",
            f"the runtime '{name}' does not exist, or is not executable",
            hint="correct --runtime, or leave it out for runc or crun of PATH",
        )
    wanted = f"'{name}'" if name else " or ".join(f"'{one}'" for one in RUNTIMES)
    raise EnvironmentLacking(
        "runtime-missing",
        f"the runtime {wanted} was not found in PATH",
        hint="install runc (apt-get install runc, dnf install runc)",
    )


def _identify(path: Path) -> Runtime:
    ended = process.run([path, "--version"], timeout=10, check=False)
    told, why = ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace").strip()
    found = re.match(r"(\S+) version (\S+)", told)
    if ended.status and not told:
        raise EnvironmentLacking(
            "runtime-failed",
            f"`{path} --version` ended with status {ended.status}: {why[:200] or 'it printed nothing'}",
            hint="mend or reinstall the runtime, or raise limits such as `ulimit -v`; or choose another runtime",
        )
    if not found:
        raise EnvironmentLacking(
            "runtime-unknown",
            f"'{path}' is not an OCI runtime: `--version` printed {told[:200]!r}",
            hint="choose another runtime",
        )
    return Runtime(path, found[1], found[2].partition("+")[0])


def last_message(log: Path) -> str:
    """Return the last error in a runtime's log (`--log-format json`), or ""."""
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


def wait_until_started(running: RunningCommand, pid_file: Path, ended: Callable[[], str], *, within: float) -> int:
    """Wait until the runtime has started the container; return its main PID on the host.

    Raises SmokeError `not-started` with the reason that `ended()` returns.
    """
    deadline = time.monotonic() + within
    pause = 0.002
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(pid_file.read_text())
        if wait_for_exit(running, pause):
            with contextlib.suppress(FileNotFoundError, ValueError):
                return int(pid_file.read_text())
            break
        pause = min(pause * 1.5, 0.004)
    raise not_started(ended())


def not_started(reason: str) -> SmokeError:
    """Return the error of a container that did not start, with the runtime's `reason`."""
    if "cgroup" in reason and not _OF_PROGRAM.search(reason):
        return SmokeError(
            "not-started",
            f"the runtime could not use control groups: {reason}",
            hint="`relbuild doctor` says what is missing: mount /sys/fs/cgroup writable, "
            "or have root delegate control groups to this user (`relbuild help sandbox`)",
        )
    return SmokeError(
        "not-started",
        f"the container could not be started: {reason}",
        hint="check that the entrypoint and its interpreter are in the image and executable",
    )
