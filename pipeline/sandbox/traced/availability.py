"""Find out whether commands can be traced here, and whether they need to be."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

from pipeline.errors import BuildError, EnvironmentLacking
from pipeline.sandbox.rootless import rootless_obstacle

_NEEDED_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_SETFCAP": 31,
}
"""Capabilities that sandboxes need of a user who is root, with their numbers (linux/capability.h)."""

OWN_STATUS = Path("/proc/self/status")
"""This process as the kernel shows it (proc(5))."""

_SECONDS = 10.0
_PROGRAM = (
    b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00\x01\x00\x00\x00\x78\x00\x40\x00\x00\x00\x00\x00"
    b"\x40" + bytes(7) + bytes(8) + b"\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x00\x00\x00\x00\x00\x00"
    b"\x01\x00\x00\x00\x05\x00\x00\x00" + bytes(8) + b"\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00"
    b"\x8a\x00\x00\x00\x00\x00\x00\x00\x8a\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00"
    b"\xb8\x66\x00\x00\x00\x0f\x05\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05\x90\x90"
)
"""A program of two calls: exit(getuid()), which is 0 if the tracer answers it."""


def lacking_capabilities(status: str) -> tuple[str, ...]:
    """Return the needed capabilities that a process lacks, by its /proc/PID/status (proc(5))."""
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return tuple(name for name, number in _NEEDED_CAPABILITIES.items() if not int(effective, 16) >> number & 1)


def may_make_containers() -> bool:
    """Return whether this process is root with what containers need, also in its own namespace."""
    return os.geteuid() == 0 and not lacking_capabilities(OWN_STATUS.read_text())


def container_obstacle() -> str:
    """Return why this process may not make containers, or "" if it may."""
    if os.geteuid() != 0:
        return f"not root, and {rootless_obstacle() or 'no user namespace could be entered'}"
    lacking = lacking_capabilities(OWN_STATUS.read_text())
    return f"root without {', '.join(lacking)}" if lacking else ""


def require_tracing(folder: Path | None = None) -> None:
    """Trace a small program in `folder` (the temporary directory by default).

    Raises EnvironmentLacking `tracing-refused` if that does not work.
    """
    from pipeline.sandbox.traced.inode_records import InodeRecords
    from pipeline.sandbox.traced.recorded_tree import RecordedTree
    from pipeline.sandbox.traced.syscall_filter import FILTER_MACHINE
    from pipeline.sandbox.traced.traced_session import traced_session

    machine = platform.machine()
    if machine != FILTER_MACHINE:
        raise EnvironmentLacking(
            "tracing-refused",
            f"scriptlets cannot be traced on {machine}, only on {FILTER_MACHINE}",
            hint="run relbuild as root, or as a user with subordinate IDs",
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix="relbuild-trial-") as made:
        real = Path(made).resolve()  # Look-ups compare paths with the kernel's, which have no symlinks.
        root, beside = real / "tree", real / "session"
        root.mkdir()
        beside.mkdir()
        program = root / "trial"
        program.write_bytes(_PROGRAM)
        program.chmod(0o755)
        tree = RecordedTree(root, InodeRecords(root.stat().st_dev, os.getuid()))
        with traced_session(tree, beside) as session:
            try:
                ended = session.run(["/trial"], timeout=_SECONDS)
            except BuildError as error:
                raise EnvironmentLacking(
                    "tracing-refused",
                    f"a program cannot be traced in {made}: {error.problems[0].message}",
                    hint="the folder must not be mounted noexec, and seccomp filters must be allowed",
                ) from error
    if not ended.ok:
        raise EnvironmentLacking(
            "tracing-refused",
            f"a traced program ended with status {ended.status}: its system calls were not the tracer's",
            hint="ptrace and seccomp filters must be allowed: see docs/sandbox.md, Without privileges",
        )
