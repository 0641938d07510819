"""Enter a user namespace as root, for the whole of relbuild, when an ordinary user runs it.

An ordinary user gets a namespace in which it is root over its own ID and the subordinate IDs that /etc/subuid and
/etc/subgid give it (subuid(5)). There layers are unpacked with their owners, overlays mounted and containers made
as root makes them, but for what the kernel reserves for the host's own root: idmapped mounts, loop devices, and
control groups that were not delegated. Relbuild also gets a PID namespace, whose first process only waits: for
relbuild, with which it ends, so that no process that relbuild has started outlives it, even when it is killed; and for
orphaned processes, so that none stays a zombie.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipeline import process
from pipeline.errors import EnvironmentLacking, RelbuildError
from pipeline.sandbox import kernel
from pipeline.sandbox.emulation import REGISTRATIONS
from pipeline.sandbox.idmap import IDS
from pipeline.user_home import keep_home

_MAPPING_TIMEOUT = 10
"""Seconds for newuidmap, which takes a few milliseconds."""

_REASON_LIMIT = 2048
"""Bytes of an error message from the helper: less than a pipe takes at once."""


LEAF_CGROUP = "relbuild-itself"
"""A control group for relbuild's own processes: v2 limits only groups whose parent has no processes of its own."""


def own_group() -> Path:
    """Return this process's group in the v2 hierarchy; `/` if there is none.

    It is the path in /proc/self/cgroup (cgroups(7)).
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return Path(line.removeprefix("0::"))
    return Path("/")


def _leave_group() -> None:
    """Move this process into a leaf group, so that its own group can have containers' groups.

    It needs a group that was delegated to this user; otherwise nothing happens.
    """
    folder = Path("/sys/fs/cgroup") / own_group().relative_to("/") / LEAF_CGROUP
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.procs").write_text(str(os.getpid()))


@functools.cache
def in_user_namespace() -> bool:
    """Return True if this process is in a user namespace.

    There it may be root, but not the host's root.
    """
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def enter_user_namespace() -> None:
    """Become root in a new user namespace. HOME is set to the user's own where it is not set.

    Must be called before there are threads; the caller continues in another process, the second of a PID namespace,
    whose exit status becomes this one's.

    Raises EnvironmentLacking `no-sub-ids`, `no-user-namespace`.
    """
    keep_home()  # Afterwards the user's ID is root's.
    uid, gid = os.getuid(), os.getgid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)  # /etc/subuid may name a user by number (subuid(5)).
    maps = {
        "newuidmap": (uid, _subordinate(Path("/etc/subuid"), name, uid)),
        "newgidmap": (gid, _subordinate(Path("/etc/subgid"), name, uid)),
    }
    _map_ids(maps)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _leave_group()
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID)
    # Twice: the outer process stays the caller's child, the inner one is the first of the PID namespace.
    for _ in range(2):
        child = os.fork()
        if child:
            _forward_signals(child)
        kernel.die_with_parent()
    kernel.set_dumpable()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # Which the first process of a namespace does not get.
        signal.signal(signal.SIGTERM, _terminated)
    in_user_namespace.cache_clear()
    _mount()


def rootless_obstacle() -> str:
    """Return why `enter_user_namespace` would fail for this user, as far as known; "" if not."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
        for file in ("/etc/subuid", "/etc/subgid"):
            _subordinate(Path(file), name, os.getuid())
    except EnvironmentLacking as error:
        return error.problems[0].message
    except KeyError:
        return "this user is not in /etc/passwd"
    missing = [program for program in ("newuidmap", "newgidmap") if process.find_program(program) is None]
    return f"{' and '.join(missing)} not found in PATH (package uidmap or shadow-utils)" if missing else ""


def _subordinate(file: Path, name: str, uid: int) -> int:
    """Return the first ID of the user's first range of at least IDS; raise EnvironmentLacking."""
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text().splitlines():
            owner, _, rest = line.partition(":")
            first, _, count = rest.partition(":")
            if owner in (name, str(uid)) and first.isdigit() and count.isdigit() and int(count) >= IDS:
                return int(first)
    raise EnvironmentLacking(
        "no-sub-ids",
        f"{file} has no range of {IDS} subordinate IDs for user '{name}'",
        hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
    )


def _map_ids(maps: dict[str, tuple[int, int]]) -> None:
    """Enter a new user namespace with these ID maps.

    The maps are written by a helper process outside of it, with newuidmap(1).
    """
    us = os.getpid()
    begin, begun = os.pipe()
    reasons, reason = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(begun)
        said = (
            _write_maps(us, maps)
            if os.read(begin, 1)
            else "unprivileged users cannot create user namespaces on this machine"
        )
        os.write(reason, said.encode(errors="replace")[:_REASON_LIMIT])
        os._exit(0)
    os.close(begin)
    os.close(reason)
    with contextlib.suppress(OSError):
        kernel.unshare(kernel.CLONE_NEWUSER)
        os.write(begun, b"x")
    os.close(begun)
    os.waitpid(helper, 0)
    refused = os.read(reasons, _REASON_LIMIT).decode(errors="replace")
    os.close(reasons)
    if refused:
        raise EnvironmentLacking(
            "no-user-namespace",
            refused,
            hint="check user.max_user_namespaces, kernel.unprivileged_userns_clone, AppArmor's "
            "kernel.apparmor_restrict_unprivileged_userns, and that newuidmap is setuid",
        )


def _write_maps(pid: int, maps: dict[str, tuple[int, int]]) -> str:
    """Write the maps, in the helper; return why that failed, or ""."""
    try:
        for program, (own, first) in maps.items():
            words = (pid, 0, own, 1, 1, first, IDS)
            process.run([program, *(str(word) for word in words)], timeout=_MAPPING_TIMEOUT)
    except (RelbuildError, OSError) as error:
        return f"the subordinate IDs of this user cannot be mapped: {error}"
    return ""


def _mount() -> None:
    """Mount /proc for this PID namespace, and a writable /run with the host's entries.

    The emulators' registrations (binfmt_misc) are mounted below /proc, so they are mounted there again.
    """
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SLAVE, "")
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    registrations = _open_registrations()
    kernel.mount("proc", "/proc", "proc", flags | kernel.MS_NOEXEC, "")
    if registrations is not None:
        with contextlib.suppress(OSError):
            kernel.mount(f"/proc/self/fd/{registrations}", str(REGISTRATIONS), "", kernel.MS_BIND, "")
        os.close(registrations)
    old = os.open("/run", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # Without /run/relbuild, which belongs to relbuild run by root: this one makes its own.
    names = sorted(path for path in Path("/run").iterdir() if path.name != "relbuild")
    kernel.mount("tmpfs", "/run", "tmpfs", flags, "size=1m,mode=755")
    for path in names:
        source = Path(f"/proc/self/fd/{old}", path.name)
        # Entries that this user cannot mount (files of root's own) are not needed.
        with contextlib.suppress(OSError):
            if source.is_symlink():
                path.symlink_to(source.readlink())
                continue
            if source.is_dir():
                path.mkdir()
            else:
                path.touch()
            kernel.mount(str(source), str(path), "", kernel.MS_BIND | kernel.MS_REC, "")
    os.close(old)


def _open_registrations() -> int | None:
    """Open the folder of the emulators' registrations; None where it is not mounted."""
    try:
        return os.open(REGISTRATIONS, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if REGISTRATIONS.is_mount() else None
    except OSError:
        return None


def _forward_signals(child: int) -> NoReturn:
    """Forward signals to `child`, reap all children, and exit with its status.

    The process prints and reads nothing: it leaves its standard streams and its working directory, or a detached `run`
    would hold open those of the process that started it.
    """
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    watched = {signal.SIGCHLD, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    while True:
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == child:
                os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
            if not ended:
                break
        got = signal.sigwaitinfo(watched)
        # A terminal's signals come from the kernel, and reach the child by themselves.
        if got.si_signo != signal.SIGCHLD and got.si_code <= 0:
            os.kill(child, got.si_signo)


def _terminated(number: int, _: FrameType | None) -> NoReturn:
    """Handle SIGTERM by SystemExit, so that open contexts are closed."""
    raise SystemExit(128 + number)
