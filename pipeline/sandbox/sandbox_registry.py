"""Registry of sandboxes by lock files, and removal of those that a killed process left.

Every sandbox has a folder `live/ID/` and a lock file `live/ID.lock`, which its owner holds. A lock that no process
holds belongs to a relbuild that was killed: its sandbox is removed by relbuild's reaper (`supervision`), or, if that
was killed too, at the next start. Mounts need no removing, because they were made in a mount namespace that ended
(`mount_namespace`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.cgroups import (
    Cgroup,
    Hierarchies,
    list_cgroups,
    usable_hierarchies,
)
from pipeline.sandbox.idmap import ID_RANGES, first_id_of
from pipeline.sandbox.io_limits import lift_io_limits
from pipeline.sandbox.mount_namespace import MOUNT_BASE
from pipeline.sandbox.reaper import SETTLE_TIMEOUT
from pipeline.sandbox.removals import REMOVAL_ERRORS, run_removals
from pipeline.sandbox.rootless import in_user_namespace, rootless_obstacle
from pipeline.sandbox.runtime import Runtime
from pipeline.sandbox.supervision import supervise
from pipeline.store.durable_files import write_durably

_REAPER_TIMEOUT = 60.0
"""Seconds that a reaper tries to clear; it takes well under one unless a process is blocked on a disk."""

_PAUSE = 0.1
_AT_ONCE = 8
"""Sandboxes that are cleared in parallel: most of the time is waiting for the kernel."""


@dataclass(frozen=True, slots=True)
class SandboxSlot:
    """The slot of one sandbox: its name, folder, control group and ids.

    The name is unique on the host; `base` is its first ID on the host. `range` is the first ID of the range that was
    reserved for it; in a user namespace, where all containers share the user's subordinate IDs, `base` is 0 and `range`
    only a unique number.
    """

    name: str
    folder: Path
    group: Cgroup
    base: int
    range: int


@dataclass(frozen=True, slots=True)
class SandboxRegistry:
    """The sandboxes of one state folder, opened by `open_sandbox_registry`.

    `mark` is the prefix of the names of its sandboxes.
    """

    state: Path
    runtime: Runtime
    hierarchies: Hierarchies
    mark: str

    @contextlib.contextmanager
    def slot(self, label: str) -> Iterator[SandboxSlot]:
        """Make a slot for a sandbox, cleared when the block ends. `label` goes into its name."""
        if os.geteuid() != 0:
            raise EnvironmentLacking(
                "root-needed",
                "sandboxes need root, to mount layers and limit processes",
                hint="run relbuild as root, or as a user that may create user namespaces: "
                + (rootless_obstacle() or "`relbuild doctor` shows why this user may not"),
            )
        supervise(self.state)
        name = f"{self.mark}-{_plain(label)}-{secrets.token_hex(4)}"
        lock = self.state / "live" / f"{name}.lock"
        with _held(lock), _range() as first:
            folder = self.state / "live" / name
            folder.mkdir(mode=0o700)
            slot = SandboxSlot(
                name, folder, Cgroup(self.hierarchies, name, folder), 0 if in_user_namespace() else first, first
            )
            try:
                yield slot
            finally:
                self._clear(name)

    def sweep(self, tell: Callable[[str], None] = lambda text: None) -> tuple[str, ...]:
        """Clear the sandboxes that killed processes have left; return their names.

        `tell` is told of what a foreign runtime has made and cannot be removed.
        """
        return _sweep(self.state, self.hierarchies, self.mark, tell)

    def _clear(self, name: str) -> None:
        _clear(self.state, self.hierarchies, name)


def clear_orphans(state: Path) -> None:
    """Clear the sandboxes without an owner until none is left or time is over; for the reaper.

    A sandbox may be locked for a moment by another sweep, or by a command that is just being started.
    """
    if not (state / "mark").exists():
        return
    hierarchies, began = usable_hierarchies(), time.monotonic()
    while True:
        _sweep(state, hierarchies, _mark(state))
        took = time.monotonic() - began
        with _left(state) as left:
            if took > (_REAPER_TIMEOUT if left else SETTLE_TIMEOUT) or not any((state / "live").glob("*.lock")):
                return
        time.sleep(_PAUSE)


def _sweep(
    state: Path, hierarchies: Hierarchies, mark: str, tell: Callable[[str], None] = lambda text: None
) -> tuple[str, ...]:
    with _left(state) as left, ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="clear") as pool:
        # First the runtimes: one that still starts a process would put it into a group that was emptied already.
        _end_runtimes(state, left)
        failures = list(pool.map(lambda name: _try(state, hierarchies, name), left))
        cleared = [name for name, failure in zip(left, failures, strict=True) if failure is None]
    for failure in failures:
        if isinstance(failure, EnvironmentLacking) and failure.code in REMOVAL_ERRORS:
            (problem,) = failure.problems
            tell(f"{problem.place}: {problem.message}; {problem.hint}")
    # A runtime killed while it was starting may have made its group after the sandbox was cleared.
    for name in list_cgroups(hierarchies, f"{mark}-"):
        if not (state / "live" / f"{name}.lock").exists():
            with contextlib.suppress(EnvironmentLacking):
                Cgroup(hierarchies, name).remove()
    return tuple(cleared)


@contextlib.contextmanager
def _left(state: Path) -> Iterator[list[str]]:
    """Yield the names of sandboxes without an owner, with their locks held during the block."""
    with contextlib.ExitStack() as held:
        names = []
        for lock in sorted((state / "live").glob("*.lock")):
            try:
                handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            held.callback(os.close, handle)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                names.append(lock.stem)
        yield names


def _end_runtimes(state: Path, names: Collection[str]) -> None:
    """Kill the runtimes of sandboxes, found by their state folder on the command line."""
    folders = {os.fsencode(state / "live" / name / "runtime") for name in names}
    if not folders:
        return
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                if not folders.isdisjoint((path / "cmdline").read_bytes().split(b"\0")):
                    os.kill(int(path.name), signal.SIGKILL)


def _try(state: Path, hierarchies: Hierarchies, name: str) -> EnvironmentLacking | OSError | None:
    """Clear a sandbox; return the error if that failed.

    A process that cannot be killed now (blocked on a disk) is left for the next sweep.
    """
    try:
        _clear(state, hierarchies, name)
    except (EnvironmentLacking, OSError) as error:
        return error
    return None


def _clear(state: Path, hierarchies: Hierarchies, name: str) -> None:
    folder = state / "live" / name
    run_removals(folder)
    group = Cgroup(hierarchies, name, folder)
    lift_io_limits(group, folder)
    group.remove()
    if folder.exists():
        shutil.rmtree(folder)
    (state / "live" / f"{name}.lock").unlink(missing_ok=True)


@contextlib.contextmanager
def _range() -> Iterator[int]:
    """Reserve a range of IDs that no other sandbox on this host has; yield its first ID.

    The search begins at random: the container of a killed relbuild keeps its IDs until it is swept, but their lock is
    no longer held.
    """
    folder = MOUNT_BASE / "ids"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    first = secrets.randbelow(ID_RANGES)
    for slot in (*range(first, ID_RANGES), *range(first)):
        handle = os.open(folder / str(slot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        try:
            yield first_id_of(slot)
        finally:
            os.close(handle)
        return
    raise EnvironmentLacking(
        "no-free-ids", f"{ID_RANGES} sandboxes are already running", hint="wait until some have ended"
    )


def open_sandbox_registry(
    state: Path, runtime: Runtime, tell: Callable[[str], None] = lambda text: None
) -> SandboxRegistry:
    """Open or create the state folder, and clear sandboxes that killed processes left in it.

    It must be on a file system that overlayfs supports as an upper one, best the store's. `tell` is told of what cannot
    be removed. Raises EnvironmentLacking.
    """
    for folder in (state, state / "live"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = state.resolve()
    sandboxes = SandboxRegistry(state, runtime, usable_hierarchies(), _mark(state))
    sandboxes.sweep(tell)
    return sandboxes


def _mark(state: Path) -> str:
    """Return the state folder's own short name, chosen at random by the first process.

    It is synced before it is used. A damaged one is replaced: sandboxes with the old one are still found by their
    locks.
    """
    path = state / "mark"
    handle = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        mark = path.read_bytes() if path.exists() else b""
        if not re.fullmatch(b"[0-9a-f]{8}", mark):
            mark = secrets.token_hex(4).encode()
            write_durably(path, mark)
        return mark.decode()
    finally:
        os.close(handle)


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Create a lock file and hold its lock for as long as the block lasts.

    A sweep may lock and remove it between creation and lock; then it is created again.
    """
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if lock.stat().st_ino == os.fstat(handle).st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


def _plain(label: str) -> str:
    return re.sub("[^A-Za-z0-9.]+", "-", label).strip("-.")[:40] or "sandbox"
