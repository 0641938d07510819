"""Checks of the host for `doctor`: try out all that sandboxes need, and report findings."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import process
from pipeline.archives import libarchive_version
from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limits import LIMITS
from pipeline.sandbox import kernel, loop_device
from pipeline.sandbox.cgroups import PARENT_CGROUP, mounted_hierarchies, usable_hierarchies
from pipeline.sandbox.emulation import emulated_architectures
from pipeline.sandbox.idmap import first_id_of, user_and_network_namespace, user_namespace
from pipeline.sandbox.instance_network import create_link
from pipeline.sandbox.mount_namespace import open_mount_namespace
from pipeline.sandbox.overlay import mount_overlay
from pipeline.sandbox.rootless import in_user_namespace, rootless_obstacle
from pipeline.sandbox.runtime import find_runtime
from pipeline.sandbox.traced.availability import (
    OWN_STATUS,
    lacking_capabilities,
    may_make_containers,
    require_tracing,
)

_CONTROLLERS = tuple((limit.controllers, limit.doctor) for limit in LIMITS if limit.controllers and limit.doctor)
"""Controllers under control groups v1 and v2, and what they are needed for."""

_PROGRAMS = (
    ("rpm", "rpm", "scriptlets in rpm's own Lua"),
    ("rpmdb", "rpm", "writing the RPM database"),
    ("gpg", "gnupg", "keys of repositories"),
    ("gpgv", "gpgv", "signatures of metadata and packages"),
    ("unshare", "util-linux", "user namespaces"),
    ("mke2fs", "e2fsprogs", "volumes of limited size"),
)
"""Program, the package that has it in Debian and Fedora, and what it is needed for."""

_WITHOUT = "images can be built (`build --no-smoke`), but not tested or run"


@dataclass(frozen=True, slots=True)
class HostFinding:
    """One feature that the host has or lacks, and what it is needed for."""

    name: str
    ok: bool
    detail: str
    needed_for: str


def check_host(folder: Path | None = None) -> tuple[HostFinding, ...]:
    """Return the findings of all checks.

    `folder` is on the file system that sandboxes will be on (the store's); without it, the temporary directory is
    tried.
    """
    return tuple(_findings(folder))


def _findings(folder: Path | None) -> Iterator[HostFinding]:
    yield _tried("OCI runtime", _runtime, "scriptlets and smoke tests")
    yield _privileges()
    if not may_make_containers():
        yield _tried("traced scriptlets", lambda: _tracing(folder), "builds without privileges")
    yield _tried("user namespaces", _user_namespaces, "every sandbox")
    yield _tried("overlay", lambda: _overlay(folder), "every sandbox")
    yield _tried("safe path look-up", _openat2, "writing into images")
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    has_seccomp = actions.exists() and "errno" in actions.read_text().split()
    yield HostFinding("seccomp", has_seccomp, "yes" if has_seccomp else "not in this kernel", "every sandbox")
    yield from _cgroups()
    yield _tried("network", _network, "addresses, limiting bandwidth")
    if not in_user_namespace():
        # In a user namespace there are no block devices, as the finding `privileges` says.
        yield _tried("loop devices", lambda: _loop(folder), "volumes of limited size")
    yield _other_architectures()
    yield _tried("libarchive", _archives, "reading layers and archives")
    yield from _programs()


def _programs() -> Iterator[HostFinding]:
    for program, package, purpose in _PROGRAMS:
        path = process.find_program(program)
        yield HostFinding(program, path is not None, str(path or f"not installed: install '{package}'"), purpose)


def missing_programs() -> tuple[HostFinding, ...]:
    """Return the findings of an OCI runtime and programs that are not installed."""
    found = (_tried("OCI runtime", _runtime, "scriptlets and smoke tests"), *_programs())
    return tuple(finding for finding in found if not finding.ok)


def _other_architectures() -> HostFinding:
    """Find for which other architectures images can be built and tested; none is no fault."""
    found = emulated_architectures()
    detail = f"emulated: {', '.join(found)}" if found else "none: install qemu-user-static and binfmt-support"
    return HostFinding("other architectures", True, detail, "scriptlets and smoke tests of their images")


def _runtime() -> str:
    runtime = find_runtime()
    return f"{runtime}: {runtime.isolation}"


def _privileges() -> HostFinding:
    """Find whether this process has the privileges that containers need."""
    purpose = "containers"
    if os.geteuid() != 0:
        reason = rootless_obstacle() or "no user namespace: see `user namespaces`"
        return HostFinding("privileges", False, f"not root, and {reason}; {_WITHOUT}", purpose)
    lacking = lacking_capabilities(OWN_STATUS.read_text())
    if lacking:
        detail = f"root without {', '.join(lacking)}; give the container these capabilities; {_WITHOUT}"
        return HostFinding("privileges", False, detail, purpose)
    if not in_user_namespace():
        return HostFinding("privileges", True, "root on this machine", purpose)
    return HostFinding(
        "privileges",
        True,
        "root in a user namespace (rootless); all containers share its IDs, volumes have no size limit",
        purpose,
    )


def _tracing(folder: Path | None) -> str:
    require_tracing(folder)
    return "yes: they are run by ptrace, with the digests that root's builds have"


def _tried(name: str, attempt: Callable[[], str], needed_for: str) -> HostFinding:
    try:
        return HostFinding(name, True, attempt(), needed_for)
    except RelbuildError as error:
        problem = error.problems[0]
        return HostFinding(name, False, problem.message + (f" → {problem.hint}" if problem.hint else ""), needed_for)
    except OSError as error:
        return HostFinding(name, False, str(error), needed_for)


def _base() -> int:
    return 0 if in_user_namespace() else first_id_of(0)


def _user_namespaces() -> str:
    with user_namespace(_base()):
        return "yes"


def _overlay(folder: Path | None) -> str:
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="relbuild-trial-") as made,
        user_namespace(_base()) as userns,
        open_mount_namespace() as mntns,
    ):
        lower = Path(made, "lower")
        lower.mkdir()
        overlay = mount_overlay(mntns, [lower], folder=Path(made), userns=userns, base=_base())
        os.close(overlay.handle)
        kind = "in a user namespace" if in_user_namespace() else "of idmapped mounts"
        return f"yes, {kind}, in {folder or Path(made).parent}"


def _network() -> str:
    asked = 10**6
    with user_and_network_namespace(_base()) as (_, inside), create_link(inside, _base(), asked) as link:
        if link.unlimited or link.rates() != (asked, asked):
            raise OSError(link.unlimited or f"the kernel set {link.rates()} bit/s instead of {asked}")
    return "yes, limited each way"


def _loop(folder: Path | None) -> str:
    with tempfile.NamedTemporaryFile(dir=folder, prefix="relbuild-trial-") as made:
        made.truncate(1 << 20)
        _, handle = loop_device.attach_loop_device(Path(made.name))
        os.close(handle)
    return "yes"


def _archives() -> str:
    return libarchive_version()


def _openat2() -> str:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(kernel.openat2(root, "/", os.O_PATH, resolve=kernel.RESOLVE_IN_ROOT))
    finally:
        os.close(root)
    return "yes"


def _cgroups() -> Iterator[HostFinding]:
    try:
        there, ours = mounted_hierarchies(), usable_hierarchies()
    except RelbuildError as error:
        yield HostFinding("control groups", False, str(error), "limits")
        return
    kind = "v2" if there.version == 2 else "v1" + (", hybrid" if there.beside else "")
    if not ours.version:
        names = ", ".join(controllers[there.version - 1] for controllers, _ in _CONTROLLERS)
        way = (
            "start relbuild with `systemd-run --user --scope -p Delegate=yes`"
            if there.version == 2
            else f"root can delegate a directory `{PARENT_CGROUP}` in every hierarchy (`relbuild help sandbox`)"
        )
        detail = f"{kind}, not delegated to this user: {names} limits are unenforced; {way}"
        yield HostFinding("control groups", False, detail, "limits")
        return
    yield HostFinding("control groups", True, kind, "limits")
    for controllers, purpose in _CONTROLLERS:
        controller = controllers[ours.version - 1]
        ok = ours.has(controller)
        yield HostFinding(f"{controller} controller", ok, "yes" if ok else "not available", purpose)
    if ours.version == 1:
        ok = ours.has("freezer")
        yield HostFinding("freezer controller", ok, "yes" if ok else "not mounted", "command checks")
