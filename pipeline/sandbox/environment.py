"""What this machine has of what sandboxes need, found out by trying."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.errors import RelbuildError
from pipeline.sandbox import kernel
from pipeline.sandbox.cgroups import locate
from pipeline.sandbox.idmap import base_of, user_namespace
from pipeline.sandbox.keeper import keep
from pipeline.sandbox.overlay import mount_overlay
from pipeline.sandbox.runtime import find_runtime

_CONTROLLERS = (
    ("cpu", "limiting cores"),
    ("memory", "limiting memory"),
    ("pids", "limiting processes"),
)
_PROGRAMS = (
    ("rpm", "scriptlets in rpm's own Lua"),
    ("rpmdb", "writing the RPM database"),
    ("unshare", "user namespaces"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the machine has or lacks, and what it is needed for."""

    name: str
    ok: bool
    detail: str
    needed_for: str


def check_environment(folder: Path | None = None) -> tuple[Finding, ...]:
    """All findings. `folder` is on the file system that sandboxes will be on (the store's); without it, that of
    temporary files stands in."""
    return tuple(_findings(folder))


def _findings(folder: Path | None) -> Iterator[Finding]:
    yield _tried("OCI runtime", lambda: str(find_runtime()), "scriptlets and smoke tests")
    root = os.geteuid() == 0
    yield Finding("root", root, "yes" if root else "no: run relbuild as root", "mounting layers, limiting instances")
    yield _tried("user namespaces", _user_namespaces, "every sandbox")
    yield _tried("overlay of idmapped mounts", lambda: _overlay(folder), "every sandbox")
    yield _tried("safe path look-up", _openat2, "writing into images")
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    has_seccomp = actions.exists() and "errno" in actions.read_text().split()
    yield Finding("seccomp", has_seccomp, "yes" if has_seccomp else "not in this kernel", "every sandbox")
    yield from _cgroups()
    for program, purpose in _PROGRAMS:
        path = process.find(program)
        yield Finding(program, path is not None, str(path or "not installed: run ci/setup"), purpose)


def _tried(name: str, attempt: Callable[[], str], needed_for: str) -> Finding:
    try:
        return Finding(name, True, attempt(), needed_for)
    except RelbuildError as error:
        problem = error.problems[0]
        return Finding(name, False, problem.message + (f" → {problem.hint}" if problem.hint else ""), needed_for)
    except OSError as error:
        return Finding(name, False, str(error), needed_for)


def _user_namespaces() -> str:
    with user_namespace(base_of(0)):
        return "yes"


def _overlay(folder: Path | None) -> str:
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="relbuild-trial-") as made,
        user_namespace(base_of(0)) as userns,
        keep() as keeper,
    ):
        lower = Path(made, "lower")
        lower.mkdir()
        overlay = mount_overlay(keeper, [lower], folder=Path(made), userns=userns, base=base_of(0))
        os.close(overlay.handle)
        return f"yes, in {folder or Path(made).parent}"


def _openat2() -> str:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(kernel.openat2(root, "/", os.O_PATH, resolve=kernel.RESOLVE_IN_ROOT))
    finally:
        os.close(root)
    return "yes"


def _cgroups() -> Iterator[Finding]:
    try:
        hierarchies = locate()
    except RelbuildError as error:
        yield Finding("control groups", False, str(error), "limits")
        return
    kind = "v2" if hierarchies.version == 2 else "v1" + (", hybrid" if hierarchies.beside else "")
    yield Finding("control groups", True, kind, "limits")
    for controller, purpose in _CONTROLLERS:
        ok = hierarchies.has(controller)
        yield Finding(f"{controller} controller", ok, "yes" if ok else "not available", purpose)
    if hierarchies.version == 1:
        ok = hierarchies.has("freezer")
        yield Finding("freezer controller", ok, "yes" if ok else "not mounted", "command checks")
