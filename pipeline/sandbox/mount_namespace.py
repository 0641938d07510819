"""A thread with a private mount namespace, in which functions are run and mounts made.

Mount namespaces belong to threads, not to processes: mounts made in such a thread are visible only to it and to the
commands that it starts. Nothing needs unmounting: when the thread ends, or relbuild is killed, the mounts end with the
last process that uses them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from pipeline.errors import EnvironmentLacking
from pipeline.model.limits.tmpfs import inodes_of
from pipeline.sandbox import kernel
from pipeline.sandbox.rootless import in_user_namespace

MOUNT_BASE = Path("/run/relbuild")
"""Folder of all mount points. Empty on the host itself; in the private namespace a small tmpfs covers it. It cannot be
in the store: a container's root user must be able to traverse it, and the store is closed to it."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class MountNamespace:
    """An executor whose thread has a mount namespace of its own: `mntns.call(os.listdir, "/")`.

    The thread's working directory is its own as well.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in the namespace's thread; return or raise what it does."""
        return self._pool.submit(function, *args, **kwargs).result()

    def folder(self, name: str, mode: int = 0o755, owner: int = 0) -> Path:
        """Make a folder below MOUNT_BASE."""
        path = MOUNT_BASE / name

        def make() -> None:
            path.mkdir(parents=True)
            path.chmod(mode)
            os.chown(path, owner, owner)

        self.call(make)
        return path

    def tmpfs(self, name: str, *, size: int, mode: int, uid: int, gid: int) -> Path:
        """Mount a tmpfs of `size` bytes and `inodes_of(size)` files below MOUNT_BASE."""
        path = self.folder(name)
        options = f"size={size},nr_inodes={inodes_of(size)},mode={mode:o},uid={uid},gid={gid}"
        self.call(kernel.mount, "tmpfs", str(path), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
        return path

    def file(self, name: str, data: bytes, *, owner: int) -> Path:
        """Make a small file below MOUNT_BASE.

        A container in which it is mounted sees no path of the host in /proc/self/mountinfo, which shows a bind mount's
        source within its file system.
        """
        path = MOUNT_BASE / name

        def make() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o644)
            os.chown(path, owner, owner)

        self.call(make)
        return path

    def bind(self, source: Path, name: str, *, read_only: bool, userns: int | None = None) -> Path:
        """Bind-mount `source` at `name` below MOUNT_BASE, its ids mapped through `userns` if given.

        In a user namespace the IDs are right already, and the kernel would refuse a mapping. Returns the mount's path.
        """
        target = MOUNT_BASE / name

        def attach() -> None:
            if source.is_dir():
                target.mkdir(parents=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            kernel.move_mount(
                kernel.idmapped_clone(source, None if in_user_namespace() else userns, read_only=read_only), target
            )

        self.call(attach)
        return target


@contextlib.contextmanager
def open_mount_namespace() -> Iterator[MountNamespace]:
    """Open a private mount namespace for as long as the `with` block lasts.

    Raises EnvironmentLacking `no-mount-namespace` where the kernel does not let this user have one.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="mntns") as pool:
        try:
            pool.submit(_enter).result()
        except PermissionError as error:
            raise EnvironmentLacking(
                "no-mount-namespace",
                f"cannot create a mount namespace: {error}",
                hint="run relbuild as root, in a container with CAP_SYS_ADMIN",
            ) from error
        yield MountNamespace(pool)


def _enter() -> None:
    MOUNT_BASE.mkdir(mode=0o755, exist_ok=True)
    kernel.unshare(kernel.CLONE_NEWNS)
    # Slave: unmounts of the host propagate here, and nothing done here propagates to the host.
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SLAVE, "")
    kernel.mount("tmpfs", str(MOUNT_BASE), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    os.chdir(MOUNT_BASE)
